"""Count the machine instructions that our servers spend on a request, and compare with the committed counts.

    python3 bench/instructions.py            # fails if a request costs over 10% more than instructions.json says
    python3 bench/instructions.py --update   # writes the counts down

Counts of callgrind (Debian: ``apt install valgrind``) do not depend on who else uses the machine, so they show a slow-down that no
clock would show there. They are of user space only: Python and our C code, not the kernel. One client on one connection asks for
one thing at a time, so that each request, or each sixteen that are sent together, is one turn of the loop; start-up and the
first requests, which Python specialises its code by, are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent
COMMITTED = BENCH / "instructions.json"
TOLERANCE = 0.10
PATIENCE = 60.0
GET = b"GET /some/path?name=value HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: instructions\r\nAccept: */*\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PIPELINE = 16
PAYLOAD = bytes(range(100))
PARTS = 5


@dataclass(frozen=True)
class Work:
    """What is counted.

    Attributes:
        port: The name of its port in what `servers/counted.py` says.
        opening: What is sent first, and answered by a head.
        request: What is sent each time.
        units: How many requests that is.
        rounds: How often it is sent while the instructions of one of the parts are counted.
    """

    summary: str
    port: str
    opening: bytes
    request: bytes
    units: int
    rounds: int


def frame(payload: bytes) -> bytes:
    """A masked WebSocket message of less than 126 bytes (RFC 6455 §5.2)."""
    mask = b"\x12\x34\x56\x78"
    masked = bytes(each ^ mask[at % 4] for at, each in enumerate(payload))
    return struct.pack("!BB", 0x82, 0x80 | len(payload)) + mask + masked


WORK = {
    "get": Work("plain GET", "http", b"", GET, 1, 300),
    "pipelined": Work(f"GET, {PIPELINE} in one send", "http", b"", GET * PIPELINE, PIPELINE, 30),
    "websocket": Work(f"WebSocket echo of {len(PAYLOAD)} bytes", "websocket", UPGRADE, frame(PAYLOAD), 1, 300),
    "tcp": Work(f"TCP echo of {len(PAYLOAD)} bytes", "tcp", b"", PAYLOAD, 1, 300),
}


class Counted:
    """A server under callgrind."""

    def __init__(self, python: str, folder: Path) -> None:
        self._dumps = folder / "callgrind.out"
        command = [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            "--cache-sim=no",
            f"--callgrind-out-file={self._dumps}",
        ]
        self.popen = subprocess.Popen(
            [*command, "--quiet", f"--vgdb-prefix={folder / 'vgdb'}", python, str(BENCH / "servers" / "counted.py")],
            stdout=subprocess.PIPE,
            # Hashes decide where a dictionary's entries lie.
            env=os.environ | {"PYTHONHASHSEED": "0"},
        )
        self._vgdb = ["vgdb", f"--pid={self.popen.pid}", f"--vgdb-prefix={folder / 'vgdb'}", "--wait=20"]
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise SystemExit("instructions: the server did not start under valgrind; its messages are above")
        self.ports: dict[str, int] = json.loads(line)

    def tell(self, *command: str) -> None:
        """Give callgrind a command."""
        subprocess.run([*self._vgdb, *command], check=True, capture_output=True, timeout=PATIENCE)

    @contextlib.contextmanager
    def counting(self, counts: list[int]) -> Iterator[None]:
        """Append what the block has made the server execute."""
        self.tell("instrumentation", "on")
        self.tell("zero")
        yield
        before = set(self._files())
        self.tell("dump")
        self.tell("instrumentation", "off")
        (dump,) = set(self._files()) - before
        totals = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
        assert totals is not None
        counts.append(int(totals.group(1)))

    def _files(self) -> list[Path]:
        return sorted(self._dumps.parent.glob(f"{self._dumps.name}.*"))

    def close(self) -> None:
        """End the server."""
        self.popen.kill()
        self.popen.wait(PATIENCE)
        assert self.popen.stdout is not None
        self.popen.stdout.close()


def receive(sock: socket.socket, size: int) -> bytes:
    """Receive so many bytes."""
    data = b""
    while len(data) < size:
        piece = sock.recv(1 << 16)
        if not piece:
            raise SystemExit("instructions: the server has closed the connection")
        data += piece
    return data


def head(sock: socket.socket) -> bytes:
    """Receive a response's head, and whatever comes with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(sock, 1)
    return data


