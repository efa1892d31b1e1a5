"""Signals through the loop, and what was installed before."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from evloop import EvLoopError, Loop
from evloop.testing import run_until


def test_a_handler_is_called_by_the_loop(loop: Loop) -> None:
    got: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, got.append, "first")
    loop.add_signal_handler(signal.SIGUSR1, got.append, "second")  # replaces
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    run_until(loop, lambda: got)
    assert got == ["second"]


def test_a_signal_ends_a_wait(loop: Loop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    loop.run()
    timer.join()


def test_many_signals_are_each_seen(loop: Loop) -> None:
    got: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, got.append, number)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    run_until(loop, lambda: len(got) == 2)
    assert sorted(got) == [signal.SIGUSR1, signal.SIGUSR2]


def test_remove_and_close_restore(backend: str) -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    fd = signal.set_wakeup_fd(theirs.fileno())
    try:
        with Loop(backend=backend) as loop:
            loop.add_signal_handler(signal.SIGUSR1, int)
            loop.add_signal_handler(signal.SIGUSR2, int)
            assert loop.remove_signal_handler(signal.SIGUSR1)
            assert not loop.remove_signal_handler(signal.SIGUSR1)
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
        assert signal.set_wakeup_fd(fd) == theirs.fileno()
    finally:
        signal.set_wakeup_fd(fd)
        signal.signal(signal.SIGUSR1, before)
        ours.close()
        theirs.close()


def test_a_handler_that_somebody_else_installed_later_stays(loop: Loop) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    loop.add_signal_handler(signal.SIGUSR1, int)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        assert loop.remove_signal_handler(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_loops_closed_in_the_order_they_were_made(backend: str) -> None:
    """The second one must not put back a wake-up descriptor that the first one has closed."""
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    first, second = Loop(backend=backend), Loop(backend=backend)
    first.add_signal_handler(signal.SIGUSR1, int)
    second.add_signal_handler(signal.SIGUSR2, int)
    first.close()
    second.close()
    assert second.is_closed()
    left = signal.set_wakeup_fd(before)
    assert left in (-1, before)


def test_the_second_loop_to_run_gets_the_signal_that_both_want(backend: str) -> None:
    got: list[int] = []
    with Loop(backend=backend) as first, Loop(backend=backend) as second:
        first.add_signal_handler(signal.SIGUSR1, got.append, 1)
        second.add_signal_handler(signal.SIGUSR1, got.append, 2)
        os.kill(os.getpid(), signal.SIGUSR1)
        run_until(second, lambda: got)
    assert got == [2]


def test_only_in_the_main_thread(loop: Loop) -> None:
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            loop.add_signal_handler(signal.SIGUSR1, int)
        except EvLoopError as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_a_signal_that_cannot_be_caught(loop: Loop) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        loop.add_signal_handler(signal.SIGKILL, int)
    assert not loop.remove_signal_handler(signal.SIGKILL)


def test_ctrl_c_raises_and_the_loop_stays_usable(loop: Loop) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        loop.call_soon(signal.raise_signal, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            loop.run()
    finally:
        signal.signal(signal.SIGINT, before)
    got: list[int] = []
    loop.call_soon(got.append, 1)
    loop.call_later(0, loop.stop)
    loop.run()
    assert got == [1]
