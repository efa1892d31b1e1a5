"""The server over real sockets: echo, fragments, limits, closing, slow and hostile peers."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
from framing import BAD, GOOD, MASK, length_of, raw

import evws
from evhttp import Limits as HttpLimits
from evloop import Loop
from evws import (
    ConnectionClosedError,
    Deflate,
    Frame,
    Limits,
    Opcode,
    PeerError,
    QueueFullError,
    State,
    encode_close,
    encode_frame,
)

Serve = Callable[..., Any]
BLOB = random.Random(7).randbytes(3_000_000)
SIZES = (
    0,
    1,
    15,
    16,
    125,
    126,
    255,
    256,
    2047,
    2048,
    4095,
    4096,
    8192,
    32767,
    32768,
    32769,
    65535,
    65536,
    100_000,
    1_048_576,
)


@pytest.mark.parametrize("size", SIZES)
def test_echo(serve: Serve, size: int) -> None:
    client = serve().open()
    for opcode, payload in (
        (Opcode.BINARY, BLOB[:size]),
        (Opcode.TEXT, b"a\xc3\xa9"[: size % 2 and 1] + b"x" * (size - size % 2)),
    ):
        client.send(opcode, payload)
        frame = client.frame()
        assert (frame.opcode, frame.payload, frame.fin) == (opcode, payload, True)


def test_types_of_messages(serve: Serve) -> None:
    got: list[Any] = []
    client = serve(lambda ws, message: (got.append(message), ws.send(b""))).open()
    medium, large = "é" * 3000, "é" * 20_000
    messages = ["κόσμε", b"\xff\0", "", b"", medium, BLOB[:6000], large, BLOB[:40_000]]
    for message in messages:
        client.send(Opcode.TEXT if isinstance(message, str) else Opcode.BINARY, message)
        client.message()
    client.sock.sendall(
        b"".join(raw(0x81, each.encode()) if isinstance(each, str) else raw(0x82, each) for each in messages)
    )
    for _ in messages:
        client.message()
    assert got == messages * 2
    assert [type(message) for message in got] == [str, bytes] * 8
    client.sock.sendall(raw(0x81, medium.encode() + b"\xff"))
    assert client.closed()[0] == 1007
    assert len(got) == 16


def test_order_of_sizes(serve: Serve) -> None:
    """Whatever way a message of its size takes to a client that reads slowly."""
    sizes = [5000, 10, 4096, 4095, 300, 8192, 40_000, 1, 32_767, 0, 65_521, 32_768, 257] * 40

    def go(ws: Any, message: Any) -> None:
        for number, size in enumerate(sizes):
            ws.send(BLOB[number : number + size])

    client = serve(go).open(receive_buffer=4096)
    for _ in range(2):
        client.text("go")
        for number, size in enumerate(sizes):
            assert client.message() == BLOB[number : number + size]


@pytest.mark.parametrize("compression", [None, Deflate(threshold=1 << 20)], ids=["plain", "deflate"])
def test_sends_of_every_type(serve: Serve, compression: Deflate | None) -> None:
    class Text(str):
        pass

    messages: list[Any] = [
        "é",
        Text("t"),
        b"b",
        bytearray(b"a"),
        memoryview(b"mm"),
        "é" * 2000,
        b"x" * 3000,
        "é" * 20_000,
        BLOB[:50_000],
    ]

    def answer(ws: Any, message: Any) -> None:
        for each in messages:
            ws.send(each)
        ws.send_fragmented(["a", "é", ""])
        ws.send_fragmented([b"a", bytearray(b"b")])
        ws.send_fragmented([])
        with pytest.raises(TypeError):
            ws.send_fragmented(["a", b"b"])
        for wrong in (5, [1, 2], None, True, 1.5):  # bytes(5) would be five zero bytes
            for send in (
                ws.send,
                ws.ping,
                ws.pong,
                lambda each: evws.broadcast([ws], each),
                lambda each: ws.send_fragmented([each]),
            ):
                with pytest.raises(TypeError, match="expected str or bytes-like, not"):
                    send(wrong)

    running = serve(answer, compression=compression)
    client = running.connect()
    client.shake("Sec-WebSocket-Extensions: permessage-deflate") if compression else client.shake()
    client.text("go")
    for message in messages:
        frame = client.frame()
        assert frame.opcode == (Opcode.TEXT if isinstance(message, str) else Opcode.BINARY)
        assert frame.payload == (message.encode() if isinstance(message, str) else bytes(message))
    frames = [client.frame() for _ in range(6)]
    assert [(frame.opcode, frame.payload, frame.fin) for frame in frames] == [
        (1, b"a", False), (0, "é".encode(), False), (0, b"", True), (2, b"a", False), (0, b"b", True), (2, b"", True),
    ]  # fmt: skip


def test_frames_cut_at_every_byte(serve: Serve) -> None:
    """Headers, payloads and characters in pieces, each a packet of its own."""
    client = serve().open()
    wire = raw(0x01, "κ".encode()[:1]) + raw(0x89, b"hi") + raw(0x80, "κ".encode()[1:]) + raw(0x82, b"b" * 130)
    for cut in range(1, len(wire)):
        for piece in (wire[:cut], wire[cut:]):
            client.sock.sendall(piece)
        frames = [client.frame() for _ in range(3)]
        assert [(frame.opcode, frame.payload) for frame in frames] == [(10, b"hi"), (1, "κ".encode()), (2, b"b" * 130)]


def test_many_messages_in_one_packet_and_in_the_handshake_s(serve: Serve) -> None:
    """What comes with the handshake is WebSocket's, although HTTP has read it."""
    client = serve().connect()
    client.shake(behind=b"".join(raw(0x81, b"%d" % number) for number in range(1000)))
    assert [client.message() for _ in range(1000)] == [b"%d" % number for number in range(1000)]


