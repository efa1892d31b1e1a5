"""A response: what a handler decides goes down to C as one entry of the submission ring, which writes the head."""

from __future__ import annotations

import json
import os
import re
import stat
from struct import Struct
from typing import TYPE_CHECKING

from evhttp._disposition import attachment as disposition
from evhttp._errors import HeaderError, ResponseStateError
from evhttp._events import EventStream
from evhttp._files import serve_path
from evhttp._later import Later
from evhttp._shim import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from evhttp._request import Request
    from evhttp._server import Server
    from evloop import Record

__all__ = ["CLOSE", "OP_SEND_FILE", "SENT", "Response"]

_HTTP = 2 << 8
_OP_SEND, _OP_SEND_H, _OP_SEND_REF, OP_SEND_FILE, _OP_DROP = (_HTTP | op for op in range(1, 6))
_OP_HEAD, _OP_PIECE, _OP_PIECE_REF, _OP_END, _OP_INFO, _OP_WATCH = (_HTTP | op for op in range(6, 12))
_CHUNKED, _UNTIL_CLOSE = 2**64 - 1, 2**64 - 2
_TELL = 1
_IS_HTTP10, _METHOD, _HEAD = 1 << 10, 0xFF, 1  # in a request's info: layout.h
_TYPE_TEXT, _TYPE_BINARY = 1 << 10, 2 << 10
CLOSE, _HAS_DATE = 1 << 12, 1 << 13  # shim.h, EVH_ANSWER_*
_DROPPED = 1 << 14  # for the access log; C never sees it

_HEADER = Struct("<IHH8s")  # payload length, operation, argument, exchange: see evloop.h
_HEADER_H = Struct("<IHH8sI")  # and the length of the header block
_HEADER_REF = Struct("<IHH8sQQQI")  # and address, length, pin, its target
_HEADER_FILE = Struct("<IHH8sQQi")  # and offset, count, descriptor
_HEADER_LENGTH = Struct("<IHH8sQ")  # and the length of the body
_HEADER_WATCH = Struct("<IHH8sI")  # and the target

# What stands before the exchange in the commonest answer, 200 with a few bytes: made once for each size, because packing it costs
# as much as everything else that `send` does.
_SMALL = 2048
_OK = [Struct("<IHH").pack(size, _OP_SEND, 200 | _TYPE_BINARY) for size in range(_SMALL)]

# From here on a body is sent from where it lies: cheaper than two copies, though it takes a completion to let it go.
_LARGE = 32 * 1024

# So much may be written ahead of the client before `write` asks for a pause.
_AHEAD = 64 * 1024

SENT: list[str] = []

_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

# RFC 9110 §5.6.2 and §5.5. Line feeds and the like are refused here, so that no value can become a header of its own.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?\Z")
_OURS = frozenset(("content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"))
# RFC 9110 §6.5.1: what frames, routes, authenticates, modifies the request or says how to read the content cannot come late.
_NO_TRAILERS = frozenset(
    (
        "age",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expires",
    )
) | frozenset(
    ("host", "location", "max-forwards", "pragma", "range", "retry-after", "set-cookie", "te", "vary", "warning")
)


