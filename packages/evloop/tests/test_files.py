"""Changes to files and folders: each kind of event, what may not be missed or told twice, and that the events add up."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evloop import FileEvent, FileEventKind, FileWatcher, Loop, LoopClosedError
from evloop._inotify import InotifyTree
from evloop._shim import lib
from evloop.testing import in_child, open_descriptors, run_until

CREATED, MODIFIED, DELETED, RENAMED, ATTRIBUTES, LINKS, REVOKED, OVERFLOW = FileEventKind

INOTIFY = bool(lib.ev_fs_names())
only_inotify = pytest.mark.skipif(not INOTIFY, reason="EVFILT_VNODE tells the difference between two looks")


class Watched:
    """A folder, a watcher of it or of something in it, and what it has told."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.loop = loop
        self.folder = folder
        self.events: list[FileEvent] = []
        self.watcher: FileWatcher | None = None

    def watch(self, name: str = "", *, recursive: bool = False) -> FileWatcher:
        self.watcher = FileWatcher(self.loop, self.folder / name, self.events.append, recursive=recursive)
        return self.watcher

    def told(self) -> list[tuple[object, ...]]:
        """The events with short paths."""
        return [
            (event.kind, *(str(path.relative_to(self.folder)) for path in event[1:] if isinstance(path, Path)))
            for event in self.events
        ]

    def expect(self, *wanted: tuple[object, ...]) -> None:
        """Run until these events, and no others but more of the same modifications, have come."""
        run_until(self.loop, lambda: set(wanted) <= set(self.told()))
        self.settle()
        told = self.told()
        assert [event for at, event in enumerate(told) if event not in told[:at]] == list(wanted), told
        once = [event for event in told if event[0] not in (MODIFIED, ATTRIBUTES)]
        assert len(once) == len(set(once))
        self.events.clear()

    def settle(self) -> None:
        """Run until the watcher has nothing to wait for."""
        assert self.watcher is not None
        self.loop.run_once(0)
        run_until(self.loop, lambda: self.watcher is None or self.watcher._timer is None)


@pytest.fixture
def watched(loop: Loop, tmp_path: Path) -> Watched:
    folder = tmp_path / "watched"
    folder.mkdir()
    return Watched(loop, folder)


# -- a file ------------------------------------------------------------------------------------------------------------------------


def test_a_file(watched: Watched) -> None:
    file = watched.folder / "file"
    file.write_text("old")
    (watched.folder / "other").write_text("")
    watched.watch("file")
    with file.open("a") as opened:
        opened.write("new")
    watched.expect((MODIFIED, "file"))
    file.chmod(0o600)
    watched.expect((ATTRIBUTES, "file"))
    os.link(file, watched.folder / "link")
    watched.expect((LINKS, "file"))
    (watched.folder / "other").write_text("not watched")
    (watched.folder / "other").unlink()
    file.unlink()
    watched.expect((DELETED, "file"))
    file.write_text("again")
    watched.expect((CREATED, "file"), *([(MODIFIED, "file")] if (MODIFIED, "file") in watched.told() else []))
    with file.open("a") as opened:
        opened.write("and again")
    watched.expect((MODIFIED, "file"))


def test_a_file_replaced_by_rename_goes_on_being_watched(watched: Watched) -> None:
    file, draft = watched.folder / "file", watched.folder / "draft"
    file.write_text("0")
    watched.watch("file")
    for version in range(3):
        draft.write_text(f"{version}")
        os.replace(draft, file)
        watched.expect(*([(RENAMED, "draft", "file")] if INOTIFY else [(DELETED, "file"), (CREATED, "file")]))
        file.write_text("changed in place")
        watched.expect((MODIFIED, "file"))


def test_a_file_that_is_renamed_away_and_comes_back(watched: Watched) -> None:
    file, away = watched.folder / "file", watched.folder / "away"
    file.write_text("")
    watched.watch("file")
    file.rename(away)
    watched.expect((RENAMED, "file", "away"))
    away.write_text("nobody hears of this")
    elsewhere = watched.folder.parent / "elsewhere"
    elsewhere.write_text("")
    elsewhere.rename(file)
    watched.expect((CREATED, "file"))
    file.rename(elsewhere)
    watched.expect((DELETED, "file"))


def test_a_file_replaced_from_another_folder(watched: Watched) -> None:
    (watched.folder / "file").write_text("")
    watched.watch("file")
    elsewhere = watched.folder.parent / "elsewhere"
    elsewhere.write_text("")
    os.replace(elsewhere, watched.folder / "file")
    watched.expect((DELETED, "file"), (CREATED, "file"))


