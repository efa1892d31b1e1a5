"""The loop: turns, callbacks, timers, threads, descriptors, the end."""

from __future__ import annotations

import errno
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import evloop._core
from evloop import Loop, LoopClosedError, LoopRunningError
from evloop.testing import backends, open_descriptors, run_until

Pipe = tuple[int, int]


# -- making and ending ----------------------------------------------------------------------------------------------------------


def test_backend_is_what_was_asked_for(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loop(backend=backend) as loop:
        assert loop.backend == backend
    monkeypatch.setenv("EVLOOP_BACKEND", backend)
    with Loop() as loop:
        assert loop.backend == backend
    monkeypatch.setenv("EVLOOP_BACKEND", "")
    with Loop() as loop:
        assert loop.backend == backends()[0]


def test_a_backend_that_is_not_there() -> None:
    before = open_descriptors()
    with pytest.raises(ValueError, match=r"backend 'iocp' is not one of .*poll"):
        Loop(backend="iocp")
    assert open_descriptors() == before


def test_close_twice_and_then_nothing_works(backend: str, pipe: Pipe) -> None:
    loop = Loop(backend=backend)
    loop.add_reader(pipe[0], int)
    timer = loop.call_later(1000, int)
    loop.close()
    loop.close()
    assert loop.is_closed()
    timer.cancel()
    for use in (
        loop.run,
        loop.run_once,
        lambda: loop.call_soon(int),
        lambda: loop.call_later(1, int),
        lambda: loop.call_soon_threadsafe(int),
        lambda: loop.add_reader(pipe[0], int),
        lambda: loop.add_signal_handler(10, int),
        lambda: loop.backend,
        lambda: loop.address,
    ):
        with pytest.raises(LoopClosedError):
            use()
    loop.stop()
    assert not loop.remove_reader(pipe[0])
    loop.submissions.append(b"x" * 16)  # as a connection does whose loop is gone
    loop.flush()


def test_a_running_loop_is_not_run_again_nor_closed(loop: Loop) -> None:
    seen: list[type[BaseException]] = []

    def inside() -> None:
        assert loop.is_running()
        assert loop.is_current()
        with ThreadPoolExecutor(1) as other:
            assert not other.submit(loop.is_current).result()
        for use in (loop.run, loop.run_once, loop.close):
            with pytest.raises(LoopRunningError) as caught:
                use()
            seen.append(caught.type)

    loop.call_soon(inside)
    loop.run_once(0)
    assert len(seen) == 3
    assert not loop.is_running()
    assert not loop.is_current()


def test_closers_run_last_added_first(backend: str) -> None:
    order: list[int] = []
    loop = Loop(backend=backend)
    loop.on_close(lambda: order.append(1))
    loop.on_close(lambda: order.append(2))
    loop.close()
    assert order == [2, 1]


def test_a_closer_is_taken_back(backend: str) -> None:
    order: list[int] = []
    loop = Loop(backend=backend)
    loop.on_close(lambda: order.append(1))
    again: list[bool] = []

    def closer() -> None:
        order.append(2)
        again.append(loop.remove_on_close(closer))  # it is being called

    loop.on_close(closer)
    assert loop.remove_on_close(closer)
    assert not loop.remove_on_close(closer)
    loop.on_close(closer)
    loop.close()
    assert order == [2, 1]
    assert again == [False]
    assert not loop.remove_on_close(closer)


def test_a_closed_loop_refuses_to_run(backend: str) -> None:
    loop = Loop(backend=backend)
    loop.call_soon(loop.stop)
    loop.run()
    loop.close()
    for run in (loop.run, lambda: loop.run_until(bool), lambda: loop.run_once(0)):
        with pytest.raises(LoopClosedError, match="the loop is closed"):
            run()
    assert not loop.is_running()


# -- callbacks ------------------------------------------------------------------------------------------------------------------


def test_call_soon_in_order_and_what_they_add_a_turn_later(loop: Loop) -> None:
    order: list[str] = []

    def first() -> None:
        order.append("first")
        loop.call_soon(order.append, "third")

    loop.call_soon(first)
    loop.call_soon(order.append, "second")
    loop.run_once(0)
    assert order == ["first", "second"]
    loop.run_once(0)
    assert order == ["first", "second", "third"]


def test_stop_ends_run_after_the_turn(loop: Loop) -> None:
    order: list[int] = []
    loop.call_soon(loop.stop)
    loop.call_soon(order.append, 1)
    loop.run()
    assert order == [1]
    loop.call_soon(loop.stop)
    loop.run()


def test_what_was_submitted_before_stop_is_executed(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that a handler has sent reaches the kernel although the handler stops the loop."""
    executed: list[bytes] = []
    real = evloop._core._flush

    def flush(pointer: Any, submitted: bytes, size: int) -> Any:
        executed.append(submitted)
        return real(pointer, submitted, size)

    monkeypatch.setattr(evloop._core, "_flush", flush)

    def handler() -> None:
        loop.call_later(1000, int)
        loop.stop()

    loop.call_later(0, handler)
    loop.run()
    assert len(executed) == 1
    assert loop.submissions == []


def test_exceptions_are_reported_and_the_loop_goes_on(loop: Loop) -> None:
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    ran: list[int] = []
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(ran.append, 1)
    loop.call_later(0, lambda: 1 / 0)
    loop.call_later(0, ran.append, 2)
    run_until(loop, lambda: len(ran) == 2)
    assert [type(context["exception"]) for context in reported] == [ZeroDivisionError] * 2
    assert all("callback" in context["message"] for context in reported)


def test_exceptions_are_logged_by_default(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_exception_handler(None)
    loop.call_soon(lambda: 1 / 0)
    loop.run_once(0)
    assert [(record.name, record.levelno) for record in caplog.records] == [("evloop", logging.ERROR)]
    assert "ZeroDivisionError" in caplog.text


def test_an_exception_handler_that_raises(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    def handler(_: Loop, context: dict[str, Any]) -> None:
        raise RuntimeError("worse")

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    loop.run_once(0)
    assert "worse" in caplog.text


def test_callbacks_must_be_callable(loop: Loop, pipe: Pipe) -> None:
    for use in (
        lambda: loop.call_soon(None),  # type: ignore[arg-type]
        lambda: loop.call_later(0, 1),  # type: ignore[arg-type]
        lambda: loop.call_soon_threadsafe("x"),  # type: ignore[arg-type]
        lambda: loop.add_reader(pipe[0], b""),  # type: ignore[arg-type]
        lambda: loop.add_signal_handler(10, None),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="must be callable"):
            use()
    loop.run_once(0.01)


@pytest.mark.parametrize("where", ["call_soon", "timer", "reader"])
def test_an_interrupt_loses_nothing_else(loop: Loop, pipe: Pipe, where: str) -> None:
    """KeyboardInterrupt leaves run() from any callback; the events of that batch are still delivered afterwards."""
    ran: list[int] = []

    def interrupt() -> None:
        loop.remove_reader(pipe[0])
        raise KeyboardInterrupt

    if where == "call_soon":
        loop.call_soon(interrupt)
        loop.call_soon(ran.append, 0)
    elif where == "timer":
        loop.call_at(0, interrupt)
    else:
        loop.add_reader(pipe[0], interrupt)
        os.write(pipe[1], b"x")
    for number in range(20):
        loop.call_at(0, ran.append, number)
    time.sleep(0.005)  # so that all of it is due in one turn, whatever the order
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    run_until(loop, lambda: len(ran) >= 20)
    assert sorted(set(ran)) == list(range(20))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_around_the_crossing_loses_nothing(loop: Loop, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Python runs signal handlers between any two bytecodes: also between the submissions and C, and between C and the batch."""
    raised: list[int] = []
    # As if it were the loop's own code that the signal interrupts.
    names: dict[str, Any] = {"__name__": "evloop._core", "real": evloop._core._turn, "raised": raised, "signal": signal}
    body = {
        "before": "if a[2] and not raised: raised.append(1); signal.raise_signal(2)\n return real(*a)",
        "after": "result = real(*a)\n if result and not raised: raised.append(1); signal.raise_signal(2)\n return result",
    }
    exec(f"def turn(*a):\n {body[moment]}", names)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ran: list[int] = []
        for number in range(5):
            loop.call_at(0, ran.append, number)
        monkeypatch.setattr(evloop._core, "_turn", names["turn"])
        with pytest.raises(KeyboardInterrupt):
            loop.run()
        assert raised
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    run_until(loop, lambda: len(ran) == 5)
    assert ran == list(range(5))


@pytest.mark.parametrize("post", ["call_soon", "defer", "call_soon_threadsafe"])
def test_run_until_does_not_sleep_over_what_a_callback_has_done(loop: Loop, post: str) -> None:
    ran: list[str] = []
    for each in ("first", "second"):
        getattr(loop, post)(ran.append, each)
        loop.run_until(lambda each=each: each in ran)  # type: ignore[misc]
    assert ran == ["first", "second"]


def test_ctrl_c_interrupts_a_callback_that_does_not_end(loop: Loop) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))

    def endless() -> None:
        timer.start()
        while True:
            pass

    try:
        loop.call_soon(endless)
        with pytest.raises(KeyboardInterrupt):
            loop.run()
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


