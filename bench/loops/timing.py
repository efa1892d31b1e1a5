"""Workloads ``timers`` (insert and cancel) and ``fire``."""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Callable
from typing import Any

from adapters import Loop
from sections import Done, Figures, Options, Stopwatch, Wrong, drive, expect, quantiles

FEW, MANY = 1_000, 1_000_000  # pending while others are inserted and cancelled
PAIRS = 1_000  # inserted, and then cancelled, between two turns of the loop
SHORTEST, LONGEST = 60.0, 3600.0
INSERTED = 10_000  # per turn while the pending ones are set up
LEAD = 0.01  # seconds before the first deadline at which the measured time of `fire` begins
LONGEST_MARGIN = 60
TICK = 0.001
SAMPLE = 1_000  # every so many timers, one looks how late it is


def in_chunks(loop: Loop, number: int, insert: Callable[[int], object]) -> None:
    """Call ``insert(0)`` to ``insert(number - 1)`` inside the loop with a turn after every chunk."""
    begun = 0

    def chunk() -> None:
        nonlocal begun
        end = min(number, begun + INSERTED)
        for index in range(begun, end):
            insert(index)
        begun = end
        loop.call_soon(chunk if begun < number else loop.stop)

    loop.call_soon(chunk)
    loop.run()
    # A last turn: what the last chunk left for later is done before anything is measured.
    loop.call_soon(loop.stop)
    loop.run()


def timers(loop: Loop, options: Options) -> Figures:
    """Insert and cancel timers with few and with many others pending."""
    chance = random.Random(1)
    pending: list[Any] = []
    fired = 0

    def callback() -> None:
        nonlocal fired
        fired += 1

    def fill(number: int) -> None:
        delays = [chance.uniform(SHORTEST, LONGEST) for _ in range(number - len(pending))]
        in_chunks(loop, len(delays), lambda index: pending.append(loop.call_later(delays[index], callback)))
        gc.collect()

    delays = [chance.uniform(SHORTEST, LONGEST) for _ in range(PAIRS)]

    def pairs(done: Done) -> int:
        """Insert some, let the loop turn, cancel them: both really happen, whatever a loop puts off to its turn."""
        call_later = loop.call_later
        handles = [call_later(delay, callback) for delay in delays]

        def cancel() -> None:
            for handle in handles:
                handle.cancel()
            loop.call_soon(done)

        loop.call_soon(cancel)
        return PAIRS

    def at_once(done: Done) -> int:
        """Cancel each before the loop has turned: a timeout around something that did not have to wait."""
        call_later = loop.call_later
        for delay in delays:
            call_later(delay, callback).cancel()
        loop.call_soon(done)
        return PAIRS

    figures: Figures = {}
    for name, number in (("few", FEW), ("many", MANY)):
        fill(options.size(number, least=10))
        figures |= drive(loop, name, options.seconds, pairs)[0]
        figures |= drive(loop, f"{name}_once", options.seconds / 2, at_once)[0]
    figures["growth"] = figures["many_ns"] / figures["few_ns"]
    figures["pending"] = len(pending)
    expect("timers that fired although they were cancelled or not due", fired, 0)
    expect("timers that are still pending", sum(handle.cancelled() for handle in pending), 0)
    return figures


def _insertion_cost(loop: Loop, number: int) -> float:
    """Seconds that one insertion takes, about."""
    begun = time.perf_counter()
    handles: list[Any] = []
    in_chunks(loop, number, lambda _: handles.append(loop.call_later(3600, print)))
    spent = time.perf_counter() - begun
    for handle in handles:
        handle.cancel()
    return spent / number


class _TooLate(Exception):
    """Setting the timers took longer than the time until the first was due; says how long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"setting the timers took {seconds:.1f} s")
        self.seconds = seconds


def _fire(loop: Loop, name: str, number: int, within: float, margin: float, *, overdue: bool) -> Figures:
    """Fire timers spread over ``within`` seconds that were all set before.

    Args:
        loop: The loop.
        name: Of the figures.
        number: Of timers.
        within: Seconds from the first deadline to the last.
        margin: Seconds until the first deadline.
        overdue: Whether the loop is held up until the last of them is due, so that it finds all of them at once.

    Raises:
        _TooLate: The first was due before all were set. They have all fired.
    """
    watch = Stopwatch()
    fired = 0
    late: list[float] = []
    order: list[float] = []
    start = loop.time() + margin
    step = within / number

    def callback() -> None:
        nonlocal fired
        fired += 1
        if fired == number:
            watch.stop()
            loop.stop()

    def sampled(when: float) -> None:
        late.append((loop.time() - when) * 1e9)
        order.append(when)
        callback()

    # Set in no order of deadlines: the multiplier is a prime, and greater than any number of timers here.
    def insert(index: int) -> None:
        when = start + (index * 7_368_787 % number) * step
        if index % SAMPLE:
            loop.call_at(when, callback)
        else:
            loop.call_at(when, sampled, when)

    def begin() -> None:
        if overdue:
            time.sleep(LEAD + within + 0.01)
        watch.start()

    loop.call_at(start - LEAD, begin)
    in_chunks(loop, number, insert)
    gc.collect()
    spare = start - LEAD - loop.time()
    if fired < number:
        loop.run()
    if spare < 0:
        raise _TooLate(margin - spare)
    expect(f"{name}: timers that fired", fired, number)
    # Loops that count in milliseconds may exchange two deadlines of the same one.
    if any(b < a - TICK for a, b in itertools.pairwise(order)):
        raise Wrong(f"{name}: a timer fired before one that was due more than a millisecond earlier")
    if min(late) < -TICK * 1e9:
        raise Wrong(f"{name}: a timer fired {-min(late) / 1e6:.1f} ms too early")
    return watch.figures(name, number) | quantiles(f"{name}_late", late)


def fire(loop: Loop, options: Options) -> Figures:
    """Fire a million timers within one second, and a tenth as many that are all overdue."""
    figures: Figures = {}
    margin_each = _insertion_cost(loop, options.size(20_000, least=SAMPLE)) * 2.5
    for name, share, overdue in (("spread", 1, False), ("overdue", 10, True)):
        number = options.size(MANY // share, least=SAMPLE)
        within = min(1.0, options.scale) / share
        margin = 0.2 + number * margin_each
        while True:
            try:
                figures |= _fire(loop, name, number, within, margin, overdue=overdue)
                break
            except _TooLate as late:  # timers that fired meanwhile are in its time, so that it is enough now
                margin = max(margin, late.seconds) * 1.2
            if margin > LONGEST_MARGIN:
                raise Wrong(f"{name}: setting {number:,} timers takes longer than {LONGEST_MARGIN} s")
        margin_each = margin / number
    return figures
