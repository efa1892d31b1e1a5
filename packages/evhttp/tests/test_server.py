"""The server: connections, pipelines, handlers that fail, slow clients, the end."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evhttp import EvHttpError, Limits, Request, Response, Server
from evloop import Loop, LoopClosedError
from evloop.testing import ManualClock, checked_loop, open_descriptors

Serve = Callable[..., Any]
H = b"Host: a\r\n"
BLOB = random.Random(5).randbytes(2_000_000)


def get(target: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *lines, "", ""]).encode()


def echo(req: Request, res: Response) -> None:
    res.send(req.body or req.path.encode())


# -- pipelining -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 64, 65, 200, 1000])
@pytest.mark.parametrize("most", [1, 2, 64])
def test_pipelined_in_order(serve: Serve, count: int, most: int) -> None:
    """More in one packet than may wait for their answers: the rest is looked at later, and nothing is forgotten."""
    client = serve(echo, limits=Limits(max_pipeline=most)).connect()
    client.send(b"".join(get(f"/{number}") for number in range(count)))
    for number in range(count):
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"/%d" % number)
    assert client.get("/after").body == b"/after"


def test_pipelined_with_every_kind_of_answer(serve: Serve, tmp_path: Any) -> None:
    """Small, with header lines, by reference, from a file, HEAD: in order although each takes another way."""
    (tmp_path / "file").write_bytes(BLOB)
    kinds: list[Callable[[Response], object]] = [
        lambda res: res.send(b"small"),
        lambda res: res.header("X", "y").send("text"),
        lambda res: res.send(BLOB[:100_000]),
        lambda res: res.send_file(tmp_path / "file", count=50_000),
        lambda res: res.status(204).send(),
        lambda res: res.send(BLOB[:5000]),
    ]
    bodies = [b"small", b"text", BLOB[:100_000], BLOB[:50_000], b"", BLOB[:5000]]
    client = serve(lambda req, res: kinds[int(req.path[1:])](res)).connect()
    order = random.Random(6).choices(range(len(kinds)), k=300)
    heads = [random.Random(number).random() < 0.2 for number in range(300)]
    data = b"".join(
        (b"HEAD" if head else b"GET") + get(f"/{kind}")[3:] for kind, head in zip(order, heads, strict=True)
    )
    client.sock.setblocking(False)
    sent, answers = 0, 0
    while answers < 300:
        client.sock.settimeout(20 if sent == len(data) else 0.001)
        try:
            if sent < len(data):
                sent += client.sock.send(data[sent:])
            answer = client.answer(head=heads[answers])
        except TimeoutError:
            continue
        assert answer.body == (b"" if heads[answers] else bodies[order[answers]])
        answers += 1


def test_answers_larger_than_the_socket_s_buffers_pipelined(serve: Serve) -> None:
    """The client sends all its requests before it reads a byte: it is not asked for more until it takes what it got."""
    running = serve(lambda req, res: res.send(BLOB))
    client = running.connect(receive_buffer=32768)
    count = 20
    client.send(b"".join(get(f"/{number}") for number in range(count)))
    for _ in range(count):
        assert client.answer().body == BLOB
    running.until(lambda: not running.server._pins)
    assert client.get().body == BLOB


@pytest.mark.parametrize("size", [200_000, 260_000, 300_000, 1_000_000])
def test_one_large_answer_after_the_other(serve: Serve, size: int) -> None:
    """Reading goes on behind an answer that is beyond what may be queued, also when the kernel takes it all at once."""
    running = serve(lambda req, res: res.send(BLOB[:size]))
    client = running.connect(receive_buffer=8_000_000)
    for _ in range(10):
        assert client.get().body == BLOB[:size]


def test_a_queue_that_the_kernel_takes_at_once(stepped: Serve) -> None:
    """The socket's buffer holds the whole answer, so that no send is ever refused."""
    running = stepped(lambda req, res: res.send(BLOB[:400_000]))
    (client,) = running.connect(1)
    # The server's end is found among our own descriptors by its peer's name.
    for number in open_descriptors():
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            with socket.socket(fileno=os.dup(number)) as other:
                try:
                    found = other.getpeername() == client.sock.getsockname()
                except OSError:  # one that listens
                    found = False
                if found:
                    other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
                    break
    else:
        pytest.fail("the server's end was not found")
    for _ in range(5):
        client.send(get("/"))

        def answered() -> bool:
            try:
                client._more()
            except BlockingIOError:
                return False
            return len(client.buffer) > 400_000

        running.until(answered)
        assert client.answer().body == BLOB[:400_000]


