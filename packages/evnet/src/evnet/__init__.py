"""Byte streams on an `evloop.Loop`: connections that drive asyncio-style protocols, or native ones inside the turn."""

from __future__ import annotations

from pathlib import Path

from evnet._connection import Connection, StreamProtocol
from evnet._errors import ConnectionClosedError, EvNetError
from evnet._link import capi_address
from evnet._server import Server, listen_tcp
from evnet._sockets import bind_tcp
from evnet._version import __version__

__all__ = [
    "Connection",
    "ConnectionClosedError",
    "EvNetError",
    "Server",
    "StreamProtocol",
    "__version__",
    "bind_tcp",
    "capi_address",
    "get_include",
    "listen_tcp",
]


def get_include() -> str:
    """The folder with ``evnet.h``, for packages that compile against the C interface."""
    return str(Path(__file__).parent / "include")
