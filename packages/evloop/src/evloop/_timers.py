"""The timers of a loop: handles here, the wheel in C, and between them two kinds of submissions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from itertools import islice
from operator import length_hint
from struct import Struct
from time import perf_counter_ns
from typing import Any

from evloop._callbacks import Callbacks, checked
from evloop._core import FLUSH_AFTER_NS, STRIDE, Record
from evloop._errors import EvLoopError
from evloop._handles import TimerHandle

__all__ = ["Timers"]

# Submissions (evloop.h): payload length, operation | module << 8, argument, id. They are put together from parts made once,
# because packing five fields costs more than everything else that a timer does in Python.
_START = Struct("<IHH").pack(8, 1, 0)
_pack_index = Struct("<Q").pack
_pack_when = Struct("<d").pack

_INFINITE = math.inf


class Timers(Callbacks):
    """The part of `evloop.Loop` that waits for times.

    A pending timer takes 48 bytes in C and about 200 in Python. Both are given back when it fires or is cancelled; the table in C
    keeps the size of the largest number of timers that were ever pending at once.
    """

    def __init__(self, *, backend: str | None = None, debug: bool | None = None) -> None:
        super().__init__(backend=backend, debug=debug)
        self._timers: list[TimerHandle | None] = []
        self._timer_ids: list[bytes] = []  # each index as it stands in a submission
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
        if not 0 <= delay < _INFINITE:
            raise _bad_seconds("delay", delay)
        return self._new_timer(self.time() + delay, None, callback, args, context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        """Call ``callback(*args)`` at ``when`` on the clock of `time`; at once if that has passed. Raises: as `call_later`."""
        if not -math.inf < when < math.inf:
            raise ValueError(f"when must be a finite number of seconds, not {when!r}")
        return self._new_timer(when, None, callback, args, context)

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
        if not 0 < interval < math.inf:
            raise ValueError(f"interval must be a finite number of seconds > 0, not {interval!r}")
        return self._new_timer(self.time() + interval, interval, callback, args, context)

    def _new_timer(
        self,
        when: float,
        interval: float | None,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> TimerHandle:
        if not callable(callback):
            checked(callback)
        if self._closed or self._debug is not None:
            self._check_open()
            self._check_thread()
        handle = TimerHandle()
        handle._callback = callback
        handle._args = args
        handle._context = copy_context() if context is None else context
        handle._cancelled = False
        handle._timers = self
        handle._when = when
        handle._interval = interval
        handle._left = None
        free = self._free_timers
        handle._index = index = free.pop() if free else self._new_index()
        self._timers[index] = handle
        self.submissions.extend((_START, self._timer_ids[index], _pack_when(when)))
        return handle

    def _new_index(self) -> int:
        index = len(self._timers)
        self._timers.append(None)
        self._timer_ids.append(_pack_index(index))
        return index

    def _timers_fired(self, record: Record) -> None:
        """Call the timers that have expired in one turn, in order; flush between them as `Core._dispatch` does between events."""
        _, where, count, _ = record
        if count == 1:
            self._call_timers(iter((where,)))
            return
        indexes = iter(memoryview(self.arena)[where : where + 4 * count].cast("I").tolist())
        try:
            stride = self._stride
            while length_hint(indexes):
                start = perf_counter_ns()
                self._call_timers(islice(indexes, stride or 1))
                stride = min(stride * 2 or 1, STRIDE)
                if perf_counter_ns() - start > FLUSH_AFTER_NS:
                    stride = 0
                    self.flush()
            self._stride = stride
        except BaseException:  # an interrupt: the others are due again at once
            for index in indexes:
                if (handle := self._timers[index]) is not None:
                    self._start_timer(handle)
            raise

    def _call_timers(self, indexes: Iterator[int]) -> None:
        timers, free = self._timers, self._free_timers
        for index in indexes:
            handle = timers[index]
            if handle is None:
                continue  # cancelled, paused or rescheduled by one before it
            if handle._interval is None:
                timers[index] = None
                free.append(index)
                handle._index = -1
            else:
                self._repeat(handle, handle._interval)
            try:
                if self._debug is not None:
                    self._debug.timed(handle._callback, handle._run)
                elif handle._args:
                    handle._context.run(handle._callback, *handle._args)
                else:
                    handle._context.run(handle._callback)
            except Exception as error:
                self._report(error, handle)

    def _repeat(self, handle: TimerHandle, interval: float) -> None:
        now = self.time()
        due = handle._when + interval
        handle._when = due if due > now else now + interval - (now - handle._when) % interval
        self._start_timer(handle)

    def _arm(self, handle: TimerHandle) -> None:
        """Give a handle that has none a timer, due at ``handle._when``."""
        free = self._free_timers
        handle._index = free.pop() if free else self._new_index()
        self._timers[handle._index] = handle
        self._start_timer(handle)

    def _start_timer(self, handle: TimerHandle) -> None:
        """Make a handle's timer due at ``handle._when``, whether it is pending or not."""
        self.submissions.extend((_START, self._timer_ids[handle._index], _pack_when(handle._when)))

    def _forget_timers(self) -> None:
        """The loop closes: no handle has a timer any more."""
        for handle in self._timers:
            if handle is not None:
                handle._index = -1
        self._timers.clear()

    def _reschedule(self, handle: TimerHandle, delay: float) -> None:
        if not 0 <= delay < math.inf:
            raise _bad_seconds("delay", delay)
        if handle._cancelled:
            raise EvLoopError("the timer was cancelled")
        self._check_open()
        self._check_thread()
        if handle._index >= 0:
            handle._give_back()
        handle._left = None
        handle._when = self.time() + delay
        self._arm(handle)


def _bad_seconds(name: str, value: object) -> ValueError:
    return ValueError(f"{name} must be a finite number of seconds >= 0, not {value!r}")
