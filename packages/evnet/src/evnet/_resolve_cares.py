"""Name resolution by c-ares, through pycares: DNS queries that the loop itself sends and receives, without a thread."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from evloop import READ, WRITE
from evnet._literal import PROTOCOLS, AddressInfo, Infos, Question, failure

if TYPE_CHECKING:
    from evloop import Loop, TimerHandle, Watcher

__all__ = ["CaresBackend"]

# c-ares is asked how long it wants to sleep, but never sleeps longer than this while it has something to wait for.
_LONGEST_SLEEP = 1.0

# struct ares_addrinfo_hints has numbers of its own for the flags; pycares does not name them.
_FLAGS = {
    socket.AI_CANONNAME: 1 << 0,
    socket.AI_NUMERICHOST: 1 << 1,
    socket.AI_PASSIVE: 1 << 2,
    socket.AI_NUMERICSERV: 1 << 3,
    socket.AI_V4MAPPED: 1 << 4,
    socket.AI_ALL: 1 << 5,
    socket.AI_ADDRCONFIG: 1 << 6,
}

# As the C library reports the same. What is missing here is EAI_FAIL.
_CODES = {
    "ARES_ENODATA": getattr(socket, "EAI_NODATA", socket.EAI_NONAME),
    "ARES_ENOTFOUND": socket.EAI_NONAME,
    "ARES_EBADNAME": socket.EAI_NONAME,
    "ARES_ENONAME": socket.EAI_NONAME,
    "ARES_ESERVICE": socket.EAI_SERVICE,
    "ARES_EBADFAMILY": socket.EAI_FAMILY,
    "ARES_EBADFLAGS": socket.EAI_BADFLAGS,
    "ARES_EBADHINTS": socket.EAI_BADFLAGS,
    "ARES_ENOMEM": socket.EAI_MEMORY,
    "ARES_ETIMEOUT": socket.EAI_AGAIN,
    "ARES_ESERVFAIL": socket.EAI_AGAIN,
    "ARES_EREFUSED": socket.EAI_AGAIN,
    "ARES_ECONNREFUSED": socket.EAI_AGAIN,
    "ARES_ECANCELLED": socket.EAI_AGAIN,
    "ARES_EDESTRUCTION": socket.EAI_AGAIN,
}


class CaresBackend:
    """Asks name servers itself; needs pycares (``pip install evnet[dns]``).

    It reads ``/etc/resolv.conf`` and ``/etc/hosts`` and knows nothing of the rest of ``nsswitch.conf``: no mDNS, no LDAP, no names
    that only systemd knows. What it brings for that: no thread is taken for a question, however long it takes, and answers live as
    long as their records say.

    Args:
        loop: Whose watchers and timer drive it.
        servers: Name servers to ask instead of the configured ones: addresses, with ``:port`` behind where it is not 53.
        timeout: Seconds after which the first query to a server is sent again; it grows from one try to the next.
        tries: How often each server is asked.

    Raises:
        ImportError: pycares is not installed.
        ValueError: pycares does not take the servers.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        servers: Sequence[str] | None = None,
        timeout: float | None = None,
        tries: int | None = None,
    ) -> None:
        self._loop = loop
        self._pycares: Any = _import_pycares()
        self._watchers: dict[int, Watcher] = {}
        self._timer: TimerHandle | None = None
        self._asked = 0  # questions without an answer
        self._closed = False
        try:
            self._channel = self._pycares.Channel(
                sock_state_cb=self._sockets_changed, servers=servers, timeout=timeout, tries=tries
            )
        except self._pycares.AresError as error:
            raise ValueError(f"cannot use the name servers {servers!r}: {error}") from None

    def ask(
        self, question: Question, answer: Callable[[Infos | None, float | None, socket.gaierror | None], object]
    ) -> Callable[[], bool]:
        """Answer a question, possibly before this returns; see `evnet.ResolverBackend`."""
        host, port, family, kind, proto, flags = question
        if host is None:
            raise ValueError("a question without a host is not for a name server")

        def answered(result: Any, code: int | None) -> None:
            self._asked -= 1
            if code is None and result.nodes:
                infos, ttl = _infos(question, result)
                answer(infos, ttl, None)
            else:
                answer(None, None, self._failure(question, code))

        self._asked += 1
        try:
            name = host if host.isascii() else host.encode("idna").decode("ascii")
            translated = sum(ours for theirs, ours in _FLAGS.items() if flags & theirs)
            self._channel.getaddrinfo(
                name, port, family=family, type=kind, proto=proto, flags=translated, callback=answered
            )
        except BaseException:
            self._asked -= 1
            raise
        self._schedule()
        return _never

    def close(self) -> None:
        """End what is under way, and give its sockets back. Not to be called by an ``answer``."""
        if self._closed:
            return
        # Here and now: when pycares ends the queries of a channel, it does so in a thread of its own.
        self._channel.cancel()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._channel.close()
        for watcher in self._watchers.values():
            watcher.close()
        self._watchers.clear()

    def _sockets_changed(self, fd: int, readable: bool, writable: bool) -> None:
        """Called by c-ares before it closes a socket, and when it wants something else of one."""
        if self._closed:
            return  # in pycares's own thread, and the watchers are gone
        watcher = self._watchers.get(fd)
        events = (READ if readable else 0) | (WRITE if writable else 0)
        try:
            if not events:
                if watcher is not None:
                    del self._watchers[fd]
                    watcher.close()
            elif watcher is not None:
                watcher.modify(events)
            else:
                self._watchers[fd] = self._loop.watch(fd, events, self._ready)
        except Exception as error:  # behind it is C, which takes none
            message = f"the name resolver cannot watch descriptor {fd}, so its queries will time out"
            self._loop.call_exception_handler({"message": message, "exception": error})

    def _ready(self, fd: int, ready: int) -> None:
        nothing = self._pycares.ARES_SOCKET_BAD
        self._channel.process_fd(fd if ready & READ else nothing, fd if ready & WRITE else nothing)
        self._schedule()

    def _time_passed(self) -> None:
        nothing = self._pycares.ARES_SOCKET_BAD
        self._channel.process_fd(nothing, nothing)
        self._schedule()

    def _schedule(self) -> None:
        """Have one timer for all queries, as long as there are any."""
        if self._asked and not self._closed:
            delay = self._channel.timeout(_LONGEST_SLEEP)
            if self._timer is None:
                self._timer = self._loop.call_later(delay, self._time_passed)
            else:
                self._timer.reschedule(delay)
        elif self._timer is not None:
            self._timer.pause()

    def _failure(self, question: Question, code: int | None) -> socket.gaierror:
        name = self._pycares.errno.errorcode.get(code, "ARES_ENODATA")
        reason = self._pycares.errno.strerror(code) if code is not None else "the answer has no addresses"
        return failure(question, socket.gaierror(_CODES.get(name, socket.EAI_FAIL), reason))


def _infos(question: Question, result: Any) -> tuple[Infos, float]:
    """Translate what pycares gives to what `socket.getaddrinfo` would, and say for how many seconds it holds."""
    canonical = ""
    if question.flags & socket.AI_CANONNAME:
        canonical = _text(result.cnames[-1].name) if result.cnames else str(question.host)
    infos: list[AddressInfo] = []
    for node in result.nodes:
        address = (_text(node.addr[0]), *node.addr[1:])
        family, kind = socket.AddressFamily(node.family), socket.SocketKind(node.socktype)
        proto = node.protocol or question.proto or PROTOCOLS.get(kind, 0)
        infos.append((family, kind, proto, "" if infos else canonical, address))
    return tuple(infos), float(min(node.ttl for node in result.nodes))


def _text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value


def _never() -> bool:
    """Answer whether a question could be withdrawn: c-ares cancels all questions or none."""
    return False


def _import_pycares() -> Any:
    try:
        return importlib.import_module("pycares")
    except ImportError as error:
        raise ImportError("name resolution by c-ares needs pycares: pip install 'evnet[dns]>=2.0'") from error
