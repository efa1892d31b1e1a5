"""A timer wheel for use without a loop."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from evloop._callbacks import checked
from evloop._errors import EvLoopError
from evloop._shim import ffi, lib

__all__ = ["TimerWheel", "WheelTimer"]

_NEVER = 0xFFFF_FFFF_FFFF_FFFF
_BROKEN = {
    1: "the map of occupied slots is wrong",
    2: "a list is broken",
    3: "a timer that is due was left behind",
    4: "a timer lies in the wrong slot",
    5: "a timer within reach lies beyond the horizon",
    6: "the count is wrong",
}


class WheelTimer:
    """A timer of a `TimerWheel`."""

    __slots__ = ("_args", "_armed", "_callback", "_index", "_wheel", "interval", "when")

    def __init__(
        self,
        wheel: TimerWheel,
        when: float,
        interval: float | None,
        callback: Callable[..., object],
        args: tuple[Any, ...],
    ) -> None:
        self._wheel = wheel
        self.when: float = when
        self.interval: float | None = interval
        self._callback = callback
        self._args = args
        self._index = -1
        self._armed = 0  # changes whenever it is inserted or given back

    @property
    def pending(self) -> bool:
        """Whether it waits."""
        return self._index >= 0

    def cancel(self) -> None:
        """Do not call the callback. Calling this again, or too late, does nothing."""
        if self._index >= 0:
            self._wheel._cancel(self)

    def reschedule(self, when: float) -> None:
        """Make it due at ``when`` instead, whether it is pending or not."""
        self._wheel._insert(self, when)


class TimerWheel:
    """Timers at O(1) each, four levels of 256 slots, with a clock that the caller supplies.

    Args:
        now: The time at which the wheel begins, in seconds on any clock that does not go back.
        tick: The resolution in seconds. A timer fires at the first `advance` that reaches the end of its tick: never early, at
            most a tick late. Delays of more than 2^32 ticks work; they lie on a list that is looked at every 2^32 ticks.

    A pending timer takes 48 bytes in C and about 120 in Python, plus what it calls. Not thread-safe.
    """

    def __init__(self, now: float = 0.0, *, tick: float = 0.001) -> None:
        if not 0 < tick < math.inf:
            raise ValueError(f"tick must be a finite number of seconds > 0, not {tick!r}")
        self._per_second = 1 / tick
        self._tick = tick
        ptr = lib.ev_pywheel_new(self._ticks_before(now))
        if ptr == ffi.NULL:
            raise MemoryError("no memory for a timer wheel")
        self._ptr = ffi.gc(ptr, lib.ev_pywheel_free)
        self._fired = ffi.new("uint32_t **")
        self._timers: list[WheelTimer | None] = []
        self._free: list[int] = []
        self._due: deque[tuple[WheelTimer, int]] = deque()  # of one tick, not yet called

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> WheelTimer:
        """Call ``callback(*args)`` when `advance` reaches ``when``. Timers of the same tick fire in order of insertion."""
        timer = WheelTimer(self, when, None, checked(callback), args)
        self._insert(timer, when)
        return timer

    def call_every(self, interval: float, first: float, callback: Callable[..., object], *args: Any) -> WheelTimer:
        """Call ``callback(*args)`` at ``first`` and every ``interval`` seconds after that.

        When `advance` jumps over several of these times, it is called once.
        """
        if not 0 < interval < math.inf:
            raise ValueError(f"interval must be a finite number of seconds > 0, not {interval!r}")
        timer = WheelTimer(self, first, interval, checked(callback), args)
        self._insert(timer, first)
        return timer

    def advance(self, now: float) -> int:
        """Call what is due at ``now``, in order of due tick, and return how many were called.

        A callback may insert and cancel timers, also those that are due with it. An exception ends the call; those not yet called
        stay due and are called by the next `advance`. A time before the last one does nothing.
        """
        called = 0
        target = self._ticks_before(now)
        while self._due or self._step(target):
            timer, armed = self._due.popleft()
            if timer._armed != armed:
                continue  # cancelled or rescheduled by one that fired before it
            self._settle(timer, now)
            called += 1
            timer._callback(*timer._args)
        return called

    def _step(self, target: int) -> bool:
        """Go on to the next tick at which timers are due, at most to ``target``; whether there is one."""
        count = lib.ev_pywheel_step(self._ptr, target, self._fired)
        for index in ffi.unpack(self._fired[0], count) if count else ():
            timer = self._timers[index]
            assert timer is not None, "an index without a timer is not in the wheel"
            self._due.append((timer, timer._armed))
        return bool(count)

    def next(self) -> float | None:
        """A time before which `advance` has nothing to do, not far from the next timer's; ``None`` when there is none."""
        if self._due:
            return min(timer.when for timer, _ in self._due)
        tick = lib.ev_pywheel_next(self._ptr)
        return None if tick == _NEVER else tick * self._tick

    def __len__(self) -> int:
        return len(self._timers) - len(self._free)

    def check(self) -> None:
        """Check the invariants of the wheel, in O(slots + timers); for tests.

        Raises:
            EvLoopError: One is broken, which is a bug of this package.
        """
        rule = lib.ev_pywheel_check(self._ptr)
        if rule:
            raise EvLoopError(f"timer wheel: {_BROKEN[rule]}")

    def _ticks_at(self, seconds: float) -> int:
        """The tick that ends at or after a time."""
        if not -math.inf < seconds < math.inf:
            raise ValueError(f"a time must be a finite number of seconds, not {seconds!r}")
        return min(max(math.ceil(seconds * self._per_second - 1e-9), 0), 1 << 62)

    def _ticks_before(self, seconds: float) -> int:
        """The last tick that has ended at a time."""
        if not -math.inf < seconds < math.inf:
            raise ValueError(f"a time must be a finite number of seconds, not {seconds!r}")
        return min(max(math.floor(seconds * self._per_second + 1e-9), 0), 1 << 62)

    def _insert(self, timer: WheelTimer, when: float) -> None:
        due = self._ticks_at(when)
        if timer._index < 0:
            timer._index = self._free.pop() if self._free else self._new_index()
        if lib.ev_pywheel_insert(self._ptr, timer._index, due) < 0:
            self._release(timer)
            raise MemoryError("no memory for a timer")
        self._timers[timer._index] = timer
        timer.when = when
        timer._armed += 1

    def _cancel(self, timer: WheelTimer) -> None:
        lib.ev_pywheel_cancel(self._ptr, timer._index)
        self._release(timer)

    def _settle(self, timer: WheelTimer, now: float) -> None:
        """Before its callback: give a timer back, or make it due again."""
        if timer.interval is None:
            self._release(timer)
        else:
            due = timer.when + timer.interval
            if due <= now:
                due = now + timer.interval - (now - timer.when) % timer.interval
            self._insert(timer, due)

    def _release(self, timer: WheelTimer) -> None:
        self._timers[timer._index] = None
        self._free.append(timer._index)
        timer._index = -1
        timer._armed += 1

    def _new_index(self) -> int:
        self._timers.append(None)
        return len(self._timers) - 1
