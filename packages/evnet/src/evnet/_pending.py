"""A value that is not there yet: what `resolve` and the ``connect_*`` calls return."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from evloop import Loop

__all__ = ["Pending"]

T = TypeVar("T")

_PENDING, _DONE, _FAILED, _CANCELLED = "pending", "done", "failed", "cancelled"


class Pending(Generic[T]):
    """The outcome of something that is under way, with the methods of an `asyncio.Future` that its reader calls.

    It is no `asyncio.Future`, because evloop is no asyncio loop and has no ``async def`` to suspend. It has what it takes to be
    made awaitable later: callbacks that get the object itself and run from the loop in the context in which they were added, a
    result that can be asked for again, and `cancel`. Who asks too early, or for what was cancelled, gets the exceptions of
    `concurrent.futures`, which belong to no particular loop either.

    A failure that nobody has asked for and nobody has a callback for is reported to the loop's exception handler when the object
    goes. When the loop is closed, what is under way is cancelled, and callbacks are not called any more.

    Thread safety: loop thread only.
    """

    __slots__ = ("__weakref__", "_callbacks", "_loop", "_state", "_trace", "_unheard", "_value")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._state = _PENDING
        self._value: Any = None
        self._trace: TracebackType | None = None
        self._callbacks: list[tuple[Callable[[Self], object], Context]] = []
        self._unheard: _Unheard | None = None

    def done(self) -> bool:
        """Whether there is a result or an exception, or it was cancelled."""
        return self._state is not _PENDING

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state is _CANCELLED

    def cancel(self) -> bool:
        """Give up, and release at once what was taken for it; whether there was something to give up."""
        if self._state is not _PENDING:
            return False
        self._state = _CANCELLED
        self._release()
        self._tell()
        return True

    def result(self) -> T:
        """The result.

        Raises:
            concurrent.futures.InvalidStateError: There is none yet.
            concurrent.futures.CancelledError: It was cancelled.
            OSError: What it failed with.
        """
        self._listen()
        if self._state is _FAILED:
            try:
                raise self._value.with_traceback(self._trace)
            finally:
                del self  # else the exception's traceback would hold what holds the exception
        value: T = self._value
        return value

    def exception(self) -> BaseException | None:
        """What it failed with, or ``None``. Raises: as `result`, but for the failure itself."""
        self._listen()
        return self._value if self._state is _FAILED else None

    def add_done_callback(self, callback: Callable[[Self], object], *, context: Context | None = None) -> None:
        """Call ``callback(self)`` from the loop when it is done; soon, if it is already.

        Args:
            callback: Called once, never from inside this method.
            context: To call it in; by default the present one.

        Raises:
            TypeError: Not callable.
        """
        if not callable(callback):
            raise TypeError(f"a callback must be callable, not {callback!r}")
        if self._unheard is not None:
            self._unheard.heard()
        entry = callback, copy_context() if context is None else context
        if self._state is _PENDING:
            self._callbacks.append(entry)
        else:
            self._loop.call_soon(callback, self, context=entry[1])

    def remove_done_callback(self, callback: Callable[[Self], object]) -> int:
        """Take back what `add_done_callback` was given; how many there were."""
        left = [entry for entry in self._callbacks if entry[0] != callback]
        removed = len(self._callbacks) - len(left)
        self._callbacks[:] = left
        return removed

    # -- for whoever makes it --------------------------------------------------------------------------------------------------

    def _release(self) -> None:
        """Let go of timers, descriptors and questions; called once, when it is done or cancelled, before anybody is told."""

    def _finish(self, value: T) -> None:
        self._state, self._value = _DONE, value
        self._release()
        self._tell()

    def _fail(self, error: BaseException) -> None:
        self._state, self._value, self._trace = _FAILED, error, error.__traceback__
        self._release()
        if not self._callbacks:
            self._unheard = _Unheard(self._loop, repr(self), error)
        self._tell()

    def _tell(self) -> None:
        callbacks = self._callbacks
        if callbacks:
            self._callbacks = []
            for callback, context in callbacks:
                self._loop.call_soon(callback, self, context=context)

    def _listen(self) -> None:
        if self._state is _PENDING:
            raise InvalidStateError(f"{self!r} is not done")
        if self._state is _CANCELLED:
            raise CancelledError(f"{self!r}")
        if self._unheard is not None:
            self._unheard.heard()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state}>"


class _Unheard:
    """A failure that nobody has looked at. An object of its own, so that only failures pay for a ``__del__``."""

    __slots__ = ("_about", "_error", "_loop")

    def __init__(self, loop: Loop, about: str, error: BaseException) -> None:
        self._loop: Loop | None = loop
        self._about = about
        self._error: BaseException | None = error

    def heard(self) -> None:
        self._loop = self._error = None

    def __del__(self) -> None:
        if self._loop is not None:
            message = f"nobody asked what became of {self._about}"
            self._loop.call_exception_handler({"message": message, "exception": self._error})
