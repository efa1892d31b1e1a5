"""Clients that take what they can get: each is ended with the right code, with bounded memory, and its neighbour is served on."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from framing import raw

from evhttp import Limits as HttpLimits
from evws import Deflate, Frame, Limits, Opcode, PeerError, encode_close
from evws._handshake import accept_of

Serve = Callable[..., Any]
MIB = 1 << 20


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def until_refused(client: Any, wire: bytes, most: int) -> int:
    """Send it again and again until the server has ended the connection; how many bytes went."""
    sent = 0
    try:
        while sent < most:
            client.sock.sendall(wire)
            sent += len(wire)
    except OSError:
        return sent
    raise AssertionError(f"{sent} bytes were taken")


def code_of(client: Any) -> int:
    """Of the Close that stands behind whatever else has come. What was sent after it may have ended the connection with a reset."""
    while (frame := client.frame()) is not None:
        assert isinstance(frame, Frame)
        if frame.opcode == Opcode.CLOSE:
            return int.from_bytes(frame.payload[:2], "big")
    raise AssertionError("the connection ended without a Close")


def served(neighbour: Any) -> None:
    """Whether another connection of the same server still has its echo."""
    assert neighbour.text("here").message() == b"here"


def test_endless_fragments_of_one_byte(serve: Serve) -> None:
    """A message of a gigabyte in pieces of a byte ends at the limit, with what it has taken by then."""
    running = serve(limits=Limits(max_message_size=MIB))
    neighbour, client = running.open(), running.open()
    before = resident()
    client.sock.sendall(raw(0x01, b"a"))
    fragments = raw(0x00, b"b") * 10_000
    for _ in range(104):
        client.sock.sendall(fragments)
    client.send(Opcode.PING, b"taken")
    assert client.frame().payload == b"taken"
    assert resident() - before < 16 * MIB
    served(neighbour)
    client.sock.sendall(fragments)
    assert code_of(client) == 1009
    served(neighbour)


def test_endless_empty_fragments(serve: Serve) -> None:
    """They never end, and they cost nothing to keep."""
    running = serve()
    neighbour, client = running.open(), running.open()
    client.sock.sendall(raw(0x02))
    empty = raw(0x00) * 10_000
    client.sock.sendall(empty)
    before = resident()
    for _ in range(50):
        client.sock.sendall(empty)
    client.sock.sendall(raw(0x80, b"end"))
    assert client.message() == b"end"
    assert resident() - before < 4 * MIB
    served(neighbour)


def test_opens_and_never_speaks(serve: Serve) -> None:
    """The handshake has a time of its own, in which everything has to have come."""
    running = serve(http_limits=HttpLimits(head_timeout=0.5))
    neighbour = running.open()
    silent, slow = running.connect(), running.connect()
    slow.sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n")
    for client in (silent, slow):
        while client.sock.recv(1000):
            pass
    running.until(lambda: running.server.connections == 1)
    assert neighbour.text("here").message() == b"here"


def test_many_that_open_and_never_speak(serve: Serve) -> None:
    """They are so many at a time, and the others wait; who is open already notices nothing, and everybody has his turn."""
    running = serve(http_limits=HttpLimits(head_timeout=0.5, max_handshakes=5))
    neighbour = running.open()
    silent = [running.connect() for _ in range(15)]
    running.until(lambda: running.server.stats().accepted == 6)
    honest = running.connect()
    key = honest.request()
    served(neighbour)
    assert running.call(lambda: running.server.connections) == 6
    for client in silent:
        while client.sock.recv(1000):
            pass
        served(neighbour)
    status, fields = honest.answer()
    assert (status, fields["sec-websocket-accept"]) == (101, accept_of(key))
    served(honest)
    assert running.call(lambda: running.server.connections) == 2
    # Those that are open do not count.
    for _ in range(10):
        served(running.open())


def test_many_that_open_and_never_speak_are_reset(serve: Serve) -> None:
    running = serve(http_limits=HttpLimits(head_timeout=10, max_handshakes=3, refuse_connections=True))
    neighbour = running.open()
    silent = [running.connect() for _ in range(3)]
    running.until(lambda: running.server.stats().accepted == 4)
    for _ in range(20):
        with contextlib.suppress(ConnectionResetError):  # it may come before connect returns
            socket.create_connection(running.address, 20).close()
    running.until(lambda: running.server.stats().refused == 20)
    served(neighbour)
    silent[0].shake()  # the first three are heard
    served(silent[0])
    served(running.open())
    assert running.server.stats().accepted == 5


def test_many_that_open_and_never_speak_to_tls(serve: Serve, tmp_path: Path) -> None:
    """Those whose TLS handshake is under way count as well, and have no more time."""
    authority = trustme.CA()
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(ours)
    authority.configure_trust(theirs)
    running = serve(http_limits=HttpLimits(head_timeout=0.5, max_handshakes=5))
    neighbour = running.open()
    running.call(lambda: running.server.listen("127.0.0.1", 0, ssl=ours))
    secure = running.server.addresses[1]
    silent = [socket.create_connection(secure, 20) for _ in range(15)]
    running.until(lambda: running.server.stats().accepted == 6)
    honest = running.connect(address=secure)
    served(neighbour)
    assert running.call(lambda: running.server.stats().accepted) == 6
    honest.sock = theirs.wrap_socket(honest.sock, server_hostname="localhost")
    honest.shake()
    served(honest)
    for each in silent:
        with each, contextlib.suppress(ConnectionResetError):
            while each.recv(1000):
                pass
    served(neighbour)
    served(honest)


def test_never_reads(serve: Serve) -> None:
    """It asks for much and takes nothing: the queue has a limit, and the peer a time."""
    blob = bytes(MIB)
    running = serve(
        lambda ws, message: ws.send(blob if message == "more" else message),
        limits=Limits(max_queue_size=8 * MIB, write_timeout=0.2),
    )
    neighbour, client = running.open(), running.open(receive_buffer=4096)
    before = resident()
    until_refused(client, raw(0x81, b"more") * 100, 100 * MIB)
    assert resident() - before < 64 * MIB
    running.until(lambda: running.told("close"))
    assert neighbour.text("here").message() == b"here"


def test_takes_nothing_of_little(serve: Serve) -> None:
    """Too little to fill the queue, but it stays there."""
    running = serve(lambda ws, message: ws.send(bytes(8 * MIB)), limits=Limits(write_timeout=0.2))
    client = running.open(receive_buffer=4096).text("go")
    running.until(lambda: running.told("close"))
    ((_, error),) = running.told("error")
    assert isinstance(error, TimeoutError)
    client.close()


@pytest.mark.parametrize("garbage", [b"\xff" * 4096, b"GET / HTTP/1.1\r\n\r\n" * 200, raw(0x81, b"late") * 500])
def test_garbage_after_the_close(serve: Serve, garbage: bytes) -> None:
    """The Close is answered, the rest is thrown away, for as long as a linger lasts."""
    got: list[Any] = []
    running = serve(lambda ws, message: (got.append(message), ws.send(message)))
    neighbour, client = running.open(), running.open()
    client.sock.sendall(raw(0x88, encode_close(1000)) + garbage)
    assert code_of(client) == 1000
    for _ in range(20):
        try:
            client.sock.sendall(garbage)
        except OSError:
            break
    client.close()
    running.until(lambda: running.told("close"))
    assert running.told("close") == [("close", 1000, "")]
    assert got == []
    served(neighbour)


def test_garbage_after_a_violation(serve: Serve) -> None:
    running = serve()
    neighbour, client = running.open(), running.open()
    client.sock.sendall(raw(0x83) + b"\xff" * 200_000)
    assert code_of(client) == 1002
    client.sock.shutdown(socket.SHUT_WR)
    running.until(lambda: running.told("close"))
    assert [type(error) for _, error in running.told("error")] == [PeerError]
    served(neighbour)


def test_floods_of_bombs(serve: Serve) -> None:
    """Each message of some KiB would be a hundred MiB."""
    import zlib

    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = (compressor.compress(bytes(100 * MIB)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    running = serve(compression=Deflate(), limits=Limits(max_message_size=MIB))
    neighbour = running.open()
    before = resident()
    for _ in range(10):
        client = running.connect()
        client.shake("Sec-WebSocket-Extensions: permessage-deflate")
        client.sock.sendall(raw(0xC2, bomb))
        assert code_of(client) == 1009
        client.close()
    assert resident() - before < 32 * MIB
    served(neighbour)
