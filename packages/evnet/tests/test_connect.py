"""Connecting over TCP: what is tried, in which order and when, and what is said of it."""

from __future__ import annotations

import errno
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import evnet
from evloop import Loop
from evloop.testing import ManualClock, open_descriptors, run_until
from evnet import Connecting, KeepAlive, Resolver

Pair = Any


class Hosts:
    """A resolver backend with a table; a name that is not in it gets no answer."""

    def __init__(self) -> None:
        self.table: dict[str, list[tuple[str, int]] | socket.gaierror] = {}
        self.asked: list[Any] = []
        self.withdrawn = 0

    def ask(self, question: Any, answer: Callable[..., object]) -> Callable[[], bool]:
        self.asked.append(question)
        found = self.table.get(question.host)
        if isinstance(found, socket.gaierror):
            answer(None, None, found)
        elif found is not None:
            answer(tuple(info(*each) for each in found), 0.0, None)
        return self.withdraw

    def withdraw(self) -> bool:
        self.withdrawn += 1
        return True

    def close(self) -> None:
        """Nothing is held."""


def info(host: str, port: int) -> Any:
    if ":" in host:
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine's loopback interface has no IPv6 address")


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


@pytest.fixture
def resolver(loop: Loop, hosts: Hosts) -> Resolver:
    return Resolver(loop, hosts)


@pytest.fixture
def connect(loop: Loop, resolver: Resolver, pair: Pair, recorder: Any) -> Callable[..., Connecting]:
    return lambda host, port=1, **options: evnet.connect_tcp(
        loop, lambda: recorder(pair), host, port, **({"resolver": resolver} | options)
    )


@pytest.fixture
def silent() -> Iterator[list[tuple[str, int]]]:
    """Addresses where nobody answers: Linux drops the SYN when the backlog of a listening socket is full."""
    if sys.platform != "linux":
        pytest.skip("only Linux is known to drop a SYN for a full backlog")
    with socket.create_server(("0.0.0.0", 0), backlog=0) as server:
        port = server.getsockname()[1]
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        yield [(f"127.0.0.{number}", port) for number in range(1, 9)]
        for filler in fillers:
            filler.close()


