"""Entity tags and preconditions, by tables; the RFC's section stands in each case's id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evhttp import Headers
from evhttp._conditional import ETag, Validators, parse_etags, precondition, range_applies
from evhttp._dates import format_date

NOW = 1_700_000_000
CHANGED = NOW - 1000
AT, BEFORE, AFTER = (format_date(CHANGED + step) for step in (0, -1, 1))
STRONG = Validators(ETag("a"), CHANGED)
WEAK = Validators(ETag("a", True), CHANGED)
BARE = Validators()
NONE = Validators(exists=False)


def fields(**named: str | list[str]) -> Headers:
    lines = [
        f"\n{name.replace('_', '-')}:{value}"
        for name, given in named.items()
        for value in ([given] if isinstance(given, str) else given)
    ]
    block = ("".join(lines) + "\n").encode("latin-1")
    return Headers(block, 0, len(block))


# RFC 9110 §8.8.3.2, the table there.
@pytest.mark.parametrize(
    ("one", "other", "strongly", "weakly"),
    [
        (ETag("1", True), ETag("1", True), False, True),
        (ETag("1", True), ETag("2", True), False, False),
        (ETag("1", True), ETag("1"), False, True),
        (ETag("1"), ETag("1"), True, True),
    ],
)
def test_comparison(one: ETag, other: ETag, strongly: bool, weakly: bool) -> None:
    for a, b in ((one, other), (other, one)):
        assert (a.matches_strongly(b), a.matches_weakly(b)) == (strongly, weakly)


def test_text_of_a_tag() -> None:
    assert (str(ETag("a-1")), str(ETag("a-1", True))) == ('"a-1"', 'W/"a-1"')


TAGS = [
    ("*", "*"),
    (" * ", "*"),
    ('"a"', [ETag("a")]),
    ('W/"a"', [ETag("a", True)]),
    ('""', [ETag("")]),
    ('"a", W/"b" ,\t"c"', [ETag("a"), ETag("b", True), ETag("c")]),
    (', "a",,', [ETag("a")]),
    ('"a,b", "c"', [ETag("a,b"), ETag("c")]),
    ('"a\\"', [ETag("a\\")]),
    ('"\xe9!#~"', [ETag("\xe9!#~")]),
    ("", None),
    (",,", None),
    ("a", None),
    ('"a', None),
    ('a"', None),
    ('"a" "b"', None),
    ('w/"a"', None),
    ('W/ "a"', None),
    ('"a b"', None),
    ('"a", *', None),
    ('"a", b', None),
    ("'a'", None),
]


@pytest.mark.parametrize(("text", "want"), TAGS)
def test_parse_etags(text: str, want: object) -> None:
    assert parse_etags(text) == want


@given(st.lists(st.builds(ETag, st.text("!#$%ab,W/*\\\xff"), st.booleans()), min_size=1))
def test_tags_come_back(tags: list[ETag]) -> None:
    assert parse_etags(", ".join(map(str, tags))) == tags


@given(st.text(alphabet='*W/"ab, \t\\\x7f\xff', max_size=40))
def test_any_text_is_a_list_or_none(text: str) -> None:
    tags = parse_etags(text)
    if isinstance(tags, list):
        assert parse_etags(", ".join(map(str, tags))) == tags
    precondition("GET", fields(if_match=text, if_none_match=text, if_range=text), STRONG, NOW)


# id, method, fields, what is there, the answer
CASES: list[tuple[str, str, dict[str, str | list[str]], Validators, int]] = [
    ("13.2.2 nothing asked", "GET", {}, STRONG, 200),
    ("13.1.1 matches", "PUT", {"if_match": '"a"'}, STRONG, 200),
    ("13.1.1 one of several", "PUT", {"if_match": ['"x"', '"b", "a"']}, STRONG, 200),
    ("13.1.1 does not match", "PUT", {"if_match": '"b"'}, STRONG, 412),
    ("13.1.1 for GET too", "GET", {"if_match": '"b"'}, STRONG, 412),
    ("13.1.1 weak never matches", "PUT", {"if_match": 'W/"a"'}, STRONG, 412),
    ("13.1.1 nor does a weak one of ours", "PUT", {"if_match": '"a"'}, WEAK, 412),
    ("13.1.1 star", "PUT", {"if_match": "*"}, STRONG, 200),
    ("13.1.1 star and nothing there", "PUT", {"if_match": "*"}, NONE, 412),
    ("13.1.1 star without a tag of ours", "PUT", {"if_match": "*"}, BARE, 200),
    ("13.1.1 without a tag of ours", "PUT", {"if_match": '"a"'}, BARE, 412),
    ("13.1.1 broken", "PUT", {"if_match": '"a'}, STRONG, 412),
    ("13.1.2 matches, GET", "GET", {"if_none_match": '"a"'}, STRONG, 304),
    ("13.1.2 matches, HEAD", "HEAD", {"if_none_match": '"a"'}, STRONG, 304),
    ("13.1.2 matches, PUT", "PUT", {"if_none_match": '"a"'}, STRONG, 412),
    ("13.1.2 weak matches", "GET", {"if_none_match": 'W/"a"'}, STRONG, 304),
    ("13.1.2 weak one of ours", "GET", {"if_none_match": '"x", "a"'}, WEAK, 304),
    ("13.1.2 other", "GET", {"if_none_match": '"b"'}, STRONG, 200),
    ("13.1.2 star", "PUT", {"if_none_match": "*"}, STRONG, 412),
    ("13.1.2 star, GET", "GET", {"if_none_match": "*"}, STRONG, 304),
    ("13.1.2 star and nothing there", "PUT", {"if_none_match": "*"}, NONE, 200),
    ("13.1.2 broken", "GET", {"if_none_match": "a"}, STRONG, 200),
    ("13.1.2 without a tag of ours", "GET", {"if_none_match": '"a"'}, BARE, 200),
    ("13.1.3 the same second", "GET", {"if_modified_since": AT}, STRONG, 304),
    ("13.1.3 later", "HEAD", {"if_modified_since": AFTER}, STRONG, 304),
    ("13.1.3 earlier", "GET", {"if_modified_since": BEFORE}, STRONG, 200),
    ("13.1.3 not for PUT", "PUT", {"if_modified_since": AT}, STRONG, 200),
    ("13.1.3 no date", "GET", {"if_modified_since": "yesterday"}, STRONG, 200),
    ("13.1.3 two dates", "GET", {"if_modified_since": [AT, AT]}, STRONG, 200),
    ("13.1.3 no date of ours", "GET", {"if_modified_since": AT}, BARE, 200),
    ("13.1.3 ignored beside If-None-Match", "GET", {"if_none_match": '"b"', "if_modified_since": AT}, STRONG, 200),
    ("13.1.3 ignored beside a broken one too", "GET", {"if_none_match": "b", "if_modified_since": AT}, STRONG, 200),
    ("13.1.4 the same second", "PUT", {"if_unmodified_since": AT}, STRONG, 200),
    ("13.1.4 earlier", "PUT", {"if_unmodified_since": BEFORE}, STRONG, 412),
    ("13.1.4 for GET too", "GET", {"if_unmodified_since": BEFORE}, STRONG, 412),
    ("13.1.4 no date", "PUT", {"if_unmodified_since": "x"}, STRONG, 200),
    ("13.1.4 no date of ours", "PUT", {"if_unmodified_since": BEFORE}, BARE, 200),
    ("13.1.4 ignored beside If-Match", "PUT", {"if_match": '"a"', "if_unmodified_since": BEFORE}, STRONG, 200),
    ("13.2.2 step 1 before step 3", "GET", {"if_match": '"b"', "if_none_match": '"a"'}, STRONG, 412),
    ("13.2.2 step 1 and then step 3", "GET", {"if_match": '"a"', "if_none_match": '"a"'}, STRONG, 304),
    ("13.2.2 step 2 before step 4", "GET", {"if_unmodified_since": BEFORE, "if_modified_since": AT}, STRONG, 412),
    ("13.2.2 step 2 and then step 3", "GET", {"if_unmodified_since": AT, "if_none_match": '"a"'}, STRONG, 304),
    ("13.2.2 step 1 and then step 4", "GET", {"if_match": '"a"', "if_modified_since": AT}, STRONG, 304),
]


@pytest.mark.parametrize(
    ("method", "named", "current", "want"), [pytest.param(m, f, c, w, id=f"9110-{i}") for i, m, f, c, w in CASES]
)
def test_precondition(method: str, named: dict[str, str | list[str]], current: Validators, want: int) -> None:
    assert precondition(method, fields(**named), current, NOW) == want


OLD = Validators(ETag("a"), NOW - 1)
YOUNG = Validators(ETag("a"), NOW)


@pytest.mark.parametrize(
    ("value", "current", "want"),
    [
        pytest.param([], STRONG, True, id="9110-13.1.5 absent"),
        pytest.param(['"a"'], STRONG, True, id="9110-13.1.5 the same tag"),
        pytest.param(['"b"'], STRONG, False, id="9110-13.1.5 another tag"),
        pytest.param(['W/"a"'], STRONG, False, id="9110-13.1.5 a weak tag"),
        pytest.param(['"a"'], WEAK, False, id="9110-13.1.5 a weak tag of ours"),
        pytest.param(['W/"a"'], WEAK, False, id="9110-13.1.5 both weak"),
        pytest.param(['"a", "b"'], STRONG, False, id="9110-13.1.5 a list"),
        pytest.param(['"a"', '"a"'], STRONG, False, id="9110-13.1.5 twice"),
        pytest.param(['"a" '], STRONG, False, id="9110-13.1.5 something behind the tag"),
        pytest.param(["*"], STRONG, False, id="9110-13.1.5 star"),
        pytest.param(["a"], STRONG, False, id="9110-13.1.5 neither tag nor date"),
        pytest.param(['"a"'], BARE, False, id="9110-13.1.5 no tag of ours"),
        pytest.param([AT], STRONG, True, id="9110-13.1.5 the same date"),
        pytest.param([AFTER], STRONG, False, id="9110-13.1.5 a later date"),
        pytest.param([BEFORE], STRONG, False, id="9110-13.1.5 an earlier date"),
        pytest.param([AT], BARE, False, id="9110-13.1.5 no date of ours"),
        pytest.param([format_date(NOW - 1)], OLD, True, id="9110-8.8.2.2 a second ago"),
        pytest.param([format_date(NOW)], YOUNG, False, id="9110-8.8.2.2 in this second"),
    ],
)
def test_if_range(value: list[str], current: Validators, want: bool) -> None:
    assert range_applies(fields(if_range=value), current, NOW) is want


def test_no_order_of_lines_matters() -> None:
    for _, method, named, current, want in CASES:
        assert precondition(method, fields(**dict(reversed(named.items()))), current, NOW) == want
