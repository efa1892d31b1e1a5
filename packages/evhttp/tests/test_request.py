"""A request as the handler sees it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from evhttp import Limits, Request, Response

Serve = Callable[..., Any]
BLOB = random.Random(3).randbytes(1_048_576)


class Kept:
    """A handler that keeps every request, and answers with nothing."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, req: Request, res: Response) -> None:
        self.requests.append(req)
        res.send()


@pytest.fixture
def kept() -> Kept:
    return Kept()


def ask(serve: Serve, kept: Kept, data: bytes, **limits: Any) -> Request:
    client = serve(kept, limits=Limits(**limits)).connect()
    assert client.send(data).answer().status == 200
    return kept.requests[-1]


def test_what_a_browser_sends(serve: Serve, kept: Kept) -> None:
    running = serve(kept)
    client = running.connect()
    client.get("/a%20b/c?x=1&y=%C3%A4&x=2", "User-Agent: Test/1.0", "Accept:  */*\t", "X-Two: 1", "x-two: 2")
    (req,) = kept.requests
    assert req.method == "GET"
    assert req.target == "/a%20b/c?x=1&y=%C3%A4&x=2"
    assert req.path == "/a%20b/c"
    assert req.query_string == "x=1&y=%C3%A4&x=2"
    assert req.query.get_all("x") == ["1", "2"]
    assert req.query["y"] == "ä"
    assert req.version == "1.1"
    assert req.headers["user-agent"] == "Test/1.0"
    assert req.headers["Accept"] == "*/*"
    assert req.headers.get_all("X-TWO") == ["1", "2"]
    assert req.headers.items()[0] == ("host", "a")
    assert req.body == b""
    assert req.client == client.sock.getsockname()
    assert repr(req) == "<GET /a%20b/c?x=1&y=%C3%A4&x=2: 200 sent>"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_methods(serve: Serve, kept: Kept, method: str) -> None:
    req = ask(serve, kept, f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert req.method == method


@pytest.mark.parametrize(
    ("line", "path", "query"),
    [
        pytest.param("GET /", "/", "", id="9112-3.2.1-root"),
        pytest.param("GET /?", "/", "", id="9112-3.2.1-empty-query"),
        pytest.param("GET /a?b?c", "/a", "b?c", id="9112-3.2.1-two-question-marks"),
        pytest.param("GET //a//b", "//a//b", "", id="9112-3.2.1-slashes"),
        pytest.param("GET http://host", "/", "", id="9112-3.2.2-no-path"),
        pytest.param("GET http://host?x=1", "/", "x=1", id="9112-3.2.2-no-path-but-query"),
        pytest.param("GET http://host/a/b?x", "/a/b", "x", id="9112-3.2.2-path"),
        pytest.param("GET HTTPS://u:p@host:1/a", "/a", "", id="9112-3.2.2-userinfo"),
        pytest.param("CONNECT host:80", "", "", id="9112-3.2.3-authority"),
        pytest.param("OPTIONS *", "*", "", id="9112-3.2.4-asterisk"),
    ],
)
def test_targets(serve: Serve, kept: Kept, line: str, path: str, query: str) -> None:
    try:
        req = ask(serve, kept, f"{line} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    except AssertionError:
        assert line.startswith("CONNECT")  # if it is refused before it reaches a handler, that is fine too
        return
    assert req.target == line.split(" ")[1]
    assert (req.path, req.query_string) == (path, query)


def test_a_long_target(serve: Serve, kept: Kept) -> None:
    target = "/" + "a" * 50_000 + "?" + "b" * 9_900
    req = ask(serve, kept, f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), max_request_line=60_000)
    assert req.target == target
    assert len(req.path) == 50_001
    assert req.query_string == "b" * 9_900


def test_http_1_0(serve: Serve, kept: Kept) -> None:
    req = ask(serve, kept, b"GET /x HTTP/1.0\r\n\r\n")
    assert req.version == "1.0"
    assert req.headers.items() == []
    assert "host" not in req.headers


SIZES = [0, 1, 1000, 64 * 1024, 256 * 1024, 256 * 1024 + 1, 300 * 1024, 1_048_576]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("coding", ["length", "chunked", "chunks of 1000"])
def test_bodies(serve: Serve, kept: Kept, size: int, coding: str) -> None:
    """Up to the default limit; above 256 KiB the body does not go through the arena."""
    body = BLOB[:size]
    head = b"POST /here?q=1 HTTP/1.1\r\nHost: a\r\nX: y\r\n"
    if coding == "length":
        data = head + b"Content-Length: %d\r\n\r\n" % size + body
    else:
        step = 1000 if coding == "chunks of 1000" else max(size, 1)
        chunks = b"".join(
            b"%x\r\n%s\r\n" % (len(body[at : at + step]), body[at : at + step]) for at in range(0, size, step)
        )
        data = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    running = serve(kept)
    client = running.connect()
    assert client.send(data).answer().status == 200
    assert client.get("/next").status == 200
    first, second = kept.requests
    assert first.body == body
    assert first.path == "/here"
    assert first.query_string == "q=1"
    assert first.headers["x"] == "y"
    assert first.client == client.sock.getsockname()
    assert second.path == "/next"
    assert second.body == b""


def test_a_request_stays_valid(serve: Serve, kept: Kept) -> None:
    """Each is a view of its own batch, which later ones do not change."""
    running = serve(kept)
    client = running.connect()
    for number in range(50):
        client.send(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n%02d" % (number, number)).answer()
    assert [req.path for req in kept.requests] == [f"/{number}" for number in range(50)]
    assert [req.body for req in kept.requests] == [b"%02d" % number for number in range(50)]


def test_the_neighbours_of_a_large_body(serve: Serve, kept: Kept) -> None:
    """The large one has an arena of its own; those around it in the batch keep theirs."""
    running = serve(kept)
    client = running.connect()
    big = b"POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + BLOB[:300_000]
    small = b"POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    client.send(small + big + small + big + small)
    for _ in range(5):
        assert client.answer().status == 200
    assert [req.body for req in kept.requests] == [b"hello", BLOB[:300_000], b"hello", BLOB[:300_000], b"hello"]
