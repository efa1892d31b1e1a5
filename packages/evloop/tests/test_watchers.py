"""Descriptors: `watch`, and asyncio's readers and writers on top of it."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evloop import READ, WRITE, Loop, LoopClosedError, Watcher
from evloop.testing import checked_loop, open_descriptors, run_until

Pipe = tuple[int, int]
Pair = tuple[socket.socket, socket.socket]
BOTH = READ | WRITE


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected sockets that do not block."""
    with_closing = socket.socketpair()
    for end in with_closing:
        end.setblocking(False)
    yield with_closing
    for end in with_closing:
        end.close()


def turns(loop: Loop, count: int = 3) -> None:
    """So that what must not happen would have happened."""
    for _ in range(count):
        loop.run_once(0)


def drain(fd: int) -> None:
    try:
        while os.read(fd, 65536):
            pass
    except BlockingIOError:
        pass


# -- watch ----------------------------------------------------------------------------------------------------------------------


def test_what_is_ready_is_reported_as_long_as_it_is(loop: Loop, pipe: Pipe) -> None:
    calls: list[tuple[int, int]] = []
    watcher = loop.watch(pipe[0], READ, lambda fd, ready: calls.append((fd, ready)))
    assert isinstance(watcher, Watcher)
    assert (watcher.fd, watcher.events, watcher.closed) == (pipe[0], READ, False)
    turns(loop)
    assert calls == []
    os.write(pipe[1], b"x")
    turns(loop)
    assert calls == [(pipe[0], READ)] * 3
    os.read(pipe[0], 1)
    turns(loop)
    assert len(calls) == 3


def test_both_directions_come_in_one_call(loop: Loop, pair: Pair) -> None:
    calls: list[int] = []
    loop.watch(pair[0].fileno(), BOTH, lambda fd, ready: calls.append(ready))
    turns(loop)
    assert calls == [WRITE] * 3
    pair[1].send(b"x")
    calls.clear()
    turns(loop)
    assert calls == [BOTH] * 3


def test_modify(loop: Loop, pair: Pair) -> None:
    calls: list[int] = []
    watcher = loop.watch(pair[0].fileno(), READ, lambda fd, ready: calls.append(ready))
    turns(loop)
    watcher.modify(READ)
    watcher.modify(WRITE)
    assert watcher.events == WRITE
    pair[1].send(b"x")
    turns(loop)
    watcher.modify(BOTH)
    turns(loop)
    watcher.modify(READ)
    turns(loop)
    assert calls == [WRITE] * 3 + [BOTH] * 3 + [READ] * 3


def test_modify_in_the_batch_that_reported_the_other_direction(loop: Loop, pair: Pair) -> None:
    """A callback is not told of what its watcher does not want any more."""
    calls: list[int] = []
    other = socket.socketpair()
    with other[0], other[1]:
        watchers: list[Watcher] = []

        def first(fd: int, ready: int) -> None:
            calls.append(ready)
            for watcher in watchers:
                watcher.modify(WRITE)

        for end in (pair[0], other[0]):
            watchers.append(loop.watch(end.fileno(), READ, first))
        pair[1].send(b"x")
        other[1].send(b"x")
        loop.run_once(0)
        assert calls == [READ]
        loop.run_once(0)
        assert calls == [READ, WRITE, WRITE]
        for watcher in watchers:
            watcher.close()


def test_close_twice_and_then_nothing(loop: Loop, pipe: Pipe) -> None:
    calls: list[int] = []
    watcher = loop.watch(pipe[0], READ, lambda fd, ready: calls.append(ready))
    assert loop.stats().watchers == 1
    os.write(pipe[1], b"x")
    watcher.close()
    watcher.close()
    assert watcher.closed
    assert "closed" in repr(watcher)
    watcher.rearm()
    with pytest.raises(ValueError, match=f"the watcher of fd {pipe[0]} is closed"):
        watcher.modify(WRITE)
    turns(loop)
    assert calls == []
    assert loop.stats().watchers == 0
    again = loop.watch(pipe[0], READ, lambda fd, ready: calls.append(ready))
    loop.run_once(0)
    assert calls == [READ]
    watcher.close()  # must not take away its successor's place
    with pytest.raises(FileExistsError):
        loop.watch(pipe[0], READ, print)
    again.close()


