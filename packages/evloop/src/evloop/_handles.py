"""Handles: what ``call_soon`` and the timer calls return."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from struct import Struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evloop._timers import Timers

__all__ = ["STOP", "Handle", "TimerHandle", "describe"]

STOP = Struct("<IHH").pack(0, 2, 0)  # the submission that stops a timer (evloop.h), without its index


class Handle:
    """A callback that waits to be called. Like `asyncio.Handle`, it runs in the context that was current when it was made."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context")

    # Set one by one by whoever makes a handle, without a call of __init__: there is one for every call_soon.
    _callback: Callable[..., object]
    _args: tuple[Any, ...]
    _context: Context
    _cancelled: bool

    def cancel(self) -> None:
        """Do not call the callback. Calling this again, or too late, does nothing. Thread safety: loop thread only."""
        self._cancelled = True
        self._callback = _nothing  # whatever it was bound to can go
        self._args = ()

    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def _run(self) -> None:
        if not self._cancelled:
            self._context.run(self._callback, *self._args)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'cancelled' if self._cancelled else describe(self._callback)}>"


class TimerHandle(Handle):
    """A callback that waits for its time, once or again and again. Thread safety: loop thread only."""

    __slots__ = ("_index", "_interval", "_left", "_timers", "_when")

    _timers: Timers
    _index: int  # -1 while it does not wait
    _when: float
    _interval: float | None  # None: once
    _left: float | None  # seconds that were left when it was paused

    def when(self) -> float:
        """The time at which the callback is due next, on ``loop.time()``. While paused: when it would be due if resumed now."""
        return self._when if self._left is None else self._timers.time() + self._left

    def cancel(self) -> None:
        """Do not call the callback any more, and give the timer back. Calling this again, or too late, does nothing."""
        if not self._cancelled:
            if self._timers._debug is not None:
                self._timers._check_thread()
            self._cancelled = True
            self._callback = _nothing
            self._args = ()
            if self._index >= 0:
                self._give_back()

    def pause(self) -> None:
        """Stop the clock of this timer; `resume` goes on with the time that was left. Does nothing when it is not pending."""
        if self._index >= 0:
            self._timers._check_thread()
            self._left = max(self._when - self._timers.time(), 0.0)
            self._give_back()

    def resume(self) -> None:
        """Go on after `pause`. Does nothing when it is not paused."""
        if self._left is not None and not self._cancelled and not self._timers._closed:
            self._timers._check_thread()
            self._when = self._timers.time() + self._left
            self._left = None
            self._timers._arm(self)

    def paused(self) -> bool:
        """Whether `pause` was called and `resume` was not."""
        return self._left is not None

    def reschedule(self, delay: float) -> None:
        """Make the callback due in ``delay`` seconds instead; a paused timer goes on, one that has fired waits again.

        Raises:
            ValueError: The delay is negative or not a finite number.
            EvLoopError: The timer was cancelled.
        """
        self._timers._reschedule(self, delay)

    def _give_back(self) -> None:
        """Stop the timer in C and free its index, which must not be -1."""
        timers, index = self._timers, self._index
        self._index = -1
        timers._timers[index] = None
        # While a batch is being dispatched, the record that says it fired may be in there, and must find nobody.
        (timers._free_timers if timers._batch is None else timers._limbo_timers).append(index)
        timers.submissions.extend((STOP, timers._timer_ids[index]))


def _nothing() -> None:
    """Take the place of a cancelled callback."""


def describe(callback: object) -> str:
    """A callback's name and where it is defined, for messages: ``tick at app.py:12``."""
    inner = getattr(callback, "__wrapped__", callback)
    inner = getattr(inner, "__func__", inner)
    inner = getattr(inner, "func", inner)  # functools.partial
    code = getattr(getattr(inner, "__func__", inner), "__code__", None)
    name = getattr(inner, "__qualname__", None) or repr(callback)
    return f"{name} at {code.co_filename}:{code.co_firstlineno}" if code is not None else name
