"""Connecting to the path of a unix socket."""

from __future__ import annotations

import errno
import os
import socket
import ssl as _ssl
from typing import TYPE_CHECKING, Any

from evnet._connecting import Connecting, Factory, check_arguments, connection_options, reason
from evnet._options import MAX_QUEUED
from evnet._tls import TlsSettings, client_settings
from evnet._unix import check_path

if TYPE_CHECKING:
    from evloop import Handle, Loop

__all__ = ["connect_unix"]

# Seconds between two looks at a socket whose backlog is full: there is nothing to wait for.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


class _ConnectingUnix(Connecting):
    """Connects to a path. There is an answer at once, but for a server whose backlog is full."""

    __slots__ = ("_handle", "_path", "_pause", "_sock")

    def __init__(
        self,
        loop: Loop,
        factory: Factory,
        options: Any,
        path: str | bytes,
        timeout: float | None,
        tls: TlsSettings | None,
    ) -> None:
        super().__init__(loop, factory, options, repr(path), timeout, tls)
        self._path = path
        self._pause = _FIRST_PAUSE
        self._handle: Handle | None = None
        self._sock: socket.socket | None = None

    def _begin(self) -> None:
        try:
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._sock.setblocking(False)
            self._try()
        except OSError as error:
            self._fail(OSError(error.errno, f"cannot connect to {self._target}: {reason(error)[1]}"))

    def _try(self) -> None:
        assert self._sock is not None
        code = self._sock.connect_ex(self._path)
        if code == 0:
            self._handle = self._loop.call_soon(self._made)
        elif code == errno.EAGAIN:
            # unix(7): the backlog is full. What select says of such a socket has nothing to do with that.
            self._handle = self._loop.call_later(self._pause, self._try)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        else:
            self._fail(OSError(code, f"cannot connect to {self._target}: {os.strerror(code)}"))

    def _made(self) -> None:
        sock, self._sock = self._sock, None
        assert sock is not None
        self._connected(sock)

    def _progress(self) -> str:
        return "its backlog is full" if self._session is None else "the TLS handshake is not done"

    def _release(self) -> None:
        super()._release()
        if self._handle is not None:
            self._handle.cancel()
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def connect_unix(
    loop: Loop,
    protocol_factory: Factory,
    path: str | bytes | os.PathLike[str],
    *,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    write_timeout: float | None = None,
    max_queued: int | None = MAX_QUEUED,
    ssl: _ssl.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> Connecting:
    """Connect to a unix socket and drive a protocol with the connection.

    Args:
        loop: The loop that serves the connection.
        protocol_factory: As for `connect_tcp`.
        path: The socket's file; on Linux also an abstract name, which begins with a zero byte.
        timeout: Seconds to wait for a server whose backlog is full (Linux; elsewhere that is ECONNREFUSED); ``None``: for ever.
        idle_timeout: As for `connect_tcp`.
        write_timeout: The same.
        max_queued: The same.
        ssl: The same.
        server_hostname: The same, but must be given with ``ssl``.
        ssl_handshake_timeout: The same.
        ssl_shutdown_timeout: The same.

    Returns:
        A `Connecting`.

    Raises:
        ValueError: A timeout that is none, or no path.
        OSError: The path is too long.
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """
    loop.address  # noqa: B018 - raises if the loop is closed
    check_arguments(protocol_factory, timeout)
    name = check_path(path)
    options = connection_options(idle_timeout, write_timeout, max_queued)
    tls = client_settings(ssl, server_hostname, None, ssl_handshake_timeout, ssl_shutdown_timeout)
    connecting = _ConnectingUnix(loop, protocol_factory, options, name, timeout, tls)
    connecting._begin()
    return connecting
