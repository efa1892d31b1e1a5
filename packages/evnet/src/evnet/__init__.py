"""Byte streams on an `evloop.Loop`: connections that drive asyncio-style protocols, or native ones inside the turn."""

from __future__ import annotations

from pathlib import Path

from evnet._connect import connect_tcp
from evnet._connect_unix import connect_unix
from evnet._connecting import Connecting
from evnet._connection import BufferedStreamProtocol, Connection, StreamProtocol, broadcast
from evnet._datagrams import DatagramProtocol, DatagramStats, DatagramTransport
from evnet._errors import ConnectionClosedError, EvNetError, WriteQueueFullError
from evnet._facts import PeerCredentials
from evnet._keepalive import KeepAlive
from evnet._link import capi_address
from evnet._listen import listen_socket, listen_tcp, listen_unix
from evnet._pending import Pending
from evnet._resolve import AddressInfo, Lookup, Resolver, ResolverBackend, resolve
from evnet._resolve_cares import CaresBackend
from evnet._server import Server, ServerStats
from evnet._sockets import bind_tcp, inherit_sockets
from evnet._socketview import SocketView
from evnet._streams import Stream, open_stream, stream_pair
from evnet._systemd import ListenFd, listen_fds
from evnet._tls import TlsAcceptor
from evnet._traffic import Traffic, traffic
from evnet._udp import bind_udp, connect_udp, open_datagram
from evnet._unix import SocketFile, bind_unix
from evnet._version import __version__

__all__ = [
    "AddressInfo",
    "BufferedStreamProtocol",
    "CaresBackend",
    "Connecting",
    "Connection",
    "ConnectionClosedError",
    "DatagramProtocol",
    "DatagramStats",
    "DatagramTransport",
    "EvNetError",
    "KeepAlive",
    "ListenFd",
    "Lookup",
    "PeerCredentials",
    "Pending",
    "Resolver",
    "ResolverBackend",
    "Server",
    "ServerStats",
    "SocketFile",
    "SocketView",
    "Stream",
    "StreamProtocol",
    "TlsAcceptor",
    "Traffic",
    "WriteQueueFullError",
    "__version__",
    "bind_tcp",
    "bind_udp",
    "bind_unix",
    "broadcast",
    "capi_address",
    "connect_tcp",
    "connect_unix",
    "connect_udp",
    "get_include",
    "inherit_sockets",
    "listen_fds",
    "listen_socket",
    "listen_tcp",
    "listen_unix",
    "open_datagram",
    "open_stream",
    "resolve",
    "stream_pair",
    "traffic",
]


def get_include() -> str:
    """The folder with ``evnet.h``, for packages that compile against the C interface."""
    return str(Path(__file__).parent / "include")
