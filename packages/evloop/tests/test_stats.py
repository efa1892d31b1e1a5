"""What a loop counts, and the capacities that follow the load."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from typing import Any

import pytest

import evloop._core
from evloop import READ, Loop, LoopClosedError, Stats
from evloop.testing import ManualClock, ScriptedPoller, run_until


def test_a_new_loop_has_done_nothing(loop: Loop) -> None:
    stats = loop.stats()
    assert isinstance(stats, Stats)
    sizes = {"fetch_capacity", "arena_capacity"}
    assert {
        field.name: getattr(stats, field.name) for field in dataclasses.fields(stats) if field.name not in sizes
    } == {field.name: 0 for field in dataclasses.fields(stats) if field.name not in sizes}
    assert stats.fetch_capacity == 64
    assert stats.arena_capacity > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.turns = 1  # type: ignore[misc]


def test_counters(loop: Loop, pipe: tuple[int, int]) -> None:
    clock = ManualClock(loop)
    watcher = loop.watch(pipe[0], READ, lambda fd, ready: os.read(fd, 1))
    timers = [loop.call_later(delay, int) for delay in (1, 1, 2, 1000)]
    every = loop.call_every(1, int)
    for _ in range(3):
        loop.call_soon(int)
        loop.defer(int)
        loop.call_soon_threadsafe(int)
    os.write(pipe[1], b"ab")
    loop.run_once(0)
    stats = loop.stats()
    assert (stats.turns, stats.events, stats.callbacks, stats.timers) == (1, 1, 9, 0)
    assert (stats.timers_pending, stats.watchers, stats.wakeups) == (5, 1, 0)
    clock.advance(1.5)
    stats = loop.stats()
    assert (stats.turns, stats.events, stats.callbacks, stats.timers) == (2, 2, 9, 3)
    timers[3].cancel()
    every.cancel()
    watcher.close()
    clock.advance(1)
    stats = loop.stats()
    assert (stats.events, stats.timers, stats.timers_pending, stats.watchers) == (2, 4, 0, 0)
    assert stats.longest_callback == 0
    assert stats.poll_time == 0  # no turn has waited


def test_a_cancelled_callback_counts_as_taken(loop: Loop) -> None:
    loop.call_soon(int).cancel()
    loop.run_once(0)
    assert loop.stats().callbacks == 1


def test_callbacks_after_an_interrupt_are_counted_once(loop: Loop) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    loop.call_soon(interrupt)
    for _ in range(5):
        loop.call_soon(int)
    with pytest.raises(KeyboardInterrupt):
        loop.run_once(0)
    loop.run_once(0)
    assert loop.stats().callbacks == 6


def test_time_in_poll_and_in_python(loop: Loop) -> None:
    """Each is there and not more than what has passed; how much is not for a test to say."""
    start = time.monotonic()
    ran: list[int] = []

    def work() -> None:
        time.sleep(0.002)
        ran.append(1)

    loop.run_once(0.01)  # nothing is due: it sleeps that long, whatever else the machine does
    loop.call_later(0, work)
    run_until(loop, lambda: ran)
    loop.run_once(0)
    passed = time.monotonic() - start
    stats = loop.stats()
    assert 0.009 < stats.poll_time <= passed
    assert 0.002 <= stats.longest_batch <= stats.python_time <= passed
    assert stats.poll_time + stats.python_time <= passed


def test_wake_ups_of_a_sleeping_loop(loop: Loop) -> None:
    rounds = 20
    done = threading.Event()
    running = threading.Thread(target=loop.run)
    running.start()
    for _ in range(rounds):
        done.clear()
        loop.call_soon_threadsafe(done.set)
        assert done.wait(10)
    loop.stop()
    running.join()
    assert 1 <= loop.stats().wakeups <= rounds + 1


def test_a_closed_loop_has_none(backend: str) -> None:
    loop = Loop(backend=backend)
    loop.close()
    with pytest.raises(LoopClosedError):
        loop.stats()


# -- how much one call fetches --------------------------------------------------------------------------------------------------


def test_fetch_capacity_follows_the_load() -> None:
    poller = ScriptedPoller()
    with poller.loop as loop:
        calls = 0

        def count(fd: int, ready: int) -> None:
            nonlocal calls
            calls += 1

        def serve(descriptors: range) -> None:
            before = calls
            for fd in descriptors:
                poller.ready(fd, READ)
            while calls - before < len(descriptors):
                loop.run_once(0)

        for fd in range(4200):
            loop.watch(fd, READ, count)
        seen = [64]
        for _ in range(8):
            serve(range(4200))
            if loop.stats().fetch_capacity != seen[-1]:
                seen.append(loop.stats().fetch_capacity)
        assert seen[-1] == 4096, "at most"
        assert seen == sorted(seen)
        for _ in range(200):
            serve(range(10))
        assert loop.stats().fetch_capacity == 4096, "a lull is no reason to shrink"
        for _ in range(256 * 6 + 10):
            serve(range(10))
        assert loop.stats().fetch_capacity == 64
        before = calls
        serve(range(4200))
        assert calls - before == 4200


def test_fetch_capacity_grows_with_real_descriptors(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(150)]
    called: set[int] = set()
    for r, w in pipes:
        loop.watch(r, READ, lambda fd, ready: called.add(fd))
        os.write(w, b"x")
    run_until(loop, lambda: len(called) == len(pipes))
    run_until(loop, lambda: loop.stats().fetch_capacity >= 128)
    assert loop.stats().fetch_capacity <= 256
    for watcher in list(loop._watchers.values()):
        watcher.close()
    for ends in pipes:
        for end in ends:
            os.close(end)


def test_the_records_of_a_turn_grow(loop: Loop) -> None:
    """More timers in one turn than the arena and the records had room for."""
    clock = ManualClock(loop)
    before = loop.stats().arena_capacity
    fired: list[int] = []
    for number in range(100_000):
        loop.call_later(1, fired.append, number)
    clock.advance(2)
    assert fired == list(range(100_000))
    assert loop.stats().arena_capacity > before
    loop.call_later(1, fired.append, -1)
    clock.advance(2)
    assert fired[-1] == -1


def test_the_crossing_is_made_once_per_turn(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    crossings = 0
    real = evloop._core._turn

    def turn(*args: Any) -> int:
        nonlocal crossings
        crossings += 1
        return int(real(*args))

    monkeypatch.setattr(evloop._core, "_turn", turn)
    clock = ManualClock(loop)
    for number in range(1000):
        loop.call_later(number / 100, int)
        loop.call_soon(int)
        loop.call_soon_threadsafe(int)
    clock.advance(20)
    assert crossings == 1 == loop.stats().turns