# -- time -----------------------------------------------------------------------------------------------------------------------


def test_timers_are_never_early_and_in_order(loop: Loop) -> None:
    fired: list[tuple[float, float]] = []
    now = loop.time()  # asked for once: two deadlines within one tick are in the order of the calls
    for delay in (0.03, 0.0, 0.011, 0.02, 0.01, 0.011):
        when = now + delay
        loop.call_at(when, lambda when=when: fired.append((when, loop.time())))
    run_until(loop, lambda: len(fired) == 6)
    assert all(now >= when for when, now in fired)
    assert [when for when, _ in fired] == sorted(when for when, _ in fired)


def test_equal_deadlines_in_the_order_they_were_made(loop: Loop) -> None:
    order: list[int] = []
    when = loop.time() + 0.02
    for number in range(100):
        loop.call_at(when, order.append, number)
    run_until(loop, lambda: len(order) == 100)
    assert order == list(range(100))


def test_a_deadline_that_has_passed(loop: Loop) -> None:
    fired: list[int] = []
    for when in (-1.0, 0.0, loop.time() - 5):
        loop.call_at(when, fired.append, 1)
    run_until(loop, lambda: len(fired) == 3)


@pytest.mark.parametrize("delay", [-1, -1e-9, math.nan, math.inf, -math.inf])
def test_delays_that_are_none(loop: Loop, delay: float) -> None:
    with pytest.raises(ValueError, match="must be a"):
        loop.call_later(delay, int)


