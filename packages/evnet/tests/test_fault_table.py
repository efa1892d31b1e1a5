"""The table of what peers, the network and the system do to a server, one row a test.

Each row is run beside a neighbour, a client of the same server who notices nothing. `connection_lost` comes exactly once, which the
recorder checks, and the loop's fixture finds descriptors left open and exceptions that nobody expected. Rows that are tested in
other files, as those of TLS and UDP, are named in `ELSEWHERE`.
"""

from __future__ import annotations

import ast
import errno
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import evnet
from evloop.testing import ManualClock
from evnet.testing import build_faults, run_with_faults

Pair = Any
HERE = Path(__file__).resolve().parent
RST = struct.pack("ii", 1, 0)

ELSEWHERE = {
    "EAGAIN, EINTR and short counts at every place": "test_faults.py::test_the_same_tests_with_faults",
    "a certificate that has expired, of another host or of nobody known": "test_tls.py::test_a_certificate_that_is_not_accepted",
    "no client certificate": "test_tls.py::test_a_missing_client_certificate",
    "plaintext on a TLS port": "test_tls.py::test_plaintext_on_a_tls_port",
    "TLS on a plaintext port": "test_tls.py::test_tls_on_a_plaintext_port",
    "a TLS record cut in half": "test_tls.py::test_a_record_cut_in_half",
    "TLS in single bytes": "test_tls.py::test_one_byte_a_turn",
    "a reset in the middle of the handshake": "test_tls.py::test_a_reset_in_the_middle_of_the_handshake",
    "a peer that never finishes the handshake": "test_tls.py::test_a_client_that_never_finishes_the_handshake",
    "a TLS peer that never reads": "test_tls.py::test_a_peer_that_never_reads",
    "a peer that never answers close_notify": "test_tls.py::test_a_peer_that_never_answers_close_notify",
    "the end of a connection without close_notify": "test_tls.py::test_truncation_is_an_end",
    "a command injected before TLS": "test_tls.py::test_an_injected_command_is_no_command",
    "EMFILE": "test_server.py::test_without_descriptors_load_is_shed_and_the_server_recovers",
    "a full unix backlog": "test_unix.py::test_a_full_backlog",
    "invalid addresses": "test_listen.py::test_bad_input",
    "invalid paths": "test_unix.py::test_bad_input",
    "a flood of connects": "test_server.py::test_a_flood_does_not_starve_a_client",
    "loss, delay, repetition, corruption": "test_faults_network.py::test_what_arrives_is_what_was_sent",
    "a cable that is pulled": "test_faults_network.py::test_a_pulled_cable_is_noticed_by_keepalive",
    "a cable that is pulled and plugged in again": "test_faults_network.py::test_a_cable_that_is_pulled_and_plugged_in_again",
    "a datagram that is too long to send": "test_datagrams.py::test_a_datagram_that_is_too_long_to_send",
    "a datagram that is too long to receive": "test_datagrams.py::test_a_datagram_that_is_too_long_to_receive",
    "connecting where nobody listens": "test_connect.py::test_refused",
    "half-open: the peer's machine has started anew": "test_faults_network.py::test_a_machine_that_has_started_anew",
}


@pytest.mark.parametrize("test", ELSEWHERE.values(), ids=ELSEWHERE)
def test_elsewhere(test: str) -> None:
    """The table names no test that is not there."""
    file, name = test.split("::")
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}


class Neighbour:
    """A client that is there before, during and after; it is answered at each `check`."""

    def __init__(self, pair: Pair, server: evnet.Server) -> None:
        self.pair = pair
        self.client, self.protocol = pair.connected()
        self.asked = 0

    def check(self) -> None:
        self.client.sendall(b"?")
        self.asked += 1
        self.pair.until(lambda: len(self.protocol.data) == self.asked)
        self.protocol.transport.write(b"!")
        assert self.pair.read(self.client, 1) == b"!"
        assert self.protocol.calls == ["made"]


@pytest.fixture
def neighbour(pair: Pair) -> Iterator[Neighbour]:
    pair.listen()
    neighbour = Neighbour(pair, pair.server)
    neighbour.check()
    yield neighbour
    neighbour.check()
    connections = pair.server.connections
    neighbour.client.close()
    pair.until(lambda: pair.server.connections == connections - 1)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    client.close()


