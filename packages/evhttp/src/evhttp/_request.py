"""A request, as it lies in the arena: each property is cut out of it when it is asked for."""

from __future__ import annotations

import socket
from struct import Struct
from typing import TYPE_CHECKING, Any

from evhttp._fields import Headers, Query

if TYPE_CHECKING:
    from evloop import Record

__all__ = ["Request"]

# struct evh_head of request.c: fields, fields_len, body, body_len, target_len, port, version, family, ip, large_body
_HEAD = Struct("<IIIIIHBB16sQ")
_FIELDS = Struct("<II")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE")
_ABSOLUTE, _HTTP10 = 1 << 9, 1 << 10


class Request:
    """What a client asks for. It stays valid after the handler has returned. Thread safety: may be read from any thread."""

    __slots__ = ()  # only one base of Exchange can have some

    # Set one by one by Server, without a call: this happens for every request.
    _arena: bytes
    _record: Record  # target, offset, info, exchange: see request.c

    def _head(self) -> tuple[Any, ...]:
        return _HEAD.unpack_from(self._arena, self._record[1])

    @property
    def method(self) -> str:
        """The method, ``"GET"``; in capitals as methods are, since they are case-sensitive (RFC 9110 §9.1)."""
        method = self._record[2] & 0xFF
        if method < len(_METHODS):
            return _METHODS[method]
        head, offset = self._head(), self._record[1]
        return self._arena[offset + _HEAD.size + head[4] : offset + head[0]].decode("ascii")

    @property
    def target(self) -> str:
        """The request target as received, for example ``"/search?q=1"`` (RFC 9112 §3.2)."""
        start = self._record[1] + _HEAD.size
        return self._arena[start : start + self._head()[4]].decode("ascii")

    @property
    def path(self) -> str:
        """The target's path, percent-encoding left as it is: ``"/a%20b"``. It begins with ``/``, but for ``*`` and CONNECT."""
        _, offset, info, _ = self._record
        length = info >> 32
        if not length:
            return "/" if info & _ABSOLUTE else ""
        start = offset + (info >> 16 & 0xFFFF)
        return self._arena[start : start + length].decode("ascii")

    @property
    def query_string(self) -> str:
        """What follows the ``?`` of the target, undecoded; ``""`` when there is none."""
        _, offset, info, _ = self._record
        start = offset + (info >> 16 & 0xFFFF) + (info >> 32) + 1
        end = offset + _HEAD.size + self._head()[4]
        return self._arena[start:end].decode("ascii")

    @property
    def query(self) -> Query:
        """The parameters of the query string. Made anew at each use."""
        return Query(self.query_string)

    @property
    def headers(self) -> Headers:
        """The header fields. Made anew at each use, which costs little: nothing is parsed yet."""
        arena, offset = self._arena, self._record[1]
        start, length = _FIELDS.unpack_from(arena, offset)
        start += offset
        return Headers(arena, start, start + length)

    @property
    def body(self) -> bytes:
        """The request's body, decoded from chunks where it was chunked; ``b""`` when there is none."""
        head = self._head()
        start = self._record[1] + head[2]
        return self._arena[start : start + head[3]]

    @property
    def version(self) -> str:
        """``"1.1"`` or ``"1.0"``."""
        return "1.0" if self._record[2] & _HTTP10 else "1.1"

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port of the peer; ``None`` for a unix socket."""
        head = self._head()
        return address(head[7], head[8], head[5])


def address(family: int, ip: bytes, port: int) -> tuple[str, int] | None:
    """What a ``struct net_address`` says."""
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, ip[:4]), port
    if family == 6:
        return socket.inet_ntop(socket.AF_INET6, ip), port
    return None


def body_of(arena: bytes, offset: int) -> tuple[int, int, int]:
    """Of the request at ``offset``: the size of what comes before the body, the body's size, and the address of a large one."""
    head = _HEAD.unpack_from(arena, offset)
    return head[2], head[3], head[9]
