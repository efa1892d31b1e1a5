"""sendfile, and its copy, which gives the same results."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import evloop._sendfile
from evloop import sendfile
from evloop._shim import lib

DATA = bytes(range(256)) * 1024


class Copying:
    """The shim, where the kernel refuses every pair of descriptors."""

    ev_sendfile = staticmethod(lib.ev_sendfile_copy)


@pytest.fixture(params=["kernel", "copy"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "copy":
        monkeypatch.setattr(evloop._sendfile, "lib", Copying)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def received(out: socket.socket) -> Callable[[], bytes]:
    """Read all of it in a thread; the result is a function that waits for that and returns it."""
    parts: list[bytes] = []

    def read() -> None:
        while part := out.recv(65536):
            parts.append(part)

    thread = threading.Thread(target=read)
    thread.start()

    def end() -> bytes:
        thread.join()
        return b"".join(parts)

    return end


def send_all(out: int, source: int, offset: int, count: int) -> int:
    total = 0
    while count and (sent := sendfile(out, source, offset + total, count)):
        total += sent
        count -= sent
    return total


@pytest.mark.parametrize(
    ("offset", "count"),
    [
        (0, len(DATA)),
        (0, 1),
        (1, 255),
        (len(DATA) - 1, 1),
        (65535, 65538),
        (0, 2**62),
        (len(DATA), 1),
        (2**40, 1),
        (5, 0),
    ],
)
def test_a_part_of_the_file(source: int, offset: int, count: int) -> None:
    os.lseek(source, 7, os.SEEK_SET)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        end = received(theirs)
        wanted = DATA[offset : offset + count]
        assert send_all(ours.fileno(), source, offset, count) == len(wanted)
        ours.shutdown(socket.SHUT_WR)
        assert end() == wanted
    assert os.lseek(source, 0, os.SEEK_CUR) == 7


def test_a_pipe(source: int, pipe: tuple[int, int]) -> None:
    assert sendfile(pipe[1], source, 3, 1000) == 1000
    assert os.read(pipe[0], 2000) == DATA[3:1003]


@pytest.mark.parametrize("flags", [0, os.O_APPEND])
def test_a_file(source: int, tmp_path: Path, flags: int) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"12345")
    out = os.open(target, os.O_WRONLY | flags)
    try:
        os.lseek(out, 5, os.SEEK_SET)
        assert send_all(out, source, 10, 100_000) == 100_000
    finally:
        os.close(out)
    assert target.read_bytes() == b"12345" + DATA[10:100_010]


def test_a_full_descriptor(source: int, pipe: tuple[int, int]) -> None:
    sent = sendfile(pipe[1], source, 0, len(DATA))
    while True:
        try:
            sent += sendfile(pipe[1], source, sent, len(DATA))
        except BlockingIOError:
            break
    assert 0 < sent < len(DATA)
    assert os.read(pipe[0], len(DATA)) == DATA[:sent]


def test_the_peer_has_gone(source: int) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(BrokenPipeError):
        send_all(ours.fileno(), source, 0, len(DATA))


def test_a_signal_before_anything_was_sent(source: int, pipe: tuple[int, int]) -> None:
    """Its handler runs, here one that makes room, and the call goes on."""
    os.set_blocking(pipe[1], False)
    filled = 0
    try:
        while True:
            filled += os.write(pipe[1], bytes(4096))
    except BlockingIOError:
        pass
    os.set_blocking(pipe[1], True)
    calls: list[int] = []

    def handler(number: int, frame: object) -> None:
        calls.append(number)
        if len(calls) == 3:
            os.read(pipe[0], filled)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        assert sendfile(pipe[1], source, 0, 100) == 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(calls) >= 3


def test_a_handler_that_raises_ends_the_call(source: int, pipe: tuple[int, int]) -> None:
    try:
        while True:
            os.write(pipe[1], bytes(4096))
    except BlockingIOError:
        pass
    os.set_blocking(pipe[1], True)

    def handler(number: int, frame: object) -> None:
        raise ZeroDivisionError

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(ZeroDivisionError):
            sendfile(pipe[1], source, 0, 100)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_other_threads_run_meanwhile(source: int, pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], True)
    os.set_blocking(pipe[0], True)
    got: list[bytes] = []

    def read() -> None:
        while sum(map(len, got)) < len(DATA):
            got.append(os.read(pipe[0], 65536))

    thread = threading.Thread(target=read)
    thread.start()
    assert send_all(pipe[1], source, 0, len(DATA)) == len(DATA)
    thread.join()
    assert b"".join(got) == DATA


def test_descriptors_of_the_wrong_kind(source: int, pipe: tuple[int, int], tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    closed = os.dup(source)
    os.close(closed)
    try:
        for out, into, number in [
            (pipe[1], closed, errno.EBADF),
            (closed, source, errno.EBADF),
            (pipe[0], source, errno.EBADF),
            (pipe[1], pipe[0], errno.ESPIPE),
            (pipe[1], folder, errno.EISDIR),
        ]:
            with pytest.raises(OSError, match=f"sendfile from fd {into} to fd {out}") as caught:
                sendfile(out, into, 0, 10)
            assert caught.value.errno == number
    finally:
        os.close(folder)


@pytest.mark.parametrize(("offset", "count"), [(-1, 1), (0, -1), (2**63, 1), (0, 2**64)])
def test_numbers_that_no_file_has(source: int, pipe: tuple[int, int], offset: int, count: int) -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        sendfile(pipe[1], source, offset, count)


def test_arguments_of_the_wrong_type(source: int, pipe: tuple[int, int]) -> None:
    for arguments in [("1", source, 0, 1), (pipe[1], None, 0, 1), (pipe[1], source, "0", 1), (pipe[1], source, 0, 1.5)]:
        with pytest.raises(TypeError):
            sendfile(*arguments)  # type: ignore[arg-type]
