"""Callbacks that wait for no descriptor: soon, deferred, from other threads, idle, observed values."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from evloop._core import Core
from evloop._handles import Handle
from evloop._shim import lib

__all__ = ["Callbacks", "IdleHandle", "ObserveHandle", "checked"]


class Callbacks(Core):
    """The part of `evloop.Loop` that queues callbacks."""

    __slots__ = ("_kick", "_on_call", "_wake_lock")

    def __init__(self, *, backend: str | None = None, debug: bool | None = None) -> None:
        super().__init__(backend=backend, debug=debug)
        self._wake_lock = threading.Lock()
        self._kick: Callable[[], None] | None = None
        # What is to be done before a callback is queued, so that it is one question: the check of debug mode, the kick.
        self._on_call: Callable[[], None] | None = None
        self._set_kick(None)

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:
        """Call ``callback(*args)`` before the next poll; what it adds itself runs in the turn after that.

        Raises:
            TypeError: Not callable.
            LoopClosedError: The loop is closed.
        """
        if not callable(callback):
            raise _not_callable(callback)
        if self._on_call is not None:
            self._on_call()
        handle = Handle()
        handle._callback = callback
        handle._args = args
        handle._context = copy_context() if context is None else context
        self._ready.append(handle)
        return handle

    def defer(self, callback: Callable[..., object], *args: Any) -> None:
        """As `call_soon`, for hot paths: it makes no handle, so that the call cannot be cancelled, and carries no context.

        Raises: as `call_soon`.
        """
        if not callable(callback):
            raise _not_callable(callback)
        if self._on_call is not None:
            self._on_call()
        self._ready.append(partial(callback, *args) if args else callback)

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """As `call_soon`, from any thread. Several calls share one wake-up, which is made only if the loop sleeps.

        Raises: as `call_soon`.
        """
        if not callable(callback):
            raise _not_callable(callback)
        handle = Handle()
        handle._callback = callback
        handle._args = args
        handle._context = copy_context() if context is None else context
        self._posted.append(handle)
        if self._asleep:
            self._wake()
        return handle

    def on_idle(self, callback: Callable[..., object], *args: Any) -> IdleHandle:
        """Call ``callback(*args)`` whenever a poll has found nothing to do, until the handle is cancelled.

        While there is an idle callback the loop does not sleep: it polls, and has the core to itself.
        """
        self._check_thread()
        handle = IdleHandle(self, checked(callback), args)
        self._check_open()
        self._idle.append(handle)
        if self._kick is not None:
            self._kick()
        return handle

    def observe(self, read: Callable[[], object], callback: Callable[[Any, Any], object]) -> ObserveHandle:
        """Call ``callback(new, old)`` when ``read()`` gives another value than at the turn before, until the handle is cancelled.

        ``read()`` is called now and before each poll, and should cost next to nothing. Values are compared with ``==``. A change
        made while the loop sleeps, by another thread, is seen when something wakes it.
        """
        self._check_thread()
        handle = ObserveHandle(self, checked(read), checked(callback))
        self._check_open()
        self._observed.append(handle)
        return handle

    def _set_kick(self, kick: Callable[[], None] | None) -> None:
        """Set what wakes the foreign loop that this one is attached to."""
        self._kick = kick
        self._on_call = self._before_call if self._debug is not None else kick

    def _before_call(self) -> None:
        self._check_thread()
        if self._kick is not None:
            self._kick()

    def _wake(self) -> None:
        if self._asleep:
            self._asleep = False  # one wake-up for all who post meanwhile
            with self._wake_lock:
                if not self._closed and not self._forked:
                    lib.ev_wake(self._ptr)


class IdleHandle(Handle):
    """An idle callback; see `Callbacks.on_idle`."""

    __slots__ = ("_loop",)

    def __init__(self, loop: Callbacks, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._loop = loop
        self._callback = callback
        self._args = args
        self._context = copy_context()

    def cancel(self) -> None:
        """Do not call the callback any more."""
        if self._callback is not None:
            self._loop._check_thread()
            super().cancel()
            if not self._loop._closed:
                self._loop._idle.remove(self)


class ObserveHandle(Handle):
    """A value that is being looked at; see `Callbacks.observe`."""

    __slots__ = ("_last", "_loop", "_read")

    def __init__(self, loop: Callbacks, read: Callable[[], object], callback: Callable[[Any, Any], object]) -> None:
        self._loop = loop
        self._read = read
        self._last = read()
        self._callback = callback
        self._args = ()
        self._context = copy_context()

    def cancel(self) -> None:
        """Do not look any more."""
        if self._callback is not None:
            self._loop._check_thread()
            super().cancel()
            if not self._loop._closed:
                self._loop._observed.remove(self)

    def _run(self) -> None:
        if self._callback is None:
            return
        value = self._context.run(self._read)
        if value != self._last:
            last, self._last = self._last, value
            self._context.run(self._callback, value, last)


def checked(callback: Callable[..., object]) -> Callable[..., object]:
    """Return the callback, or raise a TypeError that says what was given instead."""
    if not callable(callback):
        raise _not_callable(callback)
    return callback


def _not_callable(callback: object) -> TypeError:
    return TypeError(f"a callback must be callable, not {callback!r}")