def lost(pair: Pair, protocol: Any) -> Any:
    """Wait for the end, and a little longer: it must not come twice."""
    pair.until(lambda: "lost" in protocol.calls)
    pair.turns(2)
    assert protocol.calls.count("lost") == 1
    assert protocol.transport.is_closing()
    return protocol.error


# -- a peer that resets in the middle of everything ------------------------------------------------------------------------------


def while_idle(pair: Pair, client: socket.socket, protocol: Any) -> None:
    pass


def with_bytes_unread(pair: Pair, client: socket.socket, protocol: Any) -> None:
    client.sendall(b"x" * 10000)


def while_reading_is_paused(pair: Pair, client: socket.socket, protocol: Any) -> None:
    protocol.transport.pause_reading()
    pair.turns()
    client.sendall(b"never read")


def with_bytes_queued(pair: Pair, client: socket.socket, protocol: Any) -> None:
    protocol.transport.write(b"x" * 8_000_000)
    pair.until(lambda: "pause" in protocol.calls)


def after_its_end(pair: Pair, client: socket.socket, protocol: Any) -> None:
    protocol.answer_eof = True
    client.shutdown(socket.SHUT_WR)
    pair.until(lambda: "eof" in protocol.calls)
    protocol.transport.write(b"x" * 8_000_000)
    pair.until(lambda: "pause" in protocol.calls)


def after_our_end(pair: Pair, client: socket.socket, protocol: Any) -> None:
    protocol.transport.write_eof()
    pair.turns()


def while_we_close(pair: Pair, client: socket.socket, protocol: Any) -> None:
    protocol.transport.write(b"x" * 8_000_000)
    protocol.transport.close()
    pair.turns()


MOMENTS = [
    while_idle,
    with_bytes_unread,
    while_reading_is_paused,
    with_bytes_queued,
    after_its_end,
    after_our_end,
    while_we_close,
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda each: each.__name__)
def test_a_peer_that_resets(pair: Pair, neighbour: Neighbour, moment: Callable[..., None]) -> None:
    client, protocol = pair.connected()
    moment(pair, client, protocol)
    neighbour.check()
    reset(client)
    if moment is while_reading_is_paused:
        # What a peer sent before it left is delivered first, when the protocol wants it.
        neighbour.check()
        assert protocol.calls == ["made"]
        protocol.transport.resume_reading()
    error = lost(pair, protocol)
    assert isinstance(error, (ConnectionResetError, BrokenPipeError))


def test_a_peer_that_resets_in_the_backlog(pair: Pair, neighbour: Neighbour) -> None:
    """Linux delivers those who have left; they are made, and lost at once."""
    for _ in range(10):
        reset(pair.connect())
    neighbour.check()
    pair.until(lambda: pair.server.connections == 1)
    for protocol in pair.made[1:]:
        assert isinstance(lost(pair, protocol), (ConnectionResetError, type(None)))
    assert pair.server.stats().accepted <= 11


# -- slow, silent and half-open peers --------------------------------------------------------------------------------------------


def test_a_peer_that_never_reads(pair: Pair, neighbour: Neighbour) -> None:
    """The protocol is told to pause; what it writes all the same is kept, and nobody else waits for it."""
    _, protocol = pair.connected(receive_buffer=4096)
    for _ in range(10):
        protocol.transport.write(b"x" * 1_000_000)
        neighbour.check()
    assert protocol.calls == ["made", "pause"]
    protocol.transport.abort()
    assert lost(pair, protocol) is None


def test_a_peer_that_sends_a_byte_a_second(pair: Pair, neighbour: Neighbour, recorder: Any) -> None:
    """It is not idle, so `idle_timeout` leaves it alone: how long a message may take is the protocol's to say."""
    slow = evnet.listen_tcp(pair.loop, lambda: recorder(pair), "127.0.0.1", 0, idle_timeout=1.5)
    with socket.create_connection(slow.addresses[0]) as client:
        pair.until(lambda: len(pair.made) == 2)
        protocol = pair.made[1]
        pair.turns()
        clock = ManualClock(pair.loop)
        for number in range(1, 61):
            client.sendall(b"x")
            pair.until(lambda number=number: len(protocol.data) == number)
            clock.advance(1)
            neighbour.check()
        assert protocol.calls == ["made"]
        clock.advance(1.6)
        assert isinstance(lost(pair, protocol), TimeoutError)


