"""The reactor of a networking stack: one call into C per turn of the loop. See `Loop`."""

from __future__ import annotations

from pathlib import Path

from evloop._attach import Attachment
from evloop._errors import EvLoopError, ForkedLoopError, LoopClosedError, LoopRunningError, WrongThreadError
from evloop._files import FileEvent, FileEventKind, FileWatcher
from evloop._handles import Handle, TimerHandle
from evloop._loop import READ, WRITE, Loop, Record
from evloop._relay import SignalRelay
from evloop._sendfile import sendfile
from evloop._stats import Stats
from evloop._version import __version__
from evloop._watchers import Watcher
from evloop._wheel import TimerWheel, WheelTimer

__all__ = [
    "READ",
    "WRITE",
    "Attachment",
    "EvLoopError",
    "FileEvent",
    "FileEventKind",
    "FileWatcher",
    "ForkedLoopError",
    "Handle",
    "Loop",
    "LoopClosedError",
    "LoopRunningError",
    "Record",
    "SignalRelay",
    "Stats",
    "TimerHandle",
    "TimerWheel",
    "Watcher",
    "WheelTimer",
    "WrongThreadError",
    "__version__",
    "get_include",
    "sendfile",
]


def get_include() -> str:
    """The folder with ``evloop.h``, for packages that compile against the C interface."""
    return str(Path(__file__).parent / "include")
