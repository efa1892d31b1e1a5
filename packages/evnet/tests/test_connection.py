"""A connection: what its protocol is told, in which order, and what reaches the peer."""

from __future__ import annotations

import errno
import os
import pickle
import random
import socket
import struct
import threading
import time
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import evnet
from evloop import Loop, LoopClosedError
from evloop.testing import ManualClock, checked_loop
from evnet import ConnectionClosedError, PeerCredentials, WriteQueueFullError, broadcast
from evnet._connection import abort_entry, adopt
from evnet._options import stream_options

RST = struct.pack("ii", 1, 0)
Pair = Any
BIG = random.Random(1).randbytes(3_000_000)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    client.close()


class Echo:
    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.pair.made.append(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def eof_received(self) -> bool:
        self.transport.close()
        return True

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None


# -- bytes ----------------------------------------------------------------------------------------------------------------------


def test_what_the_peer_sends_arrives_in_order(pair: Pair) -> None:
    client, protocol = pair.connected()
    client.sendall(b"one")
    pair.until(lambda: protocol.data == b"one")
    client.setblocking(False)
    sent = 0
    while len(protocol.data) < 3 + len(BIG):
        if sent < len(BIG):
            try:
                sent += client.send(BIG[sent : sent + 200_000])
            except BlockingIOError:
                pass
        pair.loop.run_once(0.001)
    assert bytes(protocol.data[3:]) == BIG


def test_echo_with_back_pressure_on_both_sides(pair: Pair) -> None:
    """More than all buffers hold goes round: neither side may stop, and nothing may be lost or doubled."""
    pair.listen(lambda: Echo(pair))
    client = pair.connect()
    client.setblocking(False)
    pair.loop.add_reader(client.fileno(), int)  # so that the loop does not sleep while there is something to read
    sent, got = 0, bytearray()

    def step() -> bool:
        nonlocal sent
        try:
            if sent < len(BIG):
                sent += client.send(BIG[sent : sent + 100_000])
            got.extend(client.recv(30_000))
        except BlockingIOError:
            pass
        return len(got) >= len(BIG)

    pair.until(step)
    pair.loop.remove_reader(client.fileno())
    assert bytes(got) == BIG


def test_writes_of_one_turn_and_of_every_type(pair: Pair) -> None:
    client, protocol = pair.connected()
    for data in (b"a", bytearray(b"b"), memoryview(b"xcx")[1:2], b""):
        protocol.transport.write(data)
    protocol.transport.writelines([b"d", bytearray(b"e"), memoryview(b"f")])
    for number in range(1000):
        protocol.transport.write(b"%d," % number)
    expected = b"abcdef" + b"".join(b"%d," % number for number in range(1000))
    assert pair.read(client, len(expected)) == expected


def test_a_bytearray_may_be_changed_after_write(pair: Pair) -> None:
    client, protocol = pair.connected()
    data = bytearray(b"before")
    protocol.transport.write(data)
    data[:] = b"after!"
    assert pair.read(client, 6) == b"before"


def test_pause_and_resume_writing(pair: Pair) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    written = 0
    while "pause" not in protocol.calls:
        protocol.transport.write(BIG[:100_000])
        written += 100_000
        pair.loop.run_once(0)
    assert protocol.calls == ["made", "pause"]
    protocol.transport.write(b"end")
    pair.turns()
    assert protocol.calls == ["made", "pause"]  # said once
    assert pair.read(client, written + 3).endswith(b"end")
    pair.until(lambda: protocol.calls == ["made", "pause", "resume"])
    protocol.transport.write(b"more")
    assert pair.read(client, 4) == b"more"


def test_a_small_write_causes_no_pause(pair: Pair) -> None:
    client, protocol = pair.connected()
    protocol.transport.write(b"x" * 60_000)
    pair.read(client, 60_000)
    assert protocol.calls == ["made"]


def test_pause_reading_stops_the_peer(pair: Pair) -> None:
    client, protocol = pair.connected()
    protocol.transport.pause_reading()
    protocol.transport.pause_reading()
    assert not protocol.transport.is_reading()
    pair.turns(2)
    client.setblocking(False)
    sent = 0
    try:
        while True:
            sent += client.send(BIG)
            pair.loop.run_once(0)
    except BlockingIOError:
        pass
    pair.turns()
    assert protocol.data == b""
    protocol.transport.resume_reading()
    assert protocol.transport.is_reading()
    pair.until(lambda: len(protocol.data) == sent)


def test_pause_reading_in_connection_made(pair: Pair, recorder: Any) -> None:
    class Paused(recorder):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    pair.listen(lambda: Paused(pair))
    client = pair.connect()
    client.sendall(b"early")
    pair.until(lambda: pair.made)
    pair.turns()
    assert pair.made[0].data == b""
    pair.made[0].transport.resume_reading()
    pair.until(lambda: pair.made[0].data == b"early")


@pytest.mark.parametrize("end", ["reset", "close"])
def test_the_peer_leaves_while_reading_is_paused(pair: Pair, end: str) -> None:
    """The loop sleeps meanwhile, although poll() reports a hang-up unasked, and learns of it on resuming."""
    client, protocol = pair.connected()
    protocol.transport.pause_reading()
    pair.turns(2)
    if end == "reset":
        reset(client)
    else:
        protocol.transport.write_eof()
        pair.turns(2)
        client.close()
    pair.turns()
    turns = 0
    until = time.monotonic() + 0.1
    while time.monotonic() < until:
        pair.loop.run_once(0.05)
        turns += 1
    assert turns <= 20
    protocol.transport.resume_reading()
    pair.until(lambda: "lost" in protocol.calls)


def test_nothing_is_received_while_reading_is_paused(pair: Pair) -> None:
    """Not even what was read before C heard of the pause; it is kept, in order, with the end."""
    ours, client = socket.socketpair()
    pair.clients.append(client)
    seen: list[Any] = []

    class Pausing:
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            assert self.transport.is_reading()
            seen.append(len(data))
            self.transport.pause_reading()

        def eof_received(self) -> None:
            assert self.transport.is_reading()
            seen.append("eof")

        def connection_lost(self, exc: Exception | None) -> None:
            seen.append("lost")

    protocol: Any = Pausing()
    connection = adopt(pair.loop, ours.detach(), protocol)
    client.setblocking(False)
    sent = 0
    try:
        while sent < 1_000_000:
            sent += client.send(BIG[:200_000])
    except BlockingIOError:
        pass
    client.close()
    pair.until(lambda: seen)
    pair.turns()
    assert len(seen) == 1
    while "lost" not in seen:
        count = len(seen)
        connection.resume_reading()
        connection.pause_reading()
        connection.resume_reading()
        pair.until(lambda before=count: len(seen) > before)
        pair.turns()
    assert sum(seen[:-2]) == sent
    assert seen[-2:] == ["eof", "lost"]


def test_a_connection_that_is_lost_while_something_is_held(pair: Pair) -> None:
    client, protocol = pair.connected()
    received = protocol.data_received

    def pause(data: bytes) -> None:
        received(data)
        protocol.transport.pause_reading()

    protocol.data_received = pause
    client.sendall(BIG[:150_000])
    pair.until(lambda: protocol.data)
    protocol.transport.resume_reading()
    protocol.transport.abort()
    got = len(protocol.data)
    pair.until(lambda: "lost" in protocol.calls)
    pair.turns()
    assert len(protocol.data) == got


def test_nothing_is_received_after_close(pair: Pair) -> None:
    client, protocol = pair.connected()
    received = protocol.data_received

    def close(data: bytes) -> None:
        assert not protocol.data
        received(data)
        protocol.transport.close()

    protocol.data_received = close
    client.sendall(BIG[:150_000])
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.calls == ["made", "lost"]
    assert 0 < len(protocol.data) < 150_000


# -- buffered protocols ---------------------------------------------------------------------------------------------------------


class Buffered:
    """Reads into a buffer of 1000 bytes."""

    def __init__(self) -> None:
        self.buffer = bytearray(1000)
        self.data = bytearray()
        self.hints: list[int] = []
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.then: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> Any:
        self.hints.append(sizehint)
        return self.buffer if len(self.hints) % 2 else memoryview(self.buffer)[:300]

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        if self.then is not None:
            self.then()

    def eof_received(self) -> None:
        self.calls.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.error = exc


@pytest.fixture
def buffered(pair: Pair) -> tuple[socket.socket, Buffered]:
    ours, client = socket.socketpair()
    client.settimeout(10)
    pair.clients.append(client)
    protocol = Buffered()
    adopt(pair.loop, ours.detach(), protocol)  # type: ignore[arg-type]
    return client, protocol


def test_buffered_protocol(pair: Pair, buffered: Any) -> None:
    client, protocol = buffered
    client.sendall(BIG[:100_000])
    client.close()
    pair.until(lambda: "lost" in protocol.calls)
    assert bytes(protocol.data) == BIG[:100_000]
    assert protocol.calls == ["eof", "lost"]
    assert min(protocol.hints) > 0


def test_buffered_protocol_that_pauses_at_each_piece(pair: Pair, buffered: Any) -> None:
    client, protocol = buffered

    def pause() -> None:
        assert protocol.transport.is_reading()
        protocol.transport.pause_reading()
        pair.loop.call_soon(protocol.transport.resume_reading)

    protocol.then = pause
    client.sendall(BIG[:20_000])
    client.close()
    pair.until(lambda: "lost" in protocol.calls)
    assert bytes(protocol.data) == BIG[:20_000]


def test_buffered_protocol_that_pauses_in_the_last_piece(pair: Pair, buffered: Any) -> None:
    """Twice, with nothing behind it: what is left over is kept again."""
    client, protocol = buffered

    def pause() -> None:
        protocol.transport.pause_reading()
        pair.loop.call_soon(protocol.transport.resume_reading)

    protocol.then = pause
    client.sendall(BIG[:20_000])
    pair.until(lambda: len(protocol.data) == 20_000)
    assert bytes(protocol.data) == BIG[:20_000]
    assert protocol.calls == []
    protocol.transport.abort()
    pair.until(lambda: protocol.calls == ["lost"])


@pytest.mark.parametrize("end", ["close", "abort"])
def test_buffered_protocol_that_ends_in_the_middle(pair: Pair, buffered: Any, end: str) -> None:
    client, protocol = buffered
    protocol.then = lambda: getattr(protocol.transport, end)()
    client.sendall(BIG[:20_000])
    pair.until(lambda: "lost" in protocol.calls)
    assert 0 < len(protocol.data) <= 1000
    assert protocol.calls == ["lost"]


@pytest.mark.parametrize("buffer", [b"", bytearray(), b"read-only"])
def test_a_buffer_that_takes_nothing(pair: Pair, buffered: Any, buffer: Any) -> None:
    reported: list[dict[str, Any]] = []
    pair.loop.set_exception_handler(lambda _, context: reported.append(context))
    client, protocol = buffered
    protocol.get_buffer = lambda _: buffer
    client.sendall(b"x")
    pair.until(lambda: "lost" in protocol.calls)
    assert isinstance(reported[0]["exception"], RuntimeError | TypeError)


def test_from_one_kind_of_protocol_to_the_other(pair: Pair, buffered: Any, recorder: Any) -> None:
    """In the middle of what was received: nothing is lost, doubled or out of order."""
    client, first = buffered
    second = recorder(pair)
    second.calls.append("made")
    first.then = lambda: first.transport.set_protocol(second)
    client.sendall(BIG[:20_000])
    pair.until(lambda: len(first.data) + len(second.data) == 20_000)
    assert 0 < len(first.data) <= 1000
    assert first.data + second.data == BIG[:20_000]
    first.then = None
    first.transport.set_protocol(first)
    client.sendall(b"back")
    pair.until(lambda: first.data.endswith(b"back"))
    first.transport.abort()
    pair.until(lambda: "lost" in first.calls)


# -- the write queue ------------------------------------------------------------------------------------------------------------


def test_limits_of_the_write_queue(pair: Pair) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    transport = protocol.transport
    assert transport.get_write_buffer_limits() == (16384, 65536)
    transport.set_write_buffer_limits(high=8_000_000, low=6_000_000)
    assert transport.get_write_buffer_limits() == (6_000_000, 8_000_000)
    big = BIG * 6
    transport.write(big)
    pair.until(lambda: "pause" in protocol.calls)
    queued = transport.get_write_buffer_size()
    assert 8_000_000 < queued <= len(big)
    # It is told to go on when that much is left, not when all is gone.
    got = 0
    while "resume" not in protocol.calls:
        got += len(pair.read(client, 50_000))
        pair.turns(1)
    assert 0 < transport.get_write_buffer_size() <= 6_000_000
    pair.read(client, len(big) - got)
    assert transport.get_write_buffer_size() == 0
    with pytest.raises(ValueError, match="high"):
        transport.set_write_buffer_limits(1, 2)
    transport.abort()
    pair.until(lambda: "lost" in protocol.calls)
    assert transport.get_write_buffer_size() == 0
    assert transport.get_write_buffer_limits() == (0, 0)


def test_limits_that_are_raised_above_what_is_queued(pair: Pair) -> None:
    _, protocol = pair.connected(receive_buffer=32768)
    protocol.transport.write(BIG * 3)
    pair.until(lambda: "pause" in protocol.calls)
    protocol.transport.set_write_buffer_limits(100_000_000, 50_000_000)
    pair.until(lambda: protocol.calls == ["made", "pause", "resume"])
    protocol.transport.set_write_buffer_limits(1000)
    pair.until(lambda: protocol.calls == ["made", "pause", "resume", "pause"])


def test_more_than_may_be_queued(pair: Pair, recorder: Any) -> None:
    ours, client = socket.socketpair()
    pair.clients.append(client)
    connection = adopt(pair.loop, ours.detach(), recorder(pair), stream_options(max_queued=1_000_000))
    protocol = pair.made[0]
    connection.write(BIG)  # one write may be longer
    pair.until(lambda: "pause" in protocol.calls)
    assert "lost" not in protocol.calls
    connection.write(b"x")
    pair.until(lambda: "lost" in protocol.calls)
    assert isinstance(protocol.error, WriteQueueFullError)
    assert isinstance(protocol.error, ConnectionAbortedError)
    assert "max_queued" in str(protocol.error)
    assert connection.state == "closed"


def test_what_is_in_files_may_be_queued(pair: Pair, recorder: Any, tmp_path: Path) -> None:
    ours, client = socket.socketpair()
    client.settimeout(10)
    pair.clients.append(client)
    (tmp_path / "file").write_bytes(BIG)
    connection = adopt(pair.loop, ours.detach(), recorder(pair), stream_options(max_queued=100_000))
    with (tmp_path / "file").open("rb") as file:
        for _ in range(3):
            connection.send_file(file)
            connection.write(b"between")
    assert pair.read(client, 3 * len(BIG) + 21) == (BIG + b"between") * 3


def test_one_fast_peer_does_not_starve_the_others(pair: Pair, recorder: Any) -> None:
    """However much the kernel would take: one connection sends a bounded amount in a turn."""
    ours, client = socket.socketpair()
    pair.clients.append(client)
    connection = adopt(pair.loop, ours.detach(), recorder(pair))
    connection.write(bytes(64 << 20))
    client.settimeout(10)
    reader = threading.Thread(target=lambda: list(iter(lambda: len(client.recv(1 << 20)), 0)))
    reader.start()
    turns = 0
    while connection.get_write_buffer_size():
        pair.loop.run_once(0)
        turns += 1
    connection.close()
    pair.until(lambda: "lost" in pair.made[0].calls)
    reader.join(10)
    assert turns >= 10


def test_close_after(pair: Pair) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    protocol.transport.write(BIG * 4)
    protocol.transport.close_after(0.05)
    assert protocol.transport.state == "closing"
    pair.until(lambda: "lost" in protocol.calls)
    assert isinstance(protocol.error, TimeoutError)
    with pytest.raises(ConnectionResetError):
        pair.drain(client)


def test_close_after_with_time_enough(pair: Pair) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    protocol.transport.write(BIG)
    protocol.transport.close_after(60)
    assert pair.read(client, len(BIG) + 1) == BIG
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.error is None
    protocol.transport.close_after(1)
    with pytest.raises(ValueError, match="timeout"):
        protocol.transport.close_after(0)


def test_a_closed_connection_is_not_kept_for_a_peer_that_takes_nothing(pair: Pair) -> None:
    pair.listen(idle_timeout=0.05)
    _, protocol = pair.connected(receive_buffer=32768)
    protocol.transport.write(BIG * 4)
    protocol.transport.close()
    pair.until(lambda: "lost" in protocol.calls)
    assert isinstance(protocol.error, TimeoutError)


def test_write_refuses_what_is_no_bytes(pair: Pair) -> None:
    client, protocol = pair.connected()
    for wrong in ("text", 5, None, [1, 2]):
        with pytest.raises(TypeError):
            protocol.transport.write(wrong)
        with pytest.raises(TypeError):
            protocol.transport.writelines([b"not this either", wrong])
    protocol.transport.write(array("I", [1, 2]))
    assert pair.read(client, 8) == array("I", [1, 2]).tobytes()


# -- many at once ---------------------------------------------------------------------------------------------------------------


def test_broadcast(pair: Pair) -> None:
    made = [pair.connected() for _ in range(20)]
    transports = [protocol.transport for _, protocol in made]
    transports[3].write(b"before ")
    transports[4].close()
    transports[5].write_eof()
    broadcast(transports, b"to all")
    broadcast(iter(transports), bytearray(b" and again"))
    broadcast([], b"nobody")
    for number, (client, _) in enumerate(made):
        expected = {3: b"before to all and again", 4: b"", 5: b""}.get(number, b"to all and again")
        assert pair.read(client, len(expected) or 1) == expected


def test_broadcast_to_those_that_do_not_read(pair: Pair) -> None:
    """Each has its own place in it."""
    made = [pair.connected(receive_buffer=32768 * (1 + number)) for number in range(3)]
    for _ in range(3):
        broadcast([protocol.transport for _, protocol in made], BIG)
    pair.until(lambda: all("pause" in protocol.calls for _, protocol in made))
    for client, _ in made:
        assert pair.read(client, 3 * len(BIG)) == BIG * 3


def test_broadcast_when_one_has_just_gone(pair: Pair) -> None:
    (client, gone), (other, _) = pair.connected(), pair.connected()
    reset(client)
    broadcast([protocol.transport for protocol in pair.made], b"x")
    assert pair.read(other, 1) == b"x"
    pair.until(lambda: "lost" in gone.calls)
    assert isinstance(gone.error, ConnectionError)


def test_broadcast_belongs_to_one_loop(pair: Pair, recorder: Any) -> None:
    _, protocol = pair.connected()
    ours, client = socket.socketpair()
    pair.clients.append(client)
    with checked_loop() as other_loop:
        other = adopt(other_loop, ours.detach(), recorder(pair))
        with pytest.raises(ValueError, match="different loops"):
            broadcast([protocol.transport, other], b"x")


# -- ends -----------------------------------------------------------------------------------------------------------------------


def test_the_peer_closes(pair: Pair) -> None:
    client, protocol = pair.connected()
    client.sendall(b"last words")
    client.close()
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.data == b"last words"
    assert protocol.calls == ["made", "eof", "lost"]
    assert protocol.error is None
    pair.turns()
    assert protocol.calls == ["made", "eof", "lost"]
    assert pair.server.connections == 0


def test_half_close_keeps_our_side_open(pair: Pair) -> None:
    client, protocol = pair.connected()
    protocol.answer_eof = True
    client.shutdown(socket.SHUT_WR)
    pair.until(lambda: "eof" in protocol.calls)
    pair.turns()
    assert protocol.calls == ["made", "eof"]
    protocol.transport.write(b"still here")
    assert pair.read(client, 10) == b"still here"
    protocol.transport.close()
    assert pair.read(client, 1) == b""
    pair.until(lambda: protocol.calls == ["made", "eof", "lost"])


def test_write_eof_goes_after_what_is_queued(pair: Pair) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    assert protocol.transport.can_write_eof()
    protocol.transport.write(BIG)
    protocol.transport.write_eof()
    protocol.transport.write_eof()
    with pytest.raises(ConnectionClosedError):
        protocol.transport.write(b"x")
    assert pair.read(client, len(BIG) + 1) == BIG
    client.sendall(b"thanks")
    pair.until(lambda: protocol.data == b"thanks")
    assert "lost" not in protocol.calls
    client.close()
    pair.until(lambda: "lost" in protocol.calls)


def test_close_sends_what_is_queued(pair: Pair) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    protocol.transport.write(BIG)
    assert not protocol.transport.is_closing()
    protocol.transport.close()
    protocol.transport.close()
    assert protocol.transport.is_closing()
    with pytest.raises(ConnectionClosedError, match="closing"):
        protocol.transport.write(b"x")
    assert pair.read(client, len(BIG) + 1) == BIG
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.error is None
    protocol.transport.close()
    protocol.transport.abort()
    protocol.transport.write_eof()
    protocol.transport.pause_reading()
    protocol.transport.resume_reading()
    pair.turns()
    assert protocol.calls.count("lost") == 1


def test_abort_resets(pair: Pair) -> None:
    client, protocol = pair.connected()
    protocol.transport.write(b"never")
    protocol.transport.abort()
    protocol.transport.abort()
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.error is None
    with pytest.raises(ConnectionResetError):
        client.recv(10)


def test_abort_after_close_does_not_wait_for_the_queue(pair: Pair) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    for _ in range(4):
        protocol.transport.write(BIG)
    protocol.transport.close()
    pair.turns()
    assert "lost" not in protocol.calls
    protocol.transport.abort()
    pair.until(lambda: "lost" in protocol.calls)
    with pytest.raises(ConnectionResetError):
        pair.drain(client)


def test_the_peer_resets(pair: Pair) -> None:
    client, protocol = pair.connected()
    address = client.getsockname()
    reset(client)
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.calls == ["made", "lost"]
    assert isinstance(protocol.error, ConnectionResetError)
    assert protocol.error.errno == errno.ECONNRESET
    assert f"{address[0]} port {address[1]}" in str(protocol.error)


def test_the_peer_resets_while_we_send(pair: Pair) -> None:
    client, protocol = pair.connected(receive_buffer=32768)
    protocol.transport.write(BIG * 4)
    pair.until(lambda: protocol.calls == ["made", "pause"])
    reset(client)
    pair.until(lambda: "lost" in protocol.calls)
    assert isinstance(protocol.error, ConnectionError)
    with pytest.raises(ConnectionClosedError):
        protocol.transport.write(b"x")


def test_a_client_that_has_left_before_it_is_accepted(pair: Pair) -> None:
    pair.listen()
    for _ in range(5):
        reset(pair.connect())
        client = pair.connect()
        client.sendall(b"bye")
        client.close()
    pair.until(lambda: sum(each.data == b"bye" for each in pair.made) == 5)
    pair.until(lambda: all("lost" in each.calls for each in pair.made))
    assert pair.server.connections == 0


def test_everything_at_once(pair: Pair) -> None:
    """200 clients send, half-close, reset, at random; each protocol sees one beginning and one end."""
    pair.listen(backlog=300)
    rng = random.Random(7)
    sent: dict[tuple[str, int], bytes] = {}
    for number in range(200):
        client = pair.connect()
        message = rng.randbytes(rng.randrange(2000))
        sent[client.getsockname()] = message
        client.sendall(message)
        end = rng.randrange(3)
        if end == 0:
            client.close()
        elif end == 1:
            client.shutdown(socket.SHUT_WR)
        else:
            sent.pop(client.getsockname())
            reset(client)
        if number % 10 == 0:
            pair.loop.run_once(0)

    def ended() -> dict[object, bytes]:
        return {e.transport.get_extra_info("peername"): bytes(e.data) for e in pair.made if "lost" in e.calls}

    # Those that were reset may have been accepted or not.
    pair.until(lambda: sent.keys() <= ended().keys() and all("lost" in each.calls for each in pair.made))
    peers = ended()
    assert {name: peers[name] for name in sent} == sent


# -- idle -----------------------------------------------------------------------------------------------------------------------


def test_idle_timeout(pair: Pair) -> None:
    pair.listen(idle_timeout=0.05)
    client, protocol = pair.connected()
    pair.until(lambda: "lost" in protocol.calls)
    assert isinstance(protocol.error, TimeoutError)
    assert "timed out" in str(protocol.error)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_bytes_in_either_direction_keep_it_alive(pair: Pair) -> None:
    """Each step is short against the timeout, all of them together are long."""
    pair.listen(idle_timeout=6)
    client, protocol = pair.connected()
    clock = ManualClock(pair.loop)
    for number in range(1, 6):
        client.sendall(b"x")
        pair.until(lambda number=number: len(protocol.data) == number)
        clock.advance(5)
        protocol.transport.write(b"y")
        assert pair.read(client, 1) == b"y"
        clock.advance(5)
    assert protocol.calls == ["made"]
    clock.advance(7)
    clock.advance(7)  # that the kernel has got rid of the last byte counted once more
    pair.until(lambda: protocol.calls == ["made", "lost"])


def test_a_slow_reader_of_one_big_write_is_not_idle(pair: Pair) -> None:
    """Written once; then only the kernel's taking it shows that the peer lives.

    It tells that it takes more when a third of its buffer is free, which may be more than a megabyte.
    """
    pair.listen(idle_timeout=6)
    client, protocol = pair.connected(receive_buffer=262144)
    clock = ManualClock(pair.loop)
    protocol.transport.write(BIG * 9)
    pair.turns()
    got, steps = 0, 0
    while queued := protocol.transport.get_write_buffer_size():
        while protocol.transport.get_write_buffer_size() == queued:
            got += len(pair.read(client, 50_000))
        clock.advance(5)
        steps += 1
        assert "lost" not in protocol.calls
    assert steps > 2
    while got < len(BIG) * 9:
        data = pair.read(client, min(1 << 20, len(BIG) * 9 - got))
        assert data
        got += len(data)
    protocol.transport.close()
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.error is None


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_idle_timeouts_that_are_none(pair: Pair, timeout: float) -> None:
    with pytest.raises(ValueError, match="idle_timeout"):
        pair.listen(idle_timeout=timeout)


def test_an_infinite_idle_timeout_is_none(pair: Pair) -> None:
    pair.listen(idle_timeout=float("inf"))
    _, protocol = pair.connected()
    pair.turns()
    assert protocol.calls == ["made"]


# -- exceptions -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["data_received", "eof_received"])
def test_a_protocol_that_raises_loses_its_connection(pair: Pair, recorder: Any, method: str) -> None:
    """As in asyncio: its state is unknown. The others go on."""
    reported: list[dict[str, Any]] = []
    pair.loop.set_exception_handler(lambda _, context: reported.append(context))

    def fail(*_: Any) -> None:
        raise RuntimeError("in the protocol")

    pair.listen()
    client, protocol = pair.connected()
    other, good = pair.connected()
    setattr(protocol, method, fail)
    client.sendall(b"x")
    client.shutdown(socket.SHUT_WR)
    pair.until(lambda: "lost" in protocol.calls)
    assert [str(context["exception"]) for context in reported] == ["in the protocol"]
    other.sendall(b"fine")
    pair.until(lambda: good.data == b"fine")
    assert pair.server.connections == 1


def test_connection_lost_that_raises(pair: Pair) -> None:
    reported: list[dict[str, Any]] = []
    pair.loop.set_exception_handler(lambda _, context: reported.append(context))
    client, protocol = pair.connected()

    def fail(_: object) -> None:
        raise RuntimeError

    protocol.connection_lost = fail
    client.close()
    pair.until(lambda: reported)
    assert pair.server.connections == 0


# -- descriptors of others ------------------------------------------------------------------------------------------------------


@pytest.fixture
def adopted(pair: Pair, recorder: Any) -> tuple[socket.socket, Any]:
    """One end of a socket pair, and the protocol that a connection without a server drives on the other."""
    ours, client = socket.socketpair()
    client.settimeout(10)
    pair.clients.append(client)
    protocol = recorder(pair)
    connection = adopt(pair.loop, ours.detach(), protocol)
    assert protocol.calls == ["made"]
    assert connection is protocol.transport
    return client, protocol


def test_adopt(pair: Pair, adopted: Any) -> None:
    client, protocol = adopted
    protocol.transport.write(b"to the peer")
    client.sendall(b"from the peer")
    assert pair.read(client, 11) == b"to the peer"
    pair.until(lambda: protocol.data == b"from the peer")
    client.close()
    pair.until(lambda: protocol.calls == ["made", "eof", "lost"])
    assert protocol.error is None


def test_adopt_a_tcp_socket(pair: Pair, recorder: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        client, _ = listening.accept()
    pair.clients.append(client)
    client.sendall(b"early")
    connection = adopt(pair.loop, ours.detach(), recorder(pair), stream_options(idle_timeout=60))
    assert connection.get_extra_info("peername") == client.getsockname()
    pair.until(lambda: pair.made[0].data == b"early")
    connection.abort()
    pair.until(lambda: "lost" in pair.made[0].calls)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_adopt_what_cannot_be_watched(loop: Loop, recorder: Any, pair: Pair, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with pytest.raises(OSError, match="descriptor"):
        adopt(loop, reading, recorder(pair))
    with (tmp_path / "file").open("wb") as file:
        if loop.backend == "epoll":
            with pytest.raises(PermissionError, match=f"cannot watch descriptor {file.fileno()}"):
                adopt(loop, file.fileno(), recorder(pair))
        file.write(b"still the caller's")
    assert pair.made == []


def test_adopt_for_a_protocol_that_raises(pair: Pair) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("in the protocol")

    lost: list[object] = []
    ours, client = socket.socketpair()
    pair.clients.append(client)
    with pytest.raises(RuntimeError, match="in the protocol"):
        adopt(pair.loop, ours.detach(), SimpleNamespace(connection_made=fail, connection_lost=lost.append))
    pair.until(lambda: lost)
    assert lost == [None]


def test_adopt_tells_its_owner_once(pair: Pair, recorder: Any) -> None:
    forgotten: list[object] = []
    ours, client = socket.socketpair()
    owner = SimpleNamespace(_forget=forgotten.append)
    connection = adopt(pair.loop, ours.detach(), recorder(pair), owner=owner)
    client.close()
    pair.until(lambda: "lost" in pair.made[0].calls)
    assert forgotten == [connection]


# -- facts ----------------------------------------------------------------------------------------------------------------------


def test_facts_about_a_connection(pair: Pair) -> None:
    client, protocol = pair.connected()
    transport = protocol.transport
    assert transport.get_extra_info("peername") == client.getsockname()
    assert transport.get_extra_info("cipher") is None
    assert transport.get_extra_info("cipher", 1) == 1
    assert transport.get_protocol() is protocol
    assert str(client.getsockname()[1]) in repr(transport)
    transport.close()
    assert "closing" in repr(transport)


def test_asyncios_facts(pair: Pair) -> None:
    client, protocol = pair.connected()
    transport = protocol.transport
    client_peer = client.getpeername()
    assert transport.get_extra_info("sockname") == client_peer
    sock = transport.get_extra_info("socket")
    assert (sock.family, sock.type, sock.proto) == (
        socket.AF_INET,
        socket.SOCK_STREAM,
        client.proto or socket.IPPROTO_TCP,
    )
    assert sock.getsockname() == client.getpeername()
    assert sock.getpeername() == client.getsockname()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert not sock.get_inheritable()
    assert sock.gettimeout() == 0
    sock.settimeout(0)
    sock.setblocking(False)
    with pytest.raises(ValueError, match="timeout"):
        sock.settimeout(1)
    with pytest.raises(ValueError, match="block"):
        sock.setblocking(True)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(sock)
    with sock.dup() as copy:
        assert copy.fileno() != sock.fileno()
        assert copy.getsockname() == sock.getsockname()
    assert "SocketView" in repr(sock)
    assert transport.get_extra_info("peercred") is None
    transport.abort()
    pair.until(lambda: "lost" in protocol.calls)
    assert sock.fileno() == -1
    with pytest.raises(OSError, match="ended"):
        sock.getsockname()
    assert transport.get_extra_info("socket", "none") == "none"
    assert transport.get_extra_info("sockname") == client_peer
    assert transport.get_extra_info("peername") == client.getsockname()


def test_facts_about_a_unix_socket(pair: Pair, adopted: Any) -> None:
    _, protocol = adopted
    credentials = protocol.transport.get_extra_info("peercred")
    assert isinstance(credentials, PeerCredentials)
    assert credentials[1:] == (os.getuid(), os.getgid())
    assert credentials.pid in (os.getpid(), None)
    assert protocol.transport.get_extra_info("socket").family == socket.AF_UNIX
    pair.loop.close()
    assert protocol.transport.get_extra_info("peercred") is None


def test_adopted_tcp_has_no_delay_and_keep_alive_on_demand(pair: Pair, recorder: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        client, _ = listening.accept()
    pair.clients.append(client)
    connection = adopt(pair.loop, ours.detach(), recorder(pair))
    sock = connection.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    connection.set_keep_alive(30, interval=5, count=3)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
    connection.abort()
    pair.turns()
    with pytest.raises(OSError, match="ended"):
        connection.set_keep_alive()


def test_state(pair: Pair) -> None:
    _, protocol = pair.connected()
    protocol.answer_eof = True
    transport = protocol.transport
    assert (transport.state, transport.is_closing()) == ("open", False)
    transport.write_eof()
    assert (transport.state, transport.is_closing()) == ("finished", False)
    with pytest.raises(ConnectionClosedError, match="write_eof"):
        transport.write(b"x")
    transport.close()
    assert (transport.state, transport.is_closing()) == ("closing", True)
    with pytest.raises(ConnectionClosedError, match="closing"):
        transport.write(b"x")
    pair.until(lambda: "lost" in protocol.calls)
    assert (transport.state, transport.is_closing()) == ("closed", True)


def test_set_protocol(pair: Pair, recorder: Any) -> None:
    client, protocol = pair.connected()
    second = recorder(pair)
    second.calls.append("made")
    protocol.transport.set_protocol(second)
    client.sendall(b"for the second")
    client.close()
    pair.until(lambda: "lost" in second.calls)
    assert second.data == b"for the second"
    assert protocol.calls == ["made"]


def test_ipv6_peer(loop: Loop, pair: Pair) -> None:
    try:
        pair.server = evnet.listen_tcp(loop, lambda: SimpleNamespace(connection_made=pair.made.append), "::1", 0)
    except OSError:
        pytest.skip("no IPv6 on the loopback interface")
    client = socket.create_connection(pair.server.addresses[0])
    pair.clients.append(client)
    pair.until(lambda: pair.made)
    assert pair.made[0].get_extra_info("peername") == client.getsockname()


def test_after_the_end_of_the_loop(pair: Pair) -> None:
    client, protocol = pair.connected()
    pair.loop.close()
    protocol.transport.write(b"x")
    protocol.transport.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_questions_and_files_after_the_end_of_the_loop(pair: Pair, tmp_path: Path) -> None:
    """Nothing is queued any more; and the descriptor that a file would be sent from is not duplicated for nobody."""
    _, protocol = pair.connected()
    pair.loop.close()
    transport = protocol.transport
    assert transport.get_write_buffer_size() == 0
    assert transport.get_write_buffer_limits() == (0, 0)
    (tmp_path / "file").write_bytes(b"x" * 10)
    with (tmp_path / "file").open("rb") as file, pytest.raises(LoopClosedError):
        transport.send_file(file)


def test_a_file_sent_while_the_loop_closes(pair: Pair, tmp_path: Path) -> None:
    """Its duplicate is closed, although no turn comes any more: the fixture looks for what is left open."""
    (tmp_path / "file").write_bytes(b"x" * 10)
    _, protocol = pair.connected()
    with (tmp_path / "file").open("rb") as file:
        pair.loop.on_close(lambda: protocol.transport.send_file(file))
        pair.loop.close()


@pytest.mark.parametrize("flush", [False, True])
def test_a_deadline_does_not_begin_before_a_slow_handler(pair: Pair, recorder: Any, flush: bool) -> None:
    """The idle time runs from the end of what held the loop up, not from the turn in which that began."""

    class Slow(recorder):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            clock.pass_time(60)
            if flush:
                pair.loop.flush()

    clock = ManualClock(pair.loop)
    pair.listen(lambda: Slow(pair), idle_timeout=10)
    _, protocol = pair.connected()
    pair.turns(3)
    assert "lost" not in protocol.calls
    clock.advance(9.9)
    assert "lost" not in protocol.calls
    clock.advance(0.2)
    pair.until(lambda: "lost" in protocol.calls)


def test_hand_over_tells_the_taker_what_has_come(pair: Pair) -> None:
    """What the protocol did not use, and what came in the same turn behind it; the protocol hears of nothing more."""
    client, protocol = pair.connected()
    transport = protocol.transport
    taken: list[tuple[bytes, bytes]] = []
    protocol.data_received = lambda data: transport.hand_over(lambda *what: taken.append(what), data[1:])
    client.sendall(b"x" * 200_000)
    pair.until(lambda: taken)
    ((token, rest),) = taken
    assert token == transport._token
    assert rest == b"x" * len(rest)
    assert 1000 < len(rest) < 200_000
    assert transport.state == "closed"
    with pytest.raises(ConnectionClosedError):
        transport.write(b"x")
    with pytest.raises(ConnectionClosedError):
        transport.hand_over(print)
    transport.close()
    transport.abort()
    pair.loop.submissions.append(abort_entry(token))  # nobody has taken it
    pair.turns()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert "lost" not in protocol.calls


def test_hand_over_with_a_taker_that_raises(pair: Pair) -> None:
    """It is reported, the connection is aborted, and its number is let go."""
    client, protocol = pair.connected()
    transport = protocol.transport
    said: list[Any] = []
    pair.loop.set_exception_handler(lambda loop, context: said.append(context["exception"]))

    def fail(token: bytes, rest: bytes) -> None:
        raise LookupError("no")

    transport.hand_over(fail)
    pair.turns(4)
    assert [type(error) for error in said] == [LookupError]
    assert transport._inbox.connections[transport._place] is None
    with pytest.raises(ConnectionResetError):
        client.recv(1)
