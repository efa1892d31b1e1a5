"""Listening, accepting, and ending both."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import subprocess
import sys
import weakref
from typing import Any

import pytest

import evnet
from evloop import Loop, LoopClosedError
from evloop.testing import checked_loop, in_child, open_descriptors
from evnet._options import stream_options
from evnet._server import Limit, Server

Pair = Any


def test_addresses_and_connections(pair: Pair) -> None:
    server = pair.listen()
    assert server.addresses[0][0] == "127.0.0.1"
    assert server.addresses[0][1] > 0
    assert server.connections == 0
    clients = [pair.connected()[0] for _ in range(3)]
    assert server.connections == 3
    clients[0].close()
    pair.until(lambda: server.connections == 2)


def test_more_clients_than_one_turn_accepts(pair: Pair) -> None:
    pair.listen(backlog=500)
    for number in range(300):
        client = pair.connect()
        client.sendall(b"%d" % number)
        client.shutdown(socket.SHUT_WR)
    pair.until(lambda: len(pair.made) == 300 and all("eof" in each.calls for each in pair.made))
    assert {int(each.data) for each in pair.made} == set(range(300))


def test_close_stops_listening_and_connections_go_on(pair: Pair) -> None:
    client, protocol = pair.connected()
    address = pair.server.addresses[0]
    pair.server.close()
    pair.server.close()
    assert pair.server.addresses == []
    pair.turns()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    client.sendall(b"still")
    pair.until(lambda: protocol.data == b"still")
    client.close()
    pair.until(lambda: "lost" in protocol.calls)


@pytest.mark.parametrize("moment", ["made", "data", "lost"])
def test_close_inside_a_callback(pair: Pair, recorder: Any, moment: str) -> None:
    """Those that were accepted in the same batch are served, none is forgotten."""

    class Closing(recorder):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if moment == "made":
                pair.server.close()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if moment == "data":
                pair.server.close()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if moment == "lost":
                pair.server.close()

    pair.listen(lambda: Closing(pair))
    clients = [pair.connect() for _ in range(10)]
    for client in clients:
        client.sendall(b"x")
        client.shutdown(1)
    # All ten were accepted in one batch; the first one's callback has closed the server.
    pair.until(lambda: len(pair.made) == 10)
    pair.until(lambda: all("lost" in each.calls for each in pair.made))
    assert all(each.data == b"x" for each in pair.made)
    for client in clients:
        assert client.recv(1) == b""
    assert pair.server.addresses == []


def test_a_new_server_after_close_in_the_same_batch(pair: Pair, recorder: Any) -> None:
    """The numbers by which records find their receivers are used again only when none of the old ones is under way."""
    second: list[evnet.Server] = []

    class Replacing(recorder):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if not second:
                pair.server.close()
                second.append(evnet.listen_tcp(pair.loop, lambda: recorder(pair), "127.0.0.1", 0))

    pair.listen(lambda: Replacing(pair))
    clients = [pair.connect() for _ in range(5)]
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
    pair.until(lambda: len(pair.made) == 5 and all(each.data for each in pair.made))
    assert {bytes(each.data) for each in pair.made} == {b"0", b"1", b"2", b"3", b"4"}
    pair.server = second[0]
    client, protocol = pair.connected()
    client.sendall(b"second")
    pair.until(lambda: protocol.data == b"second")


@pytest.mark.parametrize("where", ["factory", "connection_made"])
def test_a_protocol_that_cannot_be_made(pair: Pair, recorder: Any, where: str) -> None:
    """Its client is told by a reset, the exception is reported, the next client is served."""
    reported: list[dict[str, Any]] = []
    pair.loop.set_exception_handler(lambda _, context: reported.append(context))
    broken = True

    class Failing(recorder):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if broken and where == "connection_made":
                raise RuntimeError("no")

    def factory() -> Any:
        if broken and where == "factory":
            raise RuntimeError("no")
        return Failing(pair)

    pair.listen(factory)
    client = pair.connect()
    client.sendall(b"x")
    pair.until(lambda: reported)
    pair.turns()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert [str(context["exception"]) for context in reported] == ["no"]
    assert pair.server.connections == 0
    if where == "connection_made":
        pair.until(lambda: pair.made[0].calls == ["made", "lost"])
    broken = False
    client, protocol = pair.connected()
    client.sendall(b"fine")
    pair.until(lambda: protocol.data == b"fine")


# -- limits ---------------------------------------------------------------------------------------------------------------------


def test_over_the_limit_clients_wait(pair: Pair, recorder: Any) -> None:
    """On all addresses together; while they wait nothing happens, and each place is taken as soon as it is free."""
    hosts = ["127.0.0.1", "127.0.0.2"]
    server = evnet.listen_tcp(pair.loop, lambda: recorder(pair), hosts, 0, max_connections=3)
    for number in range(8):
        client = socket.create_connection(server.addresses[number % 2], timeout=10)
        pair.clients.append(client)
        client.sendall(b"%d" % number)
    pair.until(lambda: len(pair.made) == 3)
    pair.turns()
    events = pair.loop.stats().events
    pair.turns(5)
    assert pair.loop.stats().events == events
    assert server.connections == 3
    served = []
    for count in range(3, 11):
        pair.until(lambda count=count: len(pair.made) == min(count, 8) and all(each.data for each in pair.made))
        protocol = next(each for each in pair.made if "lost" not in each.calls)
        served.append(int(protocol.data))
        protocol.transport.close()
        pair.until(lambda protocol=protocol: "lost" in protocol.calls)
        assert server.connections <= 3
    assert sorted(served) == list(range(8))
    # The two addresses take turns: whichever was first when the three were taken, its clients are not all served before the others.
    assert {number % 2 for number in served[3:5]} == {0, 1}
    assert server.connections == 0
    assert server.stats() == evnet.ServerStats(accepted=8, open=0, refused=0, shed=0)


def test_a_server_that_stays_full_accepts_without_asking_the_poller(pair: Pair) -> None:
    """Each that leaves makes room for one that waits, in the very next turn."""
    pair.listen(max_connections=1)
    for number in range(50):
        pair.connect().sendall(b"%d" % number)
    pair.until(lambda: pair.made)
    turns = 0
    while len(pair.made) < 50 or not pair.made[-1].data:
        if pair.made[-1].data and not pair.made[-1].transport.is_closing():
            pair.made[-1].transport.close()
        pair.loop.run_once(5)
        turns += 1
    # One to close, and accept the next at its end; one in which its bytes come.
    assert turns <= 50 * 3
    assert pair.server.connections == 1


def test_over_the_limit_clients_are_refused(pair: Pair) -> None:
    server = pair.listen(max_connections=2, when_full="refuse")
    welcome = [pair.connected()[0] for _ in range(2)]
    for number in range(1, 4):
        client = pair.connect()
        pair.until(lambda number=number: server.stats().refused == number)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert server.stats() == evnet.ServerStats(accepted=2, open=2, refused=3, shed=0)
    welcome[0].close()
    pair.until(lambda: server.connections == 1)
    client, protocol = pair.connected()
    client.sendall(b"in")
    pair.until(lambda: protocol.data == b"in")


def test_closing_a_full_server(pair: Pair) -> None:
    """Who waited is reset by the kernel, who is served goes on, and the loop does not stumble over a place that becomes free."""
    server = pair.listen(max_connections=1)
    client, protocol = pair.connected()
    waiting = pair.connect()
    pair.turns()
    protocol.transport.close()  # a place becomes free in the turn in which the server is closed
    server.close()
    with pytest.raises(ConnectionResetError):
        waiting.recv(1)
    assert pair.read(client, 1) == b""
    pair.until(lambda: "lost" in protocol.calls)
    pair.turns()
    assert server.stats() == evnet.ServerStats(accepted=1, open=0, refused=0, shed=0)


def test_a_factory_that_raises_takes_no_place(pair: Pair, recorder: Any) -> None:
    reported: list[Any] = []
    pair.loop.set_exception_handler(lambda _, context: reported.append(context))

    def factory() -> Any:
        if len(reported) < 5:
            raise RuntimeError("no")
        return recorder(pair)

    pair.listen(factory, max_connections=1)
    for _ in range(6):
        pair.connect()
    pair.until(lambda: pair.made)
    assert len(reported) == 5
    assert pair.server.stats() == evnet.ServerStats(accepted=6, open=1, refused=0, shed=0)


def test_a_flood_does_not_starve_a_client(pair: Pair, recorder: Any) -> None:
    """Counted in turns: the client that is there is served in each turn, in which only so many are accepted."""

    class Echo(recorder):  # type: ignore[misc]
        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    pair.listen(lambda: Echo(pair), backlog=1000)
    client, _ = pair.connected()
    client.setblocking(False)
    flood = 400
    for _ in range(flood):
        pair.connect()
    accepted, turns, answered = 1, 0, 0
    while accepted < flood + 1:
        client.send(b"x")
        pair.loop.run_once(5)  # which would sleep for seconds if it waited for an event that does not come
        turns += 1
        pair.loop.flush()
        answered += len(client.recv(100))
        new, accepted = pair.server.stats().accepted - accepted, pair.server.stats().accepted
        assert new <= 32
    assert answered == turns
    assert turns == -(-flood // 32)
    assert len(pair.made) == flood + 1


# -- descriptors from elsewhere --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "unix", "number"])
def test_adopt(pair: Pair, kind: str) -> None:
    server = pair.listen(max_connections=2)
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        if kind == "unix":
            client, given = socket.socketpair()
        else:
            client = socket.create_connection(elsewhere.getsockname())
            given, _ = elsewhere.accept()
    client.settimeout(10)
    client.sendall(b"early")
    connection = server.adopt(given.detach() if kind == "number" else given)
    assert given.fileno() == -1
    (protocol,) = pair.made
    assert protocol.transport is connection
    expected = client.getsockname() if kind != "unix" else None
    assert connection.get_extra_info("peername") in (expected, "")
    pair.until(lambda: protocol.data == b"early")
    connection.write(b"answer")
    assert pair.read(client, 6) == b"answer"
    assert server.stats() == evnet.ServerStats(accepted=1, open=1, refused=0, shed=0)
    client.close()
    pair.until(lambda: protocol.calls == ["made", "eof", "lost"])
    pair.until(lambda: server.connections == 0)


def test_adopted_connections_count(pair: Pair) -> None:
    """They are taken over the limit, and when they end one that waits has its place."""
    server = pair.listen(max_connections=1)
    one, given = socket.socketpair()
    two, other = socket.socketpair()
    with one, two:
        server.adopt(given)
        server.adopt(other)
        assert server.connections == 2
        waiting = pair.connect()
        waiting.sendall(b"w")
        pair.turns()
        assert server.connections == 2
        one.close()
        pair.until(lambda: server.connections == 1)
        pair.turns()
        assert len(pair.made) == 2
        two.close()
        pair.until(lambda: len(pair.made) == 3 and pair.made[2].data == b"w")


def test_adopted_connections_go_on_after_close(pair: Pair) -> None:
    server = pair.listen()
    client, given = socket.socketpair()
    with client:
        server.adopt(given)
        server.close()
        client.sendall(b"x")
        pair.until(lambda: pair.made[0].data == b"x")
        other, late = socket.socketpair()
        with other, late, pytest.raises(evnet.EvNetError, match="the server is closed"):
            server.adopt(late)
    pair.until(lambda: server.connections == 0)


@pytest.mark.parametrize("kind", ["not connected", "datagram", "file", "closed"])
def test_what_cannot_be_adopted(pair: Pair, kind: str) -> None:
    server = pair.listen()
    unconnected, left_right = socket.socket(), socket.socketpair(type=socket.SOCK_DGRAM)
    with open(os.devnull) as file, unconnected, left_right[0], left_right[1]:
        closed = os.dup(file.fileno())
        os.close(closed)
        before = open_descriptors()
        given = {
            "not connected": unconnected,
            "datagram": left_right[0].fileno(),
            "file": file.fileno(),
            "closed": closed,
        }[kind]
        with pytest.raises(OSError):  # noqa: PT011 - each system call has its own
            server.adopt(given)
        assert open_descriptors() == before
    assert server.stats() == evnet.ServerStats(0, 0, 0, 0)
    pair.connected()


@pytest.mark.parametrize("where", ["factory", "connection_made"])
@pytest.mark.parametrize("kind", ["socket", "number"])
def test_adopting_for_a_protocol_that_raises(pair: Pair, recorder: Any, where: str, kind: str) -> None:
    class Failing(recorder):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            raise RuntimeError("no")

    def factory() -> Any:
        if where == "factory":
            raise RuntimeError("no")
        return Failing(pair)

    server = pair.listen(factory)
    client, given = socket.socketpair()
    with client:
        with pytest.raises(RuntimeError, match="no"):
            server.adopt(given if kind == "socket" else given.fileno())
        if where == "factory":
            given.sendall(b"mine")
            assert client.recv(9) == b"mine"
            given.close()
        else:
            if kind == "number":
                given.detach()
            assert given.fileno() == -1
            pair.until(lambda: pair.made[0].calls == ["made", "lost"])
            assert client.recv(1) == b""
        pair.turns()
        assert server.connections == 0


# -- ends -----------------------------------------------------------------------------------------------------------------------


def test_close_clients(pair: Pair) -> None:
    """What is queued is sent, and the server goes on listening."""
    clients = [pair.connected() for _ in range(3)]
    for _, protocol in clients:
        protocol.transport.write(b"bye")
    pair.server.close_clients()
    for client, protocol in clients:
        assert pair.read(client, 9) == b"bye"
        pair.until(lambda protocol=protocol: protocol.calls[-1] == "lost")
        assert protocol.error is None
    assert pair.server.connections == 0
    pair.connected()


def test_abort(pair: Pair) -> None:
    clients = [pair.connected() for _ in range(3)]
    assert pair.server.abort() == 3
    for client, protocol in clients:
        pair.until(lambda protocol=protocol: protocol.calls == ["made", "lost"])
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert pair.server.addresses == []
    assert pair.server.abort() == 0


def test_abort_inside_a_callback_reaches_those_of_the_same_batch(pair: Pair, recorder: Any) -> None:
    class Aborting(recorder):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            pair.server.abort()

    pair.listen(lambda: Aborting(pair))
    clients = [pair.connect() for _ in range(5)]
    pair.until(lambda: pair.made and pair.made[0].calls[-1] == "lost")
    for client in clients:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert len(pair.made) == 1
    assert pair.server.stats().open == 0


def test_a_socket_that_cannot_be_watched(loop: Loop, backend: str) -> None:
    """Nothing is left of the server; the sockets stay the caller's."""
    if backend == "poll":
        pytest.skip("poll takes every descriptor")

    class File:  # which epoll refuses
        family = socket.AF_INET
        fileno = staticmethod(lambda: file.fileno())
        getsockname = staticmethod(lambda: ("a.file", 80))

    with open(__file__) as file, socket.create_server(("127.0.0.1", 0)) as good:
        good.setblocking(False)
        before = open_descriptors()
        with pytest.raises(PermissionError, match=r"cannot watch the socket that listens on a\.file port 80: "):
            Server(loop, [good, File()], lambda: None, stream_options(), limit=Limit())  # type: ignore[list-item,arg-type,return-value]
        assert open_descriptors() == before
        with socket.create_connection(good.getsockname()) as client:
            loop.run_once(0)
            good.accept()[0].close()
            assert client.recv(1) == b""
        evnet.listen_socket(loop, lambda: None, good).close()  # type: ignore[arg-type,return-value]


