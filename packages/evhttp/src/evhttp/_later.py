"""What is kept for an exchange whose answer does not leave at once: deferred, or in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evhttp._exchange import Exchange
    from evhttp._response import Response
    from evloop import Record

__all__ = ["Later"]

_TAKEN, _DONE, _EOF = 1, 2, 4  # shim.h, EVH_TELL_*; else lost


class Later(list[str]):
    """The header lines of such an answer, and what is known of its way.

    A list, so that it takes the place of the plain list of header lines that every other response has, and costs those nothing.
    """

    __slots__ = (
        "_response",
        "_target",
        "ahead",
        "begun",
        "cause",
        "left",
        "logged",
        "lost",
        "on_close",
        "on_drain",
        "on_eof",
        "spokesman",
    )

    def __init__(self, response: Response, lines: list[str]) -> None:
        super().__init__(lines)
        self._response: Response | None = response
        self.begun = False  # the head is on its way
        self.left: int | None = None  # bytes of the body still to come, where they were declared
        self.ahead = 0  # bytes written since the client's socket had taken all
        self.lost = False
        self.cause = 0  # evnet.h, NET_*, when it was lost
        self.on_drain: Callable[[], object] | None = None
        self.on_close: Callable[[bool], object] | None = None
        self.on_eof: Callable[[], object] | None = None
        self.spokesman: Exchange | None = None  # who answers in the response's place, in another thread
        self.logged: Callable[[], object] | None = None  # writes the access log

    def watch(self) -> int:
        """Ask to be told of the exchange; returns the target."""
        assert self._response is not None
        self._target = self._response._server.loop.add_target(self.event)
        return self._target

    def event(self, record: Record) -> None:
        """Take what C says of the exchange."""
        if record[2] == _TAKEN:
            self.ahead = 0
            if self.on_drain is not None and self._response is not None:
                try:
                    self.on_drain()
                except Exception:
                    self._response._server._failed(self._response)
            return
        if record[2] == _EOF:
            if self.on_eof is not None:
                self.on_eof()
            return
        response, self._response = self._response, None
        assert response is not None
        self.lost = record[2] != _DONE
        self.cause = record[1]
        response._server.loop.drop_target(self._target)
        try:
            if self.logged is not None:
                self.logged()
        finally:
            if self.on_close is not None:
                self.on_close(not self.lost)
