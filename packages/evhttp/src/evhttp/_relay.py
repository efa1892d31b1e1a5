"""Answers from other threads: made there, sent by the loop, all that are ready in one batch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from itertools import count
from struct import Struct
from typing import TYPE_CHECKING, Any, TypeVar, overload

from evhttp._bodyfile import BodyFile
from evhttp._errors import ResponseStateError
from evhttp._exchange import LoggedExchange
from evhttp._later import Later
from evhttp._request import Request, body_of
from evhttp._response import CLOSE, OP_SEND_FILE, SENT, Response
from evloop import LoopClosedError, Record

if TYPE_CHECKING:
    from evhttp._body import BodyReader
    from evhttp._forwarded import Proxies
    from evhttp._server import Server

__all__ = ["Relay", "Relayed"]

_OP = Struct("<4xH")
_DESCRIPTOR = Struct("<16xQQi")  # in the header of a file's submission
# A request that is kept lets go of the bytes of its turn, unless they are so few that it does not matter.
_KEPT = 16 * 1024

T = TypeVar("T", bound="Relayed")


class Relay:
    """The way of a server's requests to other threads, and of their answers back. One for each server: see `of`.

    ::

        def handler(req, res):
            relayed = evhttp.Relay.of(res).take(req, res)
            pool.submit(work, relayed)

        def work(relayed):
            relayed.send("done in another thread")
            relayed.post()

    What answers say waits here until the loop's thread takes it, all of it at once; it is woken only if it sleeps, by the first who
    posts. ``context`` is free for who stands on it.

    Thread safety: `of` and `take` belong to the loop's thread, `call` and `post` to any.
    """

    __slots__ = ("_blocked", "_numbers", "_pin_target", "_pins", "_posted", "_server", "closed", "context", "loop")

    def __init__(self, server: Server) -> None:
        self._server = server
        # A response asks its server for a loop, and the loop for the list of submissions: here it finds another list.
        self.loop: _Outbox = _Outbox()
        self.context: Any = None
        self.closed: bool = False
        self._blocked: set[Relayed] = set()
        self._posted = False
        self._numbers = count(1)
        self._pins: dict[int, bytes] = {}
        self._pin_target = server.loop.add_target(self._unpin)
        server.loop.on_close(self.close)

    @staticmethod
    def of(part: Request | Response) -> Relay:
        """The relay of the server that a request or response belongs to."""
        return Relay.at(part._server)

    @staticmethod
    def at(server: Server) -> Relay:
        """The relay of a server."""
        relay: Relay | None = server._relay
        if relay is None:
            relay = server._relay = Relay(server)
        return relay

    @property
    def server(self) -> Server:
        """Whose requests it relays."""
        return self._server

    @overload
    def take(self, request: Request, response: Response) -> Relayed: ...
    @overload
    def take(self, request: Request, response: Response, into: type[T]) -> T: ...

    def take(self, request: Request, response: Response, into: Any = None) -> Any:
        """Defer a response, and return what another thread reads the request from and answers by.

        Args:
            request: The handler's.
            response: The handler's; its headers and status go on. It must not be used any more.
            into: `Relayed`, or a class derived from it that can be made without arguments.

        Raises:
            ResponseStateError: The response has been sent already, or has begun.
        """
        response._check_unsent()
        later = response._later()
        relayed: Any = (into or Relayed)()
        arena, record = request._arena, request._record
        if len(arena) > _KEPT:
            target, offset, info, token = record
            head_size, body_size, _ = body_of(arena, offset)
            arena, record = arena[offset : offset + head_size + body_size], (target, 0, info, token)
        relayed._arena = arena
        relayed._record = record
        relayed._server = self
        relayed._arg = response._arg
        relayed._lines = list(later) if later or relayed._arg != 200 else None
        relayed._size = 0
        relayed._origin = response
        relayed._drained = None
        relayed._file = None
        relayed.client_gone = relayed.is_lost = False
        later.spokesman = relayed
        later.on_close = relayed._ended
        later.on_eof = relayed._left
        later.on_drain = relayed._taken
        return relayed

    def call(self, callback: Callable[..., object], *args: object) -> bool:
        """Call ``callback(*args)`` on the loop's thread; whether it will be: not when the loop is closed."""
        try:
            self._server.loop.call_soon_threadsafe(callback, *args)
        except LoopClosedError:
            return False
        return True

    def post(self) -> None:
        """Let what was said so far leave."""
        if not self._posted:
            self._posted = True
            self.call(self._collect)

    def _collect(self) -> None:
        self._posted = False  # before the look: who adds something after it posts anew
        outbox = self.loop.submissions
        size = len(outbox)
        self._server.loop.submissions += outbox[:size]
        del outbox[:size]

    # What a request or a response asks of its server.

    @property
    def _proxies(self) -> Proxies:
        return self._server._proxies

    def _pin(self, body: bytes) -> tuple[int, int]:
        number = next(self._numbers)
        self._pins[number] = body
        return number, self._pin_target

    def _unpin(self, record: Record) -> None:
        del self._pins[record[1]]

    def close(self) -> None:
        """Take no more answers, and wake the threads that wait for clients: all of them are lost. The loop's closing calls it.

        Thread safety: loop thread only.
        """
        if self.closed:
            return
        self.closed = True
        outbox, self.loop.submissions = self.loop.submissions, _Discarded()
        self._server.loop.submissions += outbox
        self._server.loop.flush()  # so that descriptors in it have an owner
        for relayed in list(self._blocked):
            relayed._lose()