def test_repr(pair: Pair) -> None:
    server = pair.listen()
    assert repr(server) == f"<Server 127.0.0.1 port {server.addresses[0][1]}, 0 connections>"
    server.close()
    assert repr(server) == "<Server closed, 0 connections>"


def test_a_loop_keeps_nothing_of_servers_that_were_closed(loop: Loop) -> None:
    def make() -> weakref.ref[evnet.Server]:
        server = evnet.listen_tcp(loop, lambda: None, "127.0.0.1", 0)  # type: ignore[arg-type,return-value]
        server.close()
        return weakref.ref(server)

    made = [make() for _ in range(3)]
    loop.run_once(0)
    gc.collect()
    assert [each() for each in made] == [None] * 3


def test_closing_the_loop_with_open_connections(backend: str, make_pair: Any) -> None:
    with checked_loop(backend) as loop:  # which checks that all descriptors are closed
        pair = make_pair(loop)
        clients = [pair.connected(receive_buffer=4096) for _ in range(5)]
        for _, protocol in clients:
            protocol.transport.write(b"x" * 1_000_000)
        pair.turns()
        loop.close()
        for client, protocol in clients:
            assert "lost" not in protocol.calls  # as with asyncio: who closes the loop knows
            with pytest.raises(ConnectionResetError):
                pair.drain(client)
        pair.close()


