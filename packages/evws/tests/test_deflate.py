"""Compressed messages (RFC 7692 §7.2), with each implementation of zlib that there is; then over connections."""

from __future__ import annotations

import importlib
import random
import threading
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from framing import raw

import evws
from evloop import Loop
from evws import Deflate, Limits, Opcode, PeerError, _deflate, encode_close
from evws._deflate import Codec
from evws._extensions import Agreed

Serve = Callable[..., Any]
TAIL = b"\0\0\xff\xff"
WORDS = [b'{"id":', b'"name":"alpha"', b"[1,2,3]", b"true}", b'"price":9.99', "é".encode()]
RANDOM = random.Random(11)


def words(count: int) -> bytes:
    return b",".join(RANDOM.choice(WORDS) for _ in range(count))


MESSAGES = [b"x", words(20), words(20), words(2000), bytes(100_000), RANDOM.randbytes(70_000), words(20)]


def present() -> list[str]:
    def here(name: str) -> bool:
        try:
            importlib.import_module(name)
        except ImportError:
            return False
        return True

    return [name for name in _deflate._MODULES if here(name)]


@pytest.fixture(params=present())
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each that is installed; a machine without evws[speed] has zlib."""
    name = str(request.param)
    module = importlib.import_module(name)
    monkeypatch.setattr(_deflate, "_zlib", module)
    monkeypatch.setattr(_deflate, "_error", (zlib.error, module.error))
    monkeypatch.setattr(_deflate, "_shared", threading.local())
    return name


def pair(agreed: Agreed, **options: Any) -> tuple[Codec, Codec]:
    ours = Deflate(**options)
    return Codec(ours, agreed, "server"), Codec(ours, agreed, "client")


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("alone", [False, True])
def test_there_and_back(implementation: str, level: int, bits: int, alone: bool) -> None:
    """Both directions, both roles, every window; the other side of each is zlib's own."""
    server, client = pair(Agreed(alone, alone, bits, bits), level=level)
    theirs = zlib.decompressobj(-bits)
    for message in MESSAGES:
        for sender, receiver in ((server, client), (client, server)):
            packed = sender.deflate(message)
            if packed is None:
                assert alone
                continue
            assert receiver.inflate(packed + TAIL, len(message)) == message
            if sender is server:
                theirs = zlib.decompressobj(-bits) if alone else theirs
                assert theirs.decompress(packed + TAIL) == message


@pytest.mark.parametrize("bits", range(8, 16))
def test_nothing_refers_further_back_than_the_window(implementation: str, bits: int) -> None:
    """With 8 bits, too, which zlib cannot do. Given out byte by byte, zlib's window of 2**bits is all there is to refer to."""
    codec = Codec(Deflate(level=9, memory_level=9), Agreed(False, False, bits, bits), "server")
    inflater = zlib.decompressobj(-bits)
    for period in (200, 240, 250, 251, 256, 257, 300, (1 << bits) - 1, 1 << bits, (1 << bits) + 1):
        message = RANDOM.randbytes(period) * 4
        data = (codec.deflate(message) or b"") + TAIL
        out = bytearray()
        while data:
            out += inflater.decompress(data, 1)
            data = inflater.unconsumed_tail
        out += inflater.flush()
        assert out == message


def test_messages_that_stand_alone(implementation: str) -> None:
    """One compressor serves all connections of a thread, and nothing of one message is in another (RFC 7692 §7.1.1)."""
    agreed = Agreed(True, True, 12, 12)
    one, other = (Codec(Deflate(server_no_context_takeover=True), agreed, "server") for _ in range(2))
    secret = RANDOM.randbytes(100) + bytes(100)
    lengths = set()
    for codec in (one, other, one):
        packed = codec.deflate(secret)
        assert packed is not None
        lengths.add(len(packed))
        assert zlib.decompressobj(-12).decompress(packed + TAIL) == secret
    assert len(lengths) == 1
    assert one._compressor is None
    assert packed is not None
    one.inflate(packed + TAIL, 1000)
    assert one._decompressor is None


