"""A server with a pool in a thread of its own, clients for it, and gates for handlers to wait at."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import evhttp
from evloop.testing import checked_loop
from evmulti import ConnectionClosed, Dispatcher, Log, LogEntry, SocketServer

PATIENCE = 20


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Sends raw bytes and reads whole answers."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, PATIENCE)
        self.file = self.sock.makefile("rb")

    def send(self, data: bytes) -> Client:
        self.sock.sendall(data)
        return self

    def get(self, target: str = "/") -> Answer:
        return self.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).answer()

    def ask(self, target: str = "/") -> Client:
        """Send a request and do not wait for the answer."""
        return self.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    def answer(self) -> Answer:
        line = self.file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {key.lower(): value for key, value in http.client.parse_headers(self.file).items()}
        if "transfer-encoding" in headers:
            body = b""
            while size := int(self.file.readline(), 16):
                body += self.file.read(size)
                assert self.file.read(2) == b"\r\n"
            assert self.file.readline() == b"\r\n"
        else:
            body = self.file.read(int(headers["content-length"]))
        return Answer(int(line.split()[1]), headers, body)

    def at_end(self) -> bool:
        """Whether nothing comes but the end of the connection."""
        try:
            return self.file.read() == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def close(self) -> None:
        self.file.close()
        self.sock.close()


class Gate:
    """Where a handler waits until the test lets it go on."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.opened = threading.Event()

    def wait(self) -> None:
        self.arrived.release()
        assert self.opened.wait(PATIENCE)

    def until(self, count: int = 1) -> None:
        """Wait until so many more handlers stand at the gate."""
        for _ in range(count):
            assert self.arrived.acquire(timeout=PATIENCE)


class Serving:
    """A server whose handler is a dispatcher's, and its loop in a thread."""

    def __init__(self, loop: Any, entries: list[LogEntry]) -> None:
        self.loop = loop
        self.entries = entries
        self.clients: list[Client] = []
        self.dispatcher: Dispatcher | None = None

    def start(
        self,
        handler: Callable[[Any, Any], object],
        *,
        limits: evhttp.Limits | None = None,
        stream_bodies: bool = False,
        **options: Any,
    ) -> Serving:
        self.dispatcher = Dispatcher(handler, log=Log("test", callback=self.entries.append), **options)
        return self.serve(evhttp.Server(self.dispatcher, loop=self.loop, limits=limits, stream_bodies=stream_bodies))

    def start_sockets(
        self,
        handler: Callable[[Any, Any], object],
        *,
        limits: evhttp.Limits | None = None,
        on_close: Callable[[ConnectionClosed], object] | None = None,
        **options: Any,
    ) -> Serving:
        """Serve with threads that have the sockets."""
        log = Log("test", callback=self.entries.append)
        self.dispatcher = Dispatcher(handler, log=log, strategy="socket", **options)
        self.sockets = SocketServer(self.dispatcher, loop=self.loop, limits=limits, on_close=on_close)
        self.address = self.sockets.listen("127.0.0.1", 0).addresses[0]
        return self.serve_started()

    def serve(self, server: evhttp.Server) -> Serving:
        self.server = server.listen("127.0.0.1", 0)
        self.address = server.addresses[0]
        return self.serve_started()

    def serve_started(self) -> Serving:
        """Run the loop, on which a server listens at ``address``."""
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()
        return self

    def connect(self) -> Client:
        self.clients.append(Client(self.address))
        return self.clients[-1]

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

    def messages(self) -> list[str]:
        """Take what was logged at WARNING and above."""
        taken = [entry.message for entry in self.entries if entry.level >= 30]
        self.entries.clear()
        return taken

    def end(self) -> None:
        for client in self.clients:
            client.close()
        self.loop.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        if self.dispatcher is not None:
            assert self.dispatcher.close(PATIENCE) == 0


@pytest.fixture
def serving() -> Iterator[Serving]:
    """A server to be started; at the end nothing may be left: no descriptor, no thread, no log entry that nobody expected."""
    entries: list[LogEntry] = []
    threads = threading.active_count()
    with checked_loop() as loop:
        made = Serving(loop, entries)
        try:
            yield made
        finally:
            made.end()
    assert made.messages() == []
    assert threading.active_count() == threads
