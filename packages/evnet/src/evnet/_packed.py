"""Addresses as C and Python pass them to each other (``shim.h``), and as tuples."""

from __future__ import annotations

import os
import socket
from struct import Struct
from typing import Any

__all__ = ["address_text", "pack_address", "unpack_address"]

_IP = Struct("=BxHII16s")
_PATH = Struct("=BxH")


def pack_address(family: int, address: Any) -> bytes:
    """Pack ``(host, port)``, ``(host, port, flow label, scope id)`` or the path of a unix socket.

    A host is numeric; with IPv6 it may carry its interface, as in ``fe80::1%eth0``.

    Raises:
        TypeError: Something else than these.
        ValueError: Not an address of this family, or a number out of range.
    """
    if family == socket.AF_UNIX:
        return _pack_path(address)
    if not isinstance(address, tuple) or not 2 <= len(address) <= (4 if family == socket.AF_INET6 else 2):
        raise TypeError(f"an address of this socket is {_shape(family)}, not {address!r}")
    host, port, flow, scope = (*address, 0, 0)[:4]
    if not isinstance(host, str) or not all(isinstance(number, int) for number in (port, flow, scope)):
        raise TypeError(f"an address of this socket is {_shape(family)}, not {address!r}")
    if not 0 < port <= 0xFFFF:
        raise ValueError(f"a port is a number from 1 to 65535, not {port}")
    if family == socket.AF_INET6 and "%" in host:
        host, _, interface = host.partition("%")
        scope = int(interface) if interface.isdecimal() else _index(interface)
    if not 0 <= flow <= 0xFFFFF or not 0 <= scope <= 0xFFFF_FFFF:
        raise ValueError(f"flow label or scope id out of range: {address!r}")
    try:
        ip = socket.inet_pton(family, host)
    except (OSError, ValueError):
        version = 6 if family == socket.AF_INET6 else 4
        raise ValueError(f"{host!r} is not a numeric IPv{version} address: resolve names first") from None
    return _IP.pack(6 if family == socket.AF_INET6 else 4, port, flow, scope, ip)


def unpack_address(packed: bytes) -> Any:
    """The address as the socket module gives it; ``None`` for a unix socket without a name.

    The scope of an IPv6 address is its fourth item, and is not repeated in the host.
    """
    if packed[0] == 0:
        path = packed[_PATH.size :]
        if path[:1] == b"\0":  # an abstract name
            return path
        return os.fsdecode(path.partition(b"\0")[0]) if path else None
    family, port, flow, scope, ip = _IP.unpack(packed)
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, ip[:4]), port
    return socket.inet_ntop(socket.AF_INET6, ip), port, flow, scope


def address_text(address: Any) -> str:
    """The address in words, for messages."""
    if isinstance(address, tuple):
        scope = f"%{address[3]}" if len(address) > 3 and address[3] else ""
        return f"{address[0]}{scope} port {address[1]}"
    return "an unnamed peer" if not address else str(address)


def _pack_path(address: Any) -> bytes:
    if not isinstance(address, (str, bytes, os.PathLike)):
        raise TypeError(f"an address of this socket is a path, not {address!r}")
    path = os.fsencode(address)
    # sun_path has 108 bytes on Linux and 104 elsewhere; C refuses what the kernel would, too.
    if not 0 < len(path) <= 104:
        raise ValueError(f"the path of a unix socket has 1 to 104 bytes, not {len(path)}")
    return _PATH.pack(0, len(path)) + path


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise ValueError(f"there is no interface {interface!r}") from None


def _shape(family: int) -> str:
    return "(host, port, flow label, scope id)" if family == socket.AF_INET6 else "(host, port)"
