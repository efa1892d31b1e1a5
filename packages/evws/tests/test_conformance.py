"""What other WebSocket servers were seen to get wrong, a test for each: a live server, and the bytes of a client."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest
from framing import raw

from evws import Deflate, Frame, Opcode, encode_close

Serve = Callable[..., Any]
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def refused(running: Any, status: int, **request: Any) -> dict[str, str]:
    """Send a handshake, and a frame right behind it, which must not be taken for the next request; the answer's fields."""
    client = running.connect()
    client.request(*request.pop("lines", ()), behind=raw(0x81, b"not looked at"), **request)
    answered, fields = client.answer()
    assert answered == status
    assert running.told("open") == []
    return dict(fields)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"start": "GET / HTTP/1.0"}, id="HTTP-1.0"),
        pytest.param({"without": "Host"}, id="no-Host"),
        pytest.param({"lines": ["Host: a"]}, id="two-Hosts"),
        pytest.param({"lines": ["Host: b"]}, id="two-different-Hosts"),
        pytest.param({"lines": [f"Sec-WebSocket-Key: {KEY}"]}, id="two-keys"),
        *[
            pytest.param({"without": "Sec-WebSocket-Key", "lines": [f"Sec-WebSocket-Key: {key}"]}, id=f"key-{what}")
            for what, key in (
                ("of-15-bytes", "AAAAAAAAAAAAAAAAAAAA"),
                ("of-17-bytes", "AAAAAAAAAAAAAAAAAAAAAAA="),
                ("empty", ""),
                ("unpadded", KEY[:-2]),
            )
        ],
    ],
)
def test_no_101(serve: Serve, request_: dict[str, Any]) -> None:
    """RFC 6455 §4.2.1."""
    refused(serve(), 400, **request_)


def test_another_version(serve: Serve) -> None:
    """RFC 6455 §4.2.2, item 4: 426, with the version that would do."""
    fields = refused(serve(), 426, without="Sec-WebSocket-Version", lines=["Sec-WebSocket-Version: 99"])
    assert fields["sec-websocket-version"] == "13"
    assert fields["upgrade"] == "websocket"


def fails(running: Any, wire: bytes, code: int) -> None:
    """What is sent ends the connection with a code; the messages before it are answered, those behind it are not looked at."""
    client = running.open()
    client.sock.sendall(raw(0x81, b"before") + wire + raw(0x81, b"behind"))
    assert client.message() == b"before"
    assert client.closed()[0] == code
    running.until(lambda: running.told("close"))


@pytest.mark.parametrize(
    "header",
    ["81FE0005", "81FF0000000000000005", "81FE007D", "81FF000000000000FFFF", "82FE0000", "82FF0000000000000000"],
)
def test_lengths_that_are_not_minimal(serve: Serve, header: str) -> None:
    """RFC 6455 §5.2."""
    fails(serve(), bytes.fromhex(header) + bytes(4) + b"hello", 1002)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_close_codes_that_must_not_be_sent(serve: Serve, code: int) -> None:
    """RFC 6455 §7.4."""
    fails(serve(), raw(0x88, code.to_bytes(2, "big")), 1002)


@pytest.mark.parametrize(
    "parameters",
    [
        "server_no_context_takeover; server_no_context_takeover",
        "client_max_window_bits=10; client_max_window_bits=10",
        "server_max_window_bits",
        "server_max_window_bits=08",
        "client_max_window_bits=08",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "server_max_window_bits=16",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "mystery",
        "mystery=1",
    ],
)
def test_offers_of_compression_that_are_declined(serve: Serve, parameters: str) -> None:
    """RFC 7692 §7.1: a 101 without the extension, and a later offer that is good is still taken."""
    running = serve(compression=Deflate())
    client = running.connect()
    fields = client.shake(f"Sec-WebSocket-Extensions: permessage-deflate; {parameters}")
    assert "sec-websocket-extensions" not in fields
    assert client.text("plain").message() == b"plain"
    other = running.connect()
    fields = other.shake(f"Sec-WebSocket-Extensions: permessage-deflate; {parameters}, permessage-deflate")
    assert fields["sec-websocket-extensions"].startswith("permessage-deflate")


@pytest.mark.parametrize("first", [0xC8, 0xC9, 0xCA])
@pytest.mark.parametrize("compression", [None, Deflate()])
def test_rsv1_on_a_control_frame(serve: Serve, first: int, compression: Deflate | None) -> None:
    """RFC 7692 §6.1, with compression and without."""
    running = serve(compression=compression)
    client = running.connect()
    client.shake("Sec-WebSocket-Extensions: permessage-deflate")
    client.sock.sendall(raw(first, b"" if first == 0xC8 else b"a"))
    assert client.closed()[0] == 1002


@pytest.mark.parametrize("first", [0x81, 0x82, 0x88, 0x89])
def test_a_client_that_does_not_mask(serve: Serve, first: int) -> None:
    """RFC 6455 §5.1."""
    fails(serve(), raw(first, mask=None), 1002)


@pytest.mark.parametrize("frames", [raw(0x81, b"at once"), raw(0x01, b"at ") + raw(0x80, b"once")])
def test_a_frame_in_the_handshakes_packet(serve: Serve, frames: bytes) -> None:
    client = serve().connect()
    client.shake(behind=frames)
    assert client.message() == b"at once"


def test_decompressed_text_that_is_not_utf8(serve: Serve) -> None:
    """RFC 6455 §8.1, of what came out of it."""
    compressor = zlib.compressobj(wbits=-12)
    packed = (compressor.compress(b"\xff" * 20) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    client = serve(compression=Deflate()).connect()
    client.shake("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12")
    client.sock.sendall(raw(0xC1, packed))
    assert client.closed()[0] == 1007


def test_a_close_between_fragments(serve: Serve) -> None:
    """Autobahn's 7.1.5."""
    messages: list[Any] = []
    running = serve(lambda ws, message: messages.append(message))
    client = running.open()
    client.sock.sendall(raw(0x01, b"fragment") + raw(0x88, encode_close(1000)) + raw(0x80, b"another"))
    frame = client.frame()
    assert frame == Frame(Opcode.CLOSE, encode_close(1000))
    assert client.frame() is None
    running.until(lambda: running.told("close"))
    assert running.told("close") == [("close", 1000, "")]
    assert messages == []
