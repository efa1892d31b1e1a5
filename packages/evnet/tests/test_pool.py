"""Memory of what has ended serves what comes: streams, the buffers of reads, the segments of write queues."""

from __future__ import annotations

from typing import Any

import pytest

from evloop import Loop
from evnet._shim import lib

KEPT = 64  # of each size: SPARE_MOST in stream.c
BUFFERS_KEPT = 256  # EV_POOL_MOST in evloop's internal.h


@pytest.fixture
def spare(loop: Loop) -> Any:
    def count() -> int:
        return int(lib.evnet_spare_streams(loop.address))

    return count


def test_a_stream_that_has_ended_serves_the_next(loop: Loop, pair: Any, spare: Any) -> None:
    for _ in range(5):
        client, protocol = pair.connected()
        assert spare() == 0
        protocol.transport.write(b"hello")
        assert pair.read(client, 5) == b"hello"
        client.close()
        pair.until(lambda protocol=protocol: "lost" in protocol.calls)
        pair.turns()  # not before Python has seen its end
        assert spare() == 1


def test_so_many_are_kept(loop: Loop, pair: Any, spare: Any) -> None:
    everyone = [pair.connected() for _ in range(KEPT + 10)]
    for client, _ in everyone:
        client.close()
    pair.until(lambda: all("lost" in protocol.calls for _, protocol in everyone))
    pair.turns()
    assert spare() == KEPT
    again = [pair.connected() for _ in range(10)]
    assert spare() == KEPT - 10
    for client, protocol in again:
        assert protocol.calls == ["made"]  # nothing is left of who had the memory before
        protocol.transport.write(b"new")
        assert pair.read(client, 3) == b"new"


def test_what_is_written_is_queued_in_buffers_of_the_loop(loop: Loop, pair: Any) -> None:
    """They are back when it is sent, and the next write takes none from the system."""
    client, protocol = pair.connected()
    for number in range(3):
        protocol.transport.write(b"x" * 1000)
        assert len(pair.read(client, 1000)) == 1000
        stats = loop.stats()
        assert (stats.buffers_spare, stats.pool_misses, stats.pool_hits) == (1, 1, number)


def test_so_many_buffers_are_kept(loop: Loop, pair: Any) -> None:
    """The rest of what a slow reader has made us queue goes back to the system."""
    client, protocol = pair.connected(receive_buffer=4096)
    size = 20_000_000
    for _ in range(size // 2000):
        protocol.transport.write(b"x" * 2000)
    pair.until(lambda: "pause" in protocol.calls)
    assert loop.stats().pool_misses > BUFFERS_KEPT + 100
    assert len(pair.read(client, size)) == size
    pair.turns()
    assert loop.stats().buffers_spare == BUFFERS_KEPT


def test_what_is_read_lies_in_memory_of_the_loop(loop: Loop, pair: Any) -> None:
    """A connection has no buffer to read to: what all receive in a turn lies in one, of the loop, however many there are."""
    everyone = [pair.connected() for _ in range(200)]
    before = loop.stats()
    for size in (1000, 2000, 3000):
        for client, _ in everyone:
            client.sendall(b"x" * 1000)
        pair.until(lambda size=size: all(len(protocol.data) == size for _, protocol in everyone))
    after = loop.stats()
    assert after.arena_capacity == before.arena_capacity
    assert (after.pool_misses, after.pool_hits) == (before.pool_misses, before.pool_hits)
