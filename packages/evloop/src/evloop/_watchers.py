"""Watching descriptors: `Watcher` for whoever wants control, asyncio's readers and writers on top of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from evloop._callbacks import checked
from evloop._core import Record
from evloop._debug import caller
from evloop._errors import check
from evloop._handles import Handle
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
        self.fd = fd
        self.events = _checked_events(events)
        self._callback = callback
        self._context: Context = copy_context()
        self._edge = _EDGE if edge else 0
        self._made = caller() if loop._debug is not None else ""
        self._target = loop.add_target(self._on_ready)
        out = ffi.new("struct ev_pywatcher **")
        result = lib.ev_fd_watch(loop._ptr, fd, events | self._edge, self._target, out)
        if result < 0:
            loop.drop_target(self._target)
            check(result, f"watch fd {fd}")
        self._ptr = out[0]

    def modify(self, events: int) -> None:
        """Wait for other events: `READ`, `WRITE`, or both.

        Raises:
            ValueError: Another number, or the watcher is closed.
            OSError: The descriptor has been closed.
        """
        if self.closed:
            raise ValueError(f"the watcher of fd {self.fd} is closed")
        if _checked_events(events) != self.events:
            check(lib.ev_fd_modify(self._loop._ptr, self._ptr, events | self._edge), f"watch fd {self.fd}")
            self.events = events

    def rearm(self) -> None:
        """With ``edge=True``: say that a read or write has just failed with EAGAIN, so that the next edge is reported.

        Where the kernel is edge-triggered itself this does nothing; with ``poll`` it is what makes the next report.
        """
        if self._edge and not self.closed:
            lib.ev_fd_rearm(self._loop._ptr, self._ptr, self.events)

    def close(self) -> None:
        """Stop watching. Calling this again does nothing; it may be called from any callback."""
        if not self.closed:
            ptr, self._ptr = self._ptr, ffi.NULL
            lib.ev_fd_unwatch(self._loop._ptr, ptr)
            self._loop.drop_target(self._target)
            self._loop._watchers.pop(self.fd, None)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return bool(self._ptr == ffi.NULL)

    def _on_ready(self, record: Record) -> None:
        # An event of before the last modify may ask for what is not wanted any more; a hang-up comes as both.
        ready = record[1] & self.events
        if ready:
            self._context.run(self._callback, self.fd, ready)

    def _debug_name(self) -> object:
        return self._callback

    def __repr__(self) -> str:
        return f"<Watcher fd {self.fd}{' closed' if self.closed else ''}>"


class _Directions:
    """The reader and the writer of one descriptor, which share a watcher."""

    __slots__ = ("_handles", "watcher")

    def __init__(self, loop: Watchers, fd: int, direction: int, handle: Handle) -> None:
        self._handles = {direction: handle}
        self.watcher = loop.watch(fd, direction, self._on_ready)

    def put(self, direction: int, handle: Handle) -> None:
        self.watcher.modify(self.watcher.events | direction)
        self._handles[direction] = handle

    def take(self, direction: int) -> bool:
        """Remove a direction; whether it was there. Without any, the watcher is closed."""
        if self._handles.pop(direction, None) is None:
            return False
        if self._handles:
            self.watcher.modify(self.watcher.events & ~direction)
        else:
            self.watcher.close()
        return True

    def _on_ready(self, fd: int, ready: int) -> None:
        for direction in (READ, WRITE):
            # Looked up each time: the first callback may have removed the second.
            handle = self._handles.get(direction) if ready & direction else None
            if handle is not None:
                handle._run()


class Watchers(Timers):
    """The part of `evloop.Loop` that watches descriptors."""

    def __init__(self, *, backend: str | None = None, debug: bool | None = None) -> None:
        super().__init__(backend=backend, debug=debug)
        self._watchers: dict[int, Watcher] = {}
        self._directions: dict[int, _Directions] = {}

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
        if fd in self._watchers:
            raise FileExistsError(f"fd {fd} is watched already")
        watcher = Watcher(self, fd, events, checked(callback), edge)
        self._watchers[fd] = watcher
        return watcher

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> Handle:
        """Call ``callback(*args)`` whenever ``fd`` can be read, or has been hung up. A second call replaces the first.

        Raises: as `watch`.
        """
        return self._add(fd, READ, callback, args)

    def remove_reader(self, fd: int) -> bool:
        """Stop watching ``fd`` for reading; whether it was watched."""
        return self._remove(fd, READ)

    def add_writer(self, fd: int, callback: Callable[..., object], *args: Any) -> Handle:
        """Call ``callback(*args)`` whenever ``fd`` can be written to. Raises: as `watch`."""
        return self._add(fd, WRITE, callback, args)

    def remove_writer(self, fd: int) -> bool:
        """Stop watching ``fd`` for writing; whether it was watched."""
        return self._remove(fd, WRITE)

    def _add(self, fd: int, direction: int, callback: Callable[..., object], args: tuple[Any, ...]) -> Handle:
        handle = Handle()
        handle._callback = checked(callback)
        handle._args = args
        handle._context = copy_context()
        handle._cancelled = False
        both = self._directions.get(fd)
        if both is None:
            self._directions[fd] = _Directions(self, fd, direction, handle)
        else:
            self._check_thread()
            both.put(direction, handle)
        return handle

    def _remove(self, fd: int, direction: int) -> bool:
        both = self._directions.get(fd)
        if both is None or not both.take(direction):
            return False
        if both.watcher.closed:
            del self._directions[fd]
        return True

    def _close_watchers(self) -> None:
        """Close what is left. In debug mode, a watcher that nobody closed is named with where it was made."""
        for watcher in list(self._watchers.values()):
            if watcher._made:
                warnings.warn(
                    f"the watcher of fd {watcher.fd}, made at {watcher._made}, was never closed",
                    ResourceWarning,
                    stacklevel=3,
                )
            watcher.close()
        self._directions.clear()


def _checked_events(events: int) -> int:
    if events not in (READ, WRITE, READ | WRITE):
        raise ValueError(f"events must be READ, WRITE or both, not {events!r}")
    return events