def test_the_callback_runs_in_the_context_of_watch(loop: Loop, pipe: Pipe) -> None:
    variable = contextvars.ContextVar("variable", default="outside")
    seen: list[str] = []
    token = variable.set("inside")
    loop.watch(pipe[1], WRITE, lambda fd, ready: seen.append(variable.get()))
    variable.reset(token)
    loop.run_once(0)
    assert seen == ["inside"]


# -- edges ----------------------------------------------------------------------------------------------------------------------


def test_an_edge_is_reported_once(loop: Loop, pipe: Pipe) -> None:
    calls: list[int] = []
    watcher = loop.watch(pipe[0], READ, lambda fd, ready: calls.append(ready), edge=True)
    os.write(pipe[1], b"x")
    turns(loop)
    assert calls == [READ]
    drain(pipe[0])
    watcher.rearm()
    turns(loop)
    assert calls == [READ]
    os.write(pipe[1], b"y")
    turns(loop)
    assert calls == [READ] * 2


def test_edges_of_one_direction_leave_the_other(loop: Loop, pair: Pair) -> None:
    calls: list[int] = []
    fd = pair[0].fileno()

    def ready_for(fd: int, ready: int) -> None:
        calls.append(ready)
        if ready & READ:
            drain(fd)
            watcher.rearm()

    watcher = loop.watch(fd, BOTH, ready_for, edge=True)
    turns(loop)
    assert calls == [WRITE]
    for number in range(5):
        pair[1].send(b"x")
        turns(loop)
        assert sum(1 for ready in calls if ready & READ) == number + 1


def test_an_edge_modified_to_the_other_direction(loop: Loop, pair: Pair) -> None:
    calls: list[int] = []
    watcher = loop.watch(pair[0].fileno(), READ, lambda fd, ready: calls.append(ready), edge=True)
    turns(loop)
    watcher.modify(WRITE)
    turns(loop)
    assert calls == [WRITE]
    pair[1].send(b"x")
    watcher.modify(READ)
    turns(loop)
    assert calls == [WRITE, READ]


def test_rearm_of_a_level_watcher_does_nothing(loop: Loop, pipe: Pipe) -> None:
    calls: list[int] = []
    watcher = loop.watch(pipe[0], READ, lambda fd, ready: calls.append(ready))
    watcher.rearm()
    turns(loop)
    assert calls == []


# -- the end of the other side --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [False, True], ids=["level", "edge"])
@pytest.mark.parametrize("events", [READ, WRITE, BOTH], ids=["read", "write", "both"])
def test_a_hang_up_reaches_both_directions(loop: Loop, pair: Pair, events: int, edge: bool) -> None:
    calls: list[int] = []
    pair[0].send(b"x" * 10)
    watcher = loop.watch(pair[0].fileno(), events, lambda fd, ready: calls.append(ready), edge=edge)
    turns(loop)
    calls.clear()
    pair[1].close()  # with bytes unread: the socket gets an error
    turns(loop)
    assert calls
    assert calls[0] == events
    assert (len(calls) > 1) == (not edge)
    watcher.close()


@pytest.mark.parametrize("edge", [False, True], ids=["level", "edge"])
def test_the_writer_of_a_pipe_learns_that_nobody_reads(loop: Loop, pipe: Pipe, edge: bool) -> None:
    calls: list[int] = []
    try:
        while True:
            os.write(pipe[1], bytes(65536))
    except BlockingIOError:
        pass
    watcher = loop.watch(pipe[1], WRITE, lambda fd, ready: calls.append(ready), edge=edge)
    turns(loop)
    assert calls == []
    os.close(pipe[0])
    turns(loop)
    assert calls[0] == WRITE
    with pytest.raises(BrokenPipeError):
        os.write(pipe[1], b"x")
    watcher.close()


