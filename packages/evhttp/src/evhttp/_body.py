"""Bodies that are read while they come."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING

from evhttp._errors import BodyError

if TYPE_CHECKING:
    from evhttp._request import Request
    from evloop import Record

__all__ = ["BodyReader", "save_body"]

_OP_BODY = 2 << 8 | 12  # shim.h
_READ, _PAUSE, _RESUME = 1, 2, 3
_END, _LOST, _REFUSED, _TAKEN = 0, -1, -2, -3
_ASK = Struct("<IHH8s")
_ASK_READ = Struct("<IHH8sI")
_REASON = Struct("<II")
_PIECE = 64 * 1024


class BodyReader:
    """A body under way. Made by `Request.read_body`. Thread safety: loop thread only."""

    __slots__ = (
        "_awaits_turn",
        "_buffered",
        "_exchange",
        "_loop",
        "_on_data",
        "_on_end",
        "_paused",
        "_request",
        "_target",
        "received",
    )

    def __init__(
        self,
        request: Request,
        on_data: Callable[[bytes], object],
        on_end: Callable[[BodyError | None], object] | None,
    ) -> None:
        loop = request._server.loop
        self._request = request
        self._loop = loop
        self._exchange = request._record[3]
        self._on_data = on_data
        self._on_end = on_end
        self._paused = False
        self._buffered: memoryview | None = None
        self._awaits_turn = False  # the next piece of what was buffered will be delivered
        self.received: int = 0
        """Bytes given to ``on_data`` so far."""
        if request.is_streamed:
            self._target = loop.add_target(self._event)
            loop.submissions.append(_ASK_READ.pack(4, _OP_BODY, _READ, self._exchange, self._target))
        else:
            self._buffered = memoryview(request.body)
            self._await_turn()

    def pause(self) -> None:
        """Leave the rest with the client, whom TCP brings to a stop. What has come in this turn is still delivered."""
        if not self._paused:
            self._paused = True
            self._ask(_PAUSE)

    def resume(self) -> None:
        """Go on."""
        if self._paused:
            self._paused = False
            self._ask(_RESUME)

    def _ask(self, what: int) -> None:
        if self._buffered is None:
            self._loop.submissions.append(_ASK.pack(0, _OP_BODY, what, self._exchange))
        elif what == _RESUME:
            self._await_turn()

    def _await_turn(self) -> None:
        # Not twice, when it was paused and resumed in between: both would find the end.
        if not self._awaits_turn:
            self._awaits_turn = True
            self._loop.call_soon(self._next_piece)

    def _next_piece(self) -> None:
        """Deliver a body that was buffered as if it came now."""
        assert self._buffered is not None
        self._awaits_turn = False
        if self._paused:
            return
        piece = bytes(self._buffered[self.received : self.received + _PIECE])
        if piece:
            self._await_turn()
            self._deliver(piece)
        else:
            self._end(None)

    def _event(self, record: Record) -> None:
        _, a, what, _ = record
        arena = self._loop.arena
        if what > 0:
            self._deliver(arena[a : a + what])
            return
        self._loop.drop_target(self._target)
        error = None
        if what == _LOST:
            error = BodyError("the body cannot be had any more: the client is gone, or it was read before")
        elif what == _TAKEN:
            error = BodyError("the body is being read already", status=500)
        elif what == _REFUSED:
            status, length = _REASON.unpack_from(arena, a)
            reason = arena[a + _REASON.size : a + _REASON.size + length].decode()
            error = BodyError(reason, status=status)
        self._end(error)

    def _deliver(self, piece: bytes) -> None:
        self.received += len(piece)
        self._call(self._on_data, piece)

    def _end(self, error: BodyError | None) -> None:
        if self._on_end is not None:
            self._call(self._on_end, error)

    def _call(self, callback: Callable[..., object], argument: object) -> None:
        try:
            callback(argument)
        except Exception:
            self._on_data = _ignore
            self._on_end = None
            self._request._server._failed(self._request)


def _ignore(piece: bytes) -> None:
    """Take what comes for a callback that has failed."""


def save_body(
    request: Request, folder: str | os.PathLike[str], on_end: Callable[[str | None, Exception | None], object]
) -> BodyReader:
    """See `Request.save_body`."""
    fd, path = tempfile.mkstemp(prefix="body-", dir=folder)
    failed: OSError | None = None

    def on_data(piece: bytes) -> None:
        nonlocal failed
        if failed is not None:
            return
        try:
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        except OSError as error:
            failed = error

    def finished(error: BodyError | None) -> None:
        os.close(fd)
        reason = failed or error
        if reason is None:
            on_end(os.fspath(path), None)
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)
            on_end(None, reason)

    try:
        return BodyReader(request, on_data, finished)
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
