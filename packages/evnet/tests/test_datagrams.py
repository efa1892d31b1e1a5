"""A datagram transport: what its protocol is told, and what reaches the peer."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import evnet
import evnet._datagrams
from evloop import Loop
from evloop.testing import run_until
from evnet import ConnectionClosedError, bind_udp, connect_udp, open_datagram

Gatherer = Any
pytestmark = pytest.mark.usefixtures("calls")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells unconnected sockets of ICMP errors")


class Bench:
    """Datagram transports of one loop, and plain sockets beside them."""

    def __init__(self, loop: Loop, make: Callable[[], Gatherer]) -> None:
        self.loop = loop
        self.make = make
        self.sockets: list[socket.socket] = []

    def bind(self, host: str = "127.0.0.1", protocol: Any = None, **options: Any) -> Any:
        protocol = protocol or self.make()
        bind_udp(self.loop, lambda: protocol, host, 0, **options)
        return protocol

    def connect(self, address: Any, **options: Any) -> Any:
        protocol = self.make()
        connect_udp(self.loop, lambda: protocol, address[0], address[1], **options)
        return protocol

    def plain(self, family: int = socket.AF_INET, host: str = "127.0.0.1") -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sockets.append(sock)
        sock.bind((host, 0))
        return sock

    def unix(self, **options: Any) -> tuple[Any, socket.socket]:
        """A transport on one end of a pair, which knows what a full queue is; UDP on loopback never refuses anything."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sockets += [ours, theirs]
        theirs.setblocking(False)
        protocol = self.make()
        open_datagram(self.loop, lambda: protocol, ours, **options)
        return protocol, theirs

    def until(self, condition: Callable[[], object]) -> None:
        run_until(self.loop, condition)

    def read(self, sock: socket.socket, count: int = 1) -> list[bytes]:
        """So many datagrams from a plain socket, with the loop running meanwhile; what has come beyond them, too."""
        got: list[bytes] = []
        sock.setblocking(False)
        self.until(lambda: got.extend(drain(sock)) or len(got) >= count)
        return got

    def turns(self, count: int = 3) -> None:
        """Let what is under way happen, where there is nothing to wait for."""
        for _ in range(count):
            self.loop.run_once(0.005)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def bench(loop: Loop, gatherer: Callable[[], Gatherer]) -> Iterator[Bench]:
    bench = Bench(loop, gatherer)
    yield bench
    bench.close()


def drain(sock: socket.socket) -> list[bytes]:
    """What lies in a non-blocking socket."""
    got = []
    try:
        while True:
            got.append(sock.recv(70000))
    except BlockingIOError:
        return got


# -- datagrams ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 64, 2047, 2048, 2049, 2112, 30000, 65507])
def test_a_datagram_of_each_size_goes_and_comes(bench: Bench, size: int) -> None:
    data = bytes(number * 7 % 256 for number in range(size))
    ours, client = bench.bind(), bench.plain()
    client.sendto(data, ours.address)
    bench.until(lambda: ours.datagrams)
    assert ours.datagrams == [(data, client.getsockname())]
    ours.transport.sendto(data, client.getsockname())
    theirs = bench.bind()
    ours.transport.sendto(data, theirs.address)
    assert bench.read(client) == [data]
    bench.until(lambda: theirs.datagrams)
    assert theirs.datagrams == [(data, ours.address)]


def test_many_in_one_turn_keep_their_order(bench: Bench) -> None:
    ours = bench.bind()
    theirs = bench.connect(ours.address)
    sent = [b"%d" % number * (number % 40) for number in range(200)]
    for data in sent:
        theirs.transport.sendto(data)
    bench.until(lambda: len(ours.datagrams) == 200)
    assert ours.data == sent
    for data, addr in ours.datagrams:
        ours.transport.sendto(data, addr)
    bench.until(lambda: len(theirs.datagrams) == 200)
    assert theirs.datagrams == [(data, ours.address) for data in sent]


