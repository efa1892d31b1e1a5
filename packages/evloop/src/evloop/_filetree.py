"""What a `FileWatcher` knows to exist, and the events that a change of that amounts to. Reads no queue and knows no loop.

`FileTree` is what both kernels need; `_inotify` and `_vnode` turn what their kernel says into changes of the tree. The rule that
keeps them honest: CREATED is told only of what was not known, DELETED and RENAMED only of what was. So whoever replays the events
on a listing of the start has the listing of the end, however the kernel's events and our own looks at folders overlap.

A folder that appears is watched first and read then, so nothing is missed; what is in it already is told as created, and when the
kernel tells so too, it is known by then. But the kernel watches inodes, and we name them by a path: when a folder was renamed
and we have not yet read that event, the path may be another folder's by now. So a folder is *young* until it has been looked at
again at a time when no event was waiting: each look compares what the path means with what is watched, and mends it.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from evloop._shim import lib

__all__ = ["FileEvent", "FileEventKind", "FileTree", "Node"]

# shim: fswatch.h
WATCH_ENTRIES, WATCH_NO_FOLLOW, WATCH_DIRECTORY = 1, 2, 4

# Why a path could not be watched: it is not there, or is something else by now. An event that says so is under way.
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK}
# Or there are too many watches, which ends the making of a watcher.
_LIMITS = {
    errno.ENOSPC: "the limit of inotify watches is reached (sysctl fs.inotify.max_user_watches)",
    errno.EMFILE: "too many open files (each watch takes a descriptor here: ulimit -n)",
    errno.ENFILE: "too many open files in the system",
    errno.ENOMEM: os.strerror(errno.ENOMEM),
}

Identity = tuple[int, int]
"""Device and inode."""

UNWATCHED, REFUSED = -1, -2


class FileEventKind(enum.Enum):
    """What happened to a file or folder; see `FileWatcher` for each."""

    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"
    RENAMED = "renamed"
    ATTRIBUTES = "attributes"
    LINKS = "links"
    REVOKED = "revoked"
    OVERFLOW = "overflow"


class FileEvent(NamedTuple):
    """Something happened to ``path``; only a RENAMED has a ``new_path``."""

    kind: FileEventKind
    path: Path
    new_path: Path | None = None


class Node:
    """A file or folder that is known to exist."""

    __slots__ = ("children", "identity", "is_dir", "name", "parent", "watch")

    def __init__(self, name: str, parent: Node | None, *, is_dir: bool, entered: bool) -> None:
        self.name = name
        self.parent = parent
        self.is_dir = is_dir
        self.children: dict[str, Node] | None = {} if entered else None
        self.watch = UNWATCHED
        self.identity: Identity | None = None  # as of the last look at its folder


class FileTree:
    """The tree below one path, and the folder that holds it, where the path's own coming and going is seen.

    Args:
        queue: What ``ev_fs_open`` gave.
        path: The root, as it stands in the events.
        recursive: Whether folders below the root are entered.
        report: Told of a folder that cannot be watched.
    """

    leaves_watched = False  # whether files need a watch of their own

    def __init__(self, queue: int, path: Path, recursive: bool, report: Callable[[OSError], None]) -> None:
        self.events: list[FileEvent] = []
        self._queue = queue
        self._given = path
        self._recursive = recursive
        self._report = report
        absolute = path.absolute()  # the working directory may change
        self._root_path = str(absolute)
        self._root_name = absolute.name
        self._folder = path.parent if path.name else absolute.parent
        self._top = Node("", None, is_dir=True, entered=True)
        if absolute.name in ("", ".."):  # "/" has no folder, and ".." no name in it
            self._top.watch = REFUSED
        self._watched: dict[int, Node] = {}
        self._new: dict[Node, None] = {}  # to be looked at; a dict for its order
        self._young: dict[Node, None] = {}  # looked at, and not yet sure
        self._starting = False

    # -- what the watcher calls ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Watch everything there is, without events. Raises the OSError that forbids it."""
        os.stat(self._root_path)
        self._starting = True
        self._new[self._top] = None
        self.settle()
        self._starting = False
        self.events.clear()
        if self._root_name not in self._children(self._top):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._root_path)

    def apply(self, data: bytes) -> None:
        """Take what ``ev_fs_read`` gave."""
        raise NotImplementedError

    def expire(self) -> None:
        """Give up waiting for the other half of a rename."""

    def settle(self) -> None:
        """Look at all that is new."""
        while self._new:
            node = next(iter(self._new))
            del self._new[node]
            self._young[node] = None
            self.look(node)

    def look_again(self) -> None:
        """Look at what is young."""
        self._new.update(self._young)
        self.settle()

    def trust(self) -> None:
        """Be sure of all that is young: nothing has happened since the last look."""
        self._young.clear()

    @property
    def unsure(self) -> bool:
        """Whether it should be looked at again soon."""
        return bool(self._young)

    def close(self) -> None:
        """Remove all watches."""
        for watch in self._watched:
            lib.ev_fs_remove(self._queue, watch)
        self._watched.clear()
        self._new.clear()
        self._young.clear()

    # -- watching and looking --------------------------------------------------------------------------------------------------

    def look(self, node: Node) -> None:
        """See that ``node`` is watched and that its children are those that it has."""
        raise NotImplementedError

    def add_watch(self, node: Node) -> int:
        """Ask the kernel for a watch on the path of ``node``; UNWATCHED if it is not there, REFUSED if it cannot be."""
        how = 0
        if node is self._top:
            how = WATCH_ENTRIES | WATCH_DIRECTORY
        elif node.parent is not self._top:
            how = WATCH_NO_FOLLOW | (WATCH_DIRECTORY if node.is_dir else 0)
        path = self.system_path(node)
        watch = lib.ev_fs_add(self._queue, os.fsencode(path), how)
        if watch >= 0:
            return watch
        if -watch in _GONE:
            return UNWATCHED
        # The folder that holds the root is a help, not a must; a file that cannot be opened (kqueue) still comes and goes.
        if -watch in _LIMITS or (node is not self._top and (node.is_dir or node.parent is self._top)):
            error = OSError(-watch, _LIMITS.get(-watch) or os.strerror(-watch), path)
            if self._starting and (-watch in _LIMITS or node.parent is self._top):
                raise error
            self._report(error)
        return REFUSED

    def set_watch(self, node: Node, watch: int) -> None:
        """Make ``watch`` the one of ``node``, whosever it was."""
        if watch == node.watch:
            return
        self.release(node)
        other = self._watched.get(watch)
        if other is not None:
            other.watch = UNWATCHED
            self._young[other] = None
        node.watch = watch
        if watch >= 0:
            self._watched[watch] = node

    def release(self, node: Node) -> None:
        """Remove the watch of ``node``."""
        if node.watch >= 0:
            del self._watched[node.watch]
            lib.ev_fs_remove(self._queue, node.watch)
        node.watch = UNWATCHED

    def scan(self, node: Node) -> dict[str, tuple[bool, Identity]] | None:
        """What is in a folder now: whether it is one itself, and its identity. None if it cannot be read."""
        if node is self._top:
            status = self.status()
            return {} if status is None else {self._root_name: (stat.S_ISDIR(status.st_mode), identity(status))}
        found: dict[str, tuple[bool, Identity]] = {}
        try:
            with self.open_folder(node) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:  # deleted just now
                        continue
                    found[entry.name] = (stat.S_ISDIR(status.st_mode), identity(status))
        except OSError as error:
            if self._starting and node.parent is self._top:
                raise
            if error.errno not in _GONE:
                self._report(error)
            return None
        return found

    def open_folder(self, node: Node) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """List a folder."""
        return os.scandir(self.system_path(node))

    def status(self) -> os.stat_result | None:
        """The root's status, or None if it is not there."""
        try:
            return os.stat(self._root_path)
        except OSError:
            return None

    # -- changes ---------------------------------------------------------------------------------------------------------------

    def emit(self, kind: FileEventKind, path: Path, new_path: Path | None = None) -> None:
        """Tell; what may well happen often is told once in a row."""
        event = FileEvent(kind, path, new_path)
        repeats = kind in (FileEventKind.MODIFIED, FileEventKind.ATTRIBUTES, FileEventKind.LINKS)
        if not (repeats and self.events and self.events[-1] == event):
            self.events.append(event)

    def appear(
        self, parent: Node, name: str, is_dir: bool, identity: Identity | None = None, *, announce: bool = True
    ) -> None:
        """``name`` exists in ``parent``."""
        siblings = self._children(parent)
        node = siblings.get(name)
        if node is not None:
            if node.is_dir == is_dir:
                node.identity = identity or node.identity
                return
            self.vanish(node)
        root = parent is self._top
        node = Node(name, parent, is_dir=is_dir, entered=is_dir and (root or self._recursive))
        node.identity = identity
        siblings[name] = node
        if announce:
            self.emit(FileEventKind.CREATED, self.path(node))
        if root or self.leaves_watched or node.children is not None:
            self._new[node] = None

    def vanish(self, node: Node) -> None:
        """``node`` and all below it do not exist any more."""
        for each in reversed(list(self._subtree(node))):
            self.emit(FileEventKind.DELETED, self.path(each))
        self.forget(node)

    def forget(self, node: Node) -> None:
        """Take ``node`` and all below it out of the tree, without events."""
        for each in self._subtree(node):
            self.release(each)
            self._new.pop(each, None)
            self._young.pop(each, None)
        self._detach(node)

    def move(self, node: Node, parent: Node, name: str) -> None:
        """``node`` was renamed, perhaps over another one, which needs no event of its own."""
        if any(each is node for each in self._ancestors(parent)):
            return  # into itself: what we know is ahead of the events; the next looks will mend it
        old = self.path(node)
        target = self._children(parent).get(name)
        if target is not None and target is not node:
            if any(each is target for each in self._ancestors(node)):
                return
            self._replace(target)
        self._detach(node)
        node.parent, node.name = parent, name
        self._children(parent)[name] = node
        self.emit(FileEventKind.RENAMED, old, self.path(node))
        for each in self._subtree(node):
            if each.watch == UNWATCHED and (self.leaves_watched or each.children is not None):
                self._young[each] = None

    def _replace(self, target: Node) -> None:
        """Forget what is renamed over. A folder must be empty for that: if it is not, what we know is ahead of the events."""
        for child in list((target.children or {}).values()):
            self.vanish(child)
        self.forget(target)

    def _detach(self, node: Node) -> None:
        if node.parent is not None:
            siblings = self._children(node.parent)
            if siblings.get(node.name) is node:
                del siblings[node.name]

    # -- names -----------------------------------------------------------------------------------------------------------------

    @property
    def root(self) -> Node | None:
        """The root, if it exists."""
        return self._children(self._top).get(self._root_name)

    def is_known(self, node: Node) -> bool:
        """Whether ``node`` is in the tree, and not in a part that was taken out of it."""
        return all(
            each is self._top or (each.parent is not None and self._children(each.parent).get(each.name) is each)
            for each in self._ancestors(node)
        )

    def path(self, node: Node) -> Path:
        """The path of ``node`` as it stands in events."""
        return self._given.joinpath(*self._names(node))

    def place(self, parent: Node, name: str) -> Path:
        """The path of an entry that may be unknown, or beside the root."""
        if parent is not self._top:
            return self.path(parent) / name
        return self._given if name == self._root_name else self._folder / name

    def system_path(self, node: Node) -> str:
        """The path of ``node`` for system calls."""
        if node is self._top:
            return os.path.dirname(self._root_path)
        return os.path.join(self._root_path, *self._names(node))

    def _names(self, node: Node) -> list[str]:
        names = [each.name for each in self._ancestors(node)]
        return names[-3::-1]  # without those of the root and of the top

    def _ancestors(self, node: Node | None) -> Iterator[Node]:
        while node is not None:
            yield node
            node = node.parent

    def _subtree(self, node: Node) -> Iterator[Node]:
        """``node`` and all below it, parents before their children."""
        waiting = [node]
        while waiting:
            each = waiting.pop()
            yield each
            if each.children:
                waiting += each.children.values()

    @staticmethod
    def _children(node: Node) -> dict[str, Node]:
        if node.children is None:  # an entry of what was thought to be a file: the next look will tell
            node.children = {}
        return node.children


def identity(status: os.stat_result) -> Identity:
    """What tells a file from its successor under the same name."""
    return status.st_dev, status.st_ino
