"""Datagram sockets, made by Python's socket module and handed to C."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from evnet._datagrams import DatagramProtocol, DatagramTransport
from evnet._literal import Question, answer_inline, checked_port
from evnet._packed import address_text

if TYPE_CHECKING:
    from evloop import Loop

__all__ = ["bind_udp", "connect_udp", "open_datagram"]

_MAX_DATAGRAM = 65536  # more than UDP can carry
_MAX_QUEUED = 1 << 20
_FAMILIES = tuple(getattr(socket, name) for name in ("AF_INET", "AF_INET6", "AF_UNIX") if hasattr(socket, name))

# Options of evnet_udp_open for every socket; a test sets what would be used on a system without batches.
_calls = 0


def bind_udp(
    loop: Loop,
    protocol_factory: Callable[[], DatagramProtocol],
    host: str | None,
    port: int,
    *,
    reuse_port: bool = False,
    reuse_address: bool = False,
    broadcast: bool = False,
    dual_stack: bool = False,
    max_datagram_size: int = _MAX_DATAGRAM,
    max_queued_size: int = _MAX_QUEUED,
) -> DatagramTransport:
    """Receive datagrams from everywhere, and send to any address.

    ``connection_made`` is called before this returns. From then on ``datagram_received(data, addr)`` is called for each datagram,
    and ``error_received`` with an `OSError` for what was not received or did not arrive: a datagram longer than
    ``max_datagram_size``, which is not delivered (``EMSGSIZE``), and one that could not be sent (``EMSGSIZE``, ``EACCES``, ...); on
    Linux also what the network says of a datagram, with the address that it was sent to (``ECONNREFUSED``, ``EHOSTUNREACH``, ...).

    Args:
        loop: The loop that serves the socket.
        protocol_factory: Called without arguments; its result has the methods of `asyncio.DatagramProtocol`.
        host: An address in digits. Names are refused, since to look one up here would block the loop: see `resolve`.
            ``None`` or ``""`` means every interface, of IPv4 and IPv6 with ``dual_stack``, else of IPv4.
        port: 0 lets the system choose; see ``get_extra_info("sockname")``.
        reuse_port: Let sockets of other loops receive on the same port; the system spreads the senders over them.
        reuse_address: Let other sockets bind the same port at the same time, each of which receives what is sent to a multicast
            group that it is in (of a unicast datagram only one of them gets anything).
        broadcast: Allow sending to broadcast addresses.
        dual_stack: Let an IPv6 socket take IPv4 datagrams, too; their addresses look like ``::ffff:192.0.2.1``.
        max_datagram_size: Bytes; longer datagrams are reported and not delivered. By default none is too long.
        max_queued_size: Bytes that may wait while the system takes no more; datagrams beyond are dropped and counted.

    Returns:
        The transport: see `DatagramTransport`. What ``connection_made`` raises is raised here, and the socket closed.

    Raises:
        OSError: The address cannot be bound; the message names it.
        ValueError: ``host`` is a name, a size is not positive, or a port out of range.
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """
    if not host:
        host = "::" if dual_stack else "0.0.0.0"  # what None is documented to mean
    family, address = _address(host, port, socket.AF_INET6 if dual_stack else socket.AF_UNSPEC)
    sock = _new_socket(family)
    try:
        if reuse_address:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # On the BSDs and macOS only this one lets several sockets have a multicast port.
        if reuse_port or (reuse_address and sys.platform != "linux"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if broadcast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual_stack))
        _bind(sock, address)
        return open_datagram(
            loop, protocol_factory, sock, max_datagram_size=max_datagram_size, max_queued_size=max_queued_size
        )
    except BaseException:
        sock.close()
        raise


def connect_udp(
    loop: Loop,
    protocol_factory: Callable[[], DatagramProtocol],
    host: str,
    port: int,
    *,
    local_addr: tuple[str, int] | None = None,
    broadcast: bool = False,
    max_datagram_size: int = _MAX_DATAGRAM,
    max_queued_size: int = _MAX_QUEUED,
) -> DatagramTransport:
    """Exchange datagrams with one address only. ``sendto(data)`` needs no address, and others' datagrams are not received.

    Nothing is sent, so that an address where nobody listens is found out by ``error_received`` only (``ECONNREFUSED``), after a
    datagram was sent there.

    Args:
        loop: The loop that serves the socket.
        protocol_factory: As for `bind_udp`.
        host: An address in digits; names are refused as by `bind_udp`.
        port: Of the peer.
        local_addr: Address in digits and port to send from; by default the system chooses.
        broadcast: Allow a broadcast address as the peer.
        max_datagram_size: As for `bind_udp`.
        max_queued_size: As for `bind_udp`.

    Raises:
        OSError: ``local_addr`` cannot be bound, or there is no route; the message names the address.
        ValueError: A host is a name, a size is not positive, or a port out of range.
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """
    family, address = _address(host, port)
    sock = _new_socket(family)
    try:
        if broadcast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if local_addr is not None:
            _bind(sock, _address(*local_addr, family)[1])
        try:
            sock.connect(address)
        except OSError as error:
            raise _named(error, "connect a datagram socket to", address) from None
        return open_datagram(
            loop, protocol_factory, sock, max_datagram_size=max_datagram_size, max_queued_size=max_queued_size
        )
    except BaseException:
        sock.close()
        raise


def open_datagram(
    loop: Loop,
    protocol_factory: Callable[[], DatagramProtocol],
    sock: socket.socket,
    *,
    max_datagram_size: int = _MAX_DATAGRAM,
    max_queued_size: int = _MAX_QUEUED,
) -> DatagramTransport:
    """Serve a datagram socket that was made elsewhere: inherited, a unix socket, or one with unusual options.

    Args:
        loop: The loop that serves the socket.
        protocol_factory: As for `bind_udp`.
        sock: Of IPv4, IPv6 or unix, bound or connected as wanted. The transport takes it over: it is detached.
        max_datagram_size: As for `bind_udp`.
        max_queued_size: As for `bind_udp`.

    Raises:
        ValueError: Not a datagram socket of these families, or a size is not positive. The socket stays the caller's.
        OSError: The loop cannot watch it.
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """
    if sock.type != socket.SOCK_DGRAM or sock.family not in _FAMILIES:
        raise ValueError(f"a datagram socket of IPv4, IPv6 or unix was expected, not {sock!r}")
    for name, size in (("max_datagram_size", max_datagram_size), ("max_queued_size", max_queued_size)):
        if not size > 0:
            raise ValueError(f"{name} must be a number of bytes > 0, not {size!r}")
    loop.address  # noqa: B018 - raises before anything is made
    protocol = protocol_factory()
    sock.setblocking(False)
    transport = DatagramTransport(
        loop, protocol, sock, min(max_datagram_size, _MAX_DATAGRAM), min(max_queued_size, sys.maxsize), _calls
    )
    try:
        protocol.connection_made(transport)
    except BaseException:
        transport.abort()
        raise
    return transport


def _address(host: str, port: int, family: int = socket.AF_UNSPEC) -> tuple[socket.AddressFamily, Any]:
    question = Question(host, checked_port(port), family, socket.SOCK_DGRAM, 0, 0)
    found = answer_inline(question) if host else None
    if found is None:
        raise ValueError(
            f"host and port must be an address and a number, not {host!r} and {port!r}: "
            "names are looked up by evnet.resolve, which does not block the loop"
        )
    return socket.AddressFamily(found[0][0]), found[0][4]


def _new_socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    return sock


def _bind(sock: socket.socket, address: Any) -> None:
    try:
        sock.bind(address)
    except OSError as error:
        raise _named(error, "bind", address) from None


def _named(error: OSError, verb: str, address: Any) -> OSError:
    number = error.errno or 0
    return OSError(number, f"cannot {verb} {address_text(address)}: {os.strerror(number)}")