def test_half_closed_is_readable_only(loop: Loop, pair: Pair) -> None:
    fd = pair[0].fileno()
    try:
        while True:
            pair[0].send(bytes(65536))
    except BlockingIOError:
        pass
    calls: list[int] = []
    watcher = loop.watch(fd, BOTH, lambda fd, ready: calls.append(ready))
    turns(loop)
    assert calls == []
    pair[1].shutdown(socket.SHUT_WR)
    loop.run_once(0)
    assert calls == [READ]
    assert pair[0].recv(1) == b""
    watcher.close()


# -- what cannot be watched -----------------------------------------------------------------------------------------------------


def test_what_the_system_refuses(loop: Loop, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        closed, other = os.pipe()
        os.close(closed)
        os.close(other)
        for fd, number in (
            (file.fileno(), errno.EPERM),
            (closed, errno.EBADF),
            (-1, errno.EBADF),
            (-(2**31), errno.EBADF),
        ):
            for use in (
                lambda fd=fd: loop.watch(fd, READ, print),
                lambda fd=fd: loop.add_reader(fd, print),
                lambda fd=fd: loop.add_writer(fd, print),
            ):
                with pytest.raises(OSError, match=f"watch fd {fd}: ") as caught:
                    use()
                assert caught.value.errno == number
    assert loop.stats().watchers == 0
    assert not loop.remove_reader(closed)
    assert not loop.remove_writer(closed)
    turns(loop)


def test_arguments_of_the_wrong_kind(loop: Loop, pipe: Pipe) -> None:
    bad: Any
    for bad in (0, 4, 8, READ | 8, -1, 16, "1", None):
        with pytest.raises(ValueError, match="events must be READ, WRITE or both"):
            loop.watch(pipe[0], bad, print)
    for bad in (None, "3", 3.5, object(), b"x"):
        with pytest.raises(TypeError):
            loop.watch(bad, READ, print)
        with pytest.raises(TypeError):
            loop.add_reader(bad, print)
    for huge in (2**31, 2**40, -(2**40), 2**70):
        with pytest.raises(OverflowError):
            loop.watch(huge, READ, print)
    with pytest.raises(TypeError, match="must be callable"):
        loop.watch(pipe[0], READ, b"x")  # type: ignore[arg-type]
    assert loop.stats().watchers == 0
    turns(loop)
    targets = len(loop._targets)
    watcher = loop.watch(pipe[0], READ, print)
    with pytest.raises(ValueError, match="events"):
        watcher.modify(0)
    assert watcher.events == READ
    assert len(loop._targets) <= targets, "a failed watch has kept its target"
    watcher.close()


def test_a_failed_watch_keeps_nothing(loop: Loop, tmp_path: Path) -> None:
    before = len(loop._targets)
    with (tmp_path / "file").open("w") as file:
        for bad in (file.fileno(), -1, None, 2**40):
            for _ in range(20):
                with pytest.raises((OSError, TypeError, OverflowError)):
                    loop.watch(bad, READ, print)  # type: ignore[arg-type]
                loop.run_once(0)
    assert len(loop._targets) <= before + 1
    assert loop.stats().watchers == 0


def test_a_descriptor_is_watched_once(loop: Loop, pipe: Pipe) -> None:
    watcher = loop.watch(pipe[0], READ, print)
    for use in (lambda: loop.watch(pipe[0], WRITE, print), lambda: loop.add_reader(pipe[0], print)):
        with pytest.raises(FileExistsError, match=f"fd {pipe[0]} is watched already"):
            use()
    copy = os.dup(pipe[0])
    calls: list[int] = []
    of_copy = loop.watch(copy, READ, lambda fd, ready: calls.append(fd))
    watcher.close()
    os.write(pipe[1], b"x")
    loop.run_once(0)
    assert calls == [copy]
    of_copy.close()
    os.close(copy)


def test_modify_of_a_descriptor_that_was_closed(loop: Loop) -> None:
    r, w = os.pipe()
    watcher = loop.watch(w, WRITE, lambda fd, ready: None)
    os.close(w)
    os.close(r)
    if loop.backend != "poll":  # poll keeps no kernel state: it says so in the next turn, by a hang-up
        with pytest.raises(OSError, match=f"watch fd {w}"):
            watcher.modify(READ)
        assert watcher.events == WRITE
    watcher.close()
    turns(loop)


def test_a_closed_loop_watches_nothing(backend: str, pipe: Pipe) -> None:
    with checked_loop(backend) as loop:
        watcher = loop.watch(pipe[0], READ, print)
        loop.add_writer(pipe[1], print)
    assert watcher.closed
    watcher.close()
    watcher.rearm()
    with pytest.raises(ValueError, match="closed"):
        watcher.modify(WRITE)
    for use in (
        lambda: loop.watch(pipe[0], READ, print),
        lambda: loop.add_reader(pipe[0], print),
        lambda: loop.add_writer(pipe[1], print),
    ):
        with pytest.raises(LoopClosedError):
            use()
    assert not loop.remove_writer(pipe[1])


# -- in one batch ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 16, 64, 200])
def test_whoever_is_called_first_closes_all(loop: Loop, count: int) -> None:
    pipes = [os.pipe() for _ in range(count)]
    calls: list[int] = []
    watchers: list[Watcher] = []

    def close_all(fd: int, ready: int) -> None:
        calls.append(fd)
        for watcher in watchers:
            watcher.close()

    for r, w in pipes:
        watchers.append(loop.watch(r, READ, close_all))
        os.write(w, b"x")
    turns(loop, 5)
    assert len(calls) == 1
    for r, w in pipes:
        os.close(r)
        os.close(w)


@pytest.mark.parametrize("edge", [False, True], ids=["level", "edge"])
def test_a_number_that_is_reused_in_the_same_turn(loop: Loop, edge: bool) -> None:
    """The first callback closes all others and opens new pipes under their numbers: no event of theirs reaches those."""
    pipes = [os.pipe() for _ in range(30)]
    watchers = {r: loop.watch(r, READ, lambda fd, ready: replace(fd), edge=edge) for r, _ in pipes}
    calls: list[int] = []
    fresh: list[Pipe] = []

    def replace(fd: int) -> None:
        calls.append(fd)
        for r, w in pipes:
            watchers[r].close()
            os.close(r)
            os.close(w)
        fresh.extend(os.pipe() for _ in pipes)
        for r, _ in fresh:
            watchers[r] = loop.watch(r, READ, lambda fd, ready: wrong.append(fd), edge=edge)

    wrong: list[int] = []
    for _, w in pipes:
        os.write(w, b"x")
    turns(loop, 5)
    assert len(calls) == 1
    assert {r for r, _ in fresh} & {r for r, _ in pipes}
    assert wrong == []
    os.write(fresh[7][1], b"x")
    run_until(loop, lambda: wrong)
    assert set(wrong) == {fresh[7][0]}
    for watcher in watchers.values():
        watcher.close()
    for r, w in fresh:
        os.close(r)
        os.close(w)


@pytest.mark.parametrize("where", ["soon", "timer", "idle", "observer", "reader"])
def test_close_from_any_kind_of_callback(loop: Loop, pipe: Pipe, where: str) -> None:
    calls: list[str] = []
    other = os.pipe()
    os.write(other[1], b"x")
    watcher = loop.watch(pipe[0], READ, lambda fd, ready: calls.append("watcher"))

    def close(*_: object) -> None:
        calls.append("closed")
        watcher.close()
        os.write(pipe[1], b"x")
        loop.stop()

    if where == "soon":
        loop.call_soon(close)
    elif where == "timer":
        loop.call_later(0, close)
    elif where == "idle":
        loop.on_idle(close)
    elif where == "observer":
        loop.observe(iter(range(100)).__next__, close)
    else:
        loop.add_reader(other[0], close)
    loop.run()
    loop.remove_reader(other[0])
    assert calls[0] == "closed"
    assert "watcher" not in calls
    for end in other:
        os.close(end)


def test_an_exception_names_itself_and_hurts_no_other(loop: Loop, pair: Pair) -> None:
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    calls: list[int] = []

    def fail(fd: int, ready: int) -> None:
        raise ValueError("no")

    first = loop.watch(pair[0].fileno(), WRITE, fail)
    second = loop.watch(pair[1].fileno(), WRITE, lambda fd, ready: calls.append(fd))
    loop.run_once(0)
    assert calls == [pair[1].fileno()]
    assert [str(report["exception"]) for report in reports] == ["no"]
    assert f"fail at {__file__}" in reports[0]["message"]
    first.close()
    second.close()


def test_one_of_two_directions_raises(loop: Loop, pair: Pair) -> None:
    """The reader's exception does not keep the writer of the same descriptor from being called."""
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    calls: list[str] = []
    fd = pair[0].fileno()

    def fail() -> None:
        raise ValueError("no")

    loop.add_reader(fd, fail)
    loop.add_writer(fd, calls.append, "w")
    pair[1].send(b"x")
    loop.run_once(0)
    assert calls == ["w"]
    assert [str(report["exception"]) for report in reports] == ["no"]
    assert f"fail at {__file__}" in reports[0]["message"]
    loop.remove_reader(fd)
    loop.remove_writer(fd)


def test_a_thousand_come_and_go(loop: Loop) -> None:
    """Slots and targets are used again, and never while an event of their predecessor is under way."""
    calls: list[int] = []

    def came(key: int, fd: int, ready: int) -> None:
        calls.append(key)

    for round_ in range(100):
        pipes = [os.pipe() for _ in range(10)]
        expected = []
        for number, (r, w) in enumerate(pipes):
            key = round_ * 10 + number
            watcher = loop.watch(r, READ, partial(came, key))
            if number % 3:
                os.write(w, b"x")
                expected.append(key)
            if number % 4 == 0:
                watcher.close()
                expected = [one for one in expected if one != key]
        calls.clear()
        loop.run_once(0)
        assert sorted(calls) == expected
        for watcher in list(loop._watchers.values()):
            watcher.close()
        for ends in pipes:
            for end in ends:
                os.close(end)
    assert len(loop._targets) < 40


# -- ten thousand ---------------------------------------------------------------------------------------------------------------


def test_emfile_among_ten_thousand_watchers(backend: str) -> None:
    """In a process of its own: the descriptors run out, everything made so far goes on, and what was refused works later."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(10_000, hard)
    script = f"""
import errno, os, resource
from evloop import Loop, READ
from evloop.testing import open_descriptors, run_until

before = open_descriptors()
loop = Loop(backend={backend!r})
r, w = os.pipe()
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {hard}))
calls, watchers = set(), {{}}

