"""Addresses in digits."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from evnet._literal import Question, answer_inline, checked_port

V4, V6 = socket.AF_INET, socket.AF_INET6
STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
LO = {name: index for index, name in socket.if_nameindex()}.get("lo", 0)


def ask(
    host: str | None, port: int | str = 80, family: int = 0, kind: int = STREAM, proto: int = 0, flags: int = 0
) -> Any:
    return answer_inline(Question(host, port, family, kind, proto, flags))


@pytest.mark.parametrize(
    ("host", "family", "address"),
    [
        ("127.0.0.1", V4, ("127.0.0.1", 80)),
        ("255.255.255.255", V4, ("255.255.255.255", 80)),
        ("::1", V6, ("::1", 80, 0, 0)),
        ("2001:DB8:0:0::0001", V6, ("2001:db8::1", 80, 0, 0)),
        ("::ffff:192.0.2.1", V6, ("::ffff:192.0.2.1", 80, 0, 0)),
        ("fe80::1%7", V6, ("fe80::1", 80, 0, 7)),
        ("fe80::1%4294967295", V6, ("fe80::1", 80, 0, 4294967295)),
        # inet_aton's forms, which the system's resolver takes for addresses, too
        ("127.1", V4, ("127.0.0.1", 80)),
        ("0x7f.0.0.1", V4, ("127.0.0.1", 80)),
    ],
)
def test_literals(host: str, family: int, address: tuple[Any, ...]) -> None:
    assert ask(host) == ((family, STREAM, socket.IPPROTO_TCP, "", address),)
    assert ask(host, kind=DGRAM) == ((family, DGRAM, socket.IPPROTO_UDP, "", address),)


@pytest.mark.skipif(not LO, reason="this system's loopback interface is not called lo")
def test_the_name_of_an_interface_is_a_scope_id() -> None:
    assert ask("fe80::1%lo")[0][4] == ("fe80::1", 80, 0, LO)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_as_the_system_has_it(host: str) -> None:
    for kind in (0, STREAM, DGRAM):
        assert ask(host, kind=kind) == tuple(socket.getaddrinfo(host, 80, 0, kind))
    family = V4 if host == "127.0.0.1" else V6
    assert ask(host, family=family) == tuple(socket.getaddrinfo(host, 80, family, STREAM))


def test_no_host() -> None:
    assert ask(None) == tuple(socket.getaddrinfo(None, 80, 0, STREAM))
    wildcard = ask(None, flags=socket.AI_PASSIVE)
    assert ("0.0.0.0", 80) in [info[4] for info in wildcard]


def test_a_mapped_address() -> None:
    infos = ask("127.0.0.1", family=V6, flags=socket.AI_V4MAPPED)
    assert infos[0][4] == ("::ffff:127.0.0.1", 80, 0, 0)


@pytest.mark.parametrize(
    "host", ["localhost", "example.org", "server1", "1.2.3.4.example", "1.2.3.4.5", "äöü.example", "xn--4"]
)
def test_names_are_for_others(host: str) -> None:
    assert ask(host) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_services_are_for_others(host: str) -> None:
    assert ask(host, "http") is None


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("::g", {}),
        ("[::1]", {}),
        ("fe80::1%no-such-interface", {}),
        ("fe80::1%4294967296", {}),
        ("::1%", {}),
        ("localhost", {"flags": socket.AI_NUMERICHOST}),
        ("a\0b", {}),
        ("127.0.0.1\0", {}),
        ("x" * 64 + ".example", {}),
        ("ä" * 64, {}),
        ("::1", {"family": V4}),
        ("127.0.0.1", {"family": V6}),
    ],
)
def test_what_is_nobodys_address(host: str, options: Any) -> None:
    with pytest.raises(socket.gaierror) as caught:
        ask(host, **options)
    assert f"cannot resolve host {host!r} port 80: " in str(caught.value)


@pytest.mark.parametrize(
    ("port", "checked"), [(0, 0), (65535, 65535), ("80", 80), ("http", "http"), (None, 0), (True, 1)]
)
def test_ports(port: Any, checked: int | str) -> None:
    assert checked_port(port) == checked


@pytest.mark.parametrize("port", [-1, 65536, "65536", "99999999999999999999", "", "a\0b"])
def test_no_ports(port: int | str) -> None:
    with pytest.raises(ValueError, match="port must be"):
        checked_port(port)


@pytest.mark.parametrize("port", [b"80", 80.0, [80]])
def test_not_even_ports(port: Any) -> None:
    with pytest.raises(TypeError, match="port must be"):
        checked_port(port)
