"""A WebSocket: messages out through the submission ring, messages in from the arena."""

from __future__ import annotations

import errno
import os
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, Any

from evws._errors import ConnectionClosedError, PeerError, QueueFullError
from evws._frames import Buffer, CloseCode, Opcode, bytes_of, encode_close
from evws._shim import ffi, lib

if TYPE_CHECKING:
    from evhttp import Request
    from evloop import Loop, Record
    from evws._broadcast import Group
    from evws._deflate import Codec
    from evws._endpoint import Endpoint

__all__ = ["State", "WebSocket"]

_WS = 3 << 8
_OP_UPGRADE, _OP_SEND, _OP_SEND_REF, _OP_CLOSE, _OP_ABORT, _OP_FAIL = (_WS | op for op in range(1, 7))
_HEADER = Struct("<IHH8s")  # payload length, operation, argument, token: see evloop.h
_HEADER_REF = Struct("<IHH8sQQQI")  # and address, length, pin, its target
_FIN, _RSV1 = 0x80, 0x40
_TEXT, _BINARY, _PING, _PONG = (_FIN | opcode for opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG))
_SMALL = 2048
# What stands before the token in the commonest submissions: made once for each size, because packing costs more than all the rest.
_START = Struct("<IHH")
_TEXTS = [_START.pack(size, _OP_SEND, _TEXT) for size in range(_SMALL)]
_BINARIES = [_START.pack(size, _OP_SEND, _BINARY) for size in range(_SMALL)]
# From here on a message is sent from where it lies: cheaper than two copies, though it takes a completion to let it go.
_LARGE = 32 * 1024

# What a record says (shim.h).
_TEXT_CAME, _BINARY_CAME, _LARGE_TEXT, _LARGE_BINARY, _PING_CAME, _PONG_CAME = range(6)
_CLOSE_CAME, _FAILED, _DRAINED, _LEAVING, _CLOSED, _DEFLATED, _LARGE_DEFLATED, _APART_TEXT, _APART_BINARY = range(6, 15)
_TIMED_OUT, _TOO_MUCH_QUEUED = -2, -3
_CONTROL_MOST = 125


class State(IntEnum):
    """Where a connection stands."""

    OPEN = 1
    CLOSING = 2
    CLOSED = 3


_OPEN, _CLOSING, _GONE = State  # looked up for each message


