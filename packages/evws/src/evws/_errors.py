"""The exceptions of evws.

::

    EvWsError(Exception)
    ├── ConnectionClosedError    our mistake: a send after the connection was closed or began to close
    ├── HandshakeError           from connect: the answer is no agreement to speak WebSocket
    │   └── HandshakeRefusedError    it is a refusal, with a status
    ├── PeerError                the peer's mistake, given to on_error: a frame that no peer may send
    └── QueueFullError           given to on_error: the peer takes too little of what is sent to it

What the operating system reports, and a peer that has gone silent, is an `OSError` (`TimeoutError`), given to on_error, or by
`connect`.
"""

from __future__ import annotations

from evhttp import Headers

__all__ = [
    "ConnectionClosedError",
    "EvWsError",
    "HandshakeError",
    "HandshakeRefusedError",
    "PeerError",
    "QueueFullError",
]


class EvWsError(Exception):
    """Root of what this package raises by itself."""


class ConnectionClosedError(EvWsError):
    """The connection is closing or closed; what was to be sent was not."""


class HandshakeError(EvWsError):
    """The server, or a proxy on the way to it, has not agreed to speak WebSocket as RFC 6455 §4.1 wants it."""


class HandshakeRefusedError(HandshakeError):
    """The server, or the proxy, has answered with another status than the one that was hoped for.

    Attributes:
        status: The status code.
        headers: The header fields of the answer.
        body: The body of the answer, or as much of it as came, at most 64 KiB.
    """

    def __init__(self, who: str, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(f"{who} answered with status {status}")
        self.status = status
        self.headers = headers
        self.body = body


class PeerError(EvWsError):
    """The peer broke a rule, and the connection has been failed (RFC 6455 §7.1.7).

    Attributes:
        code: The close code that the peer was told: 1002, 1007, 1009; or 1011 when memory was short.
        reason: What it did; nothing of the payload.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} (close code {code})")
        self.code = code
        self.reason = reason


class QueueFullError(EvWsError):
    """More was sent than ``max_queue_size`` allows to wait for the peer."""