@pytest.fixture
def refusing() -> Iterator[int]:
    """A port, on every address, that nobody listens on and nobody else gets."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.fixture
def there(pair: Pair) -> tuple[str, int]:
    """An address where a server listens."""
    address: tuple[str, int] = pair.listen().addresses[0]
    return address


def connected(loop: Loop, connecting: Connecting) -> tuple[str, int]:
    """Wait for the connection, close it, and say where it led."""
    loop.run_until(connecting.done)
    connection = connecting.result()
    peer = connection.get_extra_info("peername")
    connection.abort()
    return str(peer[0]), int(peer[1])


def begun(loop: Loop, connecting: Any) -> tuple[Any, ManualClock]:
    """Let the answer of the resolver arrive before the clock is moved. A timeout of the whole has begun before that."""
    clock = ManualClock(loop)
    clock.advance(0)
    return connecting, clock


def tried(connecting: Any) -> int:
    """How many addresses have been tried."""
    return len(connecting._attempts) + len(connecting._failures)


# -- one address ----------------------------------------------------------------------------------------------------------------


def test_digits_need_neither_resolver_nor_timer(
    loop: Loop, connect: Callable[..., Connecting], there: Any, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loop, "call_later", lambda *_: pytest.fail("a timer was made"))
    assert connected(loop, connect(*there)) == there
    assert hosts.asked == []


def test_what_the_socket_is_set_to(
    loop: Loop, connect: Callable[..., Connecting], there: Any, monkeypatch: Any
) -> None:
    made: list[socket.socket] = []
    take = evnet._connecting.take  # type: ignore[attr-defined]

    def keep(loop: Loop, fd: int, *rest: Any) -> Any:
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
        made.append(socket.socket(fileno=os.dup(fd)))
        return take(loop, fd, *rest)

    monkeypatch.setattr("evnet._connecting.take", keep)
    connected(loop, connect(*there, keep_alive=KeepAlive(idle=30, interval=5, count=3)))
    connected(loop, connect(*there))
    for sock, keepalive in zip(made, (True, False), strict=True):
        with sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is keepalive
            if keepalive:
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5


def test_refused(loop: Loop, connect: Callable[..., Connecting], refusing: int) -> None:
    connecting = connect("127.0.0.1", refusing)
    loop.run_until(connecting.done)
    with pytest.raises(ConnectionRefusedError) as caught:
        connecting.result()
    assert caught.value.strerror == f"cannot connect to 127.0.0.1 port {refusing}: Connection refused"


def test_a_name_with_one_address(loop: Loop, connect: Callable[..., Connecting], there: Any, hosts: Hosts) -> None:
    hosts.table["one.example"] = [there]
    assert connected(loop, connect("one.example", 80)) == there
    assert hosts.asked[0] == ("one.example", 80, 0, socket.SOCK_STREAM, 0, 0)


def test_the_system_s_resolver(loop: Loop, connect: Callable[..., Connecting], there: Any) -> None:
    assert connected(loop, connect("localhost", there[1], resolver=None, timeout=30)) == there


def test_unreachable(loop: Loop, connect: Callable[..., Connecting]) -> None:
    # A TCP connection to a multicast address fails at once on every system.
    connecting = connect("224.0.0.1", 80)
    assert isinstance(connecting.exception(), OSError)
    assert "cannot connect to 224.0.0.1 port 80: " in str(connecting.exception())


def test_no_such_name(loop: Loop, connect: Callable[..., Connecting], hosts: Hosts) -> None:
    hosts.table["none.example"] = socket.gaierror(socket.EAI_NONAME, "no such name")
    connecting = connect("none.example", timeout=5)
    loop.run_until(connecting.done)
    with pytest.raises(socket.gaierror, match="no such name"):
        connecting.result()
    refused = connect("::g")
    assert isinstance(refused.exception(), socket.gaierror)


def test_a_name_without_addresses(loop: Loop, connect: Callable[..., Connecting], hosts: Hosts) -> None:
    hosts.table["empty.example"] = []
    connecting = connect("empty.example", 80)
    loop.run_until(connecting.done)
    with pytest.raises(socket.gaierror, match=r"empty\.example port 80: it has no addresses"):
        connecting.result()


def test_no_descriptors_left(loop: Loop, connect: Callable[..., Connecting], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", fail)
    connecting = connect("127.0.0.1", 80)
    with pytest.raises(OSError, match=r"cannot connect to 127\.0\.0\.1 port 80: Too many open files") as caught:
        connecting.result()
    assert caught.value.errno == errno.EMFILE


def test_an_address_that_cannot_be_watched(
    loop: Loop, connect: Callable[..., Connecting], silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = open_descriptors()
    monkeypatch.setattr(Loop, "watch", fail)
    assert isinstance(connect(*silent[0]).exception(), OSError)
    assert open_descriptors() == before


def test_a_resolver_that_answers_nonsense(loop: Loop, connect: Callable[..., Connecting], hosts: Hosts) -> None:
    hosts.table["odd.example"] = [("127.0.0.1", "http")]  # type: ignore[list-item]
    connecting = connect("odd.example")
    loop.run_until(connecting.done)
    assert isinstance(connecting.exception(), TypeError)


@pytest.mark.parametrize("seen_at_once", [True, False])
def test_a_connection_that_is_there_at_once(
    loop: Loop, connect: Callable[..., Connecting], there: Any, monkeypatch: pytest.MonkeyPatch, seen_at_once: bool
) -> None:
    # Whether the kernel has finished when connect returns is its business; both must lead to the same.
    monkeypatch.setattr("evnet._connect._is_there", lambda *_: seen_at_once)
    if seen_at_once and sys.platform != "linux":
        pytest.skip("only Linux is known to have finished by then")
    connecting = connect(*there)
    assert not connecting.done()
    assert connected(loop, connecting) == there
    cancelled = connect(*there)
    assert cancelled.cancel()
    loop.run_once(0)


# -- several addresses (RFC 8305) -----------------------------------------------------------------------------------------------


def test_the_next_one_at_once_after_a_failure(
    loop: Loop, connect: Callable[..., Connecting], there: Any, refusing: int, hosts: Hosts
) -> None:
    ManualClock(loop)  # stands still: no delay passes
    hosts.table["two.example"] = [("127.0.0.1", refusing), ("224.0.0.1", 80), there]
    connecting = connect("two.example")
    run_until(loop, connecting.done)
    assert connected(loop, connecting) == there


def test_the_next_one_after_the_delay(
    loop: Loop, connect: Callable[..., Connecting], there: Any, silent: Any, hosts: Hosts
) -> None:
    hosts.table["two.example"] = [silent[0], there]
    connecting, clock = begun(loop, connect("two.example"))
    clock.advance(0.24)
    assert not connecting.done()
    assert tried(connecting) == 1
    clock.advance(0.02)
    assert connected(loop, connecting) == there


def test_each_delay_counts_from_the_attempt_before(
    loop: Loop, connect: Callable[..., Connecting], refusing: int, silent: Any, hosts: Hosts
) -> None:
    hosts.table["many.example"] = [silent[0], silent[1], ("224.0.0.1", 1), silent[2], silent[3]]
    before = open_descriptors()
    connecting, clock = begun(loop, connect("many.example", happy_eyeballs_delay=1.0))
    seen = [tried(connecting)]
    for _ in range(8):
        clock.advance(0.5)
        clock.advance(0.01)
        seen.append(tried(connecting))
    # The third fails at once, and the fourth takes its turn.
    assert seen == [1, 1, 2, 2, 4, 4, 5, 5, 5]
    assert len(open_descriptors() - before) == 4
    assert connecting.cancel()
    assert open_descriptors() == before


def test_without_a_delay_the_next_one_waits_for_the_failure(
    loop: Loop, connect: Callable[..., Connecting], there: Any, silent: Any, hosts: Hosts
) -> None:
    hosts.table["two.example"] = [silent[0], there]
    connecting, clock = begun(loop, connect("two.example", happy_eyeballs_delay=None, timeout=60))
    clock.advance(50)
    assert not connecting.done()
    clock.advance(11)
    expected = f"127.0.0.1 port {silent[0][1]}: no answer; {there[0]} port {there[1]}: not tried"
    with pytest.raises(TimeoutError, match=expected.replace(".", r"\.")):
        connecting.result()


@needs_ipv6
def test_both_families_refused(loop: Loop, connect: Callable[..., Connecting], refusing: int, hosts: Hosts) -> None:
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", 0))
        port = other.getsockname()[1]
        hosts.table["dual.example"] = [("::1", port), ("127.0.0.1", refusing)]
        connecting = connect("dual.example", 80)
        loop.run_until(connecting.done)
    with pytest.raises(ConnectionRefusedError) as caught:
        connecting.result()
    assert caught.value.strerror == (
        "cannot connect to dual.example port 80: "
        f"::1 port {port}: Connection refused; 127.0.0.1 port {refusing}: Connection refused"
    )


@needs_ipv6
def test_the_families_take_turns(loop: Loop, connect: Callable[..., Connecting], refusing: int, hosts: Hosts) -> None:
    six, four = [("::1", refusing), ("::1", refusing + 1)], [("127.0.0.1", refusing), ("127.0.0.2", refusing)]
    tried = []
    for interleave in (1, 0):
        hosts.table["dual.example"] = six + four
        connecting = connect("dual.example", interleave=interleave, happy_eyeballs_delay=None)
        loop.run_until(connecting.done)
        assert connecting.exception() is not None
        tried.append([each[0][4][0] for each in connecting._failures])  # type: ignore[attr-defined]
    assert tried == [["::1", "127.0.0.1", "::1", "127.0.0.2"], ["::1", "::1", "127.0.0.1", "127.0.0.2"]]


def test_a_family_can_be_chosen(loop: Loop, connect: Callable[..., Connecting], there: Any, hosts: Hosts) -> None:
    hosts.table["one.example"] = [there]
    assert connected(loop, connect("one.example", family=socket.AF_INET)) == there
    assert hosts.asked[0].family == socket.AF_INET
    assert isinstance(connect("127.0.0.1", family=socket.AF_INET6).exception(), socket.gaierror)


def test_the_loser_is_closed_before_the_protocol_is_made(
    loop: Loop, resolver: Resolver, there: Any, silent: Any, hosts: Hosts, pair: Pair, recorder: Any
) -> None:
    hosts.table["two.example"] = [silent[0], there]
    sockets: list[int] = []

    def factory() -> Any:
        sockets.append(len(open_descriptors() - before))
        return recorder(pair)

    loop.run_until(lambda: True)  # the descriptors that come with signals are there now
    before = open_descriptors()
    connecting, clock = begun(loop, evnet.connect_tcp(loop, factory, "two.example", 80, resolver=resolver))
    clock.advance(0.3)
    run_until(loop, connecting.done)
    assert sockets[0] <= 2  # ours, and what the server may have accepted by now; not the silent one
    connecting.result().abort()


# -- giving up ------------------------------------------------------------------------------------------------------------------


def test_a_timeout_while_resolving(loop: Loop, connect: Callable[..., Connecting], hosts: Hosts) -> None:
    clock = ManualClock(loop)
    connecting = connect("slow.example", 80, timeout=3)
    clock.advance(2.9)
    assert not connecting.done()
    clock.advance(0.2)
    with pytest.raises(TimeoutError) as caught:
        connecting.result()
    assert caught.value.errno == errno.ETIMEDOUT
    assert caught.value.strerror == "cannot connect to slow.example port 80 within 3 s: its name has not been resolved"
    assert hosts.withdrawn == 1


def test_a_timeout_while_connecting(
    loop: Loop, connect: Callable[..., Connecting], silent: Any, refusing: int, hosts: Hosts
) -> None:
    clock = ManualClock(loop)
    hosts.table["two.example"] = [("224.0.0.1", 1), silent[0]]
    before = open_descriptors()
    connecting = connect("two.example", 80, timeout=3)
    clock.advance(0)
    clock.advance(3.1)
    with pytest.raises(TimeoutError, match=r"within 3 s: 224\.0\.0\.1 port 1: .*; 127\.0\.0\.1 port \d+: no answer"):
        connecting.result()
    assert open_descriptors() == before


def test_a_connection_in_time_stops_the_clock(loop: Loop, connect: Callable[..., Connecting], there: Any) -> None:
    clock = ManualClock(loop)
    connecting = connect(*there, timeout=3)
    run_until(loop, connecting.done)
    clock.advance(4)
    assert connected(loop, connecting) == there


STEPS: dict[str, Callable[[ManualClock], None]] = {
    "at once": lambda clock: None,
    "before the delay": lambda clock: clock.advance(0.1),
    "after the delay": lambda clock: clock.advance(0.3),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["cancelled", "loop closed"])
@pytest.mark.parametrize("local", [False, True])
def test_giving_up_at_every_step(
    loop: Loop, connect: Callable[..., Connecting], silent: Any, hosts: Hosts, step: str, how: str, local: bool
) -> None:
    hosts.table["two.example"] = silent[:3]
    before = open_descriptors()
    clock = ManualClock(loop)
    for host in ("two.example", "unanswered.example"):
        connecting = connect(host, timeout=60, local_addr=("127.0.0.1", 0) if local else None)
        connecting.add_done_callback(lambda _: None)
        STEPS[step](clock)
        assert not connecting.done()
        if how == "cancelled":
            assert connecting.cancel()
        elif host == "unanswered.example":
            loop.close()
        else:
            continue
        assert connecting.cancelled()
    assert open_descriptors() <= before


def test_closing_the_resolver_cancels(loop: Loop, connect: Callable[..., Connecting], resolver: Resolver) -> None:
    connecting = connect("unanswered.example")
    resolver.close()
    loop.run_until(connecting.done)
    assert connecting.cancelled()


# -- from a local address -------------------------------------------------------------------------------------------------------


def test_a_local_address(loop: Loop, connect: Callable[..., Connecting], there: Any, pair: Pair) -> None:
    connecting = connect(*there, local_addr=("127.0.0.1", 0))
    loop.run_until(connecting.done)
    run_until(loop, lambda: len(pair.made) == 2)
    connecting.result().abort()


def test_a_local_port(loop: Loop, connect: Callable[..., Connecting], there: Any, pair: Pair) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    connecting = connect(*there, local_addr=("127.0.0.1", port))
    loop.run_until(connecting.done)
    run_until(loop, lambda: len(pair.made) == 2)
    peers = [protocol.transport.get_extra_info("peername") for protocol in pair.made]
    assert ("127.0.0.1", port) in peers
    connecting.result().abort()


def test_a_local_address_by_name(loop: Loop, connect: Callable[..., Connecting], there: Any, hosts: Hosts) -> None:
    hosts.table["here.example"] = [("127.0.0.1", 0)]
    hosts.table["there.example"] = [there]
    assert connected(loop, connect("there.example", local_addr=("here.example", 0))) == there
    assert [question.host for question in hosts.asked] == ["here.example", "there.example"]


def test_a_local_address_in_use(loop: Loop, connect: Callable[..., Connecting], there: Any) -> None:
    connecting = connect(*there, local_addr=there)
    loop.run_until(connecting.done)
    with pytest.raises(
        OSError, match=r"cannot use local address 127\.0\.0\.1 port \d+: Address already in use"
    ) as caught:
        connecting.result()
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("local", [("192.0.2.1", 0), ("::1", 0)])
def test_a_local_address_that_cannot_be(loop: Loop, connect: Callable[..., Connecting], there: Any, local: Any) -> None:
    connecting = connect(*there, local_addr=local)
    loop.run_until(connecting.done)
    with pytest.raises(OSError, match="local address") as caught:
        connecting.result()
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_local_name_that_is_none(loop: Loop, connect: Callable[..., Connecting], there: Any) -> None:
    connecting = connect(*there, local_addr=("::g", 0))
    loop.run_until(connecting.done)
    assert isinstance(connecting.exception(), socket.gaierror)


# -- arguments ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"host": ""},
        {"host": None},
        {"port": -1},
        {"port": 65536},
        {"happy_eyeballs_delay": 0},
        {"happy_eyeballs_delay": 0.001},
        {"happy_eyeballs_delay": math.nan},
        {"interleave": -1},
        {"timeout": -1},
        {"timeout": math.nan},
        {"write_timeout": 0},
        {"max_queued": 0},
        {"local_addr": ("127.0.0.1", 65536)},
    ],
)
def test_bad_arguments(connect: Callable[..., Connecting], options: Any) -> None:
    before = open_descriptors()
    with pytest.raises(ValueError, match="must be"):
        connect(**({"host": "127.0.0.1"} | options))
    assert open_descriptors() == before


def test_another_loop_s_resolver(resolver: Resolver, backend: str) -> None:
    with Loop(backend=backend) as other, pytest.raises(ValueError, match="another loop"):
        evnet.connect_tcp(other, object, "127.0.0.1", 80, resolver=resolver)  # type: ignore[arg-type]


# -- in a network of its own ----------------------------------------------------------------------------------------------------

IN_A_NAMESPACE = """
import subprocess, sys
import evnet
from evloop import Loop

