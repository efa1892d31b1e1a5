"""The example of a native protocol: built from its folder, installed beside the wheels, and used by clients good and bad."""

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import evloop
import evnet
from evloop.testing import checked_loop, run_until

FOLDER = Path(__file__).parent / "evline"


def run(command: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build evline's wheel and install it into a folder of its own."""
    folder = tmp_path_factory.mktemp("evline")
    source = shutil.copytree(FOLDER, folder / "source", ignore=shutil.ignore_patterns("build", "*.so"))
    pip = [sys.executable, "-m", "pip"]
    offline = ["--no-index", "--no-deps", "--disable-pip-version-check"]
    built = run(
        [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(folder), str(source)], EV_SHIM_WERROR="1"
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("evline-*.whl")
    installed = run([*pip, "install", *offline, "--target", str(folder / "site"), str(wheel)])
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def evline(site: Path) -> Iterator[Any]:
    sys.path.insert(0, str(site))
    try:
        import evline

        yield evline
    finally:
        sys.path.remove(str(site))


@pytest.fixture
def loop() -> Iterator[evloop.Loop]:
    with checked_loop() as loop:
        yield loop


class Client:
    """Says what it has heard, and whether the connection has ended."""

    def __init__(self, loop: evloop.Loop, server: Any) -> None:
        self.heard = b""
        self.over = False
        self.error: Exception | None = None
        made: Any = self
        connecting = evnet.connect_tcp(loop, lambda: made, *server.address)
        run_until(loop, connecting.done)
        self.transport = connecting.result()

    def connection_made(self, transport: Any) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.over = True
        self.error = error


def shout(line: bytes) -> bytes:
    return line.upper()


def test_lines_are_answered_in_order(evline: Any, loop: evloop.Loop) -> None:
    server = evline.Server(loop, shout, "127.0.0.1", 0)
    client = Client(loop, server)
    client.transport.write(b"one\ntwo\r\n\nthree\n")
    run_until(loop, lambda: client.heard.count(b"\n") == 4)
    assert client.heard == b"ONE\nTWO\n\nTHREE\n"
    assert server.connections == 1


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_the_network_may_cut_anywhere(evline: Any, loop: evloop.Loop, size: int) -> None:
    server = evline.Server(loop, shout, "127.0.0.1", 0)
    client = Client(loop, server)
    text = b"a line\r\nanother\n\r\nand\rone\n"
    for start in range(0, len(text), size):
        client.transport.write(text[start : start + size])
        loop.run_once(0)
        loop.run_once(0)
    run_until(loop, lambda: client.heard.count(b"\n") == 4)
    assert client.heard == b"A LINE\nANOTHER\n\nAND\rONE\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_limit_is_exact(evline: Any, loop: evloop.Loop, end: bytes) -> None:
    server = evline.Server(loop, shout, "127.0.0.1", 0, max_line=10)
    client = Client(loop, server)
    client.transport.write(b"x" * 10 + end)
    run_until(loop, lambda: client.heard == b"X" * 10 + b"\n")
    client.transport.write(b"fine" + end + b"x" * 11 + end + b"never seen\n")
    run_until(loop, lambda: client.over)
    assert client.heard == b"X" * 10 + b"\nFINE\nerror: a line has at most 10 bytes\n"
    run_until(loop, lambda: server.connections == 0)


def test_a_line_without_end_is_not_collected(evline: Any, loop: evloop.Loop) -> None:
    server = evline.Server(loop, shout, "127.0.0.1", 0, max_line=1000)
    client = Client(loop, server)
    client.transport.write(b"x" * 100_000)
    run_until(loop, lambda: client.over)
    assert client.heard == b"error: a line has at most 1000 bytes\n"


def test_bytes_that_trickle_in_do_not_move_the_deadline(evline: Any, loop: evloop.Loop) -> None:
    server = evline.Server(loop, shout, "127.0.0.1", 0, timeout=0.2)
    client = Client(loop, server)
    client.transport.write(b"in time\n")
    run_until(loop, lambda: client.heard == b"IN TIME\n")
    trickle = loop.call_every(0.02, client.transport.write, b"x")
    run_until(loop, lambda: client.over)
    trickle.cancel()
    assert client.heard == b"IN TIME\nerror: waited 200 ms for a line\n"


def test_the_end_of_input_waits_for_the_answers(evline: Any, loop: evloop.Loop) -> None:
    server = evline.Server(loop, shout, "127.0.0.1", 0)
    client = Client(loop, server)
    lines = [b"line %d" % number for number in range(1000)]
    client.transport.write(b"\n".join(lines) + b"\nhalf a line")
    client.transport.write_eof()
    run_until(loop, lambda: client.over)
    assert client.heard.splitlines() == [line.upper() for line in lines]
    assert client.error is None


def test_who_takes_no_answers_is_read_from_no_more(evline: Any, loop: evloop.Loop) -> None:
    called = 0

    def long_answer(line: bytes) -> bytes:
        nonlocal called
        called += 1
        return line * 1000

    server = evline.Server(loop, long_answer, "127.0.0.1", 0)
    client = Client(loop, server)
    client.transport.pause_reading()
    count = 20_000  # some 200 MB of answers
    client.transport.write(b"0123456789\n" * count)
    calls = -1
    while calls != called:  # until a while without a call: all that can be sent has been
        calls = called
        for _ in range(20):
            loop.run_once(0.01)
    assert 0 < called < count // 2
    client.transport.resume_reading()
    received = 0

    def is_all_there() -> bool:
        nonlocal received
        received += len(client.heard)
        client.heard = b""
        return received == count * 10_001

    run_until(loop, is_all_there, patience=60)
    assert called == count


def test_a_handler_that_fails_ends_that_connection_only(evline: Any, loop: evloop.Loop) -> None:
    reported: list[Any] = []
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    def picky(line: bytes) -> Any:
        return None if line == b"nothing" else b"%d" % int(line)

    server = evline.Server(loop, picky, "127.0.0.1", 0)
    clients = [Client(loop, server) for _ in range(3)]
    for client, line in zip(clients, (b"nothing\n", b"7\n", b"seven\n"), strict=True):
        client.transport.write(line)
    run_until(loop, lambda: clients[0].over and clients[1].heard and clients[2].over)
    assert sorted(type(error).__name__ for error in reported) == ["TypeError", "ValueError"]
    assert clients[1].heard == b"7\n"
    assert not clients[1].over
    assert isinstance(clients[0].error, ConnectionResetError)


def test_close_answers_what_has_come(evline: Any, loop: evloop.Loop) -> None:
    def close(line: bytes) -> bytes:
        server.close()
        server.close()
        return b"bye"

    server = evline.Server(loop, close, "127.0.0.1", 0)
    idle = Client(loop, server)
    client = Client(loop, server)
    client.transport.write(b"a\nb\n")
    run_until(loop, lambda: client.over and idle.over)
    assert client.heard == b"bye\nbye\n"
    assert idle.heard == b""
    assert server.connections == 0


def test_close_leaves_lingering_connections_their_deadline(evline: Any, loop: evloop.Loop) -> None:
    server = evline.Server(loop, shout, "127.0.0.1", 0, max_line=10)
    with socket.create_connection(server.address) as client:  # that never closes its side
        client.sendall(b"x" * 11)
        run_until(loop, lambda: server.connections == 1)
        client.setblocking(False)
        heard: list[bytes] = []
        loop.add_reader(client.fileno(), lambda: heard.append(client.recv(100)))
        run_until(loop, lambda: b"".join(heard) == b"error: a line has at most 10 bytes\n")
        loop.remove_reader(client.fileno())
        server.close()
        run_until(loop, lambda: server.connections == 0)


def test_two_servers_and_a_loop_that_closes_first(evline: Any, loop: evloop.Loop) -> None:
    servers = [evline.Server(loop, shout, "127.0.0.1", 0) for _ in range(2)]
    clients = [Client(loop, server) for server in servers]
    for client in clients:
        client.transport.write(b"x\ny")
    run_until(loop, lambda: all(client.heard == b"X\n" for client in clients))
    loop.close()
    for server in servers:
        server.close()
        assert server.connections == 0


@pytest.mark.parametrize("arguments", [{"max_line": 0}, {"max_line": 1 << 21}, {"timeout": 0}, {"timeout": -1.0}])
def test_limits_are_checked(evline: Any, loop: evloop.Loop, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        evline.Server(loop, shout, "127.0.0.1", 0, **arguments)


def test_a_taken_port(evline: Any, loop: evloop.Loop) -> None:
    server = evline.Server(loop, shout, "127.0.0.1", 0)
    with pytest.raises(OSError, match=r"(?i)address already in use"):
        evline.Server(loop, shout, *server.address)


MISMATCH = """
import ctypes, evnet, {module}
table = (ctypes.c_uint32 * 2)(99, 3)
{module}.capi_address = lambda: ctypes.addressof(table)
import evline
"""


@pytest.mark.parametrize(("module", "below"), [("evloop.native", "evloop"), ("evnet", "evnet")])
def test_another_c_interface_is_an_import_error(site: Path, module: str, below: str) -> None:
    result = run([sys.executable, "-c", MISMATCH.format(module=module)], PYTHONPATH=str(site))
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: evline 2.0.0 was built for C interface 1.")
    assert f" of {below}, but {below} 2." in last
    assert last.endswith(f"offers 99.3; install a matching pair: pip install --force-reinstall {below} 'evline>=2.0'")


def test_the_table_begins_with_its_version() -> None:
    """What the test above replaces: a major and a minor number, before anything else."""
    from evloop import native

    checks: list[Callable[[], int]] = [native.capi_address, evnet.capi_address]
    for address in checks:
        assert (ctypes.c_uint32 * 2).from_address(address())[0] == 1