@pytest.mark.parametrize("cut", range(1, 12))
def test_part_of_a_frame_with_the_handshake(serve: Serve, cut: int) -> None:
    wire = raw(0x81, b"Hello!")
    client = serve().connect()
    client.shake(behind=wire[:cut])
    client.sock.sendall(wire[cut:])
    assert client.message() == b"Hello!"


def test_handshake_in_pieces(serve: Serve) -> None:
    running = serve()
    client = running.connect()
    client.sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nUpgr")
    client.sock.sendall(b"ade: WebSocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Version: 13\r\n")
    client.sock.sendall(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    status, fields = client.answer()
    assert (status, fields["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    assert client.text("x").message() == b"x"


# -- the rules, over a connection ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "want"), [pytest.param(d, w, id=f"6455-{i}") for i, d, w in GOOD])
def test_good(serve: Serve, data: bytes, want: list[Frame]) -> None:
    """Every message comes back, every ping is answered, and so is the Close, which is in the table or follows it."""
    client = serve().open()
    client.sock.sendall(data + encode_frame(8, mask=MASK))
    expected: list[tuple[int, bytes]] = []
    message: list[Frame] = []
    for frame in want:
        if frame.opcode == Opcode.PING:
            expected.append((Opcode.PONG, frame.payload))
        elif frame.opcode < Opcode.CLOSE:
            message.append(frame)
            if frame.fin:
                expected.append((message[0].opcode, b"".join(part.payload for part in message)))
                message = []
    close = want[-1].payload if want[-1].opcode == Opcode.CLOSE else b""
    got = []
    while (answer := client.frame()) is not None:
        got.append((answer.opcode, answer.payload))
    assert got == [*expected, (Opcode.CLOSE, close)]


@pytest.mark.parametrize(("data", "code"), [pytest.param(d, c, id=f"6455-{i}") for i, d, c in BAD])
def test_bad(serve: Serve, data: bytes, code: int) -> None:
    """Failed with its code; the neighbour is served on."""
    running = serve(limits=Limits(max_message_size=70_000))
    neighbour = running.open()
    client = running.open()
    client.sock.sendall(data + b"what follows is not looked at" * 10)
    while (frame := client.frame()) is not None and frame.opcode != 8:
        assert frame.opcode in (1, 2, 10)
    assert int.from_bytes(frame.payload[:2], "big") == code
    assert client.frame() is None
    client.close()  # else the server would wait for a while: there may be more that it must not answer with a reset
    running.until(lambda: running.told("close"))
    ((_, error),) = running.told("error")
    assert isinstance(error, PeerError)
    assert (error.code, error.reason) == (code, frame.payload[2:].decode())
    assert running.told("close") == [("close", 1006, "")]
    assert neighbour.text("still here").message() == b"still here"


@pytest.mark.parametrize(("size", "frames"), [(100, 1), (100, 100), (40_000, 1), (40_000, 5)])
def test_limits_are_exact(serve: Serve, size: int, frames: int) -> None:
    running = serve(lambda ws, message: ws.send(str(len(message))), limits=Limits(max_message_size=size))
    for more in (0, 1):
        client = running.open()
        part = size // frames
        wire = b"".join(raw(0x02 if n == 0 else 0x00, b"a" * part) for n in range(frames - 1))
        wire += raw(0x82 if frames == 1 else 0x80, b"a" * (part + more))
        client.sock.sendall(wire)
        if more:
            assert client.closed() == (
                1009,
                "message larger than the limit" if frames > 1 else "frame larger than the limit",
            )
        else:
            assert client.message() == b"%d" % size


def test_a_gigabyte_in_fragments_of_one_byte(serve: Serve) -> None:
    running = serve(limits=Limits(max_message_size=5000))
    client = running.open()
    client.sock.sendall(raw(0x01, b"a") + raw(0x00, b"b") * 4999)
    client.send(Opcode.PING)
    assert client.frame().opcode == Opcode.PONG
    client.sock.sendall(raw(0x00, b"c"))
    assert client.closed()[0] == 1009


def test_announced_and_not_sent(serve: Serve) -> None:
    """A frame of a terabyte is refused by its header; one within the limit may come to nothing."""
    running = serve()
    client = running.open()
    client.sock.sendall(raw(0x82, length=length_of(1 << 40)))
    assert client.closed()[0] == 1009
    client = running.open()
    client.sock.sendall(raw(0x82, length=length_of(1 << 20)) + b"abc")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.frame() is None


# -- control frames -------------------------------------------------------------------------------------------------------------


def test_pings_are_answered(serve: Serve) -> None:
    pings: list[bytes] = []
    running = serve(on_ping=lambda ws, payload: pings.append(payload))
    client = running.open()
    payloads = [b"", b"a", b"\xff" * 125]
    for payload in payloads:
        client.send(Opcode.PING, payload)
        frame = client.frame()
        assert (frame.opcode, frame.payload) == (Opcode.PONG, payload)
    running.until(lambda: len(pings) == 3)
    assert pings == payloads


def test_ping_and_pong_from_here(serve: Serve) -> None:
    pongs: list[bytes] = []

    def begin(ws: Any) -> None:
        ws.ping("é")
        ws.ping()
        ws.pong(b"unasked")
        with pytest.raises(ValueError, match="125"):
            ws.ping(bytes(126))

    running = serve(on_open=begin, on_pong=lambda ws, payload: pongs.append(payload))
    client = running.open()
    frames = [client.frame() for _ in range(3)]
    assert [(frame.opcode, frame.payload) for frame in frames] == [(9, "é".encode()), (9, b""), (10, b"unasked")]
    client.send(Opcode.PONG, "é").send(Opcode.PONG, b"never asked for")
    running.until(lambda: len(pongs) == 2)
    assert pongs == ["é".encode(), b"never asked for"]


def test_a_flood_of_pings_that_reads_nothing(serve: Serve) -> None:
    """RFC 6455 §5.5.3: not each ping has its pong. Few are queued, and the last is answered."""
    sockets: list[Any] = []
    running = serve(on_open=sockets.append)
    client = running.open(receive_buffer=4096)
    flood, sent = raw(0x89, b"p" * 100) * 1000, 0
    while (
        not sent or running.call(lambda: sockets[0].buffered_amount) < 64 * 1024
    ):  # the kernel's buffers are full, and ours
        assert sent < 500_000
        client.sock.sendall(flood)
        sent += 1000
    for _ in range(20):
        client.sock.sendall(flood)
    assert running.call(lambda: sockets[0].buffered_amount) < 128 * 1024
    client.send(Opcode.PING, b"the last")
    answered = 0
    while (frame := client.frame()).payload != b"the last":
        assert frame.opcode == Opcode.PONG
        answered += 1
    assert answered < sent
    assert client.text("alive").message() == b"alive"


# -- closing --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", 1005, ""),
        (encode_close(1000), 1000, ""),
        (encode_close(4999, "é"), 4999, "é"),
        (encode_close(1001, "r" * 123), 1001, "r" * 123),
    ],
)
def test_closed_by_the_peer(serve: Serve, payload: bytes, code: int, reason: str) -> None:
    """RFC 6455 §5.5.1: the Close is answered, with its own body. What follows it is not looked at (Autobahn 7.1.5)."""
    running = serve()
    client = running.open()
    client.text("one")
    client.send(Opcode.TEXT, "fragment", fin=False)
    client.sock.sendall(encode_frame(8, payload, mask=MASK) + raw(0x80, b"fragment") + raw(0x81, b"two"))
    assert client.message() == b"one"
    frame = client.frame()
    assert (frame.opcode, frame.payload) == (Opcode.CLOSE, payload)
    assert client.frame() is None
    client.close()
    running.until(lambda: running.told("close"))
    assert running.events == [("open",), ("close", code, reason)]


def test_closed_by_us(serve: Serve) -> None:
    """What is sent before goes out; what comes after is dropped; the peer's Close ends it."""
    got: list[Any] = []
    states: list[Any] = []

    def answer(ws: Any, message: str) -> None:
        got.append(message)
        ws.send("last")
        ws.close(4000, "é")
        ws.close(1001)
        states.append(ws.state)
        for call in (lambda: ws.send("x"), lambda: ws.send_fragmented(["x"]), ws.ping, ws.pong):
            with pytest.raises(ConnectionClosedError, match="closing"):
                call()

    running = serve(answer)
    client = running.open()
    client.sock.sendall(raw(0x81, b"one") + raw(0x81, b"two") + raw(0x01, b"thr"))
    assert client.message() == b"last"
    frame = client.frame()
    assert frame.payload == encode_close(4000, "é")
    client.sock.sendall(raw(0x80, b"ee") + raw(0x89) + raw(0x82, BLOB[:100_000]) + raw(0x88, encode_close(4000)))
    assert client.frame() is None
    running.until(lambda: running.told("close"))
    assert got == ["one"]
    assert states == [State.CLOSING]
    assert running.events == [("open",), ("close", 4000, "")]


def test_a_peer_that_does_not_answer_a_close(serve: Serve) -> None:
    running = serve(lambda ws, message: ws.close(None), limits=Limits(close_timeout=0.05))
    client = running.open().text("go")
    assert client.frame().payload == b""
    running.until(lambda: running.told("close"))
    (event,) = running.told("error")
    assert isinstance(event[1], TimeoutError)
    assert "127.0.0.1" in str(event[1])
    assert running.told("close") == [("close", 1006, "")]


def test_peers_that_disappear(serve: Serve) -> None:
    running = serve()
    client = running.open()
    client.sock.shutdown(socket.SHUT_WR)
    assert client.frame() is None
    running.until(lambda: running.told("close"))
    assert running.events == [("open",), ("close", 1006, "")]
    client = running.open()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    running.until(lambda: len(running.told("close")) == 2)
    assert isinstance(running.told("error")[0][1], OSError)


def all_at_once(running: Any, client: Any, data: bytes) -> None:
    """Let the server see data, and that no more will come, in one turn."""
    holds, go = threading.Event(), threading.Event()
    running.loop.call_soon_threadsafe(lambda: (holds.set(), go.wait(20)))
    assert holds.wait(20)
    client.sock.sendall(data)
    client.sock.shutdown(socket.SHUT_WR)
    go.set()


@pytest.mark.parametrize("slow", [False, True])
def test_messages_before_a_half_close_are_answered(serve: Serve, slow: bool) -> None:
    """As HTTP's last requests are: who closes its side behind its messages, as a program at the end of its input, may read on."""

    def answer(ws: Any, message: str) -> None:
        begun = monotonic()
        while slow and monotonic() - begun < 0.002:
            pass
        ws.send(message)

    running = serve(answer)
    client = running.open()
    all_at_once(running, client, b"".join(encode_frame(Opcode.TEXT, b"%d" % n, mask=MASK) for n in range(200)))
    assert [client.message() for _ in range(200)] == [b"%d" % n for n in range(200)]
    assert client.frame() is None
    running.until(lambda: running.told("close"))
    assert running.events == [("open",), ("close", 1006, "")]


@pytest.mark.parametrize("bad", [b"", encode_frame(Opcode.TEXT, b"\xff", mask=MASK)], ids=["good", "bad"])
def test_a_handler_that_closes_behind_a_half_close(serve: Serve, bad: bytes) -> None:
    """The closing handshake cannot be finished, yet the Close is sent, once; that of the handler if it says so in time."""

    def answer(ws: Any, message: str) -> None:
        ws.send("last")
        ws.close(4000, "enough")

    running = serve(answer)
    client = running.open()
    all_at_once(running, client, encode_frame(Opcode.TEXT, "go", mask=MASK) + bad)
    assert client.message() == b"last"
    assert client.closed() == (4000, "enough")
    running.until(lambda: running.told("close"))


def test_a_compressed_message_that_is_bad_before_a_half_close(serve: Serve) -> None:
    """It is judged when the end is known already."""
    running = serve(compression=Deflate())
    client = running.open("Sec-WebSocket-Extensions: permessage-deflate")
    all_at_once(running, client, encode_frame(Opcode.TEXT, b"\xff\xff\xff", mask=MASK, rsv1=True))
    assert client.closed()[0] == 1007
    running.until(lambda: running.told("close"))


def test_abort(serve: Serve) -> None:
    def answer(ws: Any, message: str) -> None:
        ws.send("lost")
        ws.abort()
        ws.abort()
        with pytest.raises(ConnectionClosedError):
            ws.send("x")

    running = serve(answer)
    client = running.open().text("go")
    with pytest.raises(ConnectionResetError):
        client.frame()
    running.until(lambda: running.told("close"))
    assert running.told("close") == [("close", 1006, "")]


def test_after_the_end(serve: Serve) -> None:
    sockets: list[Any] = []
    running = serve(on_open=sockets.append)
    client = running.open().send(Opcode.CLOSE, encode_close(3000, "bye"))
    assert client.closed() == (3000, "bye")
    running.until(lambda: running.told("close"))
    (ws,) = sockets
    assert (ws.state, ws.close_code, ws.close_reason) == (State.CLOSED, 3000, "bye")
    ws.close()
    ws.abort()
    with pytest.raises(ConnectionClosedError, match="closed with code 3000"):
        ws.send("x")
    assert running.call(lambda: (ws.buffered_amount, ws.dropped, ws.latency)) == (0, 0, None)
    assert repr(ws).endswith("closed>")


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (999, ""), (5000, ""), (1000, "é" * 62), (None, "why")])
def test_close_with_what_must_not_be_sent(serve: Serve, code: int | None, reason: str) -> None:
    sockets: list[Any] = []
    running = serve(on_open=sockets.append)
    client = running.open()
    running.until(lambda: sockets)
    with pytest.raises(ValueError, match=r"close code|reason"):
        sockets[0].close(code, reason)
    assert client.text("still open").message() == b"still open"


