"""Listening TCP sockets: made by Python's socket module, ready to be handed to C."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence

from evnet._keepalive import KeepAlive

__all__ = ["bind_tcp", "check_backlog", "close_sockets", "detach_opened", "inherit_sockets"]

_Address = tuple[str, int] | tuple[str, int, int, int]

# Chosen for the first address, a port may be taken at the second: another one is tried.
_PORTS_TRIED = 16
# A machine without IPv6 has names, like localhost, that stand for IPv6 addresses all the same; and a name may stand for addresses
# of which this machine has only some.
_NOT_HERE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def bind_tcp(
    host: str | Iterable[str | None] | None,
    port: int,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    dual_stack: bool = False,
    keep_alive: KeepAlive | None = None,
) -> list[socket.socket]:
    """Make a listening, non-blocking TCP socket for each address that ``host`` stands for. Names are looked up here and now.

    Args:
        host: A name or address, or several; ``None`` or ``""`` means every interface. Addresses of a name that this machine does
            not have, like all of IPv6 on some, are passed over if there is another.
        port: 0 lets the system choose; with several addresses all get the same one.
        backlog: Connections that the kernel may hold for us; it may allow fewer (Linux: ``net.core.somaxconn``).
        reuse_port: Let other sockets, of other loops, listen on the same port; the kernel spreads the clients.
        dual_stack: One IPv6 socket for both families, instead of two; ``host`` must be every interface. IPv4 only on a machine
            without IPv6.
        keep_alive: Probes for silent peers, on each connection.

    Raises:
        OSError: The name is unknown (`socket.gaierror`) or an address cannot be bound; the message names it. No socket is left
            open.
        ValueError: A number is out of its range, ``host`` is an empty list or no name at all, or does not fit ``dual_stack``.
        TypeError: Something else than a string, or a port that is no integer.
    """
    if not isinstance(port, int):
        raise TypeError(f"port must be an integer, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 to 65535, not {port}")
    check_backlog(backlog)
    hosts = [host] if host is None or isinstance(host, str) else list(host)
    if not hosts:
        raise ValueError("no host to listen on: the list is empty")
    groups = [list(_addresses(each, port, dual_stack)) for each in hosts]
    for _ in range(_PORTS_TRIED - 1):
        try:
            return _bind_all(groups, backlog, reuse_port, dual_stack, keep_alive)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    return _bind_all(groups, backlog, reuse_port, dual_stack, keep_alive)


def check_backlog(backlog: int) -> None:
    """Raise ValueError for a number that no system can take."""
    if not 1 <= backlog <= 0x7FFF_FFFF:
        raise ValueError(f"backlog must be from 1 to {0x7FFF_FFFF}, not {backlog!r}")


def close_sockets(sockets: Iterable[socket.socket]) -> None:
    """Close them all."""
    for sock in sockets:
        sock.close()


def inherit_sockets(
    sock: socket.socket | int | Iterable[socket.socket | int],
    *,
    backlog: int = 1024,
    keep_alive: KeepAlive | None = None,
) -> list[socket.socket]:
    """Make sockets that somebody else has bound ready for a server: listening, non-blocking, not inherited by child processes.

    Args:
        sock: A bound TCP or unix stream socket, or its descriptor, or several.
        backlog: For sockets that do not listen yet.
        keep_alive: Probes for silent peers, on each connection.

    Returns:
        A socket object for each: the one given, or one that has the given descriptor and closes it.

    Raises:
        OSError: A descriptor is not open, or not a socket that can listen; the message names it.
        ValueError: A descriptor is negative, the list is empty, or a number is out of its range.
        Whatever is raised, the sockets stay the caller's.
    """
    check_backlog(backlog)
    given = [sock] if isinstance(sock, (socket.socket, int)) else list(sock)
    if not given:
        raise ValueError("no socket to listen on: the list is empty")
    sockets: list[socket.socket] = []
    try:
        for each in given:
            sockets.append(_opened(each))
            _prepare(sockets[-1], backlog, keep_alive)
    except BaseException:
        detach_opened(given, sockets)
        raise
    return sockets


def detach_opened(given: Sequence[socket.socket | int], sockets: Sequence[socket.socket]) -> None:
    """Leave the descriptors of ``given`` to the caller, when ``sockets`` were made of them and are not wanted."""
    for each, made in zip(given, sockets, strict=False):
        if made is not each:
            made.detach()


def _opened(sock: socket.socket | int) -> socket.socket:
    if isinstance(sock, socket.socket):
        return sock
    if sock < 0:
        raise ValueError(f"a descriptor must be >= 0, not {sock}")
    try:
        return socket.socket(fileno=sock)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on descriptor {sock}: {error.strerror}") from None


def _prepare(sock: socket.socket, backlog: int, keep_alive: KeepAlive | None) -> None:
    number = sock.fileno()
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise OSError(errno.EOPNOTSUPP, f"cannot listen on descriptor {number}: it is not a TCP or unix stream socket")
    try:
        sock.setblocking(False)
        sock.set_inheritable(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if keep_alive is not None:
                keep_alive.apply(sock)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.listen(backlog)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on descriptor {number}: {error.strerror}") from None


def _addresses(host: str | None, port: int, dual_stack: bool) -> Iterator[tuple[int, _Address]]:
    """What a host stands for, as family and address."""
    if not (host is None or isinstance(host, str)):
        raise TypeError(f"a host must be a string or None, not {host!r}")
    if host and "\0" in host:  # where C would see its end
        raise ValueError(f"{host!r} is not a host name: it has a null character")
    if dual_stack:
        if host not in (None, "", "::"):
            raise ValueError(f"dual_stack listens on every interface: host must be None or '::', not {host!r}")
        yield socket.AF_INET6, ("::", port, 0, 0)
        yield socket.AF_INET, ("0.0.0.0", port)  # only where there is no IPv6
        return
    try:
        infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:
        raise UnicodeError(f"{host!r} is not a host name: {error}") from None
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"cannot listen on {host!r}: {error.strerror}") from None
    for family, _, _, _, address in infos:
        yield family, address  # type: ignore[misc]  # typeshed: also what a Python without IPv6 gives


def _bind_all(
    groups: list[list[tuple[int, _Address]]],
    backlog: int,
    reuse_port: bool,
    dual_stack: bool,
    keep_alive: KeepAlive | None,
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    seen: set[tuple[int, _Address]] = set()
    try:
        for addresses in groups:
            bound, absent = 0, None
            for family, address in addresses:
                if (family, address) in seen:  # two names for one address
                    bound += 1
                    continue
                real = address
                if address[1] == 0 and sockets:
                    real = (address[0], sockets[0].getsockname()[1], *address[2:])
                try:
                    sockets.append(_bind(family, real, backlog, reuse_port, dual_stack, keep_alive))
                except OSError as error:
                    if error.errno not in _NOT_HERE:
                        raise
                    absent = error
                else:
                    bound += 1
                    seen.add((family, address))
                    if dual_stack:
                        break
            if not bound and absent is not None:
                raise absent
    except BaseException:
        close_sockets(sockets)
        raise
    return sockets


def _bind(
    family: int, address: _Address, backlog: int, reuse_port: bool, dual_stack: bool, keep_alive: KeepAlive | None
) -> socket.socket:
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if os.name == "posix" and sys.platform != "cygwin":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Unless asked otherwise: two sockets, one per family, say clearly what is listened on.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        # Inherited by what is accepted: no system call per connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if keep_alive is not None:
            keep_alive.apply(sock)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise OSError(
            error.errno, f"cannot listen on {address[0]} port {address[1]}: {os.strerror(error.errno or 0)}"
        ) from None
    except BaseException:
        if sock is not None:
            sock.close()
        raise
    return sock