def test_a_symbolic_link_is_followed_at_the_root(watched: Watched) -> None:
    target = watched.folder.parent / "target"
    target.write_text("")
    (watched.folder / "link").symlink_to(target)
    watched.watch("link")
    target.write_text("x")
    watched.expect((MODIFIED, "link"))


def test_the_folder_of_the_file_goes(watched: Watched) -> None:
    inner = watched.folder / "inner"
    inner.mkdir()
    (inner / "file").write_text("")
    watched.watch("inner/file")
    inner.rename(watched.folder.parent / "elsewhere")
    watched.expect((DELETED, "inner/file"))


# -- a folder ----------------------------------------------------------------------------------------------------------------------


def test_a_folder(watched: Watched) -> None:
    watched.watch()
    file = watched.folder / "file"
    file.touch()
    watched.expect((CREATED, "file"))
    file.write_text("x")
    watched.expect((MODIFIED, "file"))
    file.chmod(0o600)
    watched.expect((ATTRIBUTES, "file"))
    file.rename(watched.folder / "new")
    watched.expect((RENAMED, "file", "new"))
    (watched.folder / "new").unlink()
    watched.expect((DELETED, "new"))
    watched.folder.chmod(0o700)
    watched.expect((ATTRIBUTES, "."))


@only_inotify
def test_every_step_is_told_in_order(watched: Watched) -> None:
    watched.watch()
    file = watched.folder / "file"
    file.write_text("x")
    file.rename(watched.folder / "new")
    (watched.folder / "new").unlink()
    file.mkdir()
    run_until(watched.loop, lambda: len(watched.events) >= 5)
    assert watched.told() == [
        (CREATED, "file"),
        (MODIFIED, "file"),
        (RENAMED, "file", "new"),
        (DELETED, "new"),
        (CREATED, "file"),
    ]


def test_names_that_are_no_text(watched: Watched) -> None:
    watched.watch()
    name = os.fsdecode(b"\xff\xfe\n")
    (watched.folder / name).mkdir()
    watched.expect((CREATED, name))


