"""Listening for clients: on TCP addresses, on the path of a unix socket, or on sockets that somebody else has made."""

from __future__ import annotations

import os
import socket
import ssl as _ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from evnet._connection import StreamProtocol
from evnet._keepalive import KeepAlive
from evnet._options import MAX_QUEUED, stream_options
from evnet._server import Limit, Server
from evnet._sockets import bind_tcp, close_sockets, detach_opened, inherit_sockets
from evnet._tls import TlsAcceptor, server_settings
from evnet._unix import bind_unix

if TYPE_CHECKING:
    from evloop import Loop

__all__ = ["listen_socket", "listen_tcp", "listen_unix"]

_Factory = Callable[[], StreamProtocol]


def listen_tcp(
    loop: Loop,
    protocol_factory: _Factory,
    host: str | Iterable[str | None] | None,
    port: int,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    dual_stack: bool = False,
    max_connections: int | None = None,
    when_full: Literal["wait", "refuse"] = "wait",
    idle_timeout: float | None = None,
    write_timeout: float | None = None,
    max_queued: int | None = MAX_QUEUED,
    keep_alive: KeepAlive | None = None,
    ssl: _ssl.SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> Server:
    """Accept TCP connections and drive a protocol of its own for each.

    Args:
        loop: The loop that serves them.
        protocol_factory: Called without arguments for each connection; its result has the methods of `asyncio.Protocol`. If it
            raises, or ``connection_made`` does, the client is reset and the exception goes to the loop's exception handler.
        host: A name or address, or several; ``None`` means every interface. All addresses of a name are listened on. Names are
            looked up by the system before this returns, and block the loop meanwhile; addresses in digits are not.
        port: 0 lets the system choose, the same for all addresses; see `Server.addresses`.
        backlog: Connections that the kernel may hold for us.
        reuse_port: Let loops in other threads or processes listen on the same port.
        dual_stack: One IPv6 socket for both families; ``host`` must be every interface. IPv4 clients have IPv4 addresses all
            the same.
        max_connections: How many may be open at a time, on all addresses together; ``None``: no limit.
        when_full: What happens to further clients: ``"wait"`` leaves them in the kernel's queue until a connection ends,
            ``"refuse"`` accepts and resets them.
        idle_timeout: Seconds without a byte in either direction after which a connection is aborted; ``None``: never.
        write_timeout: Seconds after which one is aborted whose peer takes nothing of what is queued; ``None``: never.
        max_queued: Bytes; a connection that has more queued when something more is written is aborted with
            `WriteQueueFullError`; ``None``: no limit.
        keep_alive: Probes for peers that have vanished; ``None``: none.
        ssl: TLS with this context; see `Server.ssl`. The protocol is made when the handshake is done; a client with whom that fails
            is counted in `Server.stats`, and a DEBUG record of the logger "evnet" says why.
        ssl_handshake_timeout: Seconds after which a client whose handshake is not done is hung up on; by default 60.
        ssl_shutdown_timeout: Seconds that a closed connection waits for the peer to take what is queued, and for its close_notify;
            by default 30. Then it is reset, and lost with a `TimeoutError`.

    Raises:
        OSError: A name is unknown, or an address cannot be bound; the message names it. Nothing is left open.
        ValueError: An option is out of its range.
        TypeError: The factory cannot be called, or a host or port is of another type.
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """
    limit = _check(loop, protocol_factory, max_connections, when_full)
    server_settings(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    options = stream_options(idle_timeout=idle_timeout, write_timeout=write_timeout, max_queued=max_queued)
    sockets = bind_tcp(host, port, backlog=backlog, reuse_port=reuse_port, dual_stack=dual_stack, keep_alive=keep_alive)
    try:
        tls = _acceptor(loop, ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        return Server(loop, sockets, protocol_factory, options, limit=limit, keep_alive=keep_alive, tls=tls)
    except BaseException:
        close_sockets(sockets)
        raise


def listen_unix(
    loop: Loop,
    protocol_factory: _Factory,
    path: str | bytes | os.PathLike[str],
    *,
    mode: int | None = None,
    backlog: int = 1024,
    max_connections: int | None = None,
    when_full: Literal["wait", "refuse"] = "wait",
    idle_timeout: float | None = None,
    write_timeout: float | None = None,
    max_queued: int | None = MAX_QUEUED,
    ssl: _ssl.SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> Server:
    """Accept connections on a unix socket and drive a protocol of its own for each.

    The socket file is made, and removed by `Server.close` if it is still ours. A stale one, of a server that has ended without
    doing so, is replaced. The folder should belong to the user of the server: who can rename files in it can put another in the
    place of ours.

    Args:
        loop: As for `listen_tcp`.
        protocol_factory: As for `listen_tcp`.
        backlog: As for `listen_tcp`.
        max_connections: As for `listen_tcp`.
        when_full: As for `listen_tcp`.
        idle_timeout: As for `listen_tcp`.
        write_timeout: As for `listen_tcp`.
        max_queued: As for `listen_tcp`.
        ssl: As for `listen_tcp`.
        ssl_handshake_timeout: As for `listen_tcp`.
        ssl_shutdown_timeout: As for `listen_tcp`.
        path: Of the socket file; or, on Linux, an abstract name, which begins with a zero byte and has no file.
        mode: The file's permissions, for instance ``0o660``: on Linux, who may write to it may connect. They are there before
            the first client can be. ``None``: what the umask leaves of 0o777.

    Raises:
        OSError: EADDRINUSE if a live server listens there, EEXIST if what is there is no socket, ENAMETOOLONG if the path is
            longer than the system allows (107 bytes on Linux), and what else the system refuses; the message names the path.
        ValueError, TypeError, evloop.LoopClosedError: As `listen_tcp`.

    Thread safety: loop thread only.
    """
    limit = _check(loop, protocol_factory, max_connections, when_full)
    server_settings(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    options = stream_options(idle_timeout=idle_timeout, write_timeout=write_timeout, max_queued=max_queued)
    sock, file = bind_unix(path, mode=mode, backlog=backlog)
    try:
        tls = _acceptor(loop, ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        return Server(loop, [sock], protocol_factory, options, limit=limit, file=file, tls=tls)
    except BaseException:
        if file is not None:
            file.remove()
        sock.close()
        raise


def listen_socket(
    loop: Loop,
    protocol_factory: _Factory,
    sock: socket.socket | int | Iterable[socket.socket | int],
    *,
    backlog: int = 1024,
    max_connections: int | None = None,
    when_full: Literal["wait", "refuse"] = "wait",
    idle_timeout: float | None = None,
    write_timeout: float | None = None,
    max_queued: int | None = MAX_QUEUED,
    keep_alive: KeepAlive | None = None,
    ssl: _ssl.SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> Server:
    """Accept connections on sockets that are bound already: inherited (`listen_fds`), or made with options of your own.

    Args:
        loop: As for `listen_tcp`.
        protocol_factory: As for `listen_tcp`.
        max_connections: As for `listen_tcp`.
        when_full: As for `listen_tcp`.
        idle_timeout: As for `listen_tcp`.
        write_timeout: As for `listen_tcp`.
        max_queued: As for `listen_tcp`.
        keep_alive: As for `listen_tcp`.
        ssl: As for `listen_tcp`.
        ssl_handshake_timeout: As for `listen_tcp`.
        ssl_shutdown_timeout: As for `listen_tcp`.
        sock: A bound TCP or unix stream socket, or its descriptor, or several. They belong to the server from now on: it
            closes them. The file of a unix socket is left to whoever has made it.
        backlog: For sockets that do not listen yet.

    Raises:
        OSError: A descriptor is not open, or not a socket that can listen; the message names it.
        ValueError, TypeError, evloop.LoopClosedError: As `listen_tcp`.
        Whatever is raised, the sockets stay the caller's.

    Thread safety: loop thread only.
    """
    limit = _check(loop, protocol_factory, max_connections, when_full)
    server_settings(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    options = stream_options(idle_timeout=idle_timeout, write_timeout=write_timeout, max_queued=max_queued)
    given = [sock] if isinstance(sock, (socket.socket, int)) else list(sock)
    sockets = inherit_sockets(given, backlog=backlog, keep_alive=keep_alive)
    try:
        tls = _acceptor(loop, ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        return Server(loop, sockets, protocol_factory, options, limit=limit, keep_alive=keep_alive, tls=tls)
    except BaseException:
        detach_opened(given, sockets)
        raise


def _check(loop: Loop, protocol_factory: _Factory, max_connections: int | None, when_full: str) -> Limit:
    loop.address  # noqa: B018 - raises before anything is bound
    if not callable(protocol_factory):
        raise TypeError(f"the protocol factory must be callable, not {protocol_factory!r}")
    if max_connections is not None and not 1 <= max_connections <= 0xFFFF_FFFF:
        raise ValueError(f"max_connections must be None or from 1 to {0xFFFF_FFFF}, not {max_connections!r}")
    if when_full not in ("wait", "refuse"):
        raise ValueError(f"when_full must be 'wait' or 'refuse', not {when_full!r}")
    return Limit(max_connections or 0, when_full == "refuse")


def _acceptor(
    loop: Loop, context: _ssl.SSLContext | None, handshake_timeout: float | None, shutdown_timeout: float | None
) -> TlsAcceptor | None:
    if context is None:
        return None
    return TlsAcceptor(loop, context, ssl_handshake_timeout=handshake_timeout, ssl_shutdown_timeout=shutdown_timeout)