def watch(fd):
    watchers[fd] = loop.watch(fd, READ, lambda fd, ready: calls.add(fd))

while True:
    try:
        fd = os.dup(r)
    except OSError as error:
        assert error.errno == errno.EMFILE
        break
    watch(fd)
made = len(watchers)
assert made > {limit} - 60, made
for use in (lambda: Loop(backend={backend!r}), os.pipe):
    try:
        use()
    except OSError as error:
        assert error.errno == errno.EMFILE, error
    else:
        raise SystemExit("there was a descriptor left")
os.write(w, b"x")
run_until(loop, lambda: len(calls) == made, patience=40)
for fd in list(watchers)[: made // 2]:
    watchers.pop(fd).close()
    os.close(fd)
calls.clear()
fresh = [os.dup(r) for _ in range(100)]
for fd in fresh:
    watch(fd)
run_until(loop, lambda: len(calls) == len(watchers), patience=40)
assert calls == set(watchers)
for fd, watcher in watchers.items():
    watcher.close()
    os.close(fd)
assert loop.stats().watchers == 0
loop.close()
os.close(r)
os.close(w)
assert open_descriptors() == before
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=50)


# -- readers and writers --------------------------------------------------------------------------------------------------------


def test_readers_and_writers_share_a_descriptor(loop: Loop, pair: Pair) -> None:
    calls: list[str] = []
    fd = pair[0].fileno()
    for _ in range(3):
        loop.add_writer(fd, calls.append, "w")
        loop.add_reader(fd, calls.append, "r")
        loop.run_once(0)
        assert calls == ["w"]
        pair[1].send(b"x")
        loop.run_once(0)
        assert sorted(calls) == ["r", "w", "w"]
        assert loop.remove_writer(fd)
        assert not loop.remove_writer(fd)
        calls.clear()
        loop.run_once(0)
        assert calls == ["r"]
        assert loop.remove_reader(fd)
        assert not loop.remove_reader(fd)
        turns(loop)
        assert calls == ["r"]
        assert loop.stats().watchers == 0
        calls.clear()
        pair[0].recv(1)


