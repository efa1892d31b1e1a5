"""The PROXY protocol in front of connections: each header is sent whole, byte by byte, and cut at every position."""

from __future__ import annotations

import json
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evhttp import ConnectionEnd, EvHttpError, Limits, Server
from evloop.testing import checked_loop

Serve = Callable[..., Any]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + struct.pack(">HH", 4711, 80)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + bytes(16) + struct.pack(">HH", 4711, 80)
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1") + bytes(16) + struct.pack(">HH", 4711, 80)


def v2(command: int = 0x21, kind: int = 0x11, payload: bytes = V4, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, kind, len(payload) if length is None else length) + payload


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def with_crc(change: int = 0) -> bytes:
    header = v2(payload=V4 + tlv(4, b"noop") + tlv(3, bytes(4)) + tlv(5, b"unique"))
    at = header.index(tlv(3, bytes(4))) + 3
    return header[:at] + struct.pack(">I", crc32c(header) ^ change) + header[at + 4 :]


# What `tell` answers: client and scheme.
LOCAL = ["127.0.0.1", None, "http"]
TOLD = ["192.0.2.1", 4711, "http"]
TOLD6 = ["2001:db8::1", 4711, "http"]

GOOD: dict[str, tuple[bytes, Any]] = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n", TOLD),
    "v1 port 0": (b"PROXY TCP4 192.0.2.1 192.0.2.2 0 65535\r\n", ["192.0.2.1", 0, "http"]),
    "v1 TCP6": (b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n", TOLD6),
    "v1 TCP6 mapped": (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 80\r\n", TOLD),
    "v1 longest": (
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535".ljust(105, b" ") + b"\r\n",
        LOCAL,
    ),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", LOCAL),
    "v1 UNKNOWN with more": (b"PROXY UNKNOWN \x00\xff what else\r\n", LOCAL),
    "v2 TCP4": (v2(), TOLD),
    "v2 TCP6": (v2(kind=0x21, payload=V6), TOLD6),
    "v2 TCP6 mapped": (v2(kind=0x21, payload=MAPPED), TOLD),
    "v2 unix": (v2(kind=0x31, payload=bytes(216)), [None, None, "http"]),
    "v2 LOCAL": (v2(command=0x20, kind=0, payload=b""), LOCAL),
    "v2 LOCAL with addresses": (v2(command=0x20), LOCAL),
    "v2 unspecified": (v2(kind=0, payload=b""), LOCAL),
    "v2 unspecified with more": (v2(kind=0, payload=b"\x01\x02\x03"), LOCAL),
    "v2 extensions": (v2(payload=V4 + tlv(2, b"a.example") + tlv(0xEE, b"") + tlv(4, bytes(300))), TOLD),
    "v2 longest": (v2(payload=V4 + tlv(4, bytes(4096 - 16 - 12 - 3))), TOLD),
    "v2 checksum": (with_crc(), TOLD),
    "v2 TLS": (v2(payload=V4 + tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3"))), ["192.0.2.1", 4711, "https"]),
    "v2 no TLS": (v2(payload=V4 + tlv(0x20, b"\x00\0\0\0\0")), TOLD),
}

BAD: dict[str, bytes] = {
    "nothing of the kind": GET,
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "lower case": b"proxy TCP4 192.0.2.1 192.0.2.2 4711 80\r\n",
    "blank line first": b"\r\nPROXY UNKNOWN\r\n",
    **{
        f"v1 {line!r}": line
        for line in (
            b"PROXY \r\n",
            b"PROXY\r\n",
            b"PROXYTCP4 192.0.2.1 192.0.2.2 4711 80\r\n",
            b"PROXY  TCP4 192.0.2.1 192.0.2.2 4711 80\r\n",
            b"PROXY TCP5 192.0.2.1 192.0.2.2 4711 80\r\n",
            b"PROXY tcp4 192.0.2.1 192.0.2.2 4711 80\r\n",
            b"PROXY UNKNOWNX\r\n",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 4711 80\r\n",
            b"PROXY TCP4\r\n",
            b"PROXY TCP4 192.0.2.1\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 \r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80 \r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80 1\r\n",
            b"PROXY TCP4  192.0.2.1 192.0.2.2 4711 80\r\n",
            b"PROXY TCP4 192.0.2.1\t192.0.2.2 4711 80\r\n",
            b"PROXY TCP4 192.0.2 192.0.2.2 4711 80\r\n",
            b"PROXY TCP4 192.0.2.256 192.0.2.2 4711 80\r\n",
            b"PROXY TCP4 192.0.2.01 192.0.2.2 4711 80\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.02.2 4711 80\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2x 4711 80\r\n",
            b"PROXY TCP4 192.0.2.1\x00 192.0.2.2 4711 80\r\n",
            b"PROXY TCP4 2001:db8::1 ::1 4711 80\r\n",
            b"PROXY TCP6 192.0.2.1 192.0.2.2 4711 80\r\n",
            b"PROXY TCP6 2001:db8:::1 ::1 4711 80\r\n",
            b"PROXY TCP6 [2001:db8::1] ::1 4711 80\r\n",
            b"PROXY TCP6 fe80::1%lo ::1 4711 80\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 04711 80\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 00\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 99999\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 123456 80\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 80\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 80\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1e1 80\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\rx\n",
            b"PROXY UNKNOWN\n",
            b"PROXY UNKNOWN" + b" " * 93 + b"\r\n",
            b"PROXY UNKNOWN " + b"x" * 200,
        )
    },
    "v2 version 1": v2(command=0x11),
    "v2 version 3": v2(command=0x31),
    "v2 command 2": v2(command=0x22),
    "v2 command 15": v2(command=0x2F),
    **{f"v2 datagrams {kind:#x}": v2(kind=kind, payload=bytes(216)) for kind in (0x12, 0x22, 0x32)},
    **{
        f"v2 kind {kind:#x}": v2(kind=kind, payload=bytes(216))
        for kind in (0x01, 0x02, 0x10, 0x13, 0x20, 0x23, 0x30, 0x41, 0xFF)
    },
    "v2 too short for TCP4": v2(payload=V4[:-1]),
    "v2 empty TCP4": v2(payload=b""),
    "v2 too short for TCP6": v2(kind=0x21, payload=V6[:-1]),
    "v2 TCP4's for TCP6": v2(kind=0x21, payload=V4),
    "v2 too short for unix": v2(kind=0x31, payload=bytes(215)),
    "v2 extension of one byte": v2(payload=V4 + b"\x04"),
    "v2 extension of two bytes": v2(payload=V4 + b"\x04\x00"),
    "v2 extension cut off": v2(payload=V4 + b"\x04\x00\x02x"),
    "v2 second extension cut off": v2(payload=V4 + tlv(4, b"x") + b"\x04\xff\xff"),
    "v2 TLS extension cut off": v2(payload=V4 + tlv(0x20, b"\x01\0\0\0")),
    "v2 checksum wrong": with_crc(1),
    "v2 checksum of three bytes": v2(payload=V4 + tlv(3, bytes(3))),
    "v2 checksum of five bytes": v2(payload=V4 + tlv(3, bytes(5))),
    "v2 too long": v2(payload=V4 + tlv(4, bytes(4096 - 16 - 12 - 2))),
    "v2 much too long": v2(length=65535),
    "v2 signature wrong": SIGNATURE[:-1] + b"\r" + v2()[12:],
    **{f"v2 signature, byte {at}": SIGNATURE[:at] + b"x" for at in range(1, 12)},
}


def tell(req: Any, res: Any) -> None:
    res.json([*(req.client or (None, None)), req.scheme])


@pytest.fixture
def front(serve: Serve) -> Callable[..., Any]:
    def make(handler: Any = tell, trusted: Any = ("127.0.0.1",), **options: Any) -> Any:
        running = serve(handler, trusted=trusted, **options)
        running.address = running.call(lambda: running.server.listen("127.0.0.1", 0, proxy_protocol=True).addresses[-1])
        return running

    return make


def check(answer: Any, client: Any, expected: Any) -> None:
    found = json.loads(answer.body)
    if expected[0] == "127.0.0.1":
        expected = ["127.0.0.1", client.sock.getsockname()[1], expected[2]]
    assert found == expected


def cuts(data: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, and in two pieces; the long ones at some places only."""
    places = range(1, len(data)) if len(data) < 400 else random.Random(1).sample(range(1, len(data)), 60)
    return [[data], *([data[:at], data[at:]] for at in places)]


@pytest.mark.parametrize("name", GOOD)
def test_good(front: Any, name: str) -> None:
    header, expected = GOOD[name]
    running = front()
    for pieces in cuts(header + GET + GET):
        client = running.connect()
        for piece in pieces:
            client.send(piece)
        for _ in range(2):
            check(client.answer(), client, expected)
        client.close()
    client = running.connect()
    for at in range(min(len(header), 700)):
        client.send(header[at : at + 1])
    client.send(header[700:])
    check(client.get(), client, expected)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", BAD)
def test_bad(front: Any, name: str) -> None:
    """The connection is reset without an answer, and no handler is called, however it is cut."""
    calls: list[Any] = []
    ends: list[ConnectionEnd] = []
    running = front(lambda req, res: calls.append(req), on_connection_end=ends.append)
    data = BAD[name]
    for pieces in cuts(data + GET):
        client = running.connect()
        try:
            for piece in pieces:
                client.send(piece)
            assert client.sock.recv(1) == b""
        except (ConnectionResetError, BrokenPipeError):
            pass
        client.close()
    count = len(cuts(data + GET))
    running.until(lambda: len(ends) == count)
    assert {end.cause for end in ends} == {"protocol_violated"}
    assert calls == []


def test_who_is_not_trusted_is_reset(front: Any) -> None:
    ends: list[ConnectionEnd] = []
    running = front(trusted=["192.0.2.0/24"], on_connection_end=ends.append)
    try:
        client = running.connect()
        assert client.send(GOOD["v1 TCP4"][0] + GET).sock.recv(1) == b""
    except (ConnectionResetError, BrokenPipeError):
        pass
    running.until(lambda: ends)
    assert (ends[0].cause, ends[0].requests) == ("protocol_violated", 0)


def test_nobody_is_trusted(backend: str) -> None:
    with checked_loop(backend) as loop:
        server = Server(tell, loop=loop)
        with pytest.raises(ValueError, match="proxy_protocol needs proxies that are trusted"):
            server.listen("127.0.0.1", 0, proxy_protocol=True)
        server.close()
        with pytest.raises(EvHttpError, match="closed"):
            server.listen("127.0.0.1", 0, proxy_protocol=True)


@pytest.mark.parametrize("part", [b"", b"PROXY TCP4 192", v2()[:20], GOOD["v1 TCP4"][0] + b"GET / HT"])
def test_a_header_that_does_not_come(front: Any, part: bytes) -> None:
    ends: list[ConnectionEnd] = []
    running = front(limits=Limits(head_timeout=0.05), on_connection_end=ends.append)
    client = running.connect().send(part)
    running.until(lambda: ends)
    assert (ends[0].cause, ends[0].requests) == ("timed_out", 0)
    if part.endswith(b"HT"):
        assert client.answer().status == 408
        assert ends[0].client == ("192.0.2.1", 4711)


def test_an_end_within_the_header(front: Any) -> None:
    ends: list[ConnectionEnd] = []
    running = front(on_connection_end=ends.append)
    client = running.connect().send(b"PROXY TCP4")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.at_end()
    running.until(lambda: ends)
    assert ends[0].cause == "by_client"


def test_a_server_that_closes_meanwhile(front: Any) -> None:
    running = front()
    client = running.connect().send(b"PROXY TCP4")
    running.until(lambda: running.server.connections == 1)
    running.call(running.server.close)
    assert client.at_end()
    running.until(lambda: running.server.connections == 0)


def test_a_second_header_is_no_request(front: Any) -> None:
    client = front().connect().send(GOOD["v1 TCP4"][0] * 2 + GET)
    assert client.answer().status == 501, "PROXY is taken for a method, and no one that we know"


@pytest.mark.parametrize(
    ("told", "expected"), [("192.0.2.1", b'["192.0.2.1",4711,"http"]'), ("127.0.0.1", b'["203.0.113.9",0,"https"]')]
)
def test_the_fields_of_whom_the_header_names(front: Any, told: str, expected: bytes) -> None:
    """They are believed if that is a trusted proxy, too: only its word is meant for us."""
    client = front().connect().send(f"PROXY TCP4 {told} 192.0.2.2 4711 80\r\n".encode())
    answer = client.get("/", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
    assert answer.body == expected


def test_over_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    running = serve(tell, trusted=["unix"])
    path = str(tmp_path / "s")
    running.call(lambda: running.server.listen_unix(path, proxy_protocol=True))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(path)
        sock.sendall(GOOD["v2 TCP4"][0] + GET)
        assert b'["192.0.2.1",4711,"http"]' in sock.recv(4096)


@pytest.mark.parametrize("trusted", [True, False])
def test_a_connection_that_was_accepted_elsewhere(serve: Serve, trusted: bool) -> None:
    running = serve(tell, trusted=["unix"] if trusted else ["192.0.2.7"])
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(20)
        running.call(lambda: running.server.adopt(ours, proxy_protocol=True))
        if trusted:
            theirs.sendall(GOOD["v2 TCP4"][0][:5])
            theirs.sendall(GOOD["v2 TCP4"][0][5:] + GET)
            assert b'["192.0.2.1",4711,"http"]' in theirs.recv(4096)
        else:
            assert theirs.recv(4096) == b""


def test_a_connection_that_is_not_adopted() -> None:
    """It stays the caller's."""
    ours, theirs = socket.socketpair()
    with ours, theirs, checked_loop() as loop:
        server = Server(tell, loop=loop)
        with pytest.raises(ValueError, match="needs proxies that are trusted"):
            server.adopt(ours, proxy_protocol=True)
        assert ours.fileno() > 0


def test_refusals_are_logged(front: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "evhttp")
    running = front(name="front")
    client = running.connect().send(b"PROXY nothing\r\n")
    with pytest.raises(ConnectionResetError):
        client.at_end()
    running.until(lambda: caplog.records)
    assert "front: 127.0.0.1 refused: 400 the PROXY line names no known protocol" in caplog.text
