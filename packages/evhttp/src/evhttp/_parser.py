"""The parsers of requests and responses, to be used alone: bytes in, messages out, no I/O and no clock."""

from __future__ import annotations

import errno
from typing import Any, Literal, cast

from evhttp._errors import ParserStateError, ProtocolError
from evhttp._fields import Headers
from evhttp._limits import Limits
from evhttp._request import ParsedRequest, Request
from evhttp._shim import ffi, lib

__all__ = ["Phase", "RequestParser", "ResponseParser"]

Phase = Literal["idle", "head", "body", "complete", "failed"]

# enum evh_phase of reader.h
_PHASES: tuple[Phase, ...] = ("idle", "head", "body", "complete", "failed")
_BODY, _COMPLETE, _FAILED = 2, 3, 4
# enum evh_flags of parser.h
_KEEP_ALIVE, _EXPECT_CONTINUE, _UPGRADE = 1, 8, 16
_ASKED = {"HEAD": 1, "CONNECT": 2}


class _Parser:
    """What both parsers have."""

    __slots__ = ("_message", "_reader")

    def __init__(self, limits: Limits | None, is_response: bool) -> None:
        c_limits = ffi.new("struct evh_limits *", (limits or Limits()).for_shim())
        reader = lib.evh_reader_new(c_limits, is_response)
        if not reader:
            raise MemoryError("a parser")
        self._reader = ffi.gc(reader, lib.evh_reader_free, 8192)
        self._message: Any = lib.evh_reader_message(reader)

    def feed(self, data: bytes | bytearray | memoryview) -> bool:
        """Parse what has been received, from where the last call left off; nothing is looked at twice.

        A message that is complete stays as it is until `reset`: further bytes are kept as `remaining`. After an error bytes are
        dropped.

        Args:
            data: Any number of bytes. They are copied.

        Returns:
            Whether the message is complete.

        Raises:
            ParserStateError: `feed_eof` has been called.
            MemoryError: Nothing of it was taken.
        """
        if type(data) is bytes:
            phase = lib.evh_reader_feed(self._reader, data, len(data))
        else:
            buffer = ffi.from_buffer("char[]", data)
            phase = lib.evh_reader_feed(self._reader, buffer, len(buffer))
        if phase < 0:
            if phase == -errno.EPIPE:
                raise ParserStateError("bytes behind the end of the stream")
            raise MemoryError(f"{len(data)} bytes more")
        return phase == _COMPLETE

    def feed_eof(self) -> bool:
        """Take note that the stream has ended: nothing more comes. What `feed` returns is returned.

        A message that has begun and is not complete becomes an `error`; a response's body without a length ends here.
        """
        lib.evh_reader_eof(self._reader)
        return self.is_complete

    @property
    def phase(self) -> Phase:
        """``"idle"`` before a message's first byte, ``"head"``, ``"body"``, ``"complete"``; ``"failed"``: see `error`."""
        return _PHASES[int(self._message.phase)]

    @property
    def is_complete(self) -> bool:
        """Whether the message is there as a whole."""
        return bool(self._message.phase == _COMPLETE)

    @property
    def error(self) -> ProtocolError | None:
        """What is wrong with the stream. It stays: nobody can say where the next message would begin."""
        message = self._message
        if message.phase != _FAILED:
            return None
        return ProtocolError(message.status, ffi.string(message.reason).decode())

    @property
    def remaining(self) -> bytes:
        """What was fed behind the complete message: the beginning of the next one, or of another protocol."""
        return bytes(ffi.buffer(self._message.rest, self._message.rest_len)) if self._message.rest_len else b""

    @property
    def headers(self) -> Headers:
        """The header fields.

        Raises:
            ParserStateError: The head is not complete.
        """
        self._check_head()
        return self._fields(False)

    @property
    def body(self) -> bytes:
        """The body as far as it has come, decoded from chunks, without what `take_body` has returned."""
        return bytes(ffi.buffer(self._message.body, self._message.body_len)) if self._message.body_len else b""

    @property
    def trailers(self) -> Headers:
        """The trailer fields of a complete chunked body. They are not header fields and are never merged (RFC 9110 §6.5.1)."""
        return self._fields(True)

    @property
    def keep_alive(self) -> bool:
        """Whether the connection can serve another message after this one (RFC 9112 §9.3).

        Raises:
            ParserStateError: The head is not complete.
        """
        self._check_head()
        return bool(self._message.flags & _KEEP_ALIVE)

    @property
    def upgrade(self) -> bool:
        """Whether the message asks for, or agrees to, another protocol (RFC 9110 §7.8).

        Raises:
            ParserStateError: The head is not complete.
        """
        self._check_head()
        return bool(self._message.flags & _UPGRADE)

    def take_body(self) -> bytes:
        """Return what has come of the body since the last call, and forget it: so bodies may be longer than memory.

        Limits count what was taken too.
        """
        body = self.body
        lib.evh_reader_drop_body(self._reader)
        return body

    def _check_head(self) -> None:
        if self._message.phase not in (_BODY, _COMPLETE):
            raise ParserStateError(f"the head is not complete: the parser is {self.phase}")

    def _fields(self, trailers: bool) -> Headers:
        size = lib.evh_reader_fields(self._reader, trailers, ffi.NULL)
        block = ffi.new("uint8_t[]", size)
        lib.evh_reader_fields(self._reader, trailers, block)
        return Headers(bytes(ffi.buffer(block)), 0, size)