def test_a_peer_that_reads_a_byte_a_second(pair: Pair, neighbour: Neighbour, recorder: Any) -> None:
    """What it takes is too little for the kernels to move anything: it counts as idle, and is given up with what is queued."""
    slow = evnet.listen_tcp(pair.loop, lambda: recorder(pair), "127.0.0.1", 0, idle_timeout=10)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(slow.addresses[0])
        pair.until(lambda: len(pair.made) == 2)
        protocol = pair.made[1]
        protocol.transport.write(b"x" * 8_000_000)
        pair.until(lambda: "pause" in protocol.calls)
        clock = ManualClock(pair.loop)
        for _ in range(30):
            if "lost" in protocol.calls:
                break
            assert client.recv(1) == b"x"
            clock.advance(1)
            neighbour.check()
        assert isinstance(lost(pair, protocol), TimeoutError)


def test_a_peer_that_takes_nothing(pair: Pair, neighbour: Neighbour, recorder: Any) -> None:
    """`write_timeout` does not mind a connection that is silent, only one that is stuck."""
    server = evnet.listen_tcp(pair.loop, lambda: recorder(pair), "127.0.0.1", 0, write_timeout=5)
    with socket.create_connection(server.addresses[0]):
        pair.until(lambda: len(pair.made) == 2)
        clock = ManualClock(pair.loop)
        clock.advance(60)
        pair.made[1].transport.write(b"x" * 16_000_000)
        pair.until(lambda: "pause" in pair.made[1].calls)
        clock.advance(4)
        neighbour.check()
        assert "lost" not in pair.made[1].calls
        clock.advance(2)
        assert isinstance(lost(pair, pair.made[1]), TimeoutError)


def test_a_peer_for_whom_too_much_is_queued(pair: Pair, neighbour: Neighbour, recorder: Any) -> None:
    server = evnet.listen_tcp(pair.loop, lambda: recorder(pair), "127.0.0.1", 0, max_queued=1_000_000)
    with socket.create_connection(server.addresses[0]):
        pair.until(lambda: len(pair.made) == 2)
        pair.made[1].transport.write(b"x" * 16_000_000)  # one write alone may be longer
        pair.turns()
        assert "lost" not in pair.made[1].calls
        pair.made[1].transport.write(b"x")
        assert isinstance(lost(pair, pair.made[1]), evnet.WriteQueueFullError)


def test_a_silent_peer(pair: Pair, neighbour: Neighbour, recorder: Any) -> None:
    """A half-open connection looks like this from our side."""
    clock = ManualClock(pair.loop)
    silent = evnet.listen_tcp(pair.loop, lambda: recorder(pair), "127.0.0.1", 0, idle_timeout=10)
    with socket.create_connection(silent.addresses[0]) as client:
        pair.until(lambda: len(pair.made) == 2)
        pair.turns()  # in which C hears of it, and its time begins
        clock.advance(9)
        assert pair.made[1].calls == ["made"]
        clock.advance(2)
        error = lost(pair, pair.made[1])
        assert isinstance(error, TimeoutError)
        host, port = client.getsockname()
        assert str(error) == f"[Errno {errno.ETIMEDOUT}] connection with {host} port {port} timed out"
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_peer_that_closes_its_sending_side_and_waits(pair: Pair, neighbour: Neighbour) -> None:
    client, protocol = pair.connected()
    protocol.answer_eof = True
    client.shutdown(socket.SHUT_WR)
    pair.until(lambda: "eof" in protocol.calls)
    for _ in range(3):
        protocol.transport.write(b"answer")
        assert pair.read(client, 6) == b"answer"
        neighbour.check()
    protocol.transport.close()
    assert lost(pair, protocol) is None
    assert protocol.calls == ["made", "eof", "lost"]


# -- the system at accept --------------------------------------------------------------------------------------------------------

