"""Many clients: on the caller's loop, in threads, failures, and the end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

import evws
from evloop.testing import checked_loop, open_descriptors, run_until
from evws import Backoff, Clientele
from evws._handshake import accept_of

Serve = Callable[..., Any]
PATIENCE = 20


def address_of(running: Any) -> str:
    return f"ws://127.0.0.1:{running.address[1]}/"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_crowd_in_threads(serve: Serve, threads: int) -> None:
    running = serve()
    before = open_descriptors()
    lock = threading.Lock()
    got: list[Any] = []
    closed: list[Any] = []
    named: set[int] = set()
    all_there = threading.Event()

    def note(ws: Any, message: str) -> None:
        with lock:
            named.add(threading.get_ident())
            got.append((ws, message))
            if len(got) == 200:
                all_there.set()

    with Clientele(
        on_message=note, threads=threads, at_once=10, on_close=lambda ws, code, reason: closed.append(code)
    ) as crowd:
        assert crowd.connect(address_of(running), 150).result(PATIENCE) == 150
        assert crowd.connect(address_of(running), 50).result(PATIENCE) == 50
        assert len(crowd) == len(crowd.clients) == 200
        assert crowd.send("hello") == []
        assert all_there.wait(PATIENCE)
        assert {message for _, message in got} == {"hello"}
        assert len({ws for ws, _ in got}) == 200
        assert len(named) == threads
        assert threading.get_ident() not in named
    assert closed == [1000] * 200
    assert len(crowd) == 0
    assert not open_descriptors() - before
    with pytest.raises(RuntimeError):
        crowd.connect(address_of(running))
    crowd.close()


def test_on_the_callers_loop(backend: str) -> None:
    with checked_loop(backend) as loop:
        server = evws.Server(on_message=lambda ws, message: ws.send(message), loop=loop).listen("127.0.0.1", 0)
        url = f"ws://127.0.0.1:{server.addresses[0][1]}/"
        got: list[str] = []
        crowd = Clientele(loop=loop, on_message=lambda ws, message: got.append(message), at_once=7)
        future = crowd.connect(url, 40)
        run_until(loop, future.done)
        assert future.result() == 40
        for number, ws in enumerate(crowd):
            ws.send(str(number))
        run_until(loop, lambda: len(got) == 40)
        assert sorted(got, key=int) == [str(number) for number in range(40)]
        waits = crowd.connect(url, 20)
        crowd.close(4000, "enough")
        run_until(loop, lambda: not server.connections and not len(crowd))
        assert waits.done()
        server.close()


def test_those_that_fail_are_counted_and_told(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failures: list[Any] = []
    with Clientele(on_message=print, on_failure=lambda *about: failures.append(about)) as crowd:
        assert crowd.connect(f"ws://127.0.0.1:{port}/", 30).result(PATIENCE) == 0
        assert [type(error) for error, _ in failures] == [ConnectionRefusedError] * 30
        assert crowd.connect("ws://127.0.0.1:1/", 0).result(0) == 0
        with pytest.raises(ValueError, match="ws://"):
            crowd.connect("http://a").result(PATIENCE)
        with pytest.raises(ValueError, match="count"):
            crowd.connect("ws://a", -1)


def test_close_while_they_connect(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        crowd = Clientele(on_message=print, at_once=2, reconnect=Backoff())
        future = crowd.connect(f"ws://127.0.0.1:{listener.getsockname()[1]}/", 10)
        sock = listener.accept()[0]
        assert sock.recv(65536).startswith(b"GET / ")
        crowd.close()
        with pytest.raises(CancelledError):
            future.result(PATIENCE)
        sock.close()


def test_who_does_not_answer_the_close_is_aborted(serve: Serve) -> None:
    """The patience of `close` is for all together."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        heads: list[bytes] = []

        def silent() -> None:
            sock = listener.accept()[0]
            head = sock.recv(65536)
            heads.append(head)
            key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key"))
            answer = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            sock.sendall((answer + f"Sec-WebSocket-Accept: {accept_of(key.decode())}\r\n\r\n").encode())
            try:
                while sock.recv(65536):
                    pass
            except ConnectionResetError:
                pass
            sock.close()

        thread = threading.Thread(target=silent, daemon=True)
        thread.start()
        closed: list[Any] = []
        crowd = Clientele(on_message=print, on_close=lambda ws, code, reason: closed.append(code))
        assert crowd.connect(f"ws://127.0.0.1:{port}/").result(PATIENCE) == 1
        crowd.close(timeout=0.05)
        assert closed == [1006]
        thread.join(PATIENCE)


@pytest.mark.parametrize("options", [{"threads": 0}, {"at_once": 0}])
def test_options_that_make_no_sense(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Clientele(on_message=print, **options)  # type: ignore[arg-type]
