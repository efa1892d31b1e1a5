"""Listening sockets."""

from __future__ import annotations

import errno
import socket

import pytest

from evloop.testing import open_descriptors
from evnet import bind_tcp


def close_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def test_a_socket_is_ready_for_c() -> None:
    (sock,) = bind_tcp("127.0.0.1", 0)
    with sock:
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        with socket.create_connection(sock.getsockname()):
            pass


@pytest.mark.parametrize("host", [None, "", "localhost"])
def test_all_addresses_of_a_name_get_one_port(host: str | None) -> None:
    sockets = bind_tcp(host, 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert len({sock.family for sock in sockets}) == len(sockets)
    finally:
        close_all(sockets)


def test_a_taken_port_is_named_and_nothing_is_left_open() -> None:
    (first,) = bind_tcp("127.0.0.1", 0)
    with first:
        port = first.getsockname()[1]
        before = open_descriptors()
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: ") as caught:
            bind_tcp("127.0.0.1", port)
        assert caught.value.errno == errno.EADDRINUSE
        assert open_descriptors() == before


def test_an_address_that_is_not_ours() -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1 port 0"):
        bind_tcp("192.0.2.1", 0)
    assert open_descriptors() == before


def test_a_literal_that_is_none() -> None:
    with pytest.raises(socket.gaierror):
        bind_tcp("127.0.0.1.5.6", 0)


def test_reuse_port() -> None:
    (first,) = bind_tcp("127.0.0.1", 0, reuse_port=True)
    (second,) = bind_tcp("127.0.0.1", first.getsockname()[1], reuse_port=True)
    close_all([first, second])
