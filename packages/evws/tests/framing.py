"""What the tests of frames share: cases with the sections of RFC 6455 that they are about, and a plain model of the rules."""

from __future__ import annotations

from evws import CloseCode, Frame, Opcode, Violation

MASK = b"\x37\xfa\x21\x3d"  # of RFC 6455 §5.7
PROTOCOL, INVALID, BIG = CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def raw(first: int, payload: bytes = b"", *, mask: bytes | None = MASK, length: bytes | None = None) -> bytes:
    """A frame as it stands on the wire; ``length`` replaces the seven bits and what follows them."""
    if length is None:
        length = length_of(len(payload))
    if mask is None:
        return bytes([first]) + length + payload
    return bytes([first, length[0] | 0x80]) + length[1:] + mask + masked(payload, mask)


def length_of(size: int) -> bytes:
    if size < 126:
        return bytes([size])
    return b"\x7e" + size.to_bytes(2, "big") if size <= 0xFFFF else b"\x7f" + size.to_bytes(8, "big")


TEXT, BINARY, CONT, CLOSE, PING, PONG = 0x81, 0x82, 0x80, 0x88, 0x89, 0x8A
TEXT_BEGIN, BINARY_BEGIN, CONT_MORE = 0x01, 0x02, 0x00


def text(payload: bytes, fin: bool = True) -> Frame:
    return Frame(Opcode.TEXT, payload, fin)


Want = list[Frame | CloseCode]

KAPPA = "κόσμε".encode()
GOOD: list[tuple[str, bytes, list[Frame]]] = [
    ("5.7 masked text", bytes.fromhex("818537fa213d7f9f4d5158"), [text(b"Hello")]),
    ("5.2 empty text", raw(TEXT), [text(b"")]),
    ("5.2 empty binary", raw(BINARY), [Frame(Opcode.BINARY, b"")]),
    ("5.2 125", raw(TEXT, b"a" * 125), [text(b"a" * 125)]),
    ("5.2 126", raw(TEXT, b"a" * 126), [text(b"a" * 126)]),
    ("5.2 65535", raw(BINARY, b"\xfe" * 65535), [Frame(Opcode.BINARY, b"\xfe" * 65535)]),
    ("5.2 65536", raw(BINARY, b"\xfe" * 65536), [Frame(Opcode.BINARY, b"\xfe" * 65536)]),
    ("5.3 mask of zeros", raw(TEXT, b"abc", mask=bytes(4)), [text(b"abc")]),
    ("5.4 three fragments", raw(TEXT_BEGIN, b"a") + raw(CONT_MORE, b"b") + raw(CONT, b"c"),
     [text(b"a", False), Frame(Opcode.CONTINUATION, b"b", False), Frame(Opcode.CONTINUATION, b"c")]),
    ("5.4 empty fragments", raw(BINARY_BEGIN) + raw(CONT_MORE) + raw(CONT),
     [Frame(Opcode.BINARY, b"", False), Frame(Opcode.CONTINUATION, b"", False), Frame(Opcode.CONTINUATION, b"")]),
    ("5.4 ping and pong between fragments",
     raw(TEXT_BEGIN, b"a") + raw(PING, b"p") + raw(CONT_MORE, b"b") + raw(PONG) + raw(CONT, b"c") + raw(TEXT, b"d"),
     [text(b"a", False), Frame(Opcode.PING, b"p"), Frame(Opcode.CONTINUATION, b"b", False), Frame(Opcode.PONG, b""),
      Frame(Opcode.CONTINUATION, b"c"), text(b"d")]),
    ("5.4 close between fragments", raw(TEXT_BEGIN, b"a") + raw(CLOSE, b"\x03\xe8") + raw(CONT, b"b"),
     [text(b"a", False), Frame(Opcode.CLOSE, b"\x03\xe8")]),
    ("5.5 control of 125", raw(PING, b"\xfe" * 125), [Frame(Opcode.PING, b"\xfe" * 125)]),
    ("5.5.1 empty close", raw(CLOSE), [Frame(Opcode.CLOSE, b"")]),
    ("5.5.1 reason", raw(CLOSE, b"\x03\xe8" + KAPPA), [Frame(Opcode.CLOSE, b"\x03\xe8" + KAPPA)]),
    ("5.5.1 reason of 123", raw(CLOSE, b"\x03\xe8" + b"r" * 123), [Frame(Opcode.CLOSE, b"\x03\xe8" + b"r" * 123)]),
    ("5.5.1 nothing after a close is looked at", raw(CLOSE) + raw(0xF5) + b"\xff\xff", [Frame(Opcode.CLOSE, b"")]),
    *[(f"7.4 close {code}", raw(CLOSE, code.to_bytes(2, "big")), [Frame(Opcode.CLOSE, code.to_bytes(2, "big"))])
      for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)],
    ("8.1 characters cut between fragments",
     b"".join(raw(TEXT_BEGIN if i == 0 else CONT if i == len(KAPPA) - 1 else CONT_MORE, KAPPA[i : i + 1])
              for i in range(len(KAPPA))),
     [Frame(Opcode.TEXT if i == 0 else Opcode.CONTINUATION, KAPPA[i : i + 1], i == len(KAPPA) - 1)
      for i in range(len(KAPPA))]),
    ("8.1 binary need not be UTF-8", raw(BINARY, b"\xff\xfe\xc0"), [Frame(Opcode.BINARY, b"\xff\xfe\xc0")]),
    ("8.1 U+10FFFF, U+FFFE, U+0000", raw(TEXT, b"\xf4\x8f\xbf\xbf\xef\xbf\xbe\0"),
     [text(b"\xf4\x8f\xbf\xbf\xef\xbf\xbe\0")]),
]  # fmt: skip

