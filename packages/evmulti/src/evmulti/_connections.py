"""Connections, as far as handlers care for them: whose they are, what was noted about them, and why they have ended."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import evhttp

if TYPE_CHECKING:
    from evmulti._log import Log
    from evmulti._pool import Pool

__all__ = ["Cause", "Connection", "ConnectionClosed", "Connections"]

# What the network or the client's system says when it breaks a connection off; everything else is an error of the network's.
_LOST = frozenset((errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN, errno.ENOTCONN))


class Cause(Enum):
    """Why a connection has ended."""

    CLOSED_BY_US = "closed by us"
    CLOSED_BY_CLIENT = "closed by the client"
    LOST = "lost"
    TIMED_OUT = "timed out"
    PROTOCOL_VIOLATED = "protocol violated"
    NET_ERROR = "net error"
    SECURITY = "security"
    EXCEPTION = "exception"

    @property
    def level(self) -> int:
        """The level of `logging` that fits it."""
        return _LEVELS[self]


# Clients that come and go are nothing to look at. What may be an attack or a mistake of ours is, whatever else is being logged.
_LEVELS = {
    Cause.CLOSED_BY_US: logging.DEBUG,
    Cause.CLOSED_BY_CLIENT: logging.DEBUG,
    Cause.LOST: logging.INFO,
    Cause.TIMED_OUT: logging.INFO,
    Cause.PROTOCOL_VIOLATED: logging.INFO,
    Cause.NET_ERROR: logging.WARNING,
    Cause.SECURITY: logging.WARNING,
    Cause.EXCEPTION: logging.ERROR,
}
_FROM_HTTP = {
    "by_us": Cause.CLOSED_BY_US,
    "by_client": Cause.CLOSED_BY_CLIENT,
    "timed_out": Cause.TIMED_OUT,
    "protocol_violated": Cause.PROTOCOL_VIOLATED,
    "too_much_queued": Cause.SECURITY,
    "lost": Cause.LOST,
}


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """A connection's end.

    Attributes:
        connection: It, with what was noted in it.
        cause: Why. What a handler gave to `Connection.close` or `Connection.abort` comes before what the socket says.
        requests: How many were taken on it.
        error: What the system said, with LOST and NET_ERROR.
    """

    connection: Connection
    cause: Cause
    requests: int
    error: OSError | None

    def __str__(self) -> str:
        client = self.connection.client
        whose = f"{client[0]}:{client[1]}" if client else "-"
        why = f" ({self.error.strerror})" if self.error else ""
        return (
            f"connection {self.connection.id} of {whose} ended after {self.requests} requests: {self.cause.value}{why}"
        )


class Connection:
    """A client's connection, from its first request or its registration to its end.

    Thread safety: any thread.

    Attributes:
        id: Its number, as `evhttp.Request.connection_id`.
        client: Address and port; ``None`` for a unix socket.
        context: Yours.
    """

    __slots__ = ("__weakref__", "_cause", "_flags", "_lock", "_relay", "client", "context", "id", "tail")

    def __init__(self, relay: evhttp.Relay, id: int, client: tuple[str, int] | None, context: Any = None) -> None:
        self._relay = relay
        self._lock = threading.Lock()
        self._flags = 0
        self._cause: Cause | None = None
        self.id: int = id
        self.client: tuple[str, int] | None = client
        self.context: Any = context
        self.tail: Any = None  # the last task that was made for it and has not ended; loop thread only

    @property
    def flags(self) -> int:
        """Bits of yours."""
        return self._flags

    def set_flags(self, mask: int) -> int:
        """Set bits, and return all of them as they were before; no other thread's change gets lost."""
        with self._lock:
            before = self._flags
            self._flags = before | mask
            return before

    def clear_flags(self, mask: int) -> int:
        """Clear bits, and return all of them as they were before."""
        with self._lock:
            before = self._flags
            self._flags = before & ~mask
            return before

    def close(self, cause: Cause = Cause.CLOSED_BY_US) -> None:
        """End it when the answers that it waits for are sent; ``cause`` is what is told and logged. One that has ended stays so."""
        self._end(cause, False)

    def abort(self, cause: Cause = Cause.CLOSED_BY_US) -> None:
        """End it at once with a reset; ``cause`` is what is told and logged. One that has ended stays so."""
        self._end(cause, True)

    def is_of(self, relay: object) -> bool:
        """Whether it is a connection of this relay's server."""
        return self._relay is relay

    def because(self, cause: Cause) -> None:
        """Note why it will end; what is noted first stays."""
        if self._cause is None:
            self._cause = cause

    def _end(self, cause: Cause, abort: bool) -> None:
        if cause is not Cause.CLOSED_BY_US:
            self.because(cause)
        self._relay.call(self._end_now, abort)

    def _end_now(self, abort: bool) -> None:
        self._relay.server.end_connection(self.id, abort=abort)

    def __repr__(self) -> str:
        client = f"{self.client[0]}:{self.client[1]}" if self.client else "-"
        return f"<Connection {self.id} of {client}>"


class Connections:
    """The connections of one server, kept in its relay's ``context``. Thread safety: loop thread only.

    Args:
        relay: The server's.
        on_close: Called with a `ConnectionClosed` for each connection that ends before it was upgraded, and had a request.
        log: Where the ends are logged, if there is no ``on_close``.
    """

    __slots__ = ("_log", "_on_close", "_open", "_relay", "pools")

    def __init__(
        self,
        relay: evhttp.Relay,
        on_close: Callable[[ConnectionClosed], object] | None = None,
        log: Log | None = None,
    ) -> None:
        self._relay = relay
        self.pools: set[Pool] = set()  # that work for these connections
        self._open: dict[int, Connection] = {}
        self._on_close = on_close
        self._log = log
        relay.context = self
        relay.server.watch_ends(self._ended)

    @staticmethod
    def at(relay: evhttp.Relay) -> Connections:
        """Those of a relay; if nobody has asked for them before, their ends are not logged here."""
        connections: Connections | None = relay.context
        return Connections(relay) if connections is None else connections

    def of(self, request: evhttp.Request) -> Connection:
        """The connection that a request came on."""
        number = request.connection_id
        connection = self._open.get(number)
        if connection is None:
            connection = self._open[number] = Connection(self._relay, number, request.client)
        return connection

    def add(self, number: int, context: Any) -> Connection:
        """Note a connection that was not accepted here."""
        connection = self._open[number] = Connection(self._relay, number, None, context)
        return connection

    @property
    def queued(self) -> int:
        """Requests and messages that wait for a thread of a pool."""
        return sum(pool.waiting(self._relay) for pool in self.pools)

    def forget(self, connection: Connection) -> None:
        """An upgraded connection has ended, whose end is told of elsewhere."""
        self._open.pop(connection.id, None)

    def __contains__(self, connection: Connection) -> bool:
        return self._open.get(connection.id) is connection

    def __len__(self) -> int:
        return len(self._open)

    def _ended(self, end: evhttp.ConnectionEnd) -> None:
        connection = self._open.pop(end.connection_id, None)
        if connection is None:
            if self._on_close is None and self._log is None:
                return
            connection = Connection(self._relay, end.connection_id, end.client)
        if connection.client is None:
            connection.client = end.client
        cause = connection._cause or _FROM_HTTP[end.cause]
        if cause is Cause.LOST and end.error is not None and end.error.errno not in _LOST:
            cause = Cause.NET_ERROR
        closed = ConnectionClosed(connection, cause, end.requests, end.error)
        if self._log is not None:
            self._log.log(cause.level, "%s", closed)
        if self._on_close is not None:
            self._on_close(closed)
