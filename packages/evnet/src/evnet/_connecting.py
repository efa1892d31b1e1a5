"""A connection that is being made: what both kinds of connecting have in common."""

from __future__ import annotations

import errno
import math
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from evnet._connection import Connection, StreamProtocol, abort_entry, take
from evnet._inbox import inbox_of
from evnet._options import MAX_QUEUED, stream_options
from evnet._pending import Pending
from evnet._tls import Session, TlsSettings

if TYPE_CHECKING:
    from evloop import Loop, TimerHandle

__all__ = ["Connecting", "Factory", "Reason", "check_arguments", "connection_options", "reason"]

Factory: TypeAlias = Callable[[], StreamProtocol]
Reason: TypeAlias = tuple[int, str]

_DEFAULTS = stream_options()


class Connecting(Pending[Connection]):
    """A connection that is being made; `connect_tcp` and `connect_unix` return it. Its result is the `Connection`.

    The protocol's ``connection_made`` is called first, the callbacks after it; both from the loop, never before the call that
    returned this object has returned. If it fails, `exception` is:

    * an `OSError` whose message names each address that was tried, with its reason. Its ``errno``, and with it its class, is that
      of the last address that failed: `ConnectionRefusedError` and so on;
    * `TimeoutError`, if there was no connection in time; the message says how far it got;
    * `socket.gaierror`, if the host has no address;
    * with TLS: an `ssl.SSLError`, `ssl.SSLCertVerificationError` for one, or `ConnectionResetError` if the peer went away
      during the handshake; nothing else is tried then;
    * whatever the protocol factory or ``connection_made`` has raised; then the connection is aborted.

    `cancel` closes all sockets at once.
    """

    __slots__ = ("_factory", "_options", "_session", "_target", "_timer", "_tls")

    def __init__(
        self,
        loop: Loop,
        factory: Factory,
        options: Any,
        target: str,
        timeout: float | None,
        tls: TlsSettings | None = None,
    ) -> None:
        super().__init__(loop)
        self._factory = factory
        self._options = options
        self._target = target
        self._tls = tls
        self._session: Session | None = None  # its handshake is under way
        self._timer: TimerHandle | None = None
        if timeout is not None and timeout != math.inf:
            self._timer = loop.call_later(timeout, self._time_out, timeout)
        _under_way_on(loop).add(self)

    def _connected(self, sock: socket.socket) -> None:
        """Make a connection of a socket, and be done. The socket belongs to this call."""
        if self._tls is not None:
            self._shake_hands(sock, self._tls)
            return

        def made(protocol: StreamProtocol) -> Connection:
            token, peer = take(self._loop, sock.fileno(), self._options)
            sock.detach()
            return Connection(inbox_of(self._loop), None, protocol, token, peer)

        try:
            self._make(made)
        finally:
            sock.close()

    def _shake_hands(self, sock: socket.socket, tls: TlsSettings) -> None:
        """Make a stream of a socket, and a connection when its handshake is done."""

        def shaken(session: Session) -> None:
            self._session = None
            if self.done():
                return
            if session.error is not None:
                self._fail(session.error)
                return
            self._session = session  # until there is a connection that ends it

            def made(protocol: StreamProtocol) -> Connection:
                self._session = None
                connection = Connection(inbox_of(self._loop), None, protocol, token, peer)
                connection._tls = session
                return connection

            self._make(made)
            if self._session is not None:
                self._session = None
                session.abort()

        try:
            with sock:
                token, peer = take(self._loop, sock.fileno(), self._options)
                sock.detach()
            try:
                session = Session(self._loop, token, tls, shaken)
            except BaseException:
                self._loop.submissions.append(abort_entry(token))
                raise
        except Exception as error:
            self._fail(error)
        except BaseException:
            self.cancel()
            raise
        else:
            if not self.done():
                self._session = session

    def _make(self, made: Callable[[StreamProtocol], Connection]) -> None:
        """Make protocol and connection, and be done."""
        try:
            protocol = self._factory()
            if self.done():  # the factory has cancelled it
                return
            connection = made(protocol)
            connection._begin()
        except Exception as error:
            if self.done():
                raise
            self._fail(error)
        except BaseException:  # an interrupt: nothing is left open, and nobody is left waiting
            self.cancel()
            raise
        else:
            if self.done():  # connection_made has cancelled it
                connection.abort()
            else:
                self._finish(connection)

    def _time_out(self, timeout: float) -> None:
        text = f"cannot connect to {self._target} within {timeout:g} s"
        self._fail(TimeoutError(errno.ETIMEDOUT, f"{text}: {self._progress()}"))

    def _progress(self) -> str:
        """How far it got, for the message of a timeout."""
        raise NotImplementedError

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._session is not None:
            self._session.abort()
            self._session = None
        if (others := _under_way.get(self._loop)) is not None:  # else the loop is being closed
            others.discard(self)

    def __repr__(self) -> str:
        return f"<Connecting to {self._target} {self._state}>"


def connection_options(idle_timeout: float | None, write_timeout: float | None, max_queued: int | None) -> Any:
    """Make the options of a connection; most have the same. Raises: as `stream_options`."""
    if idle_timeout is None and write_timeout is None and max_queued == MAX_QUEUED:
        return _DEFAULTS
    return stream_options(idle_timeout=idle_timeout, write_timeout=write_timeout, max_queued=max_queued)


def check_arguments(factory: Factory, timeout: float | None) -> None:
    """Raise for what cannot be a factory or a timeout."""
    if not callable(factory):
        raise TypeError(f"a protocol factory must be callable, not {factory!r}")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds > 0, not {timeout!r}")


def reason(error: OSError) -> Reason:
    """Why a call failed: the errno and its text."""
    code = error.errno or 0
    return code, os.strerror(code) if code else str(error)


# What is under way on each loop, to be given up when it is closed. An entry goes with its loop.
_under_way: WeakKeyDictionary[Loop, set[Connecting]] = WeakKeyDictionary()


def _under_way_on(loop: Loop) -> set[Connecting]:
    connectings = _under_way.get(loop)
    if connectings is None:
        connectings = _under_way[loop] = set()
        loop.on_close(partial(_give_up, loop))
    return connectings


def _give_up(loop: Loop) -> None:
    for connecting in list(_under_way.pop(loop, ())):
        connecting.cancel()
