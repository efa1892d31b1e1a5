"""WebSocket (RFC 6455) on evhttp: a server, upgrades of HTTP requests, and the frame codec by itself. See `Server`."""

from __future__ import annotations

from evws import _link as _link
from evws._backoff import Backoff
from evws._broadcast import Group, broadcast
from evws._client import ClientWebSocket, Connecting, connect
from evws._clientele import Clientele
from evws._endpoint import upgrade
from evws._errors import (
    ConnectionClosedError,
    EvWsError,
    HandshakeError,
    HandshakeRefusedError,
    PeerError,
    QueueFullError,
)
from evws._extensions import Deflate
from evws._frames import CloseCode, Frame, FrameParser, Opcode, Violation, encode_close, encode_frame
from evws._limits import Limits
from evws._server import Server
from evws._socket import State, WebSocket
from evws._version import __version__

__all__ = [
    "Backoff",
    "ClientWebSocket",
    "Clientele",
    "CloseCode",
    "Connecting",
    "ConnectionClosedError",
    "Deflate",
    "EvWsError",
    "Frame",
    "FrameParser",
    "Group",
    "HandshakeError",
    "HandshakeRefusedError",
    "Limits",
    "Opcode",
    "PeerError",
    "QueueFullError",
    "Server",
    "State",
    "Violation",
    "WebSocket",
    "__version__",
    "broadcast",
    "connect",
    "encode_close",
    "encode_frame",
    "upgrade",
]
