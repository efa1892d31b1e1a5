"""Answers that leave later than their handler, or in pieces."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from evhttp import HeaderError, Request, Response, ResponseStateError

Serve = Callable[..., Any]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def in_step(client: Any) -> None:
    """Whatever was answered, the connection can be used behind it."""
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.answer().body == b"in step"


def with_probe(handler: Callable[[Request, Response], object]) -> Callable[[Request, Response], object]:
    return lambda req, res: res.send(b"in step") if req.method == "OPTIONS" else handler(req, res)


def chunks(req: Request, res: Response) -> None:
    res.header("X-A", "1")
    assert res.write("one ")
    assert res.write(b"")  # not the end
    assert res.write(bytearray(b"two "))
    res.end("three")


def test_chunks(serve: Serve) -> None:
    client = serve(with_probe(chunks)).connect()
    for _ in range(2):
        answer = client.get()
        assert (answer.status, answer.body, answer.chunks) == (200, b"one two three", [4, 4, 5])
        assert answer.get("x-a") == "1"
    in_step(client)


def test_chunks_to_a_client_of_http_1_0(serve: Serve) -> None:
    """RFC 9112 §6.1: it knows no chunks; the end of the connection is the end of the body."""
    running = serve(chunks)
    for head in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"):
        client = running.connect().send(head)
        answer = client.answer()
        assert (answer.body, answer.get("connection")) == (b"one two three", "close")
        assert answer.get("transfer-encoding") is None
        assert client.at_end()


def test_head(serve: Serve) -> None:
    client = serve(with_probe(chunks)).connect()
    answer = client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").answer(head=True)
    assert answer.get("transfer-encoding") == "chunked"
    in_step(client)


def test_head_need_not_be_given_a_body(serve: Serve) -> None:
    client = serve(with_probe(lambda req, res: res.begin(10).end())).connect()
    answer = client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").answer(head=True)
    assert answer.get("content-length") == "10"
    in_step(client)


@pytest.mark.parametrize("status", [204, 205, 304])
def test_statuses_without_content(serve: Serve, status: int) -> None:
    """RFC 9110 §15.3.5, §15.3.6, §15.4.5."""

    def handler(req: Request, res: Response) -> None:
        res.status(status)
        if req.path == "/pieces":
            res.begin(3)
            res.end("abc")
        elif req.path == "/unwritten":
            res.begin(3).end()
        elif req.path == "/chunks":
            res.write("ab")
            res.end("c")
        else:
            res.send("abc")

    client = serve(with_probe(handler)).connect()
    for path in ("/pieces", "/unwritten", "/chunks", "/"):
        answer = client.get(path)
        assert (answer.status, answer.body) == (status, b"")
        assert answer.get("transfer-encoding") is None
        if status == 205:
            assert answer.get("content-length") == "0"
        in_step(client)


def test_a_declared_length(serve: Serve) -> None:
    def handler(req: Request, res: Response) -> None:
        res.begin(10)
        res.write("12345")
        res.end("67890")

    client = serve(with_probe(handler)).connect()
    answer = client.get()
    assert (answer.body, answer.get("content-length")) == (b"1234567890", "10")
    in_step(client)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [(["12345", "6"], "1 bytes were written where 0"), (["1234"], "ended 1 bytes before")],
    ids=["too-much", "too-little"],
)
def test_another_length_than_declared(serve: Serve, logged: Any, pieces: list[str], message: str) -> None:
    raised: list[Exception] = []

    def handler(req: Request, res: Response) -> None:
        res.begin(5)
        try:
            for piece in pieces:
                res.write(piece)
            res.end()
        except ResponseStateError as error:
            raised.append(error)

    client = serve(handler).connect().send(GET)
    with pytest.raises((AssertionError, ConnectionResetError)):
        client.answer()
    assert message in str(raised[0])


def test_trailers(serve: Serve) -> None:
    def handler(req: Request, res: Response) -> None:
        with pytest.raises(HeaderError, match="must not be a trailer"):
            res.end(trailers=[("Content-Type", "a/b")])
        with pytest.raises(HeaderError, match="control characters"):
            res.end(trailers=[("X", "a\r\nb")])
        res.end("body", trailers=[("X-Sum", "1"), ("X-Sum", "2")])

    client = serve(with_probe(handler)).connect()
    answer = client.get()
    assert (answer.body, answer.trailers) == (b"body", b"X-Sum: 1\r\nX-Sum: 2\r\n")
    in_step(client)


def test_end_without_pieces_is_send(serve: Serve) -> None:
    answer = serve(lambda req, res: res.end("all")).connect().get()
    assert (answer.body, answer.get("content-length")) == (b"all", "3")


def test_the_order_of_things(serve: Serve) -> None:
    """What comes too late is refused and says so."""
    seen: list[str] = []

    def refused(call: Callable[..., object], *args: object) -> None:
        with pytest.raises(ResponseStateError) as caught:
            call(*args)
        seen.append(str(caught.value))

    def handler(req: Request, res: Response) -> None:
        res.write("a")
        for call, *args in (
            (res.status, 404),
            (res.header, "a", "b"),
            (res.begin,),
            (res.send, b""),
            (res.inform, 103),
        ):
            refused(call, *args)
        refused(res.close_connection)
        res.end("b")
        calls: list[tuple[Any, ...]] = [
            (res.write, b"c"),
            (res.end,),
            (res.defer,),
            (res.status, 200),
            (res.on_close, print),
        ]
        for call, *args in calls:
            refused(call, *args)

    assert serve(handler).connect().get().body == b"ab"
    assert seen == ["the response has begun already"] * 6 + ["the response has been sent already"] * 5


def test_arguments(serve: Serve) -> None:
    def handler(req: Request, res: Response) -> None:
        with pytest.raises(ValueError, match="at least 0"):
            res.begin(-1)
        for status in (100, 101, 200):
            with pytest.raises(ValueError, match="informational"):
                res.inform(status)
        with pytest.raises(TypeError, match="str or bytes-like"):
            res.write(3)  # type: ignore[arg-type]
        res.send("fine")

    assert serve(handler).connect().get().body == b"fine"


def test_early_hints(serve: Serve) -> None:
    """RFC 8297; RFC 9110 §15.2: not to clients of HTTP/1.0."""

    def handler(req: Request, res: Response) -> None:
        res.inform(103, [("Link", "</a.css>; rel=preload")]).inform(102).send("page")

    running = serve(with_probe(handler))
    client = running.connect()
    client.send(GET)
    assert client._more() is None
    first = client.buffer.split(b"\r\n\r\n")
    assert first[0] == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload"
    assert first[1].startswith(b"HTTP/1.1 102 ")
    del client.buffer[: len(first[0]) + len(first[1]) + 8]
    assert client.answer().body == b"page"
    in_step(client)
    old = running.connect().send(b"GET / HTTP/1.0\r\n\r\n")
    assert old.answer().status == 200


def test_deferred(serve: Serve) -> None:
    """Later, from the loop; pipelined requests are still answered in their order."""
    waiting: list[Response] = []

    def handler(req: Request, res: Response) -> None:
        res.defer().defer()
        waiting.append(res)
        if len(waiting) == 3:
            for number in (2, 0, 1):
                waiting[number].send(f"answer {number}")

    client = serve(handler).connect().send(GET * 3)
    assert [client.answer().body for _ in range(3)] == [b"answer 0", b"answer 1", b"answer 2"]


def test_pieces_of_pipelined_requests_in_order(serve: Serve) -> None:
    waiting: list[Response] = []

    def handler(req: Request, res: Response) -> None:
        waiting.append(res)
        res.write(f"<{len(waiting)}")
        if len(waiting) == 4:
            for res in reversed(waiting):
                res.write("-")
            for res in reversed(waiting):
                res.end(">" * 40_000)

    client = serve(handler).connect().send(GET * 4)
    for number in range(1, 5):
        assert client.answer().body == b"<%d-" % number + b">" * 40_000


def test_from_another_thread(serve: Serve) -> None:
    def handler(req: Request, res: Response) -> None:
        res.defer()
        loop = running.loop
        threading.Thread(target=lambda: loop.call_soon_threadsafe(res.send, b"from a thread")).start()

    running = serve(handler)
    client = running.connect()
    for _ in range(3):
        assert client.get().body == b"from a thread"


def test_on_close_tells_how_it_ended(serve: Serve) -> None:
    ends: list[bool] = []
    waiting: list[Response] = []
    gone = threading.Event()

    def closed(complete: bool) -> None:
        ends.append(complete)
        if not complete:
            gone.set()

    def handler(req: Request, res: Response) -> None:
        res.on_close(closed)
        if req.path == "/now":
            res.send("x")
        else:
            waiting.append(res)

    running = serve(handler)
    client = running.connect()
    assert client.get("/now").body == b"x"
    client.send(GET)
    running.until(lambda: waiting)
    client.reset()
    assert gone.wait(20)
    assert ends == [True, False]
    running.call(lambda: waiting[0].send("nobody hears this"))
    running.call(lambda: waiting[0].sent)


def test_pieces_for_a_client_that_is_gone(serve: Serve) -> None:
    waiting: list[Response] = []
    gone = threading.Event()

    def handler(req: Request, res: Response) -> None:
        res.on_close(lambda complete: gone.set())
        res.write("a")
        waiting.append(res)

    running = serve(handler)
    client = running.connect().send(GET)
    running.until(lambda: waiting)
    client.reset()
    assert gone.wait(20)
    assert running.call(lambda: waiting[0].write("b" * 100_000)) is False
    running.call(lambda: waiting[0].end())


def test_back_pressure(serve: Serve) -> None:
    """A client that does not read stops a handler that listens to `write`; nothing is lost or repeated."""
    piece = bytes(range(256)) * 64
    count = 300
    most = 0

    def handler(req: Request, res: Response) -> None:
        sent = 0

        def more() -> None:
            nonlocal sent, most
            ahead = 0
            while sent < count:
                sent += 1
                ahead += len(piece)
                most = max(most, ahead)
                if not res.write(piece):
                    return
            res.end()

        res.on_drain(more)
        more()

    client = serve(handler).connect(receive_buffer=65536).send(GET)
    assert client.answer().body == piece * count
    assert most <= 64 * 1024 + len(piece)


def test_large_pieces_are_not_copied_and_let_go(serve: Serve) -> None:
    piece = b"x" * 300_000

    def handler(req: Request, res: Response) -> None:
        for _ in range(5):
            res.write(piece)
        res.end()

    running = serve(handler)
    for method in (b"GET", b"HEAD"):
        client = running.connect().send(method + GET[3:])
        answer = client.answer(head=method == b"HEAD")
        assert answer.body == (piece * 5 if method == b"GET" else b"")
    running.until(lambda: not running.server._pins)


def test_a_handler_that_raises_in_the_middle(serve: Serve, logged: Any) -> None:
    """Nobody takes a part for the whole: the connection is reset."""

    def handler(req: Request, res: Response) -> None:
        res.write("a part")
        raise ValueError("in the middle")

    running = serve(with_probe(handler))
    client = running.connect().send(GET)
    with pytest.raises((AssertionError, ConnectionResetError)):
        client.answer()
    assert "begun to answer" in logged.take()[0].getMessage()
    in_step(running.connect())


def test_a_drain_callback_that_raises(serve: Serve, logged: Any) -> None:
    def handler(req: Request, res: Response) -> None:
        res.on_drain(lambda: 1 / 0)
        while res.write(b"x" * 1000):
            pass

    client = serve(handler).connect().send(GET)
    with pytest.raises((AssertionError, ConnectionResetError)):
        client.answer()
    assert [record.exc_info[0] for record in logged.take()] == [ZeroDivisionError]


def test_a_handler_that_defers_and_raises(serve: Serve, logged: Any) -> None:
    def handler(req: Request, res: Response) -> None:
        res.header("X-A", "1").defer()
        raise ValueError

    answer = serve(handler).connect().get()
    assert (answer.status, answer.get("x-a")) == (500, None)
    assert len(logged.take()) == 1


def test_the_access_log_waits_for_the_answer(serve: Serve) -> None:
    log = logging.getLogger("test.access")
    log.propagate = False
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    log.setLevel(logging.INFO)

    def respond(req: Request, res: Response) -> None:
        res.status(201)
        res.write("abc")
        running.loop.call_soon(res.end, "def")

    running = serve(respond, access_log=log)
    assert running.connect().get("/a").body == b"abcdef"
    running.until(lambda: lines)
    assert len(lines) == 1
    assert '"GET /a HTTP/1.1" 201 6 ' in lines[0]


def test_closing_waits_for_deferred_answers(serve: Serve) -> None:
    waiting: list[Response] = []
    running = serve(lambda req, res: waiting.append(res.defer()))
    client = running.connect().send(GET)
    running.until(lambda: waiting)
    running.call(running.server.close)
    running.call(lambda: waiting[0].send("the last one"))
    answer = client.answer()
    assert (answer.body, answer.get("connection")) == (b"the last one", "close")
    assert client.at_end()


def test_a_loop_that_closes_with_answers_under_way(stepped: Serve) -> None:
    """Nothing is called and nothing leaks; the fixture looks."""
    waiting: list[Response] = []

    def handler(req: Request, res: Response) -> None:
        res.write("a")
        waiting.append(res)

    running = stepped(handler)
    (client,) = running.connect(1)
    client.send(GET * 2)
    running.until(lambda: len(waiting) == 2)
    running.turns()