def test_more_senders_than_are_remembered(bench: Bench) -> None:
    """Each answer goes where its question came from, although places in the table of addresses are given away all the time."""
    echo = bench.bind()
    clients = [bench.plain() for _ in range(400)]
    for step in (1, 3, 7):
        for number in range(400):
            client = clients[number * step % 400]
            client.sendto(b"%d" % client.getsockname()[1], echo.address)
            if number % 100 == 99:
                bench.until(lambda: len(echo.datagrams) == 100)
                assert all(addr == ("127.0.0.1", int(data)) for data, addr in echo.datagrams)
                for data, addr in echo.datagrams:
                    echo.transport.sendto(data, addr)
                echo.datagrams.clear()
    for client in clients:
        assert bench.read(client, 3) == [b"%d" % client.getsockname()[1]] * 3


def test_more_destinations_than_are_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evnet._datagrams, "_HEADS", 4)
    ours = bench.bind()
    clients = [bench.plain() for _ in range(10)]
    for client in clients * 2:
        ours.transport.sendto(b"x", client.getsockname())
    assert [bench.read(client, 2) for client in clients] == [[b"x", b"x"]] * 10
    assert len(ours.transport._heads) <= 4


def test_sizes_that_the_kernel_may_merge(bench: Bench) -> None:
    """Runs of one size and a shorter one, empty datagrams, larger ones, two destinations: each arrives by itself."""
    ours, first, second = bench.bind(), bench.plain(), bench.plain()
    sizes = [64] * 70 + [63, 64, 0, 0, 64, 64, 0, 10, 20, 20, 5, 1232, 1232, 1233, 1233, 1] + [1232] * 60 + [1] * 65
    sent: dict[socket.socket, list[bytes]] = {first: [], second: []}
    got: dict[socket.socket, list[bytes]] = {first: [], second: []}
    for number, size in enumerate(sizes):
        client = first if number % 50 < 35 else second
        data = (b"%06d" % number + bytes(size))[:size]
        ours.transport.sendto(data, client.getsockname())
        sent[client].append(data)
        if number % 60 == 59 or number == len(sizes) - 1:  # a plain socket holds only so much
            for each in sent:
                got[each] += bench.read(each, len(sent[each]) - len(got[each]))
    assert got == sent
    assert ours.transport.stats().sent == len(sizes)
    assert not ours.errors


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_type_of_bytes(bench: Bench, kind: Any) -> None:
    ours, client, data = bench.bind(), bench.plain(), kind(b"bytes")
    ours.transport.sendto(data, client.getsockname())
    if isinstance(data, bytearray):
        data[:] = b"after"  # it was copied
    assert bench.read(client) == [b"bytes"]


def test_a_connected_socket_hears_only_its_peer(bench: Bench) -> None:
    peer, stranger = bench.plain(), bench.plain()
    ours = bench.connect(peer.getsockname())
    stranger.sendto(b"unasked", ours.address)
    peer.sendto(b"answer", ours.address)
    bench.until(lambda: ours.datagrams)
    assert ours.datagrams == [(b"answer", peer.getsockname())]
    ours.transport.sendto(b"one")
    ours.transport.sendto(b"two", peer.getsockname())
    assert bench.read(peer, 2) == [b"one", b"two"]


def test_ipv6(bench: Bench) -> None:
    ours, client = bench.bind("::1"), bench.plain(socket.AF_INET6, "::1")
    client.sendto(b"six", ours.address)
    bench.until(lambda: ours.datagrams)
    assert ours.datagrams == [(b"six", client.getsockname())]
    for address in (client.getsockname(), client.getsockname()[:2], ("::1%lo", client.getsockname()[1])):
        ours.transport.sendto(b"back", address)
    assert bench.read(client, 3) == [b"back"] * 3


def test_asyncios_own_protocol(bench: Bench) -> None:
    heard = []

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            heard.append(data)
            self.transport.sendto(data.upper(), addr)

    protocol = Echo()
    bench.bind(protocol=protocol)
    client = bench.plain()
    client.sendto(b"loud", protocol.transport.get_extra_info("sockname"))
    bench.until(lambda: heard)
    assert bench.read(client) == [b"LOUD"]
    protocol.transport.close()
    bench.turns(1)


