"""The protocols of the "net" benchmark's servers: the same classes on every loop."""

from __future__ import annotations

import asyncio


def settle_malloc():
    """Free a large block once, as any program of some size has done.

    asyncio and others receive into blocks of 256 KiB. glibc gets such from the kernel and gives them back, four system calls
    and page faults for each message, until a larger one has been freed; and a program as small as ours may never do that.
    """
    bytes(16 << 20)


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    __slots__ = ("transport",)

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Once(asyncio.Protocol):
    """Sends back what comes first, and closes."""

    __slots__ = ("transport",)

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)
        self.transport.close()


class Fanout(asyncio.Protocol):
    """Greets with one byte; sends what comes from one to all."""

    __slots__ = ("transport",)

    def connection_made(self, transport):
        self.transport = transport
        everyone.add(transport)
        transport.write(b"!")

    def connection_lost(self, error):
        everyone.discard(self.transport)

    def data_received(self, data):
        for transport in everyone:
            transport.write(data)


everyone = set()  # transports of Fanout


class EchoDatagram(asyncio.DatagramProtocol):
    """Sends each datagram back."""

    __slots__ = ("transport",)

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


class Dialer(asyncio.Protocol):
    """Sends a message, compares its echo, waits until the server has closed, and calls back with what is wrong, if anything."""

    __slots__ = ("done", "got")
    message = bytes(range(64))

    def __init__(self, done):
        self.done = done
        self.got = b""

    def connection_made(self, transport):
        transport.write(self.message)

    def data_received(self, data):
        self.got += data

    def connection_lost(self, error):
        self.done(error or (None if self.got == self.message else f"{len(self.got)} bytes, not the echo"))


SERVERS = {"echo": Echo, "tls": Echo, "once": Once, "fanout": Fanout}