def test_the_server_closes(serve: Serve) -> None:
    """RFC 6455 §7.4.1: 1001, and the server ends when the last has answered."""
    running = serve()
    clients = [running.open() for _ in range(5)]
    clients[0].send(Opcode.TEXT, "half a mess", fin=False)
    running.call(running.server.close)
    for client in clients:
        frame = client.frame()
        assert frame.payload == encode_close(1001)
        client.send(Opcode.CLOSE, frame.payload)
        assert client.frame() is None
    running.until(lambda: running.server.connections == 0)
    assert running.told("close") == [("close", 1001, "")] * 5


def test_the_server_aborts(serve: Serve) -> None:
    running = serve()
    clients = [running.open() for _ in range(3)]
    assert running.call(running.server.abort) == 3
    for client in clients:
        with pytest.raises(ConnectionResetError):
            client.frame()
    running.until(lambda: len(running.told("close")) == 3)


def test_the_loop_closes_under_open_sockets(backend: str) -> None:
    """In the middle of a message and of a large answer: nothing is left, not even a descriptor (checked_loop)."""
    from evloop.testing import checked_loop, run_until

    sockets: list[Any] = []
    limits = Limits(max_queue_size=1 << 30)
    with checked_loop(backend) as loop:
        server = evws.Server(
            on_message=lambda ws, message: ws.send_fragmented([BLOB] * 9),
            on_open=sockets.append,
            loop=loop,
            limits=limits,
        )
        server.listen("127.0.0.1", 0)
        with socket.create_connection(server.addresses[0]) as client:
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + raw(0x81, b"go") + raw(0x02, b"x" * 5000)
            )
            run_until(loop, lambda: sockets and sockets[0].buffered_amount)
    assert sockets[0].buffered_amount == 0
    assert sockets[0].latency is None


