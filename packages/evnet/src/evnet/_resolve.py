"""Name resolution that never blocks the loop: literals at once, names by a backend, answers remembered for a while."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from evnet._errors import EvNetError
from evnet._literal import AddressInfo, Infos, Question, answer_inline, checked_port, failure
from evnet._pending import Pending
from evnet._resolve_cares import CaresBackend
from evnet._resolve_threads import SystemBackend

if TYPE_CHECKING:
    from evloop import Loop, TimerHandle

__all__ = ["AddressInfo", "Lookup", "Resolver", "ResolverBackend", "resolve"]

_BACKENDS: dict[str, Callable[[Loop], ResolverBackend]] = {"system": SystemBackend, "c-ares": CaresBackend}


class ResolverBackend(Protocol):
    """What answers the questions of a `Resolver`; of interest to who wants another than the two that are here."""

    def ask(
        self, question: Question, answer: Callable[[Infos | None, float | None, socket.gaierror | None], object], /
    ) -> Callable[[], bool]:
        """Find the addresses of a question.

        Args:
            question: Its fields are the arguments of `socket.getaddrinfo`; the host is no address in digits.
            answer: To be called once, in the loop's thread, unless the question is withdrawn: with the addresses, the seconds for
                which they hold (``None``: not known) and ``None``; or with ``None``, ``None`` and the error.

        Returns:
            Withdraws the question and returns true; or false if the answer will come all the same.
        """
        ...

    def close(self) -> None:
        """Release everything. What has been asked needs no answer any more."""
        ...


class Lookup(Pending[tuple[AddressInfo, ...]]):
    """A name that is being resolved. Its result is what `socket.getaddrinfo` would return, as a tuple."""

    __slots__ = ("_question", "_timer", "_waiting_for")

    def __init__(self, loop: Loop, question: Question) -> None:
        super().__init__(loop)
        self._question = question
        self._waiting_for: _Asked | None = None
        self._timer: TimerHandle | None = None

    def _wait_for(self, asked: _Asked, timeout: float | None) -> None:
        self._waiting_for = asked
        asked.lookups.append(self)
        if timeout is not None and timeout != math.inf:
            self._timer = self._loop.call_later(timeout, self._time_out, timeout)

    def _time_out(self, timeout: float) -> None:
        error = socket.gaierror(socket.EAI_AGAIN, f"no answer within {timeout:g} s")
        self._fail(failure(self._question, error))

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        asked, self._waiting_for = self._waiting_for, None
        if asked is not None:
            asked.leave(self)

    def __repr__(self) -> str:
        return f"<Lookup of {self._question.host!r} port {self._question.port!r} {self._state}>"


class _Asked:
    """A question under way, and everybody who waits for its answer."""

    __slots__ = ("lookups", "question", "resolver", "withdraw")

    def __init__(self, resolver: Resolver, question: Question) -> None:
        self.resolver = resolver
        self.question = question
        self.lookups: list[Lookup] = []
        self.withdraw: Callable[[], bool] | None = None

    def leave(self, lookup: Lookup) -> None:
        self.lookups.remove(lookup)
        # Where it cannot be withdrawn it stays, so that who asks again and again in vain does not take thread after thread.
        if not self.lookups and self.withdraw is not None and self.withdraw():
            self.resolver._drop(self)


class Resolver:
    """Resolves names for one loop: joins those who ask the same, and remembers the answers.

    A loop has one of its own, which `resolve` and `connect_tcp` use; others can be made for other settings.

    Args:
        loop: The loop; closing it closes the resolver.
        backend: ``"system"`` for `socket.getaddrinfo` in threads, ``"c-ares"`` for DNS without threads, which needs pycares
            (``evnet[dns]``), or an object of one's own. By default ``EVNET_RESOLVER`` from the environment, else ``"system"``: that
            pycares is installed for something else must not change how a program resolves names.
        max_age: Seconds for which an answer is remembered, less if its records say so. The system's resolver does not tell, so
            this is how long an address that has changed can be in use. 0: nothing is remembered.
        max_entries: How many answers are remembered; the oldest makes room.

    Errors are not remembered.

    Raises:
        ValueError: An argument is out of range, or there is no such backend.
        ImportError: The backend is not installed.
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """

    def __init__(
        self,
        loop: Loop,
        backend: str | ResolverBackend | None = None,
        *,
        max_age: float = 10.0,
        max_entries: int = 1024,
    ) -> None:
        if not max_age >= 0:
            raise ValueError(f"max_age must be a number of seconds >= 0, not {max_age!r}")
        if max_entries < 0:
            raise ValueError(f"max_entries must be a number >= 0, not {max_entries!r}")
        loop.address  # noqa: B018 - raises if the loop is closed
        self._loop = loop
        self._backend = _make_backend(loop, backend)
        self._max_age = max_age
        self._max_entries = max_entries
        self._asked: dict[Question, _Asked] = {}
        self._known: dict[Question, tuple[float, Infos]] = {}  # until when, and the answer; oldest first
        self._closed = False
        loop.on_close(self.close)

    @staticmethod
    def of(loop: Loop) -> Resolver:
        """The loop's own resolver, which is made when it is first asked for. Raises: as `Resolver`."""
        resolver = _resolvers.get(loop)
        if resolver is None:
            resolver = Resolver(loop)
            _resolvers[loop] = resolver
            loop.on_close(partial(_resolvers.pop, loop, None))
        return resolver

    def resolve(
        self,
        host: str | None,
        port: int | str | None,
        *,
        family: int = 0,
        type: int = socket.SOCK_STREAM,
        proto: int = 0,
        flags: int = 0,
        timeout: float | None = None,
    ) -> Lookup:
        """As `evnet.resolve`, with this resolver."""
        if host is not None and not isinstance(host, str):
            raise TypeError(f"a host must be a string or None, not {host!r}")
        question = Question(host or None, checked_port(port), family, type, proto, flags)
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be a number of seconds > 0, not {timeout!r}")
        return self._look_up(question, timeout)

    def _look_up(self, question: Question, timeout: float | None = None) -> Lookup:
        if self._closed:
            self._loop.address  # noqa: B018 - if that is closed too, it is the better thing to say
            raise EvNetError("the resolver is closed")
        lookup = Lookup(self._loop, question)
        try:
            infos = answer_inline(question)
        except socket.gaierror as error:
            lookup._fail(error.with_traceback(None))
            return lookup
        if infos is None:
            infos = self._remembered(question)
        if infos is not None:
            lookup._finish(infos)
            return lookup
        asked = self._asked.get(question)
        if asked is not None:
            lookup._wait_for(asked, timeout)
            return lookup
        self._asked[question] = asked = _Asked(self, question)
        lookup._wait_for(asked, timeout)
        try:
            asked.withdraw = self._backend.ask(question, partial(self._answered, asked))
        except BaseException:
            lookup.cancel()
            self._drop(asked)
            raise
        return lookup

    def forget(self) -> None:
        """Forget all answers: for who knows that addresses have changed. What is under way goes on."""
        self._known.clear()

    def close(self) -> None:
        """Cancel what is under way and release the backend. Calling this again does nothing."""
        if self._closed:
            return
        self._closed = True
        for asked in list(self._asked.values()):
            for lookup in list(asked.lookups):
                lookup.cancel()
        self._asked.clear()
        self._known.clear()
        self._backend.close()

    def _answered(self, asked: _Asked, infos: Infos | None, holds: float | None, error: socket.gaierror | None) -> None:
        self._drop(asked)
        if infos is not None and not self._closed:
            self._remember(asked.question, infos, self._max_age if holds is None else min(holds, self._max_age))
        lookups, asked.lookups, asked.withdraw = asked.lookups, [], None
        for lookup in lookups:
            lookup._waiting_for = None
            if infos is not None:
                lookup._finish(infos)
            else:
                # One each: a traceback belongs to who raises it.
                assert error is not None
                lookup._fail(socket.gaierror(*error.args))

    def _drop(self, asked: _Asked) -> None:
        if self._asked.get(asked.question) is asked:
            del self._asked[asked.question]

    def _remembered(self, question: Question) -> Infos | None:
        known = self._known.get(question)
        if known is None:
            return None
        until, infos = known
        if self._loop.time() < until:
            return infos
        del self._known[question]
        return None

    def _remember(self, question: Question, infos: Infos, seconds: float) -> None:
        self._known.pop(question, None)  # so that it is the youngest
        if seconds > 0 and self._max_entries:
            while len(self._known) >= self._max_entries:
                del self._known[next(iter(self._known))]
            self._known[question] = self._loop.time() + seconds, infos


