"""Listening sockets: made by Python's socket module, ready to be handed to C."""

from __future__ import annotations

import os
import socket
import sys

__all__ = ["bind_tcp"]


def bind_tcp(host: str | None, port: int, *, backlog: int = 1024, reuse_port: bool = False) -> list[socket.socket]:
    """Make a listening, non-blocking TCP socket for each address that ``host`` stands for.

    Args:
        host: A name or address; ``None`` or ``""`` means every interface.
        port: 0 lets the system choose; with several addresses all get the port of the first.
        backlog: Connections that the kernel may hold for us.
        reuse_port: Let other sockets, of other loops, listen on the same port; the kernel spreads the clients.

    Raises:
        OSError: The name is unknown or an address cannot be bound; the message names it. No socket is left open.
    """
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, proto, _, address in dict.fromkeys(infos):
            if port == 0 and sockets:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            sockets.append(_bind(socket.socket(family, kind, proto), address, backlog, reuse_port))
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def _bind(sock: socket.socket, address: tuple[object, ...], backlog: int, reuse_port: bool) -> socket.socket:
    try:
        sock.setblocking(False)
        if os.name == "posix" and sys.platform != "cygwin":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            # Two sockets, one per family, say clearly what is listened on.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Inherited by what is accepted: no system call per connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        # getaddrinfo's addresses are (host, port, ...)
        raise OSError(
            error.errno, f"cannot listen on {address[0]} port {address[1]}: {os.strerror(error.errno or 0)}"
        ) from None
    except BaseException:
        sock.close()
        raise
    return sock
