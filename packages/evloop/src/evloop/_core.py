"""The crossing into C: `Core._turn` is the only call on the hot path, `Core._dispatch` the other half of the turn.

The rest of `evloop.Loop` stands on this class, each facet in a file of its own: `_callbacks`, `_timers`, `_watchers`.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from operator import length_hint
from struct import Struct
from time import monotonic, perf_counter_ns
from typing import Any

from evloop._debug import Debug, named
from evloop._errors import ForkedLoopError, LoopClosedError, check
from evloop._handles import Handle, describe
from evloop._shim import ffi, lib

__all__ = ["FLUSH_AFTER_NS", "STRIDE", "Core", "ExceptionHandler", "Record", "backend_names", "nobody"]

logger = logging.getLogger("evloop")

_RECORD = Struct("<qqq8s")

# Flags in the result of a turn (shim.h).
_MOVED, _WAS_SLOW = 1 << 63, 1 << 62

# When the handlers of a batch have run longer than this, what has been submitted is flushed before the next one runs.
FLUSH_AFTER_NS = 500_000
# Handlers between two looks at the clock. After a slow batch every handler is followed by a look, until they are quick again.
STRIDE = 16

_turn, _flush = lib.ev_turn, lib.ev_flush

# A completion (struct ev_record): target, two numbers whose meaning is the target's business, and the token that goes back with
# what is submitted in answer.
Record = tuple[int, int, int, bytes]
ExceptionHandler = Callable[[Any, dict[str, Any]], object]

_open_loops: weakref.WeakSet[Core] = weakref.WeakSet()


class Core:
    """A loop in C, and the two rings between it and Python."""

    def __init__(self, *, backend: str | None = None, debug: bool | None = None) -> None:
        name = backend or os.environ.get("EVLOOP_BACKEND") or None
        if name is not None and name not in (*backend_names(), "scripted"):
            raise ValueError(f"backend {name!r} is not one of {', '.join(backend_names())}")
        out = ffi.new("ev_loop **")
        check(lib.ev_loop_open(ffi.NULL if name is None else name.encode(), out), "open a loop")
        self._ptr = out[0]
        self.submissions: list[bytes] = []
        self.arena = b""
        self._remap()
        self._ready: list[Any] = []  # handles, and bare callables of defer
        self._posted: deque[Handle] = deque()  # by other threads
        self._idle: list[Handle] = []
        self._observed: list[Handle] = []
        self._callbacks_run = 0
        self._batch: Iterator[Record] | None = None
        self._stride = STRIDE
        self._targets: list[Callable[[Record], object]] = [nobody]
        self._free_targets: list[int] = []
        self._limbo_targets: list[int] = []
        self._limbo_timers: list[int] = []
        self._free_timers: list[int] = []
        self._closers: list[Callable[[], object]] = []
        self._exception_handler: ExceptionHandler | None = None
        self._thread: int | None = None  # that runs the loop
        self._asleep = False
        self._stopping = False
        self._closed = False
        self._forked = False
        self._debug = Debug.wanted(debug)
        # An attribute, not a method: a timer asks for it each time, and tests put their own clock here.
        self.time: Callable[[], float] = monotonic
        """Seconds on the loop's clock, which is `time.monotonic`."""
        _open_loops.add(self)

    # -- the turn --------------------------------------------------------------------------------------------------------------

    def _turn(self, timeout_ns: int) -> None:
        """Run what is ready, submit, wait, and dispatch what has come."""
        if self._batch is not None:  # what an interrupt left of the last one
            self._dispatch(self._batch)
        if self._observed:
            self._run_each(self._observed)
        if self._posted:
            self._take_posted()
        if self._ready:
            self._run_ready()
        submissions = self.submissions
        submitted = b"".join(submissions)
        submissions.clear()
        # Before looking at what other threads may have done: one that comes after this look sees that it has to wake us.
        self._asleep = True
        if self._ready or self._posted or self._stopping or self._idle:
            timeout_ns = 0
        result = _turn(self._ptr, submitted, len(submitted), timeout_ns)
        self._asleep = False
        if self._limbo_targets or self._limbo_timers:
            self._settle()
        if not result:
            if self._idle and not self._ready and not self._posted:
                self._run_each(self._idle)
            return
        if result >= _WAS_SLOW:
            result = self._take_flags(result)
        count, used = result & 0xFFFFFF, result >> 24
        if used:
            self.arena = self._arena_view[:used]
        self._batch = batch = _RECORD.iter_unpack(self._record_view[: count * 32])
        if count > self._stride or self._debug is not None:
            self._dispatch(batch)
            return
        # So few that there is nothing to measure in between: C tells whether they were slow all the same.
        targets = self._targets
        try:
            for record in batch:
                targets[record[0]](record)
        except Exception as error:
            self._report(error, named(self._targets[record[0]]))
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
        if self._debug is not None:
            targets = self._debug.timed_targets(targets)
        flush_at = perf_counter_ns() + FLUSH_AFTER_NS
        while length_hint(batch):
            try:
                for record in islice(batch, stride or 1):
                    targets[record[0]](record)
            except Exception as error:
                self._report(error, named(self._targets[record[0]]))
            if perf_counter_ns() < flush_at:
                stride = min(stride * 2 or 1, STRIDE)
            else:
                stride = 0
                self.flush()
                flush_at = perf_counter_ns() + FLUSH_AFTER_NS
        self._stride = stride
        self._batch = None

    def _run_ready(self) -> None:
        """Call what `call_soon` and `defer` have queued; what that queues itself is for the next turn."""
        ready, self._ready = self._ready, []
        self._callbacks_run += len(ready)
        queue: Iterator[Any] = iter(ready)
        item: Any = None
        run = self._debug.timed if self._debug is not None else None
        while True:
            try:
                for item in queue:
                    if run is not None:
                        run(item._callback if type(item) is Handle else item, _runner(item))
                    elif type(item) is not Handle:
                        item()
                    elif not item._cancelled:
                        if item._args:
                            item._context.run(item._callback, *item._args)
                        else:
                            item._context.run(item._callback)
                return
            except Exception as error:
                self._report(error, item)
            except BaseException:  # an interrupt: the others wait for the next turn
                left = list(queue)
                self._callbacks_run -= len(left)
                self._ready[:0] = left
                raise

    def _take_posted(self) -> None:
        take = self._posted.popleft
        self._ready += [take() for _ in range(len(self._posted))]

    def _run_each(self, handles: list[Handle]) -> None:
        """Run idle handles or observers; they may cancel themselves and each other."""
        for handle in list(handles):
            try:
                if self._debug is not None:
                    self._debug.timed(handle._callback, handle._run)
                else:
                    handle._run()
            except Exception as error:
                self._report(error, handle)

    def flush(self) -> None:
        """Hand what has been submitted to the kernel now, not at the end of the batch. One crossing into C.

        Thread safety: loop thread only.
        """
        if self.submissions and not self._closed and not self._forked:
            submitted = b"".join(self.submissions)
            self.submissions.clear()
            _flush(self._ptr, submitted, len(submitted))

    def _remap(self) -> None:
        self._record_view = ffi.buffer(lib.ev_records(self._ptr), lib.ev_record_capacity(self._ptr) * _RECORD.size)
        self._arena_view = ffi.buffer(lib.ev_arena(self._ptr), lib.ev_arena_capacity(self._ptr))

    def _settle(self) -> None:
        """Give back what was dropped in the last batch, now that no record of that batch is left."""
        self._free_targets += self._limbo_targets
        self._free_timers += self._limbo_timers
        self._limbo_targets.clear()
        self._limbo_timers.clear()

    # -- errors ----------------------------------------------------------------------------------------------------------------

    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        """Call ``handler(loop, context)`` for an exception in a callback; ``None`` restores logging. As in asyncio."""
        self._exception_handler = handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an exception: ``context`` has ``message``, usually ``exception``, and ``handle`` where there is one."""
        if self._exception_handler is not None:
            try:
                self._exception_handler(self, context)
            except Exception:
                logger.exception("exception in the loop's exception handler, called for: %s", context.get("message"))
        else:
            logger.error("%s", context["message"], exc_info=context.get("exception"))

    def _report(self, error: Exception, source: Any) -> None:
        if source is nobody:  # a target that its own callback has dropped
            self.call_exception_handler({"message": "exception in an event callback", "exception": error})
        elif isinstance(source, Handle):
            message = f"exception in callback {describe(source._callback)}"
            self.call_exception_handler({"message": message, "exception": error, "handle": source})
        else:
            message = f"exception in callback {describe(source)}"
            self.call_exception_handler({"message": message, "exception": error, "callback": source})

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
        self._targets[target] = nobody
        self._limbo_targets.append(target)

    def on_close(self, closer: Callable[[], object]) -> None:
        """Call ``closer()`` when the loop is closed, before its memory goes; the last one added is called first.

        An exception in one is reported and keeps none of the others from being called.
        """
        self._closers.append(closer)

    # -- checks ----------------------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise LoopClosedError("the loop is closed")
        if self._forked:
            raise ForkedLoopError("this loop was made before a fork; the child process needs a loop of its own")

    def _check_thread(self) -> None:
        """Debug mode: raise when the loop runs in another thread."""
        if self._debug is not None:
            self._debug.check_thread(self._thread)


def backend_names() -> list[str]:
    """The backends that this build has, best first."""
    names: list[str] = []
    while (name := lib.ev_backend_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


def nobody(record: Record) -> None:
    """Take the records of a target that was dropped while they were under way."""


def _runner(item: Any) -> Callable[[], object]:
    run: Callable[[], object] = item._run if isinstance(item, Handle) else item
    return run


def _forked() -> None:
    for loop in list(_open_loops):
        loop._forked = True


os.register_at_fork(after_in_child=_forked)