class WebSocket:
    """One connection. Made by `Server` and `upgrade`; thread safety: loop thread only.

    Attributes:
        request: The request that asked for it.
        subprotocol: The one that was agreed on, or ``None``.
        context: Yours.
        close_code: After the peer's Close: its code, 1005 when it had none. 1006 when the connection ended without one
            (RFC 6455 §7.1.5). ``None`` before.
        close_reason: The reason in the peer's Close, or ``""``.
    """

    __slots__ = (
        "__weakref__",
        "_codec",
        "_endpoint",
        "_groups",
        "_loop",
        "_state",
        "_target",
        "_token",
        "_views",
        "close_code",
        "close_reason",
        "context",
        "request",
        "subprotocol",
    )

    def __init__(
        self,
        loop: Loop,
        endpoint: Endpoint,
        request: Request | None,
        exchange: bytes,
        subprotocol: str | None,
        codec: Codec | None,
    ) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._codec = codec
        self._views = issubclass(endpoint.binary_type, memoryview)
        self._token = exchange[:6] + b"\0\0"  # the stream's part of it: evloop.h, EV_TOKEN_BITS
        self._state = _OPEN
        self._target = loop.add_target(self._event)
        if request is not None:
            self.request: Request = request
        self.subprotocol: str | None = subprotocol
        self._groups: set[Group] | None = None
        self.context: Any = None
        self.close_code: int | None = None
        self.close_reason: str = ""

    def _begin(self, exchange: bytes, head: bytes) -> None:
        endpoint = self._endpoint
        options = endpoint.options if self._codec is None else endpoint.compressed_options
        payload = self._target.to_bytes(4, "little") + options + head
        self._loop.submissions.extend((_HEADER.pack(len(payload), _OP_UPGRADE, 0, exchange), payload))
        self._loop.defer(self._opened)

    def _opened(self) -> None:
        # Even if it has been closed by now: whoever notes sockets in on_open forgets them in on_close.
        self._call(self._endpoint.on_open, self)

    # -- what comes ------------------------------------------------------------------------------------------------------------

    def _event(self, record: Record) -> None:
        _, a, b, last = record
        kind = b & 15
        if kind > _BINARY_CAME:
            self._other_event(kind, a, b >> 4, last)
        elif self._state is _OPEN:
            message: str | bytes | memoryview
            if not kind:
                message = self._loop.arena[a : a + (b >> 4)].decode()  # C has made sure that it is UTF-8
            elif self._views:
                message = memoryview(self._loop.arena)[a : a + (b >> 4)]
            else:
                message = self._loop.arena[a : a + (b >> 4)]
            on_message = self._endpoint.on_message  # CPython specialises the call of a name, and not that of a slot
            try:
                on_message(self, message)
            except Exception:
                self._callback_failed()
                raise

    def _other_event(self, kind: int, a: int, length: int, last: bytes) -> None:
        endpoint = self._endpoint
        if kind >= _APART_TEXT:
            if self._state is _OPEN:
                memory = self._loop.arena_view[a : a + length]
                message: str | bytes | memoryview = memory
                if kind == _APART_TEXT:
                    message = memory.decode()
                elif self._views:
                    message = memoryview(memory)
                self._call(endpoint.on_message, self, message)
        elif kind >= _DEFLATED:
            if self._state is _OPEN:
                data = (
                    ffi.buffer(ffi.cast("char *", a), length)
                    if kind == _LARGE_DEFLATED
                    else self._loop.arena[a : a + length]
                )
                self._inflate(data, last[0] & 3)
        elif kind == _CLOSED:
            self._lost(a)
        elif kind == _LEAVING:
            self._state = _CLOSING
        elif kind == _DRAINED:
            self._call(endpoint.on_drain, self)
        elif kind in (_LARGE_TEXT, _LARGE_BINARY):
            if self._state is _OPEN:
                self._call(endpoint.on_message, self, self._large(kind, a, length, last))
        else:
            data = self._loop.arena[a : a + length]
            if kind == _PING_CAME:
                self._call(endpoint.on_ping, self, data)
            elif kind == _PONG_CAME:
                self._call(endpoint.on_pong, self, data)
            else:
                self._state = _CLOSING
                code, text = int.from_bytes(data[:2], "little"), data[2:].decode()
                if kind == _CLOSE_CAME:
                    self.close_code, self.close_reason = code, text
                else:
                    self._call(endpoint.on_error, self, PeerError(code, text))

    def _large(self, kind: int, address: int, length: int, last: bytes) -> str | bytes | memoryview:
        """A message that lies in memory of its own."""
        if self._views and kind == _LARGE_BINARY:
            owned = ffi.gc(lib.evws_loan_take(int.from_bytes(last, "little") & ~3), lib.evws_loan_free, length)
            return memoryview(ffi.buffer(owned, length)).toreadonly()
        memory = ffi.buffer(ffi.cast("char *", address), length)
        return str(memory, "utf-8") if kind == _LARGE_TEXT else memory[:]

    def _inflate(self, data: Buffer, opcode: int) -> None:
        assert self._codec is not None
        try:
            plain = self._codec.inflate(data, self._endpoint.limits.max_message_size)
            message: str | bytes | memoryview = plain
            if opcode == Opcode.TEXT:
                message = str(plain, "utf-8")
            elif self._views:
                message = memoryview(plain)
        except PeerError as error:
            self._fail(error)
        except UnicodeDecodeError:
            self._fail(PeerError(CloseCode.INVALID_DATA, "text is not UTF-8"))
        else:
            self._call(self._endpoint.on_message, self, message)

    def _fail(self, error: PeerError) -> None:
        """RFC 6455 §7.1.7, for what C has not seen."""
        self._state = _CLOSING
        payload = encode_close(error.code, error.reason)
        self._loop.submissions.extend((_HEADER.pack(len(payload), _OP_FAIL, 0, self._token), payload))
        self._call(self._endpoint.on_error, self, error)

    def _lost(self, cause: int) -> None:
        """The last event."""
        self._state = _GONE
        self._loop.drop_target(self._target)
        for group in self._groups or ():
            group._members.discard(self)
        self._groups = None
        if self.close_code is None:
            self.close_code = CloseCode.ABNORMAL
        error: Exception | None = None
        if cause > 0:
            error = OSError(cause, f"connection with {self._peer()} lost: {os.strerror(cause)}")
        elif cause == _TIMED_OUT:
            error = TimeoutError(errno.ETIMEDOUT, f"{self._peer()} did not answer in time")
        elif cause == _TOO_MUCH_QUEUED:
            size = self._endpoint.limits.max_queue_size
            error = QueueFullError(f"{self._peer()} reads too slowly: more than {size} bytes waited for it")
        try:
            if error is not None:
                self._call(self._endpoint.on_error, self, error)
        finally:
            self._call(self._endpoint.on_close, self, self.close_code, self.close_reason)

    def _call(self, callback: Any, *args: Any) -> None:
        if callback is not None:
            try:
                callback(*args)
            except Exception:
                self._callback_failed()
                raise

    def _callback_failed(self) -> None:
        """The exception goes on to the loop's handler; the peer must not wait for what will not come (RFC 6455 §7.4.1, 1011)."""
        self.close(CloseCode.INTERNAL_ERROR, "exception in a handler")

    # -- what goes -------------------------------------------------------------------------------------------------------------

    def send(self, message: str | Buffer) -> None:
        """Send a message, as one frame: text for ``str``, binary for anything else.

        It is queued now and sent at the end of the turn. A large ``bytes`` is not copied; anything else is. It is compressed where
        that was agreed on, unless it is smaller than `Deflate.threshold`.

        Raises:
            ConnectionClosedError: The connection is closing or closed.
            TypeError: The message is neither ``str`` nor bytes-like.
        """
        if self._state is not _OPEN:
            raise self._closed_error()
        if self._codec is not None:
            self._send_compressed(self._codec, message)
            return
        if type(message) is bytes:
            data = message
            if (size := len(data)) < _SMALL:
                self._loop.submissions.extend((_BINARIES[size], self._token, data))
                return
            first = _BINARY
        elif type(message) is str:
            data = message.encode()
            if (size := len(data)) < _SMALL:
                self._loop.submissions.extend((_TEXTS[size], self._token, data))
                return
            first = _TEXT
        else:
            data = bytes_of(message)
            first = _TEXT if isinstance(message, str) else _BINARY
            size = len(data)
        self._send_frame(first, data, size)

    def send_fragmented(self, fragments: list[str] | list[bytes] | list[bytearray] | list[memoryview]) -> None:
        """Send a message as several frames (RFC 6455 §5.4): text for ``str``. An empty list is an empty binary message.
        It is not compressed.

        Raises:
            ConnectionClosedError: The connection is closing or closed.
            TypeError: The fragments are not all ``str``, nor all bytes-like.
        """
        if self._state is not _OPEN:
            raise self._closed_error()
        kinds = {isinstance(fragment, str) for fragment in fragments}
        if len(kinds) > 1:
            raise TypeError("the fragments of a message must be all str or all bytes-like")
        opcode = Opcode.TEXT if True in kinds else Opcode.BINARY
        parts = [bytes_of(part) for part in fragments] or [b""]
        last = len(parts) - 1
        for number, part in enumerate(parts):
            first = (opcode if number == 0 else Opcode.CONTINUATION) | (_FIN if number == last else 0)
            self._send_frame(first, part, len(part))

    def ping(self, payload: str | Buffer = b"") -> None:
        """Send a ping of at most 125 bytes; its pong goes to ``on_pong``. Those of ``ping_interval`` are sent without this.

        Raises:
            ConnectionClosedError: The connection is closing or closed.
            ValueError: The payload is too long.
        """
        self._control(_PING, payload)

    def pong(self, payload: str | Buffer = b"") -> None:
        """Send a pong that nobody has asked for (RFC 6455 §5.5.3); pings are answered without this. Raises: as `ping`."""
        self._control(_PONG, payload)

    def close(self, code: int | None = CloseCode.NORMAL, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455 §7.1.2); messages that still come are dropped. Later calls do nothing.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; ``None`` sends none.
            reason: At most 123 bytes of UTF-8, for the peer's log.

        Raises:
            ValueError: The code must not be sent, or the reason is too long.
        """
        payload = encode_close(code, reason)
        if self._state is _OPEN:
            self._state = _CLOSING
            self._loop.submissions.extend((_HEADER.pack(len(payload), _OP_CLOSE, 0, self._token), payload))

    def abort(self) -> None:
        """End the connection at once, with a reset and without a Close. What is queued is lost. Calling this again does nothing."""
        if self._state is not _GONE:
            self._state = _CLOSING
            self._loop.submissions.extend((_HEADER.pack(0, _OP_ABORT, 0, self._token),))

    def _control(self, first: int, payload: str | Buffer) -> None:
        data = bytes_of(payload)
        if len(data) > _CONTROL_MOST:
            raise ValueError(f"the payload of a ping or pong must be at most {_CONTROL_MOST} bytes, not {len(data)}")
        if self._state is not _OPEN:
            raise self._closed_error()
        self._loop.submissions.extend((_HEADER.pack(len(data), _OP_SEND, first, self._token), data))

    def _send_compressed(self, codec: Codec, message: str | Buffer) -> None:
        first, data = _TEXT if isinstance(message, str) else _BINARY, bytes_of(message)
        if len(data) >= codec.threshold and (packed := codec.deflate(data)) is not None:
            first |= _RSV1
            data = packed
        self._send_frame(first, data, len(data))

    def _send_frame(self, first: int, data: bytes, size: int) -> None:
        if size < _LARGE:
            self._loop.submissions.extend((_HEADER.pack(size, _OP_SEND, first, self._token), data))
            return
        pins = self._endpoint.pins
        address = int(ffi.cast("uintptr_t", ffi.from_buffer("char[]", data)))
        pin = pins.keep(data)
        self._loop.submissions.append(
            _HEADER_REF.pack(28, _OP_SEND_REF, first, self._token, address, size, pin, pins.target)
        )

    # -- what there is to know -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._state

    @property
    def buffered_amount(self) -> int:
        """Bytes that the kernel has not taken yet. Asking hands it what was sent in this turn, so ask sparingly; 0 once closed."""
        self._loop.flush()
        facts = self._facts()
        return int(facts.queued) if facts is not None else 0

    @property
    def dropped(self) -> int:
        """Messages that were not sent because the queue was full, where ``when_full`` is ``"drop"``; 0 once closed."""
        self._loop.flush()
        facts = self._facts()
        return int(facts.dropped) if facts is not None else 0

    @property
    def latency(self) -> float | None:
        """Seconds that the last keep-alive ping took to be answered; ``None`` before that, and once closed."""
        facts = self._facts()
        return facts.latency_ns / 1e9 if facts is not None and facts.latency_ns >= 0 else None

    def _facts(self) -> Any:
        facts = ffi.new("struct evw_facts *")
        if self._loop.is_closed() or self._state is _GONE:
            return None
        token = int.from_bytes(self._token, "little")
        return facts if lib.evws_facts(self._loop.address, token, facts) == 0 else None

    def _closed_error(self) -> ConnectionClosedError:
        code = "" if self.close_code is None else f" with code {self.close_code}"
        return ConnectionClosedError(f"the connection is {self._state.name.lower()}{code}: nothing more can be sent")

    def _peer(self) -> str:
        client = self.request.client
        return f"{client[0]} port {client[1]}" if client else "an unnamed peer"

    def __repr__(self) -> str:
        return f"<WebSocket {self._peer()} {self._state.name.lower()}>"
