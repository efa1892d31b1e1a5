"""How connections end, and the log that says whose they were."""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

from evhttp._request import address, connection_of

if TYPE_CHECKING:
    from evloop import Record

__all__ = ["CAUSES", "ConnectionEnd", "NamedLog", "ServerLog", "cause_of", "end_from"]

_END = Struct("<BBH16sIi")  # struct evh_end of conn.c
# In the order of EVH_END_* of shim.h. Clients that come and go are nothing to look at; the others may be.
CAUSES = {
    "by_us": logging.DEBUG,
    "by_client": logging.DEBUG,
    "timed_out": logging.INFO,
    "protocol_violated": logging.INFO,
    "lost": logging.INFO,
    "too_much_queued": logging.INFO,
}
_NAMES = tuple(CAUSES)
_CAUSE_OF = {0: "by_us", -1: "by_client", -2: "timed_out", -3: "too_much_queued"}  # evnet.h, NET_*


@dataclass(frozen=True, slots=True)
class ConnectionEnd:
    """Why a connection has ended.

    Attributes:
        cause: ``"by_us"``: the server closed it, as it or the client had announced. ``"by_client"``: the client did.
            ``"timed_out"``: a deadline of `Limits` passed. ``"protocol_violated"``: a request was refused. ``"lost"``: the
            network or the client's system broke it off; ``error`` says how. ``"too_much_queued"``: more was written to it
            than its cap allows.
        client: Address and port; ``None`` for a unix socket.
        requests: How many were taken on it.
        error: What the system said, with ``"lost"``.
        connection_id: Which it was; see `Request.connection_id`.
    """

    cause: str
    client: tuple[str, int] | None
    requests: int
    error: OSError | None
    connection_id: int = 0

    @property
    def level(self) -> int:
        """The level of `logging` that fits it."""
        return CAUSES[self.cause]

    def __str__(self) -> str:
        client = self.client[0] if self.client else "-"
        why = f" ({self.error.strerror})" if self.error else ""
        return f"connection of {client} ended after {self.requests} requests: {self.cause}{why}"


def end_from(arena: bytes, record: Record) -> ConnectionEnd:
    """What a record for end_target says (shim.h)."""
    _, offset, cause, token = record
    family, _, port, ip, requests, error = _END.unpack_from(arena, offset)
    reason = OSError(error, os.strerror(error)) if error else None
    return ConnectionEnd(_NAMES[cause], address(family, ip, port), requests, reason, connection_of(token))


def cause_of(code: int) -> str:
    """What a cause of evnet's is called here."""
    return _CAUSE_OF.get(code, "lost")


class ServerLog(Protocol):
    """What a server logs with: a `logging.Logger` or `logging.LoggerAdapter`, or another object with these methods of theirs."""

    def isEnabledFor(self, level: int, /) -> bool: ...
    def log(self, level: int, message: Any, /, *args: object) -> None: ...
    def warning(self, message: Any, /, *args: object) -> None: ...
    def error(self, message: Any, /, *args: object) -> None: ...
    def exception(self, message: Any, /, *args: object) -> None: ...


class NamedLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records begin with the server's name, if it has one, and carry it as ``server``."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """See `logging.LoggerAdapter`."""
        name = self.extra["server"] if self.extra else ""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "server": name}
        return (f"{name}: {msg}" if name else msg), kwargs
