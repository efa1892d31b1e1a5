"""inotify's events as changes of a `FileTree`: they name the entry, come in order, and pair the halves of a rename."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from struct import Struct

from evloop._filetree import REFUSED, UNWATCHED, FileEventKind, FileTree, Node, identity

__all__ = ["InotifyTree"]

# shim: fswatch.h
_EVENT = Struct("=iIII")
_CREATED, _DELETED, _MOVED_FROM, _MOVED_TO, _IS_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4
_MODIFIED, _ATTRIBUTES = 1 << 5, 1 << 6
_SELF_DELETED, _SELF_MOVED, _REVOKED, _UNWATCHED, _OVERFLOW = 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13

Raw = tuple[int, int, int, str]
"""Watch, what, cookie, name."""


class InotifyTree(FileTree):
    """A tree on inotify.

    The halves of a rename are queued one right after the other by the system call. When the last event read is a first half, it is
    held back until the next one is read, or `expire`: so a pair is joined also across two reads, and nothing is delayed that
    is no half. A half without its other one has left the tree, or come into it.
    """

    def __init__(self, queue: int, path: Path, recursive: bool, report: Callable[[OSError], None]) -> None:
        super().__init__(queue, path, recursive, report)
        self._held: list[Raw] = []
        self._moving: dict[int, tuple[Node, str]] = {}
        self._root_status: os.stat_result | None = None

    @property
    def unsure(self) -> bool:
        """Whether something is held back, or young."""
        return bool(self._held) or super().unsure

    def apply(self, data: bytes) -> None:
        """Take what was read."""
        events = self._held
        self._held = []
        at = 0
        while at < len(data):
            watch, what, cookie, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            events.append((watch, what, cookie, os.fsdecode(data[at : at + length].rstrip(b"\0"))))
            at += length
        if data and events[-1][1] & _MOVED_FROM:
            self._held.append(events.pop())
        arriving = {cookie: watch for watch, what, cookie, _ in events if what & _MOVED_TO}
        for watch, what, cookie, name in events:
            node = self._watched.get(watch)
            if what & _OVERFLOW:
                self._overflow()
            elif node is None:
                pass  # of a watch that we have removed
            elif name:
                self._entry(node, what, cookie if arriving.get(cookie) in self._watched else 0, name)
            else:
                self._itself(node, what)
        for parent, name in self._moving.values():  # to a folder that has gone in between
            if self.is_known(parent):
                self._gone(parent, name)
        self._moving.clear()

    def expire(self) -> None:
        """The other half of the rename held back will not come."""
        if self._held:
            self.apply(b"")

    def look(self, node: Node) -> None:
        """Watch what is at the node's path now, and compare its entries."""
        if node.watch != REFUSED:
            self.set_watch(node, self.add_watch(node))
        if node.watch < 0 and node is not self._top:
            return
        if node is self.root:
            status = self.status()
            if status and (self._root_status is None or identity(status) != identity(self._root_status)):
                self._root_status = status
        found = None if node.children is None else self.scan(node)
        if node.children is None or found is None:
            return
        for name in [name for name in node.children if name not in found]:
            self.vanish(node.children[name])
        for name, (is_dir, inode) in found.items():
            self.appear(node, name, is_dir, inode)

    def _entry(self, parent: Node, what: int, cookie: int, name: str) -> None:
        if parent is self._top and name != self._root_name and not cookie:
            return
        if what & _CREATED:
            self._arrive(parent, name, bool(what & _IS_DIR))
        elif what & _DELETED:
            self._gone(parent, name)
        elif what & _MOVED_FROM:
            if cookie:
                self._moving[cookie] = (parent, name)
            else:
                self._gone(parent, name)
        elif what & _MOVED_TO:
            source = self._moving.pop(cookie, None)
            self._renamed(source, parent, name, bool(what & _IS_DIR))
        else:
            node = self._children(parent).get(name)
            if node is not None and what & _MODIFIED:
                self.emit(FileEventKind.MODIFIED, self.path(node))
            if node is not None and what & _ATTRIBUTES:
                self.emit(FileEventKind.ATTRIBUTES, self.path(node))

    def _arrive(self, parent: Node, name: str, is_dir: bool, *, announce: bool = True) -> None:
        if parent is self._top:  # the root may be a symbolic link
            is_dir = os.path.isdir(self._root_path)
        self.appear(parent, name, is_dir, announce=announce)

    def _gone(self, parent: Node, name: str) -> None:
        node = self._children(parent).get(name)
        if node is not None:
            self.vanish(node)

    def _renamed(self, source: tuple[Node, str] | None, parent: Node, name: str, is_dir: bool) -> None:
        comes = parent is not self._top or name == self._root_name
        if source is not None and not comes:
            node = self._children(source[0]).get(source[1])
            if node is not None and source[0] is self._top:
                self.emit(FileEventKind.RENAMED, self._given, self.place(parent, name))
                self.forget(node)
            elif node is not None:
                self.vanish(node)
            return
        if not comes:
            return
        target = self._children(parent).get(name)
        node = self._children(source[0]).get(source[1]) if source is not None else None
        if node is not None:
            self.move(node, parent, name)
        elif source is not None and source[0] is self._top and parent is self._top:
            self.emit(FileEventKind.RENAMED, self.place(*source), self._given)
            if target is not None:
                self._replace(target)
            self._arrive(parent, name, is_dir, announce=False)
        else:
            if target is not None and not self._is_it(target):
                self.vanish(target)
            self._arrive(parent, name, is_dir)

    def _is_it(self, node: Node) -> bool:
        """Whether a look has shown us the node already of which an event says only now that it has come."""
        try:
            return node.identity == identity(os.lstat(self.system_path(node)))
        except OSError:
            return False

    def _itself(self, node: Node, what: int) -> None:
        # Changed attributes of a folder below the root come with its name as well, from the watch on the folder that holds it.
        if node is self.root:
            if what & _MODIFIED:
                self.emit(FileEventKind.MODIFIED, self._given)
            if what & _ATTRIBUTES:
                self._root_attributes()
            if what & (_SELF_DELETED | _SELF_MOVED):  # told by the watch on its folder too, if there is one
                self._young[self._top] = None
        elif node is self._top and what & (_SELF_DELETED | _SELF_MOVED | _REVOKED):
            self.release(node)
            self._new.update(dict.fromkeys([node, *self._children(node).values()]))
        if what & _REVOKED and node is not self._top:
            self.emit(FileEventKind.REVOKED, self.path(node))
        if what & _UNWATCHED:
            del self._watched[node.watch]
            node.watch = UNWATCHED
            self._young[node] = None

    def _root_attributes(self) -> None:
        status, before = self.status(), self._root_status
        if status is None or before is None or identity(status) != identity(before):
            return  # of what is not there any more; its end, or its successor, has an event of its own
        self._root_status = status
        linked = status.st_nlink != before.st_nlink
        if linked:
            self.emit(FileEventKind.LINKS, self._given)
        if not linked or _rights(status) != _rights(before):
            self.emit(FileEventKind.ATTRIBUTES, self._given)

    def _overflow(self) -> None:
        """Events were lost: what has come and gone can be found out."""
        self.emit(FileEventKind.OVERFLOW, self._given)
        for node in self._subtree(self._top):
            if node.children is not None or node is self.root:
                self._new[node] = None


def _rights(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid
