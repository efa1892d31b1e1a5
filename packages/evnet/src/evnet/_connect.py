"""Connecting to a host, by one address or several (RFC 8305)."""

from __future__ import annotations

import errno
import math
import os
import socket
import ssl as _ssl
from typing import TYPE_CHECKING, Any

from evloop import WRITE
from evnet._connecting import Connecting, Factory, Reason, check_arguments, connection_options, reason
from evnet._happy import interleaved
from evnet._literal import AddressInfo, Infos, Question, answer_inline, checked_port
from evnet._options import MAX_QUEUED
from evnet._resolve import Lookup, Resolver
from evnet._tls import TlsSettings, client_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from evloop import Loop, TimerHandle
    from evnet._keepalive import KeepAlive

__all__ = ["connect_tcp"]

# Where the kernel has a flag for it, a socket is made non-blocking without a call of its own.
_NONBLOCK: int = getattr(socket, "SOCK_NONBLOCK", 0)
# With it connect chooses the local port, not bind, and only has to find one that is free for this destination (ip(7)).
_BIND_ADDRESS_NO_PORT: int | None = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", None)
# EINTR: it goes on all the same.
_UNDER_WAY = (errno.EINPROGRESS, errno.EINTR)
# RFC 8305 §8: the delay between attempts is at least 10 ms.
_LEAST_DELAY = 0.01


