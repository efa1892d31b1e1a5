"""Watching descriptors: `Watcher` for whoever wants control, asyncio's readers and writers on top of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from functools import partial
from operator import length_hint
from typing import Any

from evloop._callbacks import checked
from evloop._core import Record, nobody
from evloop._debug import caller
from evloop._errors import check
from evloop._shim import ffi, lib
from evloop._timers import Timers

__all__ = ["READ", "WRITE", "Watcher", "Watchers"]

READ, WRITE = 1, 2
_EDGE = 8


class Watcher:
    """A descriptor that is being watched; made by ``loop.watch``. Thread safety: loop thread only.

    The descriptor stays the caller's, who closes the watcher before it.
    """

    __slots__ = ("_callback", "_context", "_edge", "_loop", "_made", "_ptr", "_target", "events", "fd")

    def __init__(
        self, loop: Watchers, fd: int, events: int, callback: Callable[[int, int], object], edge: bool
    ) -> None:
        self._loop = loop
        self.fd: int = fd
        self.events: int = _checked_events(events)
        self._callback = callback
        self._context: Context = copy_context()
        self._edge = _EDGE if edge else 0
        self._made = caller() if loop._debug is not None else ""
        self._ptr = ffi.NULL
        self._target = target = loop.add_target(self._on_ready)
        try:
            self._ptr = _watch(loop, fd, events | self._edge, target, target)
        except BaseException:
            loop.drop_target(target)
            raise

    def modify(self, events: int) -> None:
        """Wait for other events: `READ`, `WRITE`, or both.

        Raises:
            ValueError: Another number, or the watcher is closed.
            OSError: The descriptor has been closed.
        """
        if self.closed:
            raise ValueError(f"the watcher of fd {self.fd} is closed")
        self._loop._check_open()
        self._loop._check_thread()
        if _checked_events(events) != self.events:
            check(lib.ev_fd_modify(self._loop._ptr, self._ptr, events | self._edge), f"watch fd {self.fd}")
            self.events = events

    def rearm(self) -> None:
        """With ``edge=True``: say that a read or write has just failed with EAGAIN, so that the next edge is reported.

        Where the kernel is edge-triggered itself this does nothing; with ``poll`` it is what makes the next report.
        """
        self._loop._check_thread()
        if self._edge and not self.closed and not self._loop._forked:
            lib.ev_fd_rearm(self._loop._ptr, self._ptr, self.events)

    def close(self) -> None:
        """Stop watching. Calling this again does nothing; it may be called from any callback."""
        if not self.closed:
            self._loop._check_thread()
            ptr, self._ptr = self._ptr, ffi.NULL
            _unwatch(self._loop, ptr)
            self._loop.drop_target(self._target)
            self._loop._watchers.pop(self.fd, None)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return bool(self._ptr == ffi.NULL)

    def _on_ready(self, record: Record) -> None:
        # An event of before the last modify may ask for what is not wanted any more.
        ready = record[1] & self.events
        if ready:
            self._context.run(self._callback, self.fd, ready)

    def _debug_name(self) -> object:
        return self._callback

    def __repr__(self) -> str:
        return f"<Watcher fd {self.fd}{' closed' if self.closed else ''}>"


class _Directions:
    """The reader and the writer of one descriptor. Each has a target of its own, which is called without a record."""

    __slots__ = ("_fd", "_loop", "_made", "_ptr", "_targets", "events")

    def __init__(self, loop: Watchers, fd: int, direction: int, callback: Callable[[], object]) -> None:
        self._loop = loop
        self._fd = fd
        self._made = caller() if loop._debug is not None else ""
        self.events = direction
        self._targets = {READ: loop.add_target(nobody), WRITE: loop.add_target(nobody)}
        try:
            self._ptr = _watch(loop, fd, direction, self._targets[READ], self._targets[WRITE])
        except BaseException:
            self._drop_targets()
            raise
        loop._targets[self._targets[direction]] = callback

    def put(self, direction: int, callback: Callable[[], object]) -> None:
        self._set_events(self.events | direction)
        self._loop._targets[self._targets[direction]] = callback

    def take(self, direction: int) -> bool:
        """Remove a direction; whether it was there. Without any, the descriptor is not watched any more."""
        if not self.events & direction:
            return False
        # A record of this batch may be under way.
        self._loop._targets[self._targets[direction]] = nobody
        left = self.events & ~direction
        if left:
            self._set_events(left)
        else:
            self.close()
        return True

    def close(self) -> None:
        self.events = 0
        _unwatch(self._loop, self._ptr)
        self._drop_targets()

    def _set_events(self, events: int) -> None:
        if not self._loop._forked:  # else the kernel's side of it is the parent's
            check(lib.ev_fd_modify(self._loop._ptr, self._ptr, events), f"watch fd {self._fd}")
        self.events = events

    def _drop_targets(self) -> None:
        for target in self._targets.values():
            self._loop.drop_target(target)


def _watch(loop: Watchers, fd: int, events: int, read_target: int, write_target: int) -> Any:
    """Make the watcher in C. What is no descriptor at all is a TypeError or OverflowError."""
    out = ffi.new("struct ev_pywatcher **")
    check(lib.ev_fd_watch(loop._ptr, fd, events, read_target, write_target, out), f"watch fd {fd}")
    return out[0]


def _unwatch(loop: Watchers, ptr: Any) -> None:
    if not loop._forked:  # else the kernel's side of it is the parent's
        lib.ev_fd_unwatch(loop._ptr, ptr)


class Watchers(Timers):
    """The part of `evloop.Loop` that watches descriptors."""

    __slots__ = ("_directions", "_watchers")

    def __init__(self, *, backend: str | None = None, debug: bool | None = None) -> None:
        super().__init__(backend=backend, debug=debug)
        self._watchers: dict[int, Watcher] = {}
        self._directions: dict[int, _Directions] = {}
        target = self.add_target(self._fds_ready)
        assert target == 2, "C sends ready readers and writers to EV_TARGET_READY"

    def watch(self, fd: int, events: int, callback: Callable[[int, int], object], *, edge: bool = False) -> Watcher:
        """Call ``callback(fd, ready)`` whenever ``fd`` is ready for some of ``events``.

        Args:
            fd: An open descriptor that can be waited for; not watched already.
            events: `READ`, `WRITE` or ``READ | WRITE``. A hang-up or an error counts as both: the call that fails tells which.
            callback: Gets the descriptor and what it is ready for.
            edge: Report a change once, not for as long as it lasts. The callback then reads or writes until EAGAIN and calls
                `Watcher.rearm`.

        Raises:
            OSError: The descriptor is closed (EBADF), of a kind that cannot be waited for, such as a regular file (EPERM), or there
                is no memory for another one.
            FileExistsError: It is watched already.
            ValueError: Other events.

        Thread safety: loop thread only.
        """
        self._check_open()
        self._check_thread()
        if fd in self._watchers or fd in self._directions:
            raise FileExistsError(f"fd {fd} is watched already")
        watcher = Watcher(self, fd, events, checked(callback), edge)
        self._watchers[fd] = watcher
        return watcher

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback(*args)`` whenever ``fd`` can be read, or has been hung up. A second call replaces the first.

        Raises: as `watch`.
        """
        self._add(fd, READ, callback, args)

    def remove_reader(self, fd: int) -> bool:
        """Stop watching ``fd`` for reading; whether it was watched."""
        return self._remove(fd, READ)

    def add_writer(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback(*args)`` whenever ``fd`` can be written to. Raises: as `watch`."""
        self._add(fd, WRITE, callback, args)

    def remove_writer(self, fd: int) -> bool:
        """Stop watching ``fd`` for writing; whether it was watched."""
        return self._remove(fd, WRITE)

    def _add(self, fd: int, direction: int, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._check_open()
        self._check_thread()
        # Called by C code as it is: a function of our own in between would cost a third of the whole event.
        runner = partial(copy_context().run, checked(callback), *args)
        both = self._directions.get(fd)
        if both is not None:
            both.put(direction, runner)
        elif fd in self._watchers:
            raise FileExistsError(f"fd {fd} is watched already")
        else:
            self._directions[fd] = _Directions(self, fd, direction, runner)

    def _remove(self, fd: int, direction: int) -> bool:
        self._check_thread()
        both = self._directions.get(fd)
        if both is None or not both.take(direction):
            return False
        if not both.events:
            del self._directions[fd]
        return True

    def _fds_ready(self, record: Record) -> None:
        """Call the readers and writers that are ready; flush between them as `Core._dispatch` does between events.

        What an interrupt leaves of them is still ready at the next poll.
        """
        _, where, count, _ = record
        if count == 1:
            self._call_ready(iter((where,)), 2)
        else:
            targets = iter(memoryview(self.arena)[where : where + 4 * count].cast("I").tolist())
            self._call_ready(targets, self.begin_pace())

    def _call_ready(self, targets: Iterator[int], left: int) -> None:
        calls, debug = self._targets, self._debug
        while length_hint(targets):
            try:
                for target in targets:
                    if debug is None:
                        calls[target]()
                    else:
                        debug.timed(_callback_of(calls[target]), calls[target])
                    left -= 1
                    if not left:
                        left = self.keep_pace()
            except Exception as error:
                self._report(error, _callback_of(calls[target]))
                left = self.keep_pace()

    def _close_watchers(self) -> list[str]:
        """Close what is left, and in debug mode return a complaint for each that names where it was made."""
        left: list[tuple[int, Watcher | _Directions]] = [*self._watchers.items(), *self._directions.items()]
        for _, watcher in left:
            watcher.close()
        self._directions.clear()
        return [
            f"the watcher of fd {fd}, made at {watcher._made}, was never closed"
            for fd, watcher in left
            if watcher._made
        ]


def _callback_of(call: Callable[..., object]) -> Callable[..., object]:
    """The callback of a reader or writer, or `nobody` when it was removed."""
    callback: Callable[..., object] = call.args[0] if isinstance(call, partial) else call
    return callback


def _checked_events(events: int) -> int:
    if events not in (READ, WRITE, READ | WRITE):
        raise ValueError(f"events must be READ, WRITE or both, not {events!r}")
    return events