def test_what_does_not_get_smaller(implementation: str) -> None:
    """It goes as it is, unless the compressor may refer to it later."""
    noise = RANDOM.randbytes(1000)
    alone, _ = pair(Agreed(True, True, 12, 12))
    assert alone.deflate(noise) is None
    taking_over, _ = pair(Agreed(False, False, 12, 12))
    packed = taking_over.deflate(noise)
    assert packed is not None
    assert len(packed) > 1000
    again = taking_over.deflate(noise)
    assert again is not None
    assert len(again) < 100


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4] + TAIL


def test_limit_is_exact(implementation: str) -> None:
    _, codec = pair(Agreed())
    for size in (1, 1000, 100_000):
        assert len(codec.inflate(deflated(bytes(size)), size)) == size
        with pytest.raises(PeerError) as caught:
            Codec(Deflate(), Agreed(), "server").inflate(deflated(bytes(size + 1)), size)
        assert caught.value.code == 1009
    assert codec.inflate(b"\0" + TAIL, 1) == b""


def test_a_bomb_is_not_unpacked(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = deflated(bytes(1 << 28))
    asked: list[int] = []
    module = _deflate._zlib

    class Watching:
        Z_SYNC_FLUSH = module.Z_SYNC_FLUSH

        def __init__(self, bits: int) -> None:
            self.inner = module.decompressobj(bits)

        eof = False

        def decompress(self, data: bytes, most: int) -> bytes:
            out: bytes = self.inner.decompress(data, most)
            asked.append(len(out))
            return out

    monkeypatch.setattr(_deflate, "_zlib", type("Module", (), {"decompressobj": Watching}))
    with pytest.raises(PeerError) as caught:
        Codec(Deflate(), Agreed(), "server").inflate(bomb, 1 << 20)
    assert caught.value.code == 1009
    assert asked == [(1 << 20) + 1]


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x06\x01\x02", b"\x01\x05\x00\xff\xffabcde"])
def test_what_is_not_deflate(implementation: str, data: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        Codec(Deflate(), Agreed(), "server").inflate(data + TAIL, 1000)
    assert caught.value.code == 1007


# RFC 7692 §7.2.3: (compressed, with what the sender has left out; plain)
EXAMPLES = [
    ("7.2.3.1 one block", bytes.fromhex("f248cdc9c90700"), b"Hello"),
    (
        "7.2.3.2 sharing the window",
        bytes.fromhex("f248cdc9c90700") + b"|" + bytes.fromhex("f200110000"),
        b"Hello|Hello",
    ),
    ("7.2.3.3 no compression", bytes.fromhex("000500faff48656c6c6f00"), b"Hello"),
    ("7.2.3.4 BFINAL", bytes.fromhex("f348cdc9c9070000"), b"Hello"),
    ("7.2.3.5 two blocks", bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", "")), b"Hello"),
    ("7.2.3.6 empty message", b"\0", b""),
]


@pytest.mark.parametrize(("data", "plain"), [pytest.param(d, p, id=f"7692-{i}") for i, d, p in EXAMPLES])
def test_examples_of_the_rfc(implementation: str, data: bytes, plain: bytes) -> None:
    codec = Codec(Deflate(), Agreed(), "server")
    for part, want in zip(data.split(b"|"), plain.split(b"|"), strict=True):
        assert codec.inflate(part + TAIL, 100) == want
    assert codec.inflate(deflated(b"and on"), 100) == b"and on"


def test_final_blocks(implementation: str) -> None:
    """Some in a message are in order; a message that consists of them would cost a decompressor for every two bytes."""
    final = bytes.fromhex("f348cdc9c90700")
    assert Codec(Deflate(), Agreed(), "server").inflate(final * 8 + b"\0" + TAIL, 100) == b"Hello" * 8
    for data in (final * 9 + b"\0", b"\x03\0" * 100_000):
        with pytest.raises(PeerError) as caught:
            Codec(Deflate(), Agreed(), "server").inflate(data + TAIL, 100)
        assert caught.value.code == 1007
    with pytest.raises(PeerError) as caught:
        Codec(Deflate(), Agreed(), "server").inflate(final * 8 + b"\0" + TAIL, 12)
    assert caught.value.code == 1009


def test_an_interpreter_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_deflate, "_MODULES", ("no_such_zlib",))
    with pytest.raises(ImportError, match="zlib"):
        _deflate._load()


# -- over connections ------------------------------------------------------------------------------------------------------------

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
FIRST = {Opcode.TEXT: 0xC1, Opcode.BINARY: 0xC2}


class Peer:
    """The client's side of permessage-deflate, on zlib alone."""

    def __init__(self, running: Any, offer: str = OFFER, **options: Any) -> None:
        self.client = running.connect(**options)
        self.fields = self.client.shake(offer)
        self.client.parser = evws.FrameParser("client", max_message_size=1 << 30, compression=True)
        text = self.fields.get("sec-websocket-extensions", "")
        self.parts = [part.strip() for part in text.split(";")]
        self.compressor = zlib.compressobj(6, zlib.DEFLATED, -9)
        self.decompressor = zlib.decompressobj(-15)

    def pack(self, message: bytes) -> bytes:
        return (self.compressor.compress(message) + self.compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def send(self, opcode: Opcode, message: bytes) -> None:
        self.client.sock.sendall(raw(FIRST[opcode], self.pack(message)))

    def receive(self) -> tuple[int, bytes, bool]:
        """A message's opcode, its contents, and whether it was compressed."""
        frame = self.client.frame()
        payload = self.decompressor.decompress(frame.payload + TAIL) if frame.rsv1 else frame.payload
        if "server_no_context_takeover" in self.parts:
            self.decompressor = zlib.decompressobj(-15)
        return frame.opcode, payload, frame.rsv1


@pytest.mark.parametrize("size", [1, 127, 128, 40_000, 1_000_000])
@pytest.mark.parametrize("alone", [False, True])
def test_echo(serve: Serve, size: int, alone: bool) -> None:
    got: list[Any] = []
    running = serve(
        lambda ws, message: (got.append(message), ws.send(message)),
        compression=Deflate(server_no_context_takeover=alone, client_max_window_bits=9),
    )
    peer = Peer(running)
    assert "client_max_window_bits=9" in peer.parts
    messages = [(Opcode.TEXT, b"t" * size), (Opcode.BINARY, RANDOM.randbytes(size)), (Opcode.TEXT, words(size)[:size])]
    for opcode, message in messages * 2:
        if opcode == Opcode.TEXT:
            message = message.decode(errors="ignore").encode()
        peer.send(opcode, message)
        assert peer.receive()[:2] == (opcode, message)
        assert got.pop() == (message.decode() if opcode == Opcode.TEXT else message)


def test_threshold(serve: Serve) -> None:
    peer = Peer(serve(compression=Deflate(threshold=100)))
    for size in (0, 99, 100, 101):
        peer.send(Opcode.TEXT, b"a" * size)
        assert peer.receive() == (Opcode.TEXT, b"a" * size, size >= 100)
    peer.client.text("not compressed")
    assert peer.receive() == (Opcode.TEXT, b"not compressed", False)


def test_an_empty_message_is_not_compressed(serve: Serve) -> None:
    peer = Peer(serve(compression=Deflate(threshold=0)))
    peer.send(Opcode.TEXT, b"")
    assert peer.receive() == (Opcode.TEXT, b"", False)
    peer.send(Opcode.TEXT, b"a")
    assert peer.receive() == (Opcode.TEXT, b"a", True)


def test_fragments_of_a_compressed_message(serve: Serve) -> None:
    """RFC 7692 §6.1: RSV1 on the first frame only; pings in between."""
    peer = Peer(serve(compression=Deflate()))
    message = words(5000)
    packed = peer.pack(message)
    wire = raw(0x42, packed[:1]) + raw(0x89, b"p")
    wire += b"".join(raw(0x00, packed[at : at + 1]) for at in range(1, 50)) + raw(0x80, packed[50:])
    peer.client.sock.sendall(wire)
    assert peer.client.frame().opcode == Opcode.PONG
    assert peer.receive() == (Opcode.BINARY, message, True)


def test_sends_of_every_type(serve: Serve) -> None:
    """And fragments, which are not compressed."""
    text, data = "é" * 200, b"b" * 200

    def answer(ws: Any, message: str) -> None:
        for each in (text, data, bytearray(data), memoryview(data)):
            ws.send(each)
        ws.send_fragmented([text, text])

    peer = Peer(serve(answer, compression=Deflate()))
    peer.client.text("go")
    assert peer.receive() == (Opcode.TEXT, text.encode(), True)
    for _ in range(3):
        assert peer.receive() == (Opcode.BINARY, data, True)
    assert [(frame.payload, frame.rsv1) for frame in (peer.client.frame(), peer.client.frame())] == [
        (text.encode(), False)
    ] * 2


@pytest.mark.parametrize("compression", [None, Deflate()])
def test_without_an_agreement(serve: Serve, compression: Deflate | None) -> None:
    """RFC 6455 §5.2: RSV1 then fails the connection."""
    running = serve(compression=compression)
    client = running.connect()
    offers = [OFFER] if compression is None else ["Sec-WebSocket-Extensions: permessage-deflate; unknown"]
    assert "sec-websocket-extensions" not in client.shake(*offers)
    client.text("a" * 1000)
    assert client.message() == b"a" * 1000
    client.sock.sendall(raw(0xC1, b"\0"))
    assert client.closed()[0] == 1002
    client.close()
    running.until(lambda: running.told("error"))
    running.events.clear()


def test_an_offer_that_is_no_list(serve: Serve) -> None:
    client = serve(compression=Deflate()).connect()
    client.request("Sec-WebSocket-Extensions: permessage-deflate;")
    assert client.answer()[0] == 400


BROKEN = [
    ("not UTF-8", 0xC1, deflated(b"a\xff")[:-4], 1007, "text is not UTF-8"),
    ("cut within a character", 0xC1, deflated(b"a\xc3")[:-4], 1007, "text is not UTF-8"),
    ("not deflate", 0xC2, b"\xff\xff\xff", 1007, "message is not compressed as agreed"),
    ("a bomb", 0xC2, deflated(bytes(1 << 24))[:-4], 1009, "decompressed message larger than the limit"),
    ("one byte too many", 0xC2, deflated(bytes(50_001))[:-4], 1009, "decompressed message larger than the limit"),
    ("in a large frame", 0xC2, b"\x06" + RANDOM.randbytes(40_000), 1007, "message is not compressed as agreed"),
    ("RSV1 on a ping", 0xC9, b"", 1002, "RSV1 is set where it means nothing"),
    ("RSV1 on a continuation", 0xC0, b"", 1002, "RSV1 is set where it means nothing"),
]


@pytest.mark.parametrize(
    ("first", "payload", "code", "reason"), [pytest.param(*case, id=f"7692-{name}") for name, *case in BROKEN]
)
@pytest.mark.parametrize("behind", [b"", raw(0x81, b"not looked at") + raw(0x88, encode_close(1000))])
def test_bad(serve: Serve, first: int, payload: bytes, code: int, reason: str, behind: bytes) -> None:
    """Failed with its code, whatever follows; the neighbour is served on."""
    got: list[Any] = []
    running = serve(
        lambda ws, message: (got.append(message), ws.send(message)),
        compression=Deflate(),
        limits=Limits(max_message_size=50_000),
    )
    neighbour = Peer(running)
    peer = Peer(running)
    begin = raw(0x01, b"a") if first == 0xC0 else b""
    peer.client.sock.sendall(begin + raw(first, payload) + behind)
    assert peer.client.closed() == (code, reason)
    peer.client.close()
    running.until(lambda: running.told("close"))
    ((_, error),) = running.told("error")
    assert isinstance(error, PeerError)
    assert (error.code, error.reason) == (code, reason)
    assert got == []
    neighbour.send(Opcode.TEXT, b"still here" * 20)
    assert neighbour.receive() == (Opcode.TEXT, b"still here" * 20, True)


def test_limit_of_what_does_not_compress(serve: Serve) -> None:
    """It is that of the message; on the wire it may be a little larger."""
    running = serve(compression=Deflate(client_max_window_bits=9), limits=Limits(max_message_size=50_000))
    peer = Peer(running)
    peer.compressor = zlib.compressobj(9, zlib.DEFLATED, -9, 1)
    noise = RANDOM.randbytes(50_000)
    peer.send(Opcode.BINARY, noise)
    assert peer.receive()[:2] == (Opcode.BINARY, noise)
    peer.client.sock.sendall(raw(0x82, noise + b"x"))
    assert peer.client.closed()[0] == 1009


def test_bad_message_after_our_close(serve: Serve) -> None:
    """Nobody looks at it any more."""
    running = serve(lambda ws, message: ws.close(4000), compression=Deflate())
    peer = Peer(running)
    peer.client.sock.sendall(raw(0x81, b"go") + raw(0xC2, b"\xff\xff\xff") + raw(0x88, encode_close(4000)))
    assert peer.client.closed() == (4000, "")
    running.until(lambda: running.told("close"))
    assert running.events == [("open",), ("close", 4000, "")]


def test_a_callback_that_raises(serve: Serve, logged: Any) -> None:
    def fail(ws: Any, message: str) -> None:
        raise LookupError("no such thing")

    running = serve(fail, compression=Deflate())
    running.loop.set_exception_handler(None)
    peer = Peer(running)
    peer.send(Opcode.TEXT, b"x" * 200)
    assert peer.client.frame().payload == encode_close(1011, "exception in a handler")
    assert [record.exc_info[0] for record in logged.take()] == [LookupError]


def test_dropped_messages_leave_the_others_readable(serve: Serve) -> None:
    """Where messages may be dropped none refers to another."""
    sockets: list[Any] = []

    def flood(ws: Any, message: str) -> None:
        for number in range(300):
            ws.send(b"%03d" % number + noise)

    noise = RANDOM.randbytes(50_000) * 2
    running = serve(
        flood,
        on_open=sockets.append,
        compression=Deflate(server_max_window_bits=15),
        limits=Limits(max_queue_size=2_000_000, when_full="drop"),
    )
    peer = Peer(running, receive_buffer=4096)
    peer.client.text("go")
    running.until(lambda: sockets[0].dropped)
    dropped = running.call(lambda: sockets[0].dropped)
    for _ in range(300 - dropped):
        assert peer.receive()[1][3:] == noise


def test_memory_of_an_idle_connection(serve: Serve) -> None:
    """There is no compressor before something is compressed."""
    sockets: list[Any] = []
    running = serve(on_open=sockets.append, compression=Deflate())
    peer = Peer(running)
    running.until(lambda: sockets)
    codec = sockets[0]._codec
    assert (codec._compressor, codec._decompressor) == (None, None)
    peer.send(Opcode.TEXT, b"a" * 10)
    peer.receive()
    assert codec._compressor is None
    assert codec._decompressor is not None


@pytest.mark.parametrize("compression", [None, Deflate()])
def test_binary_messages_as_memoryviews(serve: Serve, compression: Deflate | None) -> None:
    """They may be kept, cannot be written to, and text stays text."""
    kept: list[Any] = []
    messages = [b"small", RANDOM.randbytes(200_000), b"s" * 30_000, b""]
    running = serve(
        lambda ws, message: (kept.append(message), ws.send(message)), compression=compression, binary_type=memoryview
    )
    peer = Peer(running)
    for message in messages:
        peer.client.send(Opcode.BINARY, message)
        assert peer.receive()[1] == message
    if compression is not None:
        peer.send(Opcode.BINARY, b"compressed" * 100)
        assert peer.receive()[1] == b"compressed" * 100
        messages.append(b"compressed" * 100)
    assert [type(message) for message in kept] == [memoryview] * len(messages)
    assert all(message.readonly for message in kept)
    assert kept == messages
    for text in ("text", "t" * 50_000):
        peer.client.text(text)
        assert peer.receive()[1] == text.encode()
        assert kept[-1] == text


def test_a_type_that_messages_cannot_have() -> None:
    with Loop() as loop, pytest.raises(ValueError, match="binary_type"):
        evws.Server(on_message=print, binary_type=bytearray, loop=loop)  # type: ignore[arg-type]
