"""The loop: its life, on top of what the other files of this package make it do."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from evloop._attach import Attachment
from evloop._callbacks import checked
from evloop._core import Record, Refusing, backend_names
from evloop._errors import LoopRunningError
from evloop._shim import ffi, lib
from evloop._signals import SignalWatch
from evloop._stats import Stats, read_stats
from evloop._watchers import READ, WRITE, Watchers

__all__ = ["READ", "WRITE", "Loop", "Record", "backend_names"]

_FOREVER = 9e9  # seconds, 285 years: in ns it fits in 63 bits


class Loop(Watchers):
    """An event loop. It belongs to the thread that runs it.

    Args:
        backend: ``"epoll"``, ``"kqueue"`` or ``"poll"``; by default ``EVLOOP_BACKEND`` from the environment, else the best of this
            system.
        debug: Name slow callbacks, calls from wrong threads and watchers that were never closed; by default when
            ``EVLOOP_DEBUG=1`` is in the environment or Python runs in development mode.

    Raises:
        ValueError: There is no such backend here.
        OSError: The system has no descriptors left.

    Thread safety: only `call_soon_threadsafe` and `stop` may be called from another thread.

    For native protocols (evnet and what stands on it) there are also ``submissions``, the list of bytes that the next turn takes
    down to C, ``arena``, the bytes that the records of this batch speak of, ``address``, and `add_target`.
    """

    __slots__ = ("_attachment", "_signals")

    def __init__(self, *, backend: str | None = None, debug: bool | None = None) -> None:
        super().__init__(backend=backend, debug=debug)
        self._signals: SignalWatch | None = None
        self._attachment: Attachment | None = None

    # -- running ---------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until `stop` is called.

        Raises:
            KeyboardInterrupt: Ctrl-C, in the main thread, when no handler for SIGINT was added. The loop stays usable.
            LoopRunningError: The loop is running already.
            LoopClosedError: It is closed.
            ForkedLoopError: The loop was made before a fork, and this is the child.
        """
        self.run_until(_never)

    def run_until(self, predicate: Callable[[], object]) -> None:
        """Run until ``predicate()`` is true or `stop` is called. Raises: as `run`.

        It is asked before each turn, and again before the turn sleeps.
        """
        self._enter()
        guard: SignalWatch | None = None
        try:
            if threading.current_thread() is threading.main_thread():
                if self._signals is None:
                    self._signals = SignalWatch(self)
                guard = self._signals
                guard.hold_interrupts()
            if predicate is _never:
                while not self._stopping:
                    self._turn(-1)
            else:
                self._until = predicate
                while not self._stopping and not predicate():
                    self._turn(-1)
            self.flush()  # the answers of the last batch
        finally:
            if guard is not None:
                guard.release_interrupts()
            self._until = None
            self._stopping = False
            self._thread = None

    def run_once(self, timeout: float | None = None) -> None:
        """Run one turn: callbacks that are ready, then what happens within ``timeout`` seconds (``None``: wait for something).

        Raises:
            ValueError: The timeout is negative or not a number.
            LoopRunningError: The loop is running already.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds >= 0, not {timeout!r}")
        self._enter()
        try:
            self._turn(-1 if timeout is None else int(min(timeout, _FOREVER) * 1e9))
        finally:
            self._stopping = False
            self._thread = None

    def stop(self) -> None:
        """End `run` after the present batch. Thread safety: any thread."""
        self._stopping = True
        self._wake()

    def attach(self, host: Any) -> Attachment:
        """Run this loop inside a running asyncio (or uvloop) loop, until the attachment is closed.

        The host watches this loop's own descriptor and its next timer, so everything that runs on this loop goes on beside the
        host's own callbacks, in its thread.

        Args:
            host: An `asyncio.AbstractEventLoop` that has ``add_reader``.

        Raises:
            LoopRunningError: This loop is running, or attached already.
            NotImplementedError: The backend has no descriptor that could be watched (``poll``).
        """
        self._check_open()
        if self._thread is not None or self._attachment is not None:
            raise LoopRunningError("the loop is running or attached already")
        self._attachment = Attachment(self, host)
        return self._attachment

    def _enter(self) -> None:
        self._check_open()
        if self._thread is not None:
            raise LoopRunningError("the loop is running already")
        self._thread = threading.get_ident()

    # -- signals ---------------------------------------------------------------------------------------------------------------

    def add_signal_handler(self, number: int, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback(*args)`` through the loop when the signal arrives; `close` restores what was there before.

        Raises:
            EvLoopError: Not in the main thread.
            OSError: The signal cannot be caught.
        """
        self._check_open()
        if self._signals is None:
            self._signals = SignalWatch(self)
        self._signals.add(number, checked(callback), args)

    def remove_signal_handler(self, number: int) -> bool:
        """Restore what handled the signal before; whether there was a handler of ours."""
        self._check_thread()
        return self._signals is not None and self._signals.remove(number)

    # -- life ------------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release everything; connections are aborted, callbacks that wait are dropped. Calling this again does nothing.

        In a forked child it only marks the loop as closed: the system's side of it is shared with the parent.

        Raises:
            LoopRunningError: The loop is running.
        """
        if self._closed:
            return
        if self._thread is not None and not self._forked:
            raise LoopRunningError("a running loop cannot be closed; call stop() first")
        complaints: list[str] = []
        if not self._forked:
            self.flush()  # descriptors and borrowed memory in what was submitted have an owner then
            if self._attachment is not None:
                self._attachment.close()
            if self._signals is not None:
                self._signals.close()
            self._run_closers()
            self.flush()  # and so have those in what the closers have submitted
            complaints = self._close_watchers()
        with self._wake_lock:
            self._closed = True
            if not self._forked:
                lib.ev_loop_close(self._ptr)
            self._ptr = ffi.NULL
        self._ready = Refusing()
        self._posted = Refusing()
        self._idle.clear()
        self._observed.clear()
        self.submissions.clear()
        self._forget_timers()
        for complaint in complaints:  # last: a filter may turn them into exceptions
            warnings.warn(complaint, ResourceWarning, stacklevel=2)

    def _run_closers(self) -> None:
        while self._closers:
            closer = self._closers.pop()
            try:
                closer()
            except Exception as error:
                self._report(error, closer)

    @property
    def backend(self) -> str:
        """The name of the system call that waits: ``"epoll"``, ``"kqueue"`` or ``"poll"``."""
        self._check_open()
        return ffi.string(lib.ev_loop_backend(self._ptr)).decode()

    @property
    def slow_callback_duration(self) -> float:
        """Debug mode: seconds after which a callback is called slow; 0.1 unless set. Setting it otherwise does nothing."""
        return self._debug.slow_callback_duration if self._debug is not None else 0.1

    @slow_callback_duration.setter
    def slow_callback_duration(self, seconds: float) -> None:
        if self._debug is not None:
            self._debug.slow_callback_duration = seconds

    def get_debug(self) -> bool:
        """Whether the loop is in debug mode."""
        return self._debug is not None

    def stats(self) -> Stats:
        """What the loop has done since it was made, and its present size; see `Stats`."""
        self._check_open()
        self._check_thread()
        return read_stats(self)

    def is_running(self) -> bool:
        """Whether a thread is in `run` or `run_once`."""
        return self._thread is not None

    def is_current(self) -> bool:
        """Whether this thread is in `run` or `run_once` of this loop. Thread safety: any thread."""
        return self._thread == threading.get_ident()

    def is_closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    def __enter__(self) -> Loop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _never() -> bool:
    return False