def test_a_client_s_last_requests_before_it_half_closes(serve: Serve) -> None:
    client = serve(echo, limits=Limits(max_pipeline=3)).connect()
    client.send(b"".join(get(f"/{number}") for number in range(50)))
    client.sock.shutdown(socket.SHUT_WR)
    assert [client.answer().body for _ in range(50)] == [b"/%d" % number for number in range(50)]
    assert client.at_end()


# -- staying and closing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "stays", "says"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True, None, id="9112-9.3-1.1"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", True, None, id="9112-9.3-1.1-keep-alive"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False, "close", id="9112-9.6-close"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n", False, "close", id="9112-9.6-list"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", False, "close", id="9112-9.3-1.0"),
        pytest.param(
            b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True, "keep-alive", id="9112-9.3-1.0-keep-alive"
        ),
        pytest.param(b"HEAD / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True, "keep-alive", id="9112-9.3-1.0-head"),
    ],
)
def test_persistence(serve: Serve, request_: bytes, stays: bool, says: str | None) -> None:
    client = serve(echo).connect()
    for _ in range(2 if stays else 1):
        answer = client.send(request_).answer(head=request_.startswith(b"HEAD"))
        assert answer.status == 200
        assert answer.get("connection") == says
    if stays:
        assert client.get("/x").body == b"/x"
    else:
        assert client.at_end()


def test_what_follows_a_last_request_is_not_served(serve: Serve) -> None:
    paths: list[str] = []
    client = serve(lambda req, res: (paths.append(req.path), res.send())).connect()
    client.send(get("/last", "Connection: close") + get("/evil") + b"garbage\x00" * 1000)
    assert client.answer().status == 200
    assert client.at_end()
    assert paths == ["/last"]


# -- Expect ---------------------------------------------------------------------------------------------------------------------

EXPECT = b"POST /posted HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"


def test_continue(serve: Serve) -> None:
    client = serve(echo).connect()
    assert client.send(EXPECT).answer().status == 100
    assert client.send(b"hello").answer().body == b"hello"
    assert client.get("/x").body == b"/x"


def test_continue_is_left_out_when_the_body_is_there(serve: Serve) -> None:
    """RFC 9110 §10.1.1."""
    client = serve(echo).connect()
    assert client.send(EXPECT + b"hello").answer().body == b"hello"
    client.send(EXPECT + b"h")
    assert client.send(b"ello").answer().body == b"hello"
    assert client.get("/x").body == b"/x"


def test_no_continue_for_http_1_0_nor_without_a_body(serve: Serve) -> None:
    client = serve(echo).connect()
    empty = b"GET /empty HTTP/1.1\r\n" + H + b"Expect: 100-continue\r\n\r\n"
    assert client.send(empty).answer().body == b"/empty"
    old = b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    assert client.send(old + b"hello").answer().body == b"hello"


def test_continue_behind_a_pipelined_request(serve: Serve) -> None:
    """It comes in its place, after the answer before it."""
    client = serve(echo).connect()
    client.send(get("/first") + EXPECT)
    assert client.answer().body == b"/first"
    assert client.answer().status == 100
    assert client.send(b"hello").answer().body == b"hello"


