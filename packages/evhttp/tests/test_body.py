"""Bodies that are read while they come."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evhttp import BodyError, BodyReader, Limits, Request, Response

Serve = Callable[..., Any]


def by_length(body: bytes, *lines: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines, "", ""]).encode() + body


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + coded


def collect(req: Request, res: Response) -> None:
    """Answer with what came and how it ended."""
    got: list[bytes] = []
    res.defer()

    def end(error: BodyError | None) -> None:
        if error is None:
            res.header("X-Pieces", str(len(got))).send(b"".join(got))
        else:
            res.status(error.status).close_connection().send(str(error))

    req.read_body(got.append, end)


BODY = bytes(range(256)) * 5


@pytest.mark.parametrize(
    "request_", [by_length(BODY), chunked(BODY, 100), chunked(BODY, 1)], ids=["length", "chunks", "bytes"]
)
@pytest.mark.parametrize("streamed", [True, False])
def test_whole_and_byte_by_byte(serve: Serve, request_: bytes, streamed: bool) -> None:
    client = serve(collect, stream_bodies=streamed).connect()
    assert client.send(request_).answer().body == BODY
    for at in range(len(request_)):
        client.send(request_[at : at + 1])
    assert client.answer().body == BODY
    assert client.send(request_ * 3).answer().body == BODY
    assert [client.answer().body for _ in range(2)] == [BODY] * 2


def test_no_body(serve: Serve) -> None:
    client = serve(collect, stream_bodies=True).connect()
    assert client.get().body == b""
    assert client.send(by_length(b"")).answer().body == b""


def test_a_body_that_came_with_its_head_is_there(serve: Serve) -> None:
    def handler(req: Request, res: Response) -> None:
        assert not req.is_streamed
        res.send(req.body)

    assert serve(handler, stream_bodies=True).connect().send(by_length(b"abc")).answer().body == b"abc"


def test_body_says_that_it_is_streamed(serve: Serve) -> None:
    def handler(req: Request, res: Response) -> None:
        assert req.is_streamed
        with pytest.raises(BodyError, match="read_body"):
            req.body  # noqa: B018
        collect(req, res)

    called: list[bool] = []
    running = serve(lambda req, res: (called.append(True), handler(req, res)), stream_bodies=True)
    client = running.connect().send(by_length(b"abc")[:-3])
    running.until(lambda: called)
    assert client.send(b"abc").answer().body == b"abc"


def test_a_large_buffered_body_comes_in_pieces(serve: Serve) -> None:
    answer = serve(collect).connect().send(by_length(b"x" * 700_000)).answer()
    assert answer.body == b"x" * 700_000
    assert int(answer.get("x-pieces") or 0) > 1


def test_a_client_is_asked_to_continue_when_the_body_is_wanted(serve: Serve) -> None:
    """RFC 9110 §10.1.1."""
    waiting: list[tuple[Request, Response]] = []
    running = serve(lambda req, res: waiting.append((req, res.defer())), stream_bodies=True)
    head = by_length(b"abc", "Expect: 100-continue")[:-3]
    client = running.connect().send(head)
    running.until(lambda: waiting)
    assert not client.buffer
    running.call(lambda: collect(*waiting[0]))
    assert client.answer().status == 100
    assert client.send(b"abc").answer().body == b"abc"


def test_a_client_that_waits_is_refused_without_its_body(serve: Serve) -> None:
    running = serve(lambda req, res: res.status(403).send("no"), stream_bodies=True)
    client = running.connect().send(by_length(b"abc", "Expect: 100-continue")[:-3])
    answer = client.answer()
    assert (answer.status, answer.get("connection")) == (403, "close")
    assert client.at_end()


def test_a_client_that_waits_and_is_answered_in_pieces_without_its_body(serve: Serve) -> None:
    """It will not send the body now, and what it sends instead must not be taken for it."""
    running = serve(lambda req, res: (res.write("no, "), res.end("thanks")), stream_bodies=True)
    client = running.connect().send(by_length(b"abc", "Expect: 100-continue")[:-3])
    assert client.answer().body == b"no, thanks"
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.at_end()


def test_continue_comes_after_the_answers_before_it(serve: Serve) -> None:
    waiting: list[Response] = []

    def handler(req: Request, res: Response) -> None:
        if req.method == "GET":
            waiting.append(res.defer())
        else:
            collect(req, res)

    running = serve(handler, stream_bodies=True)
    client = running.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + by_length(b"abc", "Expect: 100-continue")[:-3])
    running.until(lambda: waiting)
    running.call(lambda: waiting[0].send("first"))
    assert client.answer().body == b"first"
    assert client.answer().status == 100
    assert client.send(b"abc").answer().body == b"abc"


def test_a_small_body_that_nobody_wants_is_drained(serve: Serve) -> None:
    """RFC 9112 §9.3: and the connection is in step behind it."""
    client = serve(lambda req, res: res.send("no, thank you"), stream_bodies=True).connect()
    request = by_length(b"x" * 60_000)
    for _ in range(2):
        client.send(request[:200])
        assert client.answer().get("connection") is None
        client.send(request[200:])
    assert client.get().body == b"no, thank you"


@pytest.mark.parametrize("head", [by_length(b"x" * 70_000)[:-70_000], chunked(b"x", 1)[:-11]], ids=["large", "chunked"])
def test_a_body_that_nobody_wants_ends_the_connection(serve: Serve, head: bytes) -> None:
    client = serve(lambda req, res: res.send("no"), stream_bodies=True).connect().send(head)
    answer = client.answer()
    assert (answer.body, answer.get("connection")) == (b"no", "close")
    assert client.at_end()


def test_an_answer_in_pieces_beside_the_body(serve: Serve) -> None:
    def echo(req: Request, res: Response) -> None:
        res.begin()
        reader = req.read_body(lambda piece: res.write(piece) or reader.pause(), lambda error: res.end())
        res.on_drain(reader.resume)

    limits = Limits(max_body_size=10_000_000)
    client = serve(echo, stream_bodies=True, limits=limits).connect()
    body = os.urandom(3_000_000)
    sender = threading.Thread(target=client.send, args=(chunked(body, 50_000),))
    sender.start()
    answer = client.answer()
    sender.join()
    assert answer.body == body
    assert client.send(by_length(b"again")).answer().body == b"again"


def test_pausing_stops_the_client(serve: Serve) -> None:
    readers: list[BodyReader] = []
    pieces: list[bytes] = []

    def handler(req: Request, res: Response) -> None:
        res.defer()
        readers.append(req.read_body(pieces.append, lambda error: res.send(str(sum(map(len, pieces))))))
        readers[0].pause()
        readers[0].pause()

    limits = Limits(max_body_size=100_000_000)
    running = serve(handler, stream_bodies=True, limits=limits)
    client = running.connect().send(by_length(b"x" * 50_000_000)[:-50_000_000])
    client.sock.setblocking(False)
    sent = 0
    zeros = bytes(1 << 20)

    def fill() -> bool:
        nonlocal sent
        try:
            while True:
                sent += client.sock.send(zeros[: 50_000_000 - sent])
        except BlockingIOError:
            return True

    running.until(lambda: readers)
    fill()
    before = running.call(lambda: len(pieces))
    fill()
    assert sent < 40_000_000
    assert running.call(lambda: len(pieces)) == before
    running.call(readers[0].resume)
    client.sock.settimeout(20)
    client.send(bytes(50_000_000 - sent))
    assert client.answer().body == b"50000000"


def test_a_body_is_read_once(serve: Serve) -> None:
    errors: list[str] = []

    def handler(req: Request, res: Response) -> None:
        collect(req, res)
        req.read_body(lambda piece: None, lambda error: errors.append(str(error)))

    running = serve(handler, stream_bodies=True)
    client = running.connect().send(by_length(b"abc")[:-1])
    running.until(lambda: errors)
    assert client.send(b"c").answer().body == b"abc"
    assert errors == ["the body is being read already"]


def test_a_body_that_was_drained_cannot_be_had(serve: Serve) -> None:
    errors: list[str] = []

    def handler(req: Request, res: Response) -> None:
        res.send("done")
        req.read_body(lambda piece: None, lambda error: errors.append(str(error)))

    running = serve(handler, stream_bodies=True)
    client = running.connect().send(by_length(b"abc")[:-1])
    assert client.answer().body == b"done"
    running.until(lambda: errors)
    assert "cannot be had any more" in errors[0]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(chunked(b"x" * 100, 10)[:-20] + b"zz\r\n", 400, id="rfc9112-7.1-bad-size"),
        pytest.param(chunked(b"x" * 3000, 1000), 413, id="rfc9110-15.5.14-too-large"),
    ],
)
def test_a_body_that_goes_wrong(serve: Serve, request_: bytes, status: int) -> None:
    running = serve(collect, stream_bodies=True, limits=Limits(max_body_size=2000))
    client = running.connect().send(request_)
    assert client.answer().status == status
    assert client.at_end()
    assert running.connect().send(by_length(b"abc")).answer().body == b"abc"


def test_a_body_that_stands_still(serve: Serve) -> None:
    client = serve(collect, stream_bodies=True, limits=Limits(body_timeout=0.05)).connect()
    answer = client.send(by_length(b"abc")[:-1]).answer()
    assert answer.status == 408
    assert client.at_end()


@pytest.mark.parametrize("how", ["reset", "half-close"])
def test_a_client_that_goes_away(serve: Serve, how: str) -> None:
    ends: list[str] = []

    def handler(req: Request, res: Response) -> None:
        res.defer()
        req.read_body(lambda piece: None, lambda error: (ends.append(str(error)), res.status(400).send("")))

    running = serve(handler, stream_bodies=True)
    client = running.connect().send(by_length(b"abcdef")[:-2])
    running.until(lambda: running.server.connections)
    if how == "reset":
        client.reset()
    else:
        client.sock.shutdown(1)
        assert client.answer().status == 400
    running.until(lambda: ends)
    assert "the client is gone" in ends[0]


def test_callbacks_that_raise(serve: Serve, logged: Any) -> None:
    def handler(req: Request, res: Response) -> None:
        res.defer()
        if req.path == "/":
            req.read_body(lambda piece: 1 / 0, lambda error: res.send("not reached"))
        else:
            req.read_body(lambda piece: None, lambda error: 1 / 0)

    running = serve(handler, stream_bodies=True)
    for path in (b"/", b"/end"):
        client = running.connect()
        request = chunked(b"x" * 1000, 100).replace(b"/", path, 1)
        client.send(request[:-3]).send(request[-3:])
        assert client.answer().status == 500
    assert [record.exc_info[0] for record in logged.take()] == [ZeroDivisionError] * 2


@pytest.mark.parametrize("streamed", [True, False])
def test_saving(serve: Serve, tmp_path: Path, streamed: bool) -> None:
    body = os.urandom(900_000)

    def handler(req: Request, res: Response) -> None:
        res.defer()
        req.save_body(tmp_path, lambda path, error: res.send(f"{path}"))

    client = serve(handler, stream_bodies=streamed).connect().send(by_length(body))
    path = Path(client.answer().body.decode())
    assert path.parent == tmp_path
    assert path.read_bytes() == body
    assert path.stat().st_mode & 0o777 == 0o600


def test_saving_fails(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, a client that gives up, a folder that is not there: no file stays behind."""
    outcomes: list[Any] = []

    def handler(req: Request, res: Response) -> None:
        res.defer()
        folder = tmp_path / "none" if req.path == "/none" else tmp_path
        try:
            req.save_body(folder, lambda path, error: (outcomes.append(error), res.status(507).send("")))
        except FileNotFoundError as error:
            outcomes.append(error)
            res.status(500).send("")

    running = serve(handler, stream_bodies=True)

    def full(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr("evhttp._body.os.write", full)
        assert running.connect().send(by_length(BODY)).answer().status == 507
    client = running.connect().send(by_length(BODY)[:-5])
    running.until(lambda: list(tmp_path.iterdir()))
    client.reset()
    running.until(lambda: len(outcomes) == 2)
    assert running.connect().send(by_length(BODY).replace(b"/", b"/none", 1)).answer().status == 500
    assert [type(outcome) for outcome in outcomes] == [OSError, BodyError, FileNotFoundError]
    assert list(tmp_path.iterdir()) == []


def test_a_buffered_body_that_is_paused_and_resumed_at_once_ends_once(serve: Serve) -> None:
    got: list[bytes] = []
    ends: list[BodyError | None] = []

    def handler(req: Request, res: Response) -> None:
        def take(data: bytes) -> None:
            got.append(data)
            reader.pause()
            reader.resume()

        reader = req.read_body(take, ends.append)
        res.defer()
        res._server.loop.call_later(0.05, res.send, b"done")

    answer = serve(handler).connect().send(by_length(b"x" * 300_000)).answer()
    assert answer.body == b"done"
    assert b"".join(got) == b"x" * 300_000
    assert ends == [None]
