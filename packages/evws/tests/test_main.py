"""``python -m evws`` as its user sees it: output, one-line errors, exit codes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from evws._cli.load import latency_table
from evws._handshake import accept_of

COMMAND = [sys.executable, "-X", "dev", "-W", "error", "-m", "evws"]
ENVIRONMENT = os.environ | {"PYTHONPATH": ":".join(path for path in sys.path if path)}
PATIENCE = 40


def run(*arguments: str, typed: str = "", code: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout, done.stderr


@pytest.fixture
def url(backend: str) -> Iterator[str]:
    with subprocess.Popen(
        [*COMMAND, "--listen", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | {"EVLOOP_BACKEND": backend},
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"evws echoes at (ws://127\.0\.0\.1:\d+/)\n", line)
        assert found, line
        yield found[1]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
        assert (out, err, process.returncode) == ("", "", 0)


def test_talk(url: str) -> None:
    assert run(url, "--wait", "0.5", typed="hello\nwörld\r\n\nlast") == ("hello\nwörld\n\nlast\n", "")


def test_ctrl_c_closes(url: str) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, url], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("here\n")
        process.stdin.flush()
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_load(url: str) -> None:
    out, err = run("--load", url, "--clients", "20", "--seconds", "0.3", "--size", "300", "--threads", "2")
    assert err == ""
    first, *table = out.splitlines()
    assert re.fullmatch(r"20 clients, 300 bytes, \d+\.\d s: [1-9]\d* answers, [\d,]+/s", first)
    assert [line.split()[0] for line in table] == ["min", "50%", "90%", "99%", "99.9%", "max"]


def at_a_terminal(*arguments: str, typed: str = "", after: str = "") -> tuple[str, str, int]:
    """Run it with a terminal for standard input and error, and type once it has said `after`; output, what the terminal
    shows, exit code."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
                if typed and after.encode() in shown:
                    os.write(ours, typed.encode())
                    typed = ""
        except OSError:  # EIO: the other side is closed
            pass
        finally:
            os.close(ours)
        out, _ = process.communicate(timeout=PATIENCE)
        return out, shown.decode(), process.returncode


def test_progress_of_a_load_test(url: str) -> None:
    out, shown, code = at_a_terminal("--load", url, "--clients", "5", "--seconds", "0.7")
    assert code == 0
    assert re.match(r"5 clients, 64 bytes, \d", out)
    lines = shown.split("\r\x1b[K")  # each is written over the one before
    assert any(line.endswith(" of 5 clients are connected") for line in lines)
    assert any(re.fullmatch(r" *\d+\.\d s  5 clients  [1-9]\d* answers  [\d,]+/s", line) for line in lines)
    assert lines[-1] == ""


def test_talk_at_a_terminal(url: str) -> None:
    out, shown, code = at_a_terminal(url, "--wait", "0.5", typed="hello\n\x04", after="Ctrl-D closes")
    assert (out, code) == ("hello\n", 0)
    assert shown.startswith("evws: connected; Ctrl-D closes")


def test_latency_table() -> None:
    assert latency_table([]) == ""
    table = latency_table([number * 1_000_000 for number in range(1001)])
    assert [line.split()[1] for line in table.splitlines()] == [
        "0.000",
        "500.000",
        "900.000",
        "990.000",
        "999.000",
        "1000.000",
    ]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def one_line(error: str, says: str) -> None:
    assert error.startswith("evws: ")
    assert error.count("\n") == 1
    assert says in error


def test_nobody_listens() -> None:
    url = f"ws://127.0.0.1:{free_port()}/"
    one_line(run(url, code=1)[1], "Connection refused")
    one_line(run("--load", url, "--clients", "3", code=1)[1], "no client could connect")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one_line(run("--listen", str(server.getsockname()[1]), code=1)[1], "cannot listen")
    one_line(run("--listen", "0", "--bind", "no.such.host.invalid", code=1)[1], "cannot listen")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required"),
        (["http://a/"], "ws://"),
        (["ws://a/#b"], "fragment"),
        (["--listen", "99999"], "65535"),
        (["--listen", "1", "--load", "ws://a"], "not allowed"),
        (["--load", "ws://a", "--clients", "0"], "at least 1"),
        (["--load", "ws://a", "--size", "-1"], "bytes"),
        (["--load", "ws://a", "--seconds", "x"], "seconds"),
        (["ws://a", "--header", "x"], "Name: value"),
        (["ws://a", "--header", "Upgrade: x"], "handshake"),
        (["ws://a", "--proxy", "socks://a"], "http://"),
    ],
)
def test_wrong_arguments(arguments: list[str], says: str) -> None:
    one_line(run(*arguments, code=2)[1], says)


def test_a_server_that_breaks_the_rules() -> None:
    def serve(listener: socket.socket, behind: bytes) -> None:
        with listener.accept()[0] as sock:
            head = sock.recv(65536).decode()
            key = next(line.split(": ")[1] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
            answer = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            sock.sendall(f"{answer}Sec-WebSocket-Accept: {accept_of(key)}\r\n\r\n".encode() + behind)
            sock.recv(65536)  # its Close

    for behind, code, says in (
        (b"\x83\x00", 3, "close code 1002"),
        (b"\x88\x06\x0f\xa0gone", 3, "code 4000: gone"),
        (b"\x88\x02\x03\xe8", 0, "code 1000"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=serve, args=(listener, behind), daemon=True)
            thread.start()
            pipe: Any = subprocess.PIPE
            with subprocess.Popen(
                [*COMMAND, f"ws://127.0.0.1:{listener.getsockname()[1]}/"],
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                text=True,
                env=ENVIRONMENT,
            ) as process:
                assert process.wait(PATIENCE) == code
                assert process.stderr is not None
                one_line(process.stderr.read(), says)
            thread.join(PATIENCE)
