"""Several listeners on one server, of every kind, and how many clients may come."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evhttp._listening
import evnet
from evhttp import Limits, Server
from evloop import Loop
from evloop.testing import checked_loop, open_descriptors

Serve = Callable[..., Any]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def tell(req: Any, res: Any) -> None:
    res.json(req.client[0] if req.client else None)


def is_reset(running: Any, data: bytes) -> bool:
    """Whether a new client is sent away with a reset, at once or when it has sent something."""
    try:
        client = running.connect()
        client.send(data)
        return not client.at_end()
    except (ConnectionResetError, BrokenPipeError):
        return True


def ask(address: Any) -> bytes:
    with socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(address)
        sock.sendall(GET)
        return sock.recv(4096).rpartition(b"\r\n\r\n")[2]


def test_listeners_of_every_kind(serve: Serve, tmp_path: Path) -> None:
    running = serve(tell)
    server = running.server
    path = tmp_path / "socket"
    inherited = socket.socket()
    inherited.bind(("127.0.0.1", 0))
    by_number = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "other"))

    def listen() -> None:
        server.listen(["127.0.0.1", "127.0.0.2"], 0)
        server.listen_unix(path, mode=0o600)
        server.listen_socket(inherited)
        server.listen_socket([by_number.detach(), unix])

    running.call(listen)
    addresses, paths = running.call(lambda: (server.addresses, server.paths))
    assert len(addresses) == 5
    assert paths == [str(path), str(tmp_path / "other")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert addresses[1][1] == addresses[2][1]
    for address in addresses:
        assert ask(address) == b'"127.0.0.1"'
    for each in paths:
        assert ask(each) == b"null"
    running.call(server.close)
    assert not path.exists()
    assert (tmp_path / "other").exists(), "a file that somebody else has made is left to him"
    assert server.addresses == server.paths == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")
def test_an_abstract_name(serve: Serve) -> None:
    name = f"\0evhttp-{os.getpid()}".encode()
    running = serve(tell)
    running.call(lambda: running.server.listen_unix(name))
    assert ask(name) == b"null"


def test_a_stale_file_is_replaced_and_a_live_one_is_not(serve: Serve, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    running = serve(tell)
    running.call(lambda: running.server.listen_unix(path))
    assert ask(path) == b"null"
    with (
        Loop() as loop
    ):  # not a checked one: the first server, in its thread, may just be accepting who looks whether it lives
        second = Server(tell, loop=loop)
        with pytest.raises(OSError, match="a live server listens there"):
            second.listen_unix(path)
        with pytest.raises(FileExistsError, match="not a socket"):
            second.listen_unix(__file__)
        with pytest.raises(ValueError, match="mode must be"):
            second.listen_unix(str(tmp_path / "x"), mode=0o1000)
    assert ask(path) == b"null"


def test_sockets_stay_the_caller_s_when_they_do_not_fit() -> None:
    with checked_loop() as loop, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bad, socket.socket() as good:
        good.bind(("127.0.0.1", 0))
        server = Server(tell, loop=loop)
        with pytest.raises(OSError, match="is not a TCP or unix stream socket"):
            server.listen_socket([good.fileno(), bad])
        with pytest.raises(ValueError, match="the list is empty"):
            server.listen_socket([])
        with pytest.raises(OSError, match="cannot listen on descriptor 9999"):
            server.listen_socket(9999)
        assert good.getsockname()[0] == "127.0.0.1"
        assert server.addresses == []


def test_nothing_is_left_when_a_socket_cannot_be_watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Full:
        @staticmethod
        def evhttp_listen(*_: Any) -> int:
            return -24

    with checked_loop() as loop:
        server = Server(tell, loop=loop)
        before = open_descriptors()
        monkeypatch.setattr(evhttp._listening, "lib", Full)
        with pytest.raises(OSError, match=r"cannot watch the socket that listens on 127\.0\.0\.1 port"):
            server.listen("127.0.0.1", 0)
        with pytest.raises(OSError, match=r"cannot watch the socket that listens on '.*socket': Too many open files"):
            server.listen_unix(tmp_path / "socket")
        assert not (tmp_path / "socket").exists()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            with pytest.raises(OSError, match="cannot watch"):
                server.listen_socket(sock.fileno())
            assert sock.getsockname()
        assert open_descriptors() == before


def test_sockets_of_the_service_manager() -> None:
    """Activated by systemd's protocol: the child finds its listening socket as descriptor 3."""
    script = (
        "import os, evhttp, evnet\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "server = evhttp.Server(lambda req, res: (res.send('activated'), server.loop.call_later(0.01, server.loop.stop)))\n"
        "server.listen_socket([each.fd for each in evnet.listen_fds()]).run()\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as sock:
        environment = {**os.environ, "LISTEN_FDS": "1"}
        command = [sys.executable, "-c", f"import os; os.dup2({sock.fileno()}, 3)\n{script}"]
        with subprocess.Popen(command, env=environment, pass_fds=[sock.fileno()]) as process:
            assert ask(sock.getsockname()) == b"activated"
            assert process.wait(20) == 0


# -- how many ------------------------------------------------------------------------------------------------------------------


# Nobody is upgraded here: each client stays new.
@pytest.mark.parametrize("limit", ["max_connections", "max_handshakes"])
def test_clients_above_the_limit_wait(serve: Serve, tmp_path: Path, limit: str) -> None:
    running = serve(tell, limits=Limits(**{limit: 2}))  # type: ignore[arg-type]
    path = str(tmp_path / "socket")
    running.call(lambda: running.server.listen_unix(path))
    first, second = running.connect(), running.connect()
    assert first.get().status == second.get().status == 200
    third = running.connect().send(GET)
    with socket.socket(socket.AF_UNIX) as fourth:  # of another listener: they count together
        fourth.settimeout(20)
        fourth.connect(path)
        fourth.sendall(GET)
        assert first.get().status == 200
        assert running.call(lambda: running.server.connections) == 2
        first.close()
        second.close()
        assert third.answer().status == 200
        assert fourth.recv(4096).endswith(b"null")
    stats = running.call(running.server.stats)
    assert (stats.accepted, stats.refused) == (4, 0)


def test_clients_above_the_limit_are_refused(serve: Serve) -> None:
    running = serve(tell, limits=Limits(max_connections=1, refuse_connections=True))
    first = running.connect()
    assert first.get().status == 200
    assert is_reset(running, GET)
    first.close()
    running.until(lambda: running.server.connections == 0)
    assert running.connect().get().status == 200
    stats = running.call(running.server.stats)
    assert (stats.accepted, stats.refused) == (2, 1)


@pytest.mark.parametrize("number", [0, -1, 1.5, "1", 2**31])
def test_limits_that_are_none(number: Any) -> None:
    with pytest.raises(ValueError, match="max_connections must be an integer from 1"):
        Limits(max_connections=number)
    with pytest.raises(ValueError, match="max_handshakes must be an integer from 1"):
        Limits(max_handshakes=number)
    with pytest.raises(ValueError, match="refuse_connections must be True or False"):
        Limits(refuse_connections=number)


def test_a_shortage_of_descriptors_is_told(logged: Any) -> None:
    with checked_loop() as loop:
        server = Server(tell, loop=loop, name="front").listen("127.0.0.1", 0)
        server._short((0, 24, 3, b""))
        (record,) = logged.take()
        port = server.addresses[0][1]
        assert record.getMessage() == (
            f"front: cannot accept clients on 127.0.0.1 port {port}: Too many open files; 3 were hung up on so far"
        )


def test_evnet_s_parts_are_used() -> None:
    assert {"bind_tcp", "bind_unix", "inherit_sockets", "listen_fds"} <= set(evnet.__all__)
