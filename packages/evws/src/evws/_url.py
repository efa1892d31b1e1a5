"""Where a client connects to: addresses of WebSockets (RFC 6455 §3) and of proxies."""

from __future__ import annotations

import base64
import re
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

__all__ = ["Target", "parse_proxy", "parse_url", "redirected"]

_PORTS = {"ws": 80, "wss": 443, "http": 80}
# What urllib would pass over in silence, and what ends a line of the request.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_SAFE = "!$%&'()*+,-./:;=?@_~[]"


class Target(NamedTuple):
    """An address that is in order.

    Attributes:
        url: As it was given, without the credentials.
        scheme: ``"ws"``, ``"wss"``, or of a proxy ``"http"``.
        host: A name or an address, without brackets.
        port: The one that was given, or the scheme's.
        authority: For the Host field.
        resource: Path and query, percent-encoded (RFC 6455 §3, "resource-name").
        authorization: The value of a field for basic authentication (RFC 7617), or ``None``.
    """

    url: str
    scheme: str
    host: str
    port: int
    authority: str
    resource: str
    authorization: str | None


def parse_url(url: str) -> Target:
    """Read the address of a WebSocket.

    Raises:
        ValueError: It is none; the message says why.
    """
    target = _parse(url, ("ws", "wss"))
    if "#" in url:
        raise ValueError(f"{target.url!r} has a fragment, which a WebSocket's address must not have")  # RFC 6455 §3
    return target


def parse_proxy(url: str) -> Target:
    """Read the address of a proxy, ``http://[user:password@]host[:port]``. Raises: as `parse_url`."""
    target = _parse(url, ("http",))
    if target.resource != "/":
        raise ValueError(f"the address of a proxy ends with its port: {target.url!r}")
    return target


def redirected(target: Target, location: str) -> Target:
    """Where a server sends us. It says so in the schemes of HTTP, mostly, or in ours.

    Raises:
        ValueError: It is no address, or leads from TLS to none.
    """
    url = urljoin("http" + target.url.removeprefix("ws"), location)
    url = {"http": "ws", "https": "wss"}.get(urlsplit(url).scheme, urlsplit(url).scheme) + url[url.find(":") :]
    new = parse_url(url.partition("#")[0])
    if target.scheme == "wss" and new.scheme != "wss":
        raise ValueError("the redirect leads from wss to ws")
    if target.authorization and (new.host, new.port) == (target.host, target.port):
        new = new._replace(authorization=new.authorization or target.authorization)
    return new


def _parse(url: str, schemes: tuple[str, ...]) -> Target:
    if not isinstance(url, str):
        raise TypeError(f"an address must be text, not {url!r}")
    if _FORBIDDEN.search(url):
        raise ValueError(f"{url!r} has a space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{_public(url)!r} is no address: {error}") from None
    shown = _public(url)
    if parts.scheme not in schemes:
        raise ValueError(f"expected {' or '.join(f'{name}://' for name in schemes)}, not {shown!r}")
    if not parts.hostname:
        raise ValueError(f"{shown!r} names no host")
    host = _ascii_host(parts.hostname, shown)
    number = _PORTS[parts.scheme] if port is None else port
    named = f"[{host}]" if ":" in host else host
    authority = named if number == _PORTS[parts.scheme] else f"{named}:{number}"
    resource = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    return Target(shown, parts.scheme, host, number, authority, resource, _basic(parts))


def _ascii_host(host: str, shown: str) -> str:
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError(f"the host in {shown!r} is no host name") from None


def _basic(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def _public(url: str) -> str:
    """The address without user and password: it goes to logs."""
    head, slashes, rest = url.partition("//")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return head + slashes + rest[authority.rfind("@") + 1 :]
