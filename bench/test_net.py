"""The programs of the "net" benchmark: the clients notice every wrong answer, and every server does its work.

No test asserts a time.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import catalog
import harness
import loads
import net_bench
import net_tables
import peers
from samples import Sample, Samples
from test_load import server

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll"),
    pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler"),
]

PLAIN = ("echo_load", "udp_load", "file_load", "net_floor")
PAGE = net_bench.PAGE
Script = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("c")
    return {name: loads.build(name, folder) for name in PLAIN}


def run(program: Path, *options: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([str(program), *options], capture_output=True, text=True, timeout=50)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def run_echo(program: Path, address: str, *options: str) -> dict[str, Any]:
    usual = ("--connections", "2", "--size", "100", "--seconds", "0.3", "--warmup", "0", "--timeout", "0.3")
    return run(program, address, *usual, *options)[1]


def echo(change: Callable[[bytes, int], bytes] = lambda data, number: data) -> Script:
    """Echo, with a change to what is sent."""

    def script(connection: socket.socket) -> None:
        number = 0
        while data := connection.recv(1 << 16):
            connection.sendall(change(data, number))
            number += 1

    return script


@pytest.mark.parametrize("size", [1, 100, 1 << 16, 1 << 20])
def test_echo(programs: dict[str, Path], size: int) -> None:
    with server(echo()) as address:
        result = run_echo(programs["echo_load"], address, "--size", str(size), "--timeout", "5")
    assert (result["errors"], result["answered"]) == (0, 2)
    assert result["bytes"] > 0
    assert 0 < result["p50"] <= result["p99"] <= result["max"]


CHANGES: dict[str, Callable[[bytes, int], bytes]] = {
    "wrong": lambda data, number: data[:-1] + bytes([data[-1] ^ 1]) if number == 5 else data,
    "unexpected": lambda data, number: data + b"x" if number == 5 else data,
    "timeout": lambda data, number: data[:-1] if number == 5 else data,
}


@pytest.mark.parametrize("kind", CHANGES)
def test_an_echo_that_is_none(programs: dict[str, Path], kind: str) -> None:
    with server(echo(CHANGES[kind])) as address:
        result = run_echo(programs["echo_load"], address, "--seconds", "1")
    assert result["error_kinds"].keys() == {kind}
    assert result["requests"] > 0


def test_the_echo_of_another_connection_is_wrong(programs: dict[str, Path]) -> None:
    first: list[bytes] = []

    def script(connection: socket.socket) -> None:
        while data := connection.recv(1 << 16):
            first.append(data)
            connection.sendall(first[0])

    with server(script) as address:
        result = run_echo(programs["echo_load"], address)
    assert result["error_kinds"].keys() == {"wrong"}


@pytest.mark.parametrize(("reset", "kind"), [(False, "closed"), (True, "reset")])
def test_a_server_that_goes(programs: dict[str, Path], reset: bool, kind: str) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(connection.recv(1 << 16))
        connection.recv(1 << 16)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with server(script) as address:
        result = run_echo(programs["echo_load"], address)
    assert kind in result["error_kinds"]


def then(*, close: bool) -> Script:
    def script(connection: socket.socket) -> None:
        connection.sendall(connection.recv(1 << 16))
        if not close:
            connection.recv(1 << 16)

    return script


def test_once(programs: dict[str, Path]) -> None:
    with server(then(close=True)) as address:
        result = run_echo(programs["echo_load"], address, "--once")
    assert result["errors"] == 0
    assert result["reconnects"] >= result["requests"] > 0


def test_once_notices_a_server_that_does_not_close(programs: dict[str, Path]) -> None:
    with server(then(close=False)) as address:
        result = run_echo(programs["echo_load"], address, "--once", "--seconds", "1")
    assert result["error_kinds"].keys() == {"not_closed"}


def fanout(skip: int) -> Script:
    """Send what comes from one to all, but not the skip-th message to the connection that it comes from."""
    lock = threading.Lock()
    everyone: list[socket.socket] = []
    sent = 0

    def script(connection: socket.socket) -> None:
        nonlocal sent
        with lock:
            everyone.append(connection)
        connection.sendall(b"!")
        while data := connection.recv(1 << 16):
            sent += 1
            for each in everyone:
                if sent != skip or each is not connection:
                    each.sendall(data)

    return script


def test_fanout(programs: dict[str, Path]) -> None:
    options = ("--fanout", "--connections", "20", "--timeout", "5")
    with server(fanout(skip=0)) as address:
        result = run_echo(programs["echo_load"], address, *options)
    assert result["errors"] == 0
    assert result["requests"] > 0


def test_fanout_that_misses_one_fails(programs: dict[str, Path]) -> None:
    usual = ("--size", "100", "--seconds", "5", "--timeout", "0.3", "--connections", "20", "--warmup", "0")
    with server(fanout(skip=3)) as address:
        status, result = run(programs["echo_load"], address, "--fanout", *usual)
    assert status == 1
    assert result["error_kinds"].keys() == {"timeout"}


def test_nobody_listens(programs: dict[str, Path]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = run_echo(programs["echo_load"], f"127.0.0.1:{unused.getsockname()[1]}")
    assert result["answered"] == 0
    assert result["first_error"].startswith("connect: ")


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("options", [[], ["nowhere"], ["127.0.0.1:x"], ["127.0.0.1:1", "--size", "0"]])
def test_usage_errors(programs: dict[str, Path], name: str, options: list[str]) -> None:
    done = subprocess.run([str(programs[name]), *options], capture_output=True, text=True, timeout=10)
    assert done.returncode == 2
    assert f"usage: {name}" in done.stderr


@contextlib.contextmanager
def datagrams(answer: Callable[[bytes, int], list[bytes]]) -> Iterator[str]:
    """Answer each datagram with some."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.1)
        over = threading.Event()

        def serve() -> None:
            number = 0
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    data, address = sock.recvfrom(2048)
                    for each in answer(data, number):
                        sock.sendto(each, address)
                    number += 1

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{sock.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def run_udp(program: Path, address: str) -> dict[str, Any]:
    options = ("--sockets", "2", "--window", "4", "--seconds", "0.3", "--warmup", "0", "--timeout", "0.05")
    return run(program, address, *options)[1]


ANSWERS: dict[str, tuple[Callable[[bytes, int], list[bytes]], set[str]]] = {
    "good": (lambda data, number: [data], set()),
    "a byte changed": (
        lambda data, number: [data[:-1] + bytes([data[-1] ^ 1 if number == 5 else data[-1]])],
        {"wrong"},
    ),
    "cut": (lambda data, number: [data[:-1] if number == 5 else data], {"wrong"}),
    "empty": (lambda data, number: [b"" if number == 5 else data], {"wrong"}),
    "twice": (lambda data, number: [data] * (2 if number == 5 else 1), {"unexpected"}),
    "never sent": (lambda data, number: [b"\xff" * 8 + data[8:] if number == 5 else data], {"unexpected"}),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_udp(programs: dict[str, Path], what: str) -> None:
    answer, kinds = ANSWERS[what]
    with datagrams(answer) as address:
        result = run_udp(programs["udp_load"], address)
    # One that comes twice may find its successor in the slot already, and is then only stale.
    assert result["error_kinds"].keys() == kinds or (what == "twice" and result["stale"])
    assert result["requests"] > 0


def test_udp_loses_nothing_by_itself(programs: dict[str, Path]) -> None:
    with datagrams(lambda data, number: [data]) as address:
        options = ("--sockets", "8", "--window", "16", "--seconds", "0.5", "--warmup", "0", "--timeout", "10")
        _, result = run(programs["udp_load"], address, *options)
    assert (result["lost"], result["stale"], result["errors"]) == (0, 0, 0)
    assert result["requests"] > 0


def test_udp_counts_what_is_lost_and_goes_on(programs: dict[str, Path]) -> None:
    with datagrams(lambda data, number: [] if number % 10 == 5 else [data]) as address:
        result = run_udp(programs["udp_load"], address)
    assert result["errors"] == 0
    assert result["lost"] > 0
    assert result["requests"] > 0


def test_udp_without_a_server(programs: dict[str, Path]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    status, result = run(programs["udp_load"], f"127.0.0.1:{port}", "--seconds", "0.1", "--warmup", "0")
    assert (status, result["requests"]) == (1, 0)


def sends(data: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        connection.sendall(data)

    return script


PAGES = b"".join(number.to_bytes(8, "little") * (PAGE // 8) for number in range(64))


def test_file(programs: dict[str, Path]) -> None:
    with server(sends(PAGES)) as address:
        status, result = run(programs["file_load"], address, str(len(PAGES)), "0.2")
    assert (status, result["errors"]) == (0, 0)
    assert result["requests"] == len(result["each"]) > 0


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (PAGES[:-8], "end of stream at byte 262136"),
        (PAGES[:-3], "end of stream at byte 262141"),
        (PAGES + b"x", "end of stream at byte 262145"),
        (PAGES[PAGE:] + PAGES[:PAGE], "wrong bytes at byte 0"),
        (PAGES[:4099] + b"x" + PAGES[4100:], "wrong bytes at byte 4096"),
    ],
)
def test_file_that_is_another(programs: dict[str, Path], data: bytes, problem: str) -> None:
    with server(sends(data)) as address:
        status, result = run(programs["file_load"], address, str(len(PAGES)), "0.2")
    assert (status, result["first_error"]) == (1, problem)


def plan() -> harness.Plan:
    base = peers.ask_interpreter(sys.executable)
    assert base is not None
    settings = catalog.Settings(base, sys.executable)
    return harness.Plan(settings, rounds=1, seconds=0.1, warmup=0.05, scale=0.002)


def measure(name: str, workload: str) -> Sample:
    """Take one small measurement; what is not built yet is skipped with its name."""
    try:
        ready = net_bench.SERVERS[name].prepare(plan().settings)
        return net_bench.measure(ready, net_bench.WORKLOADS[workload], plan())
    except (harness.ServerFailed, loads.LoadFailed) as error:
        if "not built" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize("workload", net_bench.WORKLOADS)
@pytest.mark.parametrize("name", ["evnet", "asyncio", "floor"])
def test_every_workload(name: str, workload: str) -> None:
    if name == "evnet" and importlib.util.find_spec("evnet") is None:
        pytest.skip("evnet is not installed for this interpreter")
    if workload.startswith("tls"):
        if name == "floor":
            pytest.skip("there is no floor over TLS")
        if not Path("/usr/include/openssl/ssl.h").exists() or not shutil.which("openssl"):
            pytest.skip("needs libssl-dev and openssl")
    found = measure(name, workload)
    assert found.errors == 0, found.first_error
    tables = net_tables.TABLES[net_bench.WORKLOADS[workload].kind]
    shown = {column.name: column.figure(found) for table in tables for column in table.columns}
    assert shown[tables[0].columns[0].name] is not None, shown


def test_tls_notices_plaintext(tmp_path: Path) -> None:
    try:
        program = loads.build("echo_load_tls", tmp_path)
    except peers.NotAvailable as error:
        pytest.skip(str(error))
    with server(echo(lambda data, number: b"x" * 100)) as address:
        result = run_echo(program, address)
    assert result["answered"] == 0
    assert result["error_kinds"].keys() <= {"reset", "connect"}


def sample(rps: float, cpu: float) -> list[Sample | None]:
    return [Sample(rps=rps, user_us=cpu, kernel_us=0), None]


def test_targets_take_the_best_peer() -> None:
    measured: dict[str, Samples] = {
        "echo1k": {
            "evnet": sample(120, 1),
            "uvloop": sample(100, 1),
            "rloop": sample(130, 1),
            "asyncio": [None],
            "floor": sample(140, 0.5),
        },
        "tls1k": {"evnet": [None], "uvloop": sample(1, 1)},
        "idle10k": {"evnet": [Sample(idle_bytes=512)]},
    }
    rows = {what: text for what, _, text in net_tables.targets(measured)}
    assert rows["echo1k: exchanges/s, against uvloop"] == "1.20 ×, held"
    assert rows["echo1k: exchanges/s, against the best peer, rloop"] == "0.92 ×, MISSED"
    assert rows["echo1k: exchanges per CPU time, against floor"] == "0.50 ×"
    assert rows["tls1k: exchanges/s, against uvloop"] == "not measured"
    assert rows["idle10k: memory per connection"] == "0.50 KiB, held"
