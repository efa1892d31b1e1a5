"""Debug mode: slow callbacks, calls from wrong threads, watchers that were never closed. It costs a clock reading per callback."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

from evloop._errors import WrongThreadError
from evloop._handles import describe

__all__ = ["Debug", "caller", "named"]

logger = logging.getLogger("evloop")


class Debug:
    """What a loop keeps in debug mode.

    Attributes:
        slow_callback_duration: Seconds; a callback that takes longer is logged as a warning, with its source line.
        longest_callback: Seconds that the slowest callback has taken.
    """

    def __init__(self) -> None:
        self.slow_callback_duration = 0.1
        self.longest_callback = 0.0
        self._inner = 0.0  # of the time being measured, what callbacks that were called by it have been measured for

    @staticmethod
    def wanted(debug: bool | None) -> Debug | None:
        """A `Debug`, when asked for by argument, ``EVLOOP_DEBUG=1`` or Python's development mode."""
        if debug is None:
            debug = sys.flags.dev_mode or os.environ.get("EVLOOP_DEBUG", "") not in ("", "0")
        return Debug() if debug else None

    def timed(self, callback: object, run: Callable[[], object]) -> None:
        """Call ``run()`` and complain about ``callback`` when that took long, without what it called by `timed` itself."""
        outer, self._inner = self._inner, 0.0
        start = perf_counter()
        try:
            run()
        finally:
            took = perf_counter() - start - self._inner
            self.longest_callback = max(self.longest_callback, took)
            if took > self.slow_callback_duration:
                logger.warning("callback %s took %.3f s", describe(callback), took)
            self._inner = outer + perf_counter() - start  # with the logging, which is not the caller's doing

    def timed_targets(self, targets: list[Callable[[Any], object]]) -> Any:
        """Stand in for the list of targets, so that each call is timed."""
        return _TimedTargets(self, targets)

    def check_thread(self, running_in: int | None) -> None:
        """Raise `WrongThreadError` when the loop runs in a thread that is not this one."""
        if running_in is not None and running_in != threading.get_ident():
            raise WrongThreadError(
                f"the loop runs in thread {running_in}, this is thread {threading.get_ident()}: use call_soon_threadsafe"
            )


class _TimedTargets:
    def __init__(self, debug: Debug, targets: list[Callable[[Any], object]]) -> None:
        self._debug = debug
        self._targets = targets

    def __getitem__(self, index: int) -> Callable[[Any], None]:
        target = self._targets[index]
        return lambda record: self._debug.timed(named(target), lambda: target(record))


def named(target: Callable[..., object]) -> Any:
    """The callback behind a target: what a watcher or server calls tells more than its own method."""
    return getattr(getattr(target, "__self__", None), "_debug_name", lambda: target)()


def caller() -> str:
    """Where the code outside this package is that called it: ``app.py:12``."""
    for name, line, package in _frames():
        if package != "evloop":
            return f"{name}:{line}"
    return "?"


def _frames() -> Iterator[tuple[str, int, str]]:
    frame = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        yield frame.f_code.co_filename, frame.f_lineno, package
        if frame.f_back is None:
            return
        frame = frame.f_back