def test_set_protocol(bench: Bench) -> None:
    first, second = bench.bind(), bench.make()
    second.transport = first.transport
    first.transport.set_protocol(second)
    assert first.transport.get_protocol() is second
    bench.plain().sendto(b"x", first.address)
    bench.until(lambda: second.datagrams)
    assert not first.datagrams


# -- errors ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [65508, 70000, 3_000_000], ids=["udp", "u16", "queue"])
@pytest.mark.parametrize("connected", [False, True], ids=["bound", "connected"])
def test_a_datagram_that_is_too_long_to_send(bench: Bench, size: int, connected: bool) -> None:
    client = bench.plain()
    ours = bench.connect(client.getsockname()) if connected else bench.bind()
    addr = None if connected else client.getsockname()
    ours.transport.sendto(b"before", addr)
    ours.transport.sendto(bytes(size), addr)
    ours.transport.sendto(b"behind", addr)
    bench.until(lambda: ours.errors)
    (error,) = ours.errors
    assert error.errno == errno.EMSGSIZE
    assert f"cannot send {size} bytes to 127.0.0.1 port {client.getsockname()[1]}: " in str(error)
    assert bench.read(client, 2) == [b"before", b"behind"]
    stats = ours.transport.stats()
    assert (stats.sent, stats.dropped, stats.errors, stats.queued) == (2, 1, 1, 0)


@pytest.mark.parametrize("most", [10, 2048, 3000])
def test_a_datagram_that_is_too_long_to_receive(bench: Bench, calls: str, most: int) -> None:
    ours, client = bench.bind(max_datagram_size=most), bench.plain()
    for size in (most, most + 1, 0, most + 5000, most):
        client.sendto(bytes(size), ours.address)
    bench.until(lambda: len(ours.datagrams) == 3)
    assert [len(data) for data in ours.data] == [most, 0, most]
    assert [error.errno for error in ours.errors] == [errno.EMSGSIZE] * 2
    text = str(ours.errors[1])
    assert f"from 127.0.0.1 port {client.getsockname()[1]}, longer than {most} bytes" in text
    if calls == "batches" and sys.platform == "linux":
        assert f"of {most + 5000} bytes" in text
    assert ours.transport.stats().truncated == 2


def gone(bench: Bench) -> Any:
    """An address where nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()


def test_nobody_listens_at_the_peer(bench: Bench) -> None:
    address = gone(bench)
    ours = bench.connect(address)
    ours.transport.sendto(b"anybody?")
    bench.until(lambda: ours.errors)
    assert {error.errno for error in ours.errors} == {errno.ECONNREFUSED}
    assert f"what was sent to 127.0.0.1 port {address[1]} did not arrive: " in str(ours.errors[0])
    assert isinstance(ours.errors[0], ConnectionRefusedError)
    assert not ours.lost
    # It is no reason to give up: somebody listens later.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
        late.bind(address)
        ours.transport.sendto(b"now?")
        assert bench.read(late) == [b"now?"]


@linux
def test_nobody_listens_at_one_of_many(bench: Bench, calls: str) -> None:
    """An unconnected socket learns which one it was, and the others' datagrams do not suffer from its error."""
    if calls != "batches":
        pytest.skip("only with IP_RECVERR")
    ours, client, nowhere = bench.bind(), bench.plain(), gone(bench)
    for number in range(50):
        ours.transport.sendto(b"%d" % number, client.getsockname() if number % 5 else nowhere)
        if number % 20 == 0:
            bench.turns(1)
    bench.until(lambda: len(ours.errors) == 10)
    assert {(error.errno, str(error)) for error in ours.errors} == {
        (
            errno.ECONNREFUSED,
            f"[Errno 111] what was sent to 127.0.0.1 port {nowhere[1]} did not arrive: Connection refused",
        )
    }
    assert bench.read(client, 40) == [b"%d" % number for number in range(50) if number % 5]


