"""An in-process publish/subscribe bus."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evloop._loop import Loop

__all__ = ["SignalRelay"]


class _Listener:
    __slots__ = ("callback", "listening", "once")

    def __init__(self, callback: Callable[..., object], once: bool) -> None:
        self.callback = callback
        self.once = once
        self.listening = True


class SignalRelay:
    """Names, and who wants to hear of them. `emit` calls the listeners at once, in the order in which they came.

    Listeners may listen and unlisten, themselves and others, and emit, while they are called. A listener that was there when an
    `emit` began, and was not taken away before its turn, is called by it exactly once; one that comes later is not.

    Args:
        loop: Whose exception handler hears of a listener that raises. Without one, `emit` raises the exceptions itself, after
            all listeners have been called.

    Thread safety: one thread at a time; with a loop, that of the loop (``loop.call_soon_threadsafe(relay.emit, ...)``).
    """

    def __init__(self, loop: Loop | None = None) -> None:
        self._loop = loop
        # A name without listeners is not in here.
        self._listeners: dict[Hashable, list[_Listener]] = {}

    def listen(self, name: Hashable, callback: Callable[..., object]) -> None:
        """Call ``callback(*args)`` for each ``emit(name, *args)``. A callback that listens twice is called twice.

        Raises:
            TypeError: The callback is not callable, or the name not hashable.
        """
        self._add(name, callback, once=False)

    def listen_once(self, name: Hashable, callback: Callable[..., object]) -> None:
        """As `listen`, for one ``emit`` only: when the callback is called it does not listen any more."""
        self._add(name, callback, once=True)

    def unlisten(self, name: Hashable, callback: Callable[..., object]) -> bool:
        """Do not call ``callback`` any more, also in an `emit` that is under way; whether it listened.

        Callbacks are compared with ``==``, so a bound method can be looked up again. One that listens twice goes on listening once.
        """
        for listener in self._listeners.get(name, ()):
            if listener.callback == callback:
                self._remove(name, listener)
                return True
        return False

    def emit(self, name: Hashable, *args: Any) -> int:
        """Call everybody who listens to ``name`` with ``args``, and return how many were called.

        Raises:
            ExceptionGroup: Listeners have raised, and the relay has no loop. Anything but an `Exception`, such as
                `KeyboardInterrupt`, is raised at once.
        """
        called = 0
        errors: list[Exception] = []
        for listener in tuple(self._listeners.get(name, ())):
            if not listener.listening:
                continue
            if listener.once:  # before the call: it may emit the same name
                self._remove(name, listener)
            called += 1
            try:
                listener.callback(*args)
            except Exception as error:
                if self._loop is None:
                    errors.append(error)
                else:
                    message = f"exception in {listener.callback!r}, which listens to {name!r}"
                    self._loop.call_exception_handler({"message": message, "exception": error})
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {called} listeners to {name!r} have raised", errors)
        return called

    def _add(self, name: Hashable, callback: Callable[..., object], once: bool) -> None:
        if not callable(callback):
            raise TypeError(f"a listener must be callable, not {callback!r}")
        self._listeners.setdefault(name, []).append(_Listener(callback, once))

    def _remove(self, name: Hashable, listener: _Listener) -> None:
        listener.listening = False
        listeners = self._listeners[name]
        listeners.remove(listener)
        if not listeners:
            del self._listeners[name]
