"""Handles: what ``call_soon`` and ``call_later`` return."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evloop._loop import Loop

__all__ = ["Handle", "TimerHandle"]


class Handle:
    """A callback that waits to be called. Like `asyncio.Handle`, it runs in the context that was current when it was made."""

    __slots__ = ("_args", "_callback", "_context", "_loop")

    def __init__(
        self, loop: Loop, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self._loop = loop
        self._callback: Callable[..., object] | None = callback
        self._args = args
        self._context = copy_context() if context is None else context

    def cancel(self) -> None:
        """Do not call the callback. Calling this again, or too late, does nothing. Thread safety: loop thread only."""
        self._callback = None
        self._args = ()

    def cancelled(self) -> bool:
        """Whether the callback was cancelled or has been called."""
        return self._callback is None

    def _run(self) -> None:
        callback, args = self._callback, self._args
        if callback is None:
            return
        self._callback, self._args = None, ()
        try:
            self._context.run(callback, *args)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": f"exception in callback {callback!r}", "exception": error, "handle": self}
            )

    def __repr__(self) -> str:
        state = "done" if self._callback is None else f"{self._callback!r}"
        return f"<{type(self).__name__} {state}>"


class TimerHandle(Handle):
    """A callback that waits for its time."""

    __slots__ = ("_index", "_when")

    def __init__(
        self,
        loop: Loop,
        when: float,
        index: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> None:
        super().__init__(loop, callback, args, context)
        self._when = when
        self._index = index

    def when(self) -> float:
        """The time at which the callback is due, on ``loop.time()``."""
        return self._when

    def cancel(self) -> None:
        """Do not call the callback, and give the timer back. Calling this again, or too late, does nothing."""
        if self._callback is not None:
            super().cancel()
            self._loop._drop_timer(self._index)
