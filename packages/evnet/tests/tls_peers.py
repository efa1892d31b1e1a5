"""What the tests of TLS share: certificates, and a peer whose every byte is the test's to send or to keep back."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Callable
from functools import cache
from time import monotonic
from typing import Any

import trustme

from evloop import Loop

PATIENCE = 20


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def certificate(*names: str) -> trustme.LeafCert:
    return authority().issue_cert(*(names or ("localhost", "127.0.0.1")))


def server_context(*names: str, expired: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if expired:
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        authority().issue_cert("localhost", not_after=yesterday).configure_cert(context)
    else:
        certificate(*names).configure_cert(context)
    return context


def client_context(*, trusting: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trusting:
        authority().configure_trust(context)
    return context


class Peer:
    """The other end: a socket, and OpenSSL between two memory BIOs. Nothing is sent before `send`."""

    def __init__(
        self, loop: Loop, sock: socket.socket, *, context: ssl.SSLContext | None = None, server: bool = False
    ) -> None:
        self.loop = loop
        self.sock = sock
        sock.setblocking(False)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        if context is None:
            context = server_context() if server else client_context()
        name = None if server else "localhost"
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server, server_hostname=name)
        self.plain = bytearray()
        self.ended = ""  # how: "clean" by close_notify, "eof", or "reset"
        self.step = 0  # bytes at a time; 0: all

    def send(self) -> None:
        """Send what OpenSSL has made."""
        data = self.outgoing.read()
        while data:
            part = data[: self.step] if self.step else data
            try:
                count = self.sock.send(part)
            except BlockingIOError:
                self.loop.run_once(0.001)
                continue
            data = data[count:]
            if self.step:
                self.loop.run_once(0)

    def receive(self) -> None:
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionError:
            self.ended = "reset"
            return
        if data:
            self.incoming.write(data)
        else:
            self.ended = self.ended or "eof"

    def turn(self) -> None:
        self.send()
        self.loop.run_once(0.001)
        if self.ended in ("", "clean"):
            self.receive()

    def until(self, condition: Callable[[], object]) -> None:
        deadline = monotonic() + PATIENCE
        while not condition():
            if monotonic() > deadline:
                raise TimeoutError(f"waited {PATIENCE} s in vain; the peer has ended: {self.ended!r}")
            self.turn()

    def shake(self) -> None:
        def done() -> bool:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                assert self.ended != "reset"
                return False
            return True

        self.until(done)
        self.send()

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
            self.send()

    def read(self) -> bytes:
        """What has come and was not read yet."""
        try:
            while data := self.tls.read(1 << 16):
                self.plain += data
            self.ended = "clean"
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = "clean"
        return bytes(self.plain)

    def close_notify(self) -> None:
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.send()

    def close(self) -> None:
        self.sock.close()


def facts(transport: Any) -> dict[str, Any]:
    return {name: transport.get_extra_info(name) for name in ("cipher", "compression", "peercert", "sslcontext")}