class RequestParser(_Parser):
    r"""Parses requests as the server does: strictly, incrementally, in C.

    ::

        parser = evhttp.RequestParser()
        while not parser.feed(sock.recv(65536)):
            if parser.error:
                ...  # parser.error.status is what to answer before closing
        parser.request.path
        parser.reset()  # goes on with what has come of the next request

    Args:
        limits: Bounds on requests; the timeouts in it mean nothing here.

    Thread safety: one thread at a time.  Spec: RFC 9112.
    """

    __slots__ = ("_request",)

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits, False)
        self._request: Request | None = None

    def reset(self) -> bool:
        """Begin the next request, with what was fed behind the one before; what `feed` returns is returned.

        A request that was not complete is forgotten, or the error, and what is fed next begins another stream.
        """
        self._request = None
        lib.evh_reader_reset(self._reader, 0)
        return self.is_complete

    @property
    def request(self) -> Request:
        """The request; while its body is under way, with as much of it as has come and was not taken.

        Raises:
            ParserStateError: The head is not complete.
        """
        if self._request is not None:
            return self._request
        size = lib.evh_reader_export(self._reader)
        if size <= 0:
            self._check_head()
            raise MemoryError("a request")
        message = self._message
        request = ParsedRequest(ffi.unpack(message.exported, size), message.info)
        if message.phase == _COMPLETE:
            self._request = request
        return request

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for ``100 Continue`` before it sends the body (RFC 9110 §10.1.1).

        Raises:
            ParserStateError: The head is not complete.
        """
        self._check_head()
        return bool(self._message.flags & _EXPECT_CONTINUE)

    def __repr__(self) -> str:
        return f"<RequestParser {self.phase}>"


class ResponseParser(_Parser):
    r"""Parses responses, for clients and for tests: the same parser, and as strict.

    An interim response (1xx) is a response like others, without a body: look at `status_code`, and `reset` for what follows.

    ::

        parser = evhttp.ResponseParser()
        while not parser.feed(sock.recv(65536)):
            ...
        parser.status_code, parser.headers.get("content-type"), parser.body

    Args:
        method: What was asked: whether a response has a body depends on it (RFC 9112 §6.3).
        limits: Bounds on responses; ``max_request_line`` is the status line's. What goes beyond is an `error`.

    Thread safety: one thread at a time.  Spec: RFC 9112 §4, §6.3.
    """

    __slots__ = ("_method",)

    def __init__(self, method: str = "GET", *, limits: Limits | None = None) -> None:
        super().__init__(limits, True)
        self._method = method
        lib.evh_reader_reset(self._reader, _ASKED.get(method, 0))

    def reset(self, method: str | None = None) -> bool:
        """Begin the next response, with what was fed behind the one before; what `feed` returns is returned.

        A response that was not complete is forgotten, or the error, and what is fed next begins another stream.

        Args:
            method: What was asked; ``None``: the same as before, as after an interim response.
        """
        if method is not None:
            self._method = method
        lib.evh_reader_reset(self._reader, _ASKED.get(self._method, 0))
        return self.is_complete

    @property
    def status_code(self) -> int:
        """The status code, from 100 to 999.

        Raises:
            ParserStateError: The head is not complete.
        """
        self._check_head()
        return cast(int, self._message.status)

    @property
    def phrase(self) -> str:
        """The reason phrase, which means nothing to programs (RFC 9112 §4).

        Raises:
            ParserStateError: The head is not complete.
        """
        self._check_head()
        return bytes(ffi.buffer(self._message.phrase, self._message.phrase_len)).decode("latin-1")

    @property
    def version(self) -> str:
        """``"1.1"`` or ``"1.0"``.

        Raises:
            ParserStateError: The head is not complete.
        """
        self._check_head()
        return "1.0" if self._message.version == 10 else "1.1"

    def __repr__(self) -> str:
        return f"<ResponseParser {self.phase}>"
