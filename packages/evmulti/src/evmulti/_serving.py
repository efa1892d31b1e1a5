"""What a worker serves with: an HTTP server, or plain protocols. The worker sees no difference."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Protocol

import evhttp
import evnet
from evloop import Loop
from evmulti._connections import Connections
from evmulti._plan import Plan
from evmulti._table import Counts

__all__ = ["HttpServing", "ProtocolServing", "Serving"]

_NO_LATENCY = tuple((bound, 0) for bound in evhttp.LATENCY_BOUNDS)


class Serving(Protocol):
    """Listens, takes connections, and ends."""

    @property
    def server(self) -> Any:
        """The server of the layer below, for handlers; ``None`` if there is none."""

    @property
    def connections(self) -> int:
        """How many are open, or about to be: with TLS, those whose handshake is under way count."""

    def counts(self) -> Counts:
        """What was counted up to now."""

    def listen_socket(self, sock: socket.socket) -> None:
        """Accept from a socket, which is ours from now on."""

    def adopt(self, sock: socket.socket) -> None:
        """Take a connection that was accepted elsewhere; OSError if it cannot be watched."""

    def retire(self) -> None:
        """Stop listening. Whoever is connected may still ask."""

    def close_idle(self) -> None:
        """End what nobody waits for."""

    def abort(self) -> int:
        """Reset every connection; returns how many there were."""


class HttpServing:
    """An `evhttp.Server`.

    Args:
        handler: The server's.
        loop: The server's.
        plan: What else it is made of.
        tls: Who makes its clients' TLS handshakes.
    """

    def __init__(self, handler: evhttp.Handler, loop: Loop, plan: Plan, tls: evnet.TlsAcceptor | None) -> None:
        # Handlers are no business of ours: what they are called for is counted below, where it costs no frame of Python.
        tells_ends = plan.on_close is not None or plan.log.isEnabledFor(logging.WARNING)
        self.server = evhttp.Server(
            handler,
            loop=loop,
            limits=plan.limits,
            trusted=plan.trusted,
            forwarded=plan.forwarded,
            stream_bodies=plan.stream_bodies,
            name=plan.name,
            access_log=plan.access_log,
            on_connection_end=_logged_elsewhere if tells_ends else None,
            measure=True,
            log=plan.log,
        )
        if tells_ends:
            Connections(evhttp.Relay.at(self.server), plan.on_close, plan.log)
        self._loop = loop
        self._tls = tls
        self._proxied = plan.proxied
        self._adopted = 0

    @property
    def connections(self) -> int:
        """How many are open."""
        return self.server.connections + (0 if self._tls is None else self._tls.shaking)

    def counts(self) -> Counts:
        """What was counted up to now."""
        stats = self.server.stats()
        relay: evhttp.Relay | None = self.server._relay
        traffic = evnet.traffic(self._loop)
        return Counts(
            connections=self.connections,
            queued=0 if relay is None or relay.context is None else relay.context.queued,
            requests=stats.requests,
            accepted=stats.accepted + self._adopted,
            received=traffic.received,
            sent=traffic.sent,
            latency=tuple(stats.latency),
            latency_sum=stats.latency_sum,
        )

    def listen_socket(self, sock: socket.socket) -> None:
        """Accept from a socket."""
        self.server.listen_socket(sock, ssl=self._tls, proxy_protocol=self._proxied)

    def adopt(self, sock: socket.socket) -> None:
        """Take a connection."""
        self.server.adopt(sock, ssl=self._tls, proxy_protocol=self._proxied)
        self._adopted += 1

    def retire(self) -> None:
        """Stop listening; each connection may ask once more."""
        self.server.close(keep_idle=True)

    def close_idle(self) -> None:
        """Close connections without a request under way."""
        self.server.close()

    def abort(self) -> int:
        """Reset every connection."""
        count = self.server.abort()
        if self._tls is not None:
            count += self._tls.shaking
            self._tls.close()
        return count


class ProtocolServing:
    """A factory of plain protocols.

    Nobody but they know when a connection is idle, so what is open may end by itself.
    """

    def __init__(self, loop: Loop, factory: Callable[[], Any], tls: evnet.TlsAcceptor | None) -> None:
        self.server = None
        self._loop = loop
        self._factory = factory
        self._tls = tls
        self._servers: list[evnet.Server] = []
        self._adopted: set[evnet.Connection] = set()
        self._count = 0

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._adopted) + sum(server.connections for server in self._servers)

    def counts(self) -> Counts:
        """What was counted up to now; a plain protocol knows of no requests."""
        traffic = evnet.traffic(self._loop)
        return Counts(
            connections=self.connections,
            queued=0,
            requests=0,
            accepted=self._count + sum(server.stats().accepted for server in self._servers),
            received=traffic.received,
            sent=traffic.sent,
            latency=_NO_LATENCY,
            latency_sum=0.0,
        )

    def listen_socket(self, sock: socket.socket) -> None:
        """Accept from a socket."""
        context = None if self._tls is None else self._tls.context
        self._servers.append(evnet.listen_socket(self._loop, self._factory, sock, ssl=context))

    def adopt(self, sock: socket.socket) -> None:
        """Take a connection."""
        counted = _Counted(self._factory(), self._adopted)
        first = counted if self._tls is None else asyncio.Protocol()
        connection = counted._connection = evnet.open_stream(self._loop, sock, lambda: first)
        self._count += 1
        if not counted._ended:
            self._adopted.add(connection)
        if self._tls is not None:
            counted.begin(connection, connection.start_tls(self._tls.context, server_side=True))

    def retire(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()

    def close_idle(self) -> None:
        """Do nothing: only the protocol knows when it is idle."""

    def abort(self) -> int:
        """Reset every connection."""
        count = self.connections
        for connection in list(self._adopted):
            connection.abort()
        for server in self._servers:
            server.abort()
        return count


class _Counted:
    """Stands before the protocol of a connection that no listening server has accepted, to see its end."""

    _connection: evnet.Connection | None = None
    _ended = False

    def __init__(self, protocol: Any, among: set[evnet.Connection]) -> None:
        self._protocol = protocol
        self._among = among

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def begin(self, connection: evnet.Connection, handshake: evnet.Pending[Any]) -> None:
        """Let the protocol see the connection when there is TLS."""

        def shaken(handshake: evnet.Pending[Any]) -> None:
            if handshake.exception() is None:
                connection.set_protocol(self)
                self._protocol.connection_made(connection)
            else:
                self._among.discard(connection)

        handshake.add_done_callback(shaken)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        if self._connection is not None:
            self._among.discard(self._connection)
        self._protocol.connection_lost(error)


def _logged_elsewhere(end: evhttp.ConnectionEnd) -> None:
    pass
