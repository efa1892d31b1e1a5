"""Listening on unix sockets: their files, their permissions, and names without a file."""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import evnet
from evloop import Loop
from evloop.testing import checked_loop, open_descriptors
from evnet._unix import SocketFile, bind_unix, check_path

Pair = Any
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")


def nothing() -> Any:
    raise AssertionError("nobody connects")


def connect(path: Any) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    try:
        client.connect(path if isinstance(path, bytes) else str(path))
    except BaseException:
        client.close()
        raise
    return client


def make_stale(path: Path, kind: int = socket.SOCK_STREAM) -> int:
    """What a server leaves that was killed. Returns the inode's number."""
    with socket.socket(socket.AF_UNIX, kind) as dead:
        dead.bind(str(path))
        if kind == socket.SOCK_STREAM:
            dead.listen()
    return path.stat().st_ino


@pytest.fixture
def serve(pair: Pair, recorder: Any) -> Callable[..., evnet.Server]:
    return lambda path, **options: evnet.listen_unix(pair.loop, lambda: recorder(pair), path, **options)


def works(pair: Pair, path: Any) -> None:
    count = len(pair.made)
    with connect(path) as client:
        client.sendall(b"hello")
        pair.until(lambda: len(pair.made) > count and pair.made[-1].data == b"hello")
    pair.until(lambda: "lost" in pair.made[-1].calls)


