"""The echo server of the examples, with clients of both kinds, and activated by its manager."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "echo_server.py"

pytestmark = pytest.mark.skipif(not EXAMPLE.exists(), reason="the examples are not here")


@contextmanager
def started(backend: str, *command: str, fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    environment = {"EVLOOP_BACKEND": backend, "PYTHONPATH": ":".join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        pass_fds=fds,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def echo(client: socket.socket) -> None:
    client.settimeout(20)
    client.sendall(b"hello")
    assert client.recv(5, socket.MSG_WAITALL) == b"hello"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_tcp_and_unix(backend: str, tmp_path: Path, number: signal.Signals) -> None:
    path = str(tmp_path / "echo.sock")
    with started(backend, str(EXAMPLE), "--port", "0", "--path", path) as process:
        assert process.stdout is not None
        port = int(re.findall(r"\d+", process.stdout.readline())[-1])
        assert process.stdout.readline() == f"listening on {path}\n"
        with socket.create_connection(("127.0.0.1", port)) as tcp, socket.socket(socket.AF_UNIX) as unix:
            unix.connect(path)
            echo(tcp)
            echo(unix)
            assert os.stat(path).st_mode & 0o777 == 0o600
            process.send_signal(number)
            assert tcp.recv(1) == b""
            assert unix.recv(1) == b""
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert out == "served: 1\nserved: 1\n"
    assert not os.path.exists(path)


def test_activated(backend: str) -> None:
    """LISTEN_PID is the process's own, so a first program takes it over and becomes the example."""
    become = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3, inheritable=True);"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.executable, [sys.executable, sys.argv[2]])"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = os.dup2(listening.fileno(), 200)
        try:
            with started(backend, "-c", become, str(number), str(EXAMPLE), fds=(number,)) as process:
                with socket.create_connection(listening.getsockname()) as client:
                    echo(client)
                    process.send_signal(signal.SIGTERM)
                    assert client.recv(1) == b""
                out, err = process.communicate(timeout=20)
        finally:
            os.close(number)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("served: 1\n")
