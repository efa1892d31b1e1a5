"""EVFILT_VNODE's events as changes of a `FileTree`: they say which open file or folder has changed, and we find out what."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from struct import Struct

from evloop._filetree import UNWATCHED, FileEventKind, FileTree, Identity, Node, identity
from evloop._shim import lib

__all__ = ["VnodeTree"]

# shim: fswatch.h
_EVENT = Struct("=iIII")
_ENTRIES, _SELF_DELETED, _SELF_MOVED = 1 << 8, 1 << 9, 1 << 10
_TOLD = {
    1 << 5: FileEventKind.MODIFIED,
    1 << 6: FileEventKind.ATTRIBUTES,
    1 << 7: FileEventKind.LINKS,
    1 << 11: FileEventKind.REVOKED,
}


class VnodeTree(FileTree):
    """A tree on EVFILT_VNODE.

    Each file has an open descriptor, so no inode is used again while we compare: what has gone from one folder and come into
    another with the same identity was renamed. So all folders that have changed are read before anything is told.
    """

    leaves_watched = True

    def __init__(self, queue: int, path: Path, recursive: bool, report: Callable[[OSError], None]) -> None:
        super().__init__(queue, path, recursive, report)
        self._told: dict[tuple[Node, FileEventKind], None] = {}
        self._lost: dict[Node, None] = {}  # not in its folder any more
        self._moved: set[Node] = set()  # so says the kernel
        self._found: dict[Node, list[tuple[Node, str, bool, Identity]]] = {}  # in each folder, when last looked at

    def apply(self, data: bytes) -> None:
        """Take what was read."""
        for watch, what, _, _ in _EVENT.iter_unpack(data):
            node = self._watched.get(watch)
            if node is None:
                continue
            if what & _ENTRIES:
                self._new[node] = None
            if what & _SELF_MOVED:
                self._moved.add(node)
            if what & (_SELF_DELETED | _SELF_MOVED):
                if node.parent is None:
                    self.release(node)
                    self._young[self._top] = None
                else:
                    self._new[node.parent] = None
            if node is not self._top:
                self._told.update({(node, kind): None for bit, kind in _TOLD.items() if what & bit})

    def settle(self) -> None:
        """Look at all that is new, and find out what was renamed; then tell what was written to, under the name that it has now."""
        while self._new or self._found:
            super().settle()
            self._place_found()
        for node in sorted(self._lost, key=self._depth, reverse=True):
            if node in self._moved:
                self._renamed_beside(node)
            if node in self._lost:
                self.vanish(node)
        self._moved.clear()
        for node, kind in self._told:
            if self.is_known(node):
                self.emit(kind, self.path(node))
        self._told.clear()

    def look(self, node: Node) -> None:
        """Watch the node, unless it is watched, and compare a folder's entries."""
        if node.watch == UNWATCHED:
            self._open(node)
        if node.children is None or (node.watch < 0 and node is not self._top):
            return
        found = self.scan(node)
        if found is None:
            return
        for name, child in list(node.children.items()):
            if name not in found or found[name][1] != child.identity:
                del node.children[name]
                self._lost[child] = None
        self._found[node] = [(node, name, *what) for name, what in found.items() if name not in node.children]

    def open_folder(self, node: Node) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """List a folder by its descriptor, which is it whatever its name is by now."""
        return os.scandir(node.watch)

    def forget(self, node: Node) -> None:
        """Take ``node`` and all below it out of the tree, without events."""
        for each in self._subtree(node):
            self._lost.pop(each, None)
        super().forget(node)

    def _open(self, node: Node) -> None:
        watch = self.add_watch(node)
        if watch >= 0 and node.identity not in (None, identity(os.fstat(watch))):
            lib.ev_fs_remove(self._queue, watch)  # the path was another's by now; its folder will say so
            watch = UNWATCHED
        self.set_watch(node, watch)

    def _place_found(self) -> None:
        """Put what was found into the tree: under its old node if it was lost elsewhere, else as created."""
        waiting = [each for found in self._found.values() for each in found]
        self._found.clear()
        sources = {node.identity: node for node in self._lost}
        homes = {(node.parent, node.name): node for node in self._lost}
        while waiting:
            wanted = {found[3] for found in waiting}
            later = []
            for found in waiting:
                parent, name, is_dir, inode = found
                source = sources.get(inode)
                if source not in self._lost:
                    source = None
                tenant = homes.get((parent, name))
                if tenant not in self._lost or tenant is source:
                    tenant = None
                if not self.is_known(parent) or (tenant is not None and tenant.identity in wanted):
                    later.append(found)  # first its folder comes back, or the one who has the name moves out
                    continue
                if tenant is not None:
                    if source is not None and tenant in self._ancestors(source):
                        source = None  # it took the place of the folder that it was in: as good as new
                    self._give_up(tenant, replaced=source is not None)
                if source is None:
                    self.appear(parent, name, is_dir, inode)
                else:
                    del self._lost[source]
                    self.move(source, parent, name)
            if len(later) == len(waiting):
                # Names exchanged in a circle: break it where we stand. Or all this is in folders that are deleted.
                circle = [found for found in later if self.is_known(found[0])]
                if not circle:
                    return
                self._give_up(homes[circle[0][:2]])
            waiting = later

    def _give_up(self, node: Node, *, replaced: bool = False) -> None:
        """What was lost is deleted; what was lost from inside it first."""
        if node.is_dir:
            inside = [each for each in self._lost if each is not node and node in self._ancestors(each)]
            for each in sorted(inside, key=self._depth, reverse=True):
                self.vanish(each)
        if replaced:
            self._replace(node)
        else:
            self.vanish(node)

    def _depth(self, node: Node) -> int:
        return sum(1 for _ in self._ancestors(node))

    def _renamed_beside(self, node: Node) -> None:
        """Tell the root's new name if it was renamed within its folder."""
        if node.parent is not self._top or self.root is not None or node.identity is None:
            return
        try:
            with os.scandir(self.system_path(self._top)) as entries:
                for entry in entries:
                    if (
                        entry.inode() == node.identity[1]
                        and identity(entry.stat(follow_symlinks=False)) == node.identity
                    ):
                        self.emit(FileEventKind.RENAMED, self._given, self.place(self._top, entry.name))
                        self.forget(node)
                        return
        except OSError:
            pass  # then it is deleted, as far as we can see
