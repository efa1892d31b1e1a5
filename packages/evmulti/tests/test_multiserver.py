"""`MultiServer` in this process: what is served, where, from start to end, and what is left behind."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evhttp
import evmulti
from evloop.testing import open_descriptors
from evmulti._listeners import Listeners, Tcp, drain_queue
from evws import Frame, FrameParser, Opcode, encode_frame

from .conftest import PATIENCE, get, until
from .support.served import Echo, handler


def served(what: Any, mode: str = "thread", **options: Any) -> evmulti.MultiServer:
    return evmulti.MultiServer(what, 2, mode, **options).listen("127.0.0.1", 0)  # type: ignore[arg-type]


def test_start_and_end_leave_nothing_behind(mode: str, accept: str) -> None:
    before, threads = open_descriptors(), threading.active_count()
    with served(handler, mode, accept=accept, metrics=("127.0.0.1", 0)) as server:
        assert len(server.addresses) == 1
        assert len(server.stats().workers) == 2
        if accept == "kernel":
            assert get(server.addresses[0][1], "/") == (200, "hello")
    assert open_descriptors() == before
    until(lambda: threading.active_count() == threads, "the end of the threads")


def test_stopped_as_soon_as_it_is_ready(mode: str) -> None:
    """Whoever is told that the server is ready may end it at once, before its loop has made a turn."""
    before = open_descriptors()
    server = served(handler, mode)
    assert server.run(server.stop) == 0
    assert open_descriptors() <= before


def tells_who_asks(req: evhttp.Request, res: evhttp.Response) -> None:
    assert req.client is not None
    res.send(f"{req.client[0]} {req.scheme}")


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        pytest.param({}, "127.0.0.1 http", id="nobody"),
        pytest.param({"trusted": ["127.0.0.0/8"]}, "10.9.8.7 https", id="us"),
        pytest.param({"trusted": ["127.0.0.1"], "forwarded": ["X-Forwarded-For"]}, "10.9.8.7 http", id="in part"),
    ],
)
def test_what_a_proxy_says_is_believed_if_it_is_trusted(mode: str, options: Any, answer: str) -> None:
    with served(tells_who_asks, mode, **options) as server:
        client = http.client.HTTPConnection(*server.addresses[0], timeout=PATIENCE)
        client.request("GET", "/", headers={"X-Forwarded-For": "10.9.8.7", "X-Forwarded-Proto": "https"})
        assert client.getresponse().read().decode() == answer
        client.close()


def fails(worker: evmulti.Worker) -> None:
    if worker.number == 1:
        raise ValueError("no database")


@pytest.mark.parametrize(
    ("what", "options", "reason"),
    [
        pytest.param("no.such.module:handler", {}, r"worker \d cannot start: there is no module", id="module"),
        pytest.param(handler, {"setup": fails}, "worker 1 cannot start: .*ValueError: no database", id="setup"),
    ],
)
def test_a_start_that_fails_leaves_nothing_behind(mode: str, what: Any, options: Any, reason: str) -> None:
    before = open_descriptors()
    with pytest.raises(evmulti.StartError, match=reason):
        served(what, mode, **options).start()
    until(lambda: open_descriptors() == before, "the end of the workers")


def test_a_taken_port_leaves_nothing_behind(mode: str) -> None:
    before = open_descriptors()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        taken = sock.getsockname()[1]
        server = evmulti.MultiServer(handler, 2, mode)  # type: ignore[arg-type]
        server.listen("127.0.0.1", 0).listen("127.0.0.1", taken)
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {taken}: Address already in use"):
            server.start()
    assert open_descriptors() == before


@pytest.mark.parametrize("what", [Echo, lambda: Echo()], ids=["class", "factory"])
@pytest.mark.parametrize("accept", ["kernel", "acceptor"])
def test_plain_protocols(
    what: Callable[[], Any], accept: str, mode: str, run_in_thread: Callable[[evmulti.MultiServer], int]
) -> None:
    made = evmulti.MultiServer(what, 2, mode, accept=accept, protocol=not isinstance(what, type))  # type: ignore[arg-type]
    with socket.create_connection(("127.0.0.1", run_in_thread(made)), PATIENCE) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"


def test_websockets(mode: str) -> None:
    with served(handler, mode) as server, socket.create_connection(server.addresses[0], PATIENCE) as client:
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 101 ")
        client.sendall(encode_frame(Opcode.TEXT, "hello", mask=b"abcd"))
        frames = FrameParser("client").feed(client.recv(1000))
        assert frames == [Frame(Opcode.TEXT, b"hello")]


def test_setup_and_teardown_run_in_the_worker() -> None:
    seen: list[tuple[str, int, str]] = []

    def setup(worker: evmulti.Worker) -> None:
        worker.context = threading.current_thread().name
        assert isinstance(worker.server, evhttp.Server)
        assert worker.server.loop is worker.loop
        seen.append(("setup", worker.number, worker.mode))

    def teardown(worker: evmulti.Worker) -> None:
        assert worker.context == threading.current_thread().name
        seen.append(("teardown", worker.number, worker.mode))

    with served(handler, setup=setup, teardown=teardown):
        assert sorted(seen) == [("setup", 0, "thread"), ("setup", 1, "thread")]
    assert sorted(seen[2:]) == [("teardown", 0, "thread"), ("teardown", 1, "thread")]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"handler": 5}, TypeError),
        ({"handler": "module"}, evmulti.TargetError),
        ({"workers": -1}, ValueError),
        ({"mode": "fiber"}, ValueError),
        ({"accept": "both"}, ValueError),
        ({"grace": -0.1}, ValueError),
        ({"worker_timeout": 1}, ValueError),
        ({"metrics_path": "metrics"}, ValueError),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        evmulti.MultiServer(**({"handler": handler} | arguments))


def test_the_order_of_calls() -> None:
    server = evmulti.MultiServer(handler, 1, "thread")
    with pytest.raises(evmulti.EvMultiError, match="nowhere to listen"):
        server.start()
    with pytest.raises(evmulti.EvMultiError, match="not started"):
        server.stats()
    with server.listen("127.0.0.1", 0):
        for call in (server.start, server.listen):
            with pytest.raises(evmulti.EvMultiError, match="started already"):
                call()
    server.stop()
    assert server.stats().workers == ()


def test_after_the_last_call_nobody_new_gets_into_the_queue(tmp_path: Path) -> None:
    """But who is in it is served."""
    listeners = Listeners([Tcp("127.0.0.1", 0)], 1, spread=True)
    try:
        address = listeners.addresses()[0]
        with socket.create_connection(address, PATIENCE), socket.create_connection(address, PATIENCE):
            listeners.last_call()
            with socket.socket() as late:
                late.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    late.connect(address)
            found = drain_queue(listeners.shared[0])
            assert len(found) == 2
            for sock in found:
                sock.close()
    finally:
        listeners.close()
