"""A response: what a handler decides goes down to C as one entry of the submission ring, which writes the head."""

from __future__ import annotations

import os
import re
import stat
from struct import Struct
from typing import TYPE_CHECKING

from evhttp._errors import HeaderError, ResponseStateError
from evhttp._shim import ffi

if TYPE_CHECKING:
    from evhttp._server import Server
    from evloop import Record

__all__ = ["SENT", "Response"]

_HTTP = 2 << 8
_OP_SEND, _OP_SEND_H, _OP_SEND_REF, _OP_SEND_FILE, _OP_DROP = (_HTTP | op for op in range(1, 6))
_TYPE_TEXT, _TYPE_BINARY = 1 << 10, 2 << 10
_CLOSE, _HAS_DATE = 1 << 12, 1 << 13

_HEADER = Struct("<IHH8s")  # payload length, operation, argument, exchange: see evloop.h
_HEADER_H = Struct("<IHH8sI")  # and the length of the header block
_HEADER_REF = Struct("<IHH8sQQQI")  # and address, length, pin, its target
_HEADER_FILE = Struct("<IHH8sQQi")  # and offset, count, descriptor

# What stands before the exchange in the commonest answer, 200 with a few bytes: made once for each size, because packing it costs
# as much as everything else that `send` does.
_SMALL = 2048
_OK = [Struct("<IHH").pack(size, _OP_SEND, 200 | _TYPE_BINARY) for size in range(_SMALL)]

# From here on a body is sent from where it lies: cheaper than two copies, though it takes a completion to let it go.
_LARGE = 32 * 1024

SENT: list[str] = []

# RFC 9110 §5.6.2 and §5.5. Line feeds and the like are refused here, so that no value can become a header of its own.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?\Z")
_OURS = frozenset(("content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"))


class Response:
    """The answer to one request. Each of its methods but those that send returns the response itself.

    Thread safety: loop thread only.
    """

    __slots__ = ("_arg", "_lines", "_record", "_server", "_size")

    # Set one by one by Server, without a call: this happens for every request.
    _record: Record  # its token goes back with the answer
    _server: Server
    _arg: int  # the status, and flags
    _lines: list[str] | None  # header lines, each with its CRLF; SENT at the end, so that one look tells both
    _size: int  # of the body, for the access log; set when sent

    def status(self, code: int) -> Response:
        """Set the status code; it is 200 otherwise.

        Raises:
            ValueError: Not a final status code, 200 to 599 (RFC 9110 §15).
        """
        if not 200 <= code <= 599:
            raise ValueError(f"status must be from 200 to 599, not {code!r}")
        self._arg = self._arg & ~1023 | code
        return self

    def header(self, name: str, value: str) -> Response:
        """Add a header field; a name may be added several times. Date is written if you do not add it.

        Raises:
            HeaderError: The name is not a token, the value has control characters or leading or trailing white space, or it is a
                field that the server writes by itself (Content-Length, Connection and the like; see `close_connection`).
        """
        if not _NAME.match(name):
            raise HeaderError(f"a header name must be a token, not {name!r}")
        if not _VALUE.match(value):
            raise HeaderError(
                f"the value of header {name} has control characters, characters beyond ISO 8859-1 or outer white space"
            )
        self._check_unsent()
        low = name.lower()
        if low in _OURS:
            raise HeaderError(f"header {name} is written by the server")
        if low == "date":
            self._arg |= _HAS_DATE
        if self._lines is None:
            self._lines = []
        self._lines.append(f"{name}: {value}\r\n")
        return self

    def close_connection(self) -> Response:
        """Close the connection after this answer, and say so in it (``Connection: close``)."""
        self._arg |= _CLOSE
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
        if self._lines is None and self._arg == 200 and type(body) is bytes and (size := len(body)) < _SMALL:
            self._server.loop.submissions.extend((_OK[size], self._record[3], body))
            self._lines = SENT
            self._size = size
        else:
            self._send_more(body)

    def send_file(self, file: str | os.PathLike[str] | int, *, offset: int = 0, count: int | None = None) -> None:
        """Send part of a regular file as the body without copying it through Python.

        Args:
            file: A path, which is opened at once, or a descriptor, which the response takes over; closed when the body is sent or
                the connection is lost.
            offset: First byte to send.
            count: Bytes to send; ``None`` sends to the end of the file.

        Raises:
            OSError: The file cannot be opened.
            ValueError: Not a regular file, or the range is not within it.
            ResponseStateError: The response has been sent already.

        Spec: RFC 9110 §8.6 (Content-Length).
        """
        self._check_unsent()
        fd = file if isinstance(file, int) else os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"only a regular file can be sent, not {file!r}")
            if count is None:
                count = status.st_size - offset
            if offset < 0 or count < 0 or offset + count > status.st_size:
                raise ValueError(f"offset {offset} and count {count} are not within the file's {status.st_size} bytes")
            block = self._block()
        except BaseException:
            os.close(fd)
            raise
        arg = self._arg | self._type(_TYPE_BINARY)
        self._server.loop.submissions.extend(
            (_HEADER_FILE.pack(20 + len(block), _OP_SEND_FILE, arg, self._record[3], offset, count, fd), block)
        )
        self._lines = SENT
        self._size = count

    def drop(self) -> None:
        """End the connection at once, without an answer. For clients that deserve none."""
        if self._lines is not SENT:
            self._server.loop.submissions.extend((_HEADER.pack(0, _OP_DROP, 0, self._record[3]),))
            self._lines = SENT
            self._size = 0

    def _check_unsent(self) -> None:
        if self._lines is SENT:
            raise ResponseStateError("the response has been sent already")

    def _send_more(self, body: str | bytes | bytearray | memoryview) -> None:
        """Send what is not just a few bytes: text, with header lines, or large."""
        self._check_unsent()
        if isinstance(body, str):
            body = body.encode()
            kind = _TYPE_TEXT
        elif isinstance(body, bytes | bytearray | memoryview):
            body = bytes(body)
            kind = _TYPE_BINARY
        else:
            raise TypeError(f"a body must be str or bytes-like, not {type(body).__name__}")
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