# -- serving --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Path, str, os.fsencode])
def test_a_server_and_its_file(pair: Pair, serve: Any, tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    path = tmp_path / "sock\u00e9t"
    server = serve(kind(path))
    assert path.is_socket()
    assert server.paths == [str(path)]
    assert server.addresses == []
    assert repr(server) == f"<Server {str(path)!r}, 0 connections>"
    works(pair, path)
    assert server.stats() == evnet.ServerStats(accepted=1, open=0, refused=0, shed=0)
    server.close()
    assert not path.exists()
    assert server.paths == []
    with pytest.raises(FileNotFoundError):
        connect(path)


def test_closing_the_loop_removes_the_file(backend: str, tmp_path: Path) -> None:
    with checked_loop(backend) as loop:
        evnet.listen_unix(loop, nothing, tmp_path / "s")
        assert (tmp_path / "s").is_socket()
    assert not (tmp_path / "s").exists()


def test_open_connections_go_on_after_close(pair: Pair, serve: Any, tmp_path: Path) -> None:
    server = serve(tmp_path / "s")
    with connect(tmp_path / "s") as client:
        pair.until(lambda: pair.made)
        server.close()
        client.sendall(b"still")
        pair.until(lambda: pair.made[0].data == b"still")
        pair.made[0].transport.write(b"answer")
        assert pair.read(client, 6) == b"answer"


def test_a_relative_path_is_removed_after_a_change_of_folder(
    pair: Pair, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = serve("s")
    works(pair, tmp_path / "s")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    Path("s").touch()
    server.close()
    assert Path("s").exists()
    assert not (tmp_path / "s").exists()


@linux
@pytest.mark.parametrize("kind", [str, bytes])
def test_abstract_names(pair: Pair, serve: Any, backend: str, kind: type) -> None:
    name = f"\0evnet-test-{os.getpid()}-{backend}-{kind.__name__}"
    server = serve(name if kind is str else name.encode())
    assert server.paths == [name.encode()]
    works(pair, name.encode())
    with pytest.raises(OSError, match=r"cannot listen on '\\x00evnet-test-.*: Address already in use") as caught:
        evnet.listen_unix(pair.loop, nothing, name)
    assert caught.value.errno == errno.EADDRINUSE
    works(pair, name.encode())
    server.close()
    with pytest.raises(ConnectionRefusedError):
        connect(name.encode())
    serve(name).close()


# -- what is there already ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_stale_file_is_replaced(pair: Pair, serve: Any, tmp_path: Path, kind: int) -> None:
    path = tmp_path / "s"
    make_stale(path, kind)
    with pytest.raises(ConnectionRefusedError):
        connect(path)
    serve(path)
    works(pair, path)


def test_the_file_of_a_server_that_was_killed_is_replaced(pair: Pair, serve: Any, tmp_path: Path) -> None:
    script = """
import evnet, os, signal, sys
from evloop import Loop
loop = Loop()
evnet.listen_unix(loop, object, sys.argv[1])
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "s"
    done = subprocess.run([sys.executable, "-c", script, path], check=False, timeout=60)
    assert done.returncode == -9
    assert path.is_socket()
    serve(path)
    works(pair, path)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_live_server_is_left_alone(loop: Loop, tmp_path: Path, kind: int) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, kind) as live:
        live.bind(str(path))
        if kind == socket.SOCK_STREAM:
            live.listen()
        inode = path.stat().st_ino
        before = open_descriptors()
        with pytest.raises(OSError, match=f"cannot listen on {str(path)!r}: a live server listens there") as caught:
            evnet.listen_unix(loop, nothing, str(path))
        assert caught.value.errno == errno.EADDRINUSE
        assert open_descriptors() == before
        assert path.stat().st_ino == inode


@linux
def test_a_live_server_with_a_full_backlog_is_left_alone(loop: Loop, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as live, connected_until_full(live, tmp_path / "s"):
        with pytest.raises(OSError, match="a live server listens there"):
            evnet.listen_unix(loop, nothing, tmp_path / "s")
        assert (tmp_path / "s").is_socket()


@contextmanager
def connected_until_full(listening: socket.socket, path: Path) -> Iterator[list[socket.socket]]:
    """Clients of a socket that accepts nobody; all but the last one are in its queue."""
    clients: list[socket.socket] = []
    listening.bind(str(path))
    listening.listen(1)
    try:
        while True:
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].setblocking(False)
            if clients[-1].connect_ex(str(path)) == errno.EAGAIN:
                yield clients
                return
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("kind", ["file", "folder", "symlink", "dangling", "fifo"])
def test_what_is_no_socket_is_refused_and_untouched(loop: Loop, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    make_stale(tmp_path / "stale")
    make: dict[str, Callable[[], object]] = {
        "file": lambda: path.write_text("precious"),
        "folder": path.mkdir,
        "symlink": lambda: path.symlink_to(tmp_path / "stale"),
        "dangling": lambda: path.symlink_to(tmp_path / "nowhere"),
        "fifo": lambda: os.mkfifo(path),
    }
    make[kind]()
    found = path.lstat()
    before = open_descriptors()
    with pytest.raises(FileExistsError, match="what is there is not a socket"):
        evnet.listen_unix(loop, nothing, path)
    assert open_descriptors() == before
    assert path.lstat() == found
    assert (tmp_path / "stale").is_socket()


def test_a_socket_that_we_may_not_try(loop: Loop) -> None:
    # Not pytest's folder, in which only its own user may look; and not as root, who may connect to everything.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as live:
        path = Path(folder, "s")
        os.chmod(folder, 0o777)
        live.bind(str(path))
        live.listen()
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match="whether the socket there is alive cannot be found out"):
                evnet.listen_unix(loop, nothing, path)
        finally:
            os.seteuid(user)
        assert path.is_socket()


def test_a_file_that_is_not_ours_any_more_stays(pair: Pair, serve: Any, tmp_path: Path) -> None:
    """As when an administrator has removed it, and started another server there."""
    path = tmp_path / "s"
    first = serve(path)
    path.unlink()
    second = serve(path)
    first.close()
    works(pair, path)
    second.close()
    assert not path.exists()


def test_a_file_that_was_removed_or_cannot_be(
    pair: Pair, serve: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(tmp_path / "s")
    (tmp_path / "s").unlink()
    server.close()
    assert not caplog.records
    server = serve(tmp_path / "s")

    def refuse(path: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        server.close()
    assert [each.getMessage() for each in caplog.records] == [
        f"the socket file {str(tmp_path / 's')!r} stays behind: Permission denied"
    ]


def test_a_forked_child_leaves_the_file_to_its_parent(tmp_path: Path) -> None:
    sock, file = bind_unix(tmp_path / "s")
    assert file is not None
    with sock:
        child = multiprocessing.get_context("fork").Process(target=file.remove)
        child.start()
        child.join(20)
        assert child.exitcode == 0
        assert (tmp_path / "s").is_socket()
        file.remove()
        assert not (tmp_path / "s").exists()


def test_two_that_start_together(tmp_path: Path) -> None:
    """A stale file, and many servers that want its place: one gets it, and the others do not take it away from it."""
    for number in range(20):
        path = tmp_path / f"s{number}"
        make_stale(path)
        together = threading.Barrier(4)

        def start(path: Path = path, together: threading.Barrier = together) -> Any:
            together.wait(10)
            try:
                return bind_unix(path)
            except OSError as error:
                return error.errno

        with ThreadPoolExecutor(4) as pool:
            results = [each.result(20) for each in [pool.submit(start) for _ in range(4)]]
        assert results.count(errno.EADDRINUSE) == 3
        ((sock, file),) = [each for each in results if each != errno.EADDRINUSE]
        with sock, connect(path):
            assert isinstance(file, SocketFile)


def test_a_lock_that_somebody_holds_does_not_keep_us_from_listening(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evnet._unix._LOCK_PATIENCE", 0.0)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with caplog.at_level(logging.WARNING, "evnet"):
        sock, _ = bind_unix(tmp_path / "s")
    os.close(folder)
    with sock, connect(tmp_path / "s"):
        pass
    assert "somebody holds a lock on the folder of" in caplog.text


# -- permissions ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777, 0])
def test_mode(pair: Pair, serve: Any, tmp_path: Path, mode: int) -> None:
    umask = os.umask(0o27)
    try:
        serve(tmp_path / "s", mode=mode)
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
        serve(tmp_path / "other")
        assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o750
    finally:
        assert os.umask(umask) == 0o27


def test_the_mode_is_there_before_anybody_can_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at from inside: at chmod nobody can connect yet, and the umask is never touched."""
    path = tmp_path / "s"
    changed: list[int] = []

    def chmod(name: Any, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
            early.connect(str(path))
        changed.append(mode)
        real(name, mode)

    def umask(mask: int) -> int:
        raise AssertionError("the umask is the whole process's")

    real = os.chmod
    monkeypatch.setattr(os, "chmod", chmod)
    monkeypatch.setattr(os, "umask", umask)
    sock, _ = bind_unix(path, mode=0o600)
    with sock:
        assert changed == [0o600]
        with connect(path):
            pass


# -- bad input ------------------------------------------------------------------------------------------------------------------

BAD = {
    "empty": ("", {}, ValueError, "a path must have characters"),
    "zero byte": ("a\0b", {}, ValueError, "no zero byte among them"),
    "no abstract name": ("\0", {}, ValueError, "the abstract name is empty"),
    "too long": ("x" * 108, {}, OSError, "at most 107 bytes, not 108: 'xxx"),
    "too long in bytes": ("é" * 54, {}, OSError, "at most 107 bytes, not 108: 'ééé"),
    "abstract too long": ("\0" + "x" * 108, {}, OSError, "at most 108 bytes, not 109"),
    "number": (5, {}, TypeError, "expected str, bytes or os.PathLike object, not int"),
    "folder that is none": ("/nowhere/s", {}, FileNotFoundError, "cannot listen on '/nowhere/s': No such file"),
    "folder that is a file": ("/dev/null/s", {}, NotADirectoryError, "cannot listen on '/dev/null/s': Not a directory"),
    "mode -1": ("s", {"mode": -1}, ValueError, "mode must be from 0 to 0o777, not -1"),
    "mode 0o1777": ("s", {"mode": 0o1777}, ValueError, "mode must be from 0 to 0o777"),
    "mode without file": ("\0s", {"mode": 0o600}, ValueError, "an abstract name has no file"),
}


@linux
@pytest.mark.parametrize(("path", "options", "error", "says"), BAD.values(), ids=BAD)
def test_bad_input(
    loop: Loop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: Any,
    options: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = open_descriptors()
    with pytest.raises(error, match=says):
        evnet.listen_unix(loop, nothing, path, **options)
    assert open_descriptors() == before
    assert not list(tmp_path.iterdir())


@linux
def test_the_longest_names(
    pair: Pair, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.chdir(tmp_path)
    serve("x" * 107)
    works(pair, "x" * 107)
    name = f"\0{os.getpid()}-{backend}".encode().ljust(108, b"x")
    serve(name)
    works(pair, name)
    assert check_path("\0" + "x" * 107)


def test_nothing_is_left_when_listening_fails(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", path)

    monkeypatch.setattr(os, "chmod", refuse)
    before = open_descriptors()
    with pytest.raises(PermissionError, match=r"cannot listen on .*: Operation not permitted"):
        evnet.listen_unix(loop, nothing, tmp_path / "s", mode=0o600)
    assert open_descriptors() == before
    assert not list(tmp_path.iterdir())


# -- load -----------------------------------------------------------------------------------------------------------------------


@linux
def test_a_full_backlog(pair: Pair, serve: Any, tmp_path: Path) -> None:
    """Who does not fit is told so at once (EAGAIN); those in the queue are served, and then there is room again."""
    server = serve(tmp_path / "s", backlog=5)
    clients: list[socket.socket] = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        if client.connect_ex(str(tmp_path / "s")) == errno.EAGAIN:
            break
        client.send(b"%d" % len(clients))
        clients.append(client)
    assert len(clients) == 6  # Linux lets one more in than was asked for
    pair.until(lambda: len(pair.made) == 6 and all(each.data for each in pair.made))
    assert {int(each.data) for each in pair.made} == set(range(6))
    client.setblocking(True)
    client.connect(str(tmp_path / "s"))
    client.sendall(b"late")
    pair.until(lambda: pair.made[-1].data == b"late")
    for each in [*clients, client]:
        each.close()
    pair.until(lambda: server.connections == 0)


@pytest.mark.parametrize("when_full", ["wait", "refuse"])
def test_max_connections(pair: Pair, serve: Any, tmp_path: Path, when_full: str) -> None:
    server = serve(tmp_path / "s", max_connections=1, when_full=when_full)
    with connect(tmp_path / "s") as first, connect(tmp_path / "s") as second:
        pair.until(lambda: pair.made)
        if when_full == "refuse":
            pair.until(lambda: server.stats().refused == 1)
            assert second.recv(1) == b""
        else:
            pair.turns()
            assert server.connections == 1
            first.close()
            second.sendall(b"my turn")
            pair.until(lambda: pair.made[-1].data == b"my turn")
