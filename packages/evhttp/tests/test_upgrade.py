"""Requests that offer an upgrade, answered in HTTP; how one is accepted is tested by the packages whose protocols take over."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evhttp
from evhttp import HeaderError, Request, Response, ResponseStateError
from evhttp._link import capi_address

Serve = Callable[..., Any]
OFFER = b"GET /offer HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def test_an_offer_is_alone_on_its_connection(serve: Serve) -> None:
    """It is looked at when those before it have been answered, and what follows when it has been, all in one packet."""
    seen: list[list[str]] = []

    def handler(req: Request, res: Response) -> None:
        arena = res._server.loop.arena  # one for each turn
        if not seen or turns[-1] is not arena:
            seen.append([])
            turns.append(arena)
        seen[-1].append(req.path)
        res.send(req.path)

    turns: list[bytes] = []
    client = serve(handler).connect()
    client.send(get("/1") + get("/2") + OFFER + get("/3") + OFFER + OFFER + get("/4") + get("/5"))
    for path in (b"/1", b"/2", b"/offer", b"/3", b"/offer", b"/offer", b"/4", b"/5"):
        answer = client.answer()
        assert (answer.status, answer.body) == (200, path)
    assert seen == [["/1", "/2"], ["/offer"], ["/3"], ["/offer"], ["/offer"], ["/4", "/5"]]


@pytest.mark.parametrize("cut", range(1, len(OFFER)))
def test_an_offer_in_two_pieces_behind_another_request(serve: Serve, cut: int) -> None:
    running = serve(lambda req, res: res.send(req.path))
    client = running.connect()
    client.send(get("/1") + OFFER[:cut])
    assert client.answer().body == b"/1"
    client.send(OFFER[cut:] + get("/2"))
    assert [client.answer().body for _ in range(2)] == [b"/offer", b"/2"]


def test_an_offer_that_closes(serve: Serve) -> None:
    client = serve(lambda req, res: res.close_connection().send(req.path)).connect()
    client.send(OFFER + get("/2"))
    assert client.answer().body == b"/offer"
    assert client.at_end()


def test_hand_over_counts_as_the_answer(serve: Serve) -> None:
    got: list[Any] = []

    def handler(req: Request, res: Response) -> None:
        token = res._record[3]
        assert res.header("X", "y").hand_over() == (token, b"X: y\r\n")
        got.append((res.sent, res.status_code, req.path, req.headers["host"], req.client, len(req._arena)))
        for again in (res.hand_over, res.send):
            with pytest.raises(ResponseStateError):
                again()
        res._lines = None  # as if it had not been: the client is waiting
        res.status(200).send("after all")

    client = serve(handler).connect()
    client.send(get("/a?b") * 1 + OFFER * 3)
    for path in ("/a", "/offer", "/offer", "/offer"):
        assert client.answer().body == b"after all"
        sent, status, seen, host, address, size = got.pop(0)
        assert (sent, status, seen, host, address[0]) == (True, 101, path, "a", "127.0.0.1")
        assert size < 200


def test_a_request_behind_one_that_was_handed_over(stepped: Serve) -> None:
    """In the same turn, of another connection: it has its own bytes, though nobody has kept the other's object."""
    seen: list[str] = []

    def handler(req: Request, res: Response) -> None:
        if req.path == "/offer":
            token, _ = res.hand_over()
            running.server.end_connection(int.from_bytes(token, "little"), abort=True)  # nobody takes it
        else:
            seen.append(f"{req.path} {req.headers['host']}")
            res.send(req.path)

    running = stepped(handler)
    clients = running.connect(6)
    for number, client in enumerate(clients):
        client.send(get(f"/{number}") if number % 2 else OFFER)
    running.until(lambda: len(seen) == 3)
    assert sorted(seen) == ["/1 a", "/3 a", "/5 a"]
    running.until(lambda: running.server.connections == 3)


def test_upgrade_required(serve: Serve) -> None:
    """RFC 9110 §15.5.22 and §7.8: the answer names the protocol, and Connection names Upgrade."""

    def handler(req: Request, res: Response) -> None:
        for bad in ("", "a b", "a/", "a/1/2", "a\r\nb", "a,,b"):
            with pytest.raises(HeaderError):
                res.upgrade_required(bad)
        res.header("X", "y").upgrade_required("a/1, b").send("no")

    client = serve(handler).connect()
    answer = client.get()
    assert (answer.status, answer.body) == (426, b"no")
    assert (answer.get("upgrade"), answer.get("connection"), answer.get("x")) == ("a/1, b", "Upgrade", "y")
    assert client.get().status == 426


def test_capi() -> None:
    """The table that other shims get: its version is what the installed header says."""
    header = Path(evhttp.get_include(), "evhttp.h").read_text()
    version = (ctypes.c_uint32 * 2).from_address(evhttp.capi_address())
    assert evhttp.capi_address() == capi_address()
    for name, number in zip(("MAJOR", "MINOR"), version, strict=True):
        assert f"#define EVHTTP_CAPI_{name} {number}\n" in header