class Response:
    """The answer to one request. Each of its methods but those that send returns the response itself.

    Thread safety: loop thread only.
    """

    __slots__ = ("_arg", "_lines", "_record", "_server", "_size")

    # Set one by one by Server, without a call: this happens for every request.
    _record: Record  # its token goes back with the answer
    _server: Server
    _arg: int  # the status, and flags; 200 as long as there are no lines
    _lines: list[str] | None  # header lines, each with its CRLF; SENT at the end, so that one look tells all
    _size: int  # of the body, for the access log; set when sent, of a small one by LoggedExchange alone

    def status(self, code: int) -> Response:
        """Set the status code; it is 200 otherwise.

        Raises:
            ValueError: Not a final status code, 200 to 599 (RFC 9110 §15).
            ResponseStateError: The response has been sent already, or has begun.
        """
        if not 200 <= code <= 599:
            raise ValueError(f"status must be from 200 to 599, not {code!r}")
        self._prepare()
        self._arg = self._arg & ~1023 | code
        return self

    def header(self, name: str, value: str) -> Response:
        """Add a header field; a name may be added several times. Date is written if you do not add it.

        Raises:
            ResponseStateError: The response has been sent already, or has begun.
            HeaderError: The name is not a token, the value has control characters or leading or trailing white space, or it is a
                field that the server writes by itself (Content-Length, Connection and the like; see `close_connection`).
        """
        line = _line(name, value)
        lines = self._prepare()
        if line[:5].lower() == "date:":
            self._arg |= _HAS_DATE
        lines.append(line)
        return self

    def close_connection(self) -> Response:
        """Close the connection after this answer, and say so in it (``Connection: close``).

        Raises:
            ResponseStateError: The response has been sent already, or has begun.
        """
        self._prepare()
        self._arg |= CLOSE
        return self

    @property
    def sent(self) -> bool:
        """Whether the response has been sent."""
        return self._lines is SENT

    @property
    def status_code(self) -> int:
        """The status code as it stands."""
        return self._arg & 1023

    def send(self, body: str | bytes | bytearray | memoryview = b"") -> None:
        """Send the response with this body. With HEAD, 204 and 304 the body is left out, as HTTP wants it.

        Args:
            body: ``str`` is sent as UTF-8. Without a Content-Type of yours it is ``text/plain; charset=utf-8`` for ``str`` and
                ``application/octet-stream`` for bytes. A large ``bytes`` is not copied; anything else is.

        Raises:
            ResponseStateError: It has been sent already.
            TypeError: The body is of another type.
        """
        if self._lines is None and type(body) is bytes and (size := len(body)) < _SMALL:
            self._server.loop.submissions.extend((_OK[size], self._record[3], body))
            self._lines = SENT
        else:
            self._send_more(body)

    def send_file(
        self,
        file: str | os.PathLike[str] | int,
        *,
        offset: int = 0,
        count: int | None = None,
        attachment: str | None = None,
    ) -> None:
        """Send part of a regular file as the body without copying it through Python.

        What the client asked for does not matter to it; `serve_file` honours conditions and ranges.

        Args:
            file: A path, which is opened at once, or a descriptor, which the response takes over; closed when the body is sent or
                the connection is lost.
            offset: First byte to send.
            count: Bytes to send; ``None`` sends to the end of the file.
            attachment: The name under which the client is to save it (Content-Disposition).

        Raises:
            OSError: The file cannot be opened.
            ValueError: Not a regular file, the range is not within it, or ``attachment`` is no file's name.
            ResponseStateError: The response has been sent already.

        Spec: RFC 9110 §8.6 (Content-Length), RFC 6266, RFC 8187.
        """
        self._prepare()
        fd = file if isinstance(file, int) else os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"only a regular file can be sent, not {file!r}")
            if count is None:
                count = status.st_size - offset
            if offset < 0 or count < 0 or offset + count > status.st_size:
                raise ValueError(f"offset {offset} and count {count} are not within the file's {status.st_size} bytes")
            if attachment is not None:
                self.header("Content-Disposition", disposition(attachment))
            block = self._block()
        except BaseException:
            os.close(fd)
            raise
        arg = self._arg | self._type(_TYPE_BINARY)
        self._server.loop.submissions.extend(
            (_HEADER_FILE.pack(20 + len(block), OP_SEND_FILE, arg, self._record[3], offset, count, fd), block)
        )
        self._lines = SENT
        self._size = count

    def serve_file(
        self,
        req: Request,
        path: str | os.PathLike[str],
        *,
        content_type: str | None = None,
        attachment: str | bool = False,
        cache_control: str | None = None,
    ) -> None:
        """Answer GET or HEAD with a regular file as `StaticFiles` does: with ETag and Last-Modified, 304, 412, ranges and 416.

        The path is opened as it is: one that is made of what a client sent leads anywhere, so leave that to `StaticFiles`.

        Args:
            req: The request.
            path: The file.
            content_type: Its media type; ``None`` goes by its name.
            attachment: Whether the client is to save it, under its own name or the one given.
            cache_control: The value of Cache-Control.

        Raises:
            OSError: The file cannot be opened.
            ValueError: Not a regular file, or ``attachment`` is no file's name.
            HeaderError: A value that no header may have.
            ResponseStateError: The response has been sent already, or has begun.

        Spec: RFC 9110 §8.8, §13, §14, RFC 6266, RFC 8187.
        """
        self._check_unsent()
        serve_path(req, self, path, content_type, attachment, cache_control)

    def json(self, value: object) -> None:
        """Send a value as JSON, in UTF-8 and without superfluous spaces.

        Raises:
            TypeError, ValueError: The value cannot be written as JSON; NaN and infinities cannot (RFC 8259 §6).
            ResponseStateError: The response has been sent already.
        """
        body = _encode_json(value).encode()
        if not (self._lines and self._type(1) == 0):
            self.header("Content-Type", "application/json")
        self.send(body)

    def redirect(self, location: str, status: int = 302) -> None:
        """Send the client elsewhere.

        Args:
            location: A URI reference (RFC 9110 §10.2.2), percent-encoded. One made of what a client sent leads anywhere: check it.
            status: 301, 302, 303, 307 or 308.

        Raises:
            ValueError: Another status.
            HeaderError: The location has characters that no header may have.
            ResponseStateError: The response has been sent already.
        """
        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"the status of a redirection must be 301, 302, 303, 307 or 308, not {status!r}")
        self.status(status).header("Location", location).send()

    def send_error(self, status: int, message: str | None = None) -> None:
        """Send a short text that says what went wrong; by default the status' own phrase. Headers set before go with it.

        Raises:
            ValueError: Not a status from 400 to 599.
            ResponseStateError: The response has been sent already.
        """
        if not 400 <= status <= 599:
            raise ValueError(f"an error's status must be from 400 to 599, not {status!r}")
        self.status(status).send(f"{reason(status) if message is None else message}\n")

    def events(self) -> EventStream:
        """Begin a stream of server-sent events (``text/event-stream``), to be sent by what this returns.

        Raises:
            ResponseStateError: The response has been sent already, or has begun.
        """
        return EventStream(self)

    def drop(self) -> None:
        """End the connection at once, without an answer. For clients that deserve none."""
        if self._lines is not SENT:
            self._server.loop.submissions.extend((_HEADER.pack(0, _OP_DROP, 0, self._record[3]),))
            if type(self._lines) is not Later:  # else it may have begun
                self._size = 0
            self._lines = SENT
            self._arg |= _DROPPED

    # -- later, and in pieces --------------------------------------------------------------------------------------------------

    def defer(self) -> Response:
        """Answer after the handler has returned: from a timer, another callback, or another thread.

        The response stays usable until it is sent; until then the client's further requests on this connection wait. Calling
        this again does nothing. From another thread, answer by way of ``loop.call_soon_threadsafe(res.send, body)``.

        Raises:
            ResponseStateError: The response has been sent already.
        """
        self._later()
        return self

    def on_close(self, callback: Callable[[bool], object]) -> Response:
        """Call ``callback(complete)`` once: when the answer is complete and queued (true), or the client is gone before (false).

        Deferred answers and those in pieces only; this defers the response. What is sent after the client has gone is dropped.

        Raises:
            ResponseStateError: The response has been sent already.
        """
        self._later().on_close = callback
        return self

    def on_drain(self, callback: Callable[[], object]) -> Response:
        """Call ``callback()`` each time the client has taken what was written, after `write` had returned false.

        Raises:
            ResponseStateError: The response has been sent already.
        """
        self._later().on_drain = callback
        return self

    def begin(self, length: int | None = None) -> Response:
        """Send the head now; the body follows by `write` and `end`.

        Args:
            length: Bytes of the body, sent as its Content-Length. ``None``: the body is sent in chunks, to a client of HTTP/1.0 up
                to the end of the connection.

        Raises:
            ResponseStateError: The response has been sent already, or has begun.
            ValueError: A negative length.

        Spec: RFC 9112 §6.
        """
        self._prepare()
        if length is not None and length < 0:
            raise ValueError(f"a body's length must be at least 0, not {length}")
        later = self._later()
        block = self._block()
        undeclared = _UNTIL_CLOSE if self._record[2] & _IS_HTTP10 else _CHUNKED
        declared = undeclared if length is None else length
        arg = self._arg | self._type(_TYPE_BINARY)
        header = _HEADER_LENGTH.pack(8 + len(block), _OP_HEAD, arg, self._record[3], declared)
        self._server.loop.submissions.extend((header, block))
        later.begun = True
        later.left = length
        self._size = 0
        return self

    def write(self, data: str | bytes | bytearray | memoryview) -> bool:
        """Send a piece of the body; the first one sends the head, too, as `begin` does.

        Returns:
            Whether more should be written now. If not, wait for `on_drain`: what is written all the same is kept in memory.

        Raises:
            ResponseStateError: The response has been sent already, or this is more than `begin` has declared; the connection is
                aborted then, because the client would take the rest for the next answer.
            TypeError: The data is of another type.
        """
        data = _as_bytes(data)
        later = self._lines
        if type(later) is not Later or not later.begun:
            self.begin()
            later = self._lines
            assert type(later) is Later
        size = len(data)
        if later.left is not None:
            if size > later.left:
                self.drop()
                raise ResponseStateError(f"{size} bytes were written where {later.left} of the declared body were left")
            later.left -= size
        if later.lost:
            return False
        self._size += size
        ahead = later.ahead + size
        tell = _TELL if ahead > _AHEAD >= later.ahead else 0
        later.ahead = ahead
        if size < _LARGE:
            self._server.loop.submissions.extend((_HEADER.pack(size, _OP_PIECE, tell, self._record[3]), data))
        else:
            pin, target = self._server._pin(data)
            address = int(ffi.cast("uintptr_t", ffi.from_buffer("char[]", data)))
            header = _HEADER_REF.pack(28, _OP_PIECE_REF, tell, self._record[3], address, size, pin, target)
            self._server.loop.submissions.append(header)
        return ahead <= _AHEAD

    def end(
        self, data: str | bytes | bytearray | memoryview = b"", *, trailers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Send the last piece of the body, if any, and end the answer.

        Args:
            data: As for `write`. An answer that has not begun is sent whole, unless it has trailers.
            trailers: Fields behind a chunked body (RFC 9110 §6.5). They are left out where the body is not chunked.

        Raises:
            ResponseStateError: The response has been sent already, or less was written than `begin` has declared; the connection
                is aborted then, because the client would wait for the rest. With HEAD, 204, 205 and 304 it would not: there the
                body need not be written.
            HeaderError: A trailer that no header could be, or that must not be one (RFC 9110 §6.5.1).
        """
        lines = [_line(name, value, trailer=True) for name, value in trailers]
        if not lines and not (type(self._lines) is Later and self._lines.begun):
            self.send(data)
            return
        if data or not (type(self._lines) is Later and self._lines.begun):
            self.write(data)
        later = self._lines
        assert type(later) is Later
        if later.left and not self._has_no_content:
            left = later.left
            self.drop()
            raise ResponseStateError(f"the body has ended {left} bytes before its declared length")
        block = "".join(lines).encode("latin-1")
        self._server.loop.submissions.extend((_HEADER.pack(len(block), _OP_END, 0, self._record[3]), block))
        self._lines = SENT

    def inform(self, status: int, headers: Iterable[tuple[str, str]] = ()) -> Response:
        """Send an informational answer before the final one, as 103 with Link fields (RFC 8297). HTTP/1.0 clients get none.

        Raises:
            ValueError: Not a status from 102 to 199. 100 is sent by the server itself, 101 by what upgrades a connection.
            HeaderError: As for `header`.
            ResponseStateError: The response has been sent already, or has begun.
        """
        if not 102 <= status <= 199:
            raise ValueError(f"an informational status must be from 102 to 199, not {status!r}")
        self._check_unsent()
        block = "".join(_line(name, value) for name, value in headers).encode("latin-1")
        if not self._record[2] & _IS_HTTP10:
            self._server.loop.submissions.extend((_HEADER.pack(len(block), _OP_INFO, status, self._record[3]), block))
        return self

    @property
    def _was_dropped(self) -> bool:
        return self._arg & _DROPPED != 0

    @property
    def _has_no_content(self) -> bool:
        """Whether HTTP leaves the body out (RFC 9110 §6.4.1)."""
        return self._record[2] & _METHOD == _HEAD or self.status_code in (204, 205, 304)

    def _later(self) -> Later:
        lines = self._lines
        if type(lines) is Later:
            return lines
        later = self._lines = Later(self, self._prepare())
        self._size = 0  # what the access log says if the client does not wait for it
        self._server.loop.submissions.append(_HEADER_WATCH.pack(4, _OP_WATCH, 0, self._record[3], later.watch()))
        return later

    def upgrade_required(self, protocol: str) -> Response:
        """Set status 426 and name the protocol that the client must offer to speak instead (RFC 9110 §15.5.22).

        Raises:
            HeaderError: It is no protocol, as ``"websocket"`` or ``"a/1"``, and no list of them.
        """
        names = [name.strip(" ").split("/") for name in protocol.split(",")]
        if not all(len(parts) <= 2 and all(map(_NAME.match, parts)) for parts in names):
            raise HeaderError(f"a protocol must be a token, perhaps with a version, not {protocol!r}")
        self.status(426)._prepare().append(f"Upgrade: {protocol}\r\nConnection: Upgrade\r\n")
        return self

    def hand_over(self) -> tuple[bytes, bytes]:
        """Leave the answer to a native protocol that takes the connection over; in the access log it counts as a 101.

        Returns:
            The exchange, for ``upgrade`` of ``evhttp.h``: whoever gets it must use it, or the client waits for ever. And the header
            lines that have been added, each with its CRLF.

        Raises:
            ResponseStateError: The response has been sent already.
        """
        self._check_unsent()
        block = self._block()
        self._lines = SENT
        self._arg = 101
        self._size = 0
        return self._record[3], block

    def _prepare(self) -> list[str]:
        """Return the header lines of a response that says more than 200 and a few bytes."""
        self._check_unsent()
        if self._lines is None:
            self._lines = []
        return self._lines

    def _check_unsent(self) -> None:
        if self._lines is SENT:
            raise ResponseStateError("the response has been sent already")
        if type(self._lines) is Later and self._lines.begun:
            raise ResponseStateError("the response has begun already")

    def _send_made(self, status: int, block: bytes, body: bytes) -> None:
        """Send a body below 32 KiB with header lines that were made before, to a response that nothing was done with yet."""
        size = len(body)
        header = _HEADER_H.pack(4 + len(block) + size, _OP_SEND_H, status, self._record[3], len(block))
        self._server.loop.submissions.extend((header, block, body))
        self._lines = SENT
        self._arg = status
        self._size = size

    def _send_more(self, body: str | bytes | bytearray | memoryview) -> None:
        """Send what is not just a few bytes: text, with header lines, or large."""
        self._prepare()
        kind = _TYPE_TEXT if isinstance(body, str) else _TYPE_BINARY
        body = _as_bytes(body)
        size = len(body)
        block = self._block()
        arg = self._arg | self._type(kind)
        if size < _LARGE:
            header = _HEADER_H.pack(4 + len(block) + size, _OP_SEND_H, arg, self._record[3], len(block))
            self._server.loop.submissions.extend((header, block, body))
        else:
            pin, target = self._server._pin(body)
            address = int(ffi.cast("uintptr_t", ffi.from_buffer("char[]", body)))
            header = _HEADER_REF.pack(28 + len(block), _OP_SEND_REF, arg, self._record[3], address, size, pin, target)
            self._server.loop.submissions.extend((header, block))
        self._lines = SENT
        self._size = size

    def _block(self) -> bytes:
        return "".join(self._lines).encode("latin-1") if self._lines else b""

    def _type(self, default: int) -> int:
        """``default``, unless the handler has named a Content-Type."""
        if self._lines and any(line[:13].lower() == "content-type:" for line in self._lines):
            return 0
        return default


def reason(status: int) -> str:
    """The phrase of a status, as on the status line; the number for one without a phrase."""
    phrase = ffi.string(lib.evhttp_reason(status)).decode()
    return phrase or str(status)


def _as_bytes(body: str | bytes | bytearray | memoryview) -> bytes:
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise TypeError(f"a body must be str or bytes-like, not {type(body).__name__}")


def _line(name: str, value: str, *, trailer: bool = False) -> str:
    """A header line, checked."""
    if not _NAME.match(name):
        raise HeaderError(f"a header name must be a token, not {name!r}")
    if not _VALUE.match(value):
        raise HeaderError(
            f"the value of header {name} has control characters, characters beyond ISO 8859-1 or outer white space"
        )
    low = name.lower()
    if low in _OURS:
        raise HeaderError(f"header {name} is written by the server")
    if trailer and low in _NO_TRAILERS:
        raise HeaderError(f"{name} must not be a trailer")
    return f"{name}: {value}\r\n"
