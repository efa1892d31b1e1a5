"""Servers that differ, in one process."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import evhttp
from evloop.testing import checked_loop
from evmulti import ContextError, LogEntry, Service, Services, StartError, context, suspend

from .blocking import PATIENCE, Client, Gate


def hello(req: Any, res: Any) -> None:
    res.send(f"{req.path} {sorted(dict(req.headers.items()))}")


@contextmanager
def running(*services: Service) -> Iterator[Services]:
    with checked_loop() as loop:
        made = Services(*services, loop=loop).start()
        thread = threading.Thread(target=made.run)
        thread.start()
        try:
            yield made
        finally:
            made.stop()
            made.stop()
            thread.join(PATIENCE)
            assert not thread.is_alive()


def quiet(entry: LogEntry) -> None:
    """Log nothing."""


def test_each_has_its_own_port_handler_bodies_headers_and_threads() -> None:
    def save(req: Any, res: Any) -> None:
        res.send(f"{context.thread_name} {req.body.decode()} {sorted(dict(req.headers.items()))}")

    show = Service("show", hello, port=0, body="none", log=quiet)
    saves = Service("save", save, port=0, pool_size=2, keep_headers=["Host", "X-A"], log=quiet)
    with running(show, saves):
        first, second = Client(show.addresses[0]), Client(saves.addresses[0])
        post = b"POST /form HTTP/1.1\r\nHost: a\r\nX-A: b\r\nCookie: secret\r\nContent-Length: 4\r\n\r\nbody"
        assert first.get("/page").body == b"/page ['host']"
        assert first.send(post).answer().status == 413
        assert second.send(post).answer().body == b"save-1 body ['host', 'x-a']"
        first.close()
        second.close()


def test_headers_are_kept_in_handlers_of_the_loop_s_thread_too() -> None:
    service = Service("a", hello, port=0, keep_headers=["accept"], log=quiet)
    with running(service):
        client = Client(service.addresses[0])
        client.send(b"GET /x HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nCookie: b\r\n\r\n" * 2)
        assert [client.answer().body for _ in range(2)] == [b"/x ['accept']"] * 2
        client.close()


def test_streamed_bodies() -> None:
    def count(req: Any, res: Any) -> None:
        res.send(str(len(req.body_file.read())))

    limits = evhttp.Limits(max_body_size=3_000_000)
    service = Service("up", count, port=0, body="streamed", pool_size=1, limits=limits, log=quiet)
    with running(service):
        client = Client(service.addresses[0])
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n").send(b"x" * 2_000_000)
        assert client.answer().body == b"2000000"
        client.close()


def test_sockets_are_given_to_a_service_without_a_port() -> None:
    """A server at the client's end of a connection: what comes through it are requests."""

    def handler(req: Any, res: Any) -> None:
        res.send(f"{context.connection.context} {req.path}")

    closed: list[Any] = []
    ended = threading.Event()
    service = Service("inside", handler, on_close=lambda end: (closed.append(end), ended.set()), log=quiet)
    with running(service):
        assert service.addresses == []
        ours, theirs = socket.socketpair()
        connection = service.register(ours, context="tunnel 1")
        client = Client.__new__(Client)
        client.sock, client.file = theirs, theirs.makefile("rb")
        theirs.settimeout(PATIENCE)
        assert client.get("/a").body == b"tunnel 1 /a"
        connection.context = "renamed"
        assert client.get("/b").body == b"renamed /b"
        assert service.unregister(connection)
        assert client.at_end()
        client.close()
        assert ended.wait(PATIENCE)
        assert closed[0].connection is connection
        assert not service.unregister(connection)


def test_what_cannot_be_registered_stays_the_caller_s() -> None:
    service = Service("inside", hello, log=quiet)
    with pytest.raises(StartError, match="has not been started"):
        service.register(None)  # type: ignore[arg-type]
    with running(service):
        ours, theirs = socket.socketpair()
        theirs.close()
        file = os.open("/dev/null", os.O_RDWR)
        os.dup2(file, ours.fileno())
        os.close(file)
        with pytest.raises(OSError, match=r".+"):
            service.register(ours)
        ours.close()


def test_a_port_that_is_taken_leaves_nothing_behind() -> None:
    with checked_loop() as loop, socket.create_server(("127.0.0.1", 0)) as taken:
        free = Service("free", hello, port=0, log=quiet)
        other = Service("other", hello, port=taken.getsockname()[1], log=quiet)
        with pytest.raises(StartError, match=r"the service other cannot listen: .*in use"):
            Services(free, other, loop=loop).start()
        assert free.addresses == []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(StartError):
            Services(Service("other", hello, port=taken.getsockname()[1], log=quiet)).run()


def test_sigterm_drains() -> None:
    gate = Gate()
    service = Service("a", lambda req, res: (gate.wait(), res.send("done")), port=0, pool_size=1, log=quiet)
    with checked_loop() as loop:
        services = Services(service, loop=loop).start()
        answers: list[bytes] = []

        def ask() -> None:
            client = Client(service.addresses[0]).ask()
            gate.until()
            os.kill(os.getpid(), signal.SIGTERM)
            loop.call_soon_threadsafe(loop.call_later, 0.05, gate.opened.set)
            answers.append(client.answer().body)
            client.close()

        thread = threading.Thread(target=ask)
        thread.start()
        services.run()
        thread.join(PATIENCE)
    assert answers == [b"done"]


def test_who_does_not_end_in_time_is_aborted_and_counted() -> None:
    gate = Gate()
    entries: list[LogEntry] = []
    service = Service("a", lambda req, res: (gate.wait(), res.send("done")), port=0, pool_size=1, log=entries.append)
    with checked_loop() as loop:
        services = Services(service, loop=loop, grace=0.05).start()
        thread = threading.Thread(target=services.run)
        thread.start()
        client = Client(service.addresses[0]).ask()
        gate.until()
        services.stop()
        assert client.at_end()
        gate.opened.set()
        thread.join(PATIENCE)
        client.close()
    assert "aborted 1 connections that had not ended" in [entry.message for entry in entries]


def test_the_loop_s_thread_must_not_wait() -> None:
    errors: list[str] = []

    def handler(req: Any, res: Any) -> None:
        try:
            suspend(1)
        except ContextError as error:
            errors.append(str(error))
        res.send("hello")

    service = Service("a", handler, port=0, log=quiet)
    with running(service):
        client = Client(service.addresses[0])
        assert client.get().body == b"hello"
        client.close()
    assert "must not wait" in errors[0]


def test_what_services_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Services()
    with pytest.raises(ValueError, match="a name of its own"):
        Services(Service("a", hello), Service("a", hello))
    with pytest.raises(ValueError, match="body must be"):
        Service("a", hello, body="other")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        Service("a", None)  # type: ignore[arg-type]