# -- time ------------------------------------------------------------------------------------------------------------------------


def test_keep_alive_and_latency(serve: Serve) -> None:
    sockets: list[Any] = []
    pongs: list[bytes] = []
    limits = Limits(ping_interval=0.02)
    running = serve(on_open=sockets.append, on_pong=lambda ws, payload: pongs.append(payload), limits=limits)
    client = running.open()
    for _ in range(3):
        frame = client.frame()
        assert frame.opcode == Opcode.PING
        client.send(Opcode.PONG, frame.payload)
    running.until(lambda: sockets[0].latency is not None)
    assert 0 < running.call(lambda: sockets[0].latency) < 10
    assert pongs == []
    client.close()
    running.until(lambda: running.told("close"))


def test_a_peer_that_does_not_answer_pings(serve: Serve) -> None:
    running = serve(limits=Limits(ping_interval=0.02, ping_timeout=0.1))
    client = running.open()
    while True:
        try:
            if client.frame() is None:
                break
        except ConnectionResetError:
            break
    running.until(lambda: running.told("close"))
    assert isinstance(running.told("error")[0][1], TimeoutError)


def test_idle(serve: Serve) -> None:
    """Pings do not count, messages do."""
    running = serve(limits=Limits(idle_timeout=0.5, ping_interval=0.02))
    client = running.open()
    client.text("a")
    opcodes = []
    while (frame := client.frame()) is not None and frame.opcode != Opcode.CLOSE:
        opcodes.append(frame.opcode)
        if frame.opcode == Opcode.PING:
            client.send(Opcode.PONG, frame.payload)
    assert Opcode.TEXT in opcodes
    assert Opcode.PING in opcodes
    assert frame.payload == encode_close(1001, "idle")
    client.send(Opcode.CLOSE, frame.payload)
    assert client.frame() is None


