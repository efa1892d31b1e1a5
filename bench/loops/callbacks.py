"""Workloads ``call_soon`` (and ``defer``) and ``threadsafe``."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import perf_counter, perf_counter_ns
from typing import Any

from adapters import Loop
from sections import Done, Figures, Options, Stopwatch, drive, expect, quantiles

CHUNK = 10_000  # callbacks scheduled at a time
CHAIN = 1_000  # times that one callback schedules itself between two looks at the clock
ORDERED = 1_000  # callbacks whose order is checked, outside of the measured time


def _check_order(loop: Loop, name: str, schedule: Callable[..., Any]) -> None:
    seen: list[int] = []
    for number in range(ORDERED):
        schedule(seen.append, number)
    schedule(loop.stop)
    loop.run()
    expect(f"{name}: order of callbacks", seen, list(range(ORDERED)))


def _scheduling(loop: Loop, options: Options, name: str, schedule: Callable[..., Any]) -> Figures:
    _check_order(loop, name, schedule)
    chunk = options.size(CHUNK)
    ran = 0

    def callback() -> None:
        nonlocal ran
        ran += 1

    def many(done: Done) -> int:
        for _ in range(chunk):
            schedule(callback)
        schedule(done)
        return chunk

    figures, total = drive(loop, f"{name}_chunk", options.seconds, many)
    expect(f"{name}: callbacks that ran", ran, total)

    links = options.size(CHAIN)
    ran = left = 0
    then: Done = loop.stop

    def again() -> None:
        nonlocal ran, left
        ran += 1
        left -= 1
        schedule(again if left else then)

    def chain(done: Done) -> int:
        nonlocal left, then
        left, then = links, done
        schedule(again)
        return links

    more, total = drive(loop, f"{name}_chain", options.seconds, chain)
    expect(f"{name}: callbacks that scheduled themselves", ran, total)
    return figures | more


def call_soon(loop: Loop, options: Options) -> Figures:
    """Schedule callbacks and run them; then the same with a function that makes no handle, if the loop has one."""
    figures = _scheduling(loop, options, "soon", loop.call_soon)
    if loop.defer is not None:
        figures |= _scheduling(loop, options, "defer", loop.defer)
    return figures


def _post(loop: Loop, options: Options, name: str, core: int | None) -> Figures:
    """Post from one other thread as fast as that goes; the time ends when the last callback has run."""
    chunk = options.size(CHUNK)
    watch = Stopwatch()
    ran = posted = 0

    def callback() -> None:
        nonlocal ran
        ran += 1

    def last() -> None:
        watch.stop()
        loop.stop()

    def poster() -> None:
        nonlocal posted
        if core is not None:
            os.sched_setaffinity(0, {core})  # of this thread
        post = loop.call_soon_threadsafe
        end = perf_counter() + options.seconds
        watch.start()
        while perf_counter() < end:
            for _ in range(chunk):
                post(callback)
            posted += chunk
        post(last)

    thread = threading.Thread(target=poster)
    loop.call_soon(thread.start)
    loop.run()
    thread.join()
    expect(f"{name}: posted callbacks that ran", ran, posted)
    return watch.figures(name, posted)


def _ping(loop: Loop, options: Options, name: str, core: int | None) -> Figures:
    """Post one, wait until it has run, post the next."""
    sent: list[int] = []
    seen: list[int] = []
    gate = threading.Lock()
    gate.acquire()

    def pong() -> None:
        seen.append(perf_counter_ns())
        gate.release()

    def poster() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})
        end = perf_counter() + options.seconds
        while perf_counter() < end:
            sent.append(perf_counter_ns())
            loop.call_soon_threadsafe(pong)
            gate.acquire()
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=poster)
    loop.call_soon(thread.start)
    loop.run()
    thread.join()
    expect(f"{name}: wake-ups", len(seen), len(sent))
    skipped = len(seen) // 10  # what comes first is slower for everybody
    return quantiles(name, [b - a for a, b in zip(sent[skipped:], seen[skipped:], strict=True)])


def threadsafe(loop: Loop, options: Options) -> Figures:
    """Callbacks from another thread: on this thread's core, and on the other core if there is one."""
    _check_order(loop, "threadsafe", loop.call_soon_threadsafe)
    figures = _post(loop, options, "post", None) | _ping(loop, options, "wake", None)
    if len(options.cores) > 1:
        other = options.cores[1]
        figures |= _post(loop, options, "post2", other) | _ping(loop, options, "wake2", other)
    return figures