@pytest.mark.parametrize("when", [math.nan, math.inf, -math.inf])
def test_times_that_are_none(loop: Loop, when: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        loop.call_at(when, int)


@pytest.mark.parametrize("when", [1e9, 1e18, 1e300])
def test_far_deadlines(loop: Loop, when: float) -> None:
    handle = loop.call_at(when, int)
    loop.run_once(0)
    assert not handle.cancelled()
    handle.cancel()
    loop.run_once(0)


def test_cancel_a_timer_of_the_same_batch(loop: Loop) -> None:
    """The record that it fired is in the batch already; and its index must not be given to another before the batch ends."""
    ran: list[str] = []
    when = loop.time() + 0.005
    handles: list[Any] = []

    def first() -> None:
        handles[0].cancel()
        for _ in range(3):
            loop.call_later(1000, ran.append, "wrong")

    loop.call_at(when, first)
    handles.append(loop.call_at(when, ran.append, "cancelled"))
    loop.call_at(when, ran.append, "third")
    run_until(loop, lambda: ran)
    loop.run_once(0.02)
    assert ran == ["third"]


def test_many_timers_from_callbacks_and_back(loop: Loop) -> None:
    """Indexes are reused under load; each timer fires once unless it was cancelled."""
    fired: list[int] = []
    pending: dict[int, Any] = {}
    cancelled: set[int] = set()

    def fire(number: int) -> None:
        fired.append(number)
        pending.pop(number)
        if number % 3 == 0 and pending:
            victim, handle = next(iter(pending.items()))
            handle.cancel()
            del pending[victim]
            cancelled.add(victim)
        if number < 2000:
            for again in (number + 2000, number + 4000):
                pending[again] = loop.call_later(again % 7 / 1000, fire, again)

    for number in range(2000):
        pending[number] = loop.call_later(number % 5 / 1000, fire, number)
    run_until(loop, lambda: not pending)
    assert len(fired) == len(set(fired))
    assert not cancelled & set(fired)


def test_run_once_waits_at_most_so_long(loop: Loop) -> None:
    start = loop.time()
    loop.run_once(0.02)
    assert loop.time() - start >= 0.02
    for timeout in (-1, math.nan):
        with pytest.raises(ValueError, match="timeout"):
            loop.run_once(timeout)


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300])
def test_run_once_without_limit(loop: Loop, timeout: float | None) -> None:
    ran: list[int] = []
    loop.call_later(0.001, ran.append, 1)
    while not ran:
        loop.run_once(timeout)


