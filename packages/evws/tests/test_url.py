"""Addresses of WebSockets and proxies."""

from __future__ import annotations

import pytest

from evws._url import parse_proxy, parse_url, redirected

GOOD = [
    ("ws://a", "ws", "a", 80, "a", "/"),
    ("ws://a/", "ws", "a", 80, "a", "/"),
    ("WS://A:80/x", "ws", "a", 80, "a", "/x"),
    ("ws://a:9001/x/y?z=1&u", "ws", "a", 9001, "a:9001", "/x/y?z=1&u"),
    ("ws://a?q", "ws", "a", 80, "a", "/?q"),
    ("wss://a", "wss", "a", 443, "a", "/"),
    ("wss://a:80", "wss", "a", 80, "a:80", "/"),
    ("ws://[::1]:8080/", "ws", "::1", 8080, "[::1]:8080", "/"),
    ("ws://[::1]", "ws", "::1", 80, "[::1]", "/"),
    ("ws://bücher.example/ü?ü", "ws", "xn--bcher-kva.example", 80, "xn--bcher-kva.example", "/%C3%BC?%C3%BC"),
    ("ws://a/%20%2F", "ws", "a", 80, "a", "/%20%2F"),
    ('ws://a/"<>', "ws", "a", 80, "a", "/%22%3C%3E"),
]


@pytest.mark.parametrize(("url", "scheme", "host", "port", "authority", "resource"), GOOD)
def test_good(url: str, scheme: str, host: str, port: int, authority: str, resource: str) -> None:
    target = parse_url(url)
    assert target[1:6] == (scheme, host, port, authority, resource)
    assert target.authorization is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "ws://"),
        ("a", "ws://"),
        ("http://a", "ws://"),
        ("ws:a", "names no host"),
        ("ws:///x", "names no host"),
        ("ws://:80/", "names no host"),
        ("ws://a/x#y", "fragment"),
        ("ws://a/#", "fragment"),
        ("ws://a:65536/", "Port out of range"),
        ("ws://a:x/", "is no address"),
        ("ws://[::1/", "is no address"),
        ("ws://a /", "space"),
        ("ws://a/\r\nHost: b", "control"),
        ("ws://a\t/", "control"),
        ("ws://a\\b/", "backslash"),
        ("ws://" + "ü" * 70 + "/", "no host name"),
    ],
)
def test_bad(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_url(url)


def test_not_text() -> None:
    with pytest.raises(TypeError):
        parse_url(b"ws://a")  # type: ignore[arg-type]


def test_credentials_are_sent_and_not_shown() -> None:
    target = parse_url("ws://user:p%40ss@a:81/x?y@z")
    assert target.authorization == "Basic dXNlcjpwQHNz"
    assert target.url == "ws://a:81/x?y@z"
    assert (target.host, target.port) == ("a", 81)
    with pytest.raises(ValueError, match=r"is no address") as error:
        parse_url("ws://user:secret@a:x/")
    assert "secret" not in str(error.value)


def test_proxies() -> None:
    assert parse_proxy("http://u:p@proxy:3128")[1:4] == ("http", "proxy", 3128)
    assert parse_proxy("http://proxy")[3] == 80
    for url in ("socks5://proxy", "http://proxy/path", "http://", "proxy:3128"):
        with pytest.raises(ValueError, match=r"http://|names no host|ends with its port"):
            parse_proxy(url)


@pytest.mark.parametrize(
    ("base", "location", "want"),
    [
        ("ws://a/x/y", "/z", "ws://a/z"),
        ("ws://a/x/y", "z", "ws://a/x/z"),
        ("ws://a/x/y", "//b:81/z", "ws://b:81/z"),
        ("ws://a/x", "http://b/z", "ws://b/z"),
        ("ws://a/x", "https://b/z", "wss://b/z"),
        ("ws://a/x", "ws://b/z", "ws://b/z"),
        ("ws://a/x", "wss://b/z", "wss://b/z"),
        ("wss://a/x", "/z#part", "wss://a/z"),
    ],
)
def test_redirects(base: str, location: str, want: str) -> None:
    assert redirected(parse_url(base), location).url == want


def test_redirects_that_are_refused() -> None:
    for base, location in (("wss://a", "http://a/"), ("ws://a", "ftp://a/"), ("ws://a", "x y")):
        with pytest.raises(ValueError, match=r"from wss to ws|ws://|space"):
            redirected(parse_url(base), location)


def test_credentials_stay_with_their_host() -> None:
    target = parse_url("ws://u:p@a/x")
    assert redirected(target, "/y").authorization == target.authorization
    assert redirected(target, "ws://b/y").authorization is None
    assert redirected(target, "ws://a:81/y").authorization is None