ACCEPT = """
import ctypes, errno, logging, socket, sys
import evnet
from evloop.testing import ManualClock, checked_loop, run_until

backend, name = sys.argv[1:]
logged, data = [], []
handler = logging.Handler()
handler.emit = lambda record: logged.append(record.getMessage().partition(": ")[2])
logging.getLogger("evnet").addHandler(handler)
fail = ctypes.CDLL(None).ev_faults_accept

class Protocol:
    def connection_made(self, transport): pass
    def data_received(self, received): data.append(received)
    def eof_received(self): return False
    def connection_lost(self, exc): pass

def served():
    return sum(b"x" in each for each in data)

def connect():
    client = socket.create_connection(server.addresses[0], timeout=10)
    client.sendall(b"x")
    clients.append(client)
    return client

with checked_loop(backend) as loop:
    server = evnet.listen_tcp(loop, Protocol, "127.0.0.1", 0)
    clients = []
    connect()
    run_until(loop, lambda: len(data) == 1)
    clock = ManualClock(loop)
    for round in range(3):
        fail(getattr(errno, name), 1)
        connect()
        for _ in range(10):
            clients[0].send(b"n")  # the neighbour
            before = len(data)
            run_until(loop, lambda: b"n" in data[before:])
        print(served(), end=" ")
        clock.advance(0.2)
        run_until(loop, lambda: server.stats().shed or served() == round + 2)
        clock.advance(61 if round else 0)
    stats = server.stats()
    print()
    print(stats.accepted, stats.shed)
    for message in logged:
        print(message)
    for client in clients:
        client.close()
"""


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = build_faults(tmp_path_factory.mktemp("faults"))
    if library is None:
        pytest.skip("fault injection needs Linux and a C compiler")
    return library


# What three rounds show: how many clients had been served before the clock was moved; how many were accepted and shed in the end;
# what was logged, of which the second round's is not, for the minute is not over.
ACCEPT_FAILS = {
    "ECONNABORTED": ("2 3 4", "4 0", []),
    "EINTR": ("2 3 4", "4 0", []),
    "EPROTO": ("2 3 4", "4 0", []),
    "EMFILE": ("1 1 1", "1 3", ["Too many open files; 1", "Too many open files; 3"]),
    "ENFILE": ("1 1 1", "1 3", ["Too many open files in system; 1", "Too many open files in system; 3"]),
    "ENOBUFS": ("1 2 3", "4 0", ["No buffer space available; 0"] * 2),
    "ENOMEM": ("1 2 3", "4 0", ["Cannot allocate memory; 0"] * 2),
}


@pytest.mark.parametrize(("name", "row"), ACCEPT_FAILS.items(), ids=ACCEPT_FAILS)
def test_accept_fails(faults: Path, backend: str, name: str, row: tuple[str, str, list[str]]) -> None:
    """Clients that have left cost nothing; without descriptors one is shed, without memory they wait; a neighbour is served."""
    done = run_with_faults(faults, ["-X", "dev", "-c", ACCEPT, backend, name], seed=1, one_in=0)
    assert done.returncode == 0, done.stderr
    served, counts, *logged = done.stdout.splitlines()
    assert (served.strip(), counts) == row[:2]
    assert logged == [f"{text} were hung up on so far" for text in row[2]]


def test_not_even_a_descriptor_in_reserve(pair: Pair, neighbour: Neighbour, caplog: pytest.LogCaptureFixture) -> None:
    """Listening is paused, so that the loop does not spin; when there are descriptors again, those who have waited are served."""
    clock = ManualClock(pair.loop)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [pair.connect() for _ in range(3)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # below the numbers that are taken: nothing can be opened
    try:
        pair.until(lambda: caplog.records)
        for _ in range(3):
            clock.advance(0.2)
            neighbour.check()
        events = pair.loop.stats().events
        for _ in range(10):
            pair.loop.run_once(0)
        assert pair.loop.stats().events == events
        assert pair.server.stats() == evnet.ServerStats(accepted=1, open=1, refused=0, shed=0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    clock.advance(0.2)
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
    pair.until(lambda: {bytes(each.data) for each in pair.made[1:]} == {b"0", b"1", b"2"})
    (record,) = caplog.records
    assert "Too many open files; 0 were hung up on so far" in record.getMessage()
