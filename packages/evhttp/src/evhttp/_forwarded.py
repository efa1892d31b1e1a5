"""What trusted proxies say about the client behind them: RFC 7239 and the X-Forwarded fields that came before it.

Each proxy on the way adds the address that it was connected from, at the end. So the fields are read from their end, as far as the
addresses are those of trusted proxies: what stands before is what some client has sent, and means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from evhttp._fields import Headers

__all__ = ["FORWARDED_FIELDS", "Forwarding", "Network", "Proxies", "is_authority"]

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

FORWARDED_FIELDS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")
_UNIX = "unix"
_MOST = 64  # hops; nobody has so many, and each costs a look

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 7239 §4: forwarded-pair = token "=" ( token / quoted-string ); here with what may follow it.
_PAIR = re.compile(rf'[ \t]*(?:({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*"))?[ \t]*([;,]|$)')
# RFC 7239 §6: an address, IPv6 in brackets, and perhaps a port.
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::(\d{1,5}))?\Z")
# RFC 3986 §3.2.2, without user information: what req.host may be.
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z\-._~!$&'()*+,;=%]+)(?::\d{0,5})?\Z")


class Forwarding(NamedTuple):
    """What is known of a request's client; ``None`` where the proxies say nothing."""

    client: tuple[str, int] | None
    scheme: str | None
    host: str | None


class Proxies:
    """The networks whose word counts, and the fields by which they give it.

    Args:
        trusted: Addresses and networks, ``"10.0.0.0/8"``, or ``"unix"`` for whoever connects by a unix socket.
        fields: Those that the proxies set, some of `FORWARDED_FIELDS`. Others may have been sent by anybody.

    Raises:
        ValueError: What is no network; a field that is not known, or ``Forwarded`` beside others.
    """

    __slots__ = ("_by_forwarded", "_for", "_host", "_proto", "_trusts_unix", "networks")

    def __init__(self, trusted: Iterable[str | Network], fields: Iterable[str]) -> None:
        if isinstance(trusted, str) or isinstance(fields, str):
            raise ValueError("trusted and forwarded must be lists, not a string")
        given = list(trusted)
        self._trusts_unix = _UNIX in given
        self.networks: list[Network] = [_network(each) for each in given if each != _UNIX]
        known = {each.lower(): each for each in FORWARDED_FIELDS}
        names = {str(each).lower() for each in fields}
        if unknown := names - known.keys():
            raise ValueError(f"forwarded may name {', '.join(FORWARDED_FIELDS)}, not {sorted(unknown)[0]!r}")
        self._by_forwarded = "forwarded" in names
        if self._by_forwarded and len(names) > 1:
            raise ValueError(
                "forwarded may name Forwarded or the X-Forwarded fields, not both: which one were to be believed?"
            )
        self._for, self._proto, self._host = (f"x-forwarded-{each}" in names for each in ("for", "proto", "host"))

    def __bool__(self) -> bool:
        return self._trusts_unix or bool(self.networks)

    def for_shim(self) -> list[dict[str, object]]:
        """The members of each ``struct evh_network``."""
        found: list[dict[str, object]] = [
            {"family": each.version, "prefix": each.prefixlen, "ip": each.network_address.packed.ljust(16, b"\0")}
            for each in self.networks
        ]
        return found + [{"family": 0, "prefix": 0, "ip": bytes(16)}] * self._trusts_unix

    def trusts(self, address: _Address) -> bool:
        """Whether an address is in one of the networks."""
        return any(address in each for each in self.networks)

    def forwarding(self, headers: Headers) -> Forwarding:
        """What the fields of a request say that came from one of the proxies."""
        if self._by_forwarded:
            return self._forwarded(headers)
        return self._x_forwarded(headers)

    def _client(self, nodes: list[str]) -> tuple[int, tuple[str, int] | None]:
        """The index of the last node that is no trusted proxy, or of the first that is, and its address.

        What is no address (``unknown``, an obfuscated name, nonsense) ends the way: whoever has said so is the nearest one known.
        """
        found: tuple[str, int] | None = None
        index = len(nodes)
        for at in range(len(nodes) - 1, max(len(nodes) - _MOST, 0) - 1, -1):
            node = _node(nodes[at])
            if node is None:
                break
            index, found = at, (str(node[0]), node[1])
            if not self.trusts(node[0]):
                break
        return index, found

    def _x_forwarded(self, headers: Headers) -> Forwarding:
        nodes = _listed(headers, "x-forwarded-for") if self._for else []
        index, client = self._client(nodes)
        scheme = _beside(headers, "x-forwarded-proto", len(nodes), index) if self._proto else None
        host = _beside(headers, "x-forwarded-host", len(nodes), index) if self._host else None
        return Forwarding(client, _scheme(scheme), host if host and is_authority(host) else None)

    def _forwarded(self, headers: Headers) -> Forwarding:
        elements = _elements(headers.get_all("forwarded"))
        if not elements:
            return Forwarding(None, None, None)
        index, client = self._client([each.get("for", "") for each in elements])
        # An element's proto and host are what the proxy that has added it was asked for.
        element = elements[min(index, len(elements) - 1)]
        host = element.get("host")
        return Forwarding(client, _scheme(element.get("proto")), host if host and is_authority(host) else None)


