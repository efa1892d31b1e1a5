from __future__ import annotations

import base64
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))  # for framing.py: pytest imports test files by their paths

from evloop import Loop
from evloop.testing import backends, checked_loop
from evws import Frame, FrameParser, Opcode, Server, Violation, encode_close, encode_frame
from evws._handshake import accept_of
from evws._pins import pins_of

PATIENCE = 20
MASK = b"\x12\xf4\x00\x9a"


class Client:
    """A blocking client that sends what it is told to, and is strict about what it gets."""

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
        self.head = b""
        self.parser = FrameParser("client", max_message_size=1 << 30)
        self.frames: list[Frame | Violation] = []
        self.ended = False

    def request(self, *lines: str, behind: bytes = b"", without: str = "", start: str = "GET /chat HTTP/1.1") -> str:
        """Send a handshake, `behind` in the same packet, and return the key."""
        key = base64.b64encode(os.urandom(16)).decode()
        usual = [
            "Host: a",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        kept = [line for line in usual if not (without and line.startswith(without))]
        self.sock.sendall("\r\n".join([start, *kept, *lines, "", ""]).encode("latin-1") + behind)
        return key

    def answer(self) -> tuple[int, dict[str, str]]:
        """The head of the answer; what follows it is kept."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            assert more, f"no answer but {data!r}"
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1)[:1] + line.split(": ", 1)[1:] for line in lines)
        assert len(fields) == len(lines)
        if status.split(" ")[1] == "101":
            self.frames += self.parser.feed(rest)
        else:
            self.head = rest
        return int(status.split(" ")[1]), fields

    def shake(self, *lines: str, behind: bytes = b"") -> dict[str, str]:
        key = self.request(*lines, behind=behind)
        status, fields = self.answer()
        assert status == 101
        assert fields["sec-websocket-accept"] == accept_of(key)
        return fields

    def send(self, opcode: int, payload: str | bytes = b"", **options: Any) -> Client:
        self.sock.sendall(encode_frame(opcode, payload, mask=MASK, **options))
        return self

    def text(self, text: str | bytes) -> Client:
        return self.send(Opcode.TEXT, text)

    def frame(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        while not self.frames and not self.ended:
            data = self.sock.recv(1 << 20)
            self.ended = not data
            self.frames += self.parser.feed(data)
        if not self.frames:
            return None
        frame = self.frames.pop(0)
        assert isinstance(frame, Frame), frame
        return frame

    def message(self) -> bytes:
        frame = self.frame()
        assert frame is not None
        assert frame.fin
        assert frame.opcode in (Opcode.TEXT, Opcode.BINARY)
        return frame.payload

    def closed(self) -> tuple[int | None, str]:
        """Read to the end of the connection, which a Close comes before: its code and reason."""
        frame = self.frame()
        assert frame is not None
        assert frame.opcode == Opcode.CLOSE
        assert self.frame() is None
        code = int.from_bytes(frame.payload[:2], "big") if frame.payload else None
        return code, frame.payload[2:].decode()

    def close(self) -> None:
        self.sock.close()


class Running:
    """A server in a thread of its own, and what its callbacks were told."""

    def __init__(self, loop: Loop, server: Server, events: list[tuple[Any, ...]]) -> None:
        self.loop = loop
        self.server = server.listen("127.0.0.1", 0)
        self.address = server.addresses[0]
        self.events = events
        self.clients: list[Client] = []
        self._thread = threading.Thread(target=loop.run)
        self._thread.start()

    def connect(self, *, address: tuple[str, int] | None = None, **options: Any) -> Client:
        """A client before its handshake."""
        client = Client(address or self.address, **options)
        self.clients.append(client)
        return client

    def open(self, *lines: str, **options: Any) -> Client:
        client = self.connect(**options)
        client.shake(*lines)
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
        assert met.wait(PATIENCE), f"the condition was not met; {self.events}"

    def told(self, *names: str) -> list[tuple[Any, ...]]:
        """The events of these names so far, without their sockets."""
        return [event for event in list(self.events) if event[0] in names]

    def end(self) -> None:
        for client in self.clients:
            client.close()
        if not self.loop.is_closed():
            self.until(lambda: not self.server.connections and not len(pins_of(self.loop)))
            self.loop.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


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
    loggers = [logging.getLogger(name) for name in ("evloop", "evhttp", "evws")]
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


def echo(ws: Any, message: Any) -> None:
    ws.send(message)


@pytest.fixture
def serve(backend: str, logged: Logged) -> Iterator[Callable[..., Running]]:
    """Start an echo server, or one with other callbacks, once in a test; no connection and no pinned message may be left."""
    made: list[Running] = []
    with checked_loop(backend) as loop:

        def make(on_message: Callable[[Any, Any], object] = echo, **options: Any) -> Running:
            events: list[tuple[Any, ...]] = []
            options = {
                "on_open": lambda ws: events.append(("open",)),
                "on_close": lambda ws, code, reason: events.append(("close", code, reason)),
                "on_error": lambda ws, error: events.append(("error", error)),
            } | options
            made.append(Running(loop, Server(on_message=on_message, loop=loop, **options), events))
            return made[-1]

        try:
            yield make
        finally:
            for each in made:
                each.end()


__all__ = ["Client", "Logged", "Running", "encode_close"]
