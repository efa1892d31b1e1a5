"""For tests of this package and of those above it. Needs no test framework.

`checked_loop` gives a loop that must be left clean, `run_until` runs it without guessing how long something takes. `ManualClock`
makes time a thing that the test moves, `ScriptedPoller` does the same for readiness: with both, the outside world has no say.
"""

from __future__ import annotations

import gc
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from evloop._errors import check
from evloop._loop import Loop, backend_names
from evloop._shim import lib

__all__ = ["ManualClock", "ScriptedPoller", "backends", "checked_loop", "in_child", "open_descriptors", "run_until"]

_PATIENCE = 30.0


def backends() -> list[str]:
    """The names of the backends of this machine, best first."""
    return backend_names()


def open_descriptors() -> set[int]:
    """The descriptors that this process has open."""
    numbers = {int(name) for name in os.listdir("/dev/fd")}
    return {number for number in numbers if _is_open(number)}  # the one of the listing itself is gone by now


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@contextmanager
def checked_loop(backend: str | None = None) -> Iterator[Loop]:
    """A loop that is closed at the end.

    Raises:
        AssertionError: At the end a descriptor is open that was not before, or an exception of a callback was reported
            (unless the test has set an exception handler of its own).
    """
    gc.collect()  # what an earlier test dropped must not be closed in the middle of this one
    before = open_descriptors()
    reported: list[dict[str, Any]] = []
    loop = Loop(backend=backend)
    loop.set_exception_handler(lambda _, context: reported.append(context))
    try:
        yield loop
    finally:
        loop.close()
    leaked = {number: _describe(number) for number in open_descriptors() - before}
    if leaked:
        raise AssertionError(f"descriptors left open: {leaked}")
    if reported:
        raise AssertionError(f"exceptions in callbacks: {reported}") from reported[0].get("exception")


def run_until(loop: Loop, condition: Callable[[], object], patience: float = _PATIENCE) -> None:
    """Run turns until ``condition()`` is true.

    Raises:
        TimeoutError: It was not within ``patience`` seconds.
    """
    deadline = monotonic() + patience
    while not condition():
        if monotonic() > deadline:
            raise TimeoutError(f"waited {patience} s in vain")
        loop.run_once(0.05)


def in_child(check: Callable[[], object]) -> None:
    """Run ``check()`` in a forked child.

    Raises:
        AssertionError: It has raised, which stands in stderr, or the child has died.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
        pid = os.fork()
    if pid == 0:
        try:
            check()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise AssertionError(f"the forked child has ended with {code}; see stderr")


class ManualClock:
    """A clock that stands still until the test moves it; it takes the place of the loop's from now on.

    The loop does not sleep any more: a turn that would wait ends at once.

    Args:
        loop: A loop that is not running.
        now: The time in seconds at which the clock begins; not before the loop's present time, for clocks do not go back.
    """

    def __init__(self, loop: Loop, now: float | None = None) -> None:
        loop._check_open()
        start = loop.time()
        self._loop = loop
        self._now = start + 1.0 if now is None else now
        if self._now < start:
            raise ValueError(f"the clock cannot go back from {start} to {self._now}")
        loop.time = self.time
        self._set()

    def time(self) -> float:
        """The time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock and run turns until everything that is due has been called.

        Raises:
            ValueError: Backwards.
        """
        self.pass_time(seconds)
        self._loop.run_once(0)
        while self._loop._ready or self._loop._posted:
            self._loop.run_once(0)

    def pass_time(self, seconds: float) -> None:
        """Move the clock and run nothing: for a callback that takes that long.

        Raises:
            ValueError: Backwards.
        """
        if not seconds >= 0:
            raise ValueError(f"the clock cannot be moved by {seconds!r} s")
        self._now += seconds
        self._set()

    def _set(self) -> None:
        self._loop._check_open()
        lib.ev_set_clock(self._loop._ptr, max(round(self._now * 1e9), 1))


class ScriptedPoller:
    """A loop whose descriptors are ready when the test says so; it never looks at them, so any number will do.

    Attributes:
        loop: The loop, to be closed by the test.
    """

    def __init__(self) -> None:
        self.loop: Loop = Loop(backend="scripted")

    def ready(self, fd: int, events: int) -> None:
        """Report ``fd`` as ready for ``events`` (`evloop.READ`, `evloop.WRITE`) in the next turn.

        Raises:
            OSError: ``fd`` is not watched.
            LoopClosedError: The loop is closed.
        """
        self.loop._check_open()
        check(lib.ev_script(self.loop._ptr, fd, events), f"script fd {fd}")


def _describe(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return "?"
