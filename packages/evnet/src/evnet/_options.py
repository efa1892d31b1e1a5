"""What a stream begins with."""

from __future__ import annotations

import math
from operator import index
from typing import Any

from evnet import _link as _link
from evnet._shim import ffi

__all__ = ["HIGH_WATER", "MAX_QUEUED", "SOCKET", "milliseconds", "stream_options", "water"]

HIGH_WATER = 64 * 1024
MAX_QUEUED = 64 * 1024 * 1024

SOCKET, PIPE = 0, 1  # enum net_descriptor

_MOST = 0xFFFF_FFFF_FFFF_FFFF  # bytes; what C can count


def stream_options(
    *,
    idle_timeout: float | None = None,
    write_timeout: float | None = None,
    high: int | None = None,
    low: int | None = None,
    max_queued: int | None = MAX_QUEUED,
    kind: int = SOCKET,
    one_way: int = 0,
) -> Any:
    """Make a ``struct evnet_options`` (``shim.h``), for `Connection` objects that begin.

    Args:
        idle_timeout: Seconds without a byte in either direction after which a connection is aborted; ``None``: never.
        write_timeout: Seconds after which one is aborted whose peer takes nothing of what is queued; ``None``: never.
        high: See `Connection.set_write_buffer_limits`.
        low: The same.
        max_queued: Bytes of memory, not of files. A connection that has more queued when something more is written is aborted with
            `WriteQueueFullError`; ``None``: no limit. One write alone may be longer.
        kind: ``SOCKET`` or ``PIPE``.
        one_way: 0, or 1 for a descriptor that can only be read, or 2 for one that can only be written.

    Raises:
        ValueError: A number is out of its range; the message names it.
        TypeError: A number of bytes is no integer.
    """
    high, low = water(high, low)
    if max_queued is not None and not index(max_queued) > 0:
        raise ValueError(f"max_queued must be a number of bytes > 0, not {max_queued!r}")
    fields = {
        "idle_timeout_ms": milliseconds("idle_timeout", idle_timeout),
        "write_timeout_ms": milliseconds("write_timeout", write_timeout),
        "high_water": high,
        "low_water": low,
        "max_queued": min(max_queued or 0, _MOST),
        "kind": kind,
        "one_way": one_way,
    }
    return ffi.new("struct evnet_options *", fields)


def milliseconds(name: str, timeout: float | None) -> int:
    """A timeout as C takes it: ``None`` and infinity are 0. Raises ValueError for what is not positive."""
    if timeout is None:
        return 0
    if not timeout > 0:
        raise ValueError(f"{name} must be a number of seconds > 0, not {timeout!r}")
    return 0 if timeout == math.inf else math.ceil(min(timeout * 1000, 0xFFFF_FFFF))


def water(high: int | None, low: int | None) -> tuple[int, int]:
    """Both limits of a write queue, with asyncio's defaults for what is ``None``. More than C can count is as much as it can.

    Raises:
        ValueError: Not ``high >= low >= 0``; as in asyncio.
        TypeError: They are no integers.
    """
    if high is None:
        high = HIGH_WATER if low is None else 4 * low
    if low is None:
        low = high // 4
    if not index(high) >= index(low) >= 0:
        raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
    return min(high, _MOST), min(low, _MOST)
