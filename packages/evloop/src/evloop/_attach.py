"""A loop inside somebody else's: the host watches our descriptor and our next timer, and calls `Attachment._pump` for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from evloop._shim import lib

if TYPE_CHECKING:
    from evloop._loop import Loop

__all__ = ["Attachment"]


class Attachment:
    """The bond between a loop and its host; made by ``loop.attach``. Thread safety: the host's thread only."""

    def __init__(self, loop: Loop, host: Any) -> None:
        self._loop = loop
        self._host = host
        self._fd = lib.ev_loop_fd(loop._ptr)
        if self._fd < 0:
            raise NotImplementedError(f"backend {loop.backend} has no descriptor that another loop could watch")
        self._timer: Any = None
        self._scheduled = False
        host.add_reader(self._fd, self._pump)  # first: it may refuse
        # What the host's callbacks submit has to reach C although no turn is under way.
        submissions = _Telling(loop.submissions)
        submissions.tell = self._kick
        loop.submissions = submissions
        loop._set_kick(self._kick)
        self._kick()

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._host is None

    def close(self) -> None:
        """Take the loop out of its host; it stays usable. Calling this again does nothing."""
        if self._host is None:
            return
        host, self._host = self._host, None
        if self._timer is not None:
            self._timer.cancel()
        if not host.is_closed():
            host.remove_reader(self._fd)
        self._loop._set_kick(None)
        self._loop._attachment = None
        self._loop.submissions = list(self._loop.submissions)

    def _kick(self) -> None:
        if not self._scheduled and self._host is not None and not self._loop.is_running():
            self._scheduled = True
            self._host.call_soon(self._pump)

    def _pump(self) -> None:
        """Run one turn that does not wait, and see to it that the next one comes in time."""
        if self._host is None or self._loop.is_running():
            return
        self._scheduled = False
        loop = self._loop
        try:
            loop.run_once(0)
        finally:  # also after an interrupt: the host may be run again
            if self._host is not None:  # not closed by one of the callbacks
                self._go_on()

    def _go_on(self) -> None:
        loop = self._loop
        # While the host waits for us this loop "sleeps": a post from another thread has to wake it.
        loop._asleep = True
        if loop._ready or loop._posted or loop._idle or loop.submissions or loop._staged or loop._batch is not None:
            self._kick()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = lib.ev_next_timer_ns(self._loop._ptr)
        if due >= 0:
            self._timer = self._host.call_later(max(due / 1e9 - self._loop.time(), 0.0), self._pump)


class _Telling(list[bytes]):
    """A list that tells when something is put in."""

    tell: Any

    def append(self, item: bytes, /) -> None:
        super().append(item)
        self.tell()

    def extend(self, items: Iterable[bytes], /) -> None:
        super().extend(items)
        self.tell()

    def __iadd__(self, items: Iterable[bytes], /) -> Self:  # type: ignore[override,misc]  # as a list's own, which takes any
        super().__iadd__(items)
        self.tell()
        return self
