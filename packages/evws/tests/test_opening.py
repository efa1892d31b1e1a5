"""The client's side of the handshake, without a connection."""

from __future__ import annotations

from typing import Any

import pytest

from evhttp import RequestParser, ResponseParser
from evws import HandshakeError
from evws._handshake import Offer, accept_of, read_offer
from evws._opening import check_agreement, checked_fields, checked_subprotocols, connect_head, new_key, request_head
from evws._url import parse_proxy, parse_url

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = accept_of(KEY)
AGREED = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {ACCEPT}")


def fields(*lines: str) -> Any:
    parser = ResponseParser()
    assert parser.feed("\r\n".join(["HTTP/1.1 101 x", *lines, "", ""]).encode("latin-1"))
    return parser.headers


def test_the_request_is_one_that_a_server_takes() -> None:
    parser = RequestParser()
    head = request_head(parse_url("ws://u:p@h:81/a?b"), KEY, ("v2", "v1"), [("Origin", "http://x"), ("X", "é")])
    assert parser.feed(head)
    request = parser.request
    assert (request.method, request.target, request.headers["host"]) == ("GET", "/a?b", "h:81")
    assert request.headers["authorization"] == "Basic dTpw"
    offer = read_offer(request.method, request.version, request.headers)
    assert offer == Offer(KEY, ["v2", "v1"], "http://x", [])


def test_fields_of_the_caller_take_precedence() -> None:
    head = request_head(parse_url("ws://u:p@h/"), KEY, (), [("HOST", "other"), ("authorization", "Bearer x")])
    assert head.lower().count(b"host:") == head.lower().count(b"authorization:") == 1


def test_keys_are_new_each_time() -> None:
    assert len({new_key() for _ in range(100)}) == 100


def test_the_request_to_a_proxy() -> None:
    head = connect_head(parse_url("ws://[::1]/x"), parse_proxy("http://u:p@proxy:3128"))
    assert head == b"CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\nProxy-Authorization: Basic dTpw\r\n\r\n"


@pytest.mark.parametrize(
    "pair",
    [("a b", "x"), ("", "x"), ("a:", "x"), ("a", "x\r\nb: c"), ("a", " x"), ("a", "x\0"), ("a", "x\n"), ("a", "ά")]
    + [(name, "x") for name in ("Upgrade", "connection", "Sec-WebSocket-Key", "sec-websocket-x", "Content-Length")],
)
def test_fields_that_must_not_be_sent(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no name|visible|belongs"):
        checked_fields([pair])
    with pytest.raises(ValueError, match=r"no name|visible|belongs"):
        checked_fields(dict([pair]))


@pytest.mark.parametrize("names", ["v1", ["a b"], [""], ["a", "a"], ["a,b"], ["é"]])
def test_subprotocols_that_are_none(names: Any) -> None:
    with pytest.raises(ValueError, match=r"different tokens"):
        checked_subprotocols(names)


@pytest.mark.parametrize(
    ("lines", "want"),
    [
        (AGREED, None),
        (("upgrade: WebSocket", "connection: keep-alive, upgrade", AGREED[2]), None),
        ((*AGREED, "Sec-WebSocket-Protocol: v1"), "v1"),
    ],
)
def test_agreements(lines: tuple[str, ...], want: str | None) -> None:
    assert check_agreement(fields(*lines), KEY, ("v2", "v1")) == (want, None)


NONE = [
    ("4.1-2 no Upgrade", AGREED[1:]),
    ("4.1-2 another protocol", ("Upgrade: h2c", *AGREED[1:])),
    ("4.1-2 two protocols", ("Upgrade: websocket, h2c", *AGREED[1:])),
    ("4.1-3 no Connection", (AGREED[0], AGREED[2])),
    ("4.1-3 another option", (AGREED[0], "Connection: keep-alive", AGREED[2])),
    ("4.1-4 no Accept", AGREED[:2]),
    ("4.1-4 another key's Accept", (*AGREED[:2], f"Sec-WebSocket-Accept: {accept_of('x')}")),
    ("4.1-4 two Accepts", (*AGREED, AGREED[2])),
    ("4.1-4 in other letters", (*AGREED[:2], f"Sec-WebSocket-Accept: {ACCEPT.swapcase()}")),
    ("4.1-5 an extension", (*AGREED, "Sec-WebSocket-Extensions: permessage-deflate")),
    ("4.1-6 a subprotocol of its own", (*AGREED, "Sec-WebSocket-Protocol: v3")),
    ("4.1-6 two subprotocols", (*AGREED, "Sec-WebSocket-Protocol: v2, v1")),
    ("4.1-6 two fields", (*AGREED, "Sec-WebSocket-Protocol: v2", "Sec-WebSocket-Protocol: v1")),
    ("4.1-6 in other letters", (*AGREED, "Sec-WebSocket-Protocol: V1")),
]


@pytest.mark.parametrize("lines", [pytest.param(lines, id=f"6455-{i}") for i, lines in NONE])
def test_what_is_no_agreement(lines: tuple[str, ...]) -> None:
    with pytest.raises(HandshakeError):
        check_agreement(fields(*lines), KEY, ("v2", "v1"))
