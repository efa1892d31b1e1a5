"""Frames (RFC 6455 §5) without a connection: bytes in, frames out, and the other way round."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Literal, NamedTuple

from evws._shim import ffi, lib

__all__ = ["CloseCode", "Frame", "FrameParser", "Opcode", "Violation", "encode_close", "encode_frame"]

_EVENT = Struct("<QQBBBxHxx")  # struct evw_event of shim.h
_VIOLATION = 255
_HEADER_MOST = 14
_REASON_MOST = 123
_FIN, _RSV1 = 0x80, 0x40
_SIZE_MOST = 2**63 - 1

Buffer = bytes | bytearray | memoryview


class Opcode(IntEnum):
    """What a frame is (RFC 6455 §5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """Why a connection was closed (RFC 6455 §7.4.1 and its registry at IANA).

    `NO_STATUS`, `ABNORMAL` and `TLS_HANDSHAKE` are never in a frame. Codes from 3000 to 3999 are registered by libraries, those
    from 4000 to 4999 are free for applications.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


class Frame(NamedTuple):
    """A frame that has come whole.

    Attributes:
        opcode: What it is.
        payload: Unmasked.
        fin: Whether it ends its message.
        rsv1: Whether its message is compressed (RFC 7692 §6); only where the parser was told to allow it.
    """

    opcode: Opcode
    payload: bytes
    fin: bool = True
    rsv1: bool = False


class Violation(NamedTuple):
    """What the peer did that no peer may do. It ends the connection: send a Close with this code, and look at nothing more.

    Attributes:
        code: `CloseCode.PROTOCOL_ERROR`, `INVALID_DATA` or `MESSAGE_TOO_BIG` (RFC 6455 §7.4.1).
        reason: At most 123 bytes of ASCII, fit for a Close frame; says nothing of the payload.
    """

    code: CloseCode
    reason: str


_OPCODES = {int(opcode): opcode for opcode in Opcode}


class FrameParser:
    """Cuts bytes into frames and checks every rule there is about them. It does no I/O.

    It checks masks, opcodes, reserved bits, lengths, fragmentation, codes and reasons of Close frames, that text is UTF-8 (from
    fragment to fragment, each byte as it comes), and the limits.

    Args:
        role: Who uses it. A ``"server"`` takes masked frames and nothing else, a ``"client"`` unmasked ones (RFC 6455 §5.1).
        max_frame_size: Bytes of payload of a data frame; more is a violation with code 1009. ``None``: as ``max_message_size``.
        max_message_size: Of all fragments of a message together.
        compression: Whether RSV1 may be set on the first frame of a message. Its text is not checked, as it is not text yet.

    Raises:
        ValueError: ``role`` is none, or a size is not from 0 to 2**63 - 1.

    Memory: up to one frame, and it grows with what has come, not with what was announced. Thread safety: one thread at a time.
    """

    __slots__ = ("_feeder",)

    def __init__(
        self,
        role: Literal["server", "client"] = "server",
        *,
        max_frame_size: int | None = None,
        max_message_size: int = 1 << 20,
        compression: bool = False,
    ) -> None:
        if role not in ("server", "client"):
            raise ValueError(f"role must be 'server' or 'client', not {role!r}")
        frame_size = max_message_size if max_frame_size is None else max_frame_size
        for name, size in (("max_message_size", max_message_size), ("max_frame_size", frame_size)):
            if not 0 <= size <= _SIZE_MOST:
                raise ValueError(f"{name} must be from 0 to 2**63 - 1, not {size!r}")
        feeder = lib.evws_feeder_new(role == "server", compression, frame_size, max_message_size)
        if feeder == ffi.NULL:
            raise MemoryError("no memory for a frame parser")
        self._feeder = ffi.gc(feeder, lib.evws_feeder_free)

    def feed(self, data: Buffer) -> list[Frame | Violation]:
        """Take the next bytes, cut anywhere, and return what has become whole by them.

        A `Violation` is the last thing that is ever returned, and so is a Close frame: what follows is not looked at (RFC 6455
        §7.1.7 and §5.5.1), and `feed` returns empty lists.

        Raises:
            MemoryError: A frame within the limits does not fit into memory. The parser is at its end.
        """
        if type(data) is not bytes:
            data = ffi.from_buffer("char[]", data)
        count = lib.evws_feeder_feed(self._feeder, data, len(data))
        if count <= 0:
            if count < 0:
                raise MemoryError("no memory for a frame")
            return []
        table = ffi.buffer(lib.evws_feeder_events(self._feeder), count * _EVENT.size)
        events = list(_EVENT.iter_unpack(table))
        end = events[-1][0] + events[-1][1]
        payloads = ffi.buffer(lib.evws_feeder_bytes(self._feeder), end)
        return [
            Frame(_OPCODES[opcode], payloads[offset : offset + length], bool(fin), bool(rsv1))
            if opcode != _VIOLATION
            else Violation(CloseCode(code), payloads[offset : offset + length].decode("ascii"))
            for offset, length, opcode, fin, rsv1, code in events
        ]

    @property
    def ended(self) -> bool:
        """Whether a Close frame or a violation has come: nothing more will."""
        return bool(lib.evws_feeder_ended(self._feeder))


def bytes_of(payload: str | Buffer) -> bytes:
    """What a message or control frame carries. ``bytes()`` alone would make zero bytes of a number.

    Raises:
        TypeError: It is neither ``str`` nor bytes-like.
    """
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, bytes):
        return payload
    try:
        return bytes(memoryview(payload))
    except TypeError:
        raise TypeError(f"expected str or bytes-like, not {type(payload).__name__}") from None


def encode_frame(
    opcode: int, payload: str | Buffer = b"", *, fin: bool = True, rsv1: bool = False, mask: Buffer | None = None
) -> bytes:
    """Make a frame.

    Args:
        opcode: One of `Opcode`.
        payload: ``str`` goes as UTF-8.
        fin: Whether it ends its message.
        rsv1: Whether its message is compressed.
        mask: Four bytes that nobody can foretell, for a client's frame (RFC 6455 §5.3); ``None`` for a server's.

    Raises:
        ValueError: There is no such opcode, a control frame is longer than 125 bytes or not final, or ``mask`` is not four bytes.
    """
    data = bytes_of(payload)
    if opcode not in _OPCODES:
        raise ValueError(f"opcode must be one of {', '.join(map(str, _OPCODES))}, not {opcode!r}")
    if opcode >= Opcode.CLOSE and (len(data) > 125 or not fin or rsv1):
        raise ValueError(f"a control frame must be whole, uncompressed and at most 125 bytes, not {len(data)}")
    if mask is not None and len(mask) != 4:
        raise ValueError(f"mask must be 4 bytes, not {len(mask)}")
    into = ffi.new("char[]", _HEADER_MOST + len(data))
    first = opcode | (_FIN if fin else 0) | (_RSV1 if rsv1 else 0)
    size = lib.evws_frame(into, first, data, len(data), ffi.NULL if mask is None else bytes(mask))
    return bytes(ffi.buffer(into, size))


def encode_close(code: int | None = None, reason: str = "") -> bytes:
    """Make the payload of a Close frame (RFC 6455 §5.5.1); ``None`` for a code makes an empty one.

    Raises:
        ValueError: The code must not be sent (§7.4), the reason is longer than 123 bytes of UTF-8, or it comes without a code.
    """
    if code is None:
        if reason:
            raise ValueError("a reason needs a code")
        return b""
    if not lib.evws_close_code_ok(code if 0 <= code <= 0xFFFF else 0):
        raise ValueError(f"close code must be 1000 to 1003, 1007 to 1014 or 3000 to 4999, not {code!r}")
    text = reason.encode()
    if len(text) > _REASON_MOST:
        raise ValueError(f"the reason of a Close must be at most {_REASON_MOST} bytes of UTF-8, not {len(text)}")
    return code.to_bytes(2, "big") + text
