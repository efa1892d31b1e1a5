"""Listening, accepting, and ending both."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import pytest

import evnet
from evloop import Loop, LoopClosedError
from evloop.testing import checked_loop, open_descriptors

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


def test_listening_on_a_closed_loop(backend: str) -> None:
    loop = Loop(backend=backend)
    loop.close()
    before = open_descriptors()
    with pytest.raises(LoopClosedError):
        evnet.listen_tcp(loop, lambda: None, "127.0.0.1", 0)  # type: ignore[arg-type,return-value]
    assert open_descriptors() == before


EMFILE = """
import resource, socket, sys, time
import evnet
from evloop import Loop
from evloop.testing import run_until

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
