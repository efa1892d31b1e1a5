"""Streams over pipes, terminals and subprocesses: bytes, ends, back-pressure, and what is refused."""

from __future__ import annotations

import asyncio
import errno
import os
import pty
import random
import signal
import socket
import subprocess
import sys
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evloop import Loop, LoopClosedError
from evnet import Connection, ConnectionClosedError, Stream, open_stream, stream_pair
from evnet import _connection as connection_module

Pair = Any
BIG = random.Random(2).randbytes(1_500_000)


def close_if_open(fd: int, was: os.stat_result) -> None:
    """Close a descriptor that nobody has closed, or opened again, since then."""
    try:
        is_open = os.path.samestat(os.fstat(fd), was)
    except OSError:
        return
    if is_open:
        os.close(fd)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose ends the test may close, or give away."""
    ends = os.pipe()
    before = [os.fstat(fd) for fd in ends]
    yield ends
    for fd, was in zip(ends, before, strict=True):
        close_if_open(fd, was)


def open_recorder(pair: Pair, recorder: Any, fd: Any, **options: Any) -> Any:
    open_stream(pair.loop, fd, lambda: recorder(pair), **options)
    return pair.made[-1]


def test_reading_end_of_a_pipe(pair: Pair, recorder: Any, pipe: tuple[int, int]) -> None:
    protocol = open_recorder(pair, recorder, pipe[0])
    assert isinstance(protocol.transport, Stream)
    os.write(pipe[1], b"one")
    pair.until(lambda: protocol.data == b"one")
    with pytest.raises(ConnectionClosedError, match="reading only"):
        protocol.transport.write(b"x")
    assert not protocol.transport.can_write_eof()
    os.write(pipe[1], b"two")
    os.close(pipe[1])
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.data == b"onetwo"
    assert protocol.calls == ["made", "eof", "lost"]
    assert protocol.error is None


def test_writing_end_of_a_pipe(pair: Pair, recorder: Any, pipe: tuple[int, int]) -> None:
    protocol = open_recorder(pair, recorder, pipe[1])
    protocol.transport.write(b"one")
    protocol.transport.writelines([b"two", b"three"])
    assert protocol.transport.can_write_eof()
    protocol.transport.write_eof()
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.calls == ["made", "lost"]
    assert os.read(pipe[0], 100) == b"onetwothree"
    assert os.read(pipe[0], 100) == b""


def test_back_pressure_in_a_pipe(pair: Pair, recorder: Any, pipe: tuple[int, int]) -> None:
    """A pipe holds 64 KiB: the writer is told to pause, the reader pauses, and everything arrives in the end."""
    writer = open_recorder(pair, recorder, pipe[1])
    reader = open_recorder(pair, recorder, pipe[0])
    reader.transport.pause_reading()
    for at in range(0, len(BIG), 100_000):
        writer.transport.write(BIG[at : at + 100_000])
    pair.until(lambda: "pause" in writer.calls)
    pair.turns()
    assert reader.data == b""
    reader.transport.resume_reading()
    pair.until(lambda: "resume" in writer.calls)
    writer.transport.close()
    pair.until(lambda: "lost" in reader.calls)
    assert bytes(reader.data) == BIG
    assert writer.error is None


def test_nobody_reads_the_pipe(pair: Pair, recorder: Any, pipe: tuple[int, int]) -> None:
    protocol = open_recorder(pair, recorder, pipe[1])
    pair.turns(2)
    os.close(pipe[0])
    protocol.transport.write(b"x")
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.calls == ["made", "lost"]
    assert isinstance(protocol.error, BrokenPipeError)


def test_the_reader_of_a_silent_pipe_goes(pair: Pair, recorder: Any, pipe: tuple[int, int]) -> None:
    """Nothing is queued, so nothing is lost."""
    protocol = open_recorder(pair, recorder, pipe[1])
    pair.turns(2)
    os.close(pipe[0])
    if pair.loop.backend == "poll":  # which tells only of what is waited for
        protocol.transport.close()
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.error is None


@pytest.mark.parametrize("pending", [False, True], ids=["none pending", "one pending"])
def test_a_broken_pipe_raises_no_signal(pending: bool) -> None:
    """With the default action SIGPIPE ends the process. One that was pending before stays so."""
    script = f"""
