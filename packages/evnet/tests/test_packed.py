"""Addresses between C and Python."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from evnet._packed import address_text, pack_address, unpack_address

LOOPBACK = socket.if_nameindex()[0]


@pytest.mark.parametrize(
    ("family", "address", "text"),
    [
        (socket.AF_INET, ("127.0.0.1", 1), "127.0.0.1 port 1"),
        (socket.AF_INET, ("255.255.255.255", 65535), "255.255.255.255 port 65535"),
        (socket.AF_INET6, ("::1", 80, 0, 0), "::1 port 80"),
        (socket.AF_INET6, ("fe80::1", 80, 0xFFFFF, 7), "fe80::1%7 port 80"),
        (socket.AF_INET6, ("::ffff:192.0.2.1", 80, 0, 0), "::ffff:192.0.2.1 port 80"),
        (socket.AF_UNIX, "/run/some.sock", "/run/some.sock"),
        (socket.AF_UNIX, "x" * 104, "x" * 104),
        (socket.AF_UNIX, b"\0abstract", "b'\\x00abstract'"),
    ],
)
def test_round_trip(family: int, address: Any, text: str) -> None:
    assert unpack_address(pack_address(family, address)) == address
    assert address_text(address) == text


def test_short_forms_of_ipv6() -> None:
    full = pack_address(socket.AF_INET6, ("fe80::1", 80, 0, LOOPBACK[0]))
    assert pack_address(socket.AF_INET6, (f"fe80::1%{LOOPBACK[1]}", 80)) == full
    assert pack_address(socket.AF_INET6, (f"fe80::1%{LOOPBACK[0]}", 80)) == full
    assert pack_address(socket.AF_INET6, ("::1", 80)) == pack_address(socket.AF_INET6, ("::1", 80, 0, 0))


@pytest.mark.parametrize(
    ("family", "address", "error", "text"),
    [
        (socket.AF_INET, None, TypeError, r"is \(host, port\), not None"),
        (socket.AF_INET, ("127.0.0.1", 1.0), TypeError, "not"),
        (socket.AF_INET, ("127.1", 1), ValueError, "not a numeric IPv4 address: resolve names first"),
        (socket.AF_INET, ("127.0.0.1", -1), ValueError, "from 1 to 65535, not -1"),
        (socket.AF_INET6, ("::1", 1, 0, 0, 0), TypeError, "flow label"),
        (socket.AF_INET6, ("127.0.0.1", 1), ValueError, "not a numeric IPv6 address"),
        (socket.AF_INET6, ("::1", 1, 1 << 20, 0), ValueError, "flow label or scope id out of range"),
        (socket.AF_INET6, ("::1", 1, 0, -1), ValueError, "flow label or scope id out of range"),
        (socket.AF_INET6, ("fe80::1%nowhere0", 1), ValueError, "no interface 'nowhere0'"),
        (socket.AF_INET6, ("fe80::1%99999999999", 1), ValueError, "out of range"),
        (socket.AF_UNIX, ("/run/x", 1), TypeError, "is a path"),
        (socket.AF_UNIX, "", ValueError, "1 to 104 bytes, not 0"),
        (socket.AF_UNIX, "x" * 105, ValueError, "1 to 104 bytes, not 105"),
    ],
)
def test_what_is_no_address(family: int, address: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        pack_address(family, address)


def test_a_unix_socket_without_a_name() -> None:
    nameless = bytes(4)
    assert unpack_address(nameless) is None
    assert address_text(None) == "an unnamed peer"


def test_the_byte_order_is_the_machine_s() -> None:
    assert pack_address(socket.AF_INET, ("1.2.3.4", 0x0102))[2:4] == (0x0102).to_bytes(2, sys.byteorder)
