"""For tests of this package and of those above it. Needs no test framework.

`checked_loop` gives a loop that must be left clean, `run_until` runs it without guessing how long something takes.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from evloop._loop import Loop, backend_names

__all__ = ["backends", "checked_loop", "open_descriptors", "run_until"]

_PATIENCE = 10.0


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


def _describe(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return "?"
