"""What is told to the manager of services, over a socket that the test holds."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evmulti._systemd import Notifier

from .conftest import PATIENCE, Process


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        yield sock


def lines(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_messages(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.ready("fine")
    assert lines(manager) == ["READY=1", "STATUS=fine", f"MAINPID={os.getpid()}"]
    notifier.reloading()
    first, second = lines(manager)
    assert first == "RELOADING=1"
    assert second.removeprefix("MONOTONIC_USEC=").isdecimal()
    notifier.stopping()
    notifier.alive()
    assert [lines(manager), lines(manager)] == [["STOPPING=1"], ["WATCHDOG=1"]]


def test_an_abstract_name() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0evmulti-test-{os.getpid()}")
        sock.settimeout(PATIENCE)
        Notifier({"NOTIFY_SOCKET": f"@evmulti-test-{os.getpid()}"}).alive()
        assert lines(sock) == ["WATCHDOG=1"]


def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    Notifier({}).ready("fine")
    Notifier({"NOTIFY_SOCKET": "relative"}).ready("fine")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        Notifier({"NOTIFY_SOCKET": "/nobody/is/here"}).ready("fine")
    assert "cannot tell the service manager READY=1" in caplog.text


@pytest.mark.parametrize(
    ("variables", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "4000000"}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog(variables: dict[str, str], interval: float | None) -> None:
    assert Notifier(variables).interval == interval


def test_the_life_of_a_service(run: Callable[..., Process], manager: socket.socket) -> None:
    """READY when every worker listens, signs of life, RELOADING and READY again, STOPPING; by a socket that was passed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Whoever execs keeps its number, as a service manager's child does.
        script = (
            f"import os; os.dup2({listener.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid()); import sys;"
            "os.execv(sys.executable, [sys.executable, '-m', 'evmulti', 'served:handler', '--workers', '2'])"
        )
        environment = {
            "NOTIFY_SOCKET": manager.getsockname(),
            "WATCHDOG_USEC": "200000",
            "LISTEN_FDS": "1",
            "PYTHONPATH": str(Path(__file__).parent / "support"),
        }
        server = run("-c", script, serves=False, env=environment, pass_fds=[listener.fileno()])

        def until_told(what: str) -> None:
            while (told := lines(manager))[0] != what:
                assert told[0] == "WATCHDOG=1"

        until_told("READY=1")
        until_told("WATCHDOG=1")
        assert server.port == listener.getsockname()[1]
        assert server.get("/") == (200, "hello")
        server.send(signal.SIGHUP)
        until_told("RELOADING=1")
        until_told("READY=1")
        server.send(signal.SIGTERM)
        until_told("STOPPING=1")
        assert server.popen.wait(PATIENCE) == 0
        # The manager's socket goes on listening: nobody is refused, and the next service takes who waits.
        socket.create_connection(listener.getsockname(), PATIENCE).close()