# -- threads --------------------------------------------------------------------------------------------------------------------


def test_threadsafe_wakes_a_sleeping_loop(loop: Loop) -> None:
    thread = threading.Timer(0.05, loop.call_soon_threadsafe, (loop.stop,))
    thread.start()
    loop.run()
    thread.join()


def test_stop_from_another_thread(loop: Loop) -> None:
    thread = threading.Timer(0.05, loop.stop)
    thread.start()
    loop.run()
    thread.join()


def test_no_wake_up_is_lost(loop: Loop) -> None:
    """Threads post while the loop goes to sleep and wakes up: a lost wake-up would be a hang, which the time limit ends."""
    threads, each = 4, 2000
    got: list[tuple[int, int]] = []

    def take(item: tuple[int, int]) -> None:
        got.append(item)
        if len(got) == threads * each:
            loop.stop()

    def post(thread: int) -> None:
        for number in range(each):
            loop.call_soon_threadsafe(take, (thread, number))
            if number % 50 == 0:
                time.sleep(0.0005)  # lets the loop fall asleep

    workers = [threading.Thread(target=post, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    loop.run()
    for worker in workers:
        worker.join()
    for thread in range(threads):
        assert [number for who, number in got if who == thread] == list(range(each))


def test_posting_to_a_loop_that_is_being_closed(backend: str) -> None:
    for _ in range(20):
        loop = Loop(backend=backend)
        errors: list[BaseException] = []
        started = threading.Event()

        def post(loop: Loop = loop, errors: list[BaseException] = errors, started: threading.Event = started) -> None:
            try:
                while True:
                    loop.call_soon_threadsafe(int)
                    started.set()
            except LoopClosedError as error:
                errors.append(error)

        thread = threading.Thread(target=post)
        thread.start()
        started.wait()
        loop.run_once(0)
        loop.close()
        thread.join()
        assert len(errors) == 1


def test_a_loop_runs_in_any_thread(backend: str) -> None:
    loop = Loop(backend=backend)
    thread = threading.Thread(target=loop.run)
    thread.start()
    ran = threading.Event()
    loop.call_soon_threadsafe(ran.set)
    assert ran.wait(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


# -- descriptors ----------------------------------------------------------------------------------------------------------------


def test_reader_is_called_as_long_as_there_is_something(loop: Loop, pipe: Pipe) -> None:
    got: list[bytes] = []
    loop.add_reader(pipe[0], lambda: got.append(os.read(pipe[0], 1)))
    loop.run_once(0)
    assert got == []
    os.write(pipe[1], b"abc")
    run_until(loop, lambda: len(got) == 3)
    assert loop.remove_reader(pipe[0])
    assert not loop.remove_reader(pipe[0])
    os.write(pipe[1], b"d")
    loop.run_once(0.01)
    assert got == [b"a", b"b", b"c"]


def test_writer_and_reader_of_one_descriptor(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        events: list[str] = []
        fd = ours.fileno()

        def writable() -> None:
            events.append("w")
            assert loop.remove_writer(fd)

        loop.add_writer(fd, writable)
        loop.add_reader(fd, lambda: events.append(ours.recv(10).decode()))
        theirs.send(b"r")
        run_until(loop, lambda: len(events) == 2)
        assert sorted(events) == ["r", "w"]
        theirs.send(b"again")
        run_until(loop, lambda: len(events) == 3)
        assert events[2] == "again"
        assert loop.remove_reader(fd)


def test_a_second_reader_replaces_the_first(loop: Loop, pipe: Pipe) -> None:
    got: list[str] = []

    def read(name: str) -> None:
        os.read(pipe[0], 10)
        got.append(name)

    loop.add_reader(pipe[0], read, "first")
    loop.add_reader(pipe[0], read, "second")
    os.write(pipe[1], b"x")
    run_until(loop, lambda: got)
    assert got == ["second"]


def test_the_end_of_a_pipe_is_readable(loop: Loop, pipe: Pipe) -> None:
    got: list[bytes] = []

    def read() -> None:
        got.append(os.read(pipe[0], 10))
        loop.remove_reader(pipe[0])

    loop.add_reader(pipe[0], read)
    os.close(pipe[1])
    run_until(loop, lambda: got)
    assert got == [b""]


def test_removing_another_of_the_same_batch(loop: Loop) -> None:
    """Whoever comes first removes the other and watches a new descriptor with its number: no event of the old one reaches it."""
    first, second = os.pipe(), os.pipe()
    called: list[int] = []

    def take_away(me: int, other: tuple[int, int]) -> None:
        called.append(me)
        loop.remove_reader(me)
        loop.remove_reader(other[0])
        os.close(other[0])
        os.close(other[1])
        fresh = os.pipe()
        loop.add_reader(fresh[0], called.append, -1)
        replaced.extend(fresh)

    replaced: list[int] = []
    loop.add_reader(first[0], take_away, first[0], second)
    loop.add_reader(second[0], take_away, second[0], first)
    os.write(first[1], b"x")
    os.write(second[1], b"x")
    run_until(loop, lambda: called)
    loop.run_once(0.02)
    assert len(called) == 1
    loop.remove_reader(replaced[0])
    for fd in (*replaced, *(first if called[0] == first[0] else second)):
        os.close(fd)


def test_an_exception_in_a_reader_is_reported_and_the_others_are_called(loop: Loop) -> None:
    reported: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    pipes = [os.pipe() for _ in range(20)]
    got: list[int] = []

    def read(fd: int) -> None:
        os.read(fd, 1)
        got.append(fd)
        raise ValueError(fd)

    for r, w in pipes:
        loop.add_reader(r, read, r)
        os.write(w, b"x")
    run_until(loop, lambda: len(got) == 20)
    assert sorted(got) == sorted(r for r, _ in pipes)
    assert len(reported) == 20
    for r, w in pipes:
        loop.remove_reader(r)
        os.close(r)
        os.close(w)


def test_more_descriptors_than_one_wait_returns(backend: str) -> None:
    """1100 at once: the loop fetches 1024 a turn."""
    script = f"""
import os, resource, socket
from evloop import Loop
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
loop, got, pairs = Loop(backend={backend!r}), set(), [socket.socketpair() for _ in range(1100)]
for a, b in pairs:
    loop.add_reader(a.fileno(), lambda a=a: (a.recv(1), got.add(a)))
    b.send(b"x")
while len(got) < len(pairs):
    loop.run_once(5)
loop.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_descriptors_that_cannot_be_watched(loop: Loop, tmp_path: Path) -> None:
    closed, other = os.pipe()
    os.close(closed)
    os.close(other)
    with pytest.raises(OSError, match=f"watch fd {closed}") as caught:
        loop.add_reader(closed, int)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError, match="watch fd"):
        loop.add_reader(-1, int)
    with (tmp_path / "file").open("w") as file, pytest.raises(PermissionError, match="watch fd"):
        loop.add_writer(file.fileno(), int)
    loop.run_once(0)


# -- flushing between handlers --------------------------------------------------------------------------------------------------


def test_slow_callbacks_are_flushed_between(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a slow handler has submitted does not wait for its neighbours in the batch."""
    flushed: list[int] = []
    real = evloop._core._flush

    def flush(pointer: Any, submitted: bytes, size: int) -> Any:
        flushed.append(len(order))
        return real(pointer, submitted, size)

    order: list[int] = []

    def slow(number: int) -> None:
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
        order.append(number)
        loop.call_later(1000, int)

    when = loop.time() + 0.01
    for number in range(20):
        loop.call_at(when, slow, number)
    monkeypatch.setattr(evloop._core, "_flush", flush)
    run_until(loop, lambda: len(order) == 20)
    assert order == list(range(20))
    assert flushed[-3:] == [18, 19, 20]
