"""The opening handshake from the client's side, RFC 6455 §4.1: what is asked, and what an answer must look like. No I/O."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from evws._errors import HandshakeError
from evws._extensions import Agreed, Deflate, check_answer
from evws._handshake import Fields, accept_of, members
from evws._url import Target

__all__ = [
    "HeaderFields",
    "check_agreement",
    "checked_fields",
    "checked_subprotocols",
    "connect_head",
    "new_key",
    "request_head",
]

HeaderFields = Mapping[str, str] | Iterable[tuple[str, str]]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?\Z")
_OURS = frozenset(("connection", "upgrade", "content-length", "transfer-encoding", "trailer", "te"))


def checked_fields(fields: HeaderFields) -> list[tuple[str, str]]:
    """Header fields that may go into a request.

    Raises:
        ValueError: A name is no token, a value has a control character, or the field belongs to the handshake.
    """
    pairs = list(fields.items() if isinstance(fields, Mapping) else fields)
    for name, value in pairs:
        if not _TOKEN.match(name):
            raise ValueError(f"{name!r} is no name of a header field")
        if not _VALUE.match(value):
            raise ValueError(f"the value of {name} must be visible characters without space around them")
        if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"{name} belongs to the handshake")
    return pairs


def checked_subprotocols(names: Sequence[str]) -> tuple[str, ...]:
    """Names of subprotocols: tokens, each once (RFC 6455 §4.1, item 10).

    Raises:
        ValueError: They are not.
    """
    if isinstance(names, str) or not all(_TOKEN.match(name) for name in names) or len(set(names)) != len(names):
        raise ValueError(f"subprotocols must be different tokens, not {names!r}")
    return tuple(names)


def new_key() -> str:
    """A nonce for ``Sec-WebSocket-Key``."""
    return base64.b64encode(os.urandom(16)).decode("ascii")


def request_head(
    target: Target, key: str, subprotocols: Sequence[str], fields: Sequence[tuple[str, str]], extensions: str = ""
) -> bytes:
    """The request for a WebSocket."""
    given = {name.lower() for name, _ in fields}
    lines = [f"GET {target.resource} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {target.authority}")
    lines += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    if subprotocols:
        lines.append(f"Sec-WebSocket-Protocol: {', '.join(subprotocols)}")
    if extensions:
        lines.append(f"Sec-WebSocket-Extensions: {extensions}")
    if target.authorization and "authorization" not in given:
        lines.append(f"Authorization: {target.authorization}")
    lines += [f"{name}: {value}" for name, value in fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def connect_head(target: Target, proxy: Target) -> bytes:
    """The request to a proxy for a tunnel (RFC 9110 §9.3.6)."""
    named = f"[{target.host}]" if ":" in target.host else target.host
    lines = [f"CONNECT {named}:{target.port} HTTP/1.1", f"Host: {named}:{target.port}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def check_agreement(
    fields: Fields, key: str, subprotocols: Sequence[str], compression: Deflate | None = None
) -> tuple[str | None, Agreed | None]:
    """Check a 101 as RFC 6455 §4.1 wants it, and return the subprotocol and what was agreed on about compression.

    Raises:
        HandshakeError: It does not agree to what was asked.
    """
    if [name.lower() for name in members(fields, "upgrade")] != ["websocket"]:
        raise HandshakeError("the server agrees to another protocol than WebSocket")
    if "upgrade" not in [name.lower() for name in members(fields, "connection")]:
        raise HandshakeError("the server's answer has no Connection: Upgrade")
    if fields.get_all("sec-websocket-accept") != [accept_of(key)]:
        raise HandshakeError("the server's Sec-WebSocket-Accept does not belong to our key")
    try:
        agreed = check_answer(fields.get_all("sec-websocket-extensions"), compression)
    except ValueError as error:
        raise HandshakeError(f"the server uses an extension as was not agreed: {error}") from None
    chosen = fields.get_all("sec-websocket-protocol")
    if not chosen:
        return None, agreed
    if len(chosen) > 1 or chosen[0] not in subprotocols:
        raise HandshakeError("the server chose a subprotocol that was not offered")
    return chosen[0], agreed