def test_connects_and_never_speaks(serve: Serve) -> None:
    running = serve(http_limits=HttpLimits(head_timeout=0.05))
    client = running.connect()
    assert client.sock.recv(1000) == b""


# -- peers that read slowly -------------------------------------------------------------------------------------------------------


def flood(ws: Any, message: str) -> None:
    for _ in range(int(message)):
        ws.send(BLOB[:1_000_000])


def test_queue_full_closes(serve: Serve) -> None:
    running = serve(flood, limits=Limits(max_queue_size=5_000_000))
    neighbour = running.open()
    running.open(receive_buffer=4096).text("50")
    running.until(lambda: running.told("close"))
    (event,) = running.told("error")
    assert isinstance(event[1], QueueFullError)
    assert "5000000" in str(event[1])
    assert neighbour.text("1").message() == BLOB[:1_000_000]


def test_queue_full_drops(serve: Serve) -> None:
    sockets: list[Any] = []
    drained: list[Any] = []
    running = serve(
        flood,
        on_open=sockets.append,
        on_drain=drained.append,
        limits=Limits(max_queue_size=5_000_000, when_full="drop"),
    )
    client = running.open(receive_buffer=4096).text("50")
    running.until(lambda: sockets[0].dropped)
    dropped, queued = running.call(lambda: (sockets[0].dropped, sockets[0].buffered_amount))
    assert queued <= 5_000_100
    for _ in range(50 - dropped):
        assert client.message() == BLOB[:1_000_000]
    running.until(lambda: drained)
    assert running.call(lambda: sockets[0].buffered_amount) == 0
    assert client.text("1").message() == BLOB[:1_000_000]