def test_a_relative_path_stays_relative(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    events: list[FileEvent] = []
    watchers = [FileWatcher(loop, path, events.append) for path in (".", "../" + tmp_path.name)]
    monkeypatch.chdir("/")
    (tmp_path / "new").mkdir()
    run_until(loop, lambda: len(events) == 2)
    assert {event.path for event in events} == {Path("new"), Path("..", tmp_path.name, "new")}
    for watcher in watchers:
        watcher.close()


def test_not_recursive(watched: Watched) -> None:
    (watched.folder / "inner").mkdir()
    watched.watch()
    (watched.folder / "inner" / "file").mkdir()
    (watched.folder / "late").mkdir()
    watched.expect((CREATED, "late"))


def test_the_root_is_deleted_and_made_again(watched: Watched) -> None:
    root = watched.folder / "root"
    (root / "inner").mkdir(parents=True)
    watched.watch("root", recursive=True)
    shutil.rmtree(root)
    watched.expect((DELETED, "root/inner"), (DELETED, "root"))
    (root / "inner").mkdir(parents=True)
    watched.expect((CREATED, "root"), (CREATED, "root/inner"))
    (root / "inner" / "file").mkdir()
    watched.expect((CREATED, "root/inner/file"))
    root.rename(watched.folder / "other")
    watched.expect((RENAMED, "root", "other"))
    (watched.folder / "other").rename(root)
    run_until(watched.loop, lambda: watched.events)
    watched.settle()
    assert watched.told()[0] == ((RENAMED, "other", "root") if INOTIFY else (CREATED, "root"))
    assert watched.told()[1:] == [(CREATED, "root/inner"), (CREATED, "root/inner/file")]


# -- recursive ---------------------------------------------------------------------------------------------------------------------


def test_what_was_in_a_new_folder_before_it_was_watched(watched: Watched) -> None:
    watched.watch(recursive=True)
    (watched.folder / "a" / "b" / "c").mkdir(parents=True)
    (watched.folder / "a" / "b" / "file").mkdir()
    run_until(watched.loop, lambda: len(watched.events) == 4)
    (watched.folder / "a" / "b" / "c" / "late").mkdir()
    run_until(watched.loop, lambda: len(watched.events) == 5)
    watched.settle()
    assert sorted(watched.told(), key=str) == [
        (CREATED, path) for path in ("a", "a/b", "a/b/c", "a/b/c/late", "a/b/file")
    ]


def test_a_folder_renamed_before_its_creation_was_read(watched: Watched) -> None:
    """The path in the event is another folder's by the time it is watched."""
    watched.watch(recursive=True)
    a, b = watched.folder / "a", watched.folder / "b"
    (a / "d" / "old").mkdir(parents=True)
    a.rename(b)
    (a / "d" / "new").mkdir(parents=True)
    run_until(watched.loop, lambda: replayed(watched.folder, set(), watched.events) == listing(watched.folder))
    watched.settle()
    watched.events.clear()
    (a / "d" / "new" / "x").mkdir()
    (b / "d" / "old" / "y").mkdir()
    run_until(watched.loop, lambda: len(watched.events) == 2)
    assert set(watched.told()) == {(CREATED, "a/d/new/x"), (CREATED, "b/d/old/y")}


def test_a_folder_that_is_renamed_takes_all_along(watched: Watched) -> None:
    (watched.folder / "a" / "b").mkdir(parents=True)
    (watched.folder / "c").mkdir()
    watched.watch(recursive=True)
    (watched.folder / "a").rename(watched.folder / "c" / "d")
    watched.expect((RENAMED, "a", "c/d"))
    (watched.folder / "c" / "d" / "b" / "file").mkdir()
    watched.expect((CREATED, "c/d/b/file"))


def test_a_folder_moved_out_and_in(watched: Watched) -> None:
    elsewhere = watched.folder.parent / "elsewhere"
    (watched.folder / "a" / "b").mkdir(parents=True)
    watched.watch(recursive=True)
    (watched.folder / "a").rename(elsewhere)
    watched.expect((DELETED, "a/b"), (DELETED, "a"))
    (elsewhere / "b" / "unseen").mkdir()
    elsewhere.rename(watched.folder / "z")
    watched.expect((CREATED, "z"), (CREATED, "z/b"), (CREATED, "z/b/unseen"))


def test_names_are_exchanged_in_a_circle(watched: Watched) -> None:
    for name in "abc":
        (watched.folder / name).write_text(name)
    watched.watch()
    for old, new in ("at", "ba", "cb", "tc"):
        (watched.folder / old).rename(watched.folder / new)
    start = {Path(name) for name in "abc"}
    run_until(watched.loop, lambda: watched.events)
    watched.settle()
    assert replayed(watched.folder, start, watched.events) == start
    if INOTIFY:
        assert watched.told() == [(RENAMED, "a", "t"), (RENAMED, "b", "a"), (RENAMED, "c", "b"), (RENAMED, "t", "c")]


# -- the queue ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def small_queue() -> Iterator[int]:
    """Make queues that are opened now overflow early, where that may be set; the number of events to overflow them."""
    setting = Path("/proc/sys/fs/inotify/max_queued_events")
    size = setting.read_text()
    try:
        setting.write_text("16")
    except OSError:
        yield int(size)
        return
    try:
        yield 16
    finally:
        setting.write_text(size)


@only_inotify
def test_an_overflow_is_told_and_the_tree_read_anew(watched: Watched) -> None:
    (watched.folder / "gone").mkdir()
    (watched.folder / "moved").mkdir()
    (watched.folder / "file").write_text("")
    start = listing(watched.folder)
    with small_queue() as size:
        watched.watch(recursive=True)
    for _ in range(size):
        os.utime(watched.folder / "file")
        os.truncate(watched.folder / "file", 0)
    (watched.folder / "gone").rmdir()
    (watched.folder / "new" / "inner").mkdir(parents=True)
    (watched.folder / "moved").rename(watched.folder / "new" / "moved")
    run_until(watched.loop, lambda: (OVERFLOW, ".") in watched.told())
    watched.settle()
    assert replayed(watched.folder, start, watched.events) == listing(watched.folder)
    watched.events.clear()
    (watched.folder / "new" / "moved" / "file").mkdir()
    watched.expect((CREATED, "new/moved/file"))


def raw(*events: tuple[int, int, int, bytes]) -> bytes:
    """Events as the shim lays them out."""
    return b"".join(
        b"".join(number.to_bytes(4, "little", signed=number < 0) for number in (watch, what, cookie, 16))
        + name.ljust(16, b"\0")
        for watch, what, cookie, name in events
    )


@only_inotify
def test_a_rename_whose_halves_are_read_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    queue = lib.ev_fs_open()
    tree = InotifyTree(queue, tmp_path, False, lambda error: pytest.fail(str(error)))
    tree.start()
    assert tree.root is not None
    watch = tree.root.watch
    tree.apply(raw((watch, 1 << 2 | 1 << 4, 7, b"a")))
    assert tree.unsure and not tree.events
    tree.apply(raw((watch, 1 << 3 | 1 << 4, 7, b"b")))
    assert tree.events == [(RENAMED, tmp_path / "a", tmp_path / "b")]
    tree.apply(raw((watch, 1 << 2 | 1 << 4, 8, b"b")))
    tree.expire()
    assert tree.events[1:] == [(DELETED, tmp_path / "b", None)]
    tree.apply(raw((watch, 1 << 11, 0, b"")))
    assert tree.events[2:] == [(REVOKED, tmp_path, None)]
    tree.close()
    lib.ev_fs_close(queue)


# -- errors and ends ---------------------------------------------------------------------------------------------------------------


def test_a_missing_path(loop: Loop, tmp_path: Path) -> None:
    before = open_descriptors()
    for path in (tmp_path / "missing", tmp_path / "missing" / "file", tmp_path / ("x" * 300)):
        with pytest.raises(OSError, match=path.name[:9]) as caught:
            FileWatcher(loop, path, print)
        assert caught.value.filename == str(path)
    with pytest.raises(ValueError, match="null"):
        FileWatcher(loop, "a\0b", print)
    assert open_descriptors() == before


def test_the_limit_of_watches_is_explained(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_descriptors()

    class Full:
        ev_fs_remove = lib.ev_fs_remove

        @staticmethod
        def ev_fs_add(queue: int, path: bytes, how: int) -> int:
            return -errno.ENOSPC

    monkeypatch.setattr("evloop._filetree.lib", Full)
    with pytest.raises(OSError, match="max_user_watches") as caught:
        FileWatcher(loop, tmp_path, print)
    assert caught.value.errno == errno.ENOSPC
    assert open_descriptors() == before


def test_descriptors_run_out_while_watching_begins(loop: Loop, tmp_path: Path) -> None:
    """At whichever step that is: there is a watcher that sees what happens, or there is an exception and nothing left open."""
    taken: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    refused, reasons = 0, set()
    before = open_descriptors()
    for left in range(16):
        highest = max(open_descriptors()) + 20
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        try:
            while len(taken) < highest:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            reasons.add(error.errno)
        for _ in range(left):
            os.close(taken.pop())
        try:
            watcher = FileWatcher(loop, tmp_path, print)
        except OSError as error:
            reasons.add(error.errno)
            refused += 1
        else:
            watcher.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            while taken:
                os.close(taken.pop())
        assert open_descriptors() == before
    assert 1 <= refused < 16
    assert reasons == {errno.EMFILE}


def test_a_folder_that_may_not_be_watched_is_reported(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    add = lib.ev_fs_add
    (tmp_path / "closed").mkdir()

    class Refusing:
        ev_fs_remove = lib.ev_fs_remove

        @staticmethod
        def ev_fs_add(queue: int, path: bytes, how: int) -> int:
            return -errno.EACCES if path.endswith(b"closed") else add(queue, path, how)

    monkeypatch.setattr("evloop._filetree.lib", Refusing)
    events: list[FileEvent] = []
    with FileWatcher(loop, tmp_path, events.append, recursive=True):
        (tmp_path / "open").mkdir()
        run_until(loop, lambda: events)
    assert [str(context["exception"]) for context in reported] == [f"[Errno 13] Permission denied: '{tmp_path}/closed'"]


def test_bad_arguments(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="callable"):
        FileWatcher(loop, tmp_path, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        FileWatcher(loop, 3, print)  # type: ignore[arg-type]


def test_a_closed_loop(backend: str, tmp_path: Path) -> None:
    loop = Loop(backend=backend)
    loop.close()
    with pytest.raises(LoopClosedError):
        FileWatcher(loop, tmp_path, print)


def test_the_end_of_the_loop_closes(backend: str, tmp_path: Path) -> None:
    before = open_descriptors()
    loop = Loop(backend=backend)
    watcher = FileWatcher(loop, tmp_path, print)
    loop.close()
    assert "closed" in repr(watcher)
    watcher.close()
    assert open_descriptors() == before


def test_close_ends_events_at_once(watched: Watched) -> None:
    events: list[FileEvent] = []

    def once(event: FileEvent) -> None:
        events.append(event)
        watcher.close()
        watcher.close()

    watcher = FileWatcher(watched.loop, watched.folder, once)
    (watched.folder / "a").mkdir()
    (watched.folder / "b").mkdir()
    run_until(watched.loop, lambda: events)
    watched.loop.run_once(0.02)
    assert len(events) == 1


def test_a_watcher_closed_in_a_forked_child_goes_on_in_the_parent(loop: Loop, watched: Watched) -> None:
    """The queue is one for both, and its watches with it."""
    (watched.folder / "file").touch()
    watcher = watched.watch(recursive=True)

    def check() -> None:
        watcher.close()
        loop.close()

    in_child(check)
    (watched.folder / "file").write_text("more")
    watched.expect((MODIFIED, "file"))
    watcher.close()


def test_a_callback_that_raises(watched: Watched) -> None:
    reported: list[dict[str, object]] = []
    watched.loop.set_exception_handler(lambda _, context: reported.append(context))

    def fails(event: FileEvent) -> None:
        watched.events.append(event)
        raise ZeroDivisionError

    with FileWatcher(watched.loop, watched.folder, fails):
        (watched.folder / "a").mkdir()
        (watched.folder / "b").mkdir()
        run_until(watched.loop, lambda: len(watched.events) == 2)
    assert [type(context["exception"]) for context in reported] == [ZeroDivisionError] * 2


# -- the events add up -------------------------------------------------------------------------------------------------------------


def listing(folder: Path) -> set[Path]:
    return {
        Path(where, name).relative_to(folder) for where, folders, files in os.walk(folder) for name in folders + files
    }


def replayed(folder: Path, start: set[Path], events: list[FileEvent]) -> set[Path]:
    """Apply events to a listing; each must make sense there."""
    known = set(start)

    def below(path: Path) -> set[Path]:
        return {each for each in known if path in each.parents}

    for number, event in enumerate(events):
        path = event.path.relative_to(folder)
        where = f"event {number}: {event}"
        if event.kind is CREATED:
            assert path not in known, where
            assert path.parent in known or path.parent == Path(), where
            known.add(path)
        elif event.kind is DELETED:
            assert path in known, where
            assert not below(path), where
            known.remove(path)
        elif event.kind is RENAMED:
            assert event.new_path is not None
            new = event.new_path.relative_to(folder)
            assert path in known, where
            assert not below(new), where
            moved = {path, *below(path)}
            known = known - moved - {new} | {new / each.relative_to(path) for each in moved}
        elif event.kind is not OVERFLOW:
            assert path in known, where
    return known


def some_change(rng: random.Random, folder: Path, outside: Path) -> None:
    """Change something in the tree, or try to."""
    known = sorted(listing(folder))
    folders = [folder, *(folder / path for path in known if (folder / path).is_dir())]
    new = rng.choice(folders) / rng.choice("abcd")
    old = folder / rng.choice(known) if known else new
    try:
        match rng.randrange(8):
            case 0 | 1:
                new.mkdir()
            case 2:
                new.write_text("x")
            case 3:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            case 4 | 5:
                old.rename(new)
            case 6:
                old.rename(outside / f"{rng.getrandbits(64)}")
            case 7:
                rng.choice([*outside.iterdir()] or [new]).rename(new)
    except OSError:
        pass  # it exists, or not, or is full, or would be inside itself


def check_that_events_add_up(
    watched: Watched, seed: int, work: Callable[[Callable[[], None], random.Random], None]
) -> None:
    rng = random.Random(seed)
    outside = watched.folder.parent / "outside"
    outside.mkdir()
    for _ in range(10):
        some_change(rng, watched.folder, outside)
    start = listing(watched.folder)
    watched.watch(recursive=True)
    work(lambda: some_change(rng, watched.folder, outside), rng)
    truth = listing(watched.folder)
    run_until(watched.loop, lambda: replayed(watched.folder, start, watched.events) == truth, 10)
    # And each folder that exists is really watched.
    watched.settle()
    watched.events.clear()
    for path in [Path(), *sorted(truth)]:
        if (watched.folder / path).is_dir():
            (watched.folder / path / "sentinel").write_text("")
            truth.add(path / "sentinel")
    run_until(
        watched.loop, lambda: sum(event.kind is CREATED for event in watched.events) == len(truth - listed(watched))
    )


def listed(watched: Watched) -> set[Path]:
    return {path for path in listing(watched.folder) if path.name != "sentinel"}


@pytest.mark.parametrize("seed", range(12))
def test_events_add_up(watched: Watched, seed: int) -> None:
    def work(change: Callable[[], None], rng: random.Random) -> None:
        for _ in range(60):
            for _ in range(rng.choice((1, 1, 2, 5, 20))):
                change()
            if rng.random() < 0.7:
                watched.loop.run_once(0)

    check_that_events_add_up(watched, seed, work)


@pytest.mark.parametrize("seed", range(4))
def test_events_add_up_beside_another_thread(watched: Watched, seed: int) -> None:
    def work(change: Callable[[], None], rng: random.Random) -> None:
        def many() -> None:
            for _ in range(500):
                change()

        thread = threading.Thread(target=many)
        thread.start()
        while thread.is_alive():
            watched.loop.run_once(0.001)
        thread.join()

    check_that_events_add_up(watched, seed + 1000, work)
