"""The timers of a loop: handles here, the wheel in C, and between them two kinds of submissions."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import Context, copy_context
from struct import Struct
from typing import Any

from evloop._callbacks import Callbacks, checked
from evloop._core import Record
from evloop._errors import EvLoopError
from evloop._handles import TimerHandle, describe

__all__ = ["Timers"]

# Submissions (evloop.h): payload length, operation | module << 8, argument, id. They are put together from parts made once,
# because packing five fields costs more than everything else that a timer does in Python.
_HEAD = Struct("<IHH")
_START, _STOP = _HEAD.pack(8, 1, 0), _HEAD.pack(0, 2, 0)
_pack_index = Struct("<Q").pack
_pack_when = Struct("<d").pack


class Timers(Callbacks):
    """The part of `evloop.Loop` that waits for times.

    A pending timer takes 48 bytes in C and about 200 in Python. Both are given back when it fires or is cancelled; the table in C
    keeps the size of the largest number of timers that were ever pending at once.
    """

    def __init__(self, *, backend: str | None = None, debug: bool | None = None) -> None:
        super().__init__(backend=backend, debug=debug)
        self._timers: list[TimerHandle | None] = []
        self._timer_ids: list[bytes] = []  # each index as it stands in a submission
        target = self.add_target(self._timer_fired)
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
        if not 0 <= delay < math.inf:
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

    def _timer_fired(self, record: Record) -> None:
        index = record[1]
        handle = self._timers[index]
        if handle is None or handle._left is not None:
            return  # cancelled or paused in this batch
        if handle._interval is None:
            self._timers[index] = None
            self._free_timers.append(index)
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

    def _start_timer(self, handle: TimerHandle) -> None:
        """Make a handle's timer due at ``handle._when``, whether it is pending or not."""
        if not self._closed:
            self.submissions.extend((_START, self._timer_ids[handle._index], _pack_when(handle._when)))

    def _stop_timer(self, handle: TimerHandle) -> None:
        if not self._closed:
            self.submissions.extend((_STOP, self._timer_ids[handle._index]))

    def _drop_timer(self, handle: TimerHandle) -> None:
        """Give a cancelled handle's timer back."""
        index = handle._index
        if index >= 0 and not self._closed:
            handle._index = -1
            self._timers[index] = None
            # Not yet free: the record that says it fired may be in this batch.
            self._limbo_timers.append(index)
            self.submissions.extend((_STOP, self._timer_ids[index]))

    def _reschedule(self, handle: TimerHandle, delay: float) -> None:
        if not 0 <= delay < math.inf:
            raise _bad_seconds("delay", delay)
        if handle._cancelled:
            raise EvLoopError(f"the timer of {describe(handle._callback)} was cancelled")
        self._check_open()
        if handle._index < 0:
            handle._index = self._free_timers.pop() if self._free_timers else self._new_index()
            self._timers[handle._index] = handle
        handle._left = None
        handle._when = self.time() + delay
        self._start_timer(handle)


def _bad_seconds(name: str, value: object) -> ValueError:
    return ValueError(f"{name} must be a finite number of seconds >= 0, not {value!r}")
