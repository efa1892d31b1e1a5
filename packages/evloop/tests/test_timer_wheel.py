"""`TimerWheel`: timers without a loop."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evloop import TimerWheel, WheelTimer

EXACT = 1 / 1024  # a tick for which no time is rounded


# -- against a heap -------------------------------------------------------------------------------------------------------------


class Model:
    """A wheel and, beside it, a heap of (tick, order of insertion, name): the two must always agree."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.wheel = TimerWheel(now * EXACT, tick=EXACT)
        self.heap: list[tuple[int, int, int]] = []
        self.pending: dict[int, tuple[int, int, int]] = {}
        self.timers: dict[int, WheelTimer] = {}
        self.fired: list[int] = []
        self.sequence = 0

    def put(self, name: int, due: int) -> None:
        """A tick that has passed counts as the one after the last that was fired."""
        self.sequence += 1
        entry = (max(due, self.now + 1), self.sequence, name)
        self.pending[name] = entry
        heapq.heappush(self.heap, entry)

    def insert(self, delay: int) -> None:
        name = len(self.timers)
        due = self.now + delay
        self.timers[name] = self.wheel.call_at(due * EXACT, self.fired.append, name)
        self.put(name, due)

    def cancel(self, name: int) -> None:
        self.timers[name].cancel()
        self.pending.pop(name, None)

    def reschedule(self, name: int, delay: int) -> None:
        self.timers[name].reschedule((self.now + delay) * EXACT)
        self.put(name, self.now + delay)

    def advance(self, by: int) -> None:
        target = self.now + by
        expected: list[int] = []
        while self.heap and self.heap[0][0] <= target:
            entry = heapq.heappop(self.heap)
            if self.pending.get(entry[2]) == entry:
                del self.pending[entry[2]]
                expected.append(entry[2])
        self.now = target
        self.fired.clear()
        assert self.wheel.advance(target * EXACT) == len(expected)
        assert self.fired == expected

    def check(self) -> None:
        self.wheel.check()
        assert len(self.wheel) == len(self.pending)
        assert all(timer.pending == (name in self.pending) for name, timer in self.timers.items())
        following = self.wheel.next()
        if self.pending:
            assert following is not None
            assert self.now * EXACT < following <= min(self.pending.values())[0] * EXACT
        else:
            assert following is None


DELAYS = st.one_of(
    st.integers(-3, 600),
    st.integers(0, 1 << 17),
    st.sampled_from([(1 << bits) + step for bits in (8, 16, 24, 32, 33, 40) for step in (-1, 0, 1)]),
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 0), DELAYS),
        st.tuples(st.just("cancel"), st.integers(0, 1 << 20), st.just(0)),
        st.tuples(st.just("reschedule"), st.integers(0, 1 << 20), DELAYS),
        st.tuples(st.just("advance"), st.integers(0, 0), DELAYS.map(abs)),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=150)
@given(start=st.one_of(st.integers(0, 1 << 41), st.sampled_from([255, 65535, (1 << 32) - 1])), operations=OPERATIONS)
def test_random_operations_against_a_heap(start: int, operations: list[tuple[str, int, int]]) -> None:
    model = Model(start)
    for name, which, delay in operations:
        if name == "insert":
            model.insert(delay)
        elif name == "advance":
            model.advance(delay)
        elif not model.timers:
            continue
        elif name == "cancel":
            model.cancel(which % len(model.timers))
        else:
            model.reschedule(which % len(model.timers), delay)
        model.check()
    model.advance(1 << 43)
    model.check()
    assert len(model.wheel) == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_long_random_life(seed: int) -> None:
    dice = random.Random(seed)
    model = Model(dice.randrange(1 << 20))
    for _ in range(2000):
        match dice.randrange(8):
            case 0 | 1 | 2:
                model.insert(int(dice.lognormvariate(5, 3)))
            case 3 if model.pending:
                model.cancel(dice.choice(list(model.pending)))
            case 4 if model.pending:
                model.reschedule(dice.choice(list(model.pending)), int(dice.lognormvariate(5, 3)))
            case _:
                model.advance(int(dice.lognormvariate(2, 2)))
        model.check()


# -- time -----------------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    tick=st.sampled_from([0.001, 0.01, 0.25, 1.0, 1 / 3]),
    start=st.floats(0, 1e7),
    delays=st.lists(st.floats(0, 1000), max_size=30),
    steps=st.lists(st.floats(0, 100), max_size=30),
)
def test_never_early_and_at_most_a_tick_late(
    tick: float, start: float, delays: list[float], steps: list[float]
) -> None:
    now = start
    wheel = TimerWheel(start, tick=tick)
    waiting = dict(enumerate(start + delay for delay in delays))
    fired: list[float] = []

    def fire(number: int) -> None:
        fired.append(waiting.pop(number))

    for number, when in waiting.items():
        wheel.call_at(when, fire, number)
    rounding = 1e-8 * tick + math.ulp(start + 2000) * 2
    for step in [*steps, 1000 + 2 * tick]:
        fired.clear()
        now += step
        wheel.advance(now)
        wheel.check()
        assert all(when <= now + rounding for when in fired)
        assert all(when > now - tick - rounding for when in waiting.values())
    assert not waiting


