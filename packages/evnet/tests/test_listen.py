"""The three ways to listen: what they take, what they refuse, and that nothing is left of what failed."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import evnet
from evloop import Loop, LoopClosedError
from evloop.testing import open_descriptors

Pair = Any
needs_ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6")


def nothing() -> Any:
    raise AssertionError("nobody connects")


def serve(pair: Pair, recorder: Any) -> Callable[[], Any]:
    return lambda: recorder(pair)


# -- addresses ------------------------------------------------------------------------------------------------------------------


def test_several_hosts_share_a_port(pair: Pair, recorder: Any) -> None:
    server = evnet.listen_tcp(pair.loop, serve(pair, recorder), ["127.0.0.1", "127.0.0.2"], 0)
    (one, port), (two, same) = server.addresses
    assert (one, two) == ("127.0.0.1", "127.0.0.2")
    assert port == same
    for address in server.addresses:
        with socket.create_connection(address) as client:
            client.sendall(address[0].encode())
            pair.until(lambda address=address: any(each.data == address[0].encode() for each in pair.made))
    assert server.stats().accepted == 2


@needs_ipv6
def test_every_interface_and_both_families(pair: Pair, recorder: Any) -> None:
    server = evnet.listen_tcp(pair.loop, serve(pair, recorder), None, 0)
    assert sorted(host for host, _ in server.addresses) == ["0.0.0.0", "::"]
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, server.addresses[0][1])):
            pair.until(
                lambda host=host: any(each.transport.get_extra_info("peername")[0] == host for each in pair.made)
            )


@needs_ipv6
@pytest.mark.parametrize("host", [None, "", "::"])
def test_one_socket_for_both_families(pair: Pair, recorder: Any, host: str | None) -> None:
    """The IPv4 client is called by its IPv4 address, as on a socket of its own family."""
    server = evnet.listen_tcp(pair.loop, serve(pair, recorder), host, 0, dual_stack=True)
    assert [host for host, _ in server.addresses] == ["::"]
    for number, (peer, count) in enumerate([("127.0.0.1", 2), ("::1", 4)]):
        with socket.create_connection((peer, server.addresses[0][1])) as client:
            pair.until(lambda number=number: len(pair.made) > number)
            name = pair.made[number].transport.get_extra_info("peername")
            assert name[:2] == client.getsockname()[:2]
            assert len(name) == count


def test_listening_on_a_socket_of_ones_own(pair: Pair, recorder: Any) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    pair.server = evnet.listen_socket(pair.loop, serve(pair, recorder), sock)
    assert pair.server.addresses == [sock.getsockname()]
    client, protocol = pair.connected()
    client.sendall(b"hello")
    pair.until(lambda: protocol.data == b"hello")
    assert not sock.getblocking()
    pair.server.close()
    assert sock.fileno() == -1


def test_listening_on_bound_sockets_and_descriptors_together(pair: Pair, recorder: Any, tmp_path: Path) -> None:
    """A socket that is only bound is made to listen; the file of one that somebody else has made stays."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s"))
    unix.listen()
    server = evnet.listen_socket(pair.loop, serve(pair, recorder), [bound, unix.detach()])
    assert server.addresses == [bound.getsockname()]
    assert server.paths == [str(tmp_path / "s")]
    with socket.create_connection(server.addresses[0]) as first, socket.socket(socket.AF_UNIX) as second:
        second.connect(str(tmp_path / "s"))
        first.sendall(b"tcp")
        second.sendall(b"unix")
        pair.until(lambda: {bytes(each.data) for each in pair.made} == {b"tcp", b"unix"})
    server.close()
    assert server.paths == []
    assert (tmp_path / "s").is_socket()


@pytest.mark.parametrize("way", ["tcp", "socket"])
def test_keepalive_is_inherited_by_what_is_accepted(pair: Pair, recorder: Any, way: str) -> None:
    keep_alive = evnet.KeepAlive(idle=30, interval=4.5, count=3)
    if way == "tcp":
        server = evnet.listen_tcp(pair.loop, serve(pair, recorder), "127.0.0.1", 0, keep_alive=keep_alive)
    else:
        sock = socket.create_server(("127.0.0.1", 0))
        server = evnet.listen_socket(pair.loop, serve(pair, recorder), sock.detach(), keep_alive=keep_alive)
    before = open_descriptors()
    with socket.create_connection(server.addresses[0]) as client:
        pair.until(lambda: pair.made)
        (number,) = open_descriptors() - before - {client.fileno()}
        with socket.socket(fileno=os.dup(number)) as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
            assert [accepted.getsockopt(socket.IPPROTO_TCP, each) for each in options] == [30, 5, 3]
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# -- bad input ------------------------------------------------------------------------------------------------------------------