class _ConnectingTcp(Connecting):
    """Tries the addresses of a host, as RFC 8305 §5 has it: the next one when the last has failed or has taken long."""

    __slots__ = (
        "_attempts",
        "_delay",
        "_failures",
        "_interleave",
        "_keep_alive",
        "_left",
        "_local",
        "_lookup",
        "_next",
    )

    def __init__(
        self,
        loop: Loop,
        factory: Factory,
        options: Any,
        target: str,
        timeout: float | None,
        delay: float | None,
        interleave: int,
        keep_alive: KeepAlive | None,
        tls: TlsSettings | None,
    ) -> None:
        super().__init__(loop, factory, options, target, timeout, tls)
        self._delay = delay
        self._interleave = interleave
        self._keep_alive = keep_alive
        self._lookup: Lookup | None = None
        self._local: Infos = ()
        self._left: list[AddressInfo] = []  # the next one last
        self._next: TimerHandle | None = None
        self._attempts: list[_Attempt] = []
        self._failures: list[tuple[AddressInfo, Reason]] = []

    def _resolve(self, resolver: Resolver, local: Question | None, remote: Question) -> None:
        """Find the addresses, ours first, and begin."""
        lookup = resolver._look_up(remote if local is None else local)
        self._lookup = lookup

        def resolved(lookup: Lookup) -> None:
            if self.done():
                return
            if lookup.cancelled():  # the resolver was closed
                self.cancel()
                return
            if (error := lookup.exception()) is not None:
                self._fail(error)
                return
            if local is None:
                self._begin(lookup.result())
            else:
                self._local = lookup.result()
                self._resolve(resolver, None, remote)

        lookup.add_done_callback(resolved)

    def _begin(self, infos: Infos) -> None:
        if not infos:
            self._fail(socket.gaierror(socket.EAI_NONAME, f"cannot connect to {self._target}: it has no addresses"))
            return
        self._left = list(infos) if len(infos) == 1 else interleaved(infos, self._interleave)[::-1]
        self._try_next()

    def _try_next(self) -> None:
        """Begin with the next address, and with those behind it for as long as they fail at once."""
        while self._left:
            info = self._left.pop()
            try:
                failure = self._attempt(info)
            except Exception as error:  # an address that is none, from a resolver that is not ours
                self._fail(error)
                return
            if failure is None:
                if self._left and self._delay is not None:
                    # RFC 8305 §5: the delay counts from the attempt that was begun last.
                    if self._next is None:
                        self._next = self._loop.call_later(self._delay, self._try_next)
                    else:
                        self._next.reschedule(self._delay)
                return
            self._failures.append((info, failure))
        if not self._attempts:
            self._fail(self._error())

    def _attempt(self, info: AddressInfo) -> Reason | None:
        """Begin with an address; why not, if it fails at once."""
        family, kind, proto, _, address = info
        try:
            sock = socket.socket(family, kind | _NONBLOCK, proto)
        except OSError as error:
            return reason(error)
        try:
            if not _NONBLOCK:
                sock.setblocking(False)
            if self._keep_alive is not None:
                self._keep_alive.apply(sock)
            failure = _bind(sock, self._local) if self._local else None
            if failure is None:
                code = sock.connect_ex(address)
                if code == 0 or code in _UNDER_WAY:
                    self._attempts.append(_Attempt(self, info, sock, code == 0 or _is_there(sock, address)))
                    return None
                failure = code, os.strerror(code)
        except OSError as error:
            failure = reason(error)
        except BaseException:
            sock.close()
            raise
        sock.close()
        return failure

    def _attempt_failed(self, attempt: _Attempt, code: int) -> None:
        self._attempts.remove(attempt)
        self._failures.append((attempt.info, (code, os.strerror(code))))
        self._try_next()

    def _attempt_succeeded(self, attempt: _Attempt) -> None:
        self._attempts.remove(attempt)
        self._stop()  # the others go before the protocol comes
        self._connected(attempt.sock)

    def _error(self) -> OSError:
        code = self._failures[-1][1][0]
        return OSError(code, f"cannot connect to {self._target}: {self._progress()}")

    def _progress(self) -> str:
        if self._session is not None:
            return "the TLS handshake is not done"
        if self._lookup is not None and not self._lookup.done():
            return "its name has not been resolved"
        if len(self._failures) == 1 and _name(self._failures[0][0]) == self._target:
            return self._failures[0][1][1]  # it is named already
        said = [f"{_name(info)}: {why}" for info, (_, why) in self._failures]
        said += [f"{_name(attempt.info)}: no answer" for attempt in self._attempts]
        said += [f"{_name(info)}: not tried" for info in reversed(self._left)]
        return "; ".join(said)

    def _stop(self) -> None:
        """Let go of everything that is under way but the timeout."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._left.clear()
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.close()
        if self._lookup is not None:
            self._lookup.cancel()

    def _release(self) -> None:
        super()._release()
        self._stop()


class _Attempt:
    """A socket on its way to one address."""

    __slots__ = ("connecting", "info", "sock", "stop_waiting")

    def __init__(self, connecting: _ConnectingTcp, info: AddressInfo, sock: socket.socket, there: bool) -> None:
        self.connecting = connecting
        self.info = info
        self.sock = sock
        self.stop_waiting: Callable[[], object]
        if there:
            self.stop_waiting = connecting._loop.call_soon(connecting._attempt_succeeded, self).cancel
        else:
            self.stop_waiting = connecting._loop.watch(sock.fileno(), WRITE, self.ready).close

    def ready(self, fd: int, ready: int) -> None:
        self.stop_waiting()
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.sock.close()
            self.connecting._attempt_failed(self, code)
        else:
            self.connecting._attempt_succeeded(self)

    def close(self) -> None:
        self.stop_waiting()
        self.sock.close()


def connect_tcp(
    loop: Loop,
    protocol_factory: Factory,
    host: str,
    port: int | str,
    *,
    timeout: float | None = None,
    local_addr: tuple[str, int] | None = None,
    family: int = 0,
    happy_eyeballs_delay: float | None = 0.25,
    interleave: int = 1,
    keep_alive: KeepAlive | None = None,
    idle_timeout: float | None = None,
    write_timeout: float | None = None,
    max_queued: int | None = MAX_QUEUED,
    resolver: Resolver | None = None,
    ssl: _ssl.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> Connecting:
    """Connect to a host and drive a protocol with the connection.

    Of a host with several addresses the one that answers first is taken (RFC 8305, "Happy Eyeballs"): the next address is tried
    when the one before has failed, or has not answered within ``happy_eyeballs_delay``; the families take turns. A and AAAA
    records are asked for together, and ordered as RFC 6724 has it, by the resolver; so there is no resolution delay of our own
    (§3): the answer is there when both are.

    Args:
        loop: The loop that serves the connection.
        protocol_factory: Called without arguments when there is a connection; its result has the methods of `asyncio.Protocol`.
        host: A name or an address.
        port: A number, or the name of a service.
        timeout: Seconds for everything, the look-up included; ``None``: as long as the resolver and the kernel try, which may be
            minutes.
        local_addr: Host and port to connect from; port 0 lets the system choose.
        family: ``AF_INET`` or ``AF_INET6`` to use only that.
        happy_eyeballs_delay: Seconds until the next address is tried beside the others (RFC 8305, Connection Attempt Delay), at
            least 0.01; ``None``: not before the last has failed.
        interleave: How many addresses of the first family are tried before the other comes in (First Address Family Count);
            0 keeps the resolver's order.
        keep_alive: Probes for a peer that has vanished; ``None``: none.
        idle_timeout: Seconds without a byte in either direction after which the connection is aborted; ``None``: never.
        write_timeout: Seconds after which the connection is aborted if the peer takes nothing of what is queued; ``None``: never.
        max_queued: Bytes that may wait to be sent; a connection that has more when something is written is aborted with
            `WriteQueueFullError`. ``None``: no limit.
        resolver: Another than the loop's own.
        ssl: TLS with this context; ``True``: with `ssl.create_default_context`.
        server_hostname: What the certificate must be for, and what is asked for by SNI; by default ``host``. An empty one is not
            checked, if the context allows that.
        ssl_handshake_timeout: Seconds, by default 60.
        ssl_shutdown_timeout: See `listen_tcp`.

    Returns:
        A `Connecting`, which says how a failure is reported. TCP_NODELAY is set.

    Raises:
        ValueError: An argument is out of range.
        TypeError: Port or factory is of another kind.
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """
    loop.address  # noqa: B018 - raises if the loop is closed
    check_arguments(protocol_factory, timeout)
    if not host or not isinstance(host, str):
        raise ValueError(f"a host must be a name or an address, not {host!r}")
    if happy_eyeballs_delay is not None and not _LEAST_DELAY <= happy_eyeballs_delay < math.inf:
        raise ValueError(f"happy_eyeballs_delay must be at least {_LEAST_DELAY} s, not {happy_eyeballs_delay!r}")
    if interleave < 0:
        raise ValueError(f"interleave must be a number >= 0, not {interleave!r}")
    if resolver is not None and resolver._loop is not loop:
        raise ValueError("the resolver belongs to another loop")
    options = connection_options(idle_timeout, write_timeout, max_queued)
    tls = client_settings(ssl, server_hostname, host, ssl_handshake_timeout, ssl_shutdown_timeout)
    remote = Question(host, checked_port(port), family, socket.SOCK_STREAM, 0, 0)
    local: Question | None = None
    if local_addr is not None:
        local = Question(
            local_addr[0] or None, checked_port(local_addr[1]), family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE
        )
    target = f"{host} port {port}"
    connecting = _ConnectingTcp(
        loop, protocol_factory, options, target, timeout, happy_eyeballs_delay, interleave, keep_alive, tls
    )
    try:
        infos = answer_inline(remote) if local is None else None
        if infos is not None:
            connecting._begin(infos)
        else:
            connecting._resolve(resolver or Resolver.of(loop), local, remote)
    except socket.gaierror as error:
        connecting._fail(error.with_traceback(None))
    except BaseException:
        connecting.cancel()
        raise
    return connecting


def _is_there(sock: socket.socket, address: tuple[Any, ...]) -> bool:
    """Whether a connection that is said to be under way is there already.

    On Linux one to this machine is, if anybody listens, for the packets of the handshake have passed before connect returns; only
    connect itself has not looked. To see that here spares the poller the descriptor, a turn's delay, and a tenth of the CPU time.
    """
    host = address[0]
    if not (host.startswith("127.") or host == "::1"):
        return False
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _bind(sock: socket.socket, local: Infos) -> Reason | None:
    """Give a socket the first of our addresses that it can have; why not, if there is none."""
    failure = errno.EADDRNOTAVAIL, "the local address has another family"
    for family, _, _, _, address in local:
        if family == sock.family:
            try:
                if address[1] == 0 and _BIND_ADDRESS_NO_PORT is not None:
                    sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                sock.bind(address)
            except OSError as error:
                code, why = reason(error)
                failure = code, f"cannot use local address {address[0]} port {address[1]}: {why}"
            else:
                return None
    return failure


def _name(info: AddressInfo) -> str:
    host, port, *rest = info[4]
    scope = rest[1] if len(rest) == 2 else 0
    return f"{host}%{scope} port {port}" if scope else f"{host} port {port}"