class _Outbox:
    """Stands in for the loop, for responses in other threads."""

    __slots__ = ("submissions",)

    def __init__(self) -> None:
        self.submissions: list[bytes] = []


class _Discarded(list[bytes]):
    """Takes what is said after the loop was closed."""

    def append(self, item: bytes, /) -> None:
        pass

    def extend(self, items: Iterable[bytes], /) -> None:
        header = next(iter(items))
        if len(header) >= _DESCRIPTOR.size and _OP.unpack_from(header)[0] == OP_SEND_FILE:
            os.close(_DESCRIPTOR.unpack_from(header)[2])


class Relayed(LoggedExchange):
    """A request and its response in one, in the hands of another thread; made by `Relay.take`.

    It has what `Request` and `Response` have, with these differences: an answer leaves with `post`, pieces of one (`write`) leave
    at once, `write` waits while the client is behind, and `body_file` reads a streamed body. Callbacks that the loop's thread would
    have to call (`on_drain`, `read_body`, `save_body`) and upgrades cannot be had.

    Thread safety: one thread at a time, whichever.

    Attributes:
        client_gone: Whether the client has closed its side, as most do who have lost interest, or the connection is lost. Changes
            while the handler runs. An answer is sent all the same where that can be.
        is_lost: Whether the connection is lost: what is said is dropped.
    """

    __slots__ = ("_drained", "_file", "_origin", "client_gone", "is_lost")

    _origin: Response
    _drained: threading.Event | None
    _file: BodyFile | None
    client_gone: bool
    is_lost: bool

    def post(self) -> None:
        """Let what was said so far leave; to be called when the answer is complete. Thread safety: any thread."""
        relay: Any = self._server
        relay.post()

    @property
    def relay(self) -> Relay:
        """Where it came from."""
        relay: Any = self._server
        assert isinstance(relay, Relay)
        return relay

    @property
    def begun(self) -> bool:
        """Whether a part of the answer has left, or all of it."""
        return self._lines is SENT or (type(self._lines) is Later and self._lines.begun)

    @property
    def body_file(self) -> BodyFile:
        """The request's body as a file that is read once. Reading waits for the client, who is held back while nobody reads.

        Reading raises `BodyError` when the body cannot be had: the client is gone, or breaks a limit.
        """
        if self._file is None:
            self._file = (
                BodyFile(self._origin, self.relay.call, self._wait) if self.is_streamed else BodyFile.of(self.body)
            )
        return self._file

    def write(self, data: str | bytes | bytearray | memoryview) -> bool:
        """Send a piece of the body, as `Response.write`, and wait while the client is behind.

        Returns:
            Whether the client is still there.
        """
        if self._drained is None:
            self._drained = threading.Event()
        else:
            self._drained.clear()
        more = super().write(data)
        self.post()
        if not more:
            self._wait(self._drained.wait)
        return not self.is_lost

    def _wait(self, wait: Callable[[], object]) -> None:
        """Wait for something that the loop's thread does, unless the client is lost or that thread has ended its work."""
        relay = self.relay
        relay._blocked.add(self)
        try:
            if relay.closed:
                self._lose()
            if not self.is_lost:
                wait()
        finally:
            relay._blocked.discard(self)

    def defer(self) -> Response:
        """Not here: the answer is deferred already, and complete when it is posted."""
        raise ResponseStateError("a response in another thread is deferred already")

    def on_close(self, callback: Callable[[bool], object]) -> Response:
        """Not here; see `client_gone`."""
        raise ResponseStateError("a response in another thread has no callbacks: see client_gone")

    def on_drain(self, callback: Callable[[], object]) -> Response:
        """Not here: `write` waits."""
        raise ResponseStateError("a response in another thread has no callbacks: write waits by itself")

    def read_body(self, on_data: Callable[[bytes], object], on_end: Any = None) -> BodyReader:
        """Not here; see `body_file`."""
        raise ResponseStateError("in another thread a body is read by body_file")

    def save_body(self, folder: Any, on_end: Any) -> BodyReader:
        """Not here; see `body_file`."""
        raise ResponseStateError("in another thread a body is read by body_file")

    def hand_over(self) -> tuple[bytes, bytes]:
        """Not here: a connection is upgraded by the loop's thread."""
        raise ResponseStateError("a connection cannot be upgraded in another thread")

    def in_place(self) -> Response | None:
        """A response to give in place of what the thread owes, which is dropped then; ``None`` if its answer has begun.

        Thread safety: loop thread only. The thread may begin to answer at the same moment: the one who says it first is heard.
        """
        if self.begun:
            return None
        other = LoggedExchange()
        other._arena, other._record, other._server = self._arena, self._record, self.relay.server
        other._arg, other._lines, other._size = 200, None, 0
        later = self._origin._lines
        if type(later) is Later:
            later.spokesman = other  # the access log says what it answers
        return other

    def replace(self, status: int, text: str = "") -> None:
        """Answer with an error whatever was being prepared, or, if the answer has begun, end the connection.

        For who calls handlers, when one has failed. An answer that is complete is left alone.
        """
        if self.sent:
            return
        if self.begun:
            self.drop()
            return
        self._lines = []
        self._arg = self._arg & CLOSE | 200
        self.send_error(status, text or None)

    def _later(self) -> Later:
        """What is known of an answer in pieces; what comes from C goes to the origin's, which tells us."""
        lines = self._lines
        if type(lines) is Later:
            return lines
        later = self._lines = Later(self, self._prepare())
        later.lost = self.is_lost
        return later

    # On the loop's thread.

    def _taken(self) -> None:
        later = self._lines
        if type(later) is Later:
            later.ahead = 0
        if self._drained is not None:
            self._drained.set()

    def _left(self) -> None:
        self.client_gone = True

    def _ended(self, complete: bool) -> None:
        """Called on the loop's thread when the answer is complete (true) or the client lost; who overrides it calls it."""
        if not complete:
            self._lose()

    def _lose(self) -> None:
        self.client_gone = self.is_lost = True
        later = self._lines
        if type(later) is Later:
            later.lost = True
            if later.on_close is not None:
                later.on_close(False)
        if self._drained is not None:
            self._drained.set()
        if self._file is not None:
            self._file.lose()
