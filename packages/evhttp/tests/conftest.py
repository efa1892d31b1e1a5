from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import pytest

from evhttp import Limits, Request, Response, Server
from evloop import Loop
from evloop.testing import backends, checked_loop

PATIENCE = 20


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: bytes = b""  # with the chunks' sizes gone
    chunks: list[int] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} was sent {len(found)} times"
        return found[0] if found else None


def take_answer(buffer: bytearray, *, head: bool = False, ended: bool = False) -> Answer | None:
    """Cut one answer off the buffer, or return None when it is not whole. Strict about what we may send."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    line, *lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    version, status, _ = line.split(" ", 2)
    assert version == "HTTP/1.1"
    assert len(status) == 3
    answer = Answer(int(status))
    for each in lines:
        name, colon, value = each.partition(": ")
        assert colon
        answer.headers.append((name.lower(), value))
    length = answer.get("content-length")
    if head or answer.status in (100, 103, 204, 304):
        size = 0
    elif answer.get("transfer-encoding") == "chunked":
        assert length is None
        return answer if _take_chunks(buffer, end + 4, answer) else None
    elif length is None and answer.get("connection") == "close":
        if not ended:
            return None
        size = len(buffer) - end - 4
    else:
        assert length is not None
        size = int(length)
    if len(buffer) < end + 4 + size:
        assert not ended, f"the body ends after {len(buffer) - end - 4} of {size} bytes"
        return None
    answer.body = bytes(buffer[end + 4 : end + 4 + size])
    del buffer[: end + 4 + size]
    return answer


def _take_chunks(buffer: bytearray, at: int, answer: Answer) -> bool:
    body = bytearray()
    while (end := buffer.find(b"\r\n", at)) >= 0:
        line = bytes(buffer[at:end])
        assert line == b"%x" % int(line, 16), "a size without leading zeros, extensions or anything else"
        size = int(line, 16)
        at = end + 2
        if not size:
            break
        if len(buffer) < at + size + 2:
            return False
        body += buffer[at : at + size]
        assert buffer[at + size : at + size + 2] == b"\r\n"
        answer.chunks.append(size)
        at += size + 2
    else:
        return False
    end = at if buffer[at : at + 2] == b"\r\n" else buffer.find(b"\r\n\r\n", at) + 2
    if len(buffer) < end + 2 or end < at:
        return False
    answer.body, answer.trailers = bytes(body), bytes(buffer[at:end])
    del buffer[: end + 2]
    return True


class Client:
    """A blocking client that sends raw bytes and is strict about answers."""

    def __init__(self, address: tuple[str, int], *, receive_buffer: int = 0) -> None:
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.ended = False

    def send(self, data: bytes) -> Client:
        self.sock.sendall(data)
        return self

    def get(self, target: str = "/", *lines: str) -> Answer:
        self.send("\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *lines, "", ""]).encode("latin-1"))
        return self.answer()

    def answer(self, *, head: bool = False) -> Answer:
        while (answer := take_answer(self.buffer, head=head, ended=self.ended)) is None:
            assert not self.ended, f"no answer but {bytes(self.buffer)!r}"
            self._more()
        return answer

    def at_end(self) -> bool:
        """Read to the end of the connection; whether nothing came before it."""
        while not self.ended:
            self._more()
        return not self.buffer

    def _more(self) -> None:
        data = self.sock.recv(1 << 20)
        self.buffer += data
        self.ended = not data

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class Running:
    """A server in a thread of its own."""

    def __init__(self, loop: Loop, server: Server) -> None:
        self.loop = loop
        self.server = server.listen("127.0.0.1", 0)
        self.address = server.addresses[0]
        self.clients: list[Client] = []
        self._thread = threading.Thread(target=loop.run)
        self._thread.start()

    def connect(self, **options: Any) -> Client:
        client = Client(self.address, **options)
        self.clients.append(client)
        return client

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function on the loop's thread and return its result."""
        done = threading.Event()
        result: list[Any] = []

        def run() -> None:
            try:
                result.append(function())
            finally:
                done.set()

        self.loop.call_soon_threadsafe(run)
        assert done.wait(PATIENCE)
        return result[0]

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition is true on the loop's thread."""
        met = threading.Event()

        def look() -> None:
            if condition():
                met.set()
            else:
                self.loop.call_later(0.002, look)

        self.loop.call_soon_threadsafe(look)
        assert met.wait(PATIENCE), "the condition was not met"

    def end(self) -> None:
        for client in self.clients:
            client.close()
        self.loop.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


class Stepped:
    """A server that the test itself runs, a turn at a time: what a client has sent is there before the turn."""

    def __init__(self, loop: Loop, server: Server) -> None:
        self.loop = loop
        self.server = server.listen("127.0.0.1", 0)
        self.address = server.addresses[0]
        self.clients: list[Client] = []

    def connect(self, count: int) -> list[Client]:
        present = self.server.connections
        made = [Client(self.address) for _ in range(count)]
        for client in made:
            client.sock.setblocking(False)
        self.clients += made
        self.until(lambda: self.server.connections == present + count)
        return made

    def until(self, condition: Callable[[], object]) -> None:
        """Run turns until the condition is true; short ones, because what a client does wakes no loop."""
        deadline = monotonic() + PATIENCE
        while not condition():
            assert monotonic() < deadline, "the condition was not met"
            self.loop.run_once(0.0005)

    def turns(self, count: int = 2) -> None:
        for _ in range(count):
            self.loop.run_once(0)

    def drain(self, clients: list[Client]) -> None:
        """Read from all until each connection has ended."""

        def step() -> bool:
            for client in clients:
                if not client.ended:
                    try:
                        client._more()
                    except BlockingIOError:
                        pass
            return all(client.ended for client in clients)

        self.until(step)

    def end(self) -> None:
        for client in self.clients:
            client.close()


class Logged(logging.Handler):
    """What the packages log at WARNING and above. A test that expects something takes it out."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def take(self) -> list[logging.LogRecord]:
        records, self.records = self.records, []
        return records


@pytest.fixture
def logged() -> Iterator[Logged]:
    handler = Logged()
    loggers = [logging.getLogger(name) for name in ("evloop", "evhttp")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in handler.records] == []


@pytest.fixture(params=backends())
def backend(request: pytest.FixtureRequest) -> str:
    """Each poller that this machine has."""
    return str(request.param)


Handler = Callable[[Request, Response], object]


@contextmanager
def _server(backend: str, kind: Callable[[Loop, Server], Any]) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []
    with checked_loop(backend) as loop:

        def make(handler: Handler, *, limits: Limits | None = None, **options: Any) -> Any:
            made.append(kind(loop, Server(handler, loop=loop, limits=limits, **options)))
            return made[-1]

        try:
            yield make
        finally:
            for each in made:
                each.end()


@pytest.fixture
def serve(backend: str, logged: Logged) -> Iterator[Callable[..., Running]]:
    """Start a server with a handler in a thread, once in a test; clients are made by its `connect`."""
    with _server(backend, Running) as make:
        yield make


@pytest.fixture
def stepped(backend: str, logged: Logged) -> Iterator[Callable[..., Stepped]]:
    """A server that is run by the test."""
    with _server(backend, Stepped) as make:
        yield make