def resolve(
    loop: Loop,
    host: str | None,
    port: int | str | None,
    *,
    family: int = 0,
    type: int = socket.SOCK_STREAM,
    proto: int = 0,
    flags: int = 0,
    timeout: float | None = None,
    resolver: Resolver | None = None,
) -> Lookup:
    """Find the addresses of a host, without blocking the loop.

    The answer is an object with the methods of a future, not a callback argument: it can be cancelled, asked and given several
    callbacks, it is what asyncio's users know, and a later ``async def`` on this loop can await it.

    Addresses in digits are answered before this returns, scope ids (``fe80::1%eth0``) included. For names the loop's `Resolver`
    asks its backend; questions that are equal and under way at the same time are asked once, and answers are remembered.

    Args:
        loop: The loop that the answer comes to.
        host: A name, in any script, or an address; ``None`` or ``""`` is the local host, or with ``AI_PASSIVE`` every interface.
        port: A number, the name of a service, or ``None`` for 0.
        family: ``AF_INET`` or ``AF_INET6``; 0: both.
        type: The kind of socket; 0: all, one entry for each.
        proto: The protocol; 0: what belongs to the kind.
        flags: The ``AI_*`` flags of `socket.getaddrinfo`.
        timeout: Seconds after which the lookup fails with ``EAI_AGAIN``; ``None``: when the backend gives up.
        resolver: Another than the loop's own, of the same loop.

    Returns:
        A `Lookup`. Its result is a tuple of ``(family, type, proto, canonname, sockaddr)``, the best first, as the backend orders
        them (RFC 6724). It fails with `socket.gaierror`; the message names host and port.

    Raises:
        ValueError: No such port, or a timeout that is none.
        TypeError: The host is no string, or the port neither a number nor a string.
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """
    if resolver is None:
        resolver = Resolver.of(loop)
    elif resolver._loop is not loop:
        raise ValueError("the resolver belongs to another loop")
    return resolver.resolve(host, port, family=family, type=type, proto=proto, flags=flags, timeout=timeout)


def _make_backend(loop: Loop, backend: str | ResolverBackend | None) -> ResolverBackend:
    if backend is None:
        backend = os.environ.get("EVNET_RESOLVER") or "system"
    if not isinstance(backend, str):
        return backend
    if backend not in _BACKENDS:
        raise ValueError(f"resolver backend {backend!r} is not one of {', '.join(_BACKENDS)}")
    return _BACKENDS[backend](loop)


# Entries go when their loop is closed.
_resolvers: WeakKeyDictionary[Loop, Resolver] = WeakKeyDictionary()