def measure(server: Counted, work: Work) -> int:
    """Instructions per request."""
    counts: list[int] = []
    with socket.create_connection(("127.0.0.1", server.ports[work.port]), PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if work.opening:
            sock.sendall(work.opening)
            head(sock)
        sock.sendall(work.request)
        if work.port == "http":
            answer = head(sock)
            length = re.search(rb"content-length: (\d+)", answer.lower())
            assert length is not None
            size = answer.index(b"\r\n\r\n") + 4 + int(length.group(1))
            receive(sock, size * work.units - len(answer))
        else:
            size = len(PAYLOAD) + (2 if work.port == "websocket" else 0)
            receive(sock, size)

        def ask(rounds: int) -> None:
            for _ in range(rounds):
                sock.sendall(work.request)
                if len(receive(sock, size * work.units)) != size * work.units:
                    raise SystemExit("instructions: an answer is longer than the one before")

        ask(50)
        for _ in range(PARTS):
            with server.counting(counts):
                ask(work.rounds)
    # Whatever comes by the clock only adds to a part.
    return round(min(counts) / (work.rounds * work.units))


def key_of(python: str) -> str:
    """What counts belong to: a Python's version and a machine."""
    code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    version = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    return f"cpython-{version} {platform.machine()}"


def compare(counts: dict[str, int], committed: dict[str, int]) -> list[str]:
    """Print a table, and return what has become too slow."""
    slower = []
    print(f"{'instructions per request':34}{'committed':>10}{'now':>10}")
    for name, count in counts.items():
        before = committed.get(name, count)
        change = count / before - 1
        print(f"{WORK[name].summary:34}{before:10,}{count:10,}  {change:+.1%}")
        if change > TOLERANCE:
            slower.append(f"{name}: {change:+.1%}")
    return slower


def main() -> int:
    """Count, and compare or write down; 0 unless something has become slower."""
    parser = argparse.ArgumentParser(prog="instructions", description="Count instructions per request under callgrind.")
    parser.add_argument("--python", default=sys.executable, help="the Python that has our packages (default: this one)")
    parser.add_argument("--update", action="store_true", help=f"write the counts to {COMMITTED.name}")
    options = parser.parse_args()
    missing = [name for name in ("valgrind", "vgdb") if shutil.which(name) is None]
    if missing:
        print(f"instructions: skipped: {' and '.join(missing)} not found (Debian: apt install valgrind)")
        return 0
    committed: dict[str, dict[str, int]] = json.loads(COMMITTED.read_text()) if COMMITTED.is_file() else {}
    key = key_of(options.python)
    if not options.update and key not in committed:
        known = ", ".join(sorted(committed)) or "nothing"
        print(f"instructions: skipped: {COMMITTED.name} has counts of {known}, this is {key}")
        return 0
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        server = Counted(options.python, Path(folder))
        try:
            counts = {name: measure(server, work) for name, work in WORK.items()}
        finally:
            server.close()
    slower = compare(counts, committed.get(key, {}))
    if options.update:
        committed[key] = counts
        COMMITTED.write_text(json.dumps(dict(sorted(committed.items())), indent=2) + "\n")
        print(f"{COMMITTED.name} has the counts of {key}")
        return 0
    if slower:
        print(f"instructions: more than {TOLERANCE:.0%} slower: {'; '.join(slower)}. If that is meant: --update")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