import os, signal, evnet
from evloop import Loop
from evloop.testing import run_until
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if {pending}:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
    os.kill(os.getpid(), signal.SIGPIPE)
class Protocol:
    lost = None
    def connection_made(self, transport):
        transport.write(b"x")
    def connection_lost(self, error):
        self.lost = error
reading, writing = os.pipe()
loop = Loop()
protocol = Protocol()
evnet.open_stream(loop, writing, lambda: protocol)
os.close(reading)
run_until(loop, lambda: protocol.lost)
loop.close()
print(type(protocol.lost).__name__, len(signal.sigpending()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["BrokenPipeError", str(int(pending))], "")


@pytest.fixture
def terminal() -> Iterator[Callable[[int], int]]:
    """Both ends of a pseudo-terminal in raw mode, [0] the master; taking one away makes it the test's."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    mine = {0: master, 1: slave}
    yield mine.pop
    for fd in mine.values():
        os.close(fd)


def test_a_terminal(pair: Pair, recorder: Any, terminal: Callable[[int], int]) -> None:
    slave = terminal(1)
    protocol = open_recorder(pair, recorder, terminal(0))
    os.write(slave, b"typed")
    pair.until(lambda: protocol.data == b"typed")
    protocol.transport.write(b"shown")
    pair.turns()
    assert os.read(slave, 100) == b"shown"
    assert not protocol.transport.can_write_eof()
    with pytest.raises(NotImplementedError):
        protocol.transport.write_eof()
    os.close(slave)
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.calls == ["made", "eof", "lost"]
    assert protocol.error is None


def test_much_through_a_terminal(pair: Pair, recorder: Any, terminal: Callable[[int], int]) -> None:
    """It takes and gives some 4 KiB at a time, whatever is asked for."""
    writer = open_recorder(pair, recorder, terminal(1))
    reader = open_recorder(pair, recorder, terminal(0))
    writer.transport.write(BIG[:200_000])
    pair.until(lambda: len(reader.data) == 200_000)
    assert reader.data == BIG[:200_000]
    writer.transport.close()
    pair.until(lambda: "lost" in reader.calls)
    assert reader.calls == ["made", "eof", "lost"]


def test_a_subprocess(pair: Pair, recorder: Any) -> None:
    script = "import sys; sys.stdout.write(sys.stdin.read().upper())"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        into = open_recorder(pair, recorder, process.stdin)
        out = open_recorder(pair, recorder, process.stdout)
        assert process.stdin is not None
        assert process.stdin.closed
        into.transport.write(b"abc " * 50_000)
        into.transport.write_eof()
        pair.until(lambda: "lost" in out.calls)
    assert out.data == b"ABC " * 50_000
    assert process.returncode == 0


def test_a_file_into_a_pipe(pair: Pair, recorder: Any, pipe: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(BIG)
    reader, writer = open_recorder(pair, recorder, pipe[0]), open_recorder(pair, recorder, pipe[1])
    sent: list[Exception | None] = []
    writer.transport.write(b"head")
    with path.open("rb") as file:
        writer.transport.send_file(file, 10, sent=sent.append)
    writer.transport.write(b"tail")
    writer.transport.close()
    pair.until(lambda: "lost" in reader.calls)
    assert bytes(reader.data) == b"head" + BIG[10:] + b"tail"
    assert sent == [None]


def test_a_socket(pair: Pair, recorder: Any) -> None:
    ours, client = socket.socketpair()
    pair.clients.append(client)
    protocol = open_recorder(pair, recorder, ours)
    assert ours.fileno() == -1
    assert type(protocol.transport) is Connection
    protocol.transport.write(b"x")
    assert pair.read(client, 1) == b"x"


def test_stream_pair(pair: Pair, recorder: Any) -> None:
    one, two = stream_pair(pair.loop, lambda: recorder(pair), lambda: recorder(pair))
    first, second = pair.made
    one.write(b"to the second")
    two.write(BIG)
    two.write_eof()
    pair.until(lambda: second.data == b"to the second" and "lost" in first.calls)
    assert bytes(first.data) == BIG
    pair.until(lambda: "lost" in second.calls)
    assert first.calls[-2:] == ["eof", "lost"]


def test_stream_pair_with_a_factory_that_raises(loop: Loop, pair: Pair, recorder: Any) -> None:
    def fail() -> Any:
        raise RuntimeError("in the factory")

    with pytest.raises(RuntimeError, match="in the factory"):
        stream_pair(loop, lambda: recorder(pair), fail)
    assert pair.made == []


def test_stream_pair_on_a_closed_loop(loop: Loop) -> None:
    """What was not taken over is closed; the fixture looks for what is left open."""
    loop.close()
    with pytest.raises(LoopClosedError):
        stream_pair(loop, asyncio.Protocol, asyncio.Protocol)


def test_stream_pair_of_which_one_end_cannot_be_watched(
    pair: Pair, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is left with half a pair."""
    real, calls = connection_module.take, []

    def take(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "cannot watch")
        return real(*arguments, **options)

    monkeypatch.setattr(connection_module, "take", take)
    with pytest.raises(OSError, match="cannot watch"):
        stream_pair(pair.loop, lambda: recorder(pair), lambda: recorder(pair))
    (first,) = pair.made
    pair.until(lambda: "lost" in first.calls)


def test_idle_timeout(pair: Pair, recorder: Any, pipe: tuple[int, int]) -> None:
    protocol = open_recorder(pair, recorder, pipe[0], idle_timeout=0.05)
    pair.until(lambda: "lost" in protocol.calls)
    assert isinstance(protocol.error, TimeoutError)


def test_write_timeout(pair: Pair, recorder: Any, pipe: tuple[int, int]) -> None:
    protocol = open_recorder(pair, recorder, pipe[1], write_timeout=0.05)
    protocol.transport.write(BIG)
    pair.until(lambda: "lost" in protocol.calls)
    assert isinstance(protocol.error, TimeoutError)


# -- what is refused ------------------------------------------------------------------------------------------------------------


def refused() -> Any:
    raise AssertionError("the factory was called")


def test_a_file_is_refused(loop: Loop, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        with pytest.raises(ValueError, match="is a regular file: a stream needs"):
            open_stream(loop, file, refused)
        assert not file.closed


def test_a_directory_is_refused(loop: Loop, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(ValueError, match="is a directory"):
        open_stream(loop, fd, refused)
    os.close(fd)


def test_a_closed_descriptor_is_refused(loop: Loop, pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(OSError, match="Bad file descriptor"):
        open_stream(loop, pipe[0], refused)


def test_what_the_poller_refuses_stays_the_caller_s(loop: Loop, pair: Pair, recorder: Any) -> None:
    if loop.backend != "epoll":
        pytest.skip("the others take a device that is always ready")
    with open(os.devnull, "wb", buffering=0) as null:
        with pytest.raises(PermissionError, match="cannot watch descriptor"):
            open_stream(loop, null, lambda: recorder(pair))
        assert not null.closed
    assert pair.made == []


def test_an_object_that_does_not_close(pair: Pair, recorder: Any, pipe: tuple[int, int]) -> None:
    """It cannot be taken over; the duplicate is closed, and the object is as it was."""

    class Stubborn:
        def fileno(self) -> int:
            return pipe[0]

        def close(self) -> None:
            raise OSError("does not close")

    with pytest.raises(OSError, match="does not close"):
        open_stream(pair.loop, Stubborn(), lambda: recorder(pair))
    pair.turns()
    assert pair.made == []
    os.write(pipe[1], b"x")
    assert os.read(pipe[0], 1) == b"x"


def test_sigpipe_is_ignored_here() -> None:
    """So that the tests above say something about the other case, in a process of their own."""
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
