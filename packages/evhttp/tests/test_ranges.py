"""Byte ranges, by tables and beside a straightforward reading of the grammar."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evhttp._ranges import ByteRange, RangeNotSatisfiable, parse_ranges

# id, value, size, the parts; None: ignored; "416"
CASES: list[tuple[str, str, int, list[tuple[int, int]] | None | str]] = [
    ("14.1.2 first 500", "bytes=0-499", 10000, [(0, 500)]),
    ("14.1.2 second 500", "bytes=500-999", 10000, [(500, 1000)]),
    ("14.1.2 final 500", "bytes=-500", 10000, [(9500, 10000)]),
    ("14.1.2 from 9500", "bytes=9500-", 10000, [(9500, 10000)]),
    ("14.1.2 first and last byte", "bytes=0-0,-1", 10000, [(0, 1), (9999, 10000)]),
    ("14.1.2 first, middle, last 1000", "bytes= 0-999, 4500-5499, -1000", 10000, [(0, 1000), (4500, 5500), (9000, 10000)]),
    ("14.1.2 500-600, 601-999", "bytes=500-600,601-999", 10000, [(500, 1000)]),
    ("14.1.2 500-700, 601-999", "bytes=500-700,601-999", 10000, [(500, 1000)]),
    ("14.1.2 beyond the end", "bytes=9990-20000", 10000, [(9990, 10000)]),
    ("14.1.2 suffix longer than all", "bytes=-20000", 10000, [(0, 10000)]),
    ("14.1.2 zeros before", "bytes=00000000000000000000000001-2", 10, [(1, 3)]),
    ("14.1.2 more digits than any file", f"bytes=1-{'9' * 5000}", 10, [(1, 10)]),
    ("14.1.2 suffix of more digits", f"bytes=-{'9' * 5000}", 10, [(0, 10)]),
    ("14.1.2 one of two satisfiable", "bytes=20-30, 1-2", 10, [(1, 3)]),
    ("14.1.2 unit in capitals", "BYTES=0-0", 10, [(0, 1)]),
    ("14.1.2 empty elements", "bytes=,0-0, ,", 10, [(0, 1)]),
    ("14.1.2 not satisfiable", "bytes=10-", 10, "416"),
    ("14.1.2 none satisfiable", "bytes=10-11, 20-", 10, "416"),
    ("14.1.2 suffix of nothing", "bytes=-0", 10, "416"),
    ("14.1.2 more digits, not satisfiable", f"bytes={'9' * 5000}-", 10, "416"),
    ("14.1.2 of an empty file", "bytes=0-", 0, "416"),
    ("14.1.2 suffix of an empty file", "bytes=-5", 0, None),
    ("14.1.1 last before first", "bytes=5-4", 10, None),
    ("14.1.1 last before first, among good ones", "bytes=0-1,5-4", 10, None),
    ("14.1.1 lone hyphen", "bytes=-", 10, None),
    ("14.1.1 nothing", "bytes=", 10, None),
    ("14.1.1 commas alone", "bytes=,,", 10, None),
    ("14.1.1 no unit", "0-1", 10, None),
    ("14.1.1 no equals", "bytes 0-1", 10, None),
    ("14.1.1 letters", "bytes=a-b", 10, None),
    ("14.1.1 signs", "bytes=+1-2", 10, None),
    ("14.1.1 two hyphens", "bytes=1--2", 10, None),
    ("14.1.1 spaces inside", "bytes=1 - 2", 10, None),
    ("14.1.1 space before the equals", "bytes =0-1", 10, None),
    ("14.1.1 no comma", "bytes=0-1 2-3", 10, None),
    ("14.1.1 other digits", "bytes=\xb2-", 10, None),
    ("14.1 other unit", "lines=0-1", 10, None),
    ("15.3.7.2 in the order asked for", "bytes=5000-5009,0-9", 10000, [(5000, 5010), (0, 10)]),
    ("15.3.7.2 what is one stands first", "bytes=5000-5009,0-9,5005-5020", 10000, [(5000, 5021), (0, 10)]),
    ("15.3.7.2 a small gap", "bytes=0-9,138-147", 10000, [(0, 148)]),
    ("15.3.7.2 a gap that is not small", "bytes=0-9,139-148", 10000, [(0, 10), (139, 149)]),
    ("15.3.7.2 one within another", "bytes=0-999,500-510", 10000, [(0, 1000)]),
    ("17.15 the same again and again", "bytes=" + ",".join(["0-"] * 32), 10000, [(0, 10000)]),
    ("17.15 32 parts", "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 32000, 1000)), 32000,
     [(n, n + 1) for n in range(0, 32000, 1000)]),
    ("17.15 33 parts", "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 33000, 1000)), 33000, None),
    ("17.15 many commas", "bytes=0-0" + "," * 5000, 10, None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "size", "want"), [pytest.param(v, s, w, id=f"9110-{i}") for i, v, s, w in CASES])
def test_ranges(value: str, size: int, want: list[tuple[int, int]] | None | str) -> None:
    if want == "416":
        with pytest.raises(RangeNotSatisfiable):
            parse_ranges([value], size)
    else:
        assert parse_ranges([value], size) == want


def test_absent_and_repeated() -> None:
    assert parse_ranges([], 10) is None
    assert parse_ranges(["bytes=0-1", "bytes=0-1"], 10) is None


def test_content_range() -> None:
    assert ByteRange(0, 500).content_range(1234) == "bytes 0-499/1234"


SPEC = st.one_of(
    st.tuples(st.integers(0, 1500), st.one_of(st.none(), st.integers(0, 1500))),
    st.tuples(st.none(), st.integers(0, 1500)),
)


@given(st.lists(SPEC, min_size=1, max_size=12), st.integers(0, 1200))
def test_the_parts_hold_what_is_asked_for_and_little_more(
    specs: list[tuple[int | None, int | None]], size: int
) -> None:
    text = ",".join(f"{'' if first is None else first}-{'' if last is None else last}" for first, last in specs)
    valid = all(first is None or last is None or first <= last for first, last in specs)
    asked: set[int] = set()
    for first, last in specs:
        if first is None:
            asked.update(range(max(size - (last or 0), 0), size))
        else:
            asked.update(range(first, size if last is None else min(last + 1, size)))
    try:
        parts = parse_ranges([f"bytes={text}"], size)
    except RangeNotSatisfiable:
        assert valid and not asked
        return
    if not valid:
        assert parts is None
    elif parts is None:
        assert size == 0
    else:
        got = [position for part in parts for position in range(*part)]
        assert asked <= set(got)
        assert len(got) == len(set(got)), "no byte is sent twice"
        ends = sorted(parts)
        assert all(0 <= start < end <= size for start, end in parts)
        assert all(after.start - before.end > 128 for before, after in pairwise(ends))
        assert all(part.start in asked and part.end - 1 in asked for part in parts)


@given(st.text(alphabet="bytes=0123456789-, \t\xb2", max_size=60), st.integers(0, 2**63))
def test_any_text_is_answered(text: str, size: int) -> None:
    for value in (text, f"bytes={text}"):
        try:
            parts = parse_ranges([value], size)
        except RangeNotSatisfiable:
            continue
        assert parts is None or all(0 <= start < end <= size for start, end in parts)
