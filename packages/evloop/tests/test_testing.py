"""What evloop offers to tests: the clock, the scripted poller, the loop that looks for leaks."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable

import pytest

from evloop import READ, WRITE, Loop, LoopClosedError
from evloop.testing import ManualClock, ScriptedPoller, backends, checked_loop, open_descriptors, run_until

# -- the clock ------------------------------------------------------------------------------------------------------------------


def test_the_clock_stands_until_it_is_moved(loop: Loop) -> None:
    before = loop.time()
    clock = ManualClock(loop)
    assert before < clock.time() == loop.time() == clock.time()
    fired: list[float] = []
    loop.call_later(10, lambda: fired.append(loop.time()))
    for _ in range(3):
        loop.run_once(1000)  # does not sleep
        loop.run_once(None)
    assert fired == []
    clock.advance(9.99)
    assert fired == []
    clock.advance(0.02)
    assert fired == [clock.time()]


def test_a_clock_of_one_s_own_choice(loop: Loop) -> None:
    now = math.ceil(loop.time()) + 500.0
    clock = ManualClock(loop, now)
    assert loop.time() == now
    fired: list[int] = []
    loop.call_at(now + 1, fired.append, 1)
    clock.advance(1)
    assert fired == [1]
    with pytest.raises(ValueError, match="cannot go back"):
        ManualClock(loop, now - 1)


@pytest.mark.parametrize("seconds", [-1, -1e-9, math.nan])
def test_clocks_do_not_go_back(loop: Loop, seconds: float) -> None:
    clock = ManualClock(loop)
    now = clock.time()
    with pytest.raises(ValueError, match="cannot be moved"):
        clock.advance(seconds)
    assert clock.time() == now


def test_advance_runs_what_callbacks_add(loop: Loop) -> None:
    clock = ManualClock(loop)
    order: list[str] = []
    loop.call_later(1, lambda: loop.call_soon(lambda: loop.call_soon(order.append, "third")))
    loop.call_soon_threadsafe(order.append, "posted")
    clock.advance(1.01)
    assert order == ["posted", "third"]


def test_run_until_a_timer_stops_the_loop(loop: Loop) -> None:
    """`run` on a clock that stands would turn for ever: another callback moves it."""
    clock = ManualClock(loop)
    loop.call_later(60, loop.stop)

    def move() -> None:
        clock._now += 1
        clock._set()

    loop.on_idle(move)
    loop.run()
    assert clock.time() > 60


def test_the_clock_of_a_closed_loop(backend: str) -> None:
    loop = Loop(backend=backend)
    clock = ManualClock(loop)
    loop.close()
    uses: list[Callable[[], object]] = [lambda: clock.advance(1), lambda: ManualClock(loop)]
    for use in uses:
        with pytest.raises(LoopClosedError):
            use()


# -- the scripted poller --------------------------------------------------------------------------------------------------------


def test_descriptors_are_ready_when_the_script_says_so() -> None:
    poller = ScriptedPoller()
    with poller.loop as loop:
        calls: list[tuple[int, int]] = []
        for fd in (1000, 7, 123_456):
            loop.watch(fd, READ | WRITE, lambda fd, ready: calls.append((fd, ready)))
        loop.run_once(None)
        assert calls == []
        poller.ready(7, READ)
        poller.ready(1000, WRITE)
        poller.ready(7, WRITE)
        loop.run_once(None)
        assert calls == [(1000, WRITE), (7, READ | WRITE)]  # in the order in which they are watched
        loop.run_once(None)
        assert len(calls) == 2


def test_what_nobody_waits_for_is_not_kept() -> None:
    poller = ScriptedPoller()
    with poller.loop as loop:
        calls: list[int] = []
        watcher = loop.watch(5, WRITE, lambda fd, ready: calls.append(ready))
        poller.ready(5, READ)
        loop.run_once(0)
        watcher.modify(READ)
        loop.run_once(0)
        assert calls == []
        poller.ready(5, READ)
        loop.run_once(0)
        assert calls == [READ]


def test_readers_on_a_script() -> None:
    poller = ScriptedPoller()
    with poller.loop as loop:
        calls: list[str] = []
        loop.add_reader(5, calls.append, "r")
        loop.add_writer(5, calls.append, "w")
        poller.ready(5, READ | WRITE)
        loop.run_once(0)
        assert calls == ["r", "w"]
        loop.remove_reader(5)
        poller.ready(5, READ | WRITE)
        loop.run_once(0)
        assert calls == ["r", "w", "w"]


def test_the_script_knows_only_what_is_watched() -> None:
    poller = ScriptedPoller()
    with poller.loop as loop:
        with pytest.raises(FileNotFoundError, match="script fd 5"):
            poller.ready(5, READ)
        loop.watch(5, READ, print).close()
        with pytest.raises(FileNotFoundError):
            poller.ready(5, READ)
        loop.watch(6, READ, print)
        with pytest.raises(FileExistsError):
            loop.watch(6, READ, print)
        with pytest.raises(OSError, match="watch fd -1"):
            loop.watch(-1, READ, print)
    with pytest.raises(LoopClosedError):
        poller.ready(6, READ)


def test_more_than_one_turn_takes_in_script_order() -> None:
    poller = ScriptedPoller()
    with poller.loop as loop:
        calls: list[int] = []
        watchers = {fd: loop.watch(fd, READ, lambda fd, ready: calls.append(fd)) for fd in range(500)}
        for fd in reversed(range(500)):
            poller.ready(fd, READ)
        watchers[450].close()
        loop.run_once(0)
        assert calls == list(range(64))
        watchers[100].close()
        run_until(loop, lambda: len(calls) == 498)
        assert calls == [fd for fd in range(500) if fd not in (100, 450)]


def test_time_and_readiness_by_script() -> None:
    poller = ScriptedPoller()
    with poller.loop as loop:
        clock = ManualClock(loop)
        order: list[str] = []
        loop.watch(3, READ, lambda fd, ready: order.append("ready"))
        loop.call_later(1, order.append, "timer")
        poller.ready(3, READ)
        clock.advance(2)
        assert order == ["ready", "timer"]


def test_the_scripted_backend_is_not_offered() -> None:
    assert "scripted" not in backends()
    with ScriptedPoller().loop as loop:
        assert loop.backend == "scripted"


# -- leaks ----------------------------------------------------------------------------------------------------------------------


def test_checked_loop_finds_a_descriptor_left_open(backend: str) -> None:
    ends: list[int] = []

    def leave_open() -> None:
        with checked_loop(backend):
            ends.extend(os.pipe())

    with pytest.raises(AssertionError, match=r"descriptors left open: .*pipe"):
        leave_open()
    for end in ends:
        os.close(end)


def test_checked_loop_finds_an_exception_nobody_expected(backend: str) -> None:
    def fail() -> None:
        with checked_loop(backend) as loop:
            loop.call_soon(lambda: 1 / 0)
            loop.run_once(0)

    with pytest.raises(AssertionError, match="exceptions in callbacks") as caught:
        fail()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_checked_loop_lets_the_test_s_own_failure_through(backend: str) -> None:
    def fail() -> None:
        with checked_loop(backend) as loop:
            loop.call_soon(lambda: 1 / 0)
            raise KeyError("the test's")

    with pytest.raises(KeyError, match="the test's"):
        fail()


def test_open_descriptors() -> None:
    before = open_descriptors()
    assert {0, 1, 2} & before
    r, w = os.pipe()
    assert open_descriptors() - before == {r, w}
    os.close(r)
    os.close(w)
    assert open_descriptors() == before


def test_run_until_gives_up(loop: Loop) -> None:
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s in vain"):
        run_until(loop, lambda: False, patience=0.01)
    ran = threading.Event()
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(ran.set,))
    thread.start()
    run_until(loop, ran.is_set)
    thread.join()
