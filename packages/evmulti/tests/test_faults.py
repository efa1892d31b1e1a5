"""What is lost when something goes wrong, under a load of requests that nobody repeats: each row in processes and in threads."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from evmulti._worker import LAST_CALL

from .conftest import PATIENCE, Load, Process, get, is_alive, until

Run = Callable[..., Process]
Loads = Callable[..., Load]


def workers(server: Process) -> set[str]:
    """The workers that answer: process, thread name and thread number."""
    return {get(server.port, "/who")[1] for _ in range(40)}


def ask(port: int, path: str) -> socket.socket:
    """Ask without waiting for the answer."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return sock


def test_a_worker_is_killed(run: Run, loads: Loads, mode: str, accept: str) -> None:
    """Lost is what the dead worker held, at most a request of each client; nothing afterwards, and nobody is refused."""
    server = run("served:handler", "--workers", "2", "--mode", mode, "--accept", accept)
    port = server.port
    before = workers(server)
    assert len(before) == 2
    load = loads(port)
    load.more()
    if mode == "process":
        os.kill(server.children()[0], signal.SIGKILL)
        server.logged("was killed by SIGKILL")
    else:
        ask(port, "/exit").close()  # nothing else kills a thread
        server.logged("ended with SystemExit: 7")
    until(lambda: len(workers(server) - before) == 1 and len(workers(server)) == 2, "the new worker")
    held = load.counts["lost"]
    assert held <= load.clients
    load.more()
    counts = load.end()
    assert (counts["lost"], counts["refused"]) == (held, 0), load.reasons
    assert server.end() == 0


def test_workers_that_keep_dying_are_started_more_and_more_slowly(run: Run, loads: Loads, mode: str) -> None:
    server = run("served:handler", "--workers", "2", "--mode", mode)
    port = server.port
    for deaths in range(1, 4):
        ask(port, "/exit").close()
        server.logged(" died: ", deaths)
        server.get("/who")  # whoever is there serves for both
    until(lambda: len(workers(server)) == 2, "both workers")
    assert server.end() == 0


def test_workers_are_replaced_on_sighup(run: Run, loads: Loads, mode: str, accept: str) -> None:
    """Nothing is lost and nobody refused, three times."""
    server = run("served:handler", "--workers", "2", "--mode", mode, "--accept", accept)
    load = loads(server.port)
    before = workers(server)
    for times in range(1, 4):
        load.more()
        server.send(signal.SIGHUP)
        server.logged("the workers are replaced: ", times)
        load.more()
    after = workers(server)
    assert len(after) == 2
    assert not before & after
    counts = load.end()
    assert (counts["lost"], counts["refused"]) == (0, 0), load.reasons
    assert server.end() == 0
    assert "aborted" not in server.log


def test_a_second_sighup_while_workers_are_replaced_is_not_forgotten(run: Run, mode: str, tmp_path: Path) -> None:
    """The new worker that was on its way has begun with code that is old by now: it goes, and all get the newest."""
    code = tmp_path / "code_.py"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code.write_text("def handler(req, res):\n    res.send('one')\n")
    server = run("code_:handler", "--workers", "2", "--mode", mode, "--app-dir", str(tmp_path))
    assert server.get("/") == (200, "one")
    code.write_text(f"open({str(pipe)!r}, 'wb').close()\n" + code.read_text())
    server.send(signal.SIGHUP)
    reader = os.open(pipe, os.O_RDONLY)  # returns when a worker is being made of the second version
    code.write_text("def handler(req, res):\n    res.send('three')\n")
    server.send(signal.SIGHUP)
    server.logged("the workers are replaced: ")
    os.close(reader)
    # The last of the old workers is told to leave when its successor is there, and may have taken somebody in meanwhile.
    until(lambda: {get(server.port, "/") for _ in range(20)} == {(200, "three")}, "the newest code alone")
    assert "stay as they are" not in server.log
    assert server.end() == 0


