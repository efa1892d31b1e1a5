"""The opening handshake, RFC 6455 §4: what a request must look like, and what is answered. No I/O."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from evws._extensions import Extension, read_extensions

__all__ = ["Offer", "Refusal", "accept_of", "answer_head", "choose_subprotocol", "is_allowed", "members", "read_offer"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
Origins = Sequence[str] | Callable[[str | None], bool] | None


class Fields(Protocol):
    """The header fields of a request: `evhttp.Headers`."""

    def get_all(self, name: str, /) -> list[str]: ...


class Offer(NamedTuple):
    """A handshake that is in order.

    Attributes:
        key: Of ``Sec-WebSocket-Key``, as it came.
        subprotocols: Those that the client speaks, the one it likes best first.
        origin: Of the page that asks; ``None`` where the client is no browser.
        extensions: Those that the client offers, the one it likes best first.
    """

    key: str
    subprotocols: list[str]
    origin: str | None
    extensions: list[Extension]


class Refusal(NamedTuple):
    """Why there is no WebSocket.

    Attributes:
        status: 400, or 426 for a client that does not ask for WebSocket, or not for this version of it.
        reason: For the client to read.
    """

    status: int
    reason: str


def members(fields: Fields, name: str) -> list[str]:
    """The members of a field that is a list (RFC 9110 §5.6.1)."""
    parts = (part.strip(" \t") for value in fields.get_all(name) for part in value.split(","))
    return [part for part in parts if part]


def read_offer(method: str, version: str, fields: Fields) -> Offer | Refusal:
    """Check a request as RFC 6455 §4.2.1 wants it. That there is one Host field has been checked by whoever parsed it."""
    if not any(name.lower() == "websocket" for name in members(fields, "upgrade")):
        return Refusal(426, "this is for WebSocket clients")
    if method != "GET" or version != "1.1":
        return Refusal(400, f"a WebSocket handshake is GET in HTTP/1.1, not {method[:20]} in HTTP/{version}")
    options = [name.lower() for name in members(fields, "connection")]
    if "upgrade" not in options or "close" in options:
        return Refusal(400, "expected Connection: Upgrade")
    versions = fields.get_all("sec-websocket-version")
    if versions != ["13"]:
        return Refusal(426, "expected Sec-WebSocket-Version: 13")
    keys = fields.get_all("sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        return Refusal(400, "expected one Sec-WebSocket-Key with 16 bytes in base64")
    origins = fields.get_all("origin")
    if len(origins) > 1:
        return Refusal(400, "expected at most one Origin")
    try:
        extensions = read_extensions(fields.get_all("sec-websocket-extensions"))
    except ValueError as error:
        return Refusal(400, str(error))
    subprotocols = members(fields, "sec-websocket-protocol")
    return Offer(keys[0], subprotocols, origins[0] if origins else None, extensions)


def _is_key(key: str) -> bool:
    try:
        return len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def accept_of(key: str) -> str:
    """The ``Sec-WebSocket-Accept`` for a key (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()).decode()


def choose_subprotocol(ours: Sequence[str], theirs: Iterable[str]) -> str | None:
    """The first of ours that the client speaks."""
    offered = set(theirs)
    return next((name for name in ours if name in offered), None)


def is_allowed(origin: str | None, origins: Origins) -> bool:
    """Whether a page of this origin may connect (RFC 6455 §10.2).

    Args:
        origin: ``None`` where there is none: such a client is no browser, and no list keeps it out.
        origins: ``None`` allows all; a list names those that are allowed; a function decides about all, ``None`` too.
    """
    if origins is None:
        return True
    if callable(origins):
        return bool(origins(origin))
    return origin is None or origin.lower() in origins


def answer_head(offer: Offer, subprotocol: str | None, extension: str | None, lines: bytes) -> bytes:
    """The 101, with header lines that somebody has added (RFC 6455 §4.2.2)."""
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_of(offer.key)}\r\n"
    )
    if subprotocol is not None:
        head += f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    if extension is not None:
        head += f"Sec-WebSocket-Extensions: {extension}\r\n"
    return head.encode("ascii") + lines + b"\r\n"
