"""Keep-alive probes: how a peer that has vanished without a word is noticed."""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass

__all__ = ["KeepAlive"]

# What Linux takes at most for the times, in seconds, and for the count; other systems take no less.
_LONGEST, _MOST = 32767, 127
_IDLE: int = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE")  # noqa: B009 - macOS's name


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """When a silent peer is asked whether it is still there, and when it is given up (RFC 1122 §4.2.3.6).

    A peer that does not answer is noticed after ``idle + interval * count`` seconds; its connection is lost with ETIMEDOUT.
    The kernel does
    this by itself, and counts in whole seconds: parts are rounded up.

    Attributes:
        idle: Seconds without a byte from the peer until the first probe.
        interval: Seconds between two probes.
        count: Unanswered probes after which the connection is lost.

    Raises:
        ValueError: One of them is out of the range that the systems take.
    """

    idle: float = 60.0
    interval: float = 10.0
    count: int = 6

    def __post_init__(self) -> None:
        for name, value, most in (
            ("idle", self.idle, _LONGEST),
            ("interval", self.interval, _LONGEST),
            ("count", self.count, _MOST),
        ):
            if not 0 < value <= most:
                raise ValueError(f"keep_alive's {name} must be > 0 and at most {most}, not {value!r}")

    def apply(self, sock: socket.socket) -> None:
        """Set it on a TCP socket; what a listening one accepts inherits it. Raises: OSError."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _IDLE, math.ceil(self.idle))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, math.ceil(self.interval))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, math.ceil(self.count))
