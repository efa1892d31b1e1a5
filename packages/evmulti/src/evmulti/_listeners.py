"""The sockets that the workers accept from. The server holds them for as long as it lives; workers come and go.

A connection that the kernel has accepted waits in the queue of one listening socket, and is reset when that socket's last
descriptor is closed. So each worker's socket is made here and lent to whoever is the worker just now: a queue never dies with a
worker, and its successor takes what is in it.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import evnet

__all__ = ["Fd", "Listeners", "Tcp", "Unix", "balances", "drain_queue"]

# asm-generic/socket.h. A classic BPF program for a TCP socket sees the segment from its header on: byte 13 has the flags.
_SO_ATTACH_FILTER = 26
_DROP_SYN = struct.pack(
    "=HBBIHBBIHBBIHBBIHBBI",
    *(0x30, 0, 0, 13),  # ldb [13]
    *(0x54, 0, 0, 0x12),  # and #(SYN | ACK)
    *(0x15, 0, 1, 0x02),  # jeq #SYN, next, next but one
    *(0x06, 0, 0, 0),  # ret #0: drop
    *(0x06, 0, 0, 0xFFFF_FFFF),  # ret #-1: keep
)


def balances() -> bool:
    """Whether the kernel spreads clients over sockets that share a port (SO_REUSEPORT)."""
    # macOS and the BSDs give all clients to one of them. FreeBSD has SO_REUSEPORT_LB, which Python's socket module does not know.
    return sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class Tcp:
    """An address to listen on; see `MultiServer.listen`."""

    host: str | None
    port: int
    backlog: int = 1024
    reuse_port: bool = False


@dataclass(frozen=True, slots=True)
class Unix:
    """A path to listen on; see `MultiServer.listen_unix`."""

    path: str
    mode: int | None = None
    backlog: int = 1024


@dataclass(frozen=True, slots=True)
class Fd:
    """A socket that somebody else has bound and goes on holding; see `MultiServer.listen_fd`."""

    fd: int


Place = Tcp | Unix | Fd


class Listeners:
    """The listening sockets of a server.

    Args:
        places: Where to listen.
        count: How many workers; each gets TCP sockets of its own.
        spread: The kernel is to spread clients over them. Otherwise there is one socket per address, in ``shared``.
        metrics: Where statistics are to be had.

    Raises:
        OSError: An address cannot be bound; the message names it. Nothing stays open.
        ValueError: A number is out of its range.

    Attributes:
        own: Each worker's own sockets.
        shared: Sockets that all workers accept from.
        metrics: Those for statistics, from which all accept too.
    """

    def __init__(self, places: Sequence[Place], count: int, *, spread: bool, metrics: Tcp | None = None) -> None:
        self.metrics: list[socket.socket] = []
        self.own: list[list[socket.socket]] = [[] for _ in range(count)]
        self.shared: list[socket.socket] = []
        self._files: list[evnet.SocketFile] = []
        self._foreign: set[socket.socket] = set()
        try:
            for place in places:
                if isinstance(place, Tcp):
                    self._bind_tcp(place, spread and count > 1)
                elif isinstance(place, Unix):
                    sock, file = evnet.bind_unix(place.path, mode=place.mode, backlog=place.backlog)
                    self.shared.append(sock)
                    if file is not None:
                        self._files.append(file)
                else:
                    self._open(place.fd)
            if metrics is not None:
                self.metrics = evnet.bind_tcp(metrics.host, metrics.port)
        except BaseException:
            self.close()
            raise

    def _bind_tcp(self, place: Tcp, spread: bool) -> None:
        if not spread:
            bound = evnet.bind_tcp(place.host, place.port, backlog=place.backlog, reuse_port=place.reuse_port)
            self.shared += bound
            return
        port = place.port
        if not place.reuse_port:
            # Sockets that share a port share it with every program of this user that asks for it, so that nobody would find out
            # that the port is taken. One that does not share finds out.
            for sock in evnet.bind_tcp(place.host, port):
                port = sock.getsockname()[1]
                sock.close()
        for sockets in self.own:
            sockets += evnet.bind_tcp(place.host, port, backlog=place.backlog, reuse_port=True)
            port = sockets[-1].getsockname()[1]

    def _open(self, fd: int) -> None:
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on descriptor {fd}: {error.strerror}") from None
        self.shared.append(sock)
        self._foreign.add(sock)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(f"cannot listen on descriptor {fd}: it is not a listening socket")
        sock.setblocking(False)
        sock.set_inheritable(False)

    def of(self, number: int) -> list[socket.socket]:
        """What a worker accepts from."""
        return [*self.own[number], *self.shared]

    def all(self) -> list[socket.socket]:
        """Every socket."""
        return [*(sock for sockets in self.own for sock in sockets), *self.shared]

    def is_ours(self, sock: socket.socket) -> bool:
        """Whether nobody listens on it when we do not: what is in its queue at the end is ours to serve."""
        return sock not in self._foreign

    def names(self, scheme: str = "http") -> list[str]:
        """Where is listened, each place once."""
        return list(dict.fromkeys(_name(sock, scheme) for sock in self.all()))

    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each TCP address, each once."""
        found = [sock.getsockname()[:2] for sock in self.all() if sock.family != socket.AF_UNIX]
        return list(dict.fromkeys(found))

    def last_call(self) -> None:
        """Let nobody new into the queues, while those who are in them, or on their way through the handshake, are served.

        Closing a socket resets them. On Linux the kernel is told to drop what would begin a connection: whoever was too late is
        refused a second later, by a port that nobody listens on. Other systems have no such means, and the moment between the last
        look at a queue and its close stays.
        """
        for file in self._files:
            file.remove()
        for sock in self.all():
            if not self.is_ours(sock):
                continue
            if sock.family == socket.AF_UNIX:
                # unix(7) does not say so, but the kernel then refuses who comes, and gives out who is there.
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RD)
            elif sys.platform == "linux":
                program = array.array("B", _DROP_SYN)
                address, size = program.buffer_info()
                sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", size // 8, address))

    def close(self) -> None:
        """Close them, and remove the files of unix sockets. Calling this again does nothing."""
        for file in self._files:
            file.remove()
        self._files.clear()
        for sock in (*self.all(), *self.metrics):
            sock.close()
        self.metrics = []
        self.own = [[] for _ in self.own]
        self.shared = []

    def close_all_but(self, number: int) -> None:
        """In a worker's process: close the sockets of the others."""
        for other, sockets in enumerate(self.own):
            if other != number:
                for sock in sockets:
                    sock.close()
                sockets.clear()


def drain_queue(sock: socket.socket) -> list[socket.socket]:
    """Accept everybody who waits in a queue, now."""
    found = []
    while True:
        try:
            found.append(sock.accept()[0])
        except (InterruptedError, ConnectionAbortedError):  # the latter: he has gone already
            continue
        except OSError:  # nobody (EAGAIN), it is shut down and empty (EINVAL), or there are no descriptors left
            return found


def _name(sock: socket.socket, scheme: str) -> str:
    if sock.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(sock.getsockname())}"
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{scheme}://{host}:{port}"
