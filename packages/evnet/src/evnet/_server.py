"""Listening for connections that Python protocols serve."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from evnet import _link as _link
from evnet._connection import Connection, StreamProtocol, abort_entry
from evnet._shim import ffi, lib
from evnet._sockets import bind_tcp

if TYPE_CHECKING:
    from evloop import Loop, Record

__all__ = ["Server", "listen_tcp"]

_PEER_SIZE = 20


class Server:
    """Listening sockets, and the connections that were accepted on them. Made by `listen_tcp`."""

    def __init__(
        self,
        loop: Loop,
        sockets: list[socket.socket],
        protocol_factory: Callable[[], StreamProtocol],
        idle_timeout: float | None,
    ) -> None:
        self._loop = loop
        self._sockets = sockets
        self._factory = protocol_factory
        self._connections: set[Connection] = set()
        self._target = loop.add_target(self._accepted)
        self._listeners = []
        for sock in sockets:
            out = ffi.new("net_listener **")
            result = lib.evnet_listen(loop.address, sock.fileno(), self._target, _milliseconds(idle_timeout), out)
            if result < 0:
                self.close()
                raise OSError(-result, f"cannot watch the socket that listens on {sock.getsockname()}")
            self._listeners.append(out[0])
        loop.on_close(self.close)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket, the real port where 0 was asked for."""
        return [sock.getsockname()[:2] for sock in self._sockets]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def close(self) -> None:
        """Stop listening. Open connections go on. Calling this again does nothing. Thread safety: loop thread only."""
        for listener in self._listeners:
            lib.evnet_unlisten(listener)
        self._listeners.clear()
        for sock in self._sockets:
            sock.close()
        if self._sockets:
            self._sockets = []
            # Not before the batch has ended: it may speak of others that were accepted, and they are served.
            self._loop.call_soon(self._loop.drop_target, self._target)

    def _accepted(self, record: Record) -> None:
        _, offset, fd, token = record
        peer = self._loop.arena[offset : offset + _PEER_SIZE]
        try:
            protocol = self._factory()
        except BaseException:
            self._loop.submissions.append(abort_entry(token))
            raise
        connection = Connection(self._loop, self, protocol, token, fd, peer)
        self._connections.add(connection)
        try:
            protocol.connection_made(connection)
        except BaseException:
            connection.abort()
            raise

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)


def listen_tcp(
    loop: Loop,
    protocol_factory: Callable[[], StreamProtocol],
    host: str | None,
    port: int,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    idle_timeout: float | None = None,
) -> Server:
    """Accept TCP connections and drive a protocol of its own for each.

    Args:
        loop: The loop that serves them.
        protocol_factory: Called without arguments for each connection; its result has the methods of `asyncio.Protocol`.
        host: A name or address; ``None`` means every interface.
        port: 0 lets the system choose; see `Server.addresses`.
        backlog: Connections that the kernel may hold for us.
        reuse_port: Let loops in other threads or processes listen on the same port.
        idle_timeout: Seconds without a byte in either direction after which a connection is aborted; ``None``: never.

    Raises:
        OSError: An address cannot be bound; the message names it.
        ValueError: ``idle_timeout`` is not a positive number.
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """
    _milliseconds(idle_timeout)
    loop.address  # noqa: B018 - raises before anything is bound
    return Server(loop, bind_tcp(host, port, backlog=backlog, reuse_port=reuse_port), protocol_factory, idle_timeout)


def _milliseconds(timeout: float | None) -> int:
    if timeout is None:
        return 0
    if not timeout > 0:
        raise ValueError(f"idle_timeout must be a number of seconds > 0, not {timeout!r}")
    return 0 if timeout == math.inf else math.ceil(min(timeout * 1000, 0xFFFF_FFFF))