def test_queue_full_drops_whole_messages(serve: Serve) -> None:
    """Fragments of one that is dropped do not come without its beginning."""

    def fragments(ws: Any, message: str) -> None:
        for number in range(60):
            ws.send_fragmented([b"%d" % number, BLOB[:500_000], BLOB[:500_000], b"end"])

    sockets: list[Any] = []
    limits = Limits(max_queue_size=2_000_000, when_full="drop")
    client = serve(fragments, on_open=sockets.append, limits=limits).open(receive_buffer=4096).text("go")
    seen = []
    client.sock.settimeout(20)
    client.send(Opcode.CLOSE)
    while (frame := client.frame()).opcode != Opcode.CLOSE:
        assert frame.opcode == Opcode.BINARY
        assert not frame.fin
        seen.append(int(frame.payload))
        parts = [client.frame() for _ in range(3)]
        assert [len(part.payload) for part in parts] == [500_000, 500_000, 3]
        assert [part.fin for part in parts] == [False, False, True]
    assert 0 < len(seen) < 60
    assert seen == sorted(set(seen))


def test_a_message_larger_than_the_queue(serve: Serve) -> None:
    client = serve(flood, limits=Limits(max_queue_size=1000)).open()
    assert client.text("1").message() == BLOB[:1_000_000]