def test_no_continue_when_the_body_came_before_its_turn(stepped: Serve) -> None:
    """The head and the body are read in one turn, in two pieces, behind a request without an answer: a 100 would come too late.

    The first packet begins a buffer; the second fills it to the brim, whatever its size, so that the turn reads on.
    """
    running = stepped(echo, limits=Limits(max_header_section=32768))
    (client,) = running.connect(1)
    start = b"GET /first HTTP/1.1\r\n" + H + b"X: "
    for room in (1024, 4096, 8192, 16384, 32768):
        filler = room - len(start) - len(b"\r\n\r\n") - len(EXPECT)
        if filler < 0:
            continue
        whole = start + b"a" * filler + b"\r\n\r\n" + EXPECT + b"hello"
        client.send(whole[:500])
        running.turns()
        client.send(whole[500:])
        running.turns(4)
        try:
            client._more()
        except BlockingIOError:
            pass
        statuses = []
        while client.buffer:
            statuses.append(client.answer().status)
        assert statuses in ([200, 200], [200, 100, 200]), room


# -- handlers that fail ---------------------------------------------------------------------------------------------------------


def test_a_handler_that_raises(serve: Serve, logged: Any) -> None:
    def handler(req: Request, res: Response) -> None:
        if req.path == "/bad":
            res.header("X-Secret", "y").status(201)
            raise RuntimeError("the reason")
        res.send(b"fine")

    client = serve(handler).connect()
    client.send(get("/") + get("/bad") + get("/"))
    assert client.answer().body == b"fine"
    answer = client.answer()
    assert (answer.status, answer.get("x-secret")) == (500, None)
    assert b"reason" not in answer.body
    assert client.answer().body == b"fine"
    (record,) = logged.take()
    assert (record.name, record.levelno) == ("evhttp", logging.ERROR)
    assert "/bad" in record.getMessage()
    assert "the reason" in str(record.exc_info[1])


def test_a_handler_that_raises_after_answering(serve: Serve, logged: Any) -> None:
    def handler(req: Request, res: Response) -> None:
        res.send(b"sent")
        raise RuntimeError

    client = serve(handler).connect()
    for _ in range(2):
        assert client.get().body == b"sent"
    assert ["after it had answered" in record.getMessage() for record in logged.take()] == [True, True]


def test_a_handler_that_does_not_answer(serve: Serve, logged: Any) -> None:
    client = serve(lambda req, res: None).connect()
    assert client.get("/x").status == 500
    assert [record.getMessage() for record in logged.take()] == ["the handler for GET /x returned without an answer"]


def test_a_handler_that_answers_twice(serve: Serve, logged: Any) -> None:
    def handler(req: Request, res: Response) -> None:
        res.send(b"first")
        res.send(b"second")

    client = serve(handler).connect()
    assert client.get("/x").body == b"first"
    assert client.get("/x").body == b"first"
    assert len(logged.take()) == 2


def test_a_handler_must_be_callable() -> None:
    with pytest.raises(TypeError, match="handler"):
        Server("handler")  # type: ignore[arg-type]


# -- clients that leave or stop -------------------------------------------------------------------------------------------------


def test_an_exchange_of_a_dead_connection_is_ignored(serve: Serve) -> None:
    """The client resets while its handler runs; another client may have its number by the time the answer is sent."""
    running = serve(lambda req, res: (time.sleep(0.05) if req.path == "/slow" else None, res.send(b"x" * 40_000)))
    for _ in range(5):
        client = running.connect()
        client.send(get("/slow") * 3)
        time.sleep(0.01)
        client.reset()
    assert running.connect().get().body == b"x" * 40_000
    running.until(lambda: running.server.connections == 1 and not running.server._pins)


