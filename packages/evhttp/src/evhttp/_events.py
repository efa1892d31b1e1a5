"""Server-sent events (WHATWG HTML, §9.2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from evhttp._response import Response

__all__ = ["EventStream"]

# What ends a line for the reader of a stream.
_LINE_END = re.compile(r"\r\n|\r|\n")


class EventStream:
    """A response that goes on: each event reaches the page when it is sent. Made by `Response.events`.

    It ends when the client leaves or `close` is called; a browser connects again by itself, and tells in ``Last-Event-ID`` which
    event it saw last. Proxies and servers end connections on which nothing moves: send a `comment` every fifteen seconds or so.

    Thread safety: loop thread only.
    """

    __slots__ = ("_response", "closed")

    def __init__(self, response: Response) -> None:
        response.header("Content-Type", "text/event-stream").header("Cache-Control", "no-store").begin()
        self._response = response
        self.closed: bool = False
        """Whether no more can be sent."""
        later = response._later()
        later.on_close = self._ended
        if later.lost:  # of a response in another thread, whose client has gone meanwhile
            self.closed = True

    def send(self, data: str, *, event: str | None = None, id: str | None = None, retry: float | None = None) -> bool:
        """Send an event.

        Args:
            data: What the page gets; it may have several lines.
            event: Its type; ``None`` is ``"message"``.
            id: What the client tells in ``Last-Event-ID`` when it comes back.
            retry: Seconds that the client should wait before it comes back.

        Returns:
            Whether more should be sent now; if not, the client is behind (see `on_drain`), or gone.

        Raises:
            ValueError: ``event`` or ``id`` has a line end, ``id`` a NUL, or ``retry`` is negative.
        """
        lines = []
        for name, value in (("event", event), ("id", id)):
            if value is not None:
                if _LINE_END.search(value) or "\0" in value:
                    raise ValueError(f"the {name} of an event must be one line without NUL")
                lines.append(f"{name}: {value}\n")
        if retry is not None:
            if not 0 <= retry < 1e9:
                raise ValueError(f"retry must be a number of seconds >= 0, not {retry!r}")
            lines.append(f"retry: {round(retry * 1000)}\n")
        lines += [f"data: {line}\n" for line in _LINE_END.split(data)]
        return self._write("".join(lines))

    def comment(self, text: str = "") -> bool:
        """Send something that no page sees, so that nobody takes the connection for dead. Returns: as `send`."""
        return self._write("".join(f": {line}\n" for line in _LINE_END.split(text)))

    def on_drain(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` each time the client has caught up, after `send` had returned false."""
        self._response.on_drain(callback)

    def close(self) -> None:
        """End the stream. Calling this again, or when the client is gone, does nothing."""
        if not self.closed:
            self.closed = True
            self._response.end()

    def _write(self, text: str) -> bool:
        return not self.closed and self._response.write(text + "\n")

    def _ended(self, complete: bool) -> None:
        self.closed = True
