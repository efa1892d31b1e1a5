"""The pool reads sockets itself: what is served, and what becomes of slow clients, lost ones, and those who come at the end."""

from __future__ import annotations

import hashlib
import os
import queue
import signal
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

import evhttp
from evloop.testing import checked_loop
from evmulti import (
    Cause,
    ConnectionClosed,
    Dispatcher,
    EvMultiError,
    LogEntry,
    Service,
    SocketServer,
    context,
    suspend,
)

from .blocking import PATIENCE, Client, Gate, Serving
from .test_service import running

LARGE = 8_000_000  # more than the buffers of both sides hold
PIECE = bytes(range(256)) * 256


def echo(req: Any, res: Any) -> None:
    res.send(f"{req.method} {req.path} {req.headers.get('host')} {req.body.decode()}")


def chunked(size: int) -> bytes:
    return b"%x\r\n" % len(PIECE) + PIECE + b"\r\n" if size else b"0\r\n\r\n"


class Ends:
    """Collects the ends of connections."""

    def __init__(self) -> None:
        self._queue: queue.Queue[ConnectionClosed] = queue.Queue()

    def __call__(self, end: ConnectionClosed) -> None:
        self._queue.put(end)

    def next(self) -> ConnectionClosed:
        return self._queue.get(timeout=PATIENCE)


# -- what is served ------------------------------------------------------------------------------------------------------------


