"""Large bytes by pointer, and files: they arrive in order, and are given back in every case."""

from __future__ import annotations

import gc
import random
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from evnet import ConnectionClosedError
from evnet._connection import LARGE
from evnet._lending import lender_of

Pair = Any
BIG = random.Random(3).randbytes(3_000_000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(BIG)
    return path


def nothing_is_lent(pair: Pair) -> None:
    pair.until(lambda: not len(lender_of(pair.loop)))


def test_large_bytes_are_not_copied_and_given_back(pair: Pair) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    data = bytes(BIG)
    data = data[:-1] + b"!"
    before = sys.getrefcount(data)
    protocol.transport.write(data)
    assert sys.getrefcount(data) == before + 1
    assert pair.read(client, len(data)) == data
    nothing_is_lent(pair)
    assert sys.getrefcount(data) == before


def test_the_sender_may_let_them_go(pair: Pair) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    for number in range(20):
        protocol.transport.write(bytes([number]) * 100_000)
    gc.collect()
    assert pair.read(client, 2_000_000) == b"".join(bytes([number]) * 100_000 for number in range(20))


def test_small_and_large_in_order(pair: Pair) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    rng = random.Random(4)
    pieces = [rng.randbytes(rng.choice([0, 1, 100, LARGE - 1, LARGE, 70_000])) for _ in range(100)]
    for at in range(50):
        protocol.transport.write(pieces[at])
    protocol.transport.writelines(pieces[50:99])
    protocol.transport.writelines([bytearray(pieces[99])])
    protocol.transport.writelines([])
    expected = b"".join(pieces)
    assert pair.read(client, len(expected)) == expected
    nothing_is_lent(pair)


def test_a_large_bytearray_may_be_changed(pair: Pair) -> None:
    client, protocol = pair.connected()
    data = bytearray(b"a" * 100_000)
    protocol.transport.write(data)
    view = memoryview(b"b" * 100_000)
    protocol.transport.write(view)
    data[:] = b"c" * 100_000
    view.release()
    assert pair.read(client, 200_000) == b"a" * 100_000 + b"b" * 100_000


@pytest.mark.parametrize("end", ["abort", "reset", "loop"])
def test_they_come_back_when_the_connection_ends(pair: Pair, end: str) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    for _ in range(4):
        protocol.transport.write(BIG)
    pair.until(lambda: "pause" in protocol.calls)
    lender = lender_of(pair.loop)
    assert len(lender) > 0
    if end == "abort":
        protocol.transport.abort()
    elif end == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    else:
        pair.loop.close()  # which forgets all of it
        return
    pair.until(lambda: "lost" in protocol.calls)
    nothing_is_lent(pair)


def test_written_to_a_connection_that_has_just_ended(pair: Pair, file: Path) -> None:
    """C knows already, Python does not yet."""
    client, protocol = pair.connected()
    told: list[Exception | None] = []
    opened = file.open("rb")

    def received(_: bytes) -> None:
        protocol.transport.abort()
        pair.loop.flush()
        protocol.transport._state = 0  # as if it were the peer that has gone
        protocol.transport.write(BIG)
        protocol.transport.send_file(opened, sent=told.append)

    protocol.data_received = received
    client.sendall(b"x")
    with opened:
        pair.until(lambda: told)
    assert isinstance(told[0], ConnectionClosedError)
    nothing_is_lent(pair)
    pair.until(lambda: "lost" in protocol.calls)


# -- files ----------------------------------------------------------------------------------------------------------------------


def test_a_file_between_writes(pair: Pair, file: Path) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    sent: list[Exception | None] = []
    protocol.transport.write(b"head")
    with file.open("rb") as opened:
        opened.seek(5)
        protocol.transport.send_file(opened, sent=sent.append)
        protocol.transport.write(b"middle")
        protocol.transport.send_file(opened, 1000, 500)
        protocol.transport.send_file(opened, len(BIG), sent=sent.append)
        assert opened.tell() == 5
    protocol.transport.write(b"tail")
    expected = b"head" + BIG + b"middle" + BIG[1000:1500] + b"tail"
    assert pair.read(client, len(expected)) == expected
    assert sent == [None, None]
    nothing_is_lent(pair)


def test_a_file_and_back_pressure(pair: Pair, file: Path) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    with file.open("rb") as opened:
        for _ in range(4):
            protocol.transport.send_file(opened.fileno())
    pair.until(lambda: "pause" in protocol.calls)
    assert protocol.transport.get_write_buffer_size() > len(BIG)
    assert pair.read(client, 4 * len(BIG)) == BIG * 4
    pair.until(lambda: protocol.calls == ["made", "pause", "resume"])
    assert protocol.transport.get_write_buffer_size() == 0


def test_a_file_that_becomes_shorter(pair: Pair, file: Path) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    sent: list[Exception | None] = []
    with file.open("r+b") as opened:
        for _ in range(3):
            protocol.transport.send_file(opened, sent=sent.append)
        pair.until(lambda: "pause" in protocol.calls)
        opened.truncate(1000)
        pair.read(client, 10 * len(BIG))
    pair.until(lambda: "lost" in protocol.calls)
    assert isinstance(protocol.error, OSError)
    assert "Input/output error" in str(protocol.error)
    assert len(sent) == 3
    assert isinstance(sent[-1], ConnectionClosedError)


def test_a_connection_lost_in_a_file(pair: Pair, file: Path) -> None:
    _, protocol = pair.connected(receive_buffer=32768)
    order: list[str] = protocol.calls
    with file.open("rb") as opened:
        for _ in range(4):
            protocol.transport.send_file(opened, sent=lambda error: order.append(type(error).__name__))
    pair.until(lambda: "pause" in protocol.calls)
    protocol.transport.abort()
    pair.until(lambda: not len(lender_of(pair.loop)))
    pair.until(lambda: "lost" in order)
    assert order[-3:] == ["ConnectionClosedError", "ConnectionClosedError", "lost"]
    assert len(order) == 7  # made, pause, four times sent, lost


def test_files_that_are_refused(pair: Pair, file: Path) -> None:
    _, protocol = pair.connected()
    send = protocol.transport.send_file
    with socket.socket() as sock, pytest.raises(ValueError, match="not a regular file"):
        send(sock)
    with tempfile.TemporaryFile() as empty:
        closed = empty.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        send(closed)
    with file.open("rb") as opened:
        with pytest.raises(ValueError, match="offset and count"):
            send(opened, -1)
        with pytest.raises(ValueError, match="offset and count"):
            send(opened, 0, -1)
        with pytest.raises(ValueError, match=f"has {len(BIG)} bytes, not 2 from"):
            send(opened, len(BIG) - 1, 2)
        protocol.transport.close()
        with pytest.raises(ConnectionClosedError):
            send(opened)
    nothing_is_lent(pair)


def test_sent_that_raises_harms_nobody(pair: Pair, file: Path) -> None:
    reported: list[dict[str, Any]] = []
    pair.loop.set_exception_handler(lambda _, context: reported.append(context))
    client, protocol = pair.connected()

    def fail(_: Exception | None) -> None:
        raise RuntimeError("in sent")

    with file.open("rb") as opened:
        protocol.transport.send_file(opened, 0, 10, sent=fail)
    assert pair.read(client, 10) == BIG[:10]
    pair.until(lambda: reported)
    assert str(reported[0]["exception"]) == "in sent"