def test_the_server_ends_on_sigterm(run: Run, loads: Loads, mode: str, accept: str) -> None:
    """Whoever got in is answered; whoever comes later is refused, and finds nobody."""
    server = run("served:handler", "--workers", "2", "--mode", mode, "--accept", accept)
    port = server.port
    slow = ask(port, "/slow")
    load = loads(port)
    load.more()
    assert server.end() == 0
    assert slow.recv(1000).endswith(b"slow")
    slow.close()
    counts = load.end()
    assert counts["lost"] == 0, load.reasons
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/")
    assert "aborted" not in server.log


def test_what_does_not_end_in_time_is_aborted_and_counted(run: Run, mode: str) -> None:
    server = run("served:handler", "--workers", "2", "--mode", mode, "--grace", "0.5")
    slow = [ask(server.port, "/very-slow?s=100") for _ in range(3)]
    assert server.get("/")[0] == 200
    until(lambda: sum(stat_connections(server)) >= 3, "three connections")
    assert server.end() == 0
    assert "ended; 3 connections were aborted" in server.log
    for sock in slow:
        with sock, pytest.raises(ConnectionResetError):
            sock.recv(100)


def stat_connections(server: Process) -> list[int]:
    """How many connections to its port the kernel knows, from the table of the process's network."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [1 for row in rows if int(row[1].split(":")[1], 16) == server.port and row[3] == "01"]


def test_a_second_signal_ends_at_once(run: Run, mode: str) -> None:
    server = run("served:handler", "--workers", "2", "--mode", mode, "--grace", "1000")
    with ask(server.port, "/very-slow?s=1000"):
        assert server.get("/")[0] == 200
        server.send(signal.SIGTERM)
        server.logged("ending: ")
        assert server.end(signal.SIGINT) == 0
    assert "ending at once" in server.log


def test_a_handler_raises(run: Run, loads: Loads, mode: str) -> None:
    server = run("served:handler", "--workers", "2", "--mode", mode)
    load = loads(server.port)
    for _ in range(10):
        assert server.get("/raise")[0] == 500
    load.more()
    counts = load.end()
    assert (counts["lost"], counts["refused"]) == (0, 0), load.reasons
    assert server.log.count("RuntimeError: on purpose") == 10


def test_a_handler_hangs(run: Run, loads: Loads, mode: str) -> None:
    """Lost is what the worker held that hangs. Until it is replaced its clients wait; the others' go on."""
    server = run("served:handler", "--workers", "2", "--mode", mode, "--worker-timeout", "2")
    load = loads(server.port)
    load.more()
    with ask(server.port, "/hang"):
        server.logged("gave no sign of life for 2 s")
        until(lambda: len(workers(server)) == 2, "two workers")
        load.more()
        held = load.counts["lost"]
        assert held <= load.clients
        assert load.counts["refused"] == 0
        load.more()
        assert load.counts["lost"] == held
        assert server.end() == 0


def test_a_handler_eats_memory(run: Run, loads: Loads, mode: str, tmp_path: Any) -> None:
    """It fails, its request is answered with 500, and nobody else notices."""
    program = (
        "import evmulti, served, logging; logging.basicConfig(level='INFO');"
        f"s = evmulti.MultiServer(served.handler, 2, {mode!r}, setup=served.frugal).listen('127.0.0.1', 0).start();"
        "print('evmulti 2. on http://127.0.0.1:%d,' % s.addresses[0][1], flush=True); s.run()"
    )
    server = run("-c", program, serves=False, env={"PYTHONPATH": os.path.join(os.path.dirname(__file__), "support")})
    load = loads(server.port)
    for _ in range(3):
        assert server.get("/eat")[0] == 500
    load.more()
    counts = load.end()
    assert (counts["lost"], counts["refused"]) == (0, 0), load.reasons
    assert "MemoryError" in server.log