def test_the_reader_removes_the_writer_of_the_same_event(loop: Loop, pair: Pair) -> None:
    calls: list[str] = []
    fd = pair[0].fileno()

    def read() -> None:
        calls.append("r")
        loop.remove_writer(fd)
        loop.remove_reader(fd)

    loop.add_reader(fd, read)
    loop.add_writer(fd, calls.append, "w")
    pair[1].send(b"x")
    turns(loop)
    assert calls == ["r"]


def test_the_reader_replaces_the_writer_of_the_same_event(loop: Loop, pair: Pair) -> None:
    calls: list[str] = []
    fd = pair[0].fileno()

    def read() -> None:
        pair[0].recv(1)
        loop.add_writer(fd, calls.append, "new")

    loop.add_reader(fd, read)
    loop.add_writer(fd, calls.append, "old")
    pair[1].send(b"x")
    loop.run_once(0)
    assert calls == ["new"]
    loop.remove_reader(fd)
    loop.remove_writer(fd)


def test_a_reader_that_could_not_be_added_leaves_the_writer(loop: Loop, pipe: Pipe) -> None:
    calls: list[str] = []
    loop.add_writer(pipe[1], calls.append, "w")
    with pytest.raises(TypeError):
        loop.add_reader(pipe[1], None)  # type: ignore[arg-type]
    loop.run_once(0)
    assert calls == ["w"]
    assert not loop.remove_reader(pipe[1])
    assert loop.remove_writer(pipe[1])