def test_requests_one_after_another_and_pipelined(serving: Serving) -> None:
    client = serving.start_sockets(echo, pool_size=4).connect()
    assert client.get("/a").body == b"GET /a a "
    post = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
    head = b"HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n"
    chunks = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    client.send(post + chunks + post + b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [client.answer().body for _ in range(4)] == [
        b"POST /p h body",
        b"POST /c h abc",
        b"POST /p h body",
        b"GET /last a ",
    ]
    client.send(head)
    line, fields = client.file.readline(), b"".join(iter(client.file.readline, b"\r\n"))
    assert line == b"HTTP/1.1 200 OK\r\n"
    assert b"Content-Length: 10\r\n" in fields
    assert b"Date: " in fields
    assert client.get("/behind-head").body == b"GET /behind-head a "


def test_a_request_that_comes_byte_by_byte(serving: Serving) -> None:
    client = serving.start_sockets(echo).connect()
    for byte in b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody" * 2:
        client.send(bytes([byte]))
    assert [client.answer().body for _ in range(2)] == [b"POST /p h body"] * 2


def test_clients_of_http_1_0(serving: Serving) -> None:
    def handler(req: Any, res: Any) -> None:
        if req.path == "/pieces":
            res.write("until ")
            res.end("the end")
        else:
            res.send("whole")

    client = serving.start_sockets(handler).connect()
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert client.file.readline() == b"HTTP/1.1 200 OK\r\n"
    fields = b"".join(iter(client.file.readline, b"\r\n"))
    assert b"Connection: keep-alive\r\n" in fields
    assert client.file.read(5) == b"whole"
    client.send(b"GET /pieces HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert client.file.read().endswith(b"Connection: close\r\n\r\nuntil the end")
    client = serving.connect().send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.file.read().endswith(b"Connection: close\r\n\r\nwhole")


def test_what_a_response_can(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789" * 100_000)

    def handler(req: Any, res: Any) -> None:
        match req.path:
            case "/status":
                res.status(201).header("X-A", "b").send()
            case "/json":
                res.json({"a": [1, 2]})
            case "/error":
                res.send_error(404)
            case "/none":
                res.status(204).send()
            case "/file":
                res.send_file(tmp_path / "file", offset=2, count=900_000)
            case "/range":
                res.serve_file(req, tmp_path / "file")
            case "/large":
                res.send(b"x" * 300_000)
            case "/pieces":
                assert res.write("one ")
                assert res.write(b"two " * 20_000)
                res.end("three", trailers=[("X-T", "u")])
            case "/declared":
                res.begin(3)
                res.end(b"abc")
            case "/client":
                res.send(f"{req.client[0]} {req.scheme} {req.connection_id}")
            case "/close":
                res.close_connection().send("bye")

    client = serving.start_sockets(handler).connect()
    answer = client.get("/status")
    assert (answer.status, answer.headers["x-a"], answer.body) == (201, "b", b"")
    assert client.get("/json").body == b'{"a":[1,2]}'
    assert client.get("/error").body == b"Not Found\n"
    client.ask("/none")
    assert client.file.readline() == b"HTTP/1.1 204 No Content\r\n"
    assert b"Content-Length" not in b"".join(iter(client.file.readline, b"\r\n"))
    assert client.get("/file").body == (b"0123456789" * 100_000)[2:900_002]
    client.send(b"GET /range HTTP/1.1\r\nHost: a\r\nRange: bytes=3-5\r\n\r\n")
    answer = client.answer()
    assert (answer.status, answer.body) == (206, b"345")
    assert len(client.get("/large").body) == 300_000
    client.ask("/pieces")
    raw = b""
    while not raw.endswith(b"0\r\nX-T: u\r\n\r\n"):
        raw += client.file.read1()
    assert b"Transfer-Encoding: chunked\r\n" in raw
    answer = client.get("/declared")
    assert (answer.headers["content-length"], answer.body) == ("3", b"abc")
    assert client.get("/client").body.decode().startswith("127.0.0.1 http ")
    answer = client.get("/close")
    assert (answer.headers["connection"], answer.body) == ("close", b"bye")
    assert client.at_end()


@pytest.mark.parametrize("call", ["defer", "on_close", "on_drain", "read_body", "save_body", "hand_over", "in_place"])
def test_what_only_the_loop_s_thread_can(serving: Serving, call: str) -> None:
    arguments = {"on_close": 1, "on_drain": 1, "read_body": 1, "save_body": 2}.get(call, 0)

    def handler(req: Any, res: Any) -> None:
        with pytest.raises(evhttp.ResponseStateError):
            getattr(res, call)(*[print] * arguments)
        res.send("refused")

    assert serving.start_sockets(handler).connect().get().body == b"refused"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_both_directions_stream(serving: Serving, framing: str) -> None:
    """Each piece is echoed before the next one is sent: nobody gathers, and the memory that a body takes is a piece's."""

    def handler(req: Any, res: Any) -> None:
        assert req.is_streamed
        while piece := req.body_file.read1():
            assert res.write(piece)
        res.end()

    client = serving.start_sockets(handler, limits=evhttp.Limits(max_body_size=LARGE)).connect()
    count = 40
    if framing == "chunked":
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    else:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (len(PIECE) * count))
    came = b""
    for number in range(count):
        client.send(chunked(1) if framing == "chunked" else PIECE)
        if not number:
            assert client.file.readline() == b"HTTP/1.1 200 OK\r\n"
            assert b"Transfer-Encoding: chunked\r\n" in b"".join(iter(client.file.readline, b"\r\n"))
        while len(came) < len(PIECE) * (number + 1):
            came += client.file.read(int(client.file.readline(), 16))
            assert client.file.read(2) == b"\r\n"
    if framing == "chunked":
        client.send(chunked(0))
    assert came == PIECE * count
    assert client.file.read(5) == b"0\r\n\r\n"
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").send(chunked(1))
    client.send(chunked(0))
    assert client.answer().body == PIECE


def test_an_upload_is_held_back_while_nobody_reads_it(serving: Serving) -> None:
    gate = Gate()

    def handler(req: Any, res: Any) -> None:
        gate.wait()
        digest = hashlib.sha256()
        while piece := req.body_file.read(100_001):
            digest.update(piece)
        res.send(digest.hexdigest())

    client = serving.start_sockets(handler, limits=evhttp.Limits(max_body_size=100 * LARGE)).connect()
    body = PIECE * 2000  # 128 MB: no buffer of a system's takes that
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
    gate.until()
    client.sock.setblocking(False)
    sent = 0
    try:
        while True:
            sent += client.sock.send(body[sent : sent + 1_000_000])
    except BlockingIOError:
        assert sent < len(body)
    gate.opened.set()
    client.sock.settimeout(PATIENCE)
    client.sock.sendall(memoryview(body)[sent:])
    assert client.answer().body.decode() == hashlib.sha256(body).hexdigest()


def test_who_expects_to_be_asked_is_asked_when_the_body_is_read(serving: Serving) -> None:
    def handler(req: Any, res: Any) -> None:
        if req.path == "/read":
            res.send(req.body)
        else:
            res.send_error(403)

    expecting = "POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    client = serving.start_sockets(handler).connect().send(expecting.format("/read").encode())
    assert client.file.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert client.file.readline() == b"\r\n"
    assert client.send(b"body").answer().body == b"body"
    answer = client.send(expecting.format("/refused").encode()).answer()
    assert (answer.status, answer.headers["connection"]) == (403, "close")
    assert client.at_end()


def test_a_body_that_nobody_reads(serving: Serving) -> None:
    """A small one is thrown away; of a large one the connection ends, and the client sees the answer all the same."""
    gate = Gate()
    serving.start_sockets(lambda req, res: (gate.wait(), res.send("done")), limits=evhttp.Limits(max_body_size=LARGE))
    client = serving.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
    gate.until()
    client.send(b"body")
    gate.opened.set()
    first = client.answer()
    assert first.body == b"done"
    client = serving.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % LARGE)
    client.send(b"x" * 100_000)
    answer = client.answer()
    assert (answer.body, answer.headers["connection"]) == (b"done", "close")
    assert client.at_end()


def test_context_and_places(serving: Serving) -> None:
    """A thread that waits for clients lends its place, and so does a handler that says so."""
    inside: list[str] = []
    gate = Gate()

    def handler(req: Any, res: Any) -> None:
        inside.append(f"{context.request.path} {context.connection.client is not None} {context.client_gone}")
        if req.path == "/lends":
            gate.arrived.release()
            assert suspend(PATIENCE) is False
        res.send(context.thread_name)

    serving.start_sockets(handler, pool_size=2, max_active=1, name="pool")
    lends = serving.connect().ask("/lends")
    gate.until()
    assert serving.connect().get("/other").body in (b"pool-1", b"pool-2")
    lends.close()  # which ends the suspension
    serving.until(lambda: serving.dispatcher is not None and serving.dispatcher.stats().pool.running == 0)
    assert sorted(inside) == ["/lends True False", "/other True False"]


def test_while_handlers_wait_another_thread_listens(serving: Serving) -> None:
    gate = Gate()
    serving.start_sockets(lambda req, res: (req.path == "/wait" and gate.wait(), res.send("x")), pool_size=3)
    for _ in range(5):
        assert serving.connect().get("/").body == b"x"
    assert serving.dispatcher is not None
    waiting = [serving.connect().ask("/wait") for _ in range(3)]
    gate.until(3)
    stats = serving.dispatcher.stats()
    assert (stats.pool.threads, stats.pool.running, stats.pool.idle, stats.pool.suspended) == (3, 3, 0, 0)
    gate.opened.set()
    assert [client.answer().body for client in waiting] == [b"x"] * 3


def test_a_thread_that_cannot_begin_answers_500(serving: Serving) -> None:
    attempts: list[int] = []

    def begin() -> None:
        attempts.append(1)
        if len(attempts) < 3:
            raise RuntimeError("no database")

    client = serving.start_sockets(echo, pool_size=1, thread_init=begin).connect()
    assert client.get().status == 500
    while (
        status := client.get().status
    ) != 200:  # the thread that has answered takes what comes until it has found nothing
        assert status == 500
    assert len(attempts) == 3
    assert serving.messages() == ["thread_init failed in " + f"{serving.dispatcher.name}-{n}" for n in (1, 2)]  # type: ignore[union-attr]


# -- faults --------------------------------------------------------------------------------------------------------------------


def test_what_breaks_the_protocol_is_answered_and_ends(serving: Serving) -> None:
    ends = Ends()
    serving.start_sockets(echo, limits=evhttp.Limits(max_body_size=10), on_close=ends)
    for request, status in (
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", None),
    ):
        client = serving.connect().send(request)
        if status is None:
            client.send(b"xyz\r\n")
            status = 400
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert client.at_end()
        client.close()
        assert ends.next().cause is Cause.PROTOCOL_VIOLATED


def test_a_handler_that_fails(serving: Serving) -> None:
    ends = Ends()

    def handler(req: Any, res: Any) -> None:
        if req.path == "/nothing":
            return
        if req.path == "/begun":
            res.write("half")
        raise RuntimeError("broken")

    client = serving.start_sockets(handler, on_close=ends).connect()
    assert client.get("/raises").status == 500
    assert client.get("/nothing").status == 500
    client.ask("/begun")
    with pytest.raises((ConnectionResetError, AssertionError, ValueError)):
        client.answer()
    end = ends.next()
    assert end.cause is Cause.EXCEPTION
    assert serving.messages() == [
        "exception in the handler for GET /raises",
        "the handler for GET /nothing returned without an answer",
        "exception in the handler for GET /begun, after it had begun to answer",
        str(end),
    ]
    assert serving.dispatcher is not None
    assert serving.dispatcher.stats().failed == 3


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_disappears_in_its_body(serving: Serving, how: str) -> None:
    ends = Ends()
    errors: queue.Queue[Exception] = queue.Queue()
    gate = Gate()
    gate.opened.set()

    def handler(req: Any, res: Any) -> None:
        req.body_file.read(1)
        gate.wait()
        try:
            req.body_file.read()
        except evhttp.BodyError as error:
            errors.put(error)
            raise

    client = serving.start_sockets(handler, on_close=ends).connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")
    gate.until()
    getattr(client, how)()
    assert "the client is gone" in str(errors.get(timeout=PATIENCE))
    assert ends.next().cause is (Cause.LOST if how == "reset" else Cause.CLOSED_BY_CLIENT)
    assert serving.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy") is not None
    assert serving.dispatcher is not None
    serving.until(lambda: serving.dispatcher.stats().lost == 1)  # type: ignore[union-attr]
    gate.until()
    serving.until(lambda: serving.dispatcher.stats().failed == 1)  # type: ignore[union-attr]  # it gave no answer
    assert len(serving.messages()) == 1


def test_a_client_that_disappears_in_its_answer(serving: Serving) -> None:
    ends, said = Ends(), threading.Event()
    gone: list[bool] = []

    def handler(req: Any, res: Any) -> None:
        while res.write(PIECE):
            pass
        gone.append(req.client_gone and req.is_lost)
        said.set()
        res.end()

    client = serving.start_sockets(handler, on_close=ends).connect().ask()
    client.file.read(1_000_000)
    client.reset()
    assert said.wait(PATIENCE)
    assert gone == [True]
    assert ends.next().cause is Cause.LOST


def test_a_client_that_goes_away_is_noticed_by_a_handler_that_waits(serving: Serving) -> None:
    gate = Gate()
    result: queue.Queue[bool] = queue.Queue()

    def handler(req: Any, res: Any) -> None:
        gate.arrived.release()
        result.put(suspend(PATIENCE))
        res.send("too late")

    client = serving.start_sockets(handler).connect().ask()
    gate.until()
    client.close()
    assert result.get(timeout=PATIENCE) is False


def test_slow_clients(serving: Serving) -> None:
    """Each limit ends what it is for; nobody who waits for a head, or between requests, has a thread."""
    ends = Ends()
    limits = evhttp.Limits(head_timeout=0.3, idle_timeout=0.3, body_timeout=0.3, write_timeout=0.3, max_body_size=LARGE)

    def handler(req: Any, res: Any) -> None:
        if req.path == "/large":
            while res.write(PIECE):
                pass
        else:
            res.send(req.body)

    serving.start_sockets(handler, limits=limits, on_close=ends, pool_size=2)
    silent = serving.connect()
    heads = [serving.connect().send(b"GET / HT") for _ in range(5)]
    assert [client.answer().status for client in heads] == [408] * 5
    assert silent.at_end()
    for client in (silent, *heads):
        client.close()
        assert ends.next().cause is Cause.TIMED_OUT
    idle = serving.connect()
    assert idle.get().status == 200
    assert idle.at_end()
    assert ends.next().cause is Cause.TIMED_OUT
    body = serving.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx")
    answer = body.answer()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    body.close()
    assert ends.next().cause is Cause.TIMED_OUT
    serving.connect().ask("/large")  # and reads nothing
    assert ends.next().cause is Cause.TIMED_OUT
    # The second half of the large answer was not sent, and nobody pretends so.
    assert serving.messages() == []


@pytest.mark.parametrize("begun", [False, True])
def test_a_handler_that_takes_too_long(serving: Serving, begun: bool) -> None:
    ends, gate = Ends(), Gate()

    def handler(req: Any, res: Any) -> None:
        if begun:
            res.write("half")
        gate.wait()
        res.end("late") if begun else res.send("late")

    client = serving.start_sockets(handler, timeout=0.1, on_close=ends).connect().ask()
    gate.until()
    if begun:
        assert b"HTTP/1.1 200 OK" in client.file.readline()
        with pytest.raises((ConnectionResetError, AssertionError, ValueError)):
            client.answer()
    else:
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (504, "close")
        assert client.at_end()
    assert serving.dispatcher is not None
    serving.until(lambda: serving.dispatcher.stats().stuck == 1)  # type: ignore[union-attr]
    gate.opened.set()
    assert ends.next().cause is Cause.TIMED_OUT
    stats = serving.dispatcher.stats()
    assert (stats.timed_out, stats.failed) == (1, 0)
    assert serving.messages() == ["the handler for GET / has not answered within 0.1 seconds"]


def test_a_full_pool(serving: Serving) -> None:
    """As many connections as there are threads and places in the queue; who comes beyond is told when to come again."""
    gate = Gate()
    serving.start_sockets(
        lambda req, res: (gate.wait(), res.send("done")), pool_size=1, queue_size=2, retry_after=7, name="pool"
    )
    clients = [serving.connect().ask() for _ in range(3)]
    gate.until()
    serving.until(lambda: serving.sockets.connections == 3)
    refused = serving.connect()
    answer = refused.answer()
    assert (answer.status, answer.headers["retry-after"], answer.headers["connection"]) == (503, "7", "close")
    assert refused.at_end()
    assert serving.dispatcher is not None
    assert serving.dispatcher.stats().pool.refused == 1
    gate.opened.set()
    assert [client.answer().body for client in clients] == [b"done"] * 3
    clients[0].close()
    refused.close()
    serving.until(lambda: serving.sockets.connections == 2)
    assert serving.connect().get().body == b"done"


def test_a_drain_while_bodies_stream(serving: Serving) -> None:
    """Idle connections end at once; those with an answer under way end with it, and say so where its head has not left."""
    gate = Gate()

    def handler(req: Any, res: Any) -> None:
        if req.method == "POST":
            gate.arrived.release()
            res.send(str(len(req.body_file.read())))
        else:
            res.begin()
            gate.wait()
            res.end("end")

    serving.start_sockets(handler, pool_size=4)
    idle = serving.connect()
    upload = serving.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
    download = serving.connect().ask("/")
    gate.until(2)
    serving.until(lambda: serving.sockets.connections == 3)
    closed = threading.Event()
    serving.loop.call_soon_threadsafe(lambda: (serving.sockets.close(), closed.set()))
    assert closed.wait(PATIENCE)
    assert idle.at_end()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(serving.address, PATIENCE)
    answer = upload.send(b"defghi").answer()
    assert (answer.body, answer.headers["connection"]) == (b"9", "close")
    gate.opened.set()
    assert download.answer().body == b"end"
    assert download.at_end()
    upload.close()
    download.close()
    serving.until(lambda: serving.sockets.connections == 0)


def test_a_waiter_that_the_pool_never_began_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the pool ends it forgets what is queued: nobody is left who would leave the epoll as the last one."""
    with checked_loop() as loop:
        dispatcher = Dispatcher(echo, strategy="socket")
        monkeypatch.setattr(dispatcher.pool, "_wake", lambda: None)
        server = SocketServer(dispatcher, loop=loop)
        ours, theirs = socket.socketpair()
        with theirs:
            server.adopt(ours)
            assert dispatcher.close() == 0


def test_abort_ends_handlers_that_wait_for_clients(serving: Serving) -> None:
    ends, gate = Ends(), Gate()
    errors: queue.Queue[object] = queue.Queue()

    def handler(req: Any, res: Any) -> None:
        gate.arrived.release()
        try:
            if req.path == "/up":
                req.body_file.read()
            else:
                while res.write(PIECE):
                    pass
                raise evhttp.BodyError("lost")
        except evhttp.BodyError as error:
            errors.put(error)
            raise

    serving.start_sockets(handler, pool_size=2, on_close=ends)
    up = serving.connect().send(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
    serving.connect().ask("/down")
    gate.until(2)
    counts: queue.Queue[int] = queue.Queue()
    serving.loop.call_soon_threadsafe(lambda: counts.put(serving.sockets.abort()))
    assert counts.get(timeout=PATIENCE) == 2
    errors.get(timeout=PATIENCE), errors.get(timeout=PATIENCE)
    assert up.at_end()
    assert {ends.next().cause, ends.next().cause} == {Cause.CLOSED_BY_US}


def test_a_connection_is_closed_by_its_handler_or_another_thread(serving: Serving) -> None:
    ends = Ends()
    connections: list[Any] = []

    def handler(req: Any, res: Any) -> None:
        connections.append(context.connection)
        if req.path == "/close":
            context.connection.close(Cause.SECURITY)
        res.send("x")

    client = serving.start_sockets(handler, on_close=ends).connect()
    assert client.get("/close").body == b"x"
    assert client.at_end()
    client.close()
    end = ends.next()
    assert (end.cause, end.requests, end.connection) == (Cause.SECURITY, 1, connections[0])
    assert serving.messages() == [str(end)]
    client = serving.connect()
    assert client.get("/").body == b"x"
    connections[1].abort()
    assert client.at_end()
    assert ends.next().cause is Cause.CLOSED_BY_US


def test_many_clients(serving: Serving) -> None:
    """Each gets its own answers, in order, pipelined and not, whichever thread has its socket."""
    serving.start_sockets(echo, pool_size=8)
    failures: list[BaseException] = []

    def ask(number: int) -> None:
        try:
            client = Client(serving.address)
            for burst in range(20):
                targets = [f"/{number}/{burst}/{each}" for each in range(5)]
                client.send(b"".join(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for target in targets))
                for target in targets:
                    assert client.answer().body == f"GET {target} a ".encode()
            client.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 3)
    assert failures == []
    assert serving.dispatcher is not None
    stats = serving.dispatcher.stats()
    assert (stats.failed, stats.lost) == (0, 0)


def test_sigterm_drains() -> None:
    gate = Gate()
    answers: list[bytes] = []
    with Dispatcher(lambda req, res: (gate.wait(), res.send("done")), strategy="socket", name="a") as dispatcher:
        server = SocketServer(dispatcher).listen("127.0.0.1", 0)
        address = server.addresses[0]

        def ask() -> None:
            idle = Client(address)
            client = Client(address).ask()
            gate.until()
            os.kill(os.getpid(), signal.SIGTERM)
            assert idle.at_end()
            gate.opened.set()
            answers.append(client.answer().body)
            client.close()
            idle.close()

        thread = threading.Thread(target=ask)
        thread.start()
        server.run()
        thread.join(PATIENCE)
    assert answers == [b"done"]


# -- services, and what there is not -------------------------------------------------------------------------------------------


def test_a_service() -> None:
    def handler(req: Any, res: Any) -> None:
        res.send(f"{context.connection.context} {len(req.body_file.read())} {sorted(dict(req.headers.items()))}")

    entries: list[LogEntry] = []
    service = Service(
        "up",
        handler,
        port=0,
        body="streamed",
        pool_size=2,
        strategy="socket",
        keep_headers=["Host"],
        log=entries.append,
    )
    with running(service):
        client = Client(service.addresses[0])
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nCookie: b\r\nContent-Length: 200000\r\n\r\n").send(b"x" * 200_000)
        assert client.answer().body == b"None 200000 ['host']"
        ours, theirs = socket.socketpair()
        connection = service.register(ours, context="tunnel")
        theirs.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"tunnel 0 ['host']" in theirs.recv(1000)
        assert service.unregister(connection)
        assert theirs.recv(1) == b""
        theirs.close()
        client.close()
    assert any("listens on" in entry.message for entry in entries)


def test_what_the_strategy_cannot() -> None:
    with pytest.raises(ValueError, match="no TLS"):
        Service("a", echo, body="streamed", pool_size=1, strategy="socket", ssl=ssl.create_default_context())
    with pytest.raises(ValueError, match="trusts no proxies"):
        Service("a", echo, body="streamed", pool_size=1, strategy="socket", trusted=["127.0.0.1"])
    with pytest.raises(ValueError, match="gathers no bodies"):
        Service("a", echo, pool_size=1, strategy="socket")
    with pytest.raises(ValueError, match="needs a pool"):
        Service("a", echo, strategy="socket", body="streamed")
    with pytest.raises(ValueError, match="does not go with body='buffered'"):
        Service("a", echo, strategy="stream", pool_size=1)
    with pytest.raises(ValueError, match="strategy must be"):
        Dispatcher(echo, strategy="other")  # type: ignore[arg-type]
    with checked_loop() as loop:
        with (
            Dispatcher(echo) as other,
            pytest.raises(ValueError, match="needs a dispatcher with the strategy 'socket'"),
        ):
            SocketServer(other, loop=loop)
        with Dispatcher(echo, strategy="socket") as dispatcher:
            server = SocketServer(dispatcher, loop=loop)
            with pytest.raises(ValueError, match="has a SocketServer already"):
                SocketServer(dispatcher, loop=loop)
            with pytest.raises(ValueError, match="no TLS"):
                server.listen("127.0.0.1", 0, ssl=ssl.create_default_context())  # type: ignore[arg-type]
            server.close()
            with pytest.raises(EvMultiError, match="closed"):
                server.listen("127.0.0.1", 0)


def test_an_http_server_cannot_have_such_a_dispatcher(serving: Serving) -> None:
    serving.start(echo, strategy="socket")
    assert serving.connect().get().status == 500
