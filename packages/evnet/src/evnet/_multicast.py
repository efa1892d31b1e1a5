"""Multicast: the groups that a datagram socket is in, and how it sends to them."""

from __future__ import annotations

import os
import socket
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evnet._socketview import SocketView

__all__ = ["Multicast"]

_MREQN = Struct("@4s4si")
_MREQ6 = Struct("@16sI")


class Multicast:
    """The methods of a `DatagramTransport` that have to do with multicast. Thread safety: loop thread only.

    An interface is named (``"eth0"``) or numbered; ``None`` lets the system choose by its routes.

    Each raises ``OSError`` when the system refuses, and ``ValueError`` for a group that is no multicast address of the socket's
    family or an interface that there is not; the message names the group or interface.
    """

    __slots__ = ()

    def join_group(self, group: str, interface: str | int | None = None) -> None:
        """Receive what is sent to ``group``. Source: RFC 1112, RFC 3493 §5.2."""
        self._membership("join", group, interface)

    def leave_group(self, group: str, interface: str | int | None = None) -> None:
        """Receive it no more; the socket leaves its groups by itself when it closes."""
        self._membership("leave", group, interface)

    def set_multicast_ttl(self, hops: int) -> None:
        """How many routers what is sent to a group may pass, 0 to 255; the system's default is 1: none."""
        if not 0 <= hops <= 255:
            raise ValueError(f"a number of hops is 0 to 255, not {hops!r}")
        self._set_multicast("IP_MULTICAST_TTL", "IPV6_MULTICAST_HOPS", hops)

    def set_multicast_loop(self, enabled: bool) -> None:
        """Whether members on this machine receive what this socket sends to a group; the system's default is yes."""
        self._set_multicast("IP_MULTICAST_LOOP", "IPV6_MULTICAST_LOOP", int(enabled))

    def set_multicast_interface(self, interface: str | int | None) -> None:
        """Through which interface what is sent to a group leaves."""
        index = _index(interface)
        self._set_multicast("IP_MULTICAST_IF", "IPV6_MULTICAST_IF", index, _MREQN.pack(bytes(4), bytes(4), index))

    def _view(self) -> SocketView:
        raise NotImplementedError  # DatagramTransport has one

    def _membership(self, verb: str, group: str, interface: str | int | None) -> None:
        view = self._view()
        index = _index(interface)
        packed = _group(view.family, group)
        if view.family == socket.AF_INET6:
            option = socket.IPV6_JOIN_GROUP if verb == "join" else socket.IPV6_LEAVE_GROUP
            level, value = socket.IPPROTO_IPV6, _MREQ6.pack(packed, index)
        else:
            option = socket.IP_ADD_MEMBERSHIP if verb == "join" else socket.IP_DROP_MEMBERSHIP
            level, value = socket.IPPROTO_IP, _MREQN.pack(packed, bytes(4), index)
        try:
            view.setsockopt(level, option, value)
        except OSError as error:
            where = f" on interface {interface}" if interface is not None else ""
            why = os.strerror(error.errno or 0)
            raise OSError(error.errno, f"cannot {verb} group {group}{where}: {why}") from None

    def _set_multicast(self, option4: str, option6: str, value: int, value4: bytes | None = None) -> None:
        view = self._view()
        if view.family == socket.AF_INET6:
            view.setsockopt(socket.IPPROTO_IPV6, getattr(socket, option6), value)
        elif view.family == socket.AF_INET:
            view.setsockopt(socket.IPPROTO_IP, getattr(socket, option4), value if value4 is None else value4)
        else:
            raise ValueError("a unix socket knows no multicast")


def _group(family: int, group: str) -> bytes:
    try:
        packed = socket.inet_pton(family, group)
    except (OSError, ValueError):
        packed = b""
    if not packed or (packed[0] != 0xFF if family == socket.AF_INET6 else packed[0] >> 4 != 0xE):
        version = " IPv6" if family == socket.AF_INET6 else " IPv4" if family == socket.AF_INET else ""
        raise ValueError(f"{group!r} is no{version} multicast address that this socket can use")
    return packed


def _index(interface: str | int | None) -> int:
    if interface is None:
        return 0
    try:
        if isinstance(interface, int):
            socket.if_indextoname(interface)
            return interface
        return socket.if_nametoindex(interface)
    except (OSError, OverflowError):
        raise ValueError(f"there is no interface {interface!r}") from None
