"""Connections without a loop: a thread has the socket, reads requests from it, and waits in it for its client."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterable
from struct import Struct
from time import monotonic, time
from typing import TYPE_CHECKING, Any, TypeVar, overload

from evhttp._bodyfile import BodyFile
from evhttp._dates import format_date
from evhttp._ends import ConnectionEnd
from evhttp._errors import BodyError, ResponseStateError
from evhttp._later import Later
from evhttp._parser import RequestParser
from evhttp._relay import Relayed
from evhttp._response import OP_SEND_FILE, reason

if TYPE_CHECKING:
    from evhttp._limits import Limits
    from evhttp._relay import Relay
    from evhttp._request import ParsedRequest

__all__ = ["BlockingConnection", "BlockingExchange"]

# shim.h, EVH_OP_*: what a response says; here it is done at once.
_HTTP = 2 << 8
_SEND, _SEND_H, _SEND_REF, _FILE, _DROP, _HEAD, _PIECE, _PIECE_REF, _END, _INFO = (_HTTP | op for op in range(1, 11))
assert _FILE == OP_SEND_FILE
_OP = Struct("<IHH8s")
_U32, _U64, _FILE_PART = Struct("<I"), Struct("<Q"), Struct("<QQi")
_CHUNKED, _UNTIL_CLOSE = 2**64 - 1, 2**64 - 2
_CLOSE, _HAS_DATE = 1 << 12, 1 << 13
_TYPES = (
    b"",
    b"Content-Type: text/plain; charset=utf-8\r\n",
    b"Content-Type: application/octet-stream\r\n",
    b"",
)
_HTTP10, _STREAMED = 1 << 10, 1 << 11  # in a request's info: layout.h
_REQUEST = Struct("<IIIIIHBB16sQ")  # struct evh_head of layout.h

_PIECE_SIZE = 64 * 1024
_DRAIN = 64 * 1024  # bytes of a body that nobody wants, and that is read all the same
_DISCARD = 1 << 20  # bytes that a client may send behind our last word, before it is cut off
_AT_ONCE = 1 << 20  # bytes of a file for each system call
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR if hasattr(select, "POLLRDHUP") else 0

T = TypeVar("T", bound="BlockingExchange")


class BlockingConnection:
    """An HTTP/1.1 connection that is served by whichever thread calls `receive`, one at a time, without a loop and without TLS.

    Between requests nobody waits in it: who has many connections waits for all of them at once (`select.epoll`), and calls
    `receive` when there is something to read. While a request is worked on, its body is read and its answer is written by the
    thread itself, which waits for the client as long as ``limits`` allow: ``body_timeout`` for all waits for a body together,
    ``write_timeout`` while the client takes nothing.

    Args:
        sock: A connected stream socket. It is the connection's from now on, and made non-blocking.
        limits: What the client may ask for.
        connection_id: For `Request.connection_id`.

    Attributes:
        closing: Whether the next answer is to be the last one; may be set by any thread.
        requests: How many were taken.
        begun: Whether the answer to the last request has begun.

    Thread safety: one thread at a time, whichever; but `abort` and `give_up` may be called by any, as long as the socket is not
    closed meanwhile.  Spec: RFC 9112.
    """

    def __init__(self, sock: socket.socket, limits: Limits, *, connection_id: int = 0) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.limits = limits
        self.connection_id = connection_id
        self.closing: bool = False
        self.requests: int = 0
        self.begun: bool = False
        self.client: tuple[str, int] | None = None
        self._address = (0, 0, bytes(16))  # as in struct evh_head: port, family, address
        if sock.family != socket.AF_UNIX:
            self.client = sock.getpeername()[:2]
            packed = socket.inet_pton(sock.family, self.client[0].partition("%")[0])
            self._address = (self.client[1], 4 if len(packed) == 4 else 6, packed.ljust(16, b"\0"))
        self._parser = RequestParser(limits)
        self._lock = (
            threading.Lock()
        )  # of the answer: a thread that gives up must not speak between another one's words
        self._cause = ""
        self._error: OSError | None = None
        self._lingers = False
        self._over = False
        self._why = "by_us"  # what its end will be due to, once the answer is sent
        self._discarded = 0  # bytes, while it is ending
        self._asked_for = False  # the body of a client that waits for a 100
        self._waited = 0.0  # seconds, for the body
        self._pinned: bytes = b""
        self._keep_alive = self._is_head = self._is_old = False
        self._final = False  # the connection ends with this answer
        self._length = 0  # of an answer in pieces: _CHUNKED, or any other that is not 0 where it has a body

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be said any more: the client is gone, or was given up."""
        return bool(self._cause)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do but `close`."""
        return self._over

    @property
    def is_idle(self) -> bool:
        """Whether no request has begun."""
        return self._parser.phase == "idle"

    @property
    def is_ending(self) -> bool:
        """Whether all that is waited for is that the client closes: what it still sends is thrown away, for a short while."""
        return self._lingers

    @property
    def ended(self) -> ConnectionEnd:
        """How it has ended."""
        return ConnectionEnd(self._cause or "by_us", self.client, self.requests, self._error, self.connection_id)

    # -- requests --------------------------------------------------------------------------------------------------------------

    @overload
    def receive(self) -> BlockingExchange | None: ...
    @overload
    def receive(self, into: type[T]) -> T | None: ...

    def receive(self, into: Any = None) -> Any:
        """Read what has come, without waiting, and return the next request when its head is there.

        It must be answered, and `finish` called, before the next one can be had. ``None``: more has to come, or the connection
        `is_over`. What breaks the protocol is answered here.

        Args:
            into: `BlockingExchange`, or a class derived from it that can be made without arguments.
        """
        while not self._over:
            phase = self._parser.phase
            if self._lingers:
                pass
            elif phase in ("body", "complete"):
                return self._request(into or BlockingExchange)
            elif phase == "failed":
                error = self._parser.error
                assert error is not None
                self.refuse(error.status, str(error))
            data = self._receive()
            if data is None:
                return None
            if not data:
                self._end("by_client")
                self._over = True
            elif not self._lingers:
                self._parser.feed(data)
            else:
                self._discarded += len(data)
                self._over = self._discarded > _DISCARD
        return None

    def finish(self) -> bool:
        """Go on after an answer; whether the connection is there for further requests, which may have come already."""
        if not self._cause and self._parser.phase == "body":
            self._drain()
        if self._cause:
            self._over = True
        elif self._parser.phase != "complete" or self._final:
            self._linger("protocol_violated" if self._parser.phase == "failed" else self._why)
        else:
            self._parser.reset()
        return not self._over and not self._lingers

    def refuse(self, status: int, text: str, fields: str = "", *, cause: str = "protocol_violated") -> None:
        """Answer with an error, as far as that can be done without waiting, and end the connection.

        Args:
            status: The status.
            text: The body.
            fields: Header lines, each with its CRLF.
            cause: As of `ConnectionEnd`.
        """
        body = f"{text}\n".encode()
        head = self._head(status, 1 << 10, len(body), True) + fields.encode("latin-1") + b"\r\n"
        try:
            self.sock.send(head if self._is_head else head + body, _NO_SIGNAL)
        except OSError as error:
            self._end("lost", None if isinstance(error, BlockingIOError) else error)
        self._linger(cause)

    def abort(self, cause: str = "by_us") -> None:
        """End it at once with a reset; a thread that waits for the client goes on. The socket is closed by `close`."""
        self._end(cause)
        self._reset()
        self._shut(socket.SHUT_RDWR)

    def give_up(self, status: int, text: str) -> None:
        """Answer in place of a handler, and end the connection; where its answer has begun, abort."""
        if not self._lock.acquire(blocking=False):
            self.abort("timed_out")
            return
        try:
            begun = self.begun
            if not begun:
                self.refuse(status, text, cause="timed_out")
        finally:
            self._lock.release()
        if begun:
            self.abort("timed_out")
        else:
            self._shut(socket.SHUT_RD)

    def close(self, cause: str = "by_us") -> None:
        """Close the socket. ``cause`` as of `ConnectionEnd`, if it has no other."""
        self._end(cause)
        self._over = True
        self.sock.close()

    def is_client_gone(self) -> bool:
        """Whether the client has closed its side, or is lost."""
        return bool(self._cause) or self._poll(_GONE, 0.0)

    def wait_gone(self, seconds: float) -> bool:
        """Wait for the client to go away, at most so long; whether it has."""
        return bool(self._cause) or self._poll(_GONE, seconds) or bool(self._cause)

    def read_body(self) -> bytes:
        """Wait for a piece of the body; ``b""`` at its end.

        Raises:
            BodyError: It cannot be had.
        """
        parser = self._parser
        while True:
            if piece := parser.take_body():
                return piece
            if parser.phase == "complete":
                return b""
            if parser.error is not None:
                raise BodyError(str(parser.error), status=parser.error.status)
            if self._cause:
                raise BodyError("the body cannot be had any more: the client is gone")
            if parser.expects_continue and not self._asked_for:
                self._asked_for = True
                with self._lock:
                    if not self.begun:  # RFC 9110 §10.1.1
                        self._transmit([b"HTTP/1.1 100 Continue\r\n\r\n"])
            self._await_body()

    def _await_body(self) -> None:
        data = self._receive()
        if data is None:
            left = self.limits.body_timeout - self._waited
            since = monotonic()
            came = self._poll(select.POLLIN, left)
            self._waited += monotonic() - since
            if not came:
                self._why = "timed_out"
                raise BodyError("the body did not come in time", status=408)
        elif data:
            self._parser.feed(data)
        else:
            self._end("by_client")

    def _drain(self) -> None:
        """Read what is left of a small body that nobody wanted, if it is there already."""
        size = 0
        while self._parser.phase == "body" and size < _DRAIN and (data := self._receive()):
            size += len(data)
            self._parser.feed(data)
            self._parser.take_body()

    def _request(self, into: type[T]) -> T:
        parser = self._parser
        parsed: ParsedRequest = parser.request  # type: ignore[assignment]
        streamed = parser.phase == "body"
        head = list(_REQUEST.unpack_from(parsed._arena))
        head[5], head[7], head[8] = self._address
        _, _, info, _ = parsed._record
        exchange = into()
        exchange._arena = _REQUEST.pack(*head) + parsed._arena[_REQUEST.size :]
        exchange._record = (0, 0, info | _STREAMED if streamed else info, self.connection_id.to_bytes(8, "little"))
        exchange._server = self  # type: ignore[assignment]
        exchange._connection = self
        exchange._arg = 200
        exchange._lines = exchange._drained = exchange._file = exchange._whole = None
        exchange._size = 0
        self.requests += 1
        self.begun = False
        self._waited = 0.0
        self._asked_for = False
        self._keep_alive = parser.keep_alive
        self._is_head = exchange.method == "HEAD"
        self._is_old = bool(info & _HTTP10)
        self._final = False
        return exchange

    # -- the socket ------------------------------------------------------------------------------------------------------------

    def _receive(self) -> bytes | None:
        """What has come: ``b""`` at the end of it, ``None`` for nothing yet."""
        try:
            return self.sock.recv(_PIECE_SIZE)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            self._end("lost", error)
            self._over = True
            return b""

    def _poll(self, events: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.sock, events)
        return bool(poll.poll(max(0.0, min(seconds * 1000, 0x7FFF_FFFF))))

    def _transmit(self, parts: list[bytes | memoryview]) -> None:
        """Send all of it, and wait while the client takes nothing."""
        left = [memoryview(part) for part in parts if len(part)]
        while left and not self._cause:
            try:
                sent = self.sock.sendmsg(left, (), _NO_SIGNAL)
            except (BlockingIOError, InterruptedError):
                self._await_taking()
                continue
            except OSError as error:
                self._end("lost", error)
                return
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if left:
                left[0] = left[0][sent:]

    def _transmit_file(self, fd: int, offset: int, count: int) -> None:
        end = offset + count
        while offset < end and not self._cause:
            try:
                sent = os.sendfile(self.sock.fileno(), fd, offset, min(end - offset, _AT_ONCE))
            except (BlockingIOError, InterruptedError):
                self._await_taking()
                continue
            except OSError as error:
                self._end("lost", error)
                return
            if not sent:  # the file is shorter than it was
                self.abort()
            offset += sent

    def _await_taking(self) -> None:
        if not self._poll(select.POLLOUT, self.limits.write_timeout):
            self.abort("timed_out")

    def _end(self, cause: str, error: OSError | None = None) -> None:
        if not self._cause:
            self._cause, self._error = cause, error

    def _linger(self, cause: str) -> None:
        """Say that we have nothing more to say. A socket that is closed with something unread in it resets what was said."""
        self._end(cause)
        self._lingers = True
        self._shut(socket.SHUT_WR)

    def _shut(self, how: int) -> None:
        try:
            self.sock.shutdown(how)
        except OSError:  # the client was quicker
            self._over = True

    def _reset(self) -> None:
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    # -- answers: what a response asks of its server, and of that one's loop ---------------------------------------------------

    @property
    def loop(self) -> BlockingConnection:
        """Itself: a response gives what it says to its server's loop."""
        return self

    @property
    def submissions(self) -> BlockingConnection:
        """Itself, as the list of what a loop is to do."""
        return self

    def _pin(self, body: bytes) -> tuple[int, int]:
        self._pinned = body
        return 0, 0

    def append(self, item: bytes) -> None:
        """Do what a response says."""
        self.extend((item,))

    def extend(self, items: Iterable[bytes]) -> None:
        """Do what a response says."""
        data = b"".join(items)
        _, op, arg, _ = _OP.unpack_from(data)
        with self._lock:
            self._do(op, arg, memoryview(data)[_OP.size :])
        self._pinned = b""

    def _do(self, op: int, arg: int, rest: memoryview) -> None:
        if op == _FILE:
            offset, count, fd = _FILE_PART.unpack_from(rest)
            try:
                if self._answer(arg, rest[20:], count):
                    self._transmit_file(fd, offset, count)
            finally:
                os.close(fd)
        elif self._cause:
            pass
        elif op == _SEND:
            self._answer(arg, b"", len(rest), rest)
        elif op == _SEND_H:
            start = 4 + _U32.unpack_from(rest)[0]
            self._answer(arg, rest[4:start], len(rest) - start, rest[start:])
        elif op == _SEND_REF:
            self._answer(arg, rest[28:], len(self._pinned), memoryview(self._pinned))
        elif op == _HEAD:
            self._begin(arg, rest[8:], _U64.unpack_from(rest)[0])
        elif op == _PIECE:
            self._piece(rest)
        elif op == _PIECE_REF:
            self._piece(memoryview(self._pinned))
        elif op == _END:
            if self._length == _CHUNKED:
                self._transmit([b"0\r\n", rest, b"\r\n"])
        elif op == _INFO:
            self._transmit([_status_line(arg & 1023), rest, b"\r\n"])
        elif op == _DROP:
            self.abort()

    def _answer(self, arg: int, fields: bytes | memoryview, length: int, body: bytes | memoryview = b"") -> bool:
        """Send an answer that is whole; whether its body goes with it."""
        if self._cause:
            return False
        if self._parser.phase == "body":
            self._drain()
        status = arg & 1023
        self._final = self._ends(arg) or self._parser.phase != "complete"
        has_body = not self._is_head and status not in (204, 205, 304)
        self.begun = True
        self._transmit([self._head(status, arg, length, self._final), fields, b"\r\n", body if has_body else b""])
        return has_body

    def _begin(self, arg: int, fields: bytes | memoryview, length: int) -> None:
        status = arg & 1023
        self._final = self._ends(arg) or length == _UNTIL_CLOSE
        self._length = 0 if self._is_head or status in (204, 205, 304) else length
        self.begun = True
        self._transmit([self._head(status, arg, length, self._final), fields, b"\r\n"])

    def _piece(self, piece: memoryview) -> None:
        if not self._length or not piece:
            return
        if self._length == _CHUNKED:
            self._transmit([b"%x\r\n" % len(piece), piece, b"\r\n"])
        else:
            self._transmit([piece])

    def _ends(self, arg: int) -> bool:
        return bool(arg & _CLOSE) or self.closing or not self._keep_alive or self.requests >= self.limits.max_requests

    def _head(self, status: int, arg: int, length: int, final: bool) -> bytes:
        """As evh_head_write of head.c."""
        parts = [_status_line(status)]
        if not arg & _HAS_DATE:
            parts.append(f"Date: {format_date(int(time()))}\r\n".encode())
        if length == _CHUNKED:
            if status not in (204, 304):
                parts.append(b"Transfer-Encoding: chunked\r\n")
        elif length != _UNTIL_CLOSE and status != 204 and (status != 304 or length):
            parts.append(b"Content-Length: %d\r\n" % (0 if status == 205 else length))
        if status not in (204, 205, 304):
            parts.append(_TYPES[arg >> 10 & 3])
        if final:
            parts.append(b"Connection: close\r\n")
        elif self._is_old:
            parts.append(b"Connection: keep-alive\r\n")
        return b"".join(parts)


