"""What two endpoints agree on about permessage-deflate (RFC 7692 §7.1), in ``Sec-WebSocket-Extensions``. No I/O.

A server calls `read_extensions` and `agree`; a client sends `offer_of` and calls `check_answer`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

__all__ = ["Agreed", "Deflate", "Extension", "agree", "check_answer", "offer_of", "read_extensions"]

_NAME = "permessage-deflate"
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 §5.6.2
_EXTENSION = re.compile(rf"[ \t]*({_TOKEN})")
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?')
_SEPARATOR = re.compile(r"[ \t]*(?:,|\Z)")
_ONE_TOKEN = re.compile(_TOKEN)
_BITS = re.compile(r"[89]|1[0-5]")  # RFC 7692 §7.1.2: "no leading zeros"
_SWITCHES = ("server_no_context_takeover", "client_no_context_takeover")
_WINDOWS = ("server_max_window_bits", "client_max_window_bits")
_MOST_BITS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflate:
    """Compression of messages (RFC 7692, permessage-deflate), for peers that offer it; the others get none.

    Attributes:
        level: From 1, fast, to 9, small.
        memory_level: From 1 to 9: zlib's ``memLevel``, memory against size and speed.
        threshold: Messages of fewer bytes go as they are.
        server_max_window_bits: From 8 to 15: the window of what the server sends is 2**n bytes.
        client_max_window_bits: The same of what the client sends. A client that does not offer this parameter uses 15.
        server_no_context_takeover: Each message of the server is compressed by itself. Costs size, and saves the server the memory
            of a compressor per connection: those of one thread share one.
        client_no_context_takeover: The same of the client's messages: there is no decompressor between two messages.

    Memory of a connection, from the first compressed message in its direction on: to compress 2**(n + 2) + 2**(m + 9) bytes with
    n = ``server_max_window_bits`` and m = ``memory_level``, to decompress 2**n with n = ``client_max_window_bits``, and about
    8 KiB each: 39 KB and 12 KB with what stands here, 268 KB and 41 KB with 15 bits and memory level 8. On top comes one message of
    ``max_message_size`` while it is being decompressed. With ``evws[speed]`` it is 140 to 330 KB to compress, 42 KB to decompress,
    whatever stands here; the switches save them all the same.

    Raises:
        ValueError: A number is out of its range; the message names it.
    """

    level: int = 1
    memory_level: int = 5
    threshold: int = 128
    server_max_window_bits: int = 12
    client_max_window_bits: int = 12
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False

    def __post_init__(self) -> None:
        ranges = {"threshold": (0, 2**63 - 1), "level": (1, 9), "memory_level": (1, 9)}
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = ranges.get(field.name, (8, _MOST_BITS))
            if field.name in _SWITCHES:
                if not isinstance(value, bool):
                    raise ValueError(f"{field.name} must be True or False, not {value!r}")
            elif not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{field.name} must be an integer from {low} to {high}, not {value!r}")


class Agreed(NamedTuple):
    """The parameters that hold for a connection."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = _MOST_BITS
    client_max_window_bits: int = _MOST_BITS


class Extension(NamedTuple):
    """A member of ``Sec-WebSocket-Extensions``; a parameter's value is ``None`` where there is none."""

    name: str
    parameters: list[tuple[str, str | None]]


