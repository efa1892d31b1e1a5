"""The crossing: targets and records, closers, the exception handler, ways to run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from evloop import READ, EvLoopError, Loop, LoopClosedError, LoopRunningError, Record
from evloop.testing import backends, checked_loop, run_until

# -- targets --------------------------------------------------------------------------------------------------------------------


def test_targets_get_small_numbers_that_are_used_again(loop: Loop) -> None:
    taken = [loop.add_target(lambda record: None) for _ in range(10)]
    assert len(set(taken)) == 10
    for target in taken:
        loop.drop_target(target)
    assert loop.add_target(lambda record: None) not in taken, "a record may still be under way"
    loop.run_once(0)
    again = [loop.add_target(lambda record: None) for _ in range(10)]
    assert set(again) == set(taken)


def test_a_dropped_target_hears_nothing_of_its_batch(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(3)]
    heard: list[int] = []

    def drop_all(fd: int, ready: int) -> None:
        heard.append(fd)
        for watcher in watchers:
            watcher.close()
        for _ in range(5):
            loop.add_target(wrong)

    def wrong(record: Record) -> None:
        heard.append(-1)

    watchers = [loop.watch(r, READ, drop_all) for r, _ in pipes]
    for _, w in pipes:
        os.write(w, b"x")
    for _ in range(3):
        loop.run_once(0)
    assert len(heard) == 1
    assert heard[0] >= 0
    for ends in pipes:
        for end in ends:
            os.close(end)


def test_an_exception_of_a_target_that_is_gone(loop: Loop, pipe: tuple[int, int]) -> None:
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    def fail(fd: int, ready: int) -> None:
        watcher.close()
        raise ValueError("after its end")

    watcher = loop.watch(pipe[0], READ, fail)
    os.write(pipe[1], b"x")
    loop.run_once(0)
    assert [(report["message"], str(report["exception"])) for report in reports] == [
        ("exception in an event callback", "after its end")
    ]


# -- closers --------------------------------------------------------------------------------------------------------------------


def test_closers_run_last_first_and_an_exception_stops_none(backend: str) -> None:
    order: list[int] = []
    reports: list[dict[str, Any]] = []
    with checked_loop(backend) as loop:
        loop.set_exception_handler(lambda _, context: reports.append(context))
        for number in range(4):
            loop.on_close(partial(order.append, number))
            loop.on_close(lambda: 1 // 0)

        def late() -> None:
            order.append(100)
            loop.on_close(lambda: order.append(200))  # the loop is still usable
            assert loop.backend == backend

        loop.on_close(late)
    assert order == [100, 200, 3, 2, 1, 0]
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError] * 4
    loop.close()
    assert len(order) == 6


def test_as_a_context_manager(backend: str) -> None:
    def fail() -> None:
        with Loop(backend=backend) as loop:
            loops.append(loop)
            raise KeyError("inside")

    loops: list[Loop] = []
    with pytest.raises(KeyError, match="inside"):
        fail()
    assert loops[0].is_closed()


# -- the exception handler ------------------------------------------------------------------------------------------------------


def test_the_exception_handler_gets_the_loop_and_can_be_taken_back(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[object, dict[str, Any]]] = []
    loop.set_exception_handler(lambda *args: heard.append(args))
    loop.call_exception_handler({"message": "one"})
    assert heard == [(loop, {"message": "one"})]
    assert not caplog.records
    loop.set_exception_handler(None)
    loop.call_exception_handler({"message": "two", "exception": ValueError("three")})
    assert len(heard) == 1
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.ERROR, "two")]
    assert "three" in caplog.text


def test_an_exception_handler_that_stops_the_loop(loop: Loop) -> None:
    loop.set_exception_handler(lambda loop, _: loop.stop())
    loop.call_later(0, lambda: 1 // 0)
    loop.run()


# -- ways to run ----------------------------------------------------------------------------------------------------------------


def test_run_until_asks_before_each_turn(loop: Loop) -> None:
    asked = 0

    def enough() -> bool:
        nonlocal asked
        asked += 1
        return asked == 4

    ticks = loop.call_every(0.001, int)
    loop.run_until(enough)
    assert asked == 4
    loop.run_until(lambda: True)
    loop.call_soon(loop.stop)
    loop.run_until(lambda: False)
    ticks.cancel()
    assert not loop.is_running()


def test_a_predicate_that_raises_ends_the_run(loop: Loop) -> None:
    with pytest.raises(ZeroDivisionError):
        loop.run_until(lambda: 1 // 0)
    assert not loop.is_running()
    loop.call_soon(loop.stop)
    loop.run()


def test_stop_before_run_ends_it_at_once(loop: Loop) -> None:
    loop.stop()
    loop.run()
    ran: list[int] = []
    loop.call_soon(ran.append, 1)
    loop.call_soon(loop.stop)
    loop.run()
    assert ran == [1]


def test_a_second_run_says_so(loop: Loop) -> None:
    caught: list[str] = []
    uses: list[Callable[[], object]] = [
        loop.run,
        loop.run_once,
        lambda: loop.run_until(lambda: True),
        lambda: loop.attach(None),
    ]

    def inside() -> None:
        for use in uses:
            with pytest.raises(LoopRunningError, match="running") as error:
                use()
            caught.append(str(error.value))

    loop.call_soon(inside)
    loop.run_once(0)
    assert len(caught) == len(uses)


@pytest.mark.parametrize("name", ["", "EPOLL", "select", "epoll ", "\0"])
def test_backends_that_are_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVLOOP_BACKEND", raising=False)
    if not name:
        with Loop(backend=name) as loop:  # nothing asked for
            assert loop.backend == backends()[0]
        return
    with pytest.raises(ValueError, match=r"backend .* is not one of"):
        Loop(backend=name)


def test_the_errors_have_one_root(loop: Loop) -> None:
    loop.close()
    with pytest.raises(EvLoopError):
        loop.run()
    with pytest.raises(LoopClosedError):
        loop.call_soon(int)


def test_many_loops_in_one_thread(backend: str) -> None:
    """Each runs when it is its turn; they share nothing."""
    with checked_loop(backend) as first, Loop(backend=backend) as second:
        ran: list[str] = []

        def bounce(me: Loop, other: Loop, left: int) -> None:
            ran.append("first" if me is first else "second")
            if left:
                other.call_soon(bounce, other, me, left - 1)

        first.call_soon(bounce, first, second, 5)
        for _ in range(3):
            first.run_once(0)
            second.run_once(0)
        assert ran == ["first", "second"] * 3
        fired: list[int] = []
        first.call_later(0.001, fired.append, 1)
        second.call_later(0.001, fired.append, 2)
        run_until(second, lambda: fired)
        assert fired == [2]
        run_until(first, lambda: len(fired) == 2)
