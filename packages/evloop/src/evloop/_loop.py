"""The loop. `Loop._turn` is the crossing into C, `Loop._dispatch` the other half of the turn; the rest prepares for them."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from itertools import islice
from operator import length_hint
from struct import Struct
from time import monotonic, perf_counter_ns
from types import TracebackType
from typing import Any

from evloop._errors import LoopClosedError, LoopRunningError, check
from evloop._handles import Handle, TimerHandle
from evloop._shim import ffi, lib
from evloop._signals import SignalWatch

__all__ = ["READ", "WRITE", "Loop", "Record"]

logger = logging.getLogger("evloop")

READ, WRITE = 1, 2
_RECORD = Struct("<qqq8s")
# One entry of the submission ring: payload length, operation | module << 8, argument, id (see evloop.h).
_TIMER_START = Struct("<IHHQQ")
_TIMER_STOP = Struct("<IHHQ")
_OP_TIMER_START, _OP_TIMER_STOP = 1, 2
_TARGET_TIMER = 1

# Flags in the result of a turn (shim.h).
_MOVED, _WAS_SLOW = 1 << 63, 1 << 62

# When the handlers of a batch have run longer than this, what has been submitted is flushed before the next one runs.
_FLUSH_AFTER_NS = 500_000
# Handlers between two looks at the clock. After a slow batch every handler is followed by a look, until they are quick again.
_STRIDE = 16

_FOREVER = 9e9  # seconds, 285 years: in ns it fits in 63 bits

_turn, _flush = lib.ev_turn, lib.ev_flush

ExceptionHandler = Callable[["Loop", dict[str, Any]], object]


# A completion (struct ev_record): target, two numbers whose meaning is the target's business, and the token that goes back with
# what is submitted in answer.
Record = tuple[int, int, int, bytes]


def _nobody(record: Record) -> None:
    """Take the records of a target that was dropped while they were under way."""


class Loop:
    """An event loop. It belongs to the thread that runs it.

    Args:
        backend: ``"epoll"`` or ``"poll"``; by default ``EVLOOP_BACKEND`` from the environment, else the best of this system.

    Raises:
        ValueError: There is no such backend here.
        OSError: The system has no descriptors left.

    Thread safety: only `call_soon_threadsafe` and `stop` may be called from another thread.

    For native protocols (evnet and what stands on it) there are also ``submissions``, the list of bytes that the next turn takes
    down to C, ``arena``, the bytes that the records of this batch speak of, ``address``, and `add_target`.
    """

    def __init__(self, *, backend: str | None = None) -> None:
        name = backend or os.environ.get("EVLOOP_BACKEND") or None
        out = ffi.new("ev_loop **")
        result = lib.ev_loop_open(ffi.NULL if name is None else name.encode(), out)
        if name is not None and name not in backend_names():
            raise ValueError(f"backend {name!r} is not one of {', '.join(backend_names())}")
        check(result, "open a loop")
        self._ptr = out[0]
        self.submissions: list[bytes] = []
        self.arena = b""
        self._remap()
        self._batch: Iterator[Record] | None = None
        self._stride = _STRIDE
        self._targets: list[Callable[[Record], object]] = [_nobody, self._timer_fired]
        self._free_targets: list[int] = []
        self._limbo_targets: list[int] = []
        self._timers: list[TimerHandle | None] = []
        self._free_timers: list[int] = []
        self._limbo_timers: list[int] = []
        self._ready: deque[Handle] = deque()
        self._posted: deque[Handle] = deque()
        self._wake_lock = threading.Lock()
        self._watched: dict[int, _FdWatch] = {}
        self._closers: list[Callable[[], object]] = []
        self._signals: SignalWatch | None = None
        self._exception_handler: ExceptionHandler | None = None
        self._thread: int | None = None
        self._asleep = False
        self._stopping = False
        self._closed = False

    # -- running ---------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until `stop` is called.

        Raises:
            KeyboardInterrupt: Ctrl-C, in the main thread, when no handler for SIGINT was added. The loop stays usable.
            LoopRunningError: The loop is running already.
        """
        self._enter()
        guard: SignalWatch | None = None
        try:
            if threading.current_thread() is threading.main_thread():
                if self._signals is None:
                    self._signals = SignalWatch(self)
                guard = self._signals
                guard.hold_interrupts()
            while not self._stopping:
                self._turn(-1)
            self.flush()  # the answers of the last batch
        finally:
            if guard is not None:
                guard.release_interrupts()
            self._stopping = False
            self._thread = None

    def run_once(self, timeout: float | None = None) -> None:
        """Run one turn: callbacks that are ready, then what happens within ``timeout`` seconds (``None``: wait for something)."""
        self._enter()
        try:
            self._turn(-1 if timeout is None else _nanoseconds(timeout, "timeout"))
        finally:
            self._stopping = False
            self._thread = None

    def stop(self) -> None:
        """End `run` after the present batch. Thread safety: any thread."""
        self._stopping = True
        self._wake()

    def close(self) -> None:
        """Release everything; connections are aborted, callbacks that wait are dropped. Calling this again does nothing.

        Raises:
            LoopRunningError: The loop is running.
        """
        if self._closed:
            return
        if self._thread is not None:
            raise LoopRunningError("a running loop cannot be closed; call stop() first")
        self.flush()  # descriptors and borrowed memory in what was submitted have an owner then
        if self._signals is not None:
            self._signals.close()
            self._signals = None
        for closer in reversed(self._closers):
            closer()
        self._closers.clear()
        for fd in list(self._watched):
            self._unwatch(fd, READ | WRITE)
        with self._wake_lock:
            self._closed = True
            lib.ev_loop_close(self._ptr)
            self._ptr = ffi.NULL
        self._ready.clear()
        self._posted.clear()
        self.submissions.clear()
        self._timers.clear()

    def _enter(self) -> None:
        self._check_open()
        if self._thread is not None:
            raise LoopRunningError("the loop is running already")
        self._thread = threading.get_ident()

    def _check_open(self) -> None:
        if self._closed:
            raise LoopClosedError("the loop is closed")

    def _turn(self, timeout_ns: int) -> None:
        if self._batch is not None:  # what an interrupt left of the last one
            self._dispatch(self._batch)
        ready = self._ready
        if ready:
            for _ in range(len(ready)):
                ready.popleft()._run()
        submissions = self.submissions
        submitted = b"".join(submissions)
        submissions.clear()
        # Before looking at what other threads may have done: one that comes after this look sees that it has to wake us.
        self._asleep = True
        if ready or self._posted or self._stopping:
            timeout_ns = 0
        result = _turn(self._ptr, submitted, len(submitted), timeout_ns)
        self._asleep = False
        if self._posted:
            self._take_posted()
        if self._limbo_targets or self._limbo_timers:
            self._settle()
        if result:
            if result >= _WAS_SLOW:
                result = self._take_flags(result)
            count, used = result & 0xFFFFFF, result >> 24
            if used:
                self.arena = self._arena_view[:used]
            self._batch = batch = _RECORD.iter_unpack(self._record_view[: count * 32])
            if count > self._stride:
                self._dispatch(batch)
                return
            # So few that there is nothing to measure in between: C tells whether they were slow all the same.
            targets = self._targets
            try:
                for record in batch:
                    targets[record[0]](record)
            except Exception as error:
                self._report(error)
                self._dispatch(batch)
            self._batch = None

    def _take_flags(self, result: int) -> int:
        """Do what the flags in the result of a turn ask for, and return it without them."""
        if result & _MOVED:
            self._remap()
        if result & _WAS_SLOW:
            self._stride = 0
        return result & ~(_MOVED | _WAS_SLOW)

    def _dispatch(self, batch: Iterator[Record]) -> None:
        """Call the targets of a batch, and flush what they have submitted whenever they have taken long."""
        targets, stride = self._targets, self._stride
        flush_at = perf_counter_ns() + _FLUSH_AFTER_NS
        while length_hint(batch):
            try:
                for record in islice(batch, stride or 1):
                    targets[record[0]](record)
            except Exception as error:
                self._report(error)
            if perf_counter_ns() < flush_at:
                stride = min(stride * 2 or 1, _STRIDE)
            else:
                stride = 0
                self.flush()
                flush_at = perf_counter_ns() + _FLUSH_AFTER_NS
        self._stride = stride
        self._batch = None

    def _report(self, error: Exception) -> None:
        self.call_exception_handler({"message": "exception in an event callback", "exception": error})

    def flush(self) -> None:
        """Hand what has been submitted to the kernel now, not at the end of the batch. One crossing into C.

        Thread safety: loop thread only.
        """
        if self.submissions and not self._closed:
            submitted = b"".join(self.submissions)
            self.submissions.clear()
            _flush(self._ptr, submitted, len(submitted))

    def _remap(self) -> None:
        self._record_view = ffi.buffer(lib.ev_records(self._ptr), lib.ev_record_capacity(self._ptr) * _RECORD.size)
        self._arena_view = ffi.buffer(lib.ev_arena(self._ptr), lib.ev_arena_capacity(self._ptr))

    # -- callbacks -------------------------------------------------------------------------------------------------------------

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:
        """Call ``callback(*args)`` before the next poll; what it adds itself runs in the turn after that."""
        self._check_open()
        handle = Handle(self, _callable(callback), args, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """As `call_soon`, from any thread. The loop is woken only if it sleeps.

        Raises:
            LoopClosedError: The loop is closed.
        """
        self._check_open()
        handle = Handle(self, _callable(callback), args, context)
        self._posted.append(handle)
        if self._asleep:
            self._wake()
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        """Call ``callback(*args)`` in ``delay`` seconds: never earlier, at best a millisecond later.

        Raises:
            ValueError: The delay is negative or not a number.
        """
        if not delay >= 0:
            raise ValueError(f"delay must be a number of seconds >= 0, not {delay!r}")
        return self.call_at(monotonic() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        """Call ``callback(*args)`` at ``when`` on the clock of `time`; at once if that has passed.

        Raises:
            ValueError: ``when`` is not a number or infinite.
        """
        self._check_open()
        if not math.isfinite(when):
            raise ValueError(f"when must be a finite number of seconds, not {when!r}")
        index = self._free_timers.pop() if self._free_timers else self._new_timer()
        handle = TimerHandle(self, when, index, _callable(callback), args, context)
        self._timers[index] = handle
        due = math.ceil(min(max(when, 0.0), _FOREVER) * 1e9)
        self.submissions.append(_TIMER_START.pack(8, _OP_TIMER_START, 0, index, due))
        return handle

    def time(self) -> float:
        """Seconds on the loop's clock, which is `time.monotonic`."""
        return monotonic()

    def _new_timer(self) -> int:
        self._timers.append(None)
        return len(self._timers) - 1

    def _timer_fired(self, record: Record) -> None:
        index = record[1]
        handle = self._timers[index]
        if handle is not None:
            self._timers[index] = None
            self._free_timers.append(index)
            handle._run()

    def _drop_timer(self, index: int) -> None:
        if not self._closed:
            self._timers[index] = None
            # Not yet free: the record that says it fired may be in this batch.
            self._limbo_timers.append(index)
            self.submissions.append(_TIMER_STOP.pack(0, _OP_TIMER_STOP, 0, index))

    def _settle(self) -> None:
        """Give back what was dropped in the last batch, now that no record of that batch is left."""
        self._free_targets += self._limbo_targets
        self._free_timers += self._limbo_timers
        self._limbo_targets.clear()
        self._limbo_timers.clear()

    def _take_posted(self) -> None:
        posted, ready = self._posted, self._ready
        for _ in range(len(posted)):
            ready.append(posted.popleft())

    def _wake(self) -> None:
        if self._asleep:
            self._asleep = False  # one wake-up for all who post meanwhile
            with self._wake_lock:
                if not self._closed:
                    lib.ev_wake(self._ptr)

    # -- descriptors -----------------------------------------------------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> Handle:
        """Call ``callback(*args)`` whenever ``fd`` can be read, or has been hung up. A second call replaces the first.

        Raises:
            OSError: The descriptor is closed, or of a kind that cannot be waited for (a regular file).
        """
        return self._watch(fd, READ, callback, args)

    def remove_reader(self, fd: int) -> bool:
        """Stop watching ``fd`` for reading; whether it was watched."""
        return self._unwatch(fd, READ)

    def add_writer(self, fd: int, callback: Callable[..., object], *args: Any) -> Handle:
        """Call ``callback(*args)`` whenever ``fd`` can be written to. Errors: as `add_reader`."""
        return self._watch(fd, WRITE, callback, args)

    def remove_writer(self, fd: int) -> bool:
        """Stop watching ``fd`` for writing; whether it was watched."""
        return self._unwatch(fd, WRITE)

    def _watch(self, fd: int, direction: int, callback: Callable[..., object], args: tuple[Any, ...]) -> Handle:
        self._check_open()
        handle = _RepeatingHandle(self, _callable(callback), args, None)
        watch = self._watched.get(fd)
        if watch is None:
            watch = _FdWatch(self, fd, direction)
            self._watched[fd] = watch
        else:
            watch.set_events(watch.events | direction)
        watch.handles[direction] = handle
        return handle

    def _unwatch(self, fd: int, direction: int) -> bool:
        watch = self._watched.get(fd)
        if watch is None or not watch.events & direction:
            return False
        for each in (READ, WRITE):
            if direction & each:
                watch.handles.pop(each, None)
        left = watch.events & ~direction
        if left:
            watch.set_events(left)
        else:
            del self._watched[fd]
            watch.close()
        return True

    # -- signals, errors, life -------------------------------------------------------------------------------------------------

    def add_signal_handler(self, number: int, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback(*args)`` through the loop when the signal arrives; `close` restores what was there before.

        Raises:
            EvLoopError: Not in the main thread.
            OSError: The signal cannot be caught.
        """
        self._check_open()
        if self._signals is None:
            self._signals = SignalWatch(self)
        self._signals.add(number, _callable(callback), args)

    def remove_signal_handler(self, number: int) -> bool:
        """Restore what handled the signal before; whether there was a handler of ours."""
        return self._signals is not None and self._signals.remove(number)

    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        """Call ``handler(loop, context)`` for an exception in a callback; ``None`` restores logging. As in asyncio."""
        self._exception_handler = handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an exception: ``context`` has ``message`` and usually ``exception``."""
        if self._exception_handler is not None:
            try:
                self._exception_handler(self, context)
            except Exception:
                logger.exception("exception in the loop's exception handler, called for: %s", context.get("message"))
        else:
            logger.error("%s", context["message"], exc_info=context.get("exception"))

    @property
    def backend(self) -> str:
        """The name of the system call that waits: ``"epoll"`` or ``"poll"``."""
        self._check_open()
        return ffi.string(lib.ev_loop_backend(self._ptr)).decode()

    def is_running(self) -> bool:
        """Whether a thread is in `run` or `run_once`."""
        return self._thread is not None

    def is_closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    def __enter__(self) -> Loop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- for native protocols --------------------------------------------------------------------------------------------------

    @property
    def address(self) -> int:
        """The address of the ``ev_loop``, for the C interface of the packages above."""
        self._check_open()
        return int(ffi.cast("uintptr_t", self._ptr))

    def add_target(self, callback: Callable[[Record], object]) -> int:
        """Make ``callback`` the receiver of records, and return the number that C puts first in them."""
        if self._free_targets:
            target = self._free_targets.pop()
            self._targets[target] = callback
        else:
            target = len(self._targets)
            self._targets.append(callback)
        return target

    def drop_target(self, target: int) -> None:
        """Let a target go. It gets no record of this batch any more, and its number is used again only after the batch."""
        self._targets[target] = _nobody
        self._limbo_targets.append(target)

    def on_close(self, closer: Callable[[], object]) -> None:
        """Call ``closer()`` when the loop is closed, before its memory goes; the last one added is called first."""
        self._closers.append(closer)


class _RepeatingHandle(Handle):
    """The handle of a reader or writer: it runs each time."""

    __slots__ = ()

    def _run(self) -> None:
        callback = self._callback
        if callback is not None:
            self._context.run(callback, *self._args)


class _FdWatch:
    """One descriptor, watched in C for up to two callbacks."""

    __slots__ = ("_loop", "_ptr", "_target", "events", "fd", "handles")

    def __init__(self, loop: Loop, fd: int, events: int) -> None:
        self._loop = loop
        self.fd = fd
        self.events = events
        self.handles: dict[int, Handle] = {}
        self._target = loop.add_target(self._on_ready)
        out = ffi.new("struct ev_pywatcher **")
        try:
            check(lib.ev_fd_watch(loop._ptr, fd, events, self._target, out), f"watch fd {fd}")
        except OSError:
            loop.drop_target(self._target)
            raise
        self._ptr = out[0]

    def set_events(self, events: int) -> None:
        if events != self.events:
            check(lib.ev_fd_modify(self._loop._ptr, self._ptr, events), f"watch fd {self.fd}")
            self.events = events

    def close(self) -> None:
        lib.ev_fd_unwatch(self._loop._ptr, self._ptr)
        self._loop.drop_target(self._target)

    def _on_ready(self, record: Record) -> None:
        ready = record[1]
        for direction in (READ, WRITE):
            # Looked up each time: the first callback may have removed the second.
            handle = self.handles.get(direction) if ready & direction else None
            if handle is not None:
                handle._run()


def backend_names() -> list[str]:
    names: list[str] = []
    while (name := lib.ev_backend_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


def _callable(callback: Callable[..., object]) -> Callable[..., object]:
    if not callable(callback):
        raise TypeError(f"a callback must be callable, not {callback!r}")
    return callback


def _nanoseconds(seconds: float, what: str) -> int:
    if not seconds >= 0:
        raise ValueError(f"{what} must be a number of seconds >= 0, not {seconds!r}")
    return math.ceil(min(seconds, _FOREVER) * 1e9)