def test_a_wheel_that_begins_in_the_middle_of_a_tick() -> None:
    wheel = TimerWheel(1.5, tick=1)
    wheel.call_at(1.5, int)
    assert wheel.advance(2) == 1


def test_equal_times_in_the_order_of_insertion() -> None:
    wheel = TimerWheel(0, tick=1)
    order: list[int] = []
    for number in range(300):
        if number % 100 == 50:
            wheel.advance(number * 650)  # some are on upper levels still, others go straight to the lowest
        wheel.call_at(200_000, order.append, number)
        wheel.check()
    wheel.advance(200_000)
    assert order == list(range(300))


def test_a_time_before_the_last_one_does_nothing() -> None:
    wheel = TimerWheel(100)
    fired: list[int] = []
    wheel.advance(200)
    wheel.call_at(50, fired.append, 1)
    assert wheel.advance(150) == 0
    assert wheel.advance(200) == 0
    assert wheel.advance(200.001) == 1
    wheel.check()


def test_beyond_the_horizon() -> None:
    wheel = TimerWheel(5, tick=1)
    fired: list[int] = []
    dues = [(1 << 32) - 1, 1 << 32, (1 << 32) + 4, (1 << 32) + 5, (1 << 33) + 7, 1 << 45]
    for due in reversed(dues):
        wheel.call_at(due, fired.append, due)
        wheel.check()
    far = wheel.call_at(1e300, fired.append, 0)
    for due in dues:
        wheel.advance(due - 1)
        assert due not in fired
        wheel.check()
        wheel.advance(due)
        assert fired[-1] == due
        wheel.check()
    assert fired == dues
    assert far.pending
    far.cancel()
    assert wheel.next() is None


def test_a_suspended_machine() -> None:
    """A jump over thousands of intervals fires each repeating timer once; then they go on at their multiples."""
    wheel = TimerWheel(0)
    fired: list[str] = []
    wheel.call_every(1, 1, fired.append, "second")
    wheel.call_every(60, 60, fired.append, "minute")
    assert wheel.advance(86400.5) == 2
    assert sorted(fired) == ["minute", "second"]
    assert wheel.advance(86400.9) == 0
    assert wheel.advance(86401) == 1
    assert wheel.advance(86460) == 2
    wheel.check()


def test_repeating_timers_keep_to_their_multiples() -> None:
    wheel = TimerWheel(0)
    fired: list[float] = []
    now = 0.0
    timer = wheel.call_every(0.25, 1.0, lambda: fired.append(now))
    for step in range(1, 3001):
        now = step / 1000
        wheel.advance(now)
    assert fired == [1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0]
    assert timer.when == 3.25
    timer.cancel()
    assert wheel.advance(100) == 0


# -- what callbacks do ----------------------------------------------------------------------------------------------------------


def test_insert_while_firing() -> None:
    wheel = TimerWheel(0, tick=1)
    order: list[str] = []

    def first() -> None:
        order.append("first")
        wheel.call_at(10, order.append, "now")  # its tick is being fired: it is due at the next
        wheel.call_at(12, order.append, "later")

    wheel.call_at(10, first)
    wheel.call_at(10, order.append, "second")
    wheel.advance(10)
    assert order == ["first", "second"]
    wheel.advance(12)
    assert order == ["first", "second", "now", "later"]
    wheel.check()


def test_chains_within_one_advance() -> None:
    wheel = TimerWheel(0, tick=1)
    count = 0

    def again(due: int) -> None:
        nonlocal count
        count += 1
        wheel.check()
        wheel.call_at(due + 1, again, due + 1)

    wheel.call_at(1, again, 1)
    assert wheel.advance(1000) == 1000
    assert count == 1000
    assert len(wheel) == 1


def test_cancel_and_reschedule_those_that_are_due_with_it() -> None:
    wheel = TimerWheel(0, tick=1)
    order: list[str] = []

    def first() -> None:
        cancelled.cancel()
        moved.reschedule(20)
        moved_twice.reschedule(5)  # has passed: the next tick
        wheel.call_at(15, order.append, "new")  # takes the place that was given back
        assert not cancelled.pending
        wheel.check()
        assert len(wheel) == 4

    wheel.call_at(10, first)
    cancelled = wheel.call_at(10, order.append, "cancelled")
    moved = wheel.call_at(10, order.append, "moved")
    moved_twice = wheel.call_at(10, order.append, "moved twice")
    wheel.call_at(10, order.append, "stays")
    assert wheel.advance(10) == 2
    assert order == ["stays"]
    assert wheel.advance(11) == 1
    assert wheel.advance(30) == 2
    assert order == ["stays", "moved twice", "new", "moved"]


