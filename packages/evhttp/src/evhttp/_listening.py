"""The sockets that a server listens on."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import evnet
from evhttp._shim import lib

__all__ = ["PROXIED", "Listeners"]

PROXIED = 1  # shim.h, EVH_LISTEN_*


class Listeners:
    """Listening sockets, and the files of those that have one, until they are closed all together."""

    __slots__ = ("_acceptors", "_files", "_sockets")

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._acceptors: list[evnet.TlsAcceptor] = []
        self._files: list[evnet.SocketFile] = []

    def add(
        self,
        server: Any,
        sockets: Sequence[socket.socket],
        *,
        proxied: bool,
        tls_target: int,
        drop: Callable[[socket.socket], object],
    ) -> None:
        """Let a ``struct evh_server *`` listen on sockets, and take them over.

        Raises:
            OSError: One cannot be watched. ``drop`` was called for it and those behind it; the ones before it are served.
        """
        for index, sock in enumerate(sockets):
            result = lib.evhttp_listen(server, sock.fileno(), PROXIED if proxied else 0, tls_target)
            if result < 0:
                error = OSError(
                    -result, f"cannot watch the socket that listens on {name_of(sock)}: {os.strerror(-result)}"
                )
                for each in sockets[index:]:
                    drop(each)
                raise error
            self._sockets.append(sock)

    def add_acceptor(self, acceptor: evnet.TlsAcceptor) -> None:
        """Close it too when all is closed."""
        self._acceptors.append(acceptor)

    def add_file(self, file: evnet.SocketFile | None) -> None:
        """Remove a file when all is closed."""
        if file is not None:
            self._files.append(file)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each TCP socket."""
        return [sock.getsockname()[:2] for sock in self._sockets if sock.family != socket.AF_UNIX]

    @property
    def paths(self) -> list[str | bytes]:
        """The path, or abstract name, of each unix socket."""
        return [sock.getsockname() for sock in self._sockets if sock.family == socket.AF_UNIX]

    def names(self) -> str:
        """All of them, for a message."""
        return ", ".join(map(name_of, self._sockets)) or "a server that was closed"

    @property
    def shaking(self) -> int:
        """How many clients are in their TLS handshake, which no connection counts yet."""
        return sum(acceptor.shaking for acceptor in self._acceptors)

    def abort(self) -> None:
        """Close, and reset the clients that are in their TLS handshake."""
        self.close()
        for acceptor in self._acceptors:
            acceptor.close()

    def close(self) -> None:
        """Close them, and remove the files that are still ours. Clients that are in their TLS handshake become connections yet."""
        for file in self._files:
            file.remove()
        for sock in self._sockets:
            sock.close()
        for acceptor in self._acceptors:
            acceptor.finish()
        self._sockets.clear()
        self._files.clear()


def name_of(sock: socket.socket) -> str:
    """How a message calls a socket."""
    address = sock.getsockname()
    return repr(address) if sock.family == socket.AF_UNIX else f"{address[0]} port {address[1]}"