def test_an_address_that_the_kernel_refuses(bench: Bench) -> None:
    """A broadcast address without ``broadcast``: EACCES, for this datagram only."""
    ours, client = bench.bind("0.0.0.0"), bench.plain()
    ours.transport.sendto(b"to all", ("255.255.255.255", 9))
    ours.transport.sendto(b"to one", client.getsockname())
    bench.until(lambda: ours.errors)
    assert ours.errors[0].errno in (errno.EACCES, errno.ENETUNREACH)
    assert "cannot send 6 bytes to 255.255.255.255 port 9" in str(ours.errors[0])
    assert bench.read(client) == [b"to one"]


@pytest.mark.parametrize(
    ("data", "addr", "error", "text"),
    [
        ("text", ("127.0.0.1", 9), TypeError, "not str"),
        (5, ("127.0.0.1", 9), TypeError, "not int"),
        (b"", None, ValueError, "an address is needed"),
        (b"", "127.0.0.1", TypeError, "(host, port)"),
        (b"", ["127.0.0.1", 9], TypeError, "(host, port)"),
        (b"", ("127.0.0.1",), TypeError, "(host, port)"),
        (b"", ("127.0.0.1", 9, 0, 0), TypeError, "(host, port)"),
        (b"", ("127.0.0.1", "9"), TypeError, "(host, port)"),
        (b"", (b"127.0.0.1", 9), TypeError, "(host, port)"),
        (b"", ("127.0.0.1", 0), ValueError, "from 1 to 65535"),
        (b"", ("127.0.0.1", 65536), ValueError, "from 1 to 65535"),
        (b"", ("localhost", 9), ValueError, "resolve names first"),
        (b"", ("::1", 9), ValueError, "not a numeric IPv4 address"),
        (b"", ("127.0.0.1\0", 9), ValueError, "not a numeric IPv4 address"),
    ],
)
def test_what_is_no_datagram(bench: Bench, data: Any, addr: Any, error: type[Exception], text: str) -> None:
    ours, client = bench.bind(), bench.plain()
    with pytest.raises(error, match=text.replace("(", r"\(").replace(")", r"\)")):
        ours.transport.sendto(data, addr)
    ours.transport.sendto(b"fine", client.getsockname())
    assert bench.read(client) == [b"fine"]


def test_a_connected_socket_sends_nowhere_else(bench: Bench) -> None:
    peer, stranger = bench.plain(), bench.plain()
    ours = bench.connect(peer.getsockname())
    with pytest.raises(ValueError, match=f"connected to 127.0.0.1 port {peer.getsockname()[1]}"):
        ours.transport.sendto(b"", stranger.getsockname())


def test_a_callback_that_raises_harms_nobody(bench: Bench) -> None:
    reported: list[dict[str, Any]] = []
    bench.loop.set_exception_handler(lambda _, context: reported.append(context))

    class Touchy(type(bench.make())):  # type: ignore[misc]
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if int(data) % 3 == 0:
                raise RuntimeError(f"number {data!r}")

    ours, other, client = bench.bind(protocol=Touchy()), bench.bind(), bench.plain()
    for number in range(100):
        client.sendto(b"%d" % number, ours.address)
    client.sendto(b"neighbour", other.address)
    bench.until(lambda: len(ours.datagrams) == 100 and other.datagrams)
    assert ours.data == [b"%d" % number for number in range(100)]
    assert len(reported) == 34
    client.sendto(b"102", ours.address)  # alone
    bench.until(lambda: len(ours.datagrams) == 101)
    assert len(reported) == 35
    for context, number in ((reported[0], 0), (reported[-1], 102)):
        assert str(context["exception"]) == f"number b'{number}'"
        assert context["transport"] is ours.transport
        assert context["protocol"] is ours
        assert context["message"].endswith("Touchy.datagram_received")


def test_an_interrupt_loses_nothing(bench: Bench) -> None:
    class Interrupted(type(bench.make())):  # type: ignore[misc]
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if data == b"2":
                raise KeyboardInterrupt

    ours, client = bench.bind(protocol=Interrupted()), bench.plain()
    for number in range(6):
        client.sendto(b"%d" % number, ours.address)
    with pytest.raises(KeyboardInterrupt):
        bench.until(lambda: False)
    bench.until(lambda: len(ours.datagrams) == 6)
    assert sorted(ours.data) == [b"%d" % number for number in range(6)]