# What stands before the violation is told first.
BAD: list[tuple[str, bytes, CloseCode]] = [
    ("5.1 unmasked", raw(TEXT, b"a", mask=None), PROTOCOL),
    ("5.1 unmasked control", raw(PING, mask=None), PROTOCOL),
    *[(f"5.2 opcode {opcode}", raw(0x80 | opcode), PROTOCOL) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
    *[(f"5.2 reserved bits {bits >> 4}", raw(0x81 | bits), PROTOCOL) for bits in (0x10, 0x20, 0x30, 0x40, 0x50, 0x70)],
    ("5.2 RSV1 on a ping", raw(0xC9), PROTOCOL),
    ("5.2 RSV1 on a close", raw(0xC8), PROTOCOL),
    ("5.2 126 for 0", raw(TEXT, length=b"\x7e\0\0"), PROTOCOL),
    ("5.2 126 for 5", raw(TEXT, b"abcde", length=b"\x7e\0\5"), PROTOCOL),
    ("5.2 126 for 125", raw(TEXT, b"a" * 125, length=b"\x7e\0\x7d"), PROTOCOL),
    ("5.2 127 for 5", raw(TEXT, b"abcde", length=b"\x7f\0\0\0\0\0\0\0\5"), PROTOCOL),
    ("5.2 127 for 65535", raw(TEXT, length=b"\x7f\0\0\0\0\0\0\xff\xff"), PROTOCOL),
    ("5.2 64 bits", raw(BINARY, length=b"\x7f" + b"\x80" + bytes(7)), PROTOCOL),
    ("5.2 all 64 bits", raw(BINARY, length=b"\x7f" + b"\xff" * 8), PROTOCOL),
    ("5.2 63 bits", raw(BINARY, length=b"\x7f\x7f" + b"\xff" * 7), BIG),
    ("5.4 continuation of nothing", raw(CONT, b"a"), PROTOCOL),
    ("5.4 continuation of nothing, more to come", raw(CONT_MORE, b"a"), PROTOCOL),
    ("5.4 continuation behind a whole message", raw(TEXT, b"a") + raw(CONT, b"b"), PROTOCOL),
    ("5.4 text within a message", raw(TEXT_BEGIN, b"a") + raw(TEXT, b"b"), PROTOCOL),
    ("5.4 binary within a message", raw(TEXT_BEGIN, b"a") + raw(PING) + raw(BINARY_BEGIN, b"b"), PROTOCOL),
    *[(f"5.5 fragmented {name}", raw(first), PROTOCOL) for name, first in (("close", 8), ("ping", 9), ("pong", 10))],
    ("5.5 control of 126", raw(PING, b"a" * 126), PROTOCOL),
    ("5.5 control of 65536", raw(PONG, b"a" * 65536), PROTOCOL),
    ("5.5.1 close with one byte", raw(CLOSE, b"\x03"), PROTOCOL),
    ("5.5.1 reason not UTF-8", raw(CLOSE, b"\x03\xe8\xff"), INVALID),
    ("5.5.1 reason cut within a character", raw(CLOSE, b"\x03\xe8" + KAPPA[:-1]), INVALID),
    *[(f"7.4 close {code}", raw(CLOSE, code.to_bytes(2, "big")), PROTOCOL)
      for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)],
    ("8.1 FF", raw(TEXT, b"\xff"), INVALID),
    ("8.1 overlong", raw(TEXT, b"a\xc0\xaf"), INVALID),
    ("8.1 surrogate", raw(TEXT, b"\xed\xa0\x80"), INVALID),
    ("8.1 above U+10FFFF", raw(TEXT, b"\xf4\x90\x80\x80"), INVALID),
    ("8.1 ends within a character", raw(TEXT, KAPPA[:-1]), INVALID),
    ("8.1 fragments end within a character", raw(TEXT_BEGIN, KAPPA[:-1]) + raw(CONT), INVALID),
    ("8.1 second fragment", raw(TEXT_BEGIN, KAPPA) + raw(PING) + raw(CONT, b"\xbf"), INVALID),
]  # fmt: skip


