"""`FileWatcher`: changes to files and folders, as events of the loop."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from evloop._errors import LoopClosedError, check
from evloop._filetree import FileEvent, FileEventKind, FileTree
from evloop._inotify import InotifyTree
from evloop._shim import ffi, lib
from evloop._vnode import VnodeTree

if TYPE_CHECKING:
    from evloop._handles import Handle
    from evloop._loop import Loop

__all__ = ["FileEvent", "FileEventKind", "FileWatcher"]

_BUFFER = 65536
# Reads in one turn: a flood must not keep the loop from its other work.
_READS = 16
# Seconds until the first half of a rename is a deletion, and until a new folder is looked at again. The kernel queues the other
# half microseconds later.
_WAIT = 0.01


class FileWatcher:
    """Call ``callback(event)`` for each change to a file, to a folder and its entries, or to all below a folder.

    A path is watched, not an inode: when an editor replaces the file by renaming another one over it, or when it is deleted and
    made again, the watcher goes on with the new one.

    The kinds of events:

    * CREATED, DELETED: a path has come or gone. What is moved into the watched tree or out of it has also come or gone; of a
      folder, all below it too.
    * RENAMED: ``path`` is ``new_path`` now; if there was something at ``new_path``, it is gone. All below a folder has moved
      along, without events. ``new_path`` is outside only when the watched path itself was renamed within its folder. The two
      halves are joined also when they arrive apart; a half without the other becomes DELETED, after 10 ms at most, or CREATED.
    * MODIFIED: the content was written to, or cut. What happens many times in a row is told once.
    * ATTRIBUTES: rights, owner, times, extended attributes.
    * LINKS: a hard link to the watched file was made or removed. inotify does not say this of the files in a watched folder.
    * REVOKED: the file system was unmounted, or access was revoked.
    * OVERFLOW: the kernel has lost events, because the loop did not read them in time. The tree is then read anew, and what has
      come and gone meanwhile is told as CREATED and DELETED; what was modified is not known.

    CREATED is told only of what was not there before, and DELETED and RENAMED only of what was, so a listing that the events are
    applied to stays true. What is in a new folder before it could be watched is told as CREATED too, once. Symbolic links in the
    tree are not followed; the path itself may be one.

    On Linux this is inotify, elsewhere EVFILT_VNODE: that needs a descriptor for each file in the tree, and tells what has changed
    between two looks, so a file that was made and deleted in one turn has no event, and one that was replaced has DELETED and
    CREATED. Neither sees what another machine does to a network file system. When the folder that holds the path is itself
    moved away, the path is DELETED, and is not seen to come back until there is an event of a folder that is watched.

    Args:
        loop: The loop that calls back; it must not be closed.
        path: What to watch. It must exist. Events have it as it was given, with the names below it added.
        callback: Called with a `FileEvent` in the context that is current now. An exception goes to the loop's exception handler.
        recursive: Watch the folders below the path too, also those to come. A folder that may not be read is reported to the
            exception handler.

    Raises:
        OSError: The path does not exist or may not be watched, or the limit of watches is reached. It names the path.
        LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """

    def __init__(
        self,
        loop: Loop,
        path: str | os.PathLike[str],
        callback: Callable[[FileEvent], object],
        *,
        recursive: bool = False,
    ) -> None:
        self._closed = True
        if not callable(callback):
            raise TypeError(f"a callback must be callable, not {callback!r}")
        if loop.is_closed():
            raise LoopClosedError("the loop is closed")
        self.path: Path = Path(path)
        self._loop = loop
        self._callback = callback
        self._timer: Handle | None = None
        self._queue = check(lib.ev_fs_open(), "open a queue for file events")
        make = InotifyTree if lib.ev_fs_names() else VnodeTree
        self._tree: FileTree = make(self._queue, self.path, recursive, self._report)
        try:
            self._tree.start()
            loop.add_reader(self._queue, self._ready)
        except BaseException:
            self._tree.close()
            lib.ev_fs_close(self._queue)
            raise
        self._closed = False
        loop.on_close(self.close)
        if self._read():
            loop.call_soon(self._deliver)
        else:
            self._tree.trust()

    def close(self) -> None:
        """End watching; the callback is not called any more. The loop's end does this too. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._queue)
        # In a forked child inotify's queue is the parent's, too, who would miss what is taken out of it.
        if not (self._loop._forked and lib.ev_fs_names()):
            self._tree.close()
        lib.ev_fs_close(self._queue)
        self._loop.remove_on_close(self.close)

    def __enter__(self) -> FileWatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.path)!r}{' closed' if self._closed else ''}>"

    def _ready(self) -> None:
        self._drain()
        self._deliver()

    def _waited(self) -> None:
        self._timer = None
        if self._drain():
            self._tree.expire()
            self._tree.look_again()
            if not self._read():
                self._tree.trust()
        self._deliver()

    def _drain(self) -> bool:
        """Read what there is; whether that was all."""
        return not all(self._read() for _ in range(_READS))

    def _read(self) -> bool:
        """Read once; whether there was something."""
        buffer = ffi.new("char[]", _BUFFER)
        size = lib.ev_fs_read(self._queue, buffer, _BUFFER)
        if size == -errno.EAGAIN:
            return False
        self._tree.apply(ffi.buffer(buffer, check(size, f"read the file events of {self.path}"))[:])
        self._tree.settle()
        return True

    def _deliver(self) -> None:
        events = self._tree.events
        self._tree.events = []
        for event in events:
            if self._closed:
                return
            try:
                self._callback(event)
            except Exception as error:
                message = f"exception in {self._callback!r}, called for {event}"
                self._loop.call_exception_handler({"message": message, "exception": error})
        if self._tree.unsure and self._timer is None and not self._closed:
            self._timer = self._loop.call_later(_WAIT, self._waited)

    def _report(self, error: OSError) -> None:
        message = f"{error.filename} is not watched"
        self._loop.call_exception_handler({"message": message, "exception": error})
