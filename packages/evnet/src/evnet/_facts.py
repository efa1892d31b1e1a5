"""What can be known of a connection's socket, without owning it."""

from __future__ import annotations

import errno
import socket
import struct
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

import evloop
from evnet._shim import lib
from evnet._socketview import SocketView

if TYPE_CHECKING:
    from evnet._connection import Connection

__all__ = ["PeerCredentials", "extra_info", "keep_alive", "peer_name"]

_PEER = Struct("<BBH16s")
_LINK_LOCAL = b"\xfe\x80"


class PeerCredentials(NamedTuple):
    """Who has connected a unix socket, as the kernel knows it; ``pid`` is ``None`` where it does not tell."""

    pid: int | None
    uid: int
    gid: int


def _view(connection: Connection) -> SocketView:
    """The connection's socket. Raises OSError if the connection has ended, or is none of a socket."""

    def fileno() -> int:
        try:
            return lib.evnet_descriptor(connection._loop.address, connection._number())
        except evloop.LoopClosedError:
            return -1

    return SocketView.of(fileno)


def peer_name(peer: bytes) -> tuple[Any, ...] | None:
    """A ``struct net_address`` as asyncio gives addresses; ``None`` for one that says nothing."""
    family, _, port, ip = _PEER.unpack(peer)
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, ip[:4]), port
    if family == 6:
        return socket.inet_ntop(socket.AF_INET6, ip), port, 0, 0
    return None


def extra_info(connection: Connection, name: str) -> Any:
    """What `Connection.get_extra_info` knows, else ``None``."""
    if name == "peername":
        known = peer_name(connection._peer)
        # A link-local address says little without its scope, which is not in the record of an accepted connection.
        if known is not None and connection._peer[4:6] != _LINK_LOCAL:
            return known
        return _asked(connection, "getpeername", known)
    if name == "sockname":
        if connection._sockname is None:
            connection._sockname = _asked(connection, "getsockname", None)
        return connection._sockname
    if name == "socket":
        try:
            return _view(connection)
        except OSError:  # it has ended, or is no socket
            return None
    if name == "peercred":
        return _credentials(connection)
    return None if connection._tls is None else connection._tls.extra_info(name)


def _asked(connection: Connection, method: str, default: Any) -> Any:
    try:
        return getattr(_view(connection), method)()
    except OSError:
        return default


def _credentials(connection: Connection) -> PeerCredentials | None:
    try:
        sock = _view(connection)
        if sock.family != socket.AF_UNIX:
            return None
        if hasattr(socket, "SO_PEERCRED"):
            pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return PeerCredentials(pid, uid, gid)
        # struct xucred of the BSDs and macOS: version, uid, number of groups, groups; LOCAL_PEERCRED at level 0 is 1.
        _, uid, _, gid = struct.unpack_from("=IIhxxI", sock.getsockopt(0, 1, 76))
        return PeerCredentials(None, uid, gid)
    except OSError:
        return None


def keep_alive(connection: Connection, idle: float | None, interval: float | None, count: int | None) -> None:
    """Make the kernel probe a silent peer. Raises OSError."""
    sock = _view(connection)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # macOS calls the first of them TCP_KEEPALIVE.
    idle_option = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)
    for option, value in (
        (idle_option, idle),
        (getattr(socket, "TCP_KEEPINTVL", None), interval),
        (getattr(socket, "TCP_KEEPCNT", None), count),
    ):
        if value is not None:
            if option is None:
                raise OSError(errno.ENOPROTOOPT, "this system cannot set the times of keep-alive")
            sock.setsockopt(socket.IPPROTO_TCP, option, int(value))
