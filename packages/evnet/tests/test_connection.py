"""A connection: what its protocol is told, in which order, and what reaches the peer."""

from __future__ import annotations

import errno
import random
import socket
import struct
import time
from types import SimpleNamespace
from typing import Any

import pytest

import evnet
from evloop import Loop
from evnet import ConnectionClosedError

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
    pair.until(lambda: sum("lost" in each.calls for each in pair.made) == len(pair.made) and len(pair.made) >= 5)
    assert sum(each.data == b"bye" for each in pair.made) == 5
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
    pair.listen(idle_timeout=0.6)
    client, protocol = pair.connected()
    for number in range(10):
        if number % 2:
            client.sendall(b"x")
        else:
            protocol.transport.write(b"y")
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            pair.loop.run_once(0.05)
    assert protocol.calls == ["made"]


def test_a_slow_reader_of_one_big_write_is_not_idle(pair: Pair) -> None:
    """Written once; then only the kernel's taking it shows that the peer lives.

    It tells that it takes more when a third of its buffer is free, which may be more than a megabyte, so the steps are that large.
    """
    pair.listen(idle_timeout=0.6)
    client, protocol = pair.connected(receive_buffer=262144)
    protocol.transport.write(BIG * 9)
    got, until = 0, time.monotonic() + 1.5
    while time.monotonic() < until:
        got += len(pair.read(client, 1_000_000))
        pause = time.monotonic() + 0.1
        while time.monotonic() < pause:
            pair.loop.run_once(0.02)
        assert "lost" not in protocol.calls
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
