"""How many bytes the streams of a loop have moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from evnet import _link as _link
from evnet._shim import ffi, lib

if TYPE_CHECKING:
    from evloop import Loop

__all__ = ["Traffic", "traffic"]


class Traffic(NamedTuple):
    """Bytes that the kernel has given to, and taken from, all streams of a loop since it was made; with TLS the encrypted ones."""

    received: int
    sent: int


def traffic(loop: Loop) -> Traffic:
    """What the streams of a loop have moved up to now, native ones and those of servers that are no more included; no datagrams.

    Raises:
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """
    counts = ffi.new("uint64_t[2]")
    lib.evnet_traffic(loop.address, counts, counts + 1)
    return Traffic(*counts)
