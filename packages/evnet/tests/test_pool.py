"""Memory of what has ended serves what comes: streams, the buffers of reads, the segments of write queues."""

from __future__ import annotations

from typing import Any

import pytest

from evloop import Loop
from evnet._shim import lib

KEPT = 64  # of each size: SPARE_MOST in stream.c


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
    for _ in range(3):
        protocol.transport.write(b"x" * 1000)
        assert len(pair.read(client, 1000)) == 1000
        assert loop.stats().buffers_spare == 1
