"""Debug mode, and loops in forked children."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evloop import READ, WRITE, ForkedLoopError, Loop, WrongThreadError
from evloop.testing import checked_loop, in_child, run_until


class Watch:
    """What callbacks are timed with: no time passes but what a test says, and a little at each look."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


watch = Watch()


@pytest.fixture
def debugged(backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """A loop in debug mode, for which every callback that takes any time at all is slow."""
    monkeypatch.setattr("evloop._debug.perf_counter", watch)
    with Loop(backend=backend, debug=True) as loop:
        loop.slow_callback_duration = 0.0
        yield loop


def line_of(function: Callable[..., object]) -> str:
    code = inspect.unwrap(function).__code__
    return f"{code.co_filename}:{code.co_firstlineno} "


def test_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVLOOP_DEBUG", raising=False)
    with Loop() as loop:
        assert loop.get_debug() == sys.flags.dev_mode
    for text, wanted in (("1", True), ("0", sys.flags.dev_mode), ("", sys.flags.dev_mode)):
        monkeypatch.setenv("EVLOOP_DEBUG", text)
        with Loop() as loop:
            assert loop.get_debug() == wanted
    with Loop(debug=False) as loop:
        assert not loop.get_debug()
        loop.slow_callback_duration = 5
        assert loop.slow_callback_duration == 0.1
    with Loop(debug=True) as loop:
        assert loop.slow_callback_duration == 0.1
        loop.slow_callback_duration = 5
        assert loop.slow_callback_duration == 5


def test_python_s_development_mode_is_ours() -> None:
    script = "import evloop\nwith evloop.Loop() as loop: assert loop.get_debug()"
    subprocess.run([sys.executable, "-X", "dev", "-c", script], check=True, timeout=30)


# -- slow callbacks -------------------------------------------------------------------------------------------------------------


def slow() -> None:
    watch.now += 2


def slow_with(*_: object) -> None:
    slow()


KINDS: dict[str, Callable[[Loop, socket.socket], object]] = {
    "call_soon": lambda loop, end: loop.call_soon(slow_with),
    "defer": lambda loop, end: loop.defer(slow_with),
    "defer with arguments": lambda loop, end: loop.defer(slow_with, 1),
    "threadsafe": lambda loop, end: loop.call_soon_threadsafe(slow_with),
    "timer": lambda loop, end: loop.call_later(0, slow_with),
    "two timers": lambda loop, end: (loop.call_at(0, int), loop.call_at(0, slow_with)),
    "every": lambda loop, end: loop.call_every(0.001, slow_with),
    "watcher": lambda loop, end: loop.watch(end.fileno(), WRITE, slow_with),
    "reader": lambda loop, end: loop.add_reader(end.fileno(), slow_with),
    "writer": lambda loop, end: loop.add_writer(end.fileno(), slow_with, 1),
    "idle": lambda loop, end: loop.on_idle(slow_with),
    "observer": lambda loop, end: loop.observe(iter(range(10**6)).__next__, slow_with),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_callback_is_named_with_its_line(debugged: Loop, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    debugged.slow_callback_duration = 1.5
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if kind == "reader":
            theirs.send(b"x")
        KINDS[kind](debugged, ours)
        run_until(debugged, lambda: caplog.records)
        warning = caplog.records[0]
        assert (warning.name, warning.levelno) == ("evloop", logging.WARNING)
        message = warning.getMessage()
        assert message.startswith(f"callback slow_with at {line_of(slow_with)}took 2.000 s")
        assert not [record for record in caplog.records if "slow_with" not in record.getMessage()]
        assert debugged.stats().longest_callback >= 2
        for watcher in list(debugged._watchers.values()):
            watcher.close()
        debugged.remove_reader(ours.fileno())
        debugged.remove_writer(ours.fileno())


def test_quick_callbacks_are_not(debugged: Loop, caplog: pytest.LogCaptureFixture) -> None:
    debugged.slow_callback_duration = 30
    ran: list[int] = []
    debugged.call_soon(ran.append, 1)
    debugged.call_later(0, ran.append, 2)
    cancelled = debugged.call_soon(ran.append, 3)
    cancelled.cancel()
    run_until(debugged, lambda: len(ran) == 2)
    assert not caplog.records


@pytest.mark.parametrize("kind", ["call_soon", "timer", "watcher"])
def test_a_slow_callback_that_raises_is_both(debugged: Loop, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    reports: list[dict[str, Any]] = []
    debugged.set_exception_handler(lambda _, context: reports.append(context))

    def fail(*_: object) -> None:
        if kind == "watcher":
            watcher.close()
        slow()
        raise ValueError

    r, w = os.pipe()
    if kind == "call_soon":
        debugged.call_soon(fail)
    elif kind == "timer":
        debugged.call_later(0, fail)
    else:
        watcher = debugged.watch(w, WRITE, fail)
    run_until(debugged, lambda: reports)
    assert [type(report["exception"]) for report in reports] == [ValueError]
    assert "fail at" in caplog.records[0].getMessage()
    os.close(r)
    os.close(w)


def test_methods_and_partials_are_named(debugged: Loop, caplog: pytest.LogCaptureFixture) -> None:
    class Thing:
        def method(self) -> None:
            slow()

    debugged.call_soon(Thing().method)
    debugged.call_soon(time.sleep, 0)  # has no line
    debugged.run_once(0)
    messages = [record.getMessage() for record in caplog.records]
    assert f"Thing.method at {line_of(Thing.method)}" in messages[0]
    assert messages[1].startswith("callback sleep took")


# -- watchers that nobody closes ------------------------------------------------------------------------------------------------


def test_watchers_never_closed_are_named_with_where_they_were_made(backend: str) -> None:
    r, w = os.pipe()
    loop = Loop(backend=backend, debug=True)
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    loop.watch(r, READ, print)
    loop.add_writer(w, print)
    with pytest.warns(ResourceWarning, match=r"was never closed") as caught:
        loop.close()
    assert [str(warning.message) for warning in caught] == [
        f"the watcher of fd {r}, made at {__file__}:{line}, was never closed",
        f"the watcher of fd {w}, made at {__file__}:{line + 1}, was never closed",
    ]
    assert all(warning.filename == __file__ for warning in caught)
    os.close(r)
    os.close(w)


def test_a_warning_that_is_an_error_does_not_keep_the_loop_open(backend: str) -> None:
    r, w = os.pipe()
    with checked_loop(backend):  # looks for leaks
        loop = Loop(backend=backend, debug=True)
        loop.watch(r, READ, print)
        loop.watch(w, WRITE, print)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ResourceWarning, match="never closed"):
                loop.close()
        assert loop.is_closed()
        loop.close()
    os.close(r)
    os.close(w)


def test_what_the_loop_watches_itself_is_not_complained_of(backend: str) -> None:
    """The wake-up descriptor of signals is the loop's own."""
    loop = Loop(backend=backend, debug=True)
    loop.add_signal_handler(signal.SIGUSR1, int)
    loop.call_soon(loop.stop)
    loop.run()
    loop.close()


# -- threads --------------------------------------------------------------------------------------------------------------------


def test_calls_from_wrong_threads(debugged: Loop, pipe: tuple[int, int]) -> None:
    debugged.slow_callback_duration = 30
    watcher = debugged.watch(pipe[0], READ, print)
    debugged.add_writer(pipe[1], int)
    timer = debugged.call_later(1000, int)
    paused = debugged.call_later(1000, int)
    paused.pause()
    spare = os.dup(pipe[0])
    idle = debugged.on_idle(int)
    observed = debugged.observe(int, print)
    debugged.on_close(int)
    uses: list[Callable[[], object]] = [
        lambda: debugged.call_soon(int),
        lambda: debugged.defer(int),
        lambda: debugged.call_later(1, int),
        lambda: debugged.call_at(1, int),
        lambda: debugged.call_every(1, int),
        lambda: debugged.on_idle(int),
        lambda: debugged.observe(int, print),
        lambda: debugged.watch(spare, READ, print),
        lambda: debugged.add_reader(spare, int),
        lambda: debugged.add_writer(pipe[1], int),
        lambda: debugged.add_reader(pipe[1], int),
        lambda: debugged.remove_writer(pipe[1]),
        lambda: watcher.modify(WRITE),
        watcher.rearm,
        watcher.close,
        timer.cancel,
        timer.pause,
        paused.resume,
        lambda: timer.reschedule(5),
        idle.cancel,
        observed.cancel,
        debugged.flush,
        debugged.stats,
        lambda: debugged.on_close(print),
        lambda: debugged.remove_on_close(int),
        lambda: debugged.set_exception_handler(None),
        lambda: debugged.remove_signal_handler(signal.SIGUSR1),
    ]
    outcomes: list[object] = []

    def use_all() -> None:
        for use in uses:
            try:
                use()
            except WrongThreadError as error:
                outcomes.append(str(error))
            else:
                outcomes.append(use)
        debugged.call_soon_threadsafe(outcomes.append, "posted")
        debugged.stop()

    thread = threading.Thread(target=use_all)
    debugged.call_soon(thread.start)
    debugged.run()
    thread.join()
    debugged.run_once(0)
    assert outcomes.pop() == "posted"
    assert len(outcomes) == len(uses)
    for use, outcome in zip(uses, outcomes, strict=True):
        assert isinstance(outcome, str), inspect.getsource(use)
        assert f"the loop runs in thread {threading.get_ident()}, this is thread {thread.ident}" in outcome
        assert "use call_soon_threadsafe" in outcome
    # Nothing of it has had an effect.
    assert not watcher.closed
    assert not timer.cancelled()
    assert not timer.paused()
    assert paused.paused()
    assert debugged.stats().timers_pending == 1
    assert debugged.stats().watchers >= 2
    assert debugged._idle == [idle]
    assert debugged._observed == [observed]
    assert debugged.remove_on_close(int)
    watcher.close()
    debugged.remove_writer(pipe[1])
    os.close(spare)


def test_a_loop_that_does_not_run_may_be_used_by_any_thread(debugged: Loop) -> None:
    """As long as it is one at a time: a loop is often made in one thread and run in another."""
    ran: list[int] = []
    thread = threading.Thread(target=lambda: (debugged.call_soon(ran.append, 1), debugged.call_later(0, ran.append, 2)))
    thread.start()
    thread.join()
    run_until(debugged, lambda: len(ran) == 2)


# -- forked children ------------------------------------------------------------------------------------------------------------


def test_a_forked_child_refuses_to_run(loop: Loop, pipe: tuple[int, int]) -> None:
    def check() -> None:
        for use in (
            loop.run,
            lambda: loop.run_once(0),
            lambda: loop.run_until(lambda: True),
            lambda: loop.backend,
            lambda: loop.address,
            lambda: loop.watch(pipe[0], READ, print),
            lambda: loop.add_reader(pipe[0], print),
            lambda: loop.add_signal_handler(10, print),
            lambda: loop.attach(None),
            loop.stats,
        ):
            with pytest.raises(ForkedLoopError, match="the child process needs a loop of its own"):
                use()
        loop.close()
        loop.close()
        assert loop.is_closed()
        with checked_loop(None) as own:
            own.call_soon(own.stop)
            own.run()

    in_child(check)


def test_the_parent_is_undisturbed_by_what_its_child_closes(loop: Loop) -> None:
    """The kernel's side of the loop is shared: what the child takes out of it would be gone in the parent."""
    got: list[bytes] = []
    ours, theirs = socket.socketpair()
    r, w = os.pipe()
    with ours, theirs:
        ours.setblocking(False)
        fd = ours.fileno()
        loop.add_reader(fd, lambda: got.append(ours.recv(10)))
        loop.add_writer(fd, lambda: loop.remove_writer(fd))
        watcher = loop.watch(r, READ, lambda fd, ready: got.append(os.read(fd, 10)))
        fired: list[int] = []
        timer = loop.call_later(0.001, fired.append, 1)

        def check() -> None:
            timer.cancel()
            loop.call_later(0, int)
            loop.remove_writer(fd)
            loop.remove_reader(fd)
            with pytest.raises(ForkedLoopError):
                watcher.modify(WRITE)
            watcher.rearm()
            watcher.close()
            watcher.close()
            loop.flush()
            loop.stop()
            loop.call_soon_threadsafe(int)
            loop.close()

        in_child(check)
        theirs.send(b"socket")
        os.write(w, b"pipe")
        run_until(loop, lambda: len(got) == 2 and fired)
        assert sorted(got) == [b"pipe", b"socket"]
        assert loop.stats().wakeups == 0
        watcher.close()
        loop.remove_reader(fd)
    os.close(r)
    os.close(w)


def test_watchers_are_closed_after_the_loop_in_a_child(loop: Loop, pipe: tuple[int, int]) -> None:
    watcher = loop.watch(pipe[0], READ, print)
    loop.add_writer(pipe[1], int)

    def check() -> None:
        loop.close()
        watcher.close()
        watcher.rearm()
        loop.remove_writer(pipe[1])
        assert watcher.closed

    in_child(check)
    watcher.close()


def test_a_fork_in_the_middle_of_a_callback(loop: Loop) -> None:
    ran: list[str] = []

    def fork() -> None:
        in_child(loop.close)
        ran.append("parent")

    loop.call_soon(fork)
    loop.call_soon(ran.append, "after")
    loop.run_once(0)
    assert ran == ["parent", "after"]


def test_a_signal_to_the_child_is_not_told_to_the_parent(loop: Loop) -> None:
    """The C-level handler writes to the wake-up descriptor that was current at the fork."""
    got: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, got.append, 1)

    def check() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(100):
            pass  # Python's part of the handler has run by now

    in_child(check)
    for _ in range(3):
        loop.run_once(0)
    assert got == []
    signal.raise_signal(signal.SIGUSR1)
    run_until(loop, lambda: got)
    assert got == [1]
