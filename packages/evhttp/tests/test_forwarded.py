"""What proxies say of their clients: whom it is believed, and what is made of nonsense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evhttp import Headers, Server
from evhttp._forwarded import Forwarding, Proxies, is_authority

Serve = Callable[..., Any]
XFF = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")


def headers(*lines: str) -> Headers:
    block = "".join(f"\n{name.lower()}:{value}" for name, _, value in (line.partition(": ") for line in lines)) + "\n"
    return Headers(block.encode(), 0, len(block))


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([], None),
        (["X-Forwarded-For: 192.0.2.1"], ("192.0.2.1", 0)),
        (["X-Forwarded-For: 192.0.2.1:4711"], ("192.0.2.1", 4711)),
        (["X-Forwarded-For: 2001:db8::1"], ("2001:db8::1", 0)),
        (["X-Forwarded-For: [2001:db8::1]"], ("2001:db8::1", 0)),
        (["X-Forwarded-For: [2001:db8::1]:4711"], ("2001:db8::1", 4711)),
        (["X-Forwarded-For: ::ffff:192.0.2.1"], ("192.0.2.1", 0)),
        # From the end, as far as proxies are trusted: what stands before was sent by the client.
        (["X-Forwarded-For: 6.6.6.6, 192.0.2.1"], ("192.0.2.1", 0)),
        (["X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.1.1.1"], ("192.0.2.1", 0)),
        (["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 192.0.2.1,10.1.1.1 ,  10.1.1.2"], ("192.0.2.1", 0)),
        (["X-Forwarded-For: 10.1.1.1, 10.1.1.2"], ("10.1.1.1", 0)),
        # What is no address ends the way.
        (["X-Forwarded-For: 6.6.6.6, unknown, 10.1.1.1"], ("10.1.1.1", 0)),
        (["X-Forwarded-For: unknown"], None),
        (["X-Forwarded-For: "], None),
        (["X-Forwarded-For: 192.0.2.1, "], None),
        *[
            ([f"X-Forwarded-For: {node}"], None)
            for node in (
                "192.0.2.1:",
                "192.0.2.1:65536",
                "192.0.2.1:x",
                "192.0.2.01",
                "192.0.2",
                "192.0.2.1.1",
                "[192.0.2.1]",
                "[2001:db8::1",
                "2001:db8::1]",
                "2001:db8:::1",
                "fe80::1%eth0",
                "[fe80::1%25eth0]",
                '"192.0.2.1"',
                "a.example",
                "1",
                "\u0661.1.1.1",
            )
        ],
    ],
)
def test_x_forwarded_for(lines: list[str], client: Any) -> None:
    assert Proxies(["10.0.0.0/8"], XFF).forwarding(headers(*lines)).client == client


@pytest.mark.parametrize(
    ("lines", "scheme", "host"),
    [
        ([], None, None),
        (["X-Forwarded-Proto: https", "X-Forwarded-Host: a.example"], "https", "a.example"),
        (["X-Forwarded-Proto: HTTPS", "X-Forwarded-Host: a.example:8443"], "https", "a.example:8443"),
        (["X-Forwarded-Proto: ftp", "X-Forwarded-Host: a/b"], None, None),
        (["X-Forwarded-Proto: https, http"], "http", None),
        (["X-Forwarded-Proto: https", "X-Forwarded-Proto: http"], "http", None),
        # One for each node: the one that was added with the client's.
        (["X-Forwarded-For: 192.0.2.1, 10.1.1.1", "X-Forwarded-Proto: https, http"], "https", None),
        (["X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.1.1.1", "X-Forwarded-Proto: https, http"], "http", None),
    ],
)
def test_x_forwarded_proto_and_host(lines: list[str], scheme: Any, host: Any) -> None:
    found = Proxies(["10.0.0.0/8"], XFF).forwarding(headers(*lines))
    assert (found.scheme, found.host) == (scheme, host)


def test_fields_that_are_not_named_mean_nothing() -> None:
    lines = headers(
        "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: a", "Forwarded: for=6.6.6.6"
    )
    assert Proxies(["10.0.0.0/8"], ["x-forwarded-for"]).forwarding(lines) == Forwarding(("192.0.2.1", 0), None, None)
    assert Proxies(["10.0.0.0/8"], ["X-Forwarded-Proto"]).forwarding(lines) == Forwarding(None, "https", None)
    assert Proxies(["10.0.0.0/8"], ["Forwarded"]).forwarding(lines) == Forwarding(("6.6.6.6", 0), None, None)
    assert Proxies(["10.0.0.0/8"], []).forwarding(lines) == Forwarding(None, None, None)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["for=192.0.2.1"], (("192.0.2.1", 0), None, None)),
        (["For=192.0.2.1;Proto=HTTPS;Host=a.example;by=203.0.113.43"], (("192.0.2.1", 0), "https", "a.example")),
        (['for="[2001:db8:cafe::17]:4711"'], (("2001:db8:cafe::17", 4711), None, None)),
        (['for="192.0.2.1:4711"'], (("192.0.2.1", 4711), None, None)),
        (['for="192.0.2\\.1"'], (("192.0.2.1", 0), None, None)),
        (
            ["for=6.6.6.6;proto=http, for=192.0.2.1;proto=https, for=10.1.1.1;proto=http"],
            (("192.0.2.1", 0), "https", None),
        ),
        (["for=6.6.6.6", "for=192.0.2.1"], (("192.0.2.1", 0), None, None)),
        ([" for=192.0.2.1 ; proto=https "], (("192.0.2.1", 0), "https", None)),
        (["for=192.0.2.1;"], (("192.0.2.1", 0), None, None)),
        # Unknown and obfuscated ones (RFC 7239 §6.2, §6.3).
        (["for=6.6.6.6, for=unknown"], (None, None, None)),
        (['for=6.6.6.6, for="_gazonk"'], (None, None, None)),
        (["for=6.6.6.6, proto=https"], (None, "https", None)),
        # Malformed: nobody can say where such an element ends, so all before it is lost with it.
        (["for=6.6.6.6;x, for=192.0.2.1"], (("192.0.2.1", 0), None, None)),
        (["for=192.0.2.1;x"], (None, None, None)),
        (["for=192.0.2.1;for=6.6.6.6"], (None, None, None)),
        (["for=192.0.2.1 6.6.6.6"], (None, None, None)),
        (["for = 192.0.2.1"], (None, None, None)),
        (['for="192.0.2.1'], (None, None, None)),
        (['for="192.0.2.1"x'], (None, None, None)),
        (["for=[2001:db8::1]"], (None, None, None)),
        ([""], (None, None, None)),
        (['for=192.0.2.1;host="a b"'], (("192.0.2.1", 0), None, None)),
        # A client's quotation mark must not swallow, or rewrite, what a proxy adds behind it.
        (['for=6.6.6.6;x=", for=192.0.2.1'], (None, None, None)),
        (['for=6.6.6.6;x=", for="192.0.2.1:1"'], (None, None, None)),
        (['for=6.6.6.6;x="', "for=192.0.2.1"], (("192.0.2.1", 0), None, None)),
        (['for=6.6.6.6;x="\\', "for=192.0.2.1"], (("192.0.2.1", 0), None, None)),
    ],
)
def test_forwarded(lines: list[str], expected: Any) -> None:
    found = Proxies(["10.0.0.0/8"], ["Forwarded"]).forwarding(headers(*(f"Forwarded: {line}" for line in lines)))
    assert found == expected


def test_a_way_that_is_too_long_ends() -> None:
    nodes = ", ".join(["6.6.6.6", *["10.1.1.1"] * 1000])
    assert Proxies(["10.0.0.0/8"], XFF).forwarding(headers(f"X-Forwarded-For: {nodes}")).client == ("10.1.1.1", 0)


@pytest.mark.parametrize(
    ("trusted", "fields", "message"),
    [
        (["10.0.0.1/8"], [], "has host bits set"),
        (["a.example"], [], "trusted must name addresses, networks or 'unix'"),
        (["10.0.0.0/33"], [], "trusted must name addresses"),
        ("10.0.0.0/8", [], "must be lists"),
        (["10.0.0.0/8"], "Forwarded", "must be lists"),
        (["10.0.0.0/8"], ["X-Real-IP"], "forwarded may name Forwarded, X-Forwarded-For.*not 'x-real-ip'"),
        (["10.0.0.0/8"], ["Forwarded", "X-Forwarded-For"], "not both"),
    ],
)
def test_what_cannot_be_trusted(trusted: Any, fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Proxies(trusted, fields)
    with pytest.raises(ValueError, match=message):
        Server(lambda req, res: None, trusted=trusted, forwarded=fields)


def test_networks_as_c_takes_them() -> None:
    proxies = Proxies(["10.0.0.0/8", "2001:db8::/33", "::ffff:192.0.2.0/120", "unix"], [])
    assert [(each["family"], each["prefix"]) for each in proxies.for_shim()] == [(4, 8), (6, 33), (4, 24), (0, 0)]
    assert all(len(each["ip"]) == 16 for each in proxies.for_shim())  # type: ignore[arg-type]
    assert not Proxies([], [])


@pytest.mark.parametrize("text", ["a", "a.example:8080", "[::1]:80", "192.0.2.1", "a:"])
def test_authorities(text: str) -> None:
    assert is_authority(text)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "u@a", "a:b", "[::1", "a\n", "a?b", "x" * 301])
def test_what_is_no_authority(text: str) -> None:
    assert not is_authority(text)


# -- on a server ---------------------------------------------------------------------------------------------------------------


def tell(req: Any, res: Any) -> None:
    res.json([req.client[0] if req.client else None, req.scheme, req.host])


LINES = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: b")


def test_a_trusted_peer_is_believed(serve: Serve) -> None:
    client = serve(tell, trusted=["127.0.0.0/8"], forwarded=XFF).connect()
    assert client.get("/", *LINES).body == b'["192.0.2.1","https","b"]'
    assert client.get("/", LINES[0]).body == b'["192.0.2.1","http","a"]'
    assert client.get("/").body == b'["127.0.0.1","http","a"]'


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8", "127.0.0.2", "128.0.0.0/8", "::1", "unix"]])
def test_others_are_not(serve: Serve, trusted: list[str]) -> None:
    client = serve(tell, trusted=trusted, forwarded=XFF).connect()
    assert client.get("/", *LINES).body == b'["127.0.0.1","http","a"]'


@pytest.mark.parametrize(
    ("network", "believed"),
    [("127.0.0.1", True), ("127.0.0.0/31", True), ("126.0.0.0/7", True), ("0.0.0.0/0", True), ("127.0.0.0/32", False)],
)
def test_networks_of_every_width(serve: Serve, network: str, believed: bool) -> None:
    client = serve(tell, trusted=[network], forwarded=XFF).connect()
    assert (b"192.0.2.1" in client.get("/", *LINES).body) == believed


def test_a_body_that_is_gathered_has_a_client_too(serve: Serve) -> None:
    client = serve(tell, trusted=["127.0.0.1"]).connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.send(b"1\r\nx\r\n0\r\n\r\n").answer().body == b'["192.0.2.1","http","a"]'


def test_the_host_of_a_whole_url_comes_first(serve: Serve) -> None:
    """RFC 9112 §3.2.2: the Host field is ignored then."""
    client = serve(tell).connect()
    assert client.get("http://b.example:81/x?y").body == b'["127.0.0.1","http","b.example:81"]'
    assert client.get("http://b.example?y").body == b'["127.0.0.1","http","b.example"]'
    assert client.send(b"GET / HTTP/1.0\r\n\r\n").answer().body == b'["127.0.0.1","http",""]'
