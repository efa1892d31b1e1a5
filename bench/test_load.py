"""The C programs: they compile without a warning, and the load client notices every wrong answer.

Nothing here asserts a time. The servers are a few lines of Python that misbehave on purpose.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import loads

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll"),
    pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler"),
]

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!"
Script = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compile into a folder of the test's own; the flags include -Wall -Wextra -Werror."""
    assert {"-Wall", "-Wextra", "-Werror"} <= set(loads.CFLAGS)
    folder = tmp_path_factory.mktemp("c")
    return {name: loads.build(name, folder) for name in ("load", "floor")}


@contextlib.contextmanager
def server(script: Script) -> Iterator[str]:
    """Run a script for every connection, in threads, and return the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                script(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def run_load(program: Path, address: str, *options: str) -> dict[str, Any]:
    """Run the client briefly and return its result, the last line it prints."""
    command = [str(program), address, "--connections", "2", "--seconds", "0.3", "--warmup", "0", "--timeout", "0.3"]
    done = subprocess.run([*command, "--expect", loads.BODY, *options], capture_output=True, text=True, timeout=30)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode == 0) == (result["answered"] == result["connections"])
    return result


def requests(connection: socket.socket) -> Iterator[int]:
    """Yield the number of requests that each read completes, until the client goes."""
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
        count = data.count(b"\r\n\r\n")
        if count:
            data = data[data.rindex(b"\r\n\r\n") + 4 :]
            yield count


def always(answer: bytes) -> Script:
    """Give this answer to every request."""

    def script(connection: socket.socket) -> None:
        for count in requests(connection):
            connection.sendall(answer * count)

    return script


def then_close(answer: bytes, *, reset: bool = False) -> Script:
    """Give this to the first request, then end the connection."""

    def script(connection: socket.socket) -> None:
        next(requests(connection))
        connection.sendall(answer)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    return script


def test_good_answers_are_no_errors(programs: dict[str, Path]) -> None:
    with server(always(GOOD)) as address:
        result = run_load(programs["load"], address)
    assert result["requests"] > 0
    assert result["errors"] == 0
    assert 0 < result["p50"] <= result["p90"] <= result["p99"] <= result["p99_9"] <= result["max"]
    assert result["bytes"] >= len(GOOD)


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        pytest.param("body", always(GOOD.replace(b"World", b"W0rld")), id="wrong-body"),
        pytest.param("body", always(GOOD.replace(b"13", b"12")[:-1]), id="body-of-another-length"),
        pytest.param("short", then_close(GOOD[:-5]), id="body-cut-short"),
        pytest.param("short", then_close(GOOD[:20]), id="head-cut-short"),
        pytest.param("timeout", always(GOOD[:-5]), id="rest-of-body-never-comes"),
        pytest.param("closed", then_close(b""), id="closed-without-answer"),
        pytest.param("reset", then_close(b"", reset=True), id="reset"),
        pytest.param("reset", then_close(GOOD[:-5], reset=True), id="reset-within-answer"),
        pytest.param("status", always(GOOD.replace(b"200 OK", b"500 Oh")), id="status-500"),
        pytest.param("status", always(GOOD.replace(b"200 OK", b"204 No")), id="status-204"),
        pytest.param("framing", always(b"garbage\r\n\r\n"), id="not-http"),
        pytest.param("framing", always(GOOD.replace(b"Content-Length: 13", b"X: y")), id="no-length"),
        pytest.param("framing", always(GOOD.replace(b"13\r", b"+13\r")), id="length-not-a-number"),
        pytest.param("framing", always(GOOD.replace(b"Con", b"Content-Length: 13\r\nCon", 1)), id="two-lengths"),
        pytest.param("framing", always(GOOD.replace(b"Con", b"Transfer-Encoding: chunked\r\nCon", 1)), id="chunked"),
        pytest.param("unexpected", always(GOOD * 2), id="two-answers-for-one-request"),
    ],
)
def test_wrong_answers_are_errors(programs: dict[str, Path], kind: str, script: Script) -> None:
    with server(script) as address:
        result = run_load(programs["load"], address)
    # A reset may overtake what was sent before it, so that only the end of the connection is seen.
    assert result["error_kinds"].get(kind, 0) > 0, result
    assert result["errors"] == sum(result["error_kinds"].values())
    assert result["first_error"].startswith(tuple(result["error_kinds"]))
    assert result["requests"] == 0


def test_one_wrong_answer_among_good_ones(programs: dict[str, Path]) -> None:
    """The comparison with the last good answer must not let a different one through."""

    def script(connection: socket.socket) -> None:
        for number, _ in enumerate(requests(connection)):
            connection.sendall(GOOD.replace(b"!", b"?") if number == 50 else GOOD)

    with server(script) as address:
        result = run_load(programs["load"], address, "--connections", "1")
    assert result["error_kinds"] == {"body": result["errors"]}
    assert result["requests"] >= 50


def test_changing_heads_are_parsed(programs: dict[str, Path]) -> None:
    def script(connection: socket.socket) -> None:
        for number, _ in enumerate(requests(connection)):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: %d\r\ncontent-length:13 \r\n\r\nHello, World!" % number)

    with server(script) as address:
        result = run_load(programs["load"], address)
    assert result["errors"] == 0
    assert result["requests"] > 0


@pytest.mark.parametrize("size", [1, 7, len(GOOD) - 1, len(GOOD) + 1, 3 * len(GOOD) + 5])
def test_pipelined_answers_split_anywhere(programs: dict[str, Path], size: int) -> None:
    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for count in requests(connection):
            data = GOOD * count
            for at in range(0, len(data), size):
                connection.sendall(data[at : at + size])
                time.sleep(0)  # let the client see this piece alone

    with server(script) as address:
        result = run_load(programs["load"], address, "--pipeline", "8", "--timeout", "5")
    assert result["errors"] == 0
    assert result["requests"] > 0


def test_pipelining_with_one_answer_missing(programs: dict[str, Path]) -> None:
    def script(connection: socket.socket) -> None:
        for count in requests(connection):
            connection.sendall(GOOD * (count - 1))

    with server(script) as address:
        result = run_load(programs["load"], address, "--pipeline", "4")
    assert set(result["error_kinds"]) == {"timeout"}


def test_close_mode(programs: dict[str, Path]) -> None:
    with server(then_close(GOOD)) as address:
        result = run_load(programs["load"], address, "--close")
    assert result["errors"] == 0
    assert result["reconnects"] >= result["requests"] > 0


def test_close_mode_notices_a_server_that_does_not_close(programs: dict[str, Path]) -> None:
    with server(always(GOOD)) as address:
        result = run_load(programs["load"], address, "--close", "--seconds", "1")
    assert result["error_kinds"].keys() == {"not_closed"}


def test_announced_close_is_no_error(programs: dict[str, Path]) -> None:
    with server(then_close(GOOD.replace(b"Con", b"Connection: close\r\nCon", 1))) as address:
        result = run_load(programs["load"], address)
    assert result["errors"] == 0
    assert result["reconnects"] > 0


def test_rate_keeps_its_schedule(programs: dict[str, Path]) -> None:
    with server(always(GOOD)) as address:
        result = run_load(programs["load"], address, "--rate", "100", "--seconds", "0.5", "--timeout", "5")
    assert result["errors"] == 0
    assert result["requests"] + result["unfinished"] == 50


def test_rate_counts_the_wait_behind_a_stalled_answer(programs: dict[str, Path]) -> None:
    """One stall of 0.3 s delays every request due meanwhile: the median must show it, not one outlier."""

    def script(connection: socket.socket) -> None:
        for number, _ in enumerate(requests(connection)):
            if number == 2:
                time.sleep(0.3)
            connection.sendall(GOOD)

    with server(script) as address:
        options = ("--connections", "1", "--rate", "200", "--seconds", "0.3", "--timeout", "5")
        result = run_load(programs["load"], address, *options)
    assert result["requests"] + result["unfinished"] == 60
    assert result["max"] >= 280_000
    assert result["p50"] >= 100_000


def test_idle_holds_until_stdin_ends(programs: dict[str, Path]) -> None:
    with server(always(GOOD)) as address:
        command = [str(programs["load"]), address, "--idle", "20", "--expect", loads.BODY]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"event": "idle"}
            assert process.poll() is None
            process.stdin.close()
            result = json.loads(process.stdout.readline())
            assert process.wait(10) == 0
    assert (result["answered"], result["errors"], result["lost_idle"]) == (20, 0, 0)


def test_nobody_listens(programs: dict[str, Path]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = run_load(programs["load"], f"127.0.0.1:{unused.getsockname()[1]}")
    assert result["answered"] == 0
    assert result["first_error"].startswith("connect: ")


@pytest.mark.parametrize("options", [["nowhere"], ["127.0.0.1:x"], ["127.0.0.1:1", "--rate", "0"], []])
def test_usage_errors(programs: dict[str, Path], options: list[str]) -> None:
    done = subprocess.run([str(programs["load"]), *options], capture_output=True, text=True, timeout=10)
    assert done.returncode == 2
    assert "usage: load" in done.stderr


@contextlib.contextmanager
def floor(program: Path) -> Iterator[tuple[str, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([str(program), f"127.0.0.1:{port}"]) as process:
        try:
            for _ in range(500):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.01)
            yield "127.0.0.1", port
        finally:
            process.kill()


@pytest.mark.parametrize("options", [[], ["--browser"], ["--pipeline", "16"], ["--close"], ["--connections", "100"]])
def test_floor_answers_every_load(programs: dict[str, Path], options: list[str]) -> None:
    with floor(programs["floor"]) as (host, port):
        result = run_load(programs["load"], f"{host}:{port}", "--timeout", "5", *options)
    assert result["errors"] == 0
    assert result["requests"] > 0


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17])
def test_floor_counts_requests_split_anywhere(programs: dict[str, Path], size: int) -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3
    with floor(programs["floor"]) as address, socket.create_connection(address, timeout=5) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), size):
            client.sendall(data[at : at + size])
            time.sleep(0.001)
        got = b""
        while got.count(loads.BODY.encode()) < 3:
            got += client.recv(65536)
        client.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        while chunk := client.recv(65536):
            got += chunk
    assert got.count(loads.BODY.encode()) == 4


def test_wrk_output_is_read() -> None:
    text = """Running 4s test @ http://127.0.0.1:8000/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   433.57us   56.12us   1.98ms   85.70%
    Req/Sec   130.22k     1.50k  133.00k    70.00%
  Latency Distribution
     50%  427.00us
     75%  452.00us
     90%    1.20ms
     99%  631.00us
  518000 requests in 4.00s, 64.21MB read
  Socket errors: connect 0, read 3, write 0, timeout 0
Requests/sec: 129500.25
Transfer/sec:     16.05MB
"""
    result = loads.parse_wrk(text)
    assert (result.requests, result.seconds, result.rps) == (518000, 4.0, 129500.25)
    assert (result.p50, result.p90, result.max) == (427.0, 1200.0, 1980.0)
    assert result.error_kinds == {"read": 3}
