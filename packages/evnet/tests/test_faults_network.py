"""Networks that lose, delay, repeat, corrupt and reorder what is sent, and cables that are pulled.

Two network namespaces, each with a TUN device; between the two this program is the cable, and does to each packet what the test
asks for, from a seed. (tc-netem(8) does the same where the kernel has it, and not twice the same.) Sockets belong to the namespace
in which they are made: server and client are in one process, and only the making of their sockets goes there. Needs root and
iproute2.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import heapq
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import evnet
from evloop.testing import run_until

Pair = Any
CLONE_NEWNET = 0x4000_0000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x4004_54CA, 0x0001, 0x1000
TCP_REPAIR = 19
SERVER, CLIENT = "10.77.0.1", "10.77.0.2"
DATA = random.Random(7).randbytes(300_000)


@dataclass(frozen=True)
class Trouble:
    """What happens to packets: probabilities, and seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0  # more than there is between two packets reorders them

    def __str__(self) -> str:
        return " ".join(f"{name} {value}" for name, value in vars(self).items() if value)


class Cable:
    """Two namespaces, and what is between them."""

    def __init__(self) -> None:
        self.names = {SERVER: f"evnet-s{os.getpid()}", CLIENT: f"evnet-c{os.getpid()}"}
        self.trouble = Trouble()
        self.carried = 0
        self.ends: list[int] = []
        self.thread: threading.Thread | None = None
        self.stop_at, self.stop = os.pipe()

    def lay(self) -> None:
        for address, name in self.names.items():
            (other,) = {SERVER, CLIENT} - {address}
            run("ip", "netns", "add", name)
            with self.inside(address):
                end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                self.ends.append(end)
                fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", b"cable", IFF_TUN | IFF_NO_PI))
            run("ip", "-n", name, "addr", "add", address, "peer", other, "dev", "cable")
            run("ip", "-n", name, "link", "set", "cable", "up")
            self.route(address)
        self.thread = threading.Thread(target=self.carry, daemon=True)
        self.thread.start()

    def route(self, address: str) -> None:
        """Lost segments are sent again after milliseconds: the tests are about that, not about how long it takes."""
        (other,) = {SERVER, CLIENT} - {address}
        where = ("dev", "cable", "src", address)
        run("ip", "-n", self.names[address], "route", "replace", other, *where, "rto_min", "10ms")

    def carry(self) -> None:
        """Take what comes in at one end, and put it out at the other when its time has come."""
        chance = random.Random(3)
        other = dict(zip(self.ends, reversed(self.ends), strict=True))
        under_way: list[tuple[float, int, int, bytes]] = []
        poller = select.poll()
        for each in (*self.ends, self.stop_at):
            poller.register(each, select.POLLIN)
        while True:
            wait = max(under_way[0][0] - time.monotonic(), 0) * 1000 if under_way else None
            ready = [number for number, _ in poller.poll(wait)]
            if self.stop_at in ready:
                return
            trouble = self.trouble
            for end in ready:
                packet = os.read(end, 65536)
                for _ in range(1 + (chance.random() < trouble.duplicate)):
                    if chance.random() < trouble.loss:
                        continue
                    if chance.random() < trouble.corrupt:
                        at = chance.randrange(len(packet))
                        packet = packet[:at] + bytes([packet[at] ^ 1 << chance.randrange(8)]) + packet[at + 1 :]
                    self.carried += 1
                    due = time.monotonic() + max(trouble.delay + trouble.jitter * chance.uniform(-1, 1), 0)
                    heapq.heappush(under_way, (due, self.carried, other[end], packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(under_way)
                try:
                    os.write(end, packet)
                except OSError:  # the interface is down
                    continue

    def remove(self) -> None:
        if self.thread is not None:
            os.write(self.stop, b"x")
            self.thread.join(10)
        for each in (*self.ends, self.stop, self.stop_at):
            os.close(each)
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20, check=False)

    def pull(self) -> None:
        self.trouble = Trouble(loss=1)

    def plug(self) -> None:
        self.trouble = Trouble()

    @contextmanager
    def inside(self, address: str) -> Iterator[None]:
        """What is made here is at this end of the cable."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.names[address]}", os.O_RDONLY)
        try:
            enter(there)
            yield
        finally:
            enter(home)
            os.close(there)
            os.close(home)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "setns")


@pytest.fixture(scope="module")
def laid() -> Iterator[Cable]:
    if os.geteuid() != 0:
        pytest.skip("making network namespaces needs root")
    if shutil.which("ip") is None:
        pytest.skip("making network namespaces needs iproute2")
    cable = Cable()
    try:
        try:
            cable.lay()
        except (RuntimeError, OSError) as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield cable
    finally:
        cable.remove()


@pytest.fixture
def cable(laid: Cable) -> Cable:
    laid.plug()
    return laid


class Far:
    """A server at one end of the cable and clients at the other; a neighbour on loopback, whom nothing of this may hurt."""

    def __init__(self, pair: Pair, recorder: Any, cable: Cable) -> None:
        self.pair, self.recorder, self.cable = pair, recorder, cable
        neighbours = evnet.listen_tcp(pair.loop, Echo, "127.0.0.1", 0)  # type: ignore[arg-type]
        self.neighbour = socket.create_connection(neighbours.addresses[0], timeout=10)
        pair.clients.append(self.neighbour)

    def listen(self, **options: Any) -> evnet.Server:
        with self.cable.inside(SERVER):
            self.server = evnet.listen_tcp(self.pair.loop, lambda: self.recorder(self.pair), SERVER, 0, **options)
        return self.server

    def connect(self) -> tuple[socket.socket, Any]:
        count = len(self.pair.made)
        with self.cable.inside(CLIENT):
            client = socket.socket()
        self.pair.clients.append(client)
        client.setblocking(False)
        assert client.connect_ex(self.server.addresses[0]) == errno.EINPROGRESS
        run_until(self.pair.loop, lambda: len(self.pair.made) > count, 30)
        return client, self.pair.made[-1]

    def until(self, condition: Any) -> None:
        run_until(self.pair.loop, condition, 40)

    def check_neighbour(self) -> None:
        self.neighbour.sendall(b"still there?")
        assert self.pair.read(self.neighbour, 12) == b"still there?"


class Echo:
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None: ...


@pytest.fixture
def far(pair: Pair, recorder: Any, cable: Cable) -> Far:
    return Far(pair, recorder, cable)


def send(far: Far, client: socket.socket, data: bytes) -> None:
    """Send with the loop running, and without waiting for what is on its way."""
    left = memoryview(data)

    def more() -> None:
        nonlocal left
        left = left[client.send(left) :]

    far.pair.loop.add_writer(client.fileno(), more)
    try:
        far.until(lambda: not left)
    finally:
        far.pair.loop.remove_writer(client.fileno())


def receive(far: Far, client: socket.socket, count: int) -> bytes:
    got = bytearray()
    far.pair.loop.add_reader(client.fileno(), lambda: got.extend(client.recv(65536)))
    try:
        far.until(lambda: len(got) >= count)
    finally:
        far.pair.loop.remove_reader(client.fileno())
    return bytes(got)


TROUBLES = [
    Trouble(loss=0.05),
    Trouble(delay=0.02),
    Trouble(delay=0.004, jitter=0.004),
    Trouble(duplicate=0.2),
    Trouble(corrupt=0.02),
    Trouble(loss=0.03, duplicate=0.03, corrupt=0.01, delay=0.003, jitter=0.001),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
def test_what_arrives_is_what_was_sent(far: Far, trouble: Trouble) -> None:
    """Both ways at once, to the last byte and in order, and each side's end after it."""
    far.listen()
    client, protocol = far.connect()
    far.cable.trouble = trouble
    protocol.transport.write(DATA)
    send(far, client, DATA[::-1])
    client.shutdown(socket.SHUT_WR)
    protocol.answer_eof = True
    assert receive(far, client, len(DATA)) == DATA
    far.until(lambda: protocol.data == DATA[::-1] and "eof" in protocol.calls)
    far.check_neighbour()
    protocol.transport.close()
    far.until(lambda: "lost" in protocol.calls)
    assert protocol.error is None


def test_many_connect_and_leave_over_a_bad_network(far: Far) -> None:
    server = far.listen(max_connections=4)
    far.cable.trouble = Trouble(loss=0.02, delay=0.003, jitter=0.002)
    for number in range(8):
        client, protocol = far.connect()
        client.send(b"%d" % number)
        far.until(lambda protocol=protocol, number=number: protocol.data == b"%d" % number)
        client.close()
    far.until(lambda: server.connections == 0)
    assert all(each.calls[-1] == "lost" and each.calls.count("lost") == 1 for each in far.pair.made)
    assert server.stats() == evnet.ServerStats(accepted=8, open=0, refused=0, shed=0)


def test_a_cable_that_is_pulled_and_plugged_in_again(far: Far) -> None:
    """Nobody notices but by the delay."""
    far.listen()
    client, protocol = far.connect()
    far.cable.pull()
    protocol.transport.write(DATA)
    client.send(b"from the other side")
    far.pair.turns(5)
    assert "lost" not in protocol.calls
    assert not protocol.data
    far.check_neighbour()
    far.cable.plug()
    assert receive(far, client, len(DATA)) == DATA
    far.until(lambda: protocol.data == b"from the other side")


def test_a_pulled_cable_is_noticed_by_keepalive(far: Far) -> None:
    server = far.listen(keep_alive=evnet.KeepAlive(idle=1, interval=1, count=1))
    _, protocol = far.connect()
    far.cable.pull()
    far.until(lambda: "lost" in protocol.calls)
    assert protocol.calls == ["made", "lost"]
    assert isinstance(protocol.error, TimeoutError)
    assert protocol.error.errno == errno.ETIMEDOUT
    assert CLIENT in str(protocol.error)
    assert server.connections == 0
    far.check_neighbour()


@pytest.mark.parametrize("writing", [False, True])
def test_a_pulled_cable_is_noticed_by_idle_timeout(far: Far, writing: bool) -> None:
    far.listen(idle_timeout=0.5)
    _, protocol = far.connect()
    far.cable.pull()
    if writing:
        protocol.transport.write(DATA * 20)  # more than the kernel takes
    far.until(lambda: "lost" in protocol.calls)
    assert protocol.calls.count("lost") == 1
    assert isinstance(protocol.error, TimeoutError)
    far.check_neighbour()


def test_a_place_is_freed_by_a_peer_that_has_vanished(far: Far) -> None:
    """Otherwise a server with max_connections would be full of the dead some day."""
    far.listen(max_connections=1, keep_alive=evnet.KeepAlive(idle=1, interval=1, count=1))
    far.connect()
    far.cable.pull()
    far.until(lambda: far.server.connections == 0)
    far.cable.plug()
    client, protocol = far.connect()
    client.send(b"next")
    far.until(lambda: protocol.data == b"next")


def test_a_machine_that_has_started_anew(far: Far) -> None:
    """A half-open connection: the peer knows nothing of it any more, and says so when it is written to."""
    far.listen()
    client, protocol = far.connect()
    # In this state, close() tells the other side nothing (tcp: CRIU's checkpoint and restore).
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    client.close()
    far.pair.turns()
    assert protocol.calls == ["made"]
    protocol.transport.write(b"are you there?")
    far.until(lambda: "lost" in protocol.calls)
    assert isinstance(protocol.error, ConnectionResetError)
    assert protocol.calls == ["made", "lost"]
    far.check_neighbour()


def test_an_interface_that_goes_down(far: Far) -> None:
    """The server's own end: what is queued waits, as for any other loss, until the interface is there again."""
    far.listen()
    client, protocol = far.connect()
    name = far.cable.names[SERVER]
    run("ip", "-n", name, "link", "set", "cable", "down")
    try:
        protocol.transport.write(b"x" * 1000)
        far.pair.turns(5)
        assert "lost" not in protocol.calls
        far.check_neighbour()
    finally:
        run("ip", "-n", name, "link", "set", "cable", "up")
        far.cable.route(SERVER)
    assert receive(far, client, 1000) == b"x" * 1000
