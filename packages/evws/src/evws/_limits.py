"""What a peer may ask of us, and how long we wait for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from struct import Struct
from typing import Literal

__all__ = ["Limits"]

_OPTIONS = Struct("<QQQIIIIII")  # struct evw_options of shim.h
_SIZE_MOST = 2**63 - 1
_DROP = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on messages and on patience. Sizes are bytes, times are seconds, and each is exact: n passes, n + 1 does not.

    Attributes:
        max_message_size: A message, all its fragments together. Beyond: the connection is failed with code 1009.
        max_frame_size: One frame of a message; ``None``: as ``max_message_size``. Beyond: 1009.
        max_queue_size: What has been sent and the kernel has not taken, because the peer reads too slowly. An empty queue takes a
            message of any size.
        when_full: What happens to a message beyond that: ``"close"`` aborts the connection, ``"drop"`` drops the message and counts
            it in `WebSocket.dropped`.
        ping_interval: Between the pings that keep a connection alive and measure its latency.
        ping_timeout: From such a ping to its pong, or to anything else that comes from the peer. Beyond: the connection is aborted.
        idle_timeout: Without a message in either direction. Beyond: a Close with code 1001.
        close_timeout: From our Close to the peer's. Beyond: the connection is aborted.
        write_timeout: While the peer takes nothing of what is sent. Beyond: the connection is aborted.

    A timeout of ``math.inf`` means none, a ``ping_interval`` of ``math.inf`` no pings.

    Raises:
        ValueError: A bound is not a positive number, or ``when_full`` is neither; the message names it.
    """

    max_message_size: int = 1 << 20
    max_frame_size: int | None = None
    max_queue_size: int = 16 << 20
    when_full: Literal["close", "drop"] = "close"
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    idle_timeout: float = math.inf
    close_timeout: float = 10.0
    write_timeout: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_size") and value is not None:
                if not isinstance(value, int) or not 1 <= value <= _SIZE_MOST:
                    raise ValueError(f"{field.name} must be an integer from 1 to 2**63 - 1, not {value!r}")
            elif field.name.endswith(("_timeout", "_interval")) and not value > 0:
                raise ValueError(f"{field.name} must be a number of seconds > 0, not {value!r}")
        if self.when_full not in ("close", "drop"):
            raise ValueError(f"when_full must be 'close' or 'drop', not {self.when_full!r}")

    def pack(self, flags: int) -> bytes:
        """The ``struct evw_options`` of a connection."""
        return _OPTIONS.pack(
            self.max_message_size if self.max_frame_size is None else self.max_frame_size,
            self.max_message_size,
            self.max_queue_size,
            *map(
                _milliseconds,
                (self.ping_interval, self.ping_timeout, self.idle_timeout, self.close_timeout, self.write_timeout),
            ),
            flags | (_DROP if self.when_full == "drop" else 0),
        )


def _milliseconds(seconds: float) -> int:
    return 0 if seconds == math.inf else math.ceil(min(seconds * 1000, 0xFFFF_FFFF))
