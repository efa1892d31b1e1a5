"""The timers of a loop: handles here, the wheel in C, and between them two kinds of submissions."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from struct import Struct
from typing import Any

from evloop._callbacks import Callbacks, checked
from evloop._core import Record, Refusing
from evloop._errors import EvLoopError
from evloop._handles import STAGED, UNSET, RepeatingHandle, TimerHandle

__all__ = ["Timers"]

# The head of a submission (shim.h): payload length, operation | module << 8, argument, id.
_pack_head = Struct("<IHHQ").pack
_START, _STOP = 1, 2

_INFINITE = math.inf


class Timers(Callbacks):
    """The part of `evloop.Loop` that waits for times.

    C hears of timers once a turn, of all that were started and stopped since the last one together: what is done for each
    of them in Python is to put its handle on a list. One that is cancelled before the next turn C never hears of.

    A pending timer takes 48 bytes in C and about 200 in Python. Both are given back when it fires or is cancelled; the table in C
    keeps the size of the largest number of timers that were ever pending at once.
    """

    __slots__ = ("_timers",)

    def __init__(self, *, backend: str | None = None, debug: bool | None = None) -> None:
        super().__init__(backend=backend, debug=debug)
        self._timers: list[TimerHandle | None] = []  # by index in C
        target = self.add_target(self._timers_fired)
        assert target == 1, "C sends expired timers to EV_TARGET_TIMER"

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        """Call ``callback(*args)`` in ``delay`` seconds: never earlier, and as a rule within a millisecond after that.

        Raises:
            ValueError: The delay is negative or not a finite number.
            TypeError: Not callable.
            LoopClosedError: The loop is closed.
        """
        if not 0.0 <= delay < _INFINITE:
            raise _bad_seconds("delay", delay)
        if not callable(callback):
            checked(callback)
        if self._on_call is not None:
            self._on_call()
        # As in _new_timer, without another call: of all that a timer may do this is what programs do most.
        handle = TimerHandle()
        handle._callback = callback
        handle._args = args
        handle._context = copy_context() if context is None else context
        handle._timers = self
        handle._when = self.time() + delay
        handle._index = STAGED
        self._staged.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        """Call ``callback(*args)`` at ``when`` on the clock of `time`; at once if that has passed. Raises: as `call_later`."""
        if not -_INFINITE < when < _INFINITE:
            raise ValueError(f"when must be a finite number of seconds, not {when!r}")
        return self._new_timer(TimerHandle(), when, callback, args, context)

    def call_every(
        self, interval: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        """Call ``callback(*args)`` every ``interval`` seconds, the first time after one interval, until the handle is cancelled.

        The calls keep to multiples of the interval. Those that were missed, because a callback took long or the machine slept,
        are left out: there is one call at once, and then the next at its time.

        Raises:
            ValueError: The interval is not a finite number of seconds greater than 0.
            TypeError: Not callable.
        """
        if not 0 < interval < _INFINITE:
            raise ValueError(f"interval must be a finite number of seconds > 0, not {interval!r}")
        handle = RepeatingHandle()
        handle._interval = interval
        return self._new_timer(handle, self.time() + interval, callback, args, context)

    def _new_timer(
        self,
        handle: TimerHandle,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> TimerHandle:
        if self._on_call is not None:
            self._on_call()
        handle._callback = checked(callback)
        handle._args = args
        handle._context = copy_context() if context is None else context
        handle._timers = self
        handle._when = when
        self._stage(handle)
        return handle

    def _stage(self, handle: TimerHandle) -> None:
        """Have the next turn start a timer that has no index, due at ``handle._when``."""
        self._staged.append(handle)
        handle._index = STAGED
        if self._kick is not None:
            self._kick()

    def _submit_timers(self) -> None:
        """Put what was stopped and started since the last time into two submissions; the first frees indexes for the second."""
        if self._stopped:
            payload = array("I", self._stopped).tobytes()
            self.submissions.extend((_pack_head(len(payload), _STOP, 0, 0), payload))
            # While a batch is being dispatched, the record that says it fired may be in there, and must find nobody.
            free = self._free_timers if self._batch is None else self._limbo_timers
            free += self._stopped
            self._stopped.clear()
        handles = [handle for handle in self._staged if handle._index == STAGED]  # else it was cancelled
        self._staged.clear()
        if handles:
            timers = self._timers
            indexes = self._take_indexes(len(handles))
            for handle, index in zip(handles, indexes, strict=True):
                handle._index = index
                timers[index] = handle
            payload = array("d", [handle._when for handle in handles]).tobytes() + array("I", indexes).tobytes()
            self.submissions.extend((_pack_head(len(payload), _START, 0, 0), payload))

    def _take_indexes(self, count: int) -> list[int]:
        free = self._free_timers
        missing = count - len(free)
        if missing > 0:
            first = len(self._timers)
            self._timers += [None] * missing
            free += range(first, first + missing)
        indexes = free[-count:]
        del free[-count:]
        return indexes

    def _timers_fired(self, record: Record) -> None:
        """Call the timers that have expired in one turn, in order; flush between them as `Core._dispatch` does between events."""
        _, where, count, _ = record
        if count == 1:
            self._call_timers(iter((where,)), 2)
            return
        indexes = iter(memoryview(self.arena)[where : where + 4 * count].cast("I").tolist())
        try:
            self._call_timers(indexes, self.begin_pace())
        except BaseException:  # an interrupt: the others are due again at once
            for index in indexes:
                if (handle := self._timers[index]) is not None:
                    self._timers[index] = None
                    self._free_timers.append(index)
                    self._stage(handle)
            raise

    def _call_timers(self, indexes: Iterator[int], left: int) -> None:
        """Call timers; ``left`` of them before the first look at the pace."""
        timers, free, debug = self._timers, self._free_timers, self._debug
        for index in indexes:
            handle = timers[index]
            if handle is None:
                continue  # cancelled, paused or rescheduled by one before it
            timers[index] = None
            free.append(index)
            if type(handle) is RepeatingHandle:
                self._repeat(handle)
            else:
                handle._index = UNSET
            try:
                if debug is not None:
                    debug.timed(handle._callback, handle._run)
                elif handle._args:
                    handle._context.run(handle._callback, *handle._args)
                else:
                    handle._context.run(handle._callback)
            except Exception as error:
                self._report(error, handle)
            left -= 1
            if not left:
                left = self.keep_pace()

    def _repeat(self, handle: RepeatingHandle) -> None:
        now = self.time()
        due = handle._when + handle._interval
        handle._when = due if due > now else now + handle._interval - (now - handle._when) % handle._interval
        self._stage(handle)

    def _forget_timers(self) -> None:
        """The loop closes: no handle has a timer any more."""
        for handle in (*self._timers, *self._staged):
            if handle is not None:
                handle._index = UNSET
        self._timers.clear()
        self._stopped.clear()
        self._staged = Refusing()

    def _reschedule(self, handle: TimerHandle, delay: float) -> None:
        if not 0 <= delay < _INFINITE:
            raise _bad_seconds("delay", delay)
        if handle._callback is None:
            raise EvLoopError("the timer was cancelled")
        self._check_open()
        self._check_thread()
        if handle._index >= 0 or handle._index == STAGED:
            handle._give_back()
        handle._when = self.time() + delay
        self._stage(handle)


def _bad_seconds(name: str, value: object) -> ValueError:
    return ValueError(f"{name} must be a finite number of seconds >= 0, not {value!r}")