def model(data: bytes, *, mask: bool, max_frame: int, max_message: int, compression: bool) -> list[Frame | Violation]:
    """What a parser has to say of these bytes, said as plainly as possible. Reasons are left empty."""
    out: list[Frame | Violation] = []
    message: list[bytes] | None = None
    kind, compressed = 0, False
    at = 0
    while True:
        frame = data[at:]
        if not frame:
            return out
        fin, rsv1, opcode = frame[0] & 0x80, frame[0] & 0x40, frame[0] & 15
        control = opcode >= 8
        bad = frame[0] & 0x30 or opcode not in (0, 1, 2, 8, 9, 10) or (control and not fin)
        bad = bad or (rsv1 and (not compression or control or opcode == 0))
        bad = bad or (not control and (opcode == 0) != (message is not None))
        if bad:
            return [*out, Violation(PROTOCOL, "")]
        if len(frame) < 2:
            return out
        size, at_size = frame[1] & 127, 2
        if bool(frame[1] & 0x80) != mask or (control and size > 125):
            return [*out, Violation(PROTOCOL, "")]
        if size >= 126:
            at_size = 4 if size == 126 else 10
            size = int.from_bytes(frame[2:at_size], "big")
        header = at_size + (4 if mask else 0)
        if len(frame) < header:
            return out
        if (at_size == 4 and size < 126) or (at_size == 10 and not 65535 < size < 2**63):
            return [*out, Violation(PROTOCOL, "")]
        if not control and (size > max_frame or sum(map(len, message or [])) + size > max_message):
            return [*out, Violation(BIG, "")]
        payload = frame[header : header + size]
        if mask:
            payload = masked(payload, frame[at_size:header])
        if not control:
            kind = opcode or kind
            compressed = bool(rsv1) if opcode else compressed
            message = [*(message or []), payload]
            if kind == 1 and not compressed and not is_text(b"".join(message), fin and len(payload) == size):
                return [*out, Violation(INVALID, "")]
        if len(payload) < size:
            return out
        if opcode == 8:
            close = close_of(payload)
            return [*out, close or Frame(Opcode.CLOSE, payload)]
        out.append(Frame(Opcode(opcode), payload, bool(fin), bool(rsv1)))
        if not control and fin:
            message = None
        at += header + size


def is_text(data: bytes, whole: object) -> bool:
    """Whether it is UTF-8, or, as long as it is not whole, the beginning of some."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return not whole and error.reason == "unexpected end of data"
    return True


def close_of(payload: bytes) -> Violation | None:
    if not payload:
        return None
    code = int.from_bytes(payload[:2], "big")
    defined = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
    if len(payload) == 1 or not (defined or 3000 <= code <= 4999):
        return Violation(PROTOCOL, "")
    return None if is_text(payload[2:], True) else Violation(INVALID, "")
