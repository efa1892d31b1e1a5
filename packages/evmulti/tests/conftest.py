from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from evloop.testing import open_descriptors
from evmulti import MultiServer

PATIENCE = 30
SUPPORT = Path(__file__).parent / "support"


def until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Wait for something that another process does."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.01)
    return found


class Process:
    """`python -m evmulti`, or a program, in a process of its own."""

    def __init__(self, arguments: Sequence[str], log: Path, **options: Any) -> None:
        self.log_path = log
        self._file = log.open("wb")
        environment = {key: value for key, value in os.environ.items() if key != "WEB_CONCURRENCY"}
        environment.update(options.pop("env", {}))
        self.popen = subprocess.Popen(
            [sys.executable, *arguments], stdout=self._file, stderr=subprocess.STDOUT, env=environment, **options
        )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def logged(self, text: str, times: int = 1) -> None:
        until(lambda: self.log.count(text) >= times or self._check_alive(), f"{text!r} in the log:\n{self.log}")

    def _check_alive(self) -> bool:
        assert self.popen.poll() is None, self.log
        return False

    @property
    def port(self) -> int:
        """Of the first address in the line that says that it serves."""
        self.logged("evmulti 2.")
        line = next(line for line in self.log.splitlines() if "evmulti 2." in line)
        return int(line.partition("://127.0.0.1:")[2].split(",")[0])

    def send(self, number: int) -> None:
        self.popen.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(PATIENCE)

    def children(self) -> list[int]:
        return children(self.popen.pid)

    def get(self, path: str) -> tuple[int, str]:
        return get(self.port, path)

    def close(self) -> None:
        workers = self.children()
        self.popen.kill()
        self.popen.wait(PATIENCE)
        self._file.close()
        for pid in workers:  # they end with their parent; not in the middle of the next test
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(each) for each in found if is_alive(int(each))]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Load:
    """Clients that ask all the time, and count: no request is repeated, so each that gets no answer is lost.

    Half of them make a connection for each request, half keep theirs until the server says that it ends.
    """

    def __init__(self, port: int, clients: int = 8, *, path: str = "/", tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.path = path
        self.tls = tls
        self.clients = clients
        self.counts: Counter[str] = Counter()
        self.reasons: list[str] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number % 2 == 0,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def more(self, count: int = 200) -> None:
        """Wait until so many more requests were answered."""
        aim = self.counts["answered"] + count
        until(lambda: self.counts["answered"] >= aim or self._over.is_set(), f"{count} more answers, {self.counts}")

    def end(self) -> Counter[str]:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        return self.counts

    def _count(self, what: str, reason: str = "") -> None:
        with self._lock:
            self.counts[what] += 1
            if reason:
                self.reasons.append(reason)

    def _ask(self, keep: bool) -> None:
        sock: socket.socket | None = None
        while not self._over.is_set():
            if sock is None:
                try:
                    sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
                except OSError:
                    self._count("refused")
                    if self.counts["refused"] > 10 * self.clients:
                        return
                    time.sleep(0.02)
                    continue
            try:
                if self.tls is not None and not isinstance(sock, ssl.SSLSocket):
                    sock = self.tls.wrap_socket(sock, server_hostname="localhost")
                last = self._request(sock, keep)
                self._count("answered")
            except (OSError, EOFError) as error:
                self._count("lost", repr(error))
                last = True
            if last:
                sock.close()
                sock = None
            time.sleep(0.002)  # a steady load, that leaves the server and the other tests some of the machine
        if sock is not None:
            sock.close()

    def _request(self, sock: socket.socket, keep: bool) -> bool:
        close = "" if keep else "Connection: close\r\n"
        sock.sendall(f"GET {self.path} HTTP/1.1\r\nHost: a\r\n{close}\r\n".encode())
        data = b""
        while not data.endswith(b"\r\n\r\nhello"):
            piece = sock.recv(65536)
            if not piece:
                raise EOFError(f"the connection ended after {data!r}")
            data += piece
        assert data.startswith(b"HTTP/1.1 200 "), data
        return b"onnection: close" in data


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start `python -m evmulti` with arguments, serving from tests/support at a port of the system's choice; or any program."""
    before = open_descriptors()
    made: list[Process] = []

    def start(*arguments: str, serves: bool = True, **options: Any) -> Process:
        given = ["-m", "evmulti", "--app-dir", str(SUPPORT), *arguments] if serves else list(arguments)
        if serves and not any(each in ("--bind", "--unix", "--fd") for each in arguments):
            given += ["--bind", "127.0.0.1:0"]
        made.append(Process(given, tmp_path / f"log{len(made)}", **options))
        return made[-1]

    yield start
    for process in made:
        process.close()
    assert open_descriptors() <= before


@pytest.fixture(params=["process", "thread"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["kernel", "acceptor"])
def accept(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def loads() -> Iterator[Callable[..., Load]]:
    """Start a load; it is ended with the test."""
    made: list[Load] = []

    def start(port: int, clients: int = 8, **options: Any) -> Load:
        made.append(Load(port, clients, **options))
        return made[-1]

    yield start
    for load in made:
        load.end()


from .blocking import serving as serving  # noqa: E402 - a fixture


@pytest.fixture
def run_in_thread() -> Iterator[Callable[[MultiServer], int]]:
    """Run a server in a thread, on a port of the system's choice; it is ended with the test."""
    before = open_descriptors()
    made: list[tuple[MultiServer, threading.Thread]] = []

    def start(server: MultiServer) -> int:
        ready = threading.Event()
        thread = threading.Thread(target=server.listen("127.0.0.1", 0).run, args=(ready.set,))
        thread.start()
        made.append((server, thread))
        assert ready.wait(PATIENCE)
        return server.addresses[0][1]

    yield start
    for server, thread in made:
        server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert open_descriptors() <= before
