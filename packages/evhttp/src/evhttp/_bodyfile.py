"""A request's body as a file, for a thread that can wait for it."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from evhttp._errors import BodyError

if TYPE_CHECKING:
    from evhttp._body import BodyReader

__all__ = ["BodyFile"]

_MOST = 256 * 1024  # bytes that may wait for the reader
_LEAST = _MOST // 4  # when so few are left the client is asked for more


class BodyFile(io.BufferedIOBase):
    """A body to be read once, from its beginning to its end, by one thread that is not the loop's.

    Nothing is asked of the client before the first read, and little more than 256 KiB wait to be read. Closing it leaves the rest
    with the client.
    """

    def __init__(self, request: Any, call: Callable[..., bool], wait: Callable[[Callable[[], object]], object]) -> None:
        self._request = request
        self._call = call
        self._wait = wait
        self._reader: BodyReader | None = None
        self._begun = False
        self._pieces: deque[bytes] = deque()
        self._size = 0  # of the pieces
        self._offset = 0  # in the first of them
        self._ended = False
        self._error: BodyError | None = None
        self._held = False
        self._change = threading.Condition()

    @classmethod
    def of(cls, body: bytes) -> BodyFile:
        """Of a body that is there already."""
        file = cls(None, lambda *_: False, lambda _: None)
        file._begun = file._ended = True
        if body:
            file._pieces.append(body)
            file._size = len(body)
        return file

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, or all that are left; fewer only at the end.

        Raises:
            BodyError: The body cannot be had: its client is gone, or it breaks a limit.
            ValueError: The file is closed.
        """
        if size is None or size < 0:
            return b"".join(iter(self.read1, b""))
        parts = []
        while size > 0 and (part := self.read1(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        """Read what is there, at most ``size`` bytes, and wait if that is nothing; ``b""`` at the end. Raises: as `read`."""
        if self.closed:
            raise ValueError("the body's file is closed")
        if size == 0:
            return b""
        with self._change:
            self._begin()
        if not self._pieces and not self._ended:
            self._wait(self._wait_for_change)
        with self._change:
            if not self._pieces:
                if self._error is not None:
                    raise self._error
                return b""
            piece, start = self._pieces[0], self._offset
            end = len(piece) if size < 0 else min(len(piece), start + size)
            if end == len(piece):
                self._pieces.popleft()
                self._offset = 0
            else:
                self._offset = end
            self._size -= end - start
            if self._held and self._size <= _LEAST:
                self._held = False
                self._call(self._resume)
            return piece if end - start == len(piece) else piece[start:end]

    def readinto(self, buffer: Any, /) -> int:
        """As `read`, into a buffer."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readinto1(self, buffer: Any, /) -> int:
        """As `read1`, into a buffer."""
        view = memoryview(buffer).cast("B")
        data = self.read1(len(view))
        view[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read up to and with the next line feed. Raises: as `read`."""
        most = -1 if size is None else size
        line = b""
        while most < 0 or len(line) < most:
            part = self.read1(most - len(line) if most >= 0 else -1)
            if not part:
                break
            end = part.find(b"\n") + 1
            if end:
                self._put_back(part[end:])
                return line + part[:end]
            line += part
        return line

    def _wait_for_change(self) -> None:
        with self._change:
            while not self._pieces and not self._ended:
                self._change.wait()

    def lose(self) -> None:
        """No more will come. Thread safety: any thread."""
        with self._change:
            lost = not self._ended
        if lost:
            self._end(BodyError("the body cannot be had any more: the client is gone"))

    def _put_back(self, rest: bytes) -> None:
        if rest:
            with self._change:
                if self._offset:  # it is the beginning of a piece that is still there
                    self._offset -= len(rest)
                else:
                    self._pieces.appendleft(rest)
                self._size += len(rest)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            if not self._call(self._start):
                self._ended = True
                self._error = BodyError("the body cannot be had any more: the server is gone")

    # On the loop's thread.

    def _start(self) -> None:
        self._reader = self._request.read_body(self._came, self._end)

    def _came(self, piece: bytes) -> None:
        with self._change:
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > _MOST and not self._held:
                self._held = True
                assert self._reader is not None
                self._reader.pause()
            self._change.notify()

    def _end(self, error: BodyError | None) -> None:
        with self._change:
            self._ended = True
            self._error = error
            self._change.notify()

    def _resume(self) -> None:
        if self._reader is not None and not self._ended:
            self._reader.resume()
