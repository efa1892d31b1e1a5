"""What a handler says, and what of it reaches the client."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evhttp import HeaderError, Request, Response, ResponseStateError
from evloop.testing import open_descriptors

Serve = Callable[..., Any]
BLOB = random.Random(4).randbytes(20_000_000)
H = b"Host: a\r\n"


def once(serve: Serve, handler: Callable[[Request, Response], object], method: str = "GET") -> Any:
    client = serve(handler).connect()
    answer = client.send(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode()).answer(head=method == "HEAD")
    # Whatever was sent, the connection is in step behind it.
    again = client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").answer(head=True)
    assert again.status == answer.status
    return answer


def test_a_plain_answer(serve: Serve) -> None:
    answer = once(serve, lambda req, res: res.send(b"Hello, World!"))
    assert answer.status == 200
    assert answer.body == b"Hello, World!"
    assert sorted(name for name, _ in answer.headers) == ["content-length", "content-type", "date"]
    assert answer.get("content-type") == "application/octet-stream"


def test_text(serve: Serve) -> None:
    answer = once(serve, lambda req, res: res.send("Grüße"))
    assert answer.body == "Grüße".encode()
    assert answer.get("content-type") == "text/plain; charset=utf-8"


def test_a_content_type_of_the_handler_s(serve: Serve) -> None:
    answer = once(serve, lambda req, res: res.header("content-TYPE", "text/html").send("x"))
    assert answer.get("content-type") == "text/html"


@pytest.mark.parametrize(
    "body",
    [bytearray(b"abc"), memoryview(b"xabcx")[1:4], memoryview(b"aXbXcX")[::2]],
    ids=["bytearray", "view", "strided"],
)
def test_bytes_likes(serve: Serve, body: Any) -> None:
    assert once(serve, lambda req, res: res.send(body)).body == b"abc"


def test_date(serve: Serve) -> None:
    """RFC 9110 §5.6.7; of now."""
    date = once(serve, lambda req, res: res.send()).get("date")
    parsed = time.mktime(time.strptime(date, "%a, %d %b %Y %H:%M:%S GMT")) - time.mktime(time.gmtime())
    assert abs(parsed) < 5
    assert re.fullmatch(
        r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT",
        date,
    )


def test_a_date_of_the_handler_s(serve: Serve) -> None:
    answer = once(serve, lambda req, res: res.header("DATE", "Mon, 01 Jan 2001 00:00:00 GMT").send())
    assert answer.get("date") == "Mon, 01 Jan 2001 00:00:00 GMT"


def test_headers_in_order_and_repeated(serve: Serve) -> None:
    answer = once(
        serve,
        lambda req, res: (
            res.header("X-B", "1").header("Set-Cookie", "a=1").header("Set-Cookie", "b=2").header("X-A", "").send()
        ),
    )
    mine = [pair for pair in answer.headers if pair[0] not in ("date", "content-length", "content-type")]
    assert mine == [("x-b", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-a", "")]


@pytest.mark.parametrize("status", [200, 201, 299, 302, 404, 418, 499, 500, 599])
def test_statuses(serve: Serve, status: int) -> None:
    answer = once(serve, lambda req, res: res.status(status).send(b"x"))
    assert answer.status == status
    assert answer.body == b"x"


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("body", [b"", b"not sent", BLOB[:100_000]], ids=["empty", "small", "large"])
def test_statuses_without_a_body(serve: Serve, status: int, body: bytes) -> None:
    """RFC 9110 §15.3.5, §15.4.5; with 204 no length either (§8.6), and an empty 304 does not say that the body is empty."""
    answer = once(serve, lambda req, res: res.status(status).send(body))
    assert answer.status == status
    assert answer.get("content-length") == (str(len(body)) if status == 304 and body else None)
    assert answer.get("content-type") is None


@pytest.mark.parametrize("status", [-1, 0, 100, 101, 199, 600, 1023, 1 << 20])
def test_statuses_that_are_none(serve: Serve, status: int) -> None:
    def handler(req: Request, res: Response) -> None:
        with pytest.raises(ValueError, match="status"):
            res.status(status)
        res.send(b"fine")

    answer = once(serve, handler)
    assert (answer.status, answer.body) == (200, b"fine")


@pytest.mark.parametrize("size", [0, 1, 64, 65, 2047, 2048, 32 * 1024 - 1, 32 * 1024, 300_000])
def test_head_has_the_length_and_no_body(serve: Serve, size: int) -> None:
    """RFC 9110 §9.3.2."""
    running = serve(lambda req, res: res.send(BLOB[:size]))
    client = running.connect()
    client.send(b"HEAD / HTTP/1.1\r\n" + H + b"\r\n")
    head = client.answer(head=True)
    assert head.get("content-length") == str(size)
    assert client.get().body == BLOB[:size]
    running.until(lambda: not running.server._pins)


@pytest.mark.parametrize("size", [64, 65, 2047, 2048, 4000, 32 * 1024 - 1, 32 * 1024, 100_000, 5_000_000])
@pytest.mark.parametrize("headers", [False, True], ids=["bare", "header"])
def test_bodies_of_every_path(serve: Serve, size: int, headers: bool) -> None:
    def handler(req: Request, res: Response) -> None:
        if headers:
            res.header("X-Y", "z")
        res.send(BLOB[:size])

    running = serve(handler)
    client = running.connect()
    for _ in range(3):
        answer = client.get()
        assert answer.body == BLOB[:size]
        assert answer.get("x-y") == ("z" if headers else None)
    running.until(lambda: not running.server._pins)


# -- header injection -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("X", "a\r\nSet-Cookie: evil=1", id="9110-5.5-crlf"),
        pytest.param("X", "a\nY: b", id="9110-5.5-lf"),
        pytest.param("X", "a\rY: b", id="9110-5.5-cr"),
        pytest.param("X", "a\n", id="9110-5.5-lf-at-the-end"),
        pytest.param("X", "a\r\n\r\n<html>", id="9110-5.5-body"),
        pytest.param("X", "a\x00", id="9110-5.5-nul"),
        pytest.param("X", "a\x0bb", id="9110-5.5-vt"),
        pytest.param("X", "a\x7f", id="9110-5.5-del"),
        pytest.param("X", " a", id="9110-5.5-leading-space"),
        pytest.param("X", "a\t", id="9110-5.5-trailing-tab"),
        pytest.param("X", "\u20ac", id="9110-5.5-beyond-latin-1"),
        pytest.param("X", "\u0100\u010a", id="9110-5.5-low-byte-is-lf"),
        pytest.param("X: a\r\nY", "b", id="9110-5.1-crlf-in-name"),
        pytest.param("X\n", "b", id="9110-5.1-lf-behind-name"),
        pytest.param("X Y", "b", id="9110-5.1-space-in-name"),
        pytest.param("X:", "b", id="9110-5.1-colon-in-name"),
        pytest.param("", "b", id="9110-5.1-empty-name"),
        pytest.param("Ä", "b", id="9110-5.1-name-beyond-ascii"),
        pytest.param("Content-Length", "5", id="9112-6.2-length"),
        pytest.param("transfer-encoding", "chunked", id="9112-6.1-coding"),
        pytest.param("Connection", "close", id="9110-7.6.1-connection"),
        pytest.param("Upgrade", "h2c", id="9110-7.8-upgrade"),
    ],
)
def test_header_injection_is_refused(serve: Serve, name: str, value: str) -> None:
    def handler(req: Request, res: Response) -> None:
        with pytest.raises(HeaderError):
            res.header(name, value)
        res.send(b"fine")

    answer = once(serve, handler)
    assert answer.body == b"fine"
    assert len(answer.headers) == 3


def test_the_status_and_text_cannot_inject(serve: Serve) -> None:
    answer = once(serve, lambda req, res: res.send("\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"))
    assert answer.body == b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"


# -- order of calls -------------------------------------------------------------------------------------------------------------


def test_twice_is_refused_and_the_first_counts(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")

    def handler(req: Request, res: Response) -> None:
        assert not res.sent
        res.send(b"first")
        assert res.sent
        for again in (
            lambda: res.send(b"second"),
            lambda: res.send("second"),
            lambda: res.send(BLOB),
            lambda: res.send_file(tmp_path / "file"),
            lambda: res.header("X", "y"),
        ):
            with pytest.raises(ResponseStateError, match="already"):
                again()

    assert once(serve, handler).body == b"first"


@pytest.mark.parametrize("body", [None, 5, ["a"], object()], ids=lambda value: type(value).__name__)
def test_bodies_of_a_wrong_type(serve: Serve, body: Any) -> None:
    def handler(req: Request, res: Response) -> None:
        with pytest.raises(TypeError, match="body must be"):
            res.send(body)
        res.send(b"fine")

    assert once(serve, handler).body == b"fine"


def test_a_response_kept_and_used_too_late(serve: Serve, logged: Any) -> None:
    """The handler has returned without an answer, so 500 was sent for it; its own comes too late, and harms nobody."""
    kept: list[Response] = []
    running = serve(lambda req, res: kept.append(res) if req.path == "/keep" else res.send(b"other"))
    client = running.connect()
    assert client.get("/keep").status == 500
    assert "without an answer" in logged.take()[0].getMessage()
    with pytest.raises(ResponseStateError):
        kept[0].send(b"late")
    assert client.get().body == b"other"


def test_repr_and_status_code(serve: Serve) -> None:
    seen: list[str] = []

    def handler(req: Request, res: Response) -> None:
        seen.append(repr(res.status(404)))
        assert res.status_code == 404
        res.send()
        seen.append(repr(res))

    once(serve, handler)
    assert seen[:2] == ["<GET /: 404>", "<GET /: 404 sent>"]


def test_drop(serve: Serve) -> None:
    running = serve(lambda req, res: res.drop())
    client = running.connect()
    client.send(b"GET / HTTP/1.1\r\n" + H + b"\r\n")
    with pytest.raises(ConnectionResetError):
        client.at_end()
    running.until(lambda: running.server.connections == 0)


def test_close_connection(serve: Serve) -> None:
    running = serve(lambda req, res: res.close_connection().send(b"last"))
    client = running.connect()
    answer = client.get()
    assert (answer.body, answer.get("connection")) == (b"last", "close")
    assert client.at_end()


def test_close_connection_drops_what_is_pipelined_behind(serve: Serve) -> None:
    paths: list[str] = []

    def handler(req: Request, res: Response) -> None:
        paths.append(req.path)
        if req.path == "/1":
            res.close_connection()
        res.send(req.path)

    running = serve(handler)
    client = running.connect()
    client.send(b"".join(b"GET /%d HTTP/1.1\r\n" % number + H + b"\r\n" for number in range(5)))
    assert [client.answer().body for _ in range(2)] == [b"/0", b"/1"]
    assert client.at_end()


# -- borrowed memory and files --------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(BLOB)
    return path


def test_send_file(serve: Serve, file: Path) -> None:
    def handler(req: Request, res: Response) -> None:
        offset, count = (int(req.query[name]) if name in req.query else None for name in ("offset", "count"))
        res.header("X-Y", "z").send_file(str(file) if req.path == "/str" else file, offset=offset or 0, count=count)

    running = serve(handler)
    before = open_descriptors()
    client = running.connect()
    assert client.get("/").body == BLOB
    assert client.get("/str?offset=5&count=1000").body == BLOB[5:1005]
    assert client.get("/?offset=19999999").body == BLOB[-1:]
    assert client.get("/?offset=20000000").body == b""
    assert client.get("/?count=0").body == b""
    answer = client.send(b"HEAD /?count=77 HTTP/1.1\r\n" + H + b"\r\n").answer(head=True)
    assert answer.get("content-length") == "77"
    assert answer.get("content-type") == "application/octet-stream"
    assert answer.get("x-y") == "z"
    client.close()
    running.until(lambda: running.server.connections == 0)
    assert open_descriptors() == before


def test_send_file_takes_a_descriptor_over(serve: Serve, file: Path) -> None:
    running = serve(lambda req, res: res.send_file(os.open(file, os.O_RDONLY), offset=1, count=2))
    before = open_descriptors()
    client = running.connect()
    assert client.get().body == BLOB[1:3]
    client.close()
    running.until(lambda: running.server.connections == 0)
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (lambda path: ((path / "missing",), {}), FileNotFoundError),
        (lambda path: ((path,), {}), ValueError),
        (lambda path: (("/dev/null",), {}), ValueError),
        (lambda path: ((path / "file",), {"offset": -1}), ValueError),
        (lambda path: ((path / "file",), {"offset": len(BLOB) + 1}), ValueError),
        (lambda path: ((path / "file",), {"count": len(BLOB) + 1}), ValueError),
        (lambda path: ((path / "file",), {"count": -1}), ValueError),
    ],
    ids=["missing", "folder", "device", "offset-below", "offset-beyond", "count-beyond", "count-below"],
)
def test_files_that_cannot_be_sent(serve: Serve, file: Path, arguments: Any, error: type[Exception]) -> None:
    before: list[set[int]] = []

    def handler(req: Request, res: Response) -> None:
        before.append(open_descriptors())
        args, keywords = arguments(file.parent)
        with pytest.raises(error):
            res.send_file(*args, **keywords)
        assert open_descriptors() == before[-1]
        res.send(b"fine")

    assert once(serve, handler).body == b"fine"


def test_a_file_that_becomes_shorter(serve: Serve, file: Path) -> None:
    """The length was promised: the client must see that it did not get it all."""

    def handler(req: Request, res: Response) -> None:
        res.send_file(file)
        os.truncate(file, 1000)

    running = serve(handler)
    client = running.connect()
    client.send(b"GET / HTTP/1.1\r\n" + H + b"\r\n")
    while not client.ended:
        try:
            client._more()
        except ConnectionResetError:
            break
    assert len(client.buffer) < 2000
    running.until(lambda: running.server.connections == 0)


@pytest.mark.parametrize("kind", ["bytes", "file"])
@pytest.mark.parametrize("end", ["reset", "close"])
def test_the_client_disappears(serve: Serve, file: Path, kind: str, end: str) -> None:
    """Memory is let go and the file closed, for the answer that is being sent and for those that wait behind it."""

    def handler(req: Request, res: Response) -> None:
        if kind == "bytes":
            res.send(BLOB)
        else:
            res.send_file(file)

    running = serve(handler)
    before = open_descriptors()
    client = running.connect(receive_buffer=4096)
    client.send((b"GET / HTTP/1.1\r\n" + H + b"\r\n") * 5)
    client.sock.recv(1000)
    running.until(lambda: len(running.server._pins) == (5 if kind == "bytes" else 0))
    getattr(client, end)()
    running.until(lambda: not running.server._pins and running.server.connections == 0)
    client.close()
    assert open_descriptors() == before


def test_a_file_is_closed_when_the_loop_ends_before_it_was_sent(serve: Serve, file: Path) -> None:
    """The fixture looks for the descriptor that would be left."""
    running: Any = serve(lambda req, res: (res.send_file(file), running.loop.stop()))
    client = running.connect(receive_buffer=4096)
    client.send(b"GET / HTTP/1.1\r\n" + H + b"\r\n")
    assert client.sock.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(("status", "text"), [(404, "Not Found\n"), (418, "I'm a Teapot\n"), (599, "599\n")])
def test_send_error(serve: Serve, status: int, text: str) -> None:
    answer = once(serve, lambda req, res: res.send_error(status))
    assert (answer.status, answer.body.decode()) == (status, text)


def test_send_error_with_a_message(serve: Serve) -> None:
    answer = once(serve, lambda req, res: res.header("Retry-After", "5").send_error(503, "too much to do"))
    assert (answer.status, answer.body, answer.get("retry-after")) == (503, b"too much to do\n", "5")


def test_redirect(serve: Serve) -> None:
    answer = once(serve, lambda req, res: res.redirect("/elsewhere?a=1", 308))
    assert (answer.status, answer.body, answer.get("location")) == (308, b"", "/elsewhere?a=1")


def test_json(serve: Serve) -> None:
    answer = once(serve, lambda req, res: res.json({"name": "Grüße", "list": [1, None, True]}))
    assert answer.body.decode() == '{"name":"Grüße","list":[1,null,true]}'
    assert answer.get("content-type") == "application/json"


def test_json_with_a_type_of_its_own(serve: Serve) -> None:
    answer = once(serve, lambda req, res: res.header("Content-Type", "application/problem+json").json({}))
    assert answer.get("content-type") == "application/problem+json"


def test_wrong_arguments_leave_the_response_usable(serve: Serve) -> None:
    def handler(req: Request, res: Response) -> None:
        for call, *arguments in (
            (res.send_error, 200),
            (res.redirect, "/", 200),
            (res.redirect, "/\r\nX: y"),
            (res.json, float("nan")),
        ):
            with pytest.raises(ValueError, match=r"status|header Location|JSON"):
                call(*arguments)
        with pytest.raises(TypeError):
            res.json(object())
        res.status(200).send("fine")

    assert once(serve, handler).body == b"fine"
