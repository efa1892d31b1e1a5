from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import evnet
from evloop import Loop
from evloop.testing import backends, checked_loop, run_until

sys.path.append(str(Path(__file__).resolve().parent))  # for tls_peers.py: pytest imports test files by their paths

# With injected faults one turn may do nothing, and the next one, too.
TURNS = 5 if "EV_FAULTS" in os.environ else 1


@pytest.fixture(params=backends())
def backend(request: pytest.FixtureRequest) -> str:
    """Each poller that this machine has."""
    return str(request.param)


@pytest.fixture
def loop(backend: str) -> Iterator[Loop]:
    """A loop on each backend; fails on a descriptor left open and on an exception nobody expected."""
    with checked_loop(backend) as loop:
        yield loop


class Gatherer:
    """A datagram protocol that writes down what happens to it, and checks the order in which it may happen."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.datagrams: list[tuple[bytes, Any]] = []
        self.errors: list[OSError] = []
        self.pauses: list[str] = []
        self.lost = 0
        self.cause: Exception | None = None

    @property
    def address(self) -> Any:
        return self.transport.get_extra_info("sockname")

    @property
    def data(self) -> list[bytes]:
        return [data for data, _ in self.datagrams]

    def connection_made(self, transport: Any) -> None:
        assert self.transport is None
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert not self.transport.is_closing()
        self.datagrams.append((data, addr))

    def error_received(self, exc: OSError) -> None:
        assert not self.transport.is_closing()
        self.errors.append(exc)

    def pause_writing(self) -> None:
        assert self.pauses[-1:] != ["pause"]
        self.pauses.append("pause")

    def resume_writing(self) -> None:
        assert self.pauses[-1:] == ["pause"]
        self.pauses.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.lost
        self.lost += 1
        self.cause = exc


@pytest.fixture
def gatherer() -> type[Gatherer]:
    return Gatherer


@pytest.fixture(params=["batches", "one-by-one"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How datagrams pass into the kernel: as on this system, and as on those that have no batches."""
    monkeypatch.setattr("evnet._udp._calls", 0 if request.param == "batches" else 2)
    return str(request.param)


class Recorder:
    """A protocol that writes down what happens to it, and checks the order in which it may happen."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.calls: list[str] = []
        self.data = bytearray()
        self.error: Exception | None = None
        self.answer_eof: bool | None = None
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        assert self.calls == []
        self.calls.append("made")
        self.transport = transport
        self.pair.made.append(self)

    def data_received(self, data: bytes) -> None:
        assert self.calls[0] == "made"
        assert "eof" not in self.calls
        assert "lost" not in self.calls
        assert data
        self.data += data

    def eof_received(self) -> bool | None:
        assert "eof" not in self.calls
        assert "lost" not in self.calls
        self.calls.append("eof")
        return self.answer_eof

    def pause_writing(self) -> None:
        assert "lost" not in self.calls
        self.calls.append("pause")

    def resume_writing(self) -> None:
        assert [call for call in self.calls if call in ("pause", "resume")][-1] == "pause"
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        assert "lost" not in self.calls
        self.calls.append("lost")
        self.error = exc


class Pair:
    """A server on a loop, and blocking clients of it, which are closed at the end of the test."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.made: list[Any] = []
        self.clients: list[socket.socket] = []
        self.server: evnet.Server | None = None

    def listen(self, factory: Callable[[], Any] | None = None, **options: Any) -> evnet.Server:
        self.server = evnet.listen_tcp(self.loop, factory or (lambda: Recorder(self)), "127.0.0.1", 0, **options)
        return self.server

    def connect(self, *, receive_buffer: int = 0) -> socket.socket:
        assert self.server is not None
        client = socket.socket()
        self.clients.append(client)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(30)
        client.connect(self.server.addresses[0])
        return client

    def connected(self, **options: Any) -> tuple[socket.socket, Any]:
        """A client, and the protocol that serves it."""
        if self.server is None:
            self.listen()
        count = len(self.made)
        client = self.connect(**options)
        self.until(lambda: len(self.made) > count)
        return client, self.made[-1]

    def until(self, condition: Callable[[], object]) -> None:
        run_until(self.loop, condition)

    def turns(self, count: int = 3) -> None:
        """Let what is under way happen, where there is nothing to wait for."""
        for _ in range(count * TURNS):
            self.loop.run_once(0.005 / TURNS)

    def read(self, client: socket.socket, count: int) -> bytes:
        """Read so many bytes, or to the end, with the loop running meanwhile."""
        got = bytearray()
        ended = False

        def more() -> None:
            nonlocal ended
            data = client.recv(min(65536, max(count - len(got), 1)))
            ended = not data
            got.extend(data)
            if ended or len(got) >= count:
                self.loop.remove_reader(client.fileno())

        # The loop watches the client too, so that it does not sleep while there is something to read.
        self.loop.add_reader(client.fileno(), more)
        try:
            self.until(lambda: ended or len(got) >= count)
        finally:
            self.loop.remove_reader(client.fileno())
        return bytes(got)

    def drain(self, client: socket.socket) -> None:
        """Read to the end of the connection, without the loop."""
        while client.recv(1 << 20):
            pass

    def close(self) -> None:
        for client in self.clients:
            client.close()


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def make_pair() -> type[Pair]:
    return Pair


@pytest.fixture
def pair(loop: Loop) -> Iterator[Pair]:
    pair = Pair(loop)
    yield pair
    pair.close()
