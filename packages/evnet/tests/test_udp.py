"""Making datagram transports: addresses, options, and what is refused."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evloop import Loop, LoopClosedError
from evloop.testing import open_descriptors, run_until
from evnet import bind_udp, connect_udp, open_datagram, resolve

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ANY = "0.0.0.0"  # what is tested


def option(transport: Any, name: int, level: int = socket.SOL_SOCKET) -> int:
    return int(transport.get_extra_info("socket").getsockopt(level, name))


def test_connection_made_comes_first(loop: Loop, gatherer: Callable[[], Any]) -> None:
    protocol = gatherer()
    transport = bind_udp(loop, lambda: protocol, "127.0.0.1", 0)
    assert protocol.transport is transport
    assert transport.get_extra_info("sockname")[1] > 0


@pytest.mark.parametrize(
    ("host", "name"), [(None, ANY), ("", ANY), ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "::")]
)
def test_hosts(loop: Loop, gatherer: Callable[[], Any], host: str | None, name: str) -> None:
    assert bind_udp(loop, gatherer, host, 0).get_extra_info("sockname")[0] == name


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1.5.6", "example.org"])
def test_names_are_refused_because_a_look_up_would_block(
    loop: Loop, gatherer: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    def ask(_host: object, *rest: int) -> None:
        assert rest[-1] & socket.AI_NUMERICHOST, "this may ask somebody"
        raise socket.gaierror(socket.EAI_NONAME, "no address")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    refused = pytest.raises(ValueError, match=rf"an address and a number, not '{host}' and .*evnet\.resolve")
    with refused:
        bind_udp(loop, gatherer, host, 0)
    with refused:
        connect_udp(loop, gatherer, host, 9)
    with refused:
        connect_udp(loop, gatherer, "127.0.0.1", 9, local_addr=(host, 0))


def test_what_is_no_address(loop: Loop, gatherer: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="not '' and 9"):
        connect_udp(loop, gatherer, "", 9)
    with pytest.raises(ValueError, match=r"not '127\.0\.0\.1' and 'domain'"):
        bind_udp(loop, gatherer, "127.0.0.1", "domain")  # type: ignore[arg-type]
    with pytest.raises(socket.gaierror):
        bind_udp(loop, gatherer, "::x", 0)


def test_a_name_by_way_of_resolve(loop: Loop, gatherer: Callable[[], Any]) -> None:
    bound = bind_udp(loop, gatherer, "127.0.0.1", 0)
    lookup = resolve(
        loop, "localhost", bound.get_extra_info("sockname")[1], family=socket.AF_INET, type=socket.SOCK_DGRAM
    )
    run_until(loop, lookup.done)
    connected = connect_udp(loop, gatherer, *lookup.result()[0][4])
    assert connected.get_extra_info("peername") == bound.get_extra_info("sockname")


@pytest.mark.parametrize("dual", [False, True])
def test_dual_stack(loop: Loop, gatherer: Callable[[], Any], dual: bool) -> None:
    protocol = gatherer()
    transport = bind_udp(loop, lambda: protocol, None if dual else "::", 0, dual_stack=dual)
    port = transport.get_extra_info("sockname")[1]
    assert bool(option(transport, socket.IPV6_V6ONLY, socket.IPPROTO_IPV6)) is not dual
    if dual:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.1", 0))
            client.sendto(b"four", ("127.0.0.1", port))
            run_until(loop, lambda: protocol.datagrams)
            address = protocol.datagrams[0][1]
            assert address == ("::ffff:127.0.0.1", client.getsockname()[1], 0, 0)
            client.setblocking(False)
            transport.sendto(b"back", address)
            transport.sendto(b"", ("::ffff:127.0.0.1", address[1]))
            run_until(loop, lambda: transport.stats().sent == 2)
            assert (client.recv(9), client.recv(9)) == (b"back", b"")


def test_a_taken_port_is_named_and_nothing_is_left_open(loop: Loop, gatherer: Callable[[], Any]) -> None:
    port = bind_udp(loop, gatherer, "127.0.0.1", 0).get_extra_info("sockname")[1]
    before = open_descriptors()
    with pytest.raises(OSError, match=f"cannot bind 127.0.0.1 port {port}: ") as caught:
        bind_udp(loop, gatherer, "127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match=r"cannot bind 192\.0\.2\.1 port 0: "):
        bind_udp(loop, gatherer, "192.0.2.1", 0)
    with pytest.raises(OSError, match=f"cannot bind 127.0.0.1 port {port}: "):
        connect_udp(loop, gatherer, "127.0.0.1", 9, local_addr=("127.0.0.1", port))
    with pytest.raises(OSError, match=r"cannot connect a datagram socket to 255\.255\.255\.255 port 9: ") as caught:
        connect_udp(loop, gatherer, "255.255.255.255", 9)
    assert caught.value.errno in (errno.EACCES, errno.ENETUNREACH)
    assert open_descriptors() == before


def test_sharing_a_port(loop: Loop, gatherer: Callable[[], Any]) -> None:
    for options in ({"reuse_port": True}, {"reuse_address": True}):
        port = bind_udp(loop, gatherer, "127.0.0.1", 0, **options).get_extra_info("sockname")[1]
        assert bind_udp(loop, gatherer, "127.0.0.1", port, **options).get_extra_info("sockname")[1] == port


def test_broadcast(loop: Loop, gatherer: Callable[[], Any]) -> None:
    """To all of the loopback network."""
    receiver, sender = gatherer(), gatherer()
    bind_udp(loop, lambda: receiver, ANY, 0)
    to = ("127.255.255.255", receiver.address[1])
    transport = bind_udp(loop, lambda: sender, ANY, 0, broadcast=True)
    assert option(transport, socket.SO_BROADCAST)
    transport.sendto(b"all", to)
    run_until(loop, lambda: receiver.datagrams)
    assert receiver.data == [b"all"]
    connected = gatherer()
    connect_udp(loop, lambda: connected, *to, broadcast=True).sendto(b"all again")
    run_until(loop, lambda: len(receiver.datagrams) == 2)


def test_a_local_address(loop: Loop, gatherer: Callable[[], Any]) -> None:
    peer, ours = gatherer(), gatherer()
    bind_udp(loop, lambda: peer, "127.0.0.1", 0)
    connect_udp(loop, lambda: ours, *peer.address, local_addr=("127.0.0.2", 0)).sendto(b"hello")
    run_until(loop, lambda: peer.datagrams)
    assert peer.datagrams == [(b"hello", ours.address)]
    assert ours.address[0] == "127.0.0.2"


def test_a_socket_from_elsewhere(loop: Loop, gatherer: Callable[[], Any]) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    name = sock.getsockname()
    assert open_datagram(loop, gatherer, sock).get_extra_info("sockname") == name
    assert sock.fileno() == -1


def test_what_is_no_datagram_socket(loop: Loop, gatherer: Callable[[], Any]) -> None:
    with socket.socket() as sock:
        with pytest.raises(ValueError, match="a datagram socket of IPv4, IPv6 or unix was expected"):
            open_datagram(loop, gatherer, sock)
        assert sock.fileno() >= 0


@pytest.mark.parametrize("name", ["max_datagram_size", "max_queued_size"])
def test_sizes(loop: Loop, gatherer: Callable[[], Any], name: str) -> None:
    for size in (0, -1):
        options: dict[str, Any] = {name: size}
        with pytest.raises(ValueError, match=f"{name} must be a number of bytes > 0, not {size}"):
            bind_udp(loop, gatherer, "127.0.0.1", 0, **options)
        with pytest.raises(ValueError, match=name):
            connect_udp(loop, gatherer, "127.0.0.1", 9, **options)
    options = {name: 1 << 70}
    bind_udp(loop, gatherer, "127.0.0.1", 0, **options)


@pytest.mark.parametrize("where", ["factory", "connection_made"])
def test_a_protocol_that_raises(loop: Loop, gatherer: Callable[[], Any], where: str) -> None:
    before = open_descriptors()

    class Raising(gatherer):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            super().__init__()
            if where == "factory":
                raise RuntimeError("no")

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            raise RuntimeError("no")

    for make in (bind_udp, connect_udp):
        with pytest.raises(RuntimeError):
            make(loop, Raising, "127.0.0.1", 9999)
        loop.run_once(0)
        loop.run_once(0)
    assert open_descriptors() == before


def test_a_closed_loop(gatherer: Callable[[], Any]) -> None:
    before = open_descriptors()
    loop = Loop()
    loop.close()
    with pytest.raises(LoopClosedError):
        bind_udp(loop, gatherer, "127.0.0.1", 0)
    assert open_descriptors() == before


def test_the_example(backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", EXAMPLES / "udp_echo.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "EVLOOP_BACKEND": backend, "PYTHONPATH": ":".join(path for path in sys.path if path)},
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-2:] == ["1000 questions, 1000 answers", "nobody there: Connection refused"]


def test_nobody_is_asked_for_an_address_in_digits(
    loop: Loop, gatherer: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*args: object) -> None:
        raise AssertionError(f"asked for {args!r}")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    bound = bind_udp(loop, gatherer, "127.0.0.1", 0)
    port = bound.get_extra_info("sockname")[1]
    connected = connect_udp(loop, gatherer, "127.0.0.1", port, local_addr=("127.0.0.1", 0))
    assert connected.get_extra_info("peername") == ("127.0.0.1", port)
    for transport in (bound, connected):
        transport.close()
    protocols: list[Any] = [bound.get_protocol(), connected.get_protocol()]
    run_until(loop, lambda: all(protocol.lost for protocol in protocols))
    with pytest.raises(ValueError, match="port"):
        connect_udp(loop, gatherer, "127.0.0.1", 65536)
