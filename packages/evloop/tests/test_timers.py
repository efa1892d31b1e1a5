"""The timers of a loop, on a clock that the test moves."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from evloop import EvLoopError, Loop, LoopClosedError, TimerHandle
from evloop.testing import ManualClock, checked_loop, run_until

TICK = 0.001


@pytest.fixture
def clock(loop: Loop) -> ManualClock:
    """Begins at a full second, so that every run of a test sees the same times."""
    return ManualClock(loop, 1e6 + math.ceil(loop.time() / 1e6) * 1e6)


# -- once -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0, 1e-9, 0.0005, 0.001, 0.0123, 0.2559, 0.256, 1, 65.535, 65.536, 70.0, 20_000.0])
def test_never_early_and_at_most_a_tick_late(loop: Loop, clock: ManualClock, delay: float) -> None:
    fired: list[float] = []
    when = clock.time() + delay
    handle = loop.call_later(delay, lambda: fired.append(clock.time()))
    assert handle.when() == when
    if delay > 2 * TICK:
        clock.advance(delay - 2 * TICK)
        assert fired == []
    while not fired:
        clock.advance(TICK / 10)
        assert clock.time() < when + 3 * TICK
    assert when <= fired[0] <= when + 1.2 * TICK  # a tick, and the step of this test
    clock.advance(delay + 1)
    assert len(fired) == 1


def test_in_the_order_of_deadlines_whatever_the_order_of_calls(loop: Loop, clock: ManualClock) -> None:
    fired: list[int] = []
    delays = list(range(0, 3000, 7))
    random.Random(1).shuffle(delays)
    for delay in delays:
        loop.call_later(delay / 100, fired.append, delay)
    clock.advance(100)
    assert fired == sorted(delays)


@pytest.mark.parametrize("count", [2, 17, 1000])
def test_equal_deadlines_in_the_order_of_calls(loop: Loop, clock: ManualClock, count: int) -> None:
    fired: list[int] = []
    when = clock.time() + 70.0
    for number in range(count):
        if number == count // 2:
            clock.advance(69.9)  # the second half is put in when the first has come down from an upper level
        loop.call_at(when, fired.append, number)
    clock.advance(1)
    assert fired == list(range(count))


def test_a_time_that_has_passed_is_due_by_the_next_tick(loop: Loop, clock: ManualClock) -> None:
    fired: list[float] = []
    for when in (clock.time(), clock.time() - 100, 0.0, -1e300):
        loop.call_at(when, fired.append, when)
    clock.advance(TICK)
    assert len(fired) == 4


def test_chains_need_a_tick_each(loop: Loop, clock: ManualClock) -> None:
    fired = 0

    def again() -> None:
        nonlocal fired
        fired += 1
        loop.call_later(0, again)

    loop.call_later(0, again)
    for turns in range(1, 10):
        clock.advance(TICK)
        assert fired == turns


def test_beyond_the_horizon_of_the_wheel(loop: Loop, clock: ManualClock) -> None:
    """2^32 ticks are 49.7 days."""
    fired: list[str] = []
    day = 86400.0
    loop.call_later(60 * day, fired.append, "60 days")
    loop.call_later(49 * day, fired.append, "49 days")
    cancelled = loop.call_later(70 * day, fired.append, "cancelled")
    loop.call_later(200 * day, fired.append, "200 days")
    far = loop.call_later(1e12, fired.append, "never")
    for days, expected in ((49.01, 1), (10.9, 1), (0.2, 2), (100, 2), (50, 3)):
        clock.advance(days * day)
        assert len(fired) == expected
        cancelled.cancel()
    assert fired == ["49 days", "60 days", "200 days"]
    assert loop.stats().timers_pending == 1
    far.cancel()


# -- again and again ------------------------------------------------------------------------------------------------------------


def test_every_interval_until_it_is_cancelled(loop: Loop, clock: ManualClock) -> None:
    fired: list[float] = []
    start = clock.time()
    handle = loop.call_every(0.1, lambda: fired.append(clock.time() - start))
    for _ in range(1000):
        clock.advance(TICK)
    assert len(fired) in (9, 10)
    assert all((n + 1) * 0.1 <= at <= (n + 1) * 0.1 + 2.1 * TICK for n, at in enumerate(fired))  # it does not drift
    handle.cancel()
    count = len(fired)
    clock.advance(1)
    assert len(fired) == count


def test_a_jump_of_the_clock_fires_it_once(loop: Loop, clock: ManualClock) -> None:
    """As when the machine was suspended; then it goes on at multiples of its interval."""
    fired: list[float] = []
    start = clock.time()
    handles = [loop.call_every(interval, fired.append, interval) for interval in (0.001, 0.5, 1.0, 7.0)]
    clock.advance(3600.25)
    assert sorted(fired) == [0.001, 0.5, 1.0, 7.0]
    for handle, interval in zip(handles, (0.001, 0.5, 1.0, 7.0), strict=True):
        assert 0 < handle.when() - clock.time() <= interval * 1.001
        assert ((handle.when() - start) / interval) % 1 == pytest.approx(0, abs=0.01) or (
            ((handle.when() - start) / interval) % 1 == pytest.approx(1, abs=0.01)
        )
    fired.clear()
    clock.advance(0.2)
    assert fired == [0.001]
    clock.advance(0.06)
    assert fired.count(0.5) == 1
    for handle in handles:
        handle.cancel()


def test_a_callback_that_takes_longer_than_the_interval(loop: Loop, clock: ManualClock) -> None:
    fired: list[float] = []
    start = clock.time()

    def slow() -> None:
        fired.append(clock.time() - start)
        clock._now += 0.25  # as if it had computed so long
        if len(fired) == 1:
            handle.reschedule(0.1)  # which counts from now

    handle = loop.call_every(0.1, slow)
    clock.advance(0.102)
    assert len(fired) == 1
    assert handle.when() == pytest.approx(clock.time() + 0.1)
    clock.advance(0.102)
    assert len(fired) == 2
    handle.cancel()


@pytest.mark.parametrize("interval", [1e-300, 1e-9, 0.0004])
def test_an_interval_shorter_than_a_tick_is_a_tick(loop: Loop, clock: ManualClock, interval: float) -> None:
    fired: list[int] = []
    handle = loop.call_every(interval, fired.append, 1)
    for _ in range(10):
        clock.advance(TICK)
    assert 8 <= len(fired) <= 10
    handle.cancel()


# -- pause, resume, reschedule, cancel ------------------------------------------------------------------------------------------


def test_pause_keeps_the_time_that_was_left(loop: Loop, clock: ManualClock) -> None:
    fired: list[float] = []
    handle = loop.call_later(10, lambda: fired.append(clock.time()))
    clock.advance(4)
    handle.pause()
    handle.pause()
    assert handle.paused()
    assert handle.when() == pytest.approx(clock.time() + 6)
    clock.advance(1000)
    assert fired == []
    assert handle.when() == pytest.approx(clock.time() + 6)
    assert loop.stats().timers_pending == 0
    handle.resume()
    handle.resume()
    assert not handle.paused()
    clock.advance(5.99)
    assert fired == []
    clock.advance(0.011 + TICK)
    assert len(fired) == 1


def test_a_repeating_timer_is_paused_and_goes_on(loop: Loop, clock: ManualClock) -> None:
    fired: list[float] = []
    handle = loop.call_every(1, lambda: fired.append(clock.time()))
    clock.advance(1.5)
    handle.pause()
    clock.advance(100)
    handle.resume()
    clock.advance(0.51)
    assert len(fired) == 2
    clock.advance(1.01)
    assert len(fired) == 3
    handle.cancel()


def test_pause_from_its_own_callback(loop: Loop, clock: ManualClock) -> None:
    fired: list[int] = []

    def once_more() -> None:
        fired.append(1)
        handle.pause()

    handle = loop.call_every(1, once_more)
    clock.advance(1.5)
    clock.advance(10)
    assert len(fired) == 1
    handle.resume()
    clock.advance(1.01)
    assert len(fired) == 2
    handle.cancel()
    assert handle.cancelled()
    handle.resume()
    clock.advance(10)
    assert len(fired) == 2


def test_pausing_what_does_not_wait_does_nothing(loop: Loop, clock: ManualClock) -> None:
    fired: list[int] = []
    done = loop.call_later(0.001, fired.append, 1)
    clock.advance(1)
    cancelled = loop.call_later(1, fired.append, 2)
    cancelled.cancel()
    for handle in (done, cancelled):
        handle.pause()
        assert not handle.paused()
        handle.resume()
    clock.advance(10)
    assert fired == [1]


def test_a_paused_timer_is_cancelled(loop: Loop, clock: ManualClock) -> None:
    fired: list[int] = []
    handle = loop.call_later(1, fired.append, 1)
    handle.pause()
    handle.cancel()
    handle.resume()
    clock.advance(10)
    assert fired == []
    assert handle.cancelled()


def test_reschedule_to_sooner_later_and_again(loop: Loop, clock: ManualClock) -> None:
    fired: list[str] = []
    sooner = loop.call_later(100, fired.append, "sooner")
    later = loop.call_later(1, fired.append, "later")
    paused = loop.call_later(1, fired.append, "paused")
    paused.pause()
    sooner.reschedule(2)
    later.reschedule(3)
    paused.reschedule(4)
    assert not paused.paused()
    clock.advance(1.9)
    assert fired == []
    clock.advance(10)
    assert fired == ["sooner", "later", "paused"]
    sooner.reschedule(1)  # it has fired: it waits again
    clock.advance(1.01)
    assert fired[3:] == ["sooner"]


def test_reschedule_a_repeating_timer(loop: Loop, clock: ManualClock) -> None:
    fired: list[float] = []
    start = clock.time()
    handle = loop.call_every(1, lambda: fired.append(round(clock.time() - start)))
    handle.reschedule(5)
    clock.advance(4.9)
    assert fired == []
    clock.advance(0.102)
    clock.advance(1)
    assert fired == [5, 6]
    handle.cancel()


def test_reschedule_from_its_own_callback(loop: Loop, clock: ManualClock) -> None:
    fired: list[float] = []
    start = clock.time()

    def twice_as_late() -> None:
        fired.append(round(clock.time() - start))
        handle.reschedule(len(fired))

    handle = loop.call_later(1, twice_as_late)
    for _ in range(8):
        clock.advance(1.002)
    assert fired == [1, 2, 4, 7]
    handle.cancel()


def test_a_cancelled_timer_is_not_rescheduled(loop: Loop, clock: ManualClock) -> None:
    handle = loop.call_later(1, int)
    handle.cancel()
    with pytest.raises(EvLoopError, match="was cancelled"):
        handle.reschedule(1)
    clock.advance(2)


Act = Callable[[TimerHandle], object]


@pytest.mark.parametrize("repeating", [False, True], ids=["once", "every"])
@pytest.mark.parametrize(
    ("act", "delay"),
    [
        pytest.param(TimerHandle.cancel, None, id="cancel"),
        pytest.param(TimerHandle.pause, None, id="pause"),
        pytest.param(lambda handle: handle.reschedule(5), 5.0, id="reschedule"),
    ],
)
def test_what_is_done_to_a_timer_of_the_same_batch_holds(
    loop: Loop, clock: ManualClock, act: Act, delay: float | None, repeating: bool
) -> None:
    """C has reported all of them as expired already when the first callback does something to the others."""
    fired: list[str] = []
    victims: list[TimerHandle] = []

    def first() -> None:
        for victim in victims:
            act(victim)
        for number in range(5):  # they must not get a victim's index while its record is under way
            loop.call_later(3, fired.append, f"new {number}")

    when = clock.time() + 1
    loop.call_at(when, first)
    for number in range(3):
        handle = (
            loop.call_every(1, fired.append, f"victim {number}")
            if repeating
            else loop.call_at(when, fired.append, f"victim {number}")
        )
        victims.append(handle)
    loop.call_at(when + TICK / 2, fired.append, "last")
    clock.advance(1.1)
    assert fired == ["last"]
    clock.advance(3.01)
    assert fired == ["last", *(f"new {number}" for number in range(5))]
    fired.clear()
    clock.advance(2)
    assert fired == ([] if delay is None else [f"victim {number}" for number in range(3)])
    for victim in victims:
        victim.cancel()


@pytest.mark.parametrize("repeating", [False, True], ids=["once", "every"])
def test_pause_and_resume_in_the_same_batch_fire_it_once(loop: Loop, clock: ManualClock, repeating: bool) -> None:
    """Nothing was left of its time, so it may fire in this turn or the next, but not in both."""
    fired: list[int] = []

    def first() -> None:
        victim.pause()
        victim.resume()

    loop.call_later(1, first)
    victim = (loop.call_every if repeating else loop.call_later)(1, fired.append, 1)
    clock.advance(1.1)
    clock.advance(0.01)
    clock.advance(0.01)
    assert fired == [1]
    victim.cancel()


def test_a_timer_cancels_itself_and_starts_another(loop: Loop, clock: ManualClock) -> None:
    fired: list[str] = []

    def again() -> None:
        fired.append("every")
        handle.cancel()
        loop.call_later(1, fired.append, "other")

    handle = loop.call_every(1, again)
    clock.advance(1.1)
    clock.advance(10)
    clock.advance(10)
    assert fired == ["every", "other"]


# -- exceptions -----------------------------------------------------------------------------------------------------------------


def test_an_exception_hurts_no_other_timer(loop: Loop, clock: ManualClock) -> None:
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    fired: list[int] = []

    def fail() -> None:
        raise ValueError

    once = loop.call_later(1, fail)
    loop.call_later(1, fired.append, 1)
    every = loop.call_every(1, fail)
    loop.call_later(1, fired.append, 2)
    clock.advance(1.1)
    assert fired == [1, 2]
    clock.advance(1)
    assert [report["handle"] for report in reports] == [once, every, every]
    assert all(f"fail at {__file__}" in report["message"] for report in reports)
    every.cancel()


@pytest.mark.parametrize("count", [2, 100])
def test_an_interrupt_in_the_middle_of_a_batch(loop: Loop, clock: ManualClock, count: int) -> None:
    fired: list[int] = []
    handles: list[TimerHandle] = []

    def interrupt() -> None:
        handles[0].cancel()
        handles[1].pause()
        handles[2].reschedule(50)
        raise KeyboardInterrupt

    loop.call_later(1, interrupt)
    handles += [loop.call_later(1, fired.append, number) for number in range(count + 3)]
    with pytest.raises(KeyboardInterrupt):
        clock.advance(2)
    clock.advance(2)
    assert fired == list(range(3, count + 3))
    clock.advance(50)
    assert fired == [*range(3, count + 3), 2]


# -- what they cost -------------------------------------------------------------------------------------------------------------


def test_cancelled_timers_are_given_back(loop: Loop, clock: ManualClock) -> None:
    """A hundred thousand of them, never more than ten at once: the tables stay at that."""
    for _ in range(10_000):
        handles = [loop.call_later(1000, int) for _ in range(10)]
        for handle in handles:
            handle.cancel()
        clock.advance(0)
    assert len(loop._timers) <= 20
    assert loop.stats().timers_pending == 0


def test_a_cancelled_timer_is_given_back_at_once(loop: Loop, clock: ManualClock) -> None:
    """Also without a turn in between, where no record of it can be under way."""
    for _ in range(10_000):
        loop.call_later(1000, int).cancel()
    assert not loop._timers
    assert not loop._staged
    fired: list[int] = []
    loop.call_later(1, fired.append, 1)
    clock.advance(2)
    assert fired == [1]
    assert len(loop._timers) == 1


def test_timers_that_have_fired_are_given_back(loop: Loop, clock: ManualClock) -> None:
    fired: list[int] = []
    for number in range(2000):
        loop.call_later(0.001, fired.append, number)
        loop.call_later(0.001, fired.append, number)
        clock.advance(0.002)
    assert fired == [number for number in range(2000) for _ in range(2)]
    assert len(loop._timers) <= 4


def test_paused_and_rescheduled_timers_take_no_more_than_they_need(loop: Loop, clock: ManualClock) -> None:
    handles = [loop.call_later(1000, int) for _ in range(10)]
    for _ in range(1000):
        for handle in handles:
            handle.pause()
            handle.resume()
            handle.reschedule(500)
        clock.advance(0)
    assert len(loop._timers) <= 50
    assert loop.stats().timers_pending == 10


def test_a_hundred_thousand_timers(loop: Loop, clock: ManualClock) -> None:
    """Random deadlines over five minutes, a third of them cancelled: each that is left fires once, within its tick, in order."""
    dice = random.Random(7)
    fired: list[float] = []
    expected: list[float] = []
    for _ in range(100_000):
        delay = dice.uniform(0, 300)
        handle = loop.call_later(delay, fired.append, delay)
        if dice.random() < 1 / 3:
            handle.cancel()
        else:
            expected.append(delay)
    start = clock.time()
    for _ in range(600):
        before = len(fired)
        clock.advance(0.501)
        elapsed = clock.time() - start
        assert all(elapsed - 0.501 - 2 * TICK <= delay <= elapsed for delay in fired[before:])
    assert sorted(expected) == sorted(fired)
    ticks = [math.ceil((start + delay) * 1000) for delay in fired]
    assert ticks == sorted(ticks)
    assert loop.stats().timers_pending == 0


def test_random_use_against_a_plain_model(loop: Loop, clock: ManualClock) -> None:
    """Cancel, pause, resume and reschedule at random, from outside and from callbacks; the model is a dict of deadlines."""
    dice = random.Random(3)
    handles: dict[int, TimerHandle] = {}
    due: dict[int, float] = {}
    left: dict[int, float] = {}
    fired: list[int] = []
    numbers = iter(range(10**9))

    def fire(number: int) -> None:
        fired.append(number)
        when = due.pop(number)
        assert when - 1e-9 <= clock.time() <= when + step + 3 * TICK
        if acting and dice.random() < 0.5:
            act()

    def start() -> None:
        number = next(numbers)
        delay = dice.choice((0.0, 0.01, 0.01, dice.uniform(0, 5)))
        handles[number] = loop.call_later(delay, fire, number)
        due[number] = clock.time() + delay

    def act() -> None:
        if not handles or dice.random() < 0.4:
            start()
            return
        number = dice.choice(list(handles))
        handle = handles[number]
        match dice.randrange(4):
            case 0:
                handle.cancel()
                due.pop(number, None)
                left.pop(number, None)
                del handles[number]
            case 1:
                if number in due:
                    left[number] = max(due.pop(number) - clock.time(), 0.0)
                handle.pause()
            case 2:
                if number in left:
                    due[number] = clock.time() + left.pop(number)
                handle.resume()
            case 3:
                delay = dice.uniform(0, 2)
                handle.reschedule(delay)
                left.pop(number, None)
                due[number] = clock.time() + delay

    acting, step = True, 0.0
    for _ in range(3000):
        act()
        step = dice.choice((0.0, TICK, 0.01, 0.3))
        clock.advance(step)
        late = [number for number, when in due.items() if when + 2 * TICK < clock.time() - step]
        assert not late
        assert all(handle.paused() == (number in left) for number, handle in handles.items())
    acting = False
    step = 10.0
    clock.advance(step)
    assert not due
    assert len(fired) > 1000


# -- bad arguments and the end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, -1e-9, math.nan, math.inf, -math.inf])
def test_delays_and_intervals_that_are_none(loop: Loop, bad: float) -> None:
    handle = loop.call_later(100, int)
    for use in (loop.call_later, loop.call_every):
        with pytest.raises(ValueError, match=r"must be a finite number of seconds >=? 0, not"):
            use(bad, int)
    with pytest.raises(ValueError, match="finite"):
        handle.reschedule(bad)
    with pytest.raises(ValueError, match="finite"):
        loop.call_every(0, int)
    loop.run_once(0)
    assert loop.stats().timers_pending == 1


def test_arguments_of_other_kinds(loop: Loop) -> None:
    bad: Any = "1"
    uses: list[Callable[[], object]] = [
        lambda: loop.call_later(bad, int),
        lambda: loop.call_at(bad, int),
        lambda: loop.call_every(bad, int),
        lambda: loop.call_later(1, bad),
        lambda: loop.call_at(1, bad),
        lambda: loop.call_every(1, bad),
    ]
    for use in uses:
        with pytest.raises(TypeError):
            use()
    loop.run_once(0)
    assert loop.stats().timers_pending == 0
    assert not loop._timers or loop._timers == [None]


def test_handles_outlive_the_loop(backend: str) -> None:
    with checked_loop(backend) as loop:
        pending, every, paused = loop.call_later(1, int), loop.call_every(1, int), loop.call_later(1, int)
        fired = loop.call_later(0, int)
        paused.pause()
        run_until(loop, lambda: loop.stats().timers)
    for handle in (pending, every, paused, fired):
        handle.pause()
        handle.resume()
        with pytest.raises(LoopClosedError):
            handle.reschedule(1)
        handle.cancel()
        handle.cancel()
    with pytest.raises(LoopClosedError):
        loop.call_every(1, int)


def test_on_the_system_s_clock(loop: Loop) -> None:
    """No manual clock: the loop sleeps until its timers are due."""
    fired: list[float] = []
    every = loop.call_every(0.002, lambda: fired.append(loop.time()))
    once = loop.call_later(0.005, int)
    once.pause()
    run_until(loop, lambda: len(fired) >= 5)
    every.cancel()
    assert fired == sorted(fired)
    assert once.paused()
