"""Signals through the loop.

Python's C-level handler writes the number of each signal to the wake-up descriptor; the loop watches the other end. So a signal
ends a wait even when it arrives between the check for signals and the system call, where EINTR alone would miss it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import weakref
from collections.abc import Callable
from contextvars import Context, copy_context
from types import FrameType
from typing import TYPE_CHECKING, Any

from evloop._errors import EvLoopError

if TYPE_CHECKING:
    from evloop._loop import Loop

__all__ = ["SignalWatch"]


_OURS = __name__.partition(".")[0]
_open_watches: weakref.WeakSet[SignalWatch] = weakref.WeakSet()


def _caught(number: int, frame: object) -> None:
    """Stand in as Python's handler: with none, the C handler that writes to the wake-up descriptor would not be installed."""


class SignalWatch:
    """The signals of one loop: owns the wake-up pair and what was installed before."""

    def __init__(self, loop: Loop) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise EvLoopError("signals can be handled only by a loop in the main thread")
        self._loop = loop
        self._handlers: dict[int, tuple[Callable[..., object], tuple[Any, ...], Context]] = {}
        self._previous: dict[int, Any] = {}
        self._interrupted = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        loop.add_reader(self._reader.fileno(), self._read)
        _open_watches.add(self)

    def add(self, number: int, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        previous = signal.signal(number, _caught)
        signal.siginterrupt(number, False)
        self._previous.setdefault(number, signal.default_int_handler if previous == self._interrupt else previous)
        self._handlers[number] = (callback, args, copy_context())

    def remove(self, number: int) -> bool:
        if self._handlers.pop(number, None) is None:
            return False
        # Somebody may have put in a handler of their own meanwhile: it stays.
        previous = self._previous.pop(number)
        if signal.getsignal(number) is _caught:
            signal.signal(number, previous)
        return True

    def hold_interrupts(self) -> None:
        """While the loop runs, let Ctrl-C raise where nothing is lost by it; where Python's own handler stands, and no other.

        Python's raises wherever it finds the interpreter, also between taking what C returned and keeping it. Ours raises at once
        in the code of others, so that a callback that does not end can be interrupted, and else when the loop reads the signal.
        """
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._interrupted = False
            signal.signal(signal.SIGINT, self._interrupt)

    def release_interrupts(self) -> None:
        """Put Python's own handler back."""
        if signal.getsignal(signal.SIGINT) == self._interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == _OURS:
            self._interrupted = True
        else:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Put back what was installed before."""
        for number in list(self._handlers):
            self.remove(number)
        current = signal.set_wakeup_fd(-1)
        if current != self._writer.fileno():
            signal.set_wakeup_fd(current)
        elif self._previous_fd != -1:
            try:
                signal.set_wakeup_fd(self._previous_fd)
            except (OSError, ValueError):
                pass  # whoever had set it has closed it meanwhile
        self._loop.remove_reader(self._reader.fileno())
        self._reader.close()
        self._writer.close()

    def _read(self) -> None:
        try:
            numbers = os.read(self._reader.fileno(), 4096)
        except BlockingIOError:
            return
        for number in numbers:
            if (handler := self._handlers.get(number)) is not None:
                callback, args, context = handler
                self._loop.call_soon(callback, *args, context=context)
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt


def _forked() -> None:
    """In a child: the other end of the wake-up pair is read by the parent, which must not be told of the child's signals."""
    if threading.current_thread() is not threading.main_thread():
        return
    current = signal.set_wakeup_fd(-1)
    if all(current != watch._writer.fileno() for watch in _open_watches):
        signal.set_wakeup_fd(current)


os.register_at_fork(after_in_child=_forked)