def is_authority(text: str) -> bool:
    """Whether a text can be a host, with or without a port."""
    return len(text) <= 300 and _AUTHORITY.match(text) is not None


def _network(given: str | Network) -> Network:
    try:
        found = ip_network(given)
    except ValueError as error:
        raise ValueError(f"trusted must name addresses, networks or 'unix': {error}") from None
    # Clients with IPv4 addresses have them as such, by whichever kind of socket they came.
    mapped = found.network_address.ipv4_mapped if isinstance(found, IPv6Network) else None
    return found if mapped is None or found.prefixlen < 96 else IPv4Network((mapped, found.prefixlen - 96))


def _node(text: str) -> tuple[_Address, int] | None:
    found = _NODE.match(text)
    try:
        # X-Forwarded-For has IPv6 addresses without brackets, too.
        address = ip_address(text if found is None else found[1] or found[2])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        address = address.ipv4_mapped or address
    elif found is None or found[1]:
        return None
    port = int(found[3] or 0) if found else 0
    return (address, port) if port <= 65535 else None


def _listed(headers: Headers, name: str) -> list[str]:
    """The elements of a field's lines, in order."""
    return [each.strip(" \t") for line in headers.get_all(name) for each in line.split(",")]


def _beside(headers: Headers, name: str, count: int, index: int) -> str | None:
    """The element added together with a node; if there is not one for each, the last one, which the nearest proxy wrote."""
    values = _listed(headers, name)
    if not values:
        return None
    return values[index] if len(values) == count and index < count else values[-1]


def _scheme(text: str | None) -> str | None:
    lower = text.lower() if text else None
    return lower if lower in ("http", "https") else None


def _elements(lines: list[str]) -> list[dict[str, str]]:
    """The elements of Forwarded behind the last one that cannot be read: nobody can say where that one was to end.

    Line by line, so that a quotation mark of a client's does not reach into the line of a proxy.
    """
    elements: list[dict[str, str]] = []
    for line in lines:
        for part in _parts(line):
            element = _pairs(part)
            if element is None:
                elements.clear()
            else:
                elements.append(element)
    return elements


def _parts(value: str) -> list[str]:
    """Cut at the commas that stand in no quoted string."""
    parts, start, quoted, escaped = [], 0, False, False
    for at, char in enumerate(value):
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            parts.append(value[start:at])
            start = at + 1
    return [*parts, value[start:]]


def _pairs(part: str) -> dict[str, str] | None:
    pairs: dict[str, str] = {}
    at = 0
    while at < len(part):
        found = _PAIR.match(part, at)
        if found is None:
            return None
        at = found.end()
        if found[1] is None:
            continue
        name = found[1].lower()
        if name in pairs:  # RFC 7239 §4: each parameter occurs once at most
            return None
        text = found[2]
        pairs[name] = re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] == '"' else text
    return pairs