# -- callbacks ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 40_000])
def test_a_callback_that_raises(serve: Serve, logged: Any, size: int) -> None:
    """It is reported, the peer is told with 1011, and the others are served on."""

    def fail(ws: Any, message: str) -> None:
        if message.startswith("x"):
            raise LookupError("no such thing")
        ws.send(message)

    running = serve(fail)
    running.loop.set_exception_handler(None)
    neighbour = running.open()
    client = running.open().text("x" * size)
    frame = client.frame()
    assert frame.payload == encode_close(1011, "exception in a handler")
    client.send(Opcode.CLOSE, frame.payload)
    assert client.frame() is None
    assert neighbour.text("ok").message() == b"ok"
    assert [record.exc_info[0] for record in logged.take()] == [LookupError]


def test_context_request_and_subprotocol(serve: Serve) -> None:
    def begin(ws: Any) -> None:
        ws.context = {"seen": 0}

    def count(ws: Any, message: str) -> None:
        ws.context["seen"] += 1
        ws.send(f"{ws.context['seen']} {ws.request.path} {ws.request.headers['host']} {ws.subprotocol} {ws.state.name}")

    running = serve(count, on_open=begin, subprotocols=("v2", "v1"))
    client = running.connect()
    fields = client.shake("Sec-WebSocket-Protocol: v0, v1", "Sec-WebSocket-Protocol: v2")
    assert fields["sec-websocket-protocol"] == "v2"
    for number in (1, 2):
        assert client.text("x").message() == b"%d /chat a v2 OPEN" % number


RUN = """
import evws, signal, socket, threading
server = evws.Server(on_message=lambda ws, message: None, on_close=lambda ws, code, reason: print("closed", code))
address = server.listen("127.0.0.1", 0).addresses[0]

def client():
    with socket.create_connection(address) as sock:
        lines = ["GET / HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
        sock.sendall("\\r\\n".join(lines).encode())
        while not sock.recv(1000).endswith(b"\\r\\n\\r\\n"):
            pass
        signal.raise_signal(signal.SIGTERM)
        print(sock.recv(4))
        sock.sendall(b"\\x88\\x82\\0\\0\\0\\0\\x03\\xe9")
        assert sock.recv(1) == b""

threading.Thread(target=client).start()
server.run()
print("ended", server.loop.is_closed())
"""


def test_run_ends_with_the_last_socket() -> None:
    """SIGTERM: 1001 to all, and when they have answered, the end."""
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["b'\\x88\\x02\\x03\\xe9'", "closed 1001", "ended True"]


def test_options_that_make_no_sense() -> None:
    with Loop() as loop:
        with pytest.raises(TypeError, match="on_message"):
            evws.Server(on_message=None, loop=loop)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="compression must be a Deflate or None, not True"):
            evws.Server(on_message=print, loop=loop, compression=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("behind", [b"", encode_frame(1, b"early", mask=MASK)], ids=["alone", "with a message"])
def test_a_handshake_with_a_server_that_ends(serve: Serve, behind: bytes) -> None:
    """Who is connected may ask once more, also for a WebSocket: it is opened, and closed with 1001 as those are that were open."""
    running = serve()
    client = running.connect()
    running.until(lambda: running.server.connections == 1)
    running.call(lambda: running.server.close(keep_idle=True))
    client.request(behind=behind)
    assert client.answer()[0] == 101
    frame = client.frame()
    assert (frame.opcode, frame.payload) == (Opcode.CLOSE, encode_close(1001))
    client.send(Opcode.CLOSE, frame.payload)
    assert client.frame() is None
    running.until(lambda: running.server.connections == 0)
    assert running.events == [("open",), ("close", 1001, "")]
