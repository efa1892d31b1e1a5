"""Callbacks that wait for no descriptor: soon, deferred, from other threads, idle, observed."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

import evloop._core
from evloop import Loop, LoopClosedError
from evloop.testing import checked_loop, run_until

Reports = list[dict[str, Any]]


@pytest.fixture
def reports(loop: Loop) -> Reports:
    """What the loop's exception handler is told; a test that asks for this expects something."""
    reports: Reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    return reports


# -- soon and deferred ----------------------------------------------------------------------------------------------------------


def test_soon_and_deferred_in_the_order_of_their_calls(loop: Loop) -> None:
    order: list[int] = []
    expected = list(range(60))
    for number in expected:
        if number % 3 == 0:
            loop.call_soon(order.append, number)
        elif number % 3 == 1:
            loop.defer(order.append, number)
        else:
            loop.defer(lambda number=number: order.append(number))
    loop.run_once(0)
    assert order == expected


@pytest.mark.parametrize("how", ["call_soon", "defer", "call_soon_threadsafe"])
def test_what_a_callback_adds_runs_in_the_next_turn(loop: Loop, how: str) -> None:
    order: list[int] = []
    add: Callable[..., object] = getattr(loop, how)

    def again(depth: int) -> None:
        order.append(depth)
        if depth < 5:
            add(again, depth + 1)

    add(again, 0)
    for turns in range(1, 7):
        loop.run_once(0)
        assert order == list(range(turns))


def test_a_turn_with_callbacks_left_does_not_wait(loop: Loop) -> None:
    """Each turn adds the next callback: waiting in one of them would be for ever."""
    left = 100

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.defer(again)
        else:
            loop.stop()

    loop.defer(again)
    loop.run()
    assert left == 0


def test_deferred_callbacks_see_the_context_of_the_loop(loop: Loop) -> None:
    """It carries none: ``call_soon`` is for those who need one."""
    variable = contextvars.ContextVar("variable", default="outside")
    seen: list[str] = []
    token = variable.set("inside")
    loop.defer(lambda: seen.append(variable.get()))
    loop.call_soon(lambda: seen.append(variable.get()))
    loop.call_soon_threadsafe(lambda: seen.append(variable.get()))
    variable.reset(token)
    loop.run_once(0)
    assert sorted(seen) == ["inside", "inside", "outside"]


def test_a_callback_s_changes_of_its_context_stay_in_it(loop: Loop) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    shared = contextvars.copy_context()
    seen: list[int] = []

    def count() -> None:
        variable.set(variable.get() + 1)
        seen.append(variable.get())

    loop.call_soon(count)
    loop.call_soon(count, context=shared)
    loop.call_soon(count, context=shared)
    loop.run_once(0)
    assert seen == [1, 1, 2]
    assert variable.get() == 0


# -- exceptions -----------------------------------------------------------------------------------------------------------------


def fail(message: str = "no") -> None:
    raise ValueError(message)


def test_an_exception_hurts_no_other_and_comes_with_its_context(loop: Loop, reports: Reports) -> None:
    ran: list[int] = []
    handle = loop.call_soon(fail)
    loop.defer(ran.append, 1)
    loop.defer(fail)
    loop.call_soon(ran.append, 2)
    loop.defer(fail, "third")
    loop.call_soon(ran.append, 3)
    loop.run_once(0)
    assert ran == [1, 2, 3]
    assert [str(report["exception"]) for report in reports] == ["no", "no", "third"]
    assert reports[0]["handle"] is handle
    assert reports[1]["callback"] is fail
    for report in reports:
        assert f"fail at {__file__}:" in report["message"]
    loop.run_once(0)
    assert len(reports) == 3


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_keeps_the_rest_in_order(loop: Loop, interrupt: type[BaseException]) -> None:
    ran: list[int] = []

    def raise_it() -> None:
        loop.call_soon(ran.append, 3)
        raise interrupt

    loop.call_soon(ran.append, 0)
    loop.defer(raise_it)
    loop.call_soon(ran.append, 1)
    loop.defer(ran.append, 2)
    with pytest.raises(interrupt):
        loop.run()
    assert ran == [0]
    assert not loop.is_running()
    loop.run_once(0)
    assert ran == [0, 1, 2, 3]


