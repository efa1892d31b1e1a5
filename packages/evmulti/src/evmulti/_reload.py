"""New code is served as soon as it is saved: for development."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from evloop import FileEvent, FileEventKind, FileWatcher, Loop, TimerHandle
from evmulti._log import Log

__all__ = ["Reloader"]

# An editor or a checkout changes many files at once: wait until nothing has changed for so many seconds.
_QUIET = 0.2
# A folder of which nobody writes Python files by hand, and which changes while the code runs.
_IGNORED = {"__pycache__", ".git", "node_modules", ".venv"}


class Reloader:
    """Calls back when Python files below folders have changed, until the loop is closed.

    Args:
        loop: Where the folders are watched.
        folders: They.
        changed: Called without arguments.
        log: Where the files are named.

    Raises:
        OSError: A folder cannot be watched; the message names it.
    """

    def __init__(self, loop: Loop, folders: Iterable[Path], changed: Callable[[], object], log: Log) -> None:
        self._loop = loop
        self._log = log
        self._changed = changed
        self._timer: TimerHandle | None = None
        for folder in folders:
            FileWatcher(loop, folder, self._event, recursive=True)

    def _event(self, event: FileEvent) -> None:
        if event.kind is FileEventKind.ATTRIBUTES:
            return
        for path in (event.path, event.new_path):
            if path is not None and path.suffix == ".py" and not _IGNORED.intersection(path.parts):
                self._log.info("%s has changed", path)
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = self._loop.call_later(_QUIET, self._changed)
                return