class _Parameters(NamedTuple):
    """Of an offer or an answer, as it came; ``None``: it is not there."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None


def read_extensions(values: Iterable[str]) -> list[Extension]:
    """Parse the field's lines (RFC 6455 §9.1).

    Raises:
        ValueError: They are no list of extensions: the handshake has failed.
    """
    text = ",".join(values)
    found: list[Extension] = []
    at = 0
    while at < len(text):
        match = _EXTENSION.match(text, at)
        if match is not None:
            extension = Extension(match[1], [])
            found.append(extension)
            at = match.end()
            while (match := _PARAMETER.match(text, at)) is not None:
                extension.parameters.append((match[1], _value(match)))
                at = match.end()
        separator = _SEPARATOR.match(text, at)  # RFC 9110 §5.6.1: empty members of a list are ignored
        if separator is None:
            raise ValueError("Sec-WebSocket-Extensions is no list of extensions")
        at = separator.end()
    return found


def _value(match: re.Match[str]) -> str | None:
    """RFC 6455 §9.1: "the value after quoted-string unescaping MUST conform to the 'token' ABNF"."""
    if match[3] is None:
        return match[2]
    value = re.sub(r"\\(.)", r"\1", match[3])
    if _ONE_TOKEN.fullmatch(value) is None:
        raise ValueError("Sec-WebSocket-Extensions has a quoted value that is no token")
    return value


def _read(extension: Extension, *, is_offer: bool) -> _Parameters | None:
    """``None``: a parameter is unknown, twice there, or has a value that it must not have (RFC 7692 §7.1)."""
    seen: dict[str, int] = {}
    for name, value in extension.parameters:
        if name in seen:
            return None
        if name in _SWITCHES and value is None:
            seen[name] = True
        elif name in _WINDOWS and value is not None and _BITS.fullmatch(value):
            seen[name] = int(value)
        elif name == "client_max_window_bits" and value is None and is_offer:
            seen[name] = _MOST_BITS  # it only says that the client knows the parameter
        else:
            return None
    return _Parameters(**seen)  # type: ignore[arg-type] # the switches are 1


def agree(extensions: Sequence[Extension], ours: Deflate) -> tuple[Agreed, str] | None:
    """Choose the first offer of permessage-deflate that can be accepted: what then holds, and the answer's field value.

    RFC 7692 §5.1: a server declines an offer with a parameter that it does not know or with a bad value.
    """
    for extension in extensions:
        offer = _read(extension, is_offer=True) if extension.name == _NAME else None
        if offer is not None:
            agreed = Agreed(
                ours.server_no_context_takeover or bool(offer.server_no_context_takeover),
                ours.client_no_context_takeover or bool(offer.client_no_context_takeover),
                min(ours.server_max_window_bits, offer.server_max_window_bits or _MOST_BITS),
                # §7.1.2.2: a client that has not offered it must not be told a value.
                min(ours.client_max_window_bits, offer.client_max_window_bits or 0) or _MOST_BITS,
            )
            return agreed, _text(agreed, server_bits=offer.server_max_window_bits is not None)
    return None


def _text(parameters: Agreed, *, server_bits: bool) -> str:
    parts = [_NAME, *(name for name in _SWITCHES if getattr(parameters, name))]
    if server_bits or parameters.server_max_window_bits < _MOST_BITS:
        parts.append(f"server_max_window_bits={parameters.server_max_window_bits}")
    if parameters.client_max_window_bits < _MOST_BITS:
        parts.append(f"client_max_window_bits={parameters.client_max_window_bits}")
    return "; ".join(parts)


def offer_of(ours: Deflate) -> str:
    """What a client sends in ``Sec-WebSocket-Extensions``."""
    asked = Agreed(*(getattr(ours, name) for name in Agreed._fields))
    text = _text(asked, server_bits=False)
    return text if ours.client_max_window_bits < _MOST_BITS else text + "; client_max_window_bits"


def check_answer(values: Iterable[str], ours: Deflate | None) -> Agreed | None:
    """Read a server's answer to `offer_of`; ``None``: there is no compression.

    Args:
        values: The lines of ``Sec-WebSocket-Extensions``.
        ours: What was offered; ``None`` if nothing was.

    Raises:
        ValueError: The server has accepted what was not offered, or in a way that was not (RFC 6455 §9.1, RFC 7692 §7.1): the
            connection must be failed.
    """
    extensions = read_extensions(values)
    if not extensions:
        return None
    if ours is None or len(extensions) != 1 or extensions[0].name != _NAME:
        raise ValueError("the server has accepted an extension that was not offered")
    answer = _read(extensions[0], is_offer=False)
    if answer is None:
        raise ValueError("the server has answered permessage-deflate with parameters that it does not have")
    if ours.server_no_context_takeover and not answer.server_no_context_takeover:
        raise ValueError("the server has accepted permessage-deflate, but not server_no_context_takeover")
    if (answer.server_max_window_bits or _MOST_BITS) > ours.server_max_window_bits:
        raise ValueError(f"the server has not accepted server_max_window_bits={ours.server_max_window_bits}")
    return Agreed(
        bool(answer.server_no_context_takeover),
        ours.client_no_context_takeover or bool(answer.client_no_context_takeover),
        answer.server_max_window_bits or _MOST_BITS,
        min(ours.client_max_window_bits, answer.client_max_window_bits or _MOST_BITS),
    )
