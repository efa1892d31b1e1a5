"""What a loop counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evloop._shim import ffi, lib

if TYPE_CHECKING:
    from evloop._loop import Loop

__all__ = ["Stats", "read_stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """A loop's counters since it was made, and its present size. Times are seconds.

    Attributes:
        turns: Crossings into C that waited or polled.
        events: Events that the system call delivered.
        timers: Timers that fired.
        callbacks: Callbacks of `call_soon`, `defer` and `call_soon_threadsafe` that were taken from the queue.
        wakeups: Times the loop was woken by another thread.
        poll_time: Spent waiting.
        python_time: Spent in handlers of events and timers.
        longest_batch: The longest time that the handlers of one turn took.
        longest_callback: The longest time that one callback took; measured in debug mode, else 0.
        pool_hits: Buffers taken from the pool.
        pool_misses: Buffers made because the pool was empty.
        timers_pending: Timers that wait.
        watchers: Descriptors watched for Python.
        fetch_capacity: Events that one system call may deliver at present, from 64 to 4,096.
        buffers_spare: Buffers in the pool.
        arena_capacity: Bytes of the arena.
    """

    turns: int
    events: int
    timers: int
    callbacks: int
    wakeups: int
    poll_time: float
    python_time: float
    longest_batch: float
    longest_callback: float
    pool_hits: int
    pool_misses: int
    timers_pending: int
    watchers: int
    fetch_capacity: int
    buffers_spare: int
    arena_capacity: int


def read_stats(loop: Loop) -> Stats:
    """Read a loop's counters."""
    c = ffi.new("struct ev_stats *")
    lib.ev_read_stats(loop._ptr, c)
    return Stats(
        turns=c.turns,
        events=c.events,
        timers=c.timers,
        callbacks=loop._callbacks_run,
        wakeups=c.wakeups,
        poll_time=c.poll_ns / 1e9,
        python_time=c.python_ns / 1e9,
        longest_batch=c.longest_batch_ns / 1e9,
        longest_callback=loop._debug.longest_callback if loop._debug is not None else 0.0,
        pool_hits=c.pool_hits,
        pool_misses=c.pool_misses,
        timers_pending=c.timers_pending,
        watchers=len(loop._watchers) + len(loop._directions),
        fetch_capacity=c.fetch_capacity,
        buffers_spare=c.buffers_spare,
        arena_capacity=c.arena_capacity,
    )
