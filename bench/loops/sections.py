"""What all workloads share: options, the clock pair, and the driver that runs a piece of work again and again in a loop."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns, process_time_ns

from adapters import Loop

WARM_SHARE = 0.2  # of the seconds of a section, before it: the interpreter adapts its code to what runs often

Figures = dict[str, float]
Done = Callable[[], object]


class Wrong(Exception):
    """The loop did not do what was asked of it; its figures mean nothing."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    seconds: float = 0.4  # of each timed section
    scale: float = 1.0  # of the sizes (timers, sockets, bytes)
    cores: tuple[int, ...] = ()  # this thread's core first; for workloads with two threads
    peer: str = ""  # HOST:PORT of the receiver (sendfile)

    def size(self, number: int, least: int = 1) -> int:
        """A size of the full benchmark, scaled."""
        return max(least, int(number * self.scale))


class Stopwatch:
    """Wall time and CPU time (of the whole process, user and kernel) of what happens between start and stop."""

    def __init__(self) -> None:
        self.wall = self.cpu = self._wall = self._cpu = 0

    def start(self) -> None:
        self._wall, self._cpu = perf_counter_ns(), process_time_ns()

    def stop(self) -> None:
        self.cpu += process_time_ns() - self._cpu
        self.wall += perf_counter_ns() - self._wall

    def figures(self, name: str, operations: int) -> Figures:
        """Operations per second by the clock on the wall and by CPU time, and CPU nanoseconds of one."""
        if not operations:
            raise Wrong(f"{name}: nothing was done in the measured time")
        cpu = max(1, self.cpu)
        return {
            f"{name}_wall": operations * 1e9 / max(1, self.wall),
            f"{name}_cpu": operations * 1e9 / cpu,
            f"{name}_ns": cpu / operations,
        }


def expect(what: str, got: object, wanted: object) -> None:
    """Compare what a loop did with what it had to do."""
    if got != wanted:
        raise Wrong(f"{what}: {got!r}, expected {wanted!r}")


def drive(loop: Loop, name: str, seconds: float, step: Callable[[Done], int]) -> tuple[Figures, int]:
    """Run ``step`` inside the loop until the time is over; return the figures and the operations of all steps.

    A step does or starts its operations, returns their number, and has ``done`` called once by the loop, after the last of them.
    The timed part begins and ends where ``done`` is called, so nothing that a loop puts off to its next turn escapes it.
    """
    watch = Stopwatch()
    counted = total = 0
    measuring = False
    end = 0.0

    def turn() -> None:
        nonlocal counted, total, measuring, end
        if perf_counter() >= end:
            if measuring:
                watch.stop()
                loop.stop()
                return
            measuring, counted = True, 0
            watch.start()
            end = perf_counter() + seconds
        number = step(turn)
        counted += number
        total += number

    gc.collect()
    end = perf_counter() + seconds * WARM_SHARE
    loop.call_soon(turn)
    loop.run()
    return watch.figures(name, counted), total


def quantiles(name: str, values: Sequence[float], unit: float = 1e-3) -> Figures:
    """p50, p99 and maximum of latencies in nanoseconds, as microseconds."""
    if not values:
        raise Wrong(f"{name}: no latency was taken")
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        f"{name}_p50": ordered[last // 2] * unit,
        f"{name}_p99": ordered[int(last * 0.99)] * unit,
        f"{name}_max": ordered[last] * unit,
    }
