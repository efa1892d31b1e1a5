"""WebSocket messages in the hands of a pool."""

from __future__ import annotations

import struct
import threading
from typing import Any

import pytest

import evws
from evmulti import Dispatcher, Log, context, suspend

from .blocking import PATIENCE, Client, Gate, Serving

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Peer:
    """A WebSocket client of small frames."""

    def __init__(self, client: Client) -> None:
        self.client = client.send(HANDSHAKE)
        while client.file.readline() != b"\r\n":
            pass

    def send(self, text: str, opcode: int = 1) -> None:
        data = text.encode()
        assert len(data) < 126
        self.client.send(struct.pack("!BB4x", 0x80 | opcode, 0x80 | len(data)) + data)

    def receive(self) -> tuple[int, bytes]:
        first, size = self.client.file.read(2)
        return first & 15, self.client.file.read(size)


def start(serving: Serving, on_message: Any, *, pool: dict[str, Any] | None = None, **options: Any) -> Dispatcher:
    log = Log("test", callback=serving.entries.append)
    dispatcher = Dispatcher(lambda req, res: res.send("plain"), log=log, **(pool or {}))
    serving.dispatcher = dispatcher
    callbacks = dispatcher.websocket(on_message, **options)
    serving.serve(evws.Server(**callbacks, handler=dispatcher, loop=serving.loop))
    return dispatcher


def test_messages_of_each_socket_are_in_order(serving: Serving) -> None:
    seen: dict[str, list[int]] = {}

    def note(socket: Any, message: str) -> None:
        who, _, number = message.partition(" ")
        seen.setdefault(who, []).append(int(number))
        threading.Event().wait(0.0001)
        socket.send(message)

    start(serving, note, pool={"pool_size": 8})
    peers = [Peer(serving.connect()) for _ in range(6)]
    for number in range(100):
        for who, peer in enumerate(peers):
            peer.send(f"{who} {number}")
    for who, peer in enumerate(peers):
        assert [peer.receive()[1].decode() for _ in range(100)] == [f"{who} {number}" for number in range(100)]
    assert seen == {str(who): list(range(100)) for who in range(6)}


def test_open_messages_and_close_come_in_this_order(serving: Serving) -> None:
    seen: list[Any] = []
    closed = threading.Event()

    def on_close(socket: Any, code: int, reason: str) -> None:
        seen.append((code, reason))
        closed.set()

    start(
        serving,
        lambda socket, message: seen.append(message),
        on_open=lambda socket: seen.append(context.request.path),
        on_close=on_close,
    )
    peer = Peer(serving.connect())
    peer.send("one")
    peer.send("two")
    peer.client.send(struct.pack("!BB4xH", 0x88, 0x82, 1000))
    assert closed.wait(PATIENCE)
    assert seen == ["/chat", "one", "two", (1000, "")]


def test_send_works_from_any_thread(serving: Serving) -> None:
    sockets: list[Any] = []
    opened = threading.Event()
    dispatcher = start(serving, print, on_open=lambda socket: (sockets.append(socket), opened.set()))
    peer = Peer(serving.connect())
    assert opened.wait(PATIENCE)
    sockets[0].send("from the test")
    sockets[0].send(memoryview(b"bytes"))
    sockets[0].close(4000, "enough")
    assert [peer.receive() for _ in range(2)] == [(1, b"from the test"), (2, b"bytes")]
    assert peer.receive() == (8, struct.pack("!H", 4000) + b"enough")
    with pytest.raises(TypeError, match="str or bytes-like"):
        sockets[0].send(5)
    serving.until(lambda: sockets[0].state is not evws.State.OPEN)
    with pytest.raises(evws.ConnectionClosedError):
        sockets[0].send("too late")
    assert dispatcher.stats().failed == 0


def test_plain_requests_on_the_same_port(serving: Serving) -> None:
    start(serving, print)
    assert serving.connect().get().body == b"plain"


def test_an_exception_closes_with_1011(serving: Serving) -> None:
    def fail(socket: Any, message: str) -> None:
        raise ValueError

    start(serving, fail)
    peer = Peer(serving.connect())
    peer.send("boom")
    assert peer.receive()[1][:2] == struct.pack("!H", 1011)
    assert serving.messages() == ["exception in a WebSocket callback"]


def test_too_many_messages_close_with_1013(serving: Serving) -> None:
    gate = Gate()
    start(serving, lambda socket, message: gate.wait(), max_messages=2)
    peer = Peer(serving.connect())
    peer.send("held")
    gate.until()
    for _ in range(3):
        peer.send("more")
    assert peer.receive()[1][:2] == struct.pack("!H", 1013)
    gate.opened.set()
    assert serving.messages() == ["a WebSocket is closed: more than 2 messages wait"]


def test_a_full_pool_closes_with_1013_and_tells_of_it_when_it_can(serving: Serving) -> None:
    gate = Gate()
    closed: list[int] = []
    told = threading.Event()

    def on_close(socket: Any, code: int, reason: str) -> None:
        closed.append(code)
        told.set()

    start(serving, lambda *_: gate.wait(), on_close=on_close, pool={"pool_size": 1, "queue_size": 0})
    first, second = Peer(serving.connect()), Peer(serving.connect())
    first.send("held")
    gate.until()
    second.send("refused")
    assert second.receive()[1][:2] == struct.pack("!H", 1013)
    second.client.close()
    serving.until(lambda: serving.server.connections == 1)
    assert closed == []
    gate.opened.set()
    assert told.wait(PATIENCE)
    assert len(closed) == 1
    assert serving.messages() == ["a WebSocket is closed: no thread is free"]


def test_a_callback_that_waits_learns_of_the_end(serving: Serving) -> None:
    gate = Gate()
    seen: list[bool] = []

    def wait(socket: Any, message: str) -> None:
        gate.arrived.release()
        seen.append(suspend(PATIENCE))
        seen.append(context.client_gone)
        gate.opened.set()

    start(serving, wait)
    peer = Peer(serving.connect())
    peer.send("wait")
    gate.until()
    peer.client.reset()
    assert gate.opened.wait(PATIENCE)
    assert seen == [False, True]