# -- other threads --------------------------------------------------------------------------------------------------------------


def test_eight_threads_lose_none_and_repeat_none(loop: Loop) -> None:
    """A million in all on the best backend; the others differ only in how they wake up."""
    threads = 8
    each = 125_000 if loop.backend == "epoll" else 12_500
    seen = [0] * threads
    out_of_order: list[int] = []
    left = threads

    def take(thread: int, number: int) -> None:
        if seen[thread] != number:
            out_of_order.append(number)
        seen[thread] += 1

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            loop.stop()

    context = contextvars.copy_context()

    def post(thread: int) -> None:
        for number in range(each):
            loop.call_soon_threadsafe(take, thread, number, context=context)
        loop.call_soon_threadsafe(done)

    workers = [threading.Thread(target=post, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    loop.run()
    for worker in workers:
        worker.join()
    loop.run_once(0)
    assert seen == [each] * threads
    assert not out_of_order
    assert loop.stats().callbacks == threads * (each + 1)


def test_many_posts_to_a_sleeping_loop_share_one_wake_up(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    real = evloop._core._turn

    def post() -> None:
        for number in range(1000):
            loop.call_soon_threadsafe(ran.append, number)
        loop.call_soon_threadsafe(loop.stop)

    def turn(*args: Any) -> int:
        if not ran and not loop._posted:  # the loop has decided to sleep: from here on it has to be woken
            poster = threading.Thread(target=post)
            poster.start()
            poster.join()
        return int(real(*args))

    monkeypatch.setattr(evloop._core, "_turn", turn)
    loop.run()
    assert ran == list(range(1000))
    assert loop.stats().wakeups == 1


def test_posts_to_a_loop_that_is_awake_wake_nothing(loop: Loop) -> None:
    ran: list[int] = []

    def post() -> None:
        for number in range(1000):
            loop.call_soon_threadsafe(ran.append, number)

    def in_a_thread() -> None:
        poster = threading.Thread(target=post)
        poster.start()
        poster.join()

    loop.call_soon(in_a_thread)
    loop.run_once(0)
    run_until(loop, lambda: len(ran) == 1000)
    assert ran == list(range(1000))
    assert loop.stats().wakeups == 0


def test_a_posted_callback_can_be_cancelled(loop: Loop) -> None:
    ran: list[int] = []
    handle = loop.call_soon_threadsafe(ran.append, 1)
    loop.call_soon_threadsafe(ran.append, 2)
    handle.cancel()
    loop.run_once(0)
    assert ran == [2]


# -- idle -----------------------------------------------------------------------------------------------------------------------


def test_idle_when_a_poll_found_nothing(loop: Loop, pipe: tuple[int, int]) -> None:
    order: list[str] = []
    idle = loop.on_idle(order.append, "idle")
    loop.call_soon(order.append, "soon")
    loop.run_once(None)  # does not wait
    loop.run_once(None)
    assert order == ["soon", "idle", "idle"]
    watcher = loop.watch(pipe[0], evloop.READ, lambda fd, ready: order.append("read"))
    os.write(pipe[1], b"x")
    loop.run_once(None)
    watcher.close()
    assert order == ["soon", "idle", "idle", "read"]
    idle.cancel()
    idle.cancel()
    loop.run_once(0)
    assert len(order) == 4


def test_idle_callbacks_cancel_each_other_and_themselves(loop: Loop) -> None:
    order: list[int] = []

    def first() -> None:
        order.append(1)
        handles[1].cancel()

    def third() -> None:
        order.append(3)
        handles[2].cancel()
        handles.append(loop.on_idle(order.append, 4))

    handles = [loop.on_idle(first), loop.on_idle(order.append, 2), loop.on_idle(third)]
    loop.run_once(0)
    assert order == [1, 3]
    loop.run_once(0)
    assert order == [1, 3, 1, 4]


def test_idle_does_not_run_while_callbacks_wait(loop: Loop) -> None:
    order: list[str] = []

    def busy(left: int) -> None:
        order.append("busy")
        if left:
            loop.call_soon(busy, left - 1)

    loop.on_idle(order.append, "idle")
    loop.call_soon(busy, 3)
    for _ in range(6):
        loop.run_once(0)
    assert order == ["busy"] * 4 + ["idle"] * 3


def test_an_exception_in_an_idle_callback(loop: Loop, reports: Reports) -> None:
    ran: list[int] = []
    failing = loop.on_idle(fail)
    loop.on_idle(ran.append, 1)
    loop.run_once(0)
    assert ran == [1]
    assert [report["handle"] for report in reports] == [failing]


def test_stop_from_an_idle_callback(loop: Loop) -> None:
    loop.on_idle(loop.stop)
    loop.run()


# -- observed values ------------------------------------------------------------------------------------------------------------


def test_observe_tells_new_and_old_by_the_next_turn(loop: Loop) -> None:
    value = 1
    seen: list[tuple[int, int]] = []
    handle = loop.observe(lambda: value, lambda new, old: seen.append((new, old)))
    loop.run_once(0)
    assert seen == []
    value = 2
    loop.run_once(0)
    loop.run_once(0)
    assert seen == [(2, 1)]
    value = 5
    value = 7
    loop.run_once(0)
    assert seen == [(2, 1), (7, 2)]
    handle.cancel()
    handle.cancel()
    value = 8
    loop.run_once(0)
    assert len(seen) == 2


def test_an_observer_changes_another_and_itself(loop: Loop) -> None:
    values = {"a": 0, "b": 0}
    seen: list[str] = []

    def a(new: int, old: int) -> None:
        seen.append(f"a{new}")
        values["b"] += 1
        if new < 3:
            values["a"] += 1

    loop.observe(lambda: values["a"], a)
    loop.observe(lambda: values["b"], lambda new, old: seen.append(f"b{new}"))
    values["a"] = 1
    for _ in range(5):
        loop.run_once(0)
    assert seen == ["a1", "b1", "a2", "b2", "a3", "b3"]


def test_observers_that_raise(loop: Loop, reports: Reports) -> None:
    value = 0
    seen: list[int] = []

    def read() -> int:
        if value == 2:
            fail("read")
        return value

    loop.observe(lambda: value, lambda new, old: fail("callback"))
    loop.observe(read, lambda new, old: seen.append(new))
    for _ in range(3):
        value += 1
        loop.run_once(0)
    assert seen == [1, 3]
    assert [str(report["exception"]) for report in reports] == ["callback", "callback", "read", "callback"]


def test_an_observer_whose_first_reading_fails_is_none(loop: Loop) -> None:
    with pytest.raises(ValueError, match="no"):
        loop.observe(fail, print)
    loop.run_once(0)


# -- bad arguments and the end --------------------------------------------------------------------------------------------------


def test_callbacks_must_be_callable(loop: Loop) -> None:
    bad: Any = 5
    for use in (
        lambda: loop.defer(bad),
        lambda: loop.on_idle(bad),
        lambda: loop.observe(bad, print),
        lambda: loop.observe(int, bad),
        lambda: loop.call_soon_threadsafe(bad),
    ):
        with pytest.raises(TypeError, match="must be callable, not 5"):
            use()
    loop.run_once(0)


def test_handles_outlive_the_loop(backend: str) -> None:
    with checked_loop(backend) as loop:
        handles = [loop.on_idle(int), loop.observe(int, print), loop.call_soon(int), loop.call_soon_threadsafe(int)]
    for handle in handles:
        handle.cancel()
        assert handle.cancelled()
    for use in (
        lambda: loop.defer(int),
        lambda: loop.on_idle(int),
        lambda: loop.observe(int, print),
    ):
        with pytest.raises(LoopClosedError):
            use()