def test_no_answer_waits_for_slow_neighbours(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock on which each handler takes a millisecond, an answer has been sent when the next but one handler runs."""
    clock = itertools.count(0, 1_000_000)
    monkeypatch.setattr("evloop._core.perf_counter_ns", lambda: next(clock))
    client = bench.plain()
    client.setblocking(False)
    seen: list[list[bytes]] = []

    class Slow(type(bench.make())):  # type: ignore[misc]
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            seen.append(drain(client))
            self.transport.sendto(data, addr)

    ours = bench.bind(protocol=Slow())
    for number in range(40):
        client.sendto(b"%d" % number, ours.address)
    bench.until(lambda: len(ours.datagrams) == 40)
    assert [answer for answers in seen for answer in answers] + bench.read(client) == ours.data
    assert seen[17:] == [[b"%d" % (number - 1)] for number in range(17, 40)]


# -- the queue ------------------------------------------------------------------------------------------------------------------


def fill(bench: Bench, ours: Any, size: int = 1000) -> list[bytes]:
    """Send until ``pause_writing`` is called."""
    sent: list[bytes] = []
    while not ours.pauses:
        data = b"%06d" % len(sent) + bytes(size - 6)
        ours.transport.sendto(data)
        sent.append(data)
        bench.loop.run_once(0)
    return sent


def read_all(bench: Bench, ours: Any, theirs: socket.socket) -> list[bytes]:
    """Read until nothing is queued."""
    got: list[bytes] = []

    def step() -> bool:
        got.extend(drain(theirs))
        return bool(ours.transport.get_write_buffer_size() == 0)

    bench.until(step)
    return got + drain(theirs)


def test_back_pressure(bench: Bench) -> None:
    ours, theirs = bench.unix()
    sent = fill(bench, ours)
    assert ours.transport.get_write_buffer_size() > 64 * 1024
    ours.transport.sendto(b"one more")
    bench.turns()
    assert ours.pauses == ["pause"]
    assert read_all(bench, ours, theirs) == [*sent, b"one more"]
    bench.until(lambda: ours.pauses == ["pause", "resume"])
    assert ours.transport.stats().dropped == 0


def test_what_exceeds_the_queue_is_dropped_and_counted(bench: Bench) -> None:
    ours, theirs = bench.unix(max_queued_size=10_000)
    for number in range(5000):
        ours.transport.sendto(b"%d" % number)
    stats = ours.transport.stats()
    assert 0 < stats.queued <= 10_000
    assert stats.dropped > 0
    got = read_all(bench, ours, theirs)
    # The newest are dropped: what has been accepted goes out in order.
    assert got == [b"%d" % number for number in range(len(got))]
    stats = ours.transport.stats()
    assert stats.dropped + len(got) == 5000
    assert (stats.sent, stats.queued) == (len(got), 0)
    ours.transport.sendto(b"room again")
    assert bench.read(theirs) == [b"room again"]


def test_write_buffer_limits(bench: Bench) -> None:
    ours, theirs = bench.unix()
    transport = ours.transport
    assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    transport.set_write_buffer_limits(low=100)
    assert transport.get_write_buffer_limits() == (100, 400)
    for limits in ({"high": 1, "low": 2}, {"high": -1}, {"low": -1}):
        with pytest.raises(ValueError, match=r"high .* must be >= low .* must be >= 0"):
            transport.set_write_buffer_limits(**limits)
    with pytest.raises(TypeError):
        transport.set_write_buffer_limits(1.5)  # type: ignore[arg-type]
    transport.set_write_buffer_limits(1 << 70)  # more than there can be: never
    assert transport.get_write_buffer_limits() == ((1 << 64) - 1, (1 << 64) - 1)
    transport.set_write_buffer_limits(0)
    assert transport.get_write_buffer_limits() == (0, 0)
    fill(bench, ours, 100)
    assert 0 < transport.get_write_buffer_size() < 300
    transport.set_write_buffer_limits()
    bench.until(lambda: ours.pauses == ["pause", "resume"])
    read_all(bench, ours, theirs)


def test_an_unconnected_unix_socket_waits_for_a_slow_reader(bench: Bench, tmp_path: Path) -> None:
    """The kernel has no event for this, so it is asked again after a while."""
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bench.sockets.append(reader)
    reader.bind(str(tmp_path / "reader"))
    reader.setblocking(False)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "ours"))
    ours = bench.make()
    open_datagram(bench.loop, lambda: ours, sock)
    for number in range(2000):
        ours.transport.sendto(b"%d" % number, str(tmp_path / "reader"))
    assert ours.transport.get_write_buffer_size() > 0
    assert read_all(bench, ours, reader) == [b"%d" % number for number in range(2000)]
    reader.sendto(b"thanks", str(tmp_path / "ours"))
    bench.until(lambda: ours.datagrams)
    assert ours.datagrams == [(b"thanks", str(tmp_path / "reader"))]
    ours.transport.sendto(b"nobody", tmp_path / "nothing")
    bench.until(lambda: ours.errors)
    assert ours.errors[0].errno == errno.ENOENT
    assert str(tmp_path / "nothing") in str(ours.errors[0])


def test_the_other_end_of_a_pair_goes(bench: Bench) -> None:
    ours, theirs = bench.unix()
    theirs.close()
    bench.turns()
    ours.transport.sendto(b"hello?")
    bench.until(lambda: ours.errors)
    assert {error.errno for error in ours.errors} <= {errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN}
    assert "an unnamed peer" in str(ours.errors[0])
    turns = bench.loop.stats().turns
    bench.loop.run_once(0.05)  # it sleeps: nothing is left to report
    assert bench.loop.stats().turns == turns + 1


# -- fairness -------------------------------------------------------------------------------------------------------------------


def test_a_flood_does_not_starve_others(bench: Bench) -> None:
    """One turn takes a bounded number from one socket, and its neighbour has its own in the same turn."""
    flooded, quiet, client = bench.bind(), bench.bind(), bench.plain()
    view = flooded.transport.get_extra_info("socket")
    view.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    room = view.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    count = min(1000, room // 1000)
    assert count > 300
    for _ in range(count):
        client.sendto(b"flood", flooded.address)
    client.sendto(b"quiet", quiet.address)
    bench.loop.run_once(1)
    assert quiet.datagrams
    assert 0 < len(flooded.datagrams) <= 256
    bench.until(lambda: len(flooded.datagrams) == count)


def test_large_datagrams_leave_room_in_the_arena(bench: Bench) -> None:
    floods = [bench.bind() for _ in range(40)]
    client = bench.plain()
    for each in floods:
        for _ in range(3):
            client.sendto(bytes(60_000), each.address)
    most = 0

    def all_there() -> bool:
        nonlocal most
        most = max(most, len(bench.loop.arena))
        return sum(len(each.datagrams) for each in floods) == 120

    bench.until(all_there)
    assert most < 2 << 20


# -- ends -----------------------------------------------------------------------------------------------------------------------


def test_close_sends_the_queue_and_waits_for_its_end(bench: Bench) -> None:
    ours, theirs = bench.unix()
    sent = fill(bench, ours)
    transport = ours.transport
    assert not transport.is_closing()
    transport.close()
    transport.close()
    assert transport.is_closing()
    with pytest.raises(ConnectionClosedError):
        transport.sendto(b"late")
    theirs.send(b"late")
    bench.turns()
    assert not ours.lost
    got: list[bytes] = []
    bench.until(lambda: got.extend(drain(theirs)) or ours.lost)
    assert got + drain(theirs) == sent
    assert ours.cause is None
    transport.close()
    transport.abort()
    with pytest.raises(ConnectionClosedError):
        transport.sendto(b"late")
    bench.turns()
    assert not ours.datagrams


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closing"])
def test_abort_drops_what_is_queued(bench: Bench, closed: bool) -> None:
    ours, _ = bench.unix()
    sent = fill(bench, ours)
    if closed:
        ours.transport.close()
        bench.turns(1)
    ours.transport.abort()
    ours.transport.abort()
    bench.until(lambda: ours.lost)
    stats = ours.transport.stats()
    assert stats.dropped > 0
    assert stats.sent + stats.dropped == len(sent)
    assert stats.queued == 0


def test_nothing_is_received_after_close(bench: Bench) -> None:
    class Once(type(bench.make())):  # type: ignore[misc]
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.sendto(b"bye", addr)
            self.transport.close()

    ours, client = bench.bind(protocol=Once()), bench.plain()
    for _ in range(50):
        client.sendto(b"x", ours.address)
    bench.until(lambda: ours.lost)
    assert len(ours.datagrams) == 1
    assert bench.read(client) == [b"bye"]


def test_the_descriptor_is_closed_by_somebody(bench: Bench) -> None:
    """The socket is lost, with the reason, and the loop does not spin."""
    ours = bench.bind()
    name = ours.address
    view = ours.transport.get_extra_info("socket")
    with socket.socket(fileno=view.fileno()):
        pass
    ours.transport.sendto(b"x", ("127.0.0.1", 9))
    bench.until(lambda: ours.lost)
    assert isinstance(ours.cause, OSError)
    assert ours.cause.errno == errno.EBADF
    assert f"socket of 127.0.0.1 port {name[1]} lost" in str(ours.cause)


def test_the_loop_closes_first(loop: Loop, gatherer: Callable[[], Gatherer]) -> None:
    protocol = gatherer()
    transport = bind_udp(loop, lambda: protocol, "127.0.0.1", 0)
    view = transport.get_extra_info("socket")
    transport.sendto(b"x", transport.get_extra_info("sockname"))
    loop.close()
    assert transport.stats().sent == 1
    assert view.fileno() == -1
    assert not protocol.lost


def test_facts(bench: Bench) -> None:
    peer = bench.plain()
    ours = bench.connect(peer.getsockname())
    info = ours.transport.get_extra_info
    assert info("peername") == peer.getsockname()
    assert info("sockname")[0] == "127.0.0.1"
    assert info("socket").getsockname() == info("sockname")
    assert info("cipher", "none") == "none"
    assert repr(ours.transport).endswith(f"connected to 127.0.0.1 port {peer.getsockname()[1]}>")
    bound = bench.bind()
    assert bound.transport.get_extra_info("peername", "nobody") == "nobody"
    bound.transport.close()
    assert repr(bound.transport).endswith(" closing>")
    bench.turns(1)


def test_stats(bench: Bench) -> None:
    ours, client = bench.bind(), bench.plain()
    client.sendto(b"12345", ours.address)
    bench.until(lambda: ours.datagrams)
    ours.transport.sendto(b"123", client.getsockname())
    bench.until(lambda: ours.transport.stats().sent)
    assert ours.transport.stats() == evnet.DatagramStats(
        received=1, received_bytes=5, sent=1, sent_bytes=3, queued=0, dropped=0, truncated=0, errors=0
    )


def test_a_submission_that_no_transport_makes(bench: Bench) -> None:
    """Only a bug of ours could submit these; C refuses them without harm."""
    ours = bench.bind()
    transport, client = ours.transport, bench.plain()
    head = transport._head(client.getsockname())
    packed = head[12:]
    header = evnet._datagrams._HEADER
    send, limits = 1 << 8 | 64, 1 << 8 | 67
    for length, op, payload in (
        (28, send, b""),  # shorter than its address
        (0, send, b"no address"),
        (27, send, packed),
        (28, send, b"\x06" + packed[1:]),
        (0, limits, b"1234"),
        (0, 1 << 8 | 99, b""),
    ):
        bench.loop.submissions.append(header.pack(len(payload), op, length, transport._token) + payload)
    transport.sendto(b"fine", client.getsockname())
    assert bench.read(client) == [b"fine"]
    stale = SimpleNamespace(token=b"\xff" * 8)
    bench.loop.submissions.append(header.pack(0, send, 0, stale.token))
    bench.turns(1)
    assert ours.transport.stats().sent == 1
