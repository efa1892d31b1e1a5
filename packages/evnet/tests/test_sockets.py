"""Listening sockets."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from evloop.testing import open_descriptors
from evnet import bind_tcp, inherit_sockets


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


def test_one_socket_for_both_families() -> None:
    (sock,) = bind_tcp(None, 0, dual_stack=True)
    with sock:
        port = sock.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port)):
                pass


def test_names_of_one_address_make_one_socket() -> None:
    sockets = bind_tcp(["127.0.0.1", "localhost", "127.0.0.1"], 0)
    try:
        assert len({sock.getsockname()[0] for sock in sockets}) == len(sockets)
    finally:
        close_all(sockets)


def test_a_port_that_is_taken_at_the_second_address() -> None:
    """The system chooses for the first address without a look at the others: another port is tried."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = iter([port, port, 0])
        real = socket.socket.bind

        def bind(sock: socket.socket, address: Any) -> None:
            real(sock, (address[0], next(chosen)) if address[1] == 0 else address)

        before = open_descriptors()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket.socket, "bind", bind)
            sockets = bind_tcp(["127.0.0.1", "127.0.0.2"], 0)
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert sockets[0].getsockname()[1] != port
        close_all(sockets)
        assert open_descriptors() == before


def test_no_port_is_free_anywhere() -> None:
    def bind(sock: socket.socket, address: Any) -> None:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    before = open_descriptors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "bind", bind)
        with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1 port 0: Address already in use"):
            bind_tcp("127.0.0.1", 0)
    assert open_descriptors() == before


class NoIPv6(socket.socket):
    """The socket module of a machine whose kernel has no IPv6 (ipv6.disable=1)."""

    def __init__(self, family: int = -1, *args: Any, **options: Any) -> None:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        super().__init__(family, *args, **options)


@pytest.mark.parametrize("dual_stack", [False, True])
def test_every_interface_without_ipv6(monkeypatch: pytest.MonkeyPatch, dual_stack: bool) -> None:
    monkeypatch.setattr(socket, "socket", NoIPv6)
    (sock,) = bind_tcp(None, 0, dual_stack=dual_stack)
    with sock:
        assert sock.getsockname()[0] == "0.0.0.0"


def test_an_ipv6_address_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is passed over in a name's addresses is an error where it was asked for."""
    monkeypatch.setattr(socket, "socket", NoIPv6)
    before = open_descriptors()
    with pytest.raises(OSError, match=r"cannot listen on ::1 port \d+: Address family not supported"):
        bind_tcp(["127.0.0.1", "::1"], 0)
    assert open_descriptors() == before


def test_an_address_that_a_name_stood_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passed over as one of a name's addresses, it is still an error where it is asked for by itself."""
    monkeypatch.setattr(socket, "socket", NoIPv6)
    monkeypatch.setattr(socket, "getaddrinfo", both_families)
    (sock,) = bind_tcp("a-name", 0)
    sock.close()
    with pytest.raises(OSError, match=r"cannot listen on ::1 port \d+: Address family not supported"):
        bind_tcp(["a-name", "::1"], 0)


def test_a_name_of_which_one_address_is_another_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [(socket.AF_INET, 0, 0, "", ("192.0.2.1", 0)), (socket.AF_INET, 0, 0, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: there)
    (sock,) = bind_tcp("a-name", 0)
    with sock:
        assert sock.getsockname()[0] == "127.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: there[:1])
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1 port 0: Cannot assign"):
        bind_tcp("a-name", 0)


def both_families(host: str, *_: Any, **__: Any) -> list[Any]:
    six = (socket.AF_INET6, 0, 0, "", ("::1", 0, 0, 0))
    return [six] if host == "::1" else [six, (socket.AF_INET, 0, 0, "", ("127.0.0.1", 0))]


def test_inherited_sockets_stay_the_caller_s_when_one_is_bad() -> None:
    with socket.socket() as good, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bad:
        good.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="is not a TCP or unix stream socket"):
            inherit_sockets([good.fileno(), bad])
        assert good.getsockname()[0] == "127.0.0.1"
        (made,) = inherit_sockets(good)
        assert made is good
        assert good.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    with pytest.raises(ValueError, match="the list is empty"):
        inherit_sockets([])


def test_without_descriptors() -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1 port 0: Too many open files"):
            bind_tcp("127.0.0.1", 0)
