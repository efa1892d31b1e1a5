"""Accept-Encoding, by a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evhttp._negotiation import IDENTITY, choose_coding

ALL = ("br", "zstd", "gzip")

CASES: list[tuple[str, list[str], tuple[str, ...], str]] = [
    ("absent", [], ALL, IDENTITY),
    ("empty: identity alone", [""], ALL, IDENTITY),
    ("nothing available", ["br"], (), IDENTITY),
    ("one", ["gzip"], ALL, "gzip"),
    ("ours first where the client does not care", ["gzip, deflate, br, zstd"], ALL, "br"),
    ("of what is there", ["gzip, deflate, br"], ("zstd", "gzip"), "gzip"),
    ("by weight", ["br;q=0.5, gzip;q=0.8"], ALL, "gzip"),
    ("three digits", ["br;q=0.801, gzip;q=0.8"], ALL, "br"),
    ("several lines", ["gzip;q=0.2", "br;q=0.1"], ALL, "gzip"),
    ("not acceptable", ["gzip;q=0"], ALL, IDENTITY),
    ("not acceptable, all digits", ["gzip;q=0.000, br;q=0.0"], ALL, IDENTITY),
    ("star", ["*"], ALL, "br"),
    ("star but one", ["*, br;q=0"], ALL, "zstd"),
    ("star with less", ["gzip;q=0.5, *;q=0.3"], ALL, "gzip"),
    ("star for identity too", ["gzip;q=0.1, *;q=0.5"], ("gzip",), IDENTITY),
    ("identity first", ["identity, gzip;q=0.9"], ALL, IDENTITY),
    ("identity last", ["identity;q=0.5, gzip"], ALL, "gzip"),
    ("identity is preferred to none of equal weight", ["identity, gzip"], ALL, "gzip"),
    ("no identity", ["identity;q=0, gzip;q=0.1"], ALL, "gzip"),
    ("nothing at all", ["*;q=0"], ALL, IDENTITY),
    ("nothing but one", ["*;q=0, zstd;q=0.1"], ALL, "zstd"),
    ("none that is there, and no identity", ["compress, identity;q=0"], ALL, IDENTITY),
    ("8.4.1.3 x-gzip", ["x-gzip"], ALL, "gzip"),
    ("8.4.1 without case", ["GZip;Q=1.0"], ALL, "gzip"),
    ("5.6.3 white space", ["\tgzip ;\tq=0.5 , br ; q=0.4"], ALL, "gzip"),
    ("5.6.1.2 empty elements", [",, gzip ,"], ALL, "gzip"),
    ("12.4.2 weight above one", ["br;q=1.001, gzip;q=0.1"], ALL, "gzip"),
    ("12.4.2 four digits", ["br;q=0.1234, gzip;q=0.1"], ALL, "gzip"),
    ("12.4.2 no number", ["br;q=a, gzip;q=0.1"], ALL, "gzip"),
    ("12.4.2 empty weight", ["br;q=, gzip;q=0.1"], ALL, "gzip"),
    ("12.4.2 another parameter", ["br;level=1, gzip;q=0.1"], ALL, "gzip"),
    ("12.4.2 trailing point", ["br;q=1., gzip;q=0.1"], ALL, "br"),
    ("the first of the same name counts", ["br;q=0, br"], ALL, IDENTITY),
    ("beyond 64 elements", [",".join(["a"] * 64 + ["br"])], ALL, IDENTITY),
    ("within 64 elements", [",".join(["a"] * 63 + ["br"])], ALL, "br"),
]


@pytest.mark.parametrize(
    ("values", "available", "want"), [pytest.param(v, a, w, id=f"9110-12.5.3 {i}") for i, v, a, w in CASES]
)
def test_choice(values: list[str], available: tuple[str, ...], want: str) -> None:
    assert choose_coding(values, available) == want


WEIGHT = st.integers(0, 1000)


@given(st.dictionaries(st.sampled_from([*ALL, IDENTITY, "*", "deflate"]), WEIGHT))
def test_the_choice_has_the_greatest_weight(weights: dict[str, int]) -> None:
    text = ", ".join(f"{coding};q={weight / 1000:.3f}" for coding, weight in weights.items())
    chosen = choose_coding([text], ALL)
    rest = weights.get("*", 0)
    acceptable = {coding: weights.get(coding, rest) for coding in (*ALL, IDENTITY)}
    assert acceptable[chosen] == max(acceptable.values())


@given(st.lists(st.text(alphabet="gzip;=q01. *,\t\xff\x00", max_size=60), max_size=3))
def test_any_text_is_answered(values: list[str]) -> None:
    assert choose_coding(values, ALL) in (*ALL, IDENTITY)