def test_a_queue_is_full(run: Run, loads: Loads, mode: str, tmp_path: Path) -> None:
    """Who finds no place is told so at once, and everybody else is answered when it is his turn: nobody is lost."""
    server = run("served:pooled", "--mode", mode, "--metrics", "127.0.0.1:0")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ExitStack() as crowd:
        clients = [crowd.enter_context(ask(server.port, f"/?pipe={pipe}")) for _ in range(10)]
        refused, _, _ = select.select(clients, [], [], PATIENCE)
        while len(refused) < 4:
            refused, _, _ = select.select(clients, [], [], PATIENCE)
        for client in refused:
            answer = client.recv(1000)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in answer.lower()
        port = int(server.log.partition("statistics on http://127.0.0.1:")[2].split("/")[0])
        until(lambda: "evmulti_queued 5\n" in get(port, "/metrics")[1], "five that wait for the thread")
        writer = os.open(pipe, os.O_RDWR)
        try:
            for client in set(clients) - set(refused):
                client.settimeout(PATIENCE)
                assert client.recv(1000).endswith(b"hello")
        finally:
            os.close(writer)
    load = loads(server.port, 4)
    load.more()
    counts = load.end()
    assert (counts["lost"], counts["refused"]) == (0, 0), load.reasons
    assert server.end() == 0


def test_clients_disappear_while_their_handlers_run(run: Run, loads: Loads, mode: str) -> None:
    server = run("served:handler", "--workers", "2", "--mode", mode)
    port = server.port
    load = loads(port)
    for _ in range(20):
        sock = ask(port, "/slow")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    load.more()
    counts = load.end()
    assert (counts["lost"], counts["refused"]) == (0, 0), load.reasons
    assert server.end() == 0
    assert "Traceback" not in server.log


def test_descriptors_run_out(run: Run, mode: str) -> None:
    """Who is there is served; who is too many is hung up on or waits; and when there is room again everybody is served."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    server = run("served:handler", "--workers", "2", "--mode", mode, preexec_fn=limited)
    port = server.port
    there = ask(port, "/")
    assert there.recv(1000).endswith(b"hello")
    with ExitStack() as crowd:
        unserved = 0
        for _ in range(200):
            try:
                sock = crowd.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
                # Two loops of one process may take the spare descriptor from each other; then a client waits in the kernel.
                sock.settimeout(0.1)
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                unserved += not sock.recv(1000)
            except (ConnectionResetError, TimeoutError):
                unserved += 1
        assert 200 - 2 * 64 < unserved < 200  # two processes with 64 descriptors each, or one
        there.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert there.recv(1000).endswith(b"hello")
        there.close()

    def served() -> bool:
        try:
            return get(port, "/") == (200, "hello")
        except OSError:
            return False

    until(served, "room for clients")
    assert server.end() == 0


def test_workers_end_with_their_parent(run: Run) -> None:
    """Whatever they do: one has a request under way, the other hangs."""
    server = run("served:handler", "--workers", "2", "--mode", "process", "--grace", "0.5")
    pids = server.children()
    with ask(server.port, "/hang"), ask(server.port, "/very-slow?s=1000"):
        server.popen.kill()
        server.popen.wait(PATIENCE)
        until(lambda: not any(map(is_alive, pids)), "the end of the workers")


def test_a_worker_that_gets_a_sigterm_is_replaced_without_a_loss(run: Run, loads: Loads) -> None:
    server = run("served:handler", "--workers", "2", "--mode", "process")
    load = loads(server.port)
    load.more()
    before = server.children()
    subprocess.run(["kill", "-TERM", str(before[0])], check=True, timeout=PATIENCE)
    until(lambda: len(server.children()) == 2 and before[0] not in server.children(), "the new worker")
    load.more()
    counts = load.end()
    assert (counts["lost"], counts["refused"]) == (0, 0), load.reasons


def test_a_request_that_comes_while_a_worker_that_ends_stands_still(run: Run, mode: str) -> None:
    """It gets no processor until its last call is over; what had come by then is answered all the same."""
    server = run("served:handler", "--workers", "1", "--mode", mode)
    with ask(server.port, "/") as sock:
        assert sock.recv(1000).endswith(b"hello")
        old = server.children()[0] if mode == "process" else server.popen.pid
        server.send(signal.SIGHUP)
        server.logged("the workers are replaced: ")
        os.kill(old, signal.SIGSTOP)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(LAST_CALL * 1.2)
        os.kill(old, signal.SIGCONT)
        assert sock.recv(1000).endswith(b"hello")
    assert server.end() == 0
