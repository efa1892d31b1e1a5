"""Hosts and ports that need nobody to look them up: addresses written in digits."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple, TypeAlias

__all__ = ["PROTOCOLS", "AddressInfo", "Infos", "Question", "answer_inline", "checked_port", "failure"]

AddressInfo: TypeAlias = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""As `socket.getaddrinfo` gives it: family, type, protocol, canonical name, address."""
Infos: TypeAlias = tuple[AddressInfo, ...]

PROTOCOLS: dict[int, int] = {socket.SOCK_STREAM: socket.IPPROTO_TCP, socket.SOCK_DGRAM: socket.IPPROTO_UDP}
# With these, the answer for an address in digits is that address.
_PLAIN_FLAGS = socket.AI_PASSIVE | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV | socket.AI_ADDRCONFIG
_DIGITS = frozenset("0123456789")


class Question(NamedTuple):
    """What is asked, in the order of `socket.getaddrinfo`'s arguments; equal questions get the same answer."""

    host: str | None
    port: int | str
    family: int
    type: int
    proto: int
    flags: int


def checked_port(port: int | str | None) -> int | str:
    """Return the number of a port, or the name of a service that somebody has to look up.

    Raises:
        ValueError: A number that no port has, or the empty string.
        TypeError: Neither a number nor a string.
    """
    if type(port) is not int:
        if port is None:
            return 0
        if isinstance(port, str):
            if not (port.isascii() and port.isdigit()):
                if not port or "\0" in port:
                    raise ValueError(f"a port must be a number or the name of a service, not {port!r}")
                return port
        elif not isinstance(port, int):
            raise TypeError(f"a port must be a number or the name of a service, not {port!r}")
        port = int(port)
    # getaddrinfo would take the number modulo 65536.
    if not 0 <= port <= 65535:
        raise ValueError(f"a port must be from 0 to 65535, not {port}")
    return port


def answer_inline(question: Question) -> Infos | None:
    """Answer without asking anybody, or return ``None`` if that cannot be.

    Answered are: an address in digits, with a scope id in digits or the name of an interface, and no host at all; each with a port
    in digits.

    Raises:
        socket.gaierror: The host is no address of that family, or cannot be anybody's name.
    """
    host, port, family, kind, proto, flags = question
    if host is not None and ":" not in host and host[-1] not in _DIGITS and not flags & socket.AI_NUMERICHOST:
        _refuse_nonsense(question, host)
        return None
    if type(port) is not int:
        return None
    found = None
    if host is not None:
        found = _address(host, port)
        if found is not None and family in (0, found[0]):
            protocol = PROTOCOLS.get(kind)
            if protocol is not None and proto in (0, protocol) and not flags & ~_PLAIN_FLAGS:
                return ((found[0], socket.SocketKind(kind), protocol, "", found[1]),)
        flags |= socket.AI_NUMERICHOST
    # What remains of digits is rare: several kinds of sockets, mapped addresses, 127.1. The system's resolver knows the rules, and
    # with AI_NUMERICHOST, or without a host, it asks nobody.
    try:
        return tuple(socket.getaddrinfo(host, port, family, kind, proto, flags))
    except (OSError, ValueError) as error:
        if host is not None and found is None and ":" not in host and not question.flags & socket.AI_NUMERICHOST:
            _refuse_nonsense(question, host)
            return None  # a name that ends in a digit
        raise failure(question, error) from None


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]] | None:
    try:
        if ":" not in host:
            socket.inet_pton(socket.AF_INET, host)
            return socket.AF_INET, (host, port)
        digits, percent, scope = host.partition("%")
        # In its usual form, as getaddrinfo gives it.
        digits = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, digits))
        return socket.AF_INET6, (digits, port, 0, _scope_id(scope) if percent else 0)
    except (OSError, ValueError):  # ValueError: a NUL, or what is not ASCII
        return None


def _scope_id(scope: str) -> int:
    if scope.isascii() and scope.isdigit():
        number = int(scope)
        if number >= 1 << 32:
            raise ValueError("a scope id has 32 bits")
        return number
    return socket.if_nametoindex(scope)


def _refuse_nonsense(question: Question, host: str) -> None:
    """Raise for what cannot be a name."""
    if "\0" in host:  # where the C library would take the name to end
        raise failure(question, socket.gaierror(socket.EAI_NONAME, "a host name has no NUL in it"))
    if not host.isascii() or len(host) > 63:
        try:
            host.encode("idna")
        except UnicodeError as error:
            raise failure(question, error) from None


def failure(question: Question, error: Exception) -> socket.gaierror:
    """Make the `socket.gaierror` that names what was asked."""
    code = error.errno if isinstance(error, socket.gaierror) and error.errno is not None else socket.EAI_NONAME
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return socket.gaierror(code, f"cannot resolve host {question.host!r} port {question.port!r}: {reason}")
