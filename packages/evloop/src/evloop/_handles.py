"""Handles: what ``call_soon`` and the timer calls return."""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evloop._timers import Timers

__all__ = ["PAUSED", "STAGED", "UNSET", "Handle", "RepeatingHandle", "TimerHandle", "describe"]

# What stands in place of a timer's index in C while it has none: C is told of it at the next turn; paused; not waiting.
STAGED, PAUSED, UNSET = -2, -3, -1


class Handle:
    """A callback that waits to be called. Like `asyncio.Handle`, it runs in the context that was current when it was made."""

    __slots__ = ("_args", "_callback", "_context")

    # Set one by one by whoever makes a handle, without a call of __init__: there is one for every call_soon.
    _callback: Any  # callable; None when cancelled
    _args: tuple[Any, ...]  # empty when cancelled
    _context: Context

    def cancel(self) -> None:
        """Do not call the callback. Calling this again, or too late, does nothing. Thread safety: loop thread only."""
        self._callback = None
        self._args = ()

    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._callback is None

    def _run(self) -> None:
        if self._callback is not None:
            self._context.run(self._callback, *self._args)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'cancelled' if self._callback is None else describe(self._callback)}>"


class TimerHandle(Handle):
    """A callback that waits for its time, once or again and again. Thread safety: loop thread only."""

    __slots__ = ("_index", "_timers", "_when")

    _timers: Timers
    _index: int  # in C; or STAGED, PAUSED or UNSET
    _when: float  # due on ``loop.time()``; while paused: the seconds that were left

    def when(self) -> float:
        """The time at which the callback is due next, on ``loop.time()``. While paused: when it would be due if resumed now."""
        return self._when if self._index != PAUSED else self._timers.time() + self._when

    def cancel(self) -> None:
        """Do not call the callback any more, and give the timer back. Calling this again, or too late, does nothing."""
        if self._callback is not None:
            timers = self._timers
            if timers._debug is not None:
                timers._check_thread()
            self._callback = None
            self._args = ()
            index = self._index
            if index >= 0:
                timers._timers[index] = None
                timers._stopped.append(index)
            elif index == STAGED and timers._staged[-1] is self:  # a time-out around what did not have to wait
                timers._staged.pop()
            self._index = UNSET  # so that C never hears of one that was staged

    def pause(self) -> None:
        """Stop the clock of this timer; `resume` goes on with the time that was left. Does nothing when it is not pending."""
        if self._index >= 0 or self._index == STAGED:
            self._timers._check_thread()
            self._give_back()
            self._when = max(self._when - self._timers.time(), 0.0)
            self._index = PAUSED

    def resume(self) -> None:
        """Go on after `pause`. Does nothing when it is not paused."""
        if self._index == PAUSED and not self._timers._closed:
            self._timers._check_thread()
            self._when += self._timers.time()
            self._timers._stage(self)

    def paused(self) -> bool:
        """Whether `pause` was called and `resume` was not."""
        return self._index == PAUSED

    def reschedule(self, delay: float) -> None:
        """Make the callback due in ``delay`` seconds instead; a paused timer goes on, one that has fired waits again.

        Raises:
            ValueError: The delay is negative or not a finite number.
            EvLoopError: The timer was cancelled.
        """
        self._timers._reschedule(self, delay)

    def _give_back(self) -> None:
        """Free the index of a timer that is pending."""
        timers = self._timers
        if self._index == STAGED:  # it has a place among those of its tick, and comes again at another
            timers._submit_timers()
        timers._timers[self._index] = None
        timers._stopped.append(self._index)
        self._index = UNSET


class RepeatingHandle(TimerHandle):
    """What ``call_every`` returns."""

    __slots__ = ("_interval",)

    _interval: float


def describe(callback: object) -> str:
    """A callback's name and where it is defined, for messages: ``tick at app.py:12``."""
    inner = getattr(callback, "__wrapped__", callback)
    inner = getattr(inner, "__func__", inner)
    inner = getattr(inner, "func", inner)  # functools.partial
    code = getattr(getattr(inner, "__func__", inner), "__code__", None)
    name = getattr(inner, "__qualname__", None) or repr(callback)
    return f"{name} at {code.co_filename}:{code.co_firstlineno}" if code is not None else name