BAD = {
    "port -1": ({"port": -1}, ValueError, "port must be from 0 to 65535, not -1"),
    "port 65536": ({"port": 65536}, ValueError, "port must be from 0 to 65535, not 65536"),
    "port as text": ({"port": "80"}, TypeError, "port must be an integer, not '80'"),
    "no host": ({"host": []}, ValueError, "the list is empty"),
    "host of bytes": ({"host": [b"localhost"]}, TypeError, "a host must be a string or None, not b'localhost'"),
    "host that is no name": ({"host": "x" * 64 + ".invalid"}, ValueError, "is not a host name"),
    "host with a zero byte": ({"host": "local\0host"}, ValueError, "null character"),
    "unknown host": ({"host": "nobody.invalid"}, socket.gaierror, "cannot listen on 'nobody.invalid': "),
    "no address": ({"host": "1.2.3.4.5"}, socket.gaierror, "cannot listen on '1.2.3.4.5': "),
    "not ours": ({"host": "192.0.2.1"}, OSError, "cannot listen on 192.0.2.1 port 0: Cannot assign"),
    "second not ours": (
        {"host": ["127.0.0.1", "192.0.2.1"]},
        OSError,
        r"cannot listen on 192.0.2.1 port \d+: Cannot assign",
    ),
    "dual stack of one address": ({"dual_stack": True}, ValueError, "dual_stack listens on every interface"),
    "backlog 0": ({"backlog": 0}, ValueError, "backlog must be from 1 to"),
    "backlog over int": ({"backlog": 1 << 31}, ValueError, "backlog must be from 1 to"),
    "no factory": ({"protocol_factory": None}, TypeError, "the protocol factory must be callable, not None"),
    "max_connections 0": ({"max_connections": 0}, ValueError, "max_connections must be None or from 1 to"),
    "max_connections -1": ({"max_connections": -1}, ValueError, "max_connections must be None or from 1 to"),
    "max_connections 2**32": ({"max_connections": 1 << 32}, ValueError, "max_connections must be None or from 1 to"),
    "when_full": ({"when_full": "queue"}, ValueError, "when_full must be 'wait' or 'refuse', not 'queue'"),
    "idle_timeout 0": ({"idle_timeout": 0}, ValueError, "idle_timeout must be"),
    "idle_timeout -1": ({"idle_timeout": -1}, ValueError, "idle_timeout must be"),
    "write_timeout 0": ({"write_timeout": 0}, ValueError, "write_timeout must be"),
    "max_queued 0": ({"max_queued": 0}, ValueError, "max_queued must be"),
    "idle_timeout nan": ({"idle_timeout": float("nan")}, ValueError, "idle_timeout must be"),
}


@pytest.mark.parametrize(("options", "error", "says"), BAD.values(), ids=BAD)
def test_bad_input(loop: Loop, options: dict[str, Any], error: type[Exception], says: str) -> None:
    before = open_descriptors()
    arguments: dict[str, Any] = {"protocol_factory": nothing, "host": "127.0.0.1", "port": 0, **options}
    with pytest.raises(error, match=says):
        evnet.listen_tcp(loop, **arguments)
    assert open_descriptors() == before
    evnet.listen_tcp(loop, nothing, "127.0.0.1", 0).close()


@pytest.mark.parametrize(
    "option",
    ["backlog", "max_connections", "when_full", "idle_timeout", "write_timeout", "max_queued", "protocol_factory"],
)
@pytest.mark.parametrize("way", ["unix", "socket"])
def test_bad_input_the_other_ways(loop: Loop, tmp_path: Path, way: str, option: str) -> None:
    options: dict[str, Any] = {"protocol_factory": nothing, option: -1}
    before = open_descriptors()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        ways = {
            "unix": partial(evnet.listen_unix, loop, path=tmp_path / "s"),
            "socket": partial(evnet.listen_socket, loop, sock=sock),
        }
        with pytest.raises((ValueError, TypeError), match=option.replace("_", "[ _]")):
            ways[way](**options)
        assert sock.fileno() >= 0
    assert open_descriptors() == before
    assert not list(tmp_path.iterdir())


def test_an_address_in_use(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = open_descriptors()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use") as caught:
            evnet.listen_tcp(loop, nothing, ["127.0.0.2", "127.0.0.1"], port)
        assert caught.value.errno == errno.EADDRINUSE
        assert open_descriptors() == before


@pytest.mark.parametrize("kind", ["negative", "closed", "file", "datagram", "connected", "none"])
def test_a_descriptor_that_cannot_listen(loop: Loop, kind: str) -> None:
    """It stays open, and so does the good one beside it."""
    left, right = socket.socketpair()
    datagram = socket.socket(type=socket.SOCK_DGRAM)
    good = socket.create_server(("127.0.0.1", 0))
    null = os.open(os.devnull, os.O_RDONLY)
    closed = os.dup(null)
    os.close(closed)
    number = {"negative": -5, "closed": closed, "file": null, "datagram": datagram.fileno(), "connected": left.fileno()}
    before = open_descriptors()
    if kind == "none":
        with pytest.raises(ValueError, match="the list is empty"):
            evnet.listen_socket(loop, nothing, [])
    elif kind == "negative":
        with pytest.raises(ValueError, match="a descriptor must be >= 0, not -5"):
            evnet.listen_socket(loop, nothing, [good, -5])
    else:
        with pytest.raises(OSError, match=f"cannot listen on descriptor {number[kind]}: "):
            evnet.listen_socket(loop, nothing, [good, number[kind]])
    assert open_descriptors() == before
    os.close(null)
    for each in (left, right, datagram, good):
        each.close()


def test_on_a_closed_loop(backend: str, tmp_path: Path) -> None:
    loop = Loop(backend=backend)
    loop.close()
    before = open_descriptors()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listening: tuple[Callable[[], object], ...] = (
            lambda: evnet.listen_tcp(loop, nothing, "127.0.0.1", 0),
            lambda: evnet.listen_unix(loop, nothing, tmp_path / "s"),
            lambda: evnet.listen_socket(loop, nothing, sock),
        )
        for listen in listening:
            with pytest.raises(LoopClosedError):
                listen()
    assert open_descriptors() == before
    assert not list(tmp_path.iterdir())
