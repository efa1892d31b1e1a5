"""A server: listening sockets, and the connections with their clients."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evnet import _link as _link
from evnet._connection import Connection, StreamProtocol, abort_entry, take
from evnet._errors import EvNetError
from evnet._inbox import inbox_of
from evnet._keepalive import KeepAlive
from evnet._shim import ffi, lib
from evnet._tls import TlsAcceptor
from evnet._unix import SocketFile

if TYPE_CHECKING:
    import ssl

    from evloop import Loop, Record

__all__ = ["Limit", "Server", "ServerStats"]

logger = logging.getLogger("evnet")

_PEER_SIZE = 20


@dataclass(frozen=True, slots=True)
class ServerStats:
    """What a server has counted since it was made; it goes on being readable after `Server.close`.

    Attributes:
        accepted: Connections that were accepted or adopted.
        open: Connections that are open now.
        refused: Clients that were reset because ``max_connections`` were open.
        shed: Clients that were hung up on because the process, or the system, had no descriptors or no memory left.
        failed_handshakes: Clients with whom there was no TLS; they are among those accepted.
    """

    accepted: int
    open: int
    refused: int
    shed: int
    failed_handshakes: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """How many connections a server may have, and what happens to those above; checked by whoever makes one."""

    most: int = 0
    refuse: bool = False


class Server:
    """Listening sockets, and the connections with their clients. Made by `listen_tcp`, `listen_unix` and `listen_socket`.

    Thread safety: loop thread only.
    """

    def __init__(
        self,
        loop: Loop,
        sockets: Sequence[socket.socket],
        protocol_factory: Callable[[], StreamProtocol],
        options: Any,
        *,
        limit: Limit,
        keep_alive: KeepAlive | None = None,
        file: SocketFile | None = None,
        tls: TlsAcceptor | None = None,
    ) -> None:
        """Take over ``sockets`` and ``file``; when this raises OSError they stay the caller's."""
        self._loop = loop
        self._inbox = inbox_of(loop)
        self._sockets = list(sockets)
        self._factory = protocol_factory
        self._options = options
        self._keepalive = keep_alive
        self._file = file
        self._tls = tls
        self._connections: set[Connection] = set()
        self._aborted = False
        self._counts = ServerStats(0, 0, 0, 0)
        self._target = loop.add_target(self._accepted)
        self._short_target = loop.add_target(self._short)
        self._listeners: list[Any] = []
        for sock in sockets:
            out = ffi.new("net_listener **")
            result = lib.evnet_listen(loop.address, sock.fileno(), self._target, options, out)
            if result < 0:
                self._unlisten()
                raise OSError(-result, f"cannot watch the socket that listens on {_name(sock)}: {os.strerror(-result)}")
            self._listeners.append(out[0])
            lib.evnet_share(out[0], self._listeners[0])
            if tls is not None:
                lib.evnet_secure_listener(out[0], tls.target)
        lib.evnet_limit(self._listeners[0], limit.most, limit.refuse, self._short_target)
        loop.on_close(self.close)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each TCP socket that listens, the real port where 0 was asked for."""
        return [sock.getsockname()[:2] for sock in self._sockets if sock.family != socket.AF_UNIX]

    @property
    def paths(self) -> list[str | bytes]:
        """The path of each unix socket that listens; abstract names are bytes that begin with a zero byte."""
        return [sock.getsockname() for sock in self._sockets if sock.family == socket.AF_UNIX]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def stats(self) -> ServerStats:
        """What was counted up to now."""
        if self._listeners:
            c = ffi.new("struct net_listen_stats *")
            lib.evnet_listen_stats(self._listeners[0], c)
            self._counts = ServerStats(c.accepted, 0, c.refused, c.shed)
        counts = self._counts
        failed = self._tls.failed if self._tls is not None else 0
        return ServerStats(counts.accepted, len(self._connections), counts.refused, counts.shed, failed)

    @property
    def ssl(self) -> ssl.SSLContext | None:
        """The context of clients to come, ``None`` without TLS.

        Another one may be set at any time, for instance with new certificates; so may certificates be loaded into this one.

        Raises:
            TypeError: This is no context.
            EvNetError: The server has no TLS.
        """
        return self._tls.context if self._tls is not None else None

    @ssl.setter
    def ssl(self, context: ssl.SSLContext) -> None:
        if self._tls is None:
            raise EvNetError("the server was made without TLS, which it cannot begin with now")
        self._tls.context = context

    def adopt(self, sock: socket.socket | int) -> Connection:
        """Serve a client whose connection was accepted elsewhere: by another process, or by inetd.

        It counts as one of this server's connections, and has its options; it is taken even if ``max_connections`` are open,
        for whoever hands it over has decided that.

        Args:
            sock: A connected stream socket, or its descriptor. It is ours when this returns: a socket object is detached.

        Returns:
            The connection; its protocol's ``connection_made`` was called. With TLS it is called when the handshake is done, and
            if that fails the protocol is not called at all.

        Raises:
            OSError: It is not a connected stream socket. It stays the caller's.
            ssl.SSLError: The server's context is one for clients. The socket is reset.
            EvNetError: The server is closed. It stays the caller's, as when the protocol factory raises; when
                ``connection_made`` raises, it is reset.
        """
        if not self._listeners:
            raise EvNetError("the server is closed")
        given = sock if isinstance(sock, socket.socket) else socket.socket(fileno=sock)
        try:
            if given.type != socket.SOCK_STREAM:
                raise OSError(f"cannot adopt descriptor {given.fileno()}: it is not a stream socket")
            given.getpeername()  # raises when it is not connected
            given.setblocking(False)
            given.set_inheritable(False)
            if given.family != socket.AF_UNIX:
                given.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._keepalive is not None:
                    self._keepalive.apply(given)
            protocol = self._factory()
            token, peer = take(self._loop, given.fileno(), self._options)
        except BaseException:
            if given is not sock:
                given.detach()
            raise
        given.detach()
        lib.evnet_join(int.from_bytes(token, "little"), self._listeners[0])
        connection = Connection(self._inbox, self, protocol, token, peer)
        self._connections.add(connection)
        if self._tls is None:
            connection._begin()
        else:
            try:
                self._begin_tls(connection, protocol, self._tls)
            except BaseException:
                connection.abort()
                raise
        return connection

    def _begin_tls(self, connection: Connection, protocol: StreamProtocol, tls: TlsAcceptor) -> None:
        def made(connection: Connection) -> None:
            connection.set_protocol(protocol)
            connection._begin()

        connection.set_protocol(_Unseen())
        connection._begin_tls(tls.settings, made, tls.count_failure)

    def close(self) -> None:
        """Stop listening. Open connections go on. Calling this again does nothing.

        Clients that wait in the kernel's queue are reset by it. The file of a unix socket is removed, if it is still ours.
        """
        if not self._sockets:
            return
        self.stats()
        self._unlisten()
        if self._tls is not None:
            self._tls.close()
        if self._file is not None:
            self._file.remove()
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        self._loop.remove_on_close(self.close)

    def close_clients(self) -> None:
        """Close all connections that are open: what is queued is sent first."""
        for connection in list(self._connections):
            connection.close()

    def abort(self) -> int:
        """Stop listening, and reset every connection at once. Returns how many there were."""
        self.close()
        self._aborted = True
        for connection in list(self._connections):
            connection.abort()
        return len(self._connections)

    def _unlisten(self) -> None:
        for listener in self._listeners:
            lib.evnet_unlisten(listener)
        self._listeners.clear()
        if self._loop.is_closed():  # in a forked child, where that has closed nothing
            return
        # Not before the batch has ended: it may speak of others that were accepted, and they are served.
        self._loop.call_soon(self._loop.drop_target, self._target)
        self._loop.call_soon(self._loop.drop_target, self._short_target)

    def _accepted(self, record: Record) -> None:
        _, offset, _, token = record
        peer = self._loop.arena_view[offset : offset + _PEER_SIZE]
        if self._aborted:
            self._loop.submissions.append(abort_entry(token))
            return
        try:
            protocol = self._factory()
        except BaseException:
            self._loop.submissions.append(abort_entry(token))
            raise
        connection = Connection(self._inbox, self, protocol, token, peer)
        if self._tls is not None:
            connection._tls = self._tls.session(token)
        self._connections.add(connection)
        connection._begin()

    def _short(self, record: Record) -> None:
        _, error, shed, _ = record
        where = ", ".join(map(_name, self._sockets)) or "a server that was closed"
        logger.warning("cannot accept clients on %s: %s; %d were hung up on so far", where, os.strerror(error), shed)

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def __repr__(self) -> str:
        where = ", ".join(map(_name, self._sockets)) or "closed"
        return f"<Server {where}, {len(self._connections)} connections>"


class _Unseen:
    """In the place of a protocol that sees its connection when the handshake is done."""

    def connection_made(self, transport: Any) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        pass

    def eof_received(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        pass

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass


def _name(sock: socket.socket) -> str:
    address = sock.getsockname()
    return repr(address) if sock.family == socket.AF_UNIX else f"{address[0]} port {address[1]}"