def test_the_user_s_descriptors_stay_open(backend: str, pipe: Pipe) -> None:
    before = open_descriptors()
    with checked_loop(backend) as loop:
        loop.watch(pipe[0], READ, print)
        loop.add_writer(pipe[1], int)
        loop.run_once(0)
    assert open_descriptors() == before


@pytest.mark.parametrize("debug", [False, True])
def test_many_readers_of_one_turn_one_of_which_raises_and_one_removes_another(backend: str, debug: bool) -> None:
    """They come in one record: what happens to one of them leaves the others alone."""
    seen: list[int] = []
    errors: list[str] = []
    with Loop(backend=backend, debug=debug) as loop, contextlib.ExitStack() as stack:
        loop.set_exception_handler(lambda _, context: errors.append(context["message"]))
        pairs = [socket.socketpair() for _ in range(40)]
        for number, (left, right) in enumerate(pairs):
            stack.callback(left.close)
            stack.callback(right.close)

            def read(number: int = number, right: socket.socket = right) -> None:
                seen.append(number)
                right.recv(1)
                if number == 5:
                    raise ValueError("five")
                if number % 4 == 0:
                    loop.remove_reader(pairs[number + 3][1].fileno())

            loop.add_reader(right.fileno(), read)
            left.send(b"x")
        while len(seen) < 30:
            loop.run_once(1)
        loop.run_once(0)
        for _, right in pairs:
            loop.remove_reader(right.fileno())
    assert sorted(seen) == [number for number in range(40) if number % 4 != 3]
    assert len(errors) == 1
    assert ".read at " in errors[0]