for command in (
    "link set lo up",
    "link add ours type veth peer name theirs",
    "link set ours up",
    "link set theirs up",
    "addr add 198.51.100.1/24 dev ours",
    "route add blackhole 203.0.113.1",
    "route add unreachable 203.0.113.2",
    "route add prohibit 203.0.113.3",
):
    done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"SKIP ip {command}: {done.stderr}")

with Loop() as loop:
    for host, timeout in (("203.0.113.1", 5), ("203.0.113.2", 5), ("203.0.113.3", 5), ("192.0.2.1", 5), ("198.51.100.9", 0.2)):
        connecting = evnet.connect_tcp(loop, object, host, 80, timeout=timeout)
        loop.run_until(connecting.done)
        print(type(connecting.exception()).__name__, connecting.exception().strerror)
"""


def test_routes_that_lead_nowhere() -> None:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("needs Linux, root, unshare and ip")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", IN_A_NAMESPACE],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=os.environ | {"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    if "SKIP" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no network namespace to be had: {done.stderr.strip()}")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "OSError cannot connect to 203.0.113.1 port 80: Invalid argument",
        "OSError cannot connect to 203.0.113.2 port 80: No route to host",
        "PermissionError cannot connect to 203.0.113.3 port 80: Permission denied",
        "OSError cannot connect to 192.0.2.1 port 80: Network is unreachable",
        "TimeoutError cannot connect to 198.51.100.9 port 80 within 0.2 s: 198.51.100.9 port 80: no answer",
    ]