@pytest.mark.parametrize("loop_first", [False, True], ids=["server-first", "loop-first"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_server_closed_in_a_forked_child_goes_on_in_the_parent(pair: Pair, loop_first: bool, secure: bool) -> None:
    """The child lets go of its descriptors; the kernel's list of what is waited for is one for both."""
    server = pair.listen(ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) if secure else pair.listen()
    connected = None if secure else pair.connected()

    def check() -> None:
        if loop_first:
            pair.loop.close()
        if connected is not None:
            connected[1].transport.abort()
        server.close_clients()
        server.close()
        server.close()
        pair.loop.close()
        assert server.addresses == []

    in_child(check)
    if connected is not None:
        client, protocol = connected
        client.sendall(b"still here")
        pair.until(lambda: protocol.data == b"still here")
        assert pair.connected()[1].calls == ["made"]
    else:
        accepted = server.stats().accepted
        pair.connect()
        pair.until(lambda: server.stats().accepted == accepted + 1)


def test_listening_on_a_closed_loop(backend: str) -> None:
    loop = Loop(backend=backend)
    loop.close()
    before = open_descriptors()
    with pytest.raises(LoopClosedError):
        evnet.listen_tcp(loop, lambda: None, "127.0.0.1", 0)  # type: ignore[arg-type,return-value]
    assert open_descriptors() == before


EMFILE = """
import logging, resource, socket, sys, time
import evnet
from evloop import Loop
from evloop.testing import run_until

logged = []
handler = logging.Handler()
handler.emit = lambda record: logged.append(record.getMessage())
logging.getLogger("evnet").addHandler(handler)
loop = Loop(backend=sys.argv[1])
made, lost = [], []

class Protocol:
    def connection_made(self, transport): made.append(transport)
    def data_received(self, data): got.append(data)
    def eof_received(self): return False
    def connection_lost(self, exc): lost.append(exc)

got = []
server = evnet.listen_tcp(loop, Protocol, "127.0.0.1", 0)
# The clients are made first and take their numbers; then the limit leaves the server ten.
clients = [socket.socket() for _ in range(40)]
for client in clients:
    client.settimeout(10)
highest = max(client.fileno() for client in clients)
resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 11, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for client in clients:
    client.connect(server.addresses[0])

def is_shut(client):
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True

# Everybody is either served or hung up on: nobody is left in the queue, and the loop does not spin.
shut = set()
def settled():
    shut.update(client for client in clients if client not in shut and is_shut(client))
    return len(made) + len(shut) == 40
run_until(loop, settled)
assert 5 <= len(made) <= 11, len(made)
stats = server.stats()
assert (stats.accepted, stats.open, stats.refused, stats.shed) == (len(made), len(made), 0, 40 - len(made)), stats
# One message, not one a client.
host, port = server.addresses[0]
assert len(logged) == 1, logged
assert logged[0].startswith(f"cannot accept clients on {host} port {port}: Too many open files; "), logged
turns, until = 0, time.monotonic() + 0.2
while time.monotonic() < until:
    loop.run_once(0.05)
    turns += 1
assert turns < 30, turns
# Those who are served are not harmed; when some leave, new ones are welcome.
served = [client for client in clients if client not in shut]
for client in served:
    client.setblocking(True)
    client.sendall(b"x")
run_until(loop, lambda: len(got) == len(served))
for client in clients[:]:
    client.close()
run_until(loop, lambda: len(lost) == len(made))
before = len(made)
fresh = socket.create_connection(server.addresses[0])
fresh.sendall(b"fresh")
run_until(loop, lambda: got[-1] == b"fresh")
assert len(made) == before + 1
loop.close()
fresh.close()
print("ok")
"""


def test_without_descriptors_load_is_shed_and_the_server_recovers(backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", EMFILE, backend], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "ok\n", done.stderr
