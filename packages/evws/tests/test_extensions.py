"""permessage-deflate is agreed on (RFC 7692 §7.1): what a server accepts, and what a client accepts of a server."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evws import Deflate
from evws._extensions import Agreed, Extension, agree, check_answer, offer_of, read_extensions

PMD = "permessage-deflate"
WHOLE = Deflate(server_max_window_bits=15, client_max_window_bits=15)
TAKEN = Deflate(server_max_window_bits=12, client_max_window_bits=10)


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["a"], [Extension("a", [])]),
        (["a, b;c", "d"], [Extension("a", []), Extension("b", [("c", None)]), Extension("d", [])]),
        (["\ta ;\tb = c ; d=\"e\" ,f"], [Extension("a", [("b", "c"), ("d", "e")]), Extension("f", [])]),
        ([r'a; b="\c\d"'], [Extension("a", [("b", "cd")])]),
    ],
)  # fmt: skip
def test_read(values: list[str], want: list[Extension]) -> None:
    assert read_extensions(values) == want


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        ";",
        "a;",
        "a;;b",
        "a;=b",
        "a; b=",
        'a; b=""',
        'a; b="c d"',
        'a; b="c',
        "a=b",
        "(",
        "é",
        "a; b=c d",
        'a; b="\\',
    ],
)
def test_read_what_is_no_list(value: str) -> None:
    """RFC 6455 §9.1: such a handshake fails."""
    with pytest.raises(ValueError, match="Sec-WebSocket-Extensions"):
        read_extensions([value])


@given(st.lists(st.text(alphabet='ab;=,"\\ \t', max_size=12), max_size=3))
def test_read_takes_or_refuses(values: list[str]) -> None:
    try:
        found = read_extensions(values)
    except ValueError:
        return
    text = ", ".join("; ".join([name, *(k if v is None else f"{k}={v}" for k, v in rest)]) for name, rest in found)
    assert read_extensions([text]) == found


@pytest.mark.parametrize(
    ("offer", "ours", "answer"),
    [
        (PMD, WHOLE, PMD),
        (PMD, TAKEN, f"{PMD}; server_max_window_bits=12"),
        (f"{PMD}; client_max_window_bits", WHOLE, PMD),
        (f"{PMD}; client_max_window_bits", TAKEN, f"{PMD}; server_max_window_bits=12; client_max_window_bits=10"),
        (f"{PMD}; client_max_window_bits=9", TAKEN, f"{PMD}; server_max_window_bits=12; client_max_window_bits=9"),
        (f"{PMD}; client_max_window_bits=15", TAKEN, f"{PMD}; server_max_window_bits=12; client_max_window_bits=10"),
        (f"{PMD}; server_max_window_bits=15", WHOLE, f"{PMD}; server_max_window_bits=15"),
        (f"{PMD}; server_max_window_bits=8", WHOLE, f"{PMD}; server_max_window_bits=8"),
        (f'{PMD}; server_max_window_bits="10"', WHOLE, f"{PMD}; server_max_window_bits=10"),
        (f"{PMD}; server_no_context_takeover", WHOLE, f"{PMD}; server_no_context_takeover"),
        (f"{PMD}; client_no_context_takeover", WHOLE, f"{PMD}; client_no_context_takeover"),
        (PMD, Deflate(server_no_context_takeover=True, client_no_context_takeover=True, server_max_window_bits=15),
         f"{PMD}; server_no_context_takeover; client_no_context_takeover"),
        # what cannot be accepted is passed over
        (f"x-webkit-deflate-frame, {PMD}; server_max_window_bits=7, {PMD}; server_max_window_bits=9", WHOLE,
         f"{PMD}; server_max_window_bits=9"),
        ("", WHOLE, None),
        ("permessage-bzip2", WHOLE, None),
        *[(f"{PMD}; {bad}", WHOLE, None) for bad in (
            "server_max_window_bits", "server_max_window_bits=08", "server_max_window_bits=7", "server_max_window_bits=16",
            "server_max_window_bits=+9", "client_max_window_bits=7", "client_max_window_bits=16", "client_max_window_bits=012",
            "server_no_context_takeover=1", "client_no_context_takeover=true", "unknown", "unknown=1",
            "server_no_context_takeover; server_no_context_takeover", "client_max_window_bits; client_max_window_bits=9")],
    ],
)  # fmt: skip
def test_agree(offer: str, ours: Deflate, answer: str | None) -> None:
    """RFC 7692 §7.1.1 and §7.1.2."""
    chosen = agree(read_extensions([offer]), ours)
    assert (chosen and chosen[1]) == answer


def test_client_bits_are_not_told_to_who_does_not_know_them() -> None:
    """RFC 7692 §7.1.2.2: then the client may use the largest window."""
    chosen = agree(read_extensions([PMD]), TAKEN)
    assert chosen is not None
    assert chosen[0].client_max_window_bits == 15


def every() -> list[Deflate]:
    return [
        Deflate(server_no_context_takeover=a, client_no_context_takeover=b, server_max_window_bits=c, client_max_window_bits=d)
        for a, b, c, d in itertools.product((False, True), (False, True), (8, 12, 15), (8, 12, 15))
    ]  # fmt: skip


def test_both_sides_come_to_the_same() -> None:
    """Whatever the two want, server and client end with the same parameters, which neither has forbidden."""
    for server, client in itertools.product(every(), every()):
        chosen = agree(read_extensions([offer_of(client)]), server)
        assert chosen is not None
        agreed, answer = chosen
        assert check_answer([answer], client) == agreed
        for name in ("server_no_context_takeover", "client_no_context_takeover"):
            assert getattr(agreed, name) == (getattr(server, name) or getattr(client, name))
        for name in ("server_max_window_bits", "client_max_window_bits"):
            assert getattr(agreed, name) == min(getattr(server, name), getattr(client, name))


@pytest.mark.parametrize(
    ("answer", "ours", "want"),
    [
        ([], WHOLE, None),
        ([], None, None),
        ([PMD], WHOLE, Agreed()),
        ([f"{PMD}; server_max_window_bits=9; client_max_window_bits=8"], WHOLE, Agreed(False, False, 9, 8)),
        ([f"{PMD}; server_no_context_takeover"], WHOLE, Agreed(True, False, 15, 15)),
        ([f"{PMD}; client_no_context_takeover"], WHOLE, Agreed(False, True, 15, 15)),
        # a hint that the server has passed over binds us all the same
        ([f"{PMD}; server_max_window_bits=12"], TAKEN, Agreed(False, False, 12, 10)),
    ],
)
def test_answers(answer: list[str], ours: Deflate | None, want: Agreed | None) -> None:
    assert check_answer(answer, ours) == want


@pytest.mark.parametrize(
    ("answer", "ours"),
    [
        ([PMD], None),
        (["permessage-bzip2"], WHOLE),
        ([PMD, PMD], WHOLE),
        ([f"{PMD}; client_max_window_bits"], WHOLE),
        ([f"{PMD}; server_max_window_bits=16"], WHOLE),
        ([f"{PMD}; server_max_window_bits"], WHOLE),
        ([f"{PMD}; unknown"], WHOLE),
        ([f"{PMD}; server_no_context_takeover=1"], WHOLE),
        ([PMD], TAKEN),
        ([f"{PMD}; server_max_window_bits=13"], TAKEN),
        ([PMD], Deflate(server_no_context_takeover=True, server_max_window_bits=15)),
        (["a b"], WHOLE),
    ],
)
def test_answers_that_fail_the_connection(answer: list[str], ours: Deflate | None) -> None:
    with pytest.raises(ValueError, match=r"server|Sec-WebSocket-Extensions"):
        check_answer(answer, ours)


@pytest.mark.parametrize(
    "option",
    [
        {"level": 0}, {"level": 10}, {"memory_level": 0}, {"memory_level": 10}, {"threshold": -1}, {"threshold": 1.5},
        {"server_max_window_bits": 7}, {"client_max_window_bits": 16}, {"client_max_window_bits": None},
        {"server_no_context_takeover": 1},
    ],
)  # fmt: skip
def test_options_that_make_no_sense(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        Deflate(**option)
