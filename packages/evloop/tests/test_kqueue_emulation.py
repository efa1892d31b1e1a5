"""The emulation of kevent(2) that the kqueue backend is tested on: each behaviour of kqueue(2) (FreeBSD 14) by itself."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

BUILD = Path(__file__).resolve().parent / "support" / "kqueue" / "build.py"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which(os.environ.get("CC", "cc")) is None, reason="needs Linux and a C compiler"
)

READ, WRITE, VNODE = -1, -2, -4
ADD, DELETE, ENABLE, DISABLE, ONESHOT, CLEAR, RECEIPT, DISPATCH = (1 << bit for bit in range(8))
ERROR, EOF = 0x4000, 0x8000
N_DELETE, N_WRITE, N_EXTEND, N_ATTRIB, N_LINK, N_RENAME = (1 << bit for bit in range(6))
N_ALL = 0x7F


class Kevent(ctypes.Structure):
    _fields_ = (
        ("ident", ctypes.c_size_t),
        ("filter", ctypes.c_short),
        ("flags", ctypes.c_ushort),
        ("fflags", ctypes.c_uint),
        ("data", ctypes.c_ssize_t),
        ("udata", ctypes.c_size_t),
    )


class Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Event(NamedTuple):
    ident: int
    filter: int
    flags: int
    fflags: int
    data: int
    udata: int


class Queue:
    """A kqueue. Changes and waits raise OSError."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.fd = self.check(library.kqueue())

    @staticmethod
    def check(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def kevent(self, *changes: Kevent, room: int = 0, timeout: float | None = 0.0) -> list[Event]:
        out = (Kevent * max(room, 1))()
        limit = None if timeout is None else ctypes.byref(Timespec(int(timeout), int(timeout % 1 * 1e9)))
        array = (Kevent * len(changes))(*changes)
        count = self.check(self.library.kevent(self.fd, array, len(changes), out, room, limit))
        return [Event(k.ident, k.filter, k.flags, k.fflags, k.data, k.udata) for k in out[:count]]

    def change(self, fd: int, filter: int, flags: int, *, fflags: int = 0, udata: int = 0) -> None:
        self.kevent(Kevent(fd, filter, flags, fflags, 0, udata))

    def wait(self, room: int = 16, timeout: float | None = 0.0) -> list[Event]:
        return self.kevent(room=room, timeout=timeout)

    def ready(self) -> set[tuple[int, int]]:
        return {(event.ident, event.filter) for event in self.wait()}

    def notes(self) -> int:
        """What has happened to the one file that is watched."""
        events = self.wait()
        assert len(events) <= 1
        return events[0].fflags if events else 0

    def is_readable(self) -> bool:
        poller = select.epoll()
        with poller:
            poller.register(self.fd, select.EPOLLIN)
            return bool(poller.poll(0))

    def close_fd(self, fd: int) -> None:
        self.check(self.library.kqueue_linux_close(fd))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    prefix = tmp_path_factory.mktemp("kqueue")
    built = subprocess.run([sys.executable, BUILD, prefix], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return ctypes.CDLL(str(prefix / "lib" / "libkqueue.so"), use_errno=True)


@pytest.fixture
def kq(library: ctypes.CDLL) -> Iterator[Queue]:
    """A queue, which leaves no descriptor behind."""
    before = os.listdir("/proc/self/fd")
    queue = Queue(library)
    yield queue
    queue.close_fd(queue.fd)
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.fixture
def pair(kq: Queue) -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def pipe(kq: Queue) -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass  # the test has closed it


def fails(number: int, call: Callable[..., object], *arguments: object, **options: object) -> None:
    with pytest.raises(OSError, match=rf"^\[Errno {number}\] "):
        call(*arguments, **options)


def test_reading_is_reported_with_the_number_of_bytes_and_the_udata(
    kq: Queue, pair: tuple[socket.socket, socket.socket]
) -> None:
    fd = pair[0].fileno()
    kq.change(fd, READ, ADD, udata=77)
    assert kq.wait() == []
    pair[1].send(b"hello")
    assert kq.wait() == [Event(fd, READ, 0, 0, 5, 77)]


def test_an_event_is_known_by_ident_and_filter(kq: Queue, pair: tuple[socket.socket, socket.socket]) -> None:
    fd = pair[0].fileno()
    pair[1].send(b"x")
    kq.change(fd, READ, ADD)
    kq.change(fd, WRITE, ADD)
    assert kq.ready() == {(fd, READ), (fd, WRITE)}
    kq.change(fd, WRITE, DELETE)
    assert kq.ready() == {(fd, READ)}


def test_a_change_is_made_before_events_are_read(kq: Queue, pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].send(b"x")
    events = kq.kevent(Kevent(pair[0].fileno(), READ, ADD, 0, 0, 5), room=1)
    assert [event.udata for event in events] == [5]


def test_without_clear_it_is_reported_as_long_as_it_is_so(kq: Queue, pair: tuple[socket.socket, socket.socket]) -> None:
    kq.change(pair[0].fileno(), READ, ADD)
    pair[1].send(b"x")
    assert kq.ready() == kq.ready() != set()
    pair[0].recv(1)
    assert kq.ready() == set()


def test_with_clear_once_for_each_arrival_and_for_each_filter_by_itself(
    kq: Queue, pair: tuple[socket.socket, socket.socket]
) -> None:
    fd = pair[0].fileno()
    kq.change(fd, READ, ADD | CLEAR)
    kq.change(fd, WRITE, ADD)
    pair[1].send(b"x")
    assert kq.ready() == {(fd, READ), (fd, WRITE)}
    assert kq.ready() == {(fd, WRITE)}
    pair[1].send(b"x")
    assert (fd, READ) in kq.ready()


def test_adding_again_changes_udata_and_makes_no_second_event(
    kq: Queue, pair: tuple[socket.socket, socket.socket]
) -> None:
    fd = pair[0].fileno()
    kq.change(fd, READ, ADD, udata=1)
    kq.change(fd, READ, ADD, udata=2)
    pair[1].send(b"x")
    assert [event.udata for event in kq.wait()] == [2]


def test_disable_and_enable(kq: Queue, pair: tuple[socket.socket, socket.socket]) -> None:
    fd = pair[0].fileno()
    kq.change(fd, READ, ADD | DISABLE)
    pair[1].send(b"x")
    assert kq.ready() == set()
    kq.change(fd, READ, ENABLE)
    assert kq.ready() == {(fd, READ)}
    kq.change(fd, READ, DISABLE)
    assert kq.ready() == set()
    kq.change(fd, READ, ADD)  # "Adding an event automatically enables it"
    assert kq.ready() == {(fd, READ)}
    kq.change(fd, READ, ENABLE)
    kq.change(fd, READ, DELETE)
    assert kq.ready() == set()


def test_oneshot_deletes_and_dispatch_disables_after_delivery(
    kq: Queue, pair: tuple[socket.socket, socket.socket]
) -> None:
    fd = pair[0].fileno()
    kq.change(fd, WRITE, ADD | ONESHOT)
    assert len(kq.wait()) == 1
    assert kq.wait() == []
    fails(errno.ENOENT, kq.change, fd, WRITE, ENABLE)
    kq.change(fd, WRITE, ADD | DISPATCH)
    assert len(kq.wait()) == 1
    assert kq.wait() == []
    kq.change(fd, WRITE, ENABLE)
    assert len(kq.wait()) == 1


@pytest.mark.parametrize("flags", [DELETE, ENABLE, DISABLE], ids=["delete", "enable", "disable"])
def test_changing_what_is_not_there_is_enoent(kq: Queue, pair: tuple[socket.socket, socket.socket], flags: int) -> None:
    fails(errno.ENOENT, kq.change, pair[0].fileno(), READ, flags)


def test_a_closed_descriptor_is_ebadf_and_an_unknown_filter_einval(kq: Queue, pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    fails(errno.EBADF, kq.change, pipe[0], READ, ADD)
    fails(errno.EBADF, kq.change, -1 & 0xFFFFFFFF, READ, ADD)
    fails(errno.EINVAL, kq.change, pipe[1], -99, ADD)


def test_with_room_errors_are_placed_in_the_event_list(kq: Queue, pipe: tuple[int, int]) -> None:
    changes = [Kevent(pipe[0], READ, DELETE, 0, 0, 3), Kevent(pipe[1], WRITE, ADD, 0, 0, 4)]
    [event] = kq.kevent(*changes, room=2)
    assert event == Event(pipe[0], READ, ERROR, 0, errno.ENOENT, 3)
    assert kq.ready() == {(pipe[1], WRITE)}


def test_without_room_the_first_error_ends_the_call(kq: Queue, pipe: tuple[int, int]) -> None:
    fails(errno.ENOENT, kq.kevent, Kevent(pipe[0], READ, DELETE), Kevent(pipe[1], WRITE, ADD))
    assert kq.wait() == []


def test_receipt_reports_success_and_drains_nothing(kq: Queue, pipe: tuple[int, int]) -> None:
    kq.change(pipe[1], WRITE, ADD)
    assert kq.kevent(Kevent(pipe[0], READ, ADD | RECEIPT), room=4) == [Event(pipe[0], READ, ERROR, 0, 0, 0)]


def test_no_room_returns_at_once_in_spite_of_a_timeout(kq: Queue) -> None:
    started = monotonic()
    assert kq.kevent(timeout=10.0) == []
    assert monotonic() - started < 5


def test_the_timeout_is_waited_for_and_an_event_ends_it(kq: Queue, pipe: tuple[int, int]) -> None:
    started = monotonic()
    assert kq.wait(timeout=0.05) == []
    assert monotonic() - started >= 0.05
    kq.change(pipe[0], READ, ADD)
    writer = threading.Timer(0.05, os.write, (pipe[1], b"x"))
    writer.start()
    assert len(kq.wait(timeout=None)) == 1
    writer.join()


def test_end_of_file_of_a_half_closed_socket_with_bytes_left(
    kq: Queue, pair: tuple[socket.socket, socket.socket]
) -> None:
    fd = pair[0].fileno()
    kq.change(fd, READ, ADD)
    kq.change(fd, WRITE, ADD)
    pair[1].send(b"abc")
    pair[1].shutdown(socket.SHUT_WR)
    events = {event.filter: event for event in kq.wait()}
    assert events[READ].flags & EOF
    assert (events[READ].data, events[READ].fflags) == (3, 0)
    assert not events[WRITE].flags & EOF


def test_a_reset_is_an_end_in_both_directions_with_an_error(kq: Queue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        peer, _ = server.accept()
        kq.change(client.fileno(), READ, ADD | CLEAR)
        kq.change(client.fileno(), WRITE, ADD | CLEAR)
        kq.wait()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        events = kq.wait(timeout=5.0)
        assert {event.filter for event in events} == {READ, WRITE}
        assert all(event.flags & EOF and event.fflags for event in events)
        with pytest.raises(ConnectionResetError):
            client.recv(1)  # looking at the event has not taken the error away


def test_a_listening_socket_is_readable_when_a_connection_waits(kq: Queue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        kq.change(server.fileno(), READ, ADD)
        assert kq.wait() == []
        with socket.create_connection(server.getsockname()):
            assert [event.data for event in kq.wait(timeout=5.0)] == [1]


def test_pipes_end_in_either_direction(kq: Queue, pipe: tuple[int, int]) -> None:
    kq.change(pipe[0], READ, ADD)
    os.close(pipe[1])
    [event] = kq.wait()
    assert event.flags & EOF
    assert event.fflags == 0


def test_writing_to_a_pipe_ends_with_its_reader(kq: Queue, pipe: tuple[int, int]) -> None:
    kq.change(pipe[1], WRITE, ADD)
    [event] = kq.wait()
    assert not event.flags & EOF
    os.close(pipe[0])
    [event] = kq.wait()
    assert event.flags & EOF
    assert event.fflags == 0


def test_close_removes_the_events_even_while_a_duplicate_lives(kq: Queue, pipe: tuple[int, int]) -> None:
    copy = os.dup(pipe[0])
    kq.change(pipe[0], READ, ADD)
    kq.close_fd(pipe[0])
    os.write(pipe[1], b"x")
    assert kq.wait() == []
    os.close(copy)


@pytest.mark.parametrize("flags", [ADD, ADD | CLEAR], ids=["level", "clear"])
def test_a_close_behind_its_back_is_noticed(kq: Queue, pipe: tuple[int, int], flags: int) -> None:
    copy = os.dup(pipe[0])
    kq.change(pipe[0], READ, flags)
    os.close(pipe[0])
    os.write(pipe[1], b"x")
    assert kq.wait() == []
    assert not kq.is_readable()
    os.dup2(copy, pipe[0])
    os.close(copy)
    assert kq.wait() == []
    fails(errno.ENOENT, kq.change, pipe[0], READ, DELETE)
    kq.change(pipe[0], READ, flags)
    assert len(kq.wait()) == 1


def test_a_number_used_again_has_none_of_its_predecessor_s_events(kq: Queue, pipe: tuple[int, int]) -> None:
    copy = os.dup(pipe[0])
    other = os.pipe()
    kq.change(pipe[0], READ, ADD)
    os.dup2(other[0], pipe[0])
    os.write(pipe[1], b"x")
    assert kq.wait() == []
    fails(errno.ENOENT, kq.change, pipe[0], READ, ENABLE)
    for fd in (copy, *other):
        os.close(fd)


def test_a_queue_is_readable_when_an_event_is_pending(kq: Queue, pipe: tuple[int, int]) -> None:
    outer = Queue(kq.library)
    kq.change(pipe[0], READ, ADD)
    outer.change(kq.fd, READ, ADD)
    assert not kq.is_readable()
    assert outer.wait() == []
    os.write(pipe[1], b"x")
    assert kq.is_readable()
    assert outer.ready() == {(kq.fd, READ)}
    os.read(pipe[0], 1)
    assert not kq.is_readable()
    assert outer.wait() == []
    outer.close_fd(outer.fd)


def test_many_duplicates_of_one_descriptor(kq: Queue, pipe: tuple[int, int]) -> None:
    copies = [os.dup(pipe[0]) for _ in range(600)]
    for fd in copies:
        kq.change(fd, READ, ADD)
    writer = threading.Timer(0.05, os.write, (pipe[1], b"x"))
    writer.start()
    assert kq.wait(room=1, timeout=None)
    writer.join()
    assert len(kq.wait(room=1000)) == 600
    for fd in copies:
        os.close(fd)


def test_none_starves_when_there_is_room_for_one(kq: Queue, pair: tuple[socket.socket, socket.socket]) -> None:
    for each in pair:
        kq.change(each.fileno(), WRITE, ADD)
        each.send(b"x")
        kq.change(each.fileno(), READ, ADD)
    seen = {(event.ident, event.filter) for _ in range(12) for event in kq.wait(room=1)}
    assert len(seen) == 4


def test_a_regular_file_is_accepted(kq: Queue, tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file:
        kq.change(file.fileno(), READ, ADD)
        kq.change(file.fileno(), READ, DELETE)


def test_a_child_does_not_inherit_the_queue(kq: Queue, pipe: tuple[int, int]) -> None:
    kq.change(pipe[0], READ, ADD)
    child = os.fork()
    if child == 0:
        try:
            kq.wait()
        except OSError as error:
            kq.library.kqueue_linux_close(pipe[0])
            os._exit(7 if error.errno == errno.EBADF else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    os.write(pipe[1], b"x")
    assert kq.ready() == {(pipe[0], READ)}


def test_what_is_no_queue_is_ebadf(kq: Queue, pipe: tuple[int, int]) -> None:
    assert kq.library.kevent(pipe[0], None, 0, None, 0, None) == -1
    assert ctypes.get_errno() == errno.EBADF


# -- EVFILT_VNODE ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(kq: Queue, tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A file of three bytes that is watched, and its descriptor."""
    path = tmp_path / "file"
    path.write_text("abc")
    fd = os.open(path, os.O_RDONLY)
    kq.change(fd, VNODE, ADD | CLEAR, fflags=N_ALL, udata=9)
    yield path, fd
    kq.close_fd(fd)


@pytest.fixture
def folder(kq: Queue, tmp_path: Path) -> Iterator[Path]:
    """A folder that is watched; ``tmp_path`` is its parent."""
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("")
    fd = os.open(path, os.O_RDONLY)
    kq.change(fd, VNODE, ADD | CLEAR, fflags=N_ALL)
    yield path
    kq.close_fd(fd)


def overwrite(path: Path) -> None:
    with open(path, "r+") as file:
        file.write("x")


def append(path: Path) -> None:
    with open(path, "a") as file:
        file.write("x")


@pytest.mark.parametrize(
    ("act", "notes"),
    [
        pytest.param(overwrite, N_WRITE, id="NOTE_WRITE"),
        pytest.param(append, N_WRITE | N_EXTEND, id="NOTE_EXTEND"),
        pytest.param(lambda path: path.chmod(0o600), N_ATTRIB, id="NOTE_ATTRIB"),
        pytest.param(lambda path: path.with_name("second").hardlink_to(path), N_LINK, id="NOTE_LINK"),
        pytest.param(lambda path: path.rename(path.with_name("other")), N_RENAME, id="NOTE_RENAME"),
        pytest.param(lambda path: path.unlink(), N_DELETE | N_LINK, id="NOTE_DELETE"),
        pytest.param(lambda path: path.read_text(), 0, id="reading-is-nothing"),
    ],
)
def test_notes_of_a_file(kq: Queue, file: tuple[Path, int], act: Callable[[Path], object], notes: int) -> None:
    act(file[0])
    assert kq.notes() == notes
    assert kq.notes() == 0


def test_a_note_comes_with_ident_filter_and_udata(kq: Queue, file: tuple[Path, int]) -> None:
    append(file[0])
    assert kq.wait() == [Event(file[1], VNODE, CLEAR, N_WRITE | N_EXTEND, 0, 9)]


def test_a_file_replaced_by_a_rename_was_deleted(kq: Queue, file: tuple[Path, int]) -> None:
    file[0].with_name("new").write_text("")
    file[0].with_name("new").rename(file[0])
    assert kq.notes() & N_DELETE


def test_several_happenings_are_one_event(kq: Queue, file: tuple[Path, int]) -> None:
    append(file[0])
    file[0].chmod(0o600)
    file[0].rename(file[0].with_name("other"))
    assert kq.notes() == N_WRITE | N_EXTEND | N_ATTRIB | N_RENAME


def test_only_what_was_asked_for_is_reported(kq: Queue, file: tuple[Path, int]) -> None:
    kq.change(file[1], VNODE, ADD | CLEAR, fflags=N_ATTRIB)
    append(file[0])
    assert kq.notes() == 0
    file[0].chmod(0o600)
    assert kq.notes() == N_ATTRIB


@pytest.mark.parametrize(
    ("act", "notes"),
    [
        pytest.param(lambda path: (path / "new").write_text(""), N_WRITE, id="created"),
        pytest.param(lambda path: (path / "old").unlink(), N_WRITE, id="removed"),
        pytest.param(lambda path: (path / "old").write_text("text"), 0, id="content-of-an-entry-is-nothing"),
        pytest.param(lambda path: (path / "new").mkdir(), N_WRITE | N_LINK, id="subdirectory"),
        pytest.param(lambda path: (path / "old").rename(path / "new"), N_WRITE, id="renamed-within"),
        pytest.param(lambda path: (path / "old").rename(path.parent / "new"), N_WRITE | N_EXTEND, id="moved-out"),
        pytest.param(lambda path: path.chmod(0o700), N_ATTRIB, id="NOTE_ATTRIB"),
        pytest.param(lambda path: path.rename(path.parent / "other"), N_RENAME, id="NOTE_RENAME"),
    ],
)
def test_notes_of_a_folder(kq: Queue, folder: Path, act: Callable[[Path], object], notes: int) -> None:
    act(folder)
    assert kq.notes() == notes
    assert kq.notes() == 0


@pytest.mark.parametrize("moved", [False, True])
def test_a_removed_folder(kq: Queue, folder: Path, moved: bool) -> None:
    if moved:
        (folder.parent / "elsewhere").mkdir()
        folder = folder.rename(folder.parent / "elsewhere" / "folder")
    (folder / "old").unlink()
    kq.notes()
    folder.rmdir()
    assert kq.notes() & N_DELETE


def test_two_descriptors_of_one_file_are_two_events(kq: Queue, file: tuple[Path, int]) -> None:
    second = os.open(file[0], os.O_RDONLY)
    kq.change(second, VNODE, ADD | CLEAR, fflags=N_ALL)
    append(file[0])
    assert kq.ready() == {(file[1], VNODE), (second, VNODE)}
    kq.change(second, VNODE, DELETE)
    append(file[0])
    assert kq.ready() == {(file[1], VNODE)}
    os.close(second)


def test_without_clear_a_note_stays(kq: Queue, file: tuple[Path, int]) -> None:
    kq.change(file[1], VNODE, DELETE)
    kq.change(file[1], VNODE, ADD, fflags=N_ALL)
    append(file[0])
    assert kq.notes() == kq.notes() == N_WRITE | N_EXTEND


def test_a_queue_with_more_notes_than_room_stays_readable(kq: Queue, file: tuple[Path, int], folder: Path) -> None:
    append(file[0])
    append(folder / "new")
    seen = set()
    while kq.is_readable():
        seen |= {event.ident for event in kq.wait(room=1)}
    assert len(seen) == 2


def test_a_watched_file_closed_behind_its_back_is_let_go(kq: Queue, file: tuple[Path, int]) -> None:
    replacement = os.open("/dev/null", os.O_RDONLY)
    os.dup2(replacement, file[1])
    os.close(replacement)
    append(file[0])
    assert kq.notes() == 0
    fails(errno.ENOENT, kq.change, file[1], VNODE, DELETE)


def test_what_is_no_file_is_refused(kq: Queue, pair: tuple[socket.socket, socket.socket]) -> None:
    fails(errno.EINVAL, kq.change, pair[0].fileno(), VNODE, ADD, fflags=N_ALL)
