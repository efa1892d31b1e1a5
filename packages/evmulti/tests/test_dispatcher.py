"""Requests in the hands of a pool: what they are answered with, whatever happens to handlers, clients and threads."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import evhttp
from evmulti import Dispatcher, context, suspend

from .blocking import PATIENCE, Client, Gate, Serving


def echo(req: Any, res: Any) -> None:
    res.send(f"{req.method} {req.path} {req.query_string} {req.headers.get('host')} {req.body.decode()}")


def test_a_request_is_read_and_answered_in_a_thread_of_the_pool(serving: Serving) -> None:
    names: list[str] = []

    def handler(req: Any, res: Any) -> None:
        names.append(threading.current_thread().name)
        echo(req, res)

    client = serving.start(handler, name="pool").connect()
    answer = client.send(b"POST /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody").answer()
    assert (answer.status, answer.body) == (200, b"POST /a b=c h body")
    assert names == ["pool-1"]


def test_what_a_response_can(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")

    def handler(req: Any, res: Any) -> None:
        match req.path:
            case "/status":
                res.status(201).header("X-A", "b").send()
            case "/json":
                res.json({"a": [1, 2]})
            case "/redirect":
                res.redirect("/other", 307)
            case "/error":
                res.send_error(418 - 14)
            case "/file":
                res.send_file(tmp_path / "file", offset=2, count=5)
            case "/large":
                res.send(b"x" * 300_000)
            case "/pieces":
                assert res.write("one ")
                assert res.write(b"two ")
                res.end("three")
            case "/declared":
                res.begin(3)
                res.end(b"abc")

    client = serving.start(handler).connect()
    assert client.get("/status").headers["x-a"] == "b"
    assert client.get("/json").body == b'{"a":[1,2]}'
    answer = client.get("/redirect")
    assert (answer.status, answer.headers["location"]) == (307, "/other")
    assert client.get("/error").body == b"Not Found\n"
    assert client.get("/file").body == b"23456"
    assert len(client.get("/large").body) == 300_000
    assert client.get("/pieces").body == b"one two three"
    assert client.get("/declared").headers["content-length"] == "3"


@pytest.mark.parametrize("call", ["defer", "on_close", "on_drain", "read_body", "save_body", "hand_over"])
def test_what_only_the_loop_s_thread_can(serving: Serving, call: str) -> None:
    arguments = {"on_close": 1, "on_drain": 1, "read_body": 1, "save_body": 2}.get(call, 0)

    def handler(req: Any, res: Any) -> None:
        with pytest.raises(evhttp.ResponseStateError):
            getattr(res, call)(*[print] * arguments)
        res.send("refused")

    assert serving.start(handler).connect().get().body == b"refused"


def test_thousands_of_requests_from_many_connections(serving: Serving) -> None:
    """Each client gets its own answers in the order of its requests, pipelined and not, whichever thread made them."""
    serving.start(echo, pool_size=8, queue_size=10_000)
    failures: list[BaseException] = []

    def ask(number: int) -> None:
        try:
            client = Client(serving.address)
            for burst in range(40):
                targets = [f"/{number}/{burst}/{each}" for each in range(5)]
                client.send(b"".join(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for target in targets))
                for target in targets:
                    assert client.answer().body == f"GET {target}  a ".encode()
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
    assert (stats.pool.done, stats.waiting, stats.failed, stats.lost) == (24 * 40 * 5, 0, 0, 0)


def test_one_request_of_a_connection_at_a_time(serving: Serving) -> None:
    running = 0
    seen: list[tuple[str, int]] = []
    lock = threading.Lock()

    def handler(req: Any, res: Any) -> None:
        nonlocal running
        with lock:
            running += 1
            seen.append((req.path, running))
        threading.Event().wait(0.001)
        with lock:
            running -= 1
        res.send(req.path)

    client = serving.start(handler, pool_size=8).connect()
    paths = [f"/{number}" for number in range(40)]
    client.send(b"".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for path in paths))
    assert [client.answer().body.decode() for _ in paths] == paths
    assert seen == [(path, 1) for path in paths]


def test_connections_do_not_wait_for_each_other(serving: Serving) -> None:
    gate = Gate()
    serving.start(lambda req, res: (req.path == "/slow" and gate.wait(), res.send(req.path)), pool_size=2)
    slow = serving.connect().ask("/slow")
    gate.until()
    assert serving.connect().get("/quick").body == b"/quick"
    gate.opened.set()
    assert slow.answer().body == b"/slow"


def test_a_full_queue_is_503_with_retry_after(serving: Serving) -> None:
    gate = Gate()
    serving.start(lambda req, res: (gate.wait(), res.send("late")), pool_size=2, queue_size=3, retry_after=7)
    assert serving.dispatcher is not None
    dispatcher = serving.dispatcher
    clients = [serving.connect().ask() for _ in range(5)]
    gate.until(2)
    serving.until(lambda: dispatcher.stats().pool.queued == 3)
    answer = serving.connect().get()
    assert (answer.status, answer.headers["retry-after"]) == (503, "7")
    gate.opened.set()
    assert [client.answer().body for client in clients] == [b"late"] * 5
    stats = dispatcher.stats().pool
    assert (stats.refused, stats.most_queued, stats.queued) == (1, 3, 0)


def test_exceptions_are_500_and_logged(serving: Serving) -> None:
    def handler(req: Any, res: Any) -> None:
        if req.path == "/headers":
            res.status(201).header("X-Half", "done")
        if req.path == "/nothing":
            return
        if req.path == "/after":
            res.send("answered")
        if req.path == "/body":
            raise evhttp.BodyError("too strange", status=415)
        raise ZeroDivisionError("this is not shown")

    client = serving.start(handler).connect()
    for path in ("/", "/headers", "/nothing"):
        answer = client.get(path)
        assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
        assert "x-half" not in answer.headers
    assert client.get("/after").body == b"answered"
    assert client.get("/body").status == 415
    assert serving.dispatcher is not None
    serving.until(lambda: serving.dispatcher and serving.dispatcher.stats().pool.done == 5)
    assert serving.messages() == [
        "exception in the handler for GET /",
        "exception in the handler for GET /headers",
        "the handler for GET /nothing returned without an answer",
        "exception in the handler for GET /after, after it had answered",
    ]
    assert serving.dispatcher.stats().failed == 4


@pytest.mark.parametrize("raises", [True, False])
def test_half_an_answer_ends_the_connection(serving: Serving, raises: bool) -> None:
    def handler(req: Any, res: Any) -> None:
        res.write("half")
        if raises:
            raise ValueError

    client = serving.start(handler).connect().ask()
    with pytest.raises((AssertionError, ConnectionResetError, ValueError)):
        client.answer()
    serving.until(lambda: serving.entries)
    assert len(serving.messages()) == 1


def test_a_handler_that_hangs_is_504_and_its_answer_is_dropped(serving: Serving) -> None:
    gate = Gate()

    def handler(req: Any, res: Any) -> None:
        if req.path == "/hang":
            gate.wait()
        res.send(f"from {req.path}")

    serving.start(handler, pool_size=2, timeout=0.5)
    client = serving.connect()
    answer = client.get("/hang")
    assert (answer.status, answer.headers["connection"]) == (504, "close")
    assert client.at_end()
    assert serving.dispatcher is not None
    stats = serving.dispatcher.stats()
    assert (stats.stuck, stats.timed_out, stats.pool.running) == (1, 1, 1)
    assert serving.connect().get("/quick").body == b"from /quick"
    gate.opened.set()
    dispatcher = serving.dispatcher
    serving.until(lambda: dispatcher.stats().stuck == 0)
    assert serving.connect().get("/quick").body == b"from /quick"
    assert [message.partition(" has not")[0] for message in serving.messages()] == ["the handler for GET /hang"]


def test_a_request_whose_turn_does_not_come_is_503(serving: Serving) -> None:
    gate = Gate()
    serving.start(lambda req, res: (gate.wait(), res.send("late")), pool_size=1, timeout=0.1)
    first = serving.connect().ask()
    gate.until()
    answer = serving.connect().get("/queued")
    assert (answer.status, "retry-after" in answer.headers) == (503, True)
    assert first.answer().status == 504
    gate.opened.set()
    assert len(serving.messages()) == 2


def test_an_answer_that_has_begun_and_hangs_ends_with_its_connection(serving: Serving) -> None:
    gate = Gate()
    serving.start(lambda req, res: (res.write("half"), gate.wait(), res.end("late")), timeout=0.1)
    client = serving.connect().ask()
    with pytest.raises((AssertionError, ConnectionResetError, ValueError)):
        client.answer()
    gate.opened.set()
    assert len(serving.messages()) == 1


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_disappears_is_seen(serving: Serving, how: str) -> None:
    gate = Gate()
    seen: list[bool] = []

    def handler(req: Any, res: Any) -> None:
        if req.path == "/":
            gate.arrived.release()
            seen.append(suspend(PATIENCE))
            seen.append(context.client_gone)
        res.send("x" * 100_000)

    serving.start(handler)
    client = serving.connect().ask()
    gate.until()
    getattr(client, how)()
    assert serving.dispatcher is not None
    dispatcher = serving.dispatcher
    serving.until(lambda: dispatcher.stats().pool.done == 1)
    assert seen == [False, True]
    assert serving.connect().get("/other").status == 200


def test_clients_that_disappear_while_they_wait_are_not_worked_for(serving: Serving) -> None:
    gate = Gate()
    paths: list[str] = []
    serving.start(lambda req, res: (paths.append(req.path), gate.wait(), res.send("done")), pool_size=1)
    first = serving.connect().ask("/first")
    gate.until()
    assert serving.dispatcher is not None
    dispatcher = serving.dispatcher
    for _ in range(3):
        serving.connect().ask("/gone")
    serving.until(lambda: dispatcher.stats().pool.queued == 3)
    for client in serving.clients[1:]:
        client.reset()
    serving.until(lambda: dispatcher.stats().lost == 3)
    gate.opened.set()
    assert first.answer().body == b"done"
    serving.until(lambda: dispatcher.stats().pool.done == 4)
    assert paths == ["/first"]


def test_requests_that_wait_behind_one_another_are_forgotten_with_their_client(serving: Serving) -> None:
    gate = Gate()
    paths: list[str] = []
    serving.start(lambda req, res: (paths.append(req.path), gate.wait(), res.send("done")))
    client = serving.connect().ask("/1").ask("/2").ask("/3")
    gate.until()
    assert serving.dispatcher is not None
    dispatcher = serving.dispatcher
    serving.until(lambda: dispatcher.stats().waiting == 2)
    client.reset()
    serving.until(lambda: dispatcher.stats().lost == 3)
    assert dispatcher.stats().waiting == 0
    gate.opened.set()
    serving.until(lambda: dispatcher.stats().pool.done == 1)
    assert paths == ["/1"]


def test_write_waits_for_a_client_that_is_behind(serving: Serving) -> None:
    pieces = 200
    written = Counter[str]()

    def handler(req: Any, res: Any) -> None:
        for _ in range(pieces):
            assert res.write(b"x" * 65_536)
            written["pieces"] += 1
        res.end()

    serving.start(handler)
    client = serving.connect().ask()
    client.sock.recv(1)
    assert client.sock.recv(1)  # it has begun; the kernel's buffers hold far less than all of it
    assert written["pieces"] < pieces
    size = 2
    while size < pieces * 65_536:
        size += len(client.sock.recv(1 << 20))


def test_write_ends_when_the_client_is_gone(serving: Serving) -> None:
    ended = threading.Event()

    def handler(req: Any, res: Any) -> None:
        while res.write(b"x" * 65_536):
            pass
        assert req.is_lost
        ended.set()

    client = serving.start(handler).connect().ask()
    client.sock.recv(1)
    client.reset()
    assert ended.wait(PATIENCE)


def test_a_body_is_read_while_it_comes(serving: Serving) -> None:
    def handler(req: Any, res: Any) -> None:
        assert req.is_streamed
        line = req.body_file.readline()
        rest = sum(map(len, iter(lambda: req.body_file.read1(50_000), b"")))
        res.send(f"{line!r} {rest}")

    limits = evhttp.Limits(max_body_size=10_000_000)
    serving.start(handler, limits=limits, stream_bodies=True, strategy="stream")
    client = serving.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000006\r\n\r\nfirst\n")
    for _ in range(50):
        client.send(b"y" * 100_000)
    assert client.answer().body == b"b'first\\n' 5000000"


def test_a_body_is_gathered_for_threads_that_want_whole_requests(serving: Serving) -> None:
    serving.start(echo, stream_bodies=True)
    client = serving.connect().send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    assert serving.dispatcher is not None
    client.send(b"def")
    assert client.answer().body == b"POST /a  a abcdef"
    assert serving.connect().get("/b").body == b"GET /b  a "


def test_a_body_that_breaks_off(serving: Serving) -> None:
    errors: list[str] = []
    gate = Gate()

    def handler(req: Any, res: Any) -> None:
        gate.arrived.release()
        try:
            req.body_file.read()
        except evhttp.BodyError as error:
            errors.append(str(error))
            raise

    serving.start(handler, stream_bodies=True, strategy="stream")
    client = serving.connect().send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    gate.until()
    client.close()
    assert serving.dispatcher is not None
    dispatcher = serving.dispatcher
    serving.until(lambda: dispatcher.stats().pool.done == 1)
    assert len(errors) == 1


def test_threads_begin_and_end(serving: Serving) -> None:
    calls: list[str] = []
    gate = Gate()

    def note(what: str) -> None:
        calls.append(f"{what} {threading.current_thread().name}")

    serving.start(
        lambda req, res: (gate.wait(), res.send("hello")),
        pool_size=2,
        name="p",
        thread_init=lambda: note("begins"),
        thread_exit=lambda: note("ends"),
    )
    clients = [serving.connect().ask() for _ in range(3)]
    gate.until(2)
    gate.opened.set()
    for client in clients:
        assert client.answer().body == b"hello"
    assert sorted(calls) == ["begins p-1", "begins p-2"]
    assert serving.dispatcher is not None
    assert serving.dispatcher.close(PATIENCE) == 0
    assert sorted(calls[2:]) == ["ends p-1", "ends p-2"]
    assert serving.connect().get().status == 503


def test_a_thread_that_cannot_begin_is_500_and_the_next_one_tries_again(serving: Serving) -> None:
    attempts = itertools.count()

    def begin() -> None:
        if next(attempts) == 0:
            raise ConnectionError("no database")

    client = serving.start(echo, pool_size=1, thread_init=begin).connect()
    assert client.get().status == 500
    assert client.get().status == 200
    assert [message.partition(" in ")[0] for message in serving.messages()] == ["thread_init failed"]


def test_a_server_ends_with_work_in_the_pool(serving: Serving) -> None:
    """close() lets what is with the pool end, and the loop can go while a thread still works."""
    gate = Gate()
    serving.start(lambda req, res: (gate.wait(), res.send("finished")), pool_size=1)
    first, second = serving.connect().ask(), serving.connect().ask()
    gate.until()
    dispatcher = serving.dispatcher
    serving.until(lambda: dispatcher and dispatcher.stats().pool.queued == 1)
    serving.loop.call_soon_threadsafe(serving.server.close)
    serving.until(lambda: not serving.server.addresses)
    gate.opened.set()
    assert first.answer().headers["connection"] == "close"
    assert second.answer().body == b"finished"


def test_an_answer_after_the_loop_has_closed_is_dropped(serving: Serving, tmp_path: Path) -> None:
    gate = Gate()
    (tmp_path / "file").write_bytes(b"0123456789")
    sent = threading.Event()

    def handler(req: Any, res: Any) -> None:
        gate.wait()
        res.send_file(tmp_path / "file")
        sent.set()

    serving.start(handler)
    serving.connect().ask()
    gate.until()
    serving.loop.stop()
    serving.thread.join(PATIENCE)
    assert serving.dispatcher is not None
    assert serving.dispatcher.close(0) == 1
    assert len(serving.messages()) == 1
    closer = threading.Timer(0.05, gate.opened.set)
    closer.start()
    serving.loop.close()  # waits for the pool
    closer.join()
    assert sent.wait(PATIENCE)


def test_threads_that_wait_for_a_client_are_woken_when_the_loop_closes(serving: Serving) -> None:
    ended: list[str] = []
    gate = Gate()

    def handler(req: Any, res: Any) -> None:
        gate.arrived.release()
        if req.method == "POST":
            with pytest.raises(evhttp.BodyError):
                req.body_file.read()
            ended.append("read")
            return
        while res.write(b"x" * 65_536):
            pass
        ended.append("write")

    serving.start(handler, stream_bodies=True, strategy="stream")
    serving.connect().ask()
    serving.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
    gate.until(2)
    dispatcher = serving.dispatcher
    relay = evhttp.Relay.at(serving.server)
    serving.until(lambda: len(relay._blocked) == 2)
    serving.loop.stop()
    serving.thread.join(PATIENCE)
    serving.loop.close()
    assert sorted(ended) == ["read", "write"]
    assert dispatcher is not None
    assert dispatcher.stats().pool.threads == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_size": 0}, "at least 1 thread"),
        ({"max_active": 33}, "max_active must be from 1"),
        ({"queue_size": -1}, "queue_size"),
        ({"timeout": 0}, "timeout"),
        ({"strategy": "other"}, "strategy"),
        ({"retry_after": -1}, "retry_after"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dispatcher(echo, **options)


def test_what_is_no_handler() -> None:
    with pytest.raises(TypeError, match="callable"):
        Dispatcher(None)  # type: ignore[arg-type]
