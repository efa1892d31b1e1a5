"""Protocols that were written for asyncio, by others, run unchanged and without an asyncio loop."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import evnet

Pair = Any


# -- h11: an HTTP server -------------------------------------------------------------------------------------------------------


def test_an_http_server_on_h11(pair: Pair) -> None:
    h11 = pytest.importorskip("h11")

    class Http(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert hasattr(transport, "write")
            self.transport: Any = transport
            self.http = h11.Connection(h11.SERVER)
            self.body = bytearray()

        def data_received(self, data: bytes) -> None:
            self.http.receive_data(data)
            self.handle()

        def eof_received(self) -> None:
            self.http.receive_data(b"")
            self.handle()

        def handle(self) -> None:
            while True:
                event = self.http.next_event()
                if isinstance(event, h11.Data):
                    self.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    self.answer(bytes(self.body).upper())
                elif event is h11.NEED_DATA:
                    return
                elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                    self.transport.close()
                    return

        def answer(self, body: bytes) -> None:
            headers = [("content-length", str(len(body)))]
            pieces = [
                self.http.send(h11.Response(status_code=200, headers=headers)),
                self.http.send(h11.Data(data=body)),
                self.http.send(h11.EndOfMessage()),
            ]
            self.transport.writelines(pieces)
            self.body.clear()
            if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
                self.http.start_next_cycle()

    server = evnet.listen_tcp(pair.loop, Http, "127.0.0.1", 0)
    pair.server = server
    client = pair.connect()
    for body in (b"abc", b"x" * 300_000):
        request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        send_all(pair, client, request + body)
        expected = b"HTTP/1.1 200 \r\ncontent-length: %d\r\n\r\n" % len(body) + body.upper()
        assert pair.read(client, len(expected)) == expected
    client.shutdown(socket.SHUT_WR)
    assert pair.read(client, 1) == b""
    pair.until(lambda: server.connections == 0)


def send_all(pair: Pair, client: socket.socket, data: bytes) -> None:
    """Send with the loop running meanwhile."""
    client.setblocking(False)
    view = memoryview(data)

    def step() -> bool:
        nonlocal view
        try:
            view = view[client.send(view) :]
        except BlockingIOError:
            pass
        return not view

    pair.until(step)
    client.settimeout(10)


# -- wsproto: a WebSocket echo -------------------------------------------------------------------------------------------------


def test_a_websocket_server_on_wsproto(pair: Pair) -> None:
    wsproto = pytest.importorskip("wsproto")
    events = wsproto.events

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport
            self.ws = wsproto.WSConnection(wsproto.ConnectionType.SERVER)

        def data_received(self, data: bytes) -> None:
            self.ws.receive_data(data)
            for event in self.ws.events():
                if isinstance(event, events.Request):
                    self.transport.write(self.ws.send(events.AcceptConnection()))
                elif isinstance(event, events.Message):
                    answer = type(event)(data=event.data, message_finished=event.message_finished)
                    self.transport.write(self.ws.send(answer))
                elif isinstance(event, events.CloseConnection):
                    self.transport.write(self.ws.send(event.response()))
                    self.transport.close()

    pair.server = evnet.listen_tcp(pair.loop, Echo, "127.0.0.1", 0)
    client = pair.connect()
    ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    got: list[Any] = []

    def exchange(event: Any, kind: type) -> None:
        client.sendall(ws.send(event))
        while not any(isinstance(each, kind) and getattr(each, "message_finished", True) for each in got):
            ws.receive_data(pair.read(client, 1))
            got.extend(ws.events())

    exchange(events.Request(host="x", target="/"), events.AcceptConnection)
    exchange(events.TextMessage(data="hello"), events.TextMessage)
    assert "".join(each.data for each in got if isinstance(each, events.TextMessage)) == "hello"
    exchange(events.CloseConnection(code=1000), events.CloseConnection)
    assert pair.read(client, 1) == b""


# -- asyncio's own, and aiohttp's -----------------------------------------------------------------------------------------------


class LoopForFutures:
    """What asyncio's streams ask of a loop, besides the transport: futures, which nobody awaits here."""

    def get_debug(self) -> bool:
        return False

    def create_future(self) -> Any:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(context)

    def is_closed(self) -> bool:
        return False


def finished(coroutine: Any) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    return stopped.value.value


def test_asyncio_stream_reader_and_writer(pair: Pair) -> None:
    """Its reader pauses the transport when it holds too much, and its writer waits when the transport does."""
    loop: Any = LoopForFutures()
    reader = asyncio.StreamReader(limit=4096, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    server = evnet.listen_tcp(pair.loop, lambda: protocol, "127.0.0.1", 0)
    pair.server = server
    client = pair.connect(receive_buffer=32768)
    client.sendall(b"a line\n" + b"x" * 50_000)
    pair.until(lambda: reader._transport is not None and not reader._transport.is_reading())  # type: ignore[attr-defined]
    transport = reader._transport  # type: ignore[attr-defined]
    assert finished(reader.readline()) == b"a line\n"
    got = 0
    while got < 50_000:
        pair.until(lambda: reader._buffer)  # type: ignore[attr-defined]
        got += len(finished(reader.read(10_000)))
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    writer.write(b"answer")
    finished(writer.drain())
    writer.writelines([b" in", b" pieces"])
    assert writer.get_extra_info("peername") == client.getsockname()
    writer.write(b"x" * 9_000_000)
    pair.until(lambda: protocol._paused)  # type: ignore[attr-defined]
    assert pair.read(client, 9_000_016)[:16] == b"answer in pieces"
    pair.until(lambda: not protocol._paused)  # type: ignore[attr-defined]
    client.close()
    pair.until(reader.at_eof)
    assert finished(reader.read()) == b""
    writer.close()
    pair.until(lambda: server.connections == 0)


def test_aiohttp_client_protocol(pair: Pair) -> None:
    """It parses a response that comes in pieces."""
    client_proto = pytest.importorskip("aiohttp.client_proto")
    made: list[Any] = []

    def factory() -> Any:
        made.append(client_proto.ResponseHandler(loop=LoopForFutures()))
        made[-1].set_response_params(read_until_eof=True)
        return made[-1]

    pair.server = evnet.listen_tcp(pair.loop, factory, "127.0.0.1", 0)
    client = pair.connect()
    for piece in (b"HTTP/1.1 200 OK\r\nconte", b"nt-length: 5\r\n\r\nhel", b"lo"):
        client.sendall(piece)
        pair.turns()
    message, payload = finished(made[0].read())
    assert message.code == 200
    assert message.headers["Content-Length"] == "5"
    assert payload.is_eof()
    assert payload.read_nowait() == b"hello"
    client.close()
    pair.until(lambda: pair.server.connections == 0)
