"""The crossing into C: `Core._turn` is the only call on the hot path, `Core._dispatch` the other half of the turn.

The rest of `evloop.Loop` stands on this class, each facet in a file of its own: `_callbacks`, `_timers`, `_watchers`.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
from operator import length_hint
from struct import Struct
from time import monotonic, perf_counter_ns
from typing import Any, TypeVar

from evloop._debug import Debug, named
from evloop._errors import ForkedLoopError, LoopClosedError, check
from evloop._handles import Handle, TimerHandle, describe
from evloop._shim import ffi, lib

__all__ = ["Core", "ExceptionHandler", "Record", "Refusing", "backend_names", "nobody"]

logger = logging.getLogger("evloop")

_RECORD = Struct("<qqq8s")

# Flags in the result of a turn (shim.h).
_MOVED, _WAS_SLOW = 1 << 63, 1 << 62

# When the handlers of a batch have run longer than this, what has been submitted is flushed before the next one runs.
FLUSH_AFTER_NS = 500_000
# Handlers between two looks at the clock. After a slow batch every handler is followed by a look, until they are quick again.
# With 16 an answer waited for 16 slow handlers that came behind many quick ones.
STRIDE = 4
# Where they are all of one kind (`Core.pace`) and the last ones took less than this each.
LONG_STRIDE, QUICK_NS = 16, 8_000

_turn, _flush = lib.ev_turn, lib.ev_flush

# A completion (struct ev_record): target, two numbers whose meaning is the target's business, and the token that goes back with
# what is submitted in answer.
Record = tuple[int, int, int, bytes]
ExceptionHandler = Callable[[Any, dict[str, Any]], object]
Item = TypeVar("Item")

_open_loops: weakref.WeakSet[Core] = weakref.WeakSet()


class Core:
    """A loop in C, and the two rings between it and Python."""

    # An object with more than 30 attributes of its own keeps them in a dictionary that CPython cannot specialise for, and every
    # callback, timer and event looks at several of them: slots take a fifth off a call_soon.
    __slots__ = (
        "__weakref__",
        "_address",
        "_asleep",
        "_batch",
        "_callbacks_run",
        "_closed",
        "_closers",
        "_debug",
        "_exception_handler",
        "_flush_at",
        "_forked",
        "_free_targets",
        "_free_timers",
        "_idle",
        "_limbo_targets",
        "_limbo_timers",
        "_observed",
        "_posted",
        "_ptr",
        "_ready",
        "_record_view",
        "_staged",
        "_stopped",
        "_stopping",
        "_stride",
        "_targets",
        "_thread",
        "_until",
        "arena",
        "arena_view",
        "submissions",
        "time",
    )

    def __init__(self, *, backend: str | None = None, debug: bool | None = None) -> None:
        name = backend or os.environ.get("EVLOOP_BACKEND") or None
        if name is not None and name not in (*backend_names(), "scripted"):
            raise ValueError(f"backend {name!r} is not one of {', '.join(backend_names())}")
        out = ffi.new("ev_loop **")
        check(lib.ev_loop_open(ffi.NULL if name is None else name.encode(), out), "open a loop")
        self._ptr = out[0]
        self._address = int(ffi.cast("uintptr_t", out[0]))
        self.submissions: list[bytes] = []
        self.arena: bytes = b""
        self._remap()
        self._ready: list[Any] = []  # handles, and bare callables of defer
        self._posted: list[Handle] = []  # by other threads
        self._idle: list[Handle] = []
        self._observed: list[Handle] = []
        self._callbacks_run = 0
        self._batch: Iterator[Record] | None = None
        self._stride = STRIDE
        self._flush_at = 0
        self._targets: list[Callable[..., object]] = [nobody]
        self._free_targets: list[int] = []
        self._limbo_targets: list[int] = []
        self._staged: list[TimerHandle] = []  # to be started in C at the next turn
        self._stopped: list[int] = []  # indexes of timers to be stopped there
        self._limbo_timers: list[int] = []
        self._free_timers: list[int] = []
        self._closers: list[Callable[[], object]] = []
        self._exception_handler: ExceptionHandler | None = None
        self._thread: int | None = None  # that runs the loop
        self._asleep = False
        self._stopping = False
        self._until: Callable[[], object] | None = None  # what `run_until` waits for
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
        if self._until is not None and self._until():  # what was just called may be all that was waited for
            self._stopping = True
        if self._staged or self._stopped:
            self._submit_timers()
        submitted = b""
        if self.submissions:
            submitted = b"".join(self.submissions)
            self.submissions.clear()
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
            self.arena = self.arena_view[:used]
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
        targets: Any = self._targets
        if self._debug is not None:
            targets = self._debug.timed_targets(targets)
        left = self.begin_pace()
        while length_hint(batch):
            try:
                for record in batch:
                    targets[record[0]](record)
                    left -= 1
                    if not left:
                        left = self.keep_pace()
            except Exception as error:
                self._report(error, named(self._targets[record[0]]))
                left = self.keep_pace()
        self._batch = None

    def begin_pace(self) -> int:
        """Begin to call many callbacks in a row, so that no answer waits long for its neighbours' handlers.

        For the receiver of a record that speaks of many things::

            left = loop.begin_pace()
            for item in items:
                deal_with(item)
                left -= 1
                if not left:
                    left = loop.keep_pace()

        Returns:
            How many callbacks may run before the first `keep_pace`.

        Thread safety: loop thread only.
        """
        self._flush_at = perf_counter_ns() + FLUSH_AFTER_NS
        return self._stride or 1

    def keep_pace(self) -> int:
        """Flush if the callbacks since the last time have taken long; return how many may run before the next look."""
        if perf_counter_ns() < self._flush_at:
            self._stride = STRIDE
            return STRIDE
        self._stride = 0
        self.flush()
        self._flush_at = perf_counter_ns() + FLUSH_AFTER_NS
        return 1

    def pace(self, items: Iterator[Item], call: Callable[[Iterator[Item]], None]) -> None:
        """Have ``call`` take all items, a few at a time, and flush whenever those before have taken long.

        For the receiver of a record that speaks of many things: no answer shall wait for its neighbours' handlers.

        Args:
            items: Must know how many are left (``__length_hint__``), as those of lists and of `struct.iter_unpack` do.
            call: Is given an iterator of some of them. It deals with exceptions itself; when it returns before all are taken it is
                called again. What it lets through, as an interrupt, goes to the caller, with ``items`` where they were.
        """
        left = self.begin_pace()
        before = self._flush_at - FLUSH_AFTER_NS
        while length_hint(items):
            call(islice(items, left))
            now = perf_counter_ns()
            if now < self._flush_at:
                self._stride = STRIDE
                left = LONG_STRIDE if now - before < left * QUICK_NS else STRIDE
                before = now
            else:
                left = self.keep_pace()
                before = self._flush_at - FLUSH_AFTER_NS

    def _submit_timers(self) -> None:
        raise NotImplementedError  # evloop._timers

    def _run_ready(self) -> None:
        """Call what `call_soon` and `defer` have queued; what that queues itself is for the next turn."""
        ready, self._ready = self._ready, []
        self._callbacks_run += len(ready)
        queue: Iterator[Any] = iter(ready)
        item: Any = None
        debug = self._debug
        while True:
            try:
                if debug is not None:
                    for item in queue:
                        debug.timed(item._callback if type(item) is Handle else item, _runner(item))
                    return
                for item in queue:
                    if type(item) is not Handle:
                        item()
                    elif item._args:
                        item._context.run(item._callback, *item._args)
                    elif (callback := item._callback) is not None:
                        item._context.run(callback)
                return
            except Exception as error:
                self._report(error, item)
            except BaseException:  # an interrupt: the others wait for the next turn
                left = list(queue)
                self._callbacks_run -= len(left)
                self._ready[:0] = left
                raise

    def _take_posted(self) -> None:
        # Other threads may append meanwhile: each of these steps is one operation on the list, and takes only what was counted.
        posted = self._posted
        count = len(posted)
        self._ready += posted[:count]
        del posted[:count]

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
        if self._debug is not None:
            self._debug.check_thread(self._thread)
        if self._staged or self._stopped:
            self._submit_timers()
        if self.submissions and not self._closed and not self._forked:
            submitted = b"".join(self.submissions)
            self.submissions.clear()
            if _flush(self._ptr, submitted, len(submitted)):
                self._remap()

    def _remap(self) -> None:
        self._record_view = ffi.buffer(lib.ev_records(self._ptr), lib.ev_record_capacity(self._ptr) * _RECORD.size)
        # What C holds now; a slice is a `bytes`. For records whose bytes are not in `arena` (evloop.h, arena_reserve).
        self.arena_view: Any = ffi.buffer(lib.ev_arena(self._ptr), lib.ev_arena_capacity(self._ptr))

    def _settle(self) -> None:
        """Give back what was dropped in the last batch, now that no record of that batch is left."""
        self._free_targets += self._limbo_targets
        self._free_timers += self._limbo_timers
        self._limbo_targets.clear()
        self._limbo_timers.clear()

    # -- errors ----------------------------------------------------------------------------------------------------------------

    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        """Call ``handler(loop, context)`` for an exception in a callback; ``None`` restores logging. As in asyncio."""
        self._check_thread()
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
        if self._closed or self._forked:
            self._check_open()
        return self._address

    def add_target(self, callback: Callable[..., object]) -> int:
        """Make ``callback`` the receiver of records, and return the number that C puts first in them."""
        if self._free_targets:
            target = self._free_targets.pop()
            self._targets[target] = callback
        else:
            target = len(self._targets)
            self._targets.append(callback)
        return target

    def set_target(self, target: int, callback: Callable[..., object]) -> None:
        """Make another callback the receiver, from the next record on."""
        self._targets[target] = callback

    def drop_target(self, target: int) -> None:
        """Let a target go. It gets no record of this batch any more, and its number is used again only after the batch."""
        self._targets[target] = nobody
        self._limbo_targets.append(target)

    def on_close(self, closer: Callable[[], object]) -> None:
        """Call ``closer()`` when the loop is closed, before its memory goes; the last one added is called first.

        An exception in one is reported and keeps none of the others from being called.
        """
        self._check_thread()
        self._closers.append(closer)

    def remove_on_close(self, closer: Callable[[], object]) -> bool:
        """Take back what `on_close` was given, as somebody does who has closed by itself; whether it was there.

        One that is being called, or was, is not there any more.
        """
        self._check_thread()
        try:
            self._closers.remove(closer)
        except ValueError:
            return False
        return True

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


class Refusing(list[Any]):
    """Stands in for the queues of a closed loop, so that an open one need not ask whether it is."""

    def append(self, item: object, /) -> None:
        raise LoopClosedError("the loop is closed")


def nobody(record: Record | None = None) -> None:
    """Take the records of a target that was dropped while they were under way."""


def _runner(item: Any) -> Callable[[], object]:
    run: Callable[[], object] = item._run if isinstance(item, Handle) else item
    return run


def _forked() -> None:
    for loop in list(_open_loops):
        loop._forked = True
        if not loop._closed:  # nor being closed, by a thread that the child does not have
            lib.ev_loop_forked(loop._ptr)


os.register_at_fork(after_in_child=_forked)
