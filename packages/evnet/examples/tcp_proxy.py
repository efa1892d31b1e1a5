"""A TCP proxy with back-pressure: `python tcp_proxy.py listen-port host port`.

A side that does not read makes the proxy stop reading the other one, so what is in the proxy stays small however much is sent. An
end of file goes through as one, and the other direction goes on.

With --selftest it sends 20 MB through itself to a client that reads nothing at first, and says how little of that it held.
"""

import sys
from typing import Any

import evloop
import evnet


class Side:
    """One of the two connections; what it receives, the other one sends."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.other: Side | None = None
        self.passed = 0
        self.ended = False

    def connection_made(self, transport: Any) -> None:
        """Know the connection."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self.passed += len(data)
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Pass it on, and keep our own side open for what still comes from the other, until that has ended, too."""
        self.ended = True
        if self.other is None:
            return False
        self.other.transport.write_eof()
        if self.other.ended:
            self.other.transport.close()
        return not self.other.ended

    def pause_writing(self) -> None:
        """Too much waits to be sent here: stop reading there."""
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Most of it has gone."""
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other one, too: in order if this one ended in order."""
        if self.other is not None:
            if exc is None:
                self.other.transport.close()
            else:
                self.other.transport.abort()


class Client(Side):
    """The side that was accepted: connects the other one, and reads nothing before that is there."""

    def __init__(self, loop: evloop.Loop, host: str, port: int) -> None:
        super().__init__()
        self.loop = loop
        self.target = host, port

    def connection_made(self, transport: Any) -> None:
        """Ask for the other side."""
        super().connection_made(transport)
        transport.pause_reading()
        self.connecting = evnet.connect_tcp(self.loop, Side, *self.target, timeout=10)
        self.connecting.add_done_callback(self.connected)

    def connected(self, connecting: evnet.Connecting) -> None:
        """Join the two."""
        if connecting.cancelled():
            return
        if (error := connecting.exception()) is not None:
            print(error, file=sys.stderr)
            self.transport.abort()
            return
        if self.transport.is_closing():  # since a moment ago
            connecting.result().abort()
            return
        server = connecting.result().get_protocol()
        assert isinstance(server, Side)
        self.other, server.other = server, self
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the connection that is not there yet."""
        self.connecting.cancel()
        super().connection_lost(exc)


def serve(loop: evloop.Loop, listen_port: int, host: str, port: int) -> evnet.Server:
    """Listen for clients on the local interface."""
    return evnet.listen_tcp(loop, lambda: Client(loop, host, port), "127.0.0.1", listen_port)


def main(listen_port: str, host: str, port: str) -> None:
    """Serve until Ctrl-C."""
    with evloop.Loop() as loop:
        server = serve(loop, int(listen_port), host, int(port))
        print("listening on", *server.addresses, flush=True)
        try:
            loop.run()
        except KeyboardInterrupt:
            print("closing")


class Source(Side):
    """Sends 20 MB, as fast as it may."""

    total = 20_000_000
    sent = 0
    paused = False

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        super().connection_made(transport)
        self.send()

    def send(self) -> None:
        """Go on until told to pause."""
        while not self.paused and self.sent < self.total:
            size = min(50_000, self.total - self.sent)
            self.transport.write(bytes(size))
            self.sent += size
            if self.sent % 500_000 == 0:
                self.loop.call_soon(self.send)  # pause_writing comes between turns
                return
        if self.sent == self.total and not self.transport.is_closing():
            self.transport.write_eof()

    loop: evloop.Loop

    def pause_writing(self) -> None:
        """Stop."""
        self.paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self.paused = False
        self.send()


class Sink(Side):
    """Counts, and closes when the end has come."""


def selftest() -> None:
    """Send much through the proxy to somebody slow."""
    with evloop.Loop() as loop:
        Source.loop = loop
        sources: list[Source] = []

        def source() -> Source:
            sources.append(Source())
            return sources[-1]

        origin = evnet.listen_tcp(loop, source, "127.0.0.1", 0)
        proxy = serve(loop, 0, *origin.addresses[0][:2])
        sink = Sink()
        connecting = evnet.connect_tcp(loop, lambda: sink, *proxy.addresses[0][:2], timeout=10)
        loop.run_until(connecting.done)
        connecting.result().pause_reading()
        loop.run_until(lambda: sources and sources[0].paused)
        before = -1
        while before != sources[0].sent:  # until nothing moves any more
            before = sources[0].sent
            loop.call_later(0.2, int)
            loop.run_once()
            loop.run_once(0.2)
        print("stopped with less than 20 MB sent:", sources[0].sent < Source.total)
        connecting.result().resume_reading()
        loop.run_until(lambda: sink.ended)
        print("bytes through the proxy:", sink.passed)
        loop.run_until(lambda: proxy.connections == origin.connections == 0)
        origin.close()
        proxy.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["--selftest"]:
        selftest()
    else:
        main(*sys.argv[1:])