class BlockingExchange(Relayed):
    """A request and its response in one, on a `BlockingConnection`: each thing that is said is sent before the call returns.

    As with every `Relayed`, callbacks and upgrades cannot be had. Its body is read by `body_file`, or by ``body``, which waits for
    all of it; ``client_gone`` and ``is_lost`` say how it is just now.

    Thread safety: one thread at a time.
    """

    __slots__ = ("_connection", "_whole")

    _connection: BlockingConnection
    _whole: bytes | None

    @property
    def client_gone(self) -> bool:  # type: ignore[override]
        """Whether the client has closed its side, or is lost."""
        return self._connection.is_client_gone()

    @property
    def is_lost(self) -> bool:  # type: ignore[override]
        """Whether what is said is dropped."""
        return self._connection.is_lost

    @property
    def begun(self) -> bool:
        """Whether a part of the answer has left, or all of it."""
        return self._connection.begun

    @property
    def body(self) -> bytes:
        """The body, for which this waits; at most ``Limits.max_body_size`` bytes.

        Raises:
            BodyError: It cannot be had, or a part of it was read by `body_file`.
        """
        if self._whole is None:
            if not self.is_streamed:
                return super().body
            if self._file is not None:
                raise BodyError("the body is read by body_file already", status=500)
            self._whole = self.body_file.read()
        return self._whole

    @property
    def body_file(self) -> BodyFile:
        """The body as a file that is read once, from the socket. Raises: as `Relayed.body_file`."""
        if self._file is None:
            self._file = BodyFile(None, _always, self._fetch) if self.is_streamed else BodyFile.of(super().body)
        return self._file

    def _fetch(self, _: Callable[[], object]) -> None:
        assert self._file is not None
        try:
            piece = self._connection.read_body()
        except BodyError as error:
            self._file._end(error)
            return
        if piece:
            self._file._came(piece)
        else:
            self._file._end(None)

    @property
    def relay(self) -> Relay:
        """Not here: there is no loop."""
        raise ResponseStateError("a blocking connection has no relay")

    def post(self) -> None:
        """Do nothing: what was said has left."""

    def in_place(self) -> None:
        """Not here; see `BlockingConnection.give_up`."""
        raise ResponseStateError("a blocking connection is answered by its thread")

    def write(self, data: str | bytes | bytearray | memoryview) -> bool:
        """Send a piece of the body, as `Response.write`, and wait until the system has taken it.

        Returns:
            Whether the client is still there.
        """
        super(Relayed, self).write(data)
        if isinstance(self._lines, Later):
            self._lines.ahead = 0
        return not self.is_lost


_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


def _always(*_: object) -> bool:
    return True


def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {reason(status)}\r\n".encode()