@pytest.mark.parametrize("flush", [False, True], ids=["quick", "slow"])
def test_connections_that_close_at_once(serve: Serve, flush: bool) -> None:
    """With slow handlers the answer is flushed, and the connection ended, between two turns."""

    def handler(req: Request, res: Response) -> None:
        if flush:
            time.sleep(0.001)
        res.send(req.path)

    running = serve(handler)
    for _ in range(20):
        clients = [running.connect() for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(get(f"/{number}", "Connection: close"))
        for number, client in enumerate(clients):
            assert client.answer().body == b"/%d" % number
            assert client.at_end()
            client.close()
    running.until(lambda: running.server.connections == 0)


def test_a_batch_whose_handlers_are_slow_and_emit(serve: Serve) -> None:
    """More records than the ring holds come from the flushes between handlers: the ring moves, and Python must notice.

    HEAD with a large body lets its memory go at once, which is a record."""
    running = serve(lambda req, res: (time.sleep(0.0006), res.send(BLOB[:40_000])))
    clients = [running.connect() for _ in range(24)]
    for _ in range(2):
        for client in clients:
            client.send((b"HEAD / HTTP/1.1\r\n" + H + b"\r\n") * 60)
        for client in clients:
            for _ in range(60):
                assert client.answer(head=True).status == 200
    running.until(lambda: not running.server._pins)


def test_an_interrupt_in_the_middle_of_a_batch(stepped: Serve) -> None:
    """Ctrl-C in a handler goes to whoever runs the loop; the requests behind it are served when that goes on."""
    served: list[str] = []

    def handler(req: Request, res: Response) -> None:
        served.append(req.path)
        res.send(req.path.encode())
        if req.path == "/2":
            raise KeyboardInterrupt

    running = stepped(handler)
    (client,) = running.connect(1)
    client.send(b"".join(get(f"/{number}") for number in range(6)))
    with pytest.raises(KeyboardInterrupt):
        running.until(lambda: len(served) == 6)
    assert served == ["/0", "/1", "/2"]
    running.until(lambda: len(served) == 6)
    assert served == [f"/{number}" for number in range(6)]
    client.sock.setblocking(True)
    for number in range(6):
        assert client.answer().body == b"/%d" % number


def test_what_a_handler_keeps_of_a_batch_stays_its_own(stepped: Serve) -> None:
    """A request that nobody has kept is used again for the next of its turn: whatever keeps one must be noticed."""
    kept: list[tuple[str, Callable[[], str]]] = []

    def later(req: Request) -> Iterator[str]:
        yield req.path

    def traceback(req: Request) -> Callable[[], str]:
        try:
            raise ValueError
        except ValueError as error:
            trace = error.__traceback__
        assert trace is not None
        return lambda: trace.tb_frame.f_locals["req"].path

    keepers: list[Callable[[Request, Response], Callable[[], str]]] = [
        lambda req, res: lambda: req.path,
        lambda req, res: lambda: f"/{res.status_code - 400}",
        lambda req, res: functools.partial(next, later(req)),
        lambda req, res: functools.partial(getattr, {"it": req}["it"], "path"),
        lambda req, res: traceback(req),
    ]

    def handler(req: Request, res: Response) -> None:
        number = int(req.path[1:])
        res.status(400 + number)
        if number % 3:  # the others leave no trace
            kept.append((req.path, keepers[number % len(keepers)](req, res)))
        if number % 5 == 1:
            running.loop.call_later(0.001, res.defer().send, req.path.encode())
        else:
            res.send(req.path.encode())

    running = stepped(handler)
    (client,) = running.connect(1)
    client.send(b"".join(get(f"/{number}") for number in range(60)))
    client.sock.shutdown(socket.SHUT_WR)
    running.drain([client])
    assert len(kept) == 40
    assert [path for path, _ in kept] == [ask() for _, ask in kept]
    for number in range(60):
        answer = client.answer()
        assert (answer.status, answer.body) == (400 + number, b"/%d" % number)


def test_a_batch_in_debug_mode_is_served_one_by_one(backend: str) -> None:
    """So that a slow handler is named for itself, and not for those of its turn."""
    served: list[str] = []
    with Loop(backend=backend, debug=True) as loop:
        server = Server(lambda req, res: (served.append(req.path), res.send()), loop=loop).listen("127.0.0.1", 0)
        assert server._batch_target == 0
        with socket.create_connection(server.addresses[0]) as sock:
            sock.sendall(get("/a") + get("/b"))
            loop.run_until(lambda: len(served) == 2)
        server.close()
    assert served == ["/a", "/b"]


def test_the_end_of_a_connection_is_told_behind_its_requests(stepped: Serve) -> None:
    """All of it comes in one turn."""
    told: list[str] = []
    running = stepped(
        lambda req, res: (told.append(req.path), res.send()), on_connection_end=lambda end: told.append("end")
    )
    (client,) = running.connect(1)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.send(b"".join(get(f"/{number}") for number in range(3)))
    client.sock.close()
    running.until(lambda: "end" in told)
    assert told in (["/0", "/1", "/2", "end"], ["end"])  # a reset may take the bytes before it along


def test_half_a_request_then_the_end(serve: Serve) -> None:
    seen: list[str] = []
    running = serve(lambda req, res: (seen.append(req.path), res.send()))
    for data in (b"", b"GET", b"GET / HTTP/1.1\r\nHo", b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhel",
                 b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel"):  # fmt: skip
        client = running.connect()
        client.send(data)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.at_end()
    assert seen == []
    running.until(lambda: running.server.connections == 0)


HALVES: dict[str, tuple[bytes, Any]] = {
    "head": (b"GET / HTTP/1.1\r\nHo", {"head_timeout": 0.1}),
    "blank line": (b"\r\n", {"head_timeout": 0.1}),
    "second head": (get("/") + b"GET / HTTP/1.1\r\nHo", {"head_timeout": 0.1}),
    "body": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhel", {"body_timeout": 0.1}),
    "chunked body": (b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", {"body_timeout": 0.1}),
    "body that was not begun": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\n", {"body_timeout": 0.1}),
}


@pytest.mark.parametrize("name", HALVES)
def test_a_client_that_stops_half_way(serve: Serve, name: str) -> None:
    """RFC 9110 §15.5.9."""
    data, limits = HALVES[name]
    running = serve(echo, limits=Limits(**limits))
    witness, client = running.connect(), running.connect()
    client.send(data)
    if name == "second head":
        assert client.answer().status == 200
    answer = client.answer()
    assert (answer.status, answer.get("connection")) == (408, "close")
    assert client.at_end()
    client.close()
    assert running.connect().get("/x").body == b"/x"
    witness.close()


def test_drops_that_come_slowly_do_not_extend_the_deadline(serve: Serve) -> None:
    running = serve(echo, limits=Limits(head_timeout=0.3, idle_timeout=60))
    client = running.connect()
    client.sock.settimeout(0.02)
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1000:
        try:
            client.send(bytes([byte]))
            client._more()
        except TimeoutError:
            continue
        except OSError:
            break
        break
    client.sock.settimeout(20)
    assert client.answer().status == 408


@pytest.mark.parametrize(
    ("before", "limits"), [(b"", {"head_timeout": 0.1}), (get("/"), {"idle_timeout": 0.1})], ids=["new", "idle"]
)
def test_a_client_that_says_nothing(serve: Serve, before: bytes, limits: dict[str, Any]) -> None:
    """Closed without a word: 408 could be taken for the answer to the next request."""
    client = serve(echo, limits=Limits(**limits)).connect()
    if before:
        assert client.send(before).answer().status == 200
    assert client.at_end()


def test_a_client_that_never_reads_its_answer(serve: Serve) -> None:
    running = serve(lambda req, res: res.send(BLOB * 10 if req.path == "/" else b"x"), limits=Limits(write_timeout=0.1))
    witness, client = running.connect(), running.connect(receive_buffer=4096)
    client.send(get("/"))
    running.until(lambda: running.server.connections == 1 and not running.server._pins)
    with pytest.raises(ConnectionResetError):
        client.at_end()
    assert witness.get("/small").body == b"x"


def test_a_client_that_reads_slowly_is_not_cut_off(stepped: Serve) -> None:
    running = stepped(lambda req, res: res.send(BLOB * 10), limits=Limits(write_timeout=5))
    (client,) = running.connect(1)
    clock = ManualClock(running.loop)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    def read(aim: int) -> bool:
        with contextlib.suppress(BlockingIOError):
            client._more()
        return len(client.buffer) >= aim

    # A kernel tells that it takes more when a third of its buffer is free, which may be some megabytes.
    for aim in range(3_000_000, 19_000_000, 3_000_000):
        running.until(lambda aim=aim: read(aim))
        clock.advance(4)
    running.drain([client])
    assert client.answer().body == BLOB * 10


# -- the end --------------------------------------------------------------------------------------------------------------------


def test_close_lets_others_end_with_their_answer(serve: Serve) -> None:
    running = serve(echo)
    idle, half, body = (running.connect() for _ in range(3))
    idle.get("/")
    half.send(b"GET /half HTTP/1.1\r\nHo")
    body.send(b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhel")
    running.until(lambda: running.server.connections == 3)
    time.sleep(0.05)  # so that the halves have been read, not only accepted
    running.call(running.server.close)
    running.call(running.server.close)
    assert idle.at_end()
    for client, rest, expected in ((half, b"st: a\r\n\r\n", b"/half"), (body, b"lo", b"hello")):
        answer = client.send(rest).answer()
        assert (answer.body, answer.get("connection")) == (expected, "close")
        assert client.at_end()
    running.until(lambda: running.server.connections == 0)
    with pytest.raises(ConnectionRefusedError):
        running.connect()


def test_abort_resets_all(serve: Serve) -> None:
    running = serve(lambda req, res: res.send(BLOB * 5))
    clients = [running.connect(receive_buffer=4096) for _ in range(3)]
    for client in clients:
        client.send(get("/"))
    running.until(lambda: len(running.server._pins) == 3)
    assert running.call(running.server.abort) == 3
    for client in clients:
        with pytest.raises(ConnectionResetError):
            client.at_end()
    running.until(lambda: running.server.connections == 0 and not running.server._pins)


def test_after_the_loop_is_closed(backend: str) -> None:
    """Nothing of the server's memory is touched any more."""
    with checked_loop(backend) as loop:
        server = Server(echo, loop=loop).listen("127.0.0.1", 0)
        loop.close()
        assert server.connections == 0
        assert server.abort() == 0
        server.close()
        with pytest.raises(LoopClosedError):
            server.listen("127.0.0.1", 0)
        with pytest.raises(LoopClosedError):
            Server(echo, loop=loop)


def test_a_closed_server_does_not_listen_again(stepped: Serve) -> None:
    running = stepped(echo)
    running.server.close()
    with pytest.raises(EvHttpError, match="closed"):
        running.server.listen("127.0.0.1", 0)
    assert running.server.addresses == []


def test_a_taken_port(serve: Serve) -> None:
    running = serve(echo)
    before = open_descriptors()
    running.call(lambda: None)  # it runs
    with pytest.raises(OSError, match=str(running.address[1])):
        running.server.listen("127.0.0.1", running.address[1])
    assert open_descriptors() == before


def test_listening_twice(serve: Serve) -> None:
    running = serve(echo)
    running.call(lambda: running.server.listen("127.0.0.1", 0))
    assert len(running.server.addresses) == 2
    running.address = running.server.addresses[1]
    assert running.connect().get("/x").body == b"/x"


PROCESS = """
import logging, sys, time
from evhttp import Server
from evloop import Loop

logging.basicConfig(format="%(levelname)s %(message)s")

def handler(req, res):
    if req.path == "/slow":
        print("slow", flush=True)
        time.sleep(0.3)
    res.send(req.body or b"fine")

server = Server(handler, loop=Loop(backend=sys.argv[1])).listen("127.0.0.1", 0)
print(server.addresses[0][1], flush=True)
server.run()
print("ended", flush=True)
"""


def start(backend: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, backend], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(backend: str, number: int) -> None:
    process, port = start(backend)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 20) as idle,
            socket.create_connection(("127.0.0.1", port), 20) as busy,
        ):
            busy.sendall(get("/slow"))
            assert process.stdout is not None
            assert process.stdout.readline() == "slow\n"
            process.send_signal(number)
            answer = b""
            while data := busy.recv(1000):
                answer += data
            assert answer.endswith(b"\r\n\r\nfine")
            assert idle.recv(1) == b""
            out, err = process.communicate(timeout=20)
            assert (out, err, process.returncode) == ("ended\n", "", 0)
    finally:
        process.kill()
        process.communicate()


def test_a_second_signal_aborts(backend: str) -> None:
    process, port = start(backend)
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as busy:
            busy.sendall(get("/slow"))
            assert process.stdout is not None
            process.stdout.readline()
            busy.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
            process.send_signal(signal.SIGTERM)
            assert busy.recv(1000)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
            assert out == "ended\n"
            assert process.returncode == 0
            assert err in ("", "WARNING aborted 1 connections that had not ended\n")
    finally:
        process.kill()
        process.communicate()


def test_the_grace_of_a_drained_server_does_not_stop_its_loop_later(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evhttp import _server

    monkeypatch.setattr(_server, "_GRACE", 0.05)
    with checked_loop(backend) as loop:
        server = Server(echo, loop=loop).listen("127.0.0.1", 0)
        loop.call_soon(os.kill, os.getpid(), signal.SIGTERM)
        server.run()
        ran: list[int] = []
        loop.call_later(0.1, ran.append, 1)
        loop.call_later(0.2, loop.stop)
        loop.run()
        assert ran == [1]


# -- the access log -------------------------------------------------------------------------------------------------------------


def test_access_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test.access")
    caplog.set_level(logging.INFO, "test.access")
    running = serve(
        lambda req, res: res.status(404 if req.path == "/404" else 200).send(req.body[:3] or b"body"), access_log=log
    )
    client = running.connect()
    client.get("/a?b")
    client.get("/404")
    client.send(b"POST /big HTTP/1.1\r\n" + H + b"Content-Length: 300000\r\n\r\n" + BLOB[:300_000]).answer()
    client.send(b"bad\r\n\r\n")
    assert client.answer().status == 400
    assert client.at_end()
    running.until(lambda: len(caplog.records) >= 4)
    lines = [record.getMessage() for record in caplog.records if record.name == "test.access"]
    starts = [
        '127.0.0.1 "GET /a?b HTTP/1.1" 200 4 ',
        '127.0.0.1 "GET /404 HTTP/1.1" 404 4 ',
        '127.0.0.1 "POST /big HTTP/1.1" 200 3 ',
    ]
    for line, expected in zip(lines, starts, strict=False):
        assert line.startswith(expected)
        assert line.endswith("ms")
    assert lines[3].startswith("127.0.0.1 refused: 400 ")
    assert len(lines) == 4


# -- two at once ----------------------------------------------------------------------------------------------------------------


def test_two_servers_on_one_loop(stepped: Serve) -> None:
    first = stepped(lambda req, res: res.send(b"first"))
    second = stepped(lambda req, res: res.send(b"second"), limits=Limits(max_body_size=1))
    (a,), (b,) = first.connect(1), second.connect(1)
    for client, expected in ((a, b"first"), (b, b"second")):
        client.send(get("/", "Connection: close"))
        first.drain([client])
        assert client.answer().body == expected
    first.server.close()
    (c,) = second.connect(1)
    c.send(get("/", "Connection: close"))
    second.drain([c])
    assert c.answer().body == b"second"


def test_a_loop_of_its_own_is_closed_by_run() -> None:
    before = open_descriptors()
    server = Server(echo).listen("127.0.0.1", 0)
    server.loop.call_soon(server.loop.stop)
    server.run()
    assert server.loop.is_closed()
    assert open_descriptors() == before
    assert isinstance(server.loop, Loop)


CLOSED_FIRST = """
import signal, sys
import evhttp

server = evhttp.Server(lambda req, res: res.send("x")).listen("127.0.0.1", 0)
if sys.argv[1] == "close-before-run":
    server.close()
else:
    def close():
        server.close()
        signal.raise_signal(signal.SIGTERM)
    server.loop.call_soon(close)
server.run()
print("ended", server.loop.is_closed())
"""


@pytest.mark.parametrize("how", ["close-before-run", "signal-after-close"])
def test_run_ends_for_a_server_that_is_closed_already(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_FIRST, how], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("ended True\n", "", 0)