def test_a_repeating_timer_changes_itself() -> None:
    wheel = TimerWheel(0, tick=1)
    fired: list[int] = []

    def twice() -> None:
        fired.append(1)
        if len(fired) == 2:
            timer.cancel()

    timer = wheel.call_every(5, 5, twice)
    assert wheel.advance(5) == 1
    assert wheel.advance(100) == 1
    assert wheel.advance(1000) == 0
    timer.reschedule(1010)
    assert wheel.advance(1010) == 1
    timer.cancel()
    timer.cancel()
    assert len(wheel) == 0


@pytest.mark.parametrize("again", [10, 11, 500])
def test_an_exception_in_the_middle_of_a_tick(again: int) -> None:
    """Those after it stay due: the next advance calls them first, also one to the same time."""
    wheel = TimerWheel(0, tick=1)
    order: list[str] = []

    def fail() -> None:
        order.append("fail")
        gone.cancel()
        raise ZeroDivisionError

    wheel.call_at(9, order.append, "before")
    wheel.call_at(10, fail)
    wheel.call_at(10, order.append, "after")
    gone = wheel.call_at(10, order.append, "gone")
    wheel.call_every(100, 10, order.append, "every")
    wheel.call_at(11, order.append, "next tick")
    with pytest.raises(ZeroDivisionError):
        wheel.advance(10)
    wheel.check()
    assert order == ["before", "fail"]
    assert len(wheel) == 3
    following = wheel.next()
    assert following is not None
    assert following <= 10
    expected = ["before", "fail", "after", "every"]
    wheel.advance(again)
    wheel.check()
    assert order[:4] == expected
    assert ("next tick" in order) == (again > 10)


def test_those_left_by_an_exception_can_be_cancelled_and_moved() -> None:
    wheel = TimerWheel(0, tick=1)
    order: list[str] = []
    wheel.call_at(10, lambda: 1 / 0)
    cancelled = wheel.call_at(10, order.append, "cancelled")
    moved = wheel.call_at(10, order.append, "moved")
    wheel.call_at(10, order.append, "stays")
    with pytest.raises(ZeroDivisionError):
        wheel.advance(10)
    assert cancelled.pending
    cancelled.cancel()
    moved.reschedule(20)
    assert len(wheel) == 2
    assert wheel.advance(15) == 1
    assert wheel.advance(20) == 1
    assert order == ["stays", "moved"]


def test_advance_within_advance() -> None:
    wheel = TimerWheel(0, tick=1)
    order: list[str] = []

    def nested() -> None:
        order.append("nested")
        wheel.advance(20)
        order.append("end of nested")

    wheel.call_at(10, nested)
    wheel.call_at(10, order.append, "with it")
    wheel.call_at(15, order.append, "after it")
    assert wheel.advance(12) == 1
    assert order == ["nested", "with it", "after it", "end of nested"]
    wheel.check()


# -- arguments and memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_times_that_are_none(bad: float) -> None:
    wheel = TimerWheel()
    timer = wheel.call_at(5, int)
    uses: list[Callable[[], object]] = [
        lambda: TimerWheel(bad),
        lambda: TimerWheel(tick=bad),
        lambda: TimerWheel(tick=0),
        lambda: TimerWheel(tick=-1),
        lambda: wheel.call_at(bad, int),
        lambda: wheel.call_every(bad, 1, int),
        lambda: wheel.call_every(0, 1, int),
        lambda: wheel.call_every(1, bad, int),
        lambda: wheel.advance(bad),
        lambda: timer.reschedule(bad),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="finite"):
            use()
        wheel.check()
    assert len(wheel) == 1
    assert timer.pending
    assert timer.when == 5


def test_callbacks_must_be_callable() -> None:
    wheel = TimerWheel()
    bad: Any = None
    uses: list[Callable[[], object]] = [lambda: wheel.call_at(1, bad), lambda: wheel.call_every(1, 1, bad)]
    for use in uses:
        with pytest.raises(TypeError, match="must be callable"):
            use()
    assert len(wheel) == 0


def test_negative_times_are_the_beginning() -> None:
    wheel = TimerWheel(-5)
    fired: list[int] = []
    wheel.call_at(-3, fired.append, 1)
    assert wheel.advance(-1) == 0
    assert wheel.advance(0.001) == 1


def test_cancelled_timers_are_given_back_at_once() -> None:
    wheel = TimerWheel()
    for _ in range(1000):
        for timer in [wheel.call_at(1000, int) for _ in range(10)]:
            timer.cancel()
    assert len(wheel._timers) == 10
    assert len(wheel) == 0


def test_a_hundred_thousand_timers() -> None:
    dice = random.Random(5)
    wheel = TimerWheel(tick=1)
    fired: list[int] = []
    dues = [dice.randrange(1, 1 << 22) for _ in range(100_000)]
    for due in dues:
        wheel.call_at(due, fired.append, due)
    wheel.check()
    assert len(wheel) == 100_000
    assert wheel.advance(1 << 22) == 100_000
    assert fired == sorted(dues)
