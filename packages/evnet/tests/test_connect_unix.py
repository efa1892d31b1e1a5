"""Connecting to unix sockets."""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

import evnet
from evloop import Loop
from evloop.testing import ManualClock, run_until

Pair = Any
linux = pytest.mark.skipif(sys.platform != "linux", reason="of Linux only")


def echo_once(loop: Loop, pair: Pair, recorder: Any, path: Any) -> None:
    connecting = evnet.connect_unix(loop, lambda: recorder(pair), path)
    loop.run_until(connecting.done)
    connecting.result().write(b"hello")
    run_until(loop, lambda: len(pair.made) == 2)
    client, server = sorted(pair.made, key=lambda protocol: protocol.transport is not connecting.result())
    run_until(loop, lambda: server.data == b"hello")
    connecting.result().close()
    run_until(loop, lambda: "lost" in client.calls and "lost" in server.calls)


@pytest.mark.parametrize("kind", [str, bytes, Path])
def test_a_path(loop: Loop, pair: Pair, recorder: Any, tmp_path: Path, kind: Any) -> None:
    evnet.listen_unix(loop, lambda: recorder(pair), tmp_path / "socket")
    path = bytes(tmp_path / "socket") if kind is bytes else kind(tmp_path / "socket")
    echo_once(loop, pair, recorder, path)


@linux
@pytest.mark.parametrize("kind", [str, bytes])
def test_an_abstract_name(loop: Loop, pair: Pair, recorder: Any, tmp_path: Path, kind: Any) -> None:
    name = f"\0{tmp_path}"
    evnet.listen_unix(loop, lambda: recorder(pair), name)
    echo_once(loop, pair, recorder, name.encode() if kind is bytes else name)


def test_nobody_is_there(loop: Loop, tmp_path: Path) -> None:
    connecting = evnet.connect_unix(loop, object, tmp_path / "socket")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"cannot connect to '.*socket': No such file"):
        connecting.result()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "socket"))
    connecting = evnet.connect_unix(loop, object, tmp_path / "socket")  # type: ignore[arg-type]
    with pytest.raises(ConnectionRefusedError, match=r"cannot connect to '.*socket': Connection refused"):
        connecting.result()


def test_a_path_that_is_none(loop: Loop) -> None:
    with pytest.raises(ValueError, match="path"):
        evnet.connect_unix(loop, object, "")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="at most") as caught:
        evnet.connect_unix(loop, object, "x" * 200)  # type: ignore[arg-type]
    assert caught.value.errno == errno.ENAMETOOLONG


def test_no_descriptor_left(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", fail)
    connecting = evnet.connect_unix(loop, object, tmp_path / "socket")  # type: ignore[arg-type]
    with pytest.raises(OSError, match=r"cannot connect to '.*socket': Too many open files"):
        connecting.result()


@pytest.fixture
def full(tmp_path: Path) -> Any:
    """A server whose backlog is full, and the clients that fill it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen(0)
        clients = []
        while True:
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.setblocking(False)
            if client.connect_ex(str(tmp_path / "socket")):
                break
        yield tmp_path / "socket", server
        for client in clients:
            client.close()


@linux
def test_a_full_backlog_is_waited_for(loop: Loop, full: Any, pair: Pair, recorder: Any) -> None:
    path, server = full
    clock = ManualClock(loop)
    connecting = evnet.connect_unix(loop, lambda: recorder(pair), path, timeout=60)
    for _ in range(20):
        clock.advance(1)
    assert not connecting.done()
    server.accept()[0].close()
    clock.advance(1)
    clock.advance(0)
    run_until(loop, connecting.done)
    assert pair.made[0].calls == ["made"]
    connecting.result().abort()


@linux
def test_a_backlog_that_stays_full(loop: Loop, full: Any) -> None:
    clock = ManualClock(loop)
    connecting = evnet.connect_unix(loop, object, full[0], timeout=60)  # type: ignore[arg-type]
    clock.advance(59)
    assert not connecting.done()
    clock.advance(2)
    with pytest.raises(TimeoutError, match=r"cannot connect to '.*socket' within 60 s: its backlog is full"):
        connecting.result()


@linux
@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_giving_up_on_a_full_backlog(loop: Loop, full: Any, how: str) -> None:
    connecting = evnet.connect_unix(loop, object, full[0])  # type: ignore[arg-type]
    loop.run_once(0.01)
    if how == "cancelled":
        connecting.cancel()
    else:
        loop.close()
    assert connecting.cancelled()
