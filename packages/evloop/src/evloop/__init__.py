"""The reactor of a networking stack: one call into C per turn of the loop. See `Loop`."""

from __future__ import annotations

from pathlib import Path

from evloop._errors import EvLoopError, LoopClosedError, LoopRunningError
from evloop._handles import Handle, TimerHandle
from evloop._loop import Loop, Record
from evloop._version import __version__

__all__ = [
    "EvLoopError",
    "Handle",
    "Loop",
    "LoopClosedError",
    "LoopRunningError",
    "Record",
    "TimerHandle",
    "__version__",
    "get_include",
]


def get_include() -> str:
    """The folder with ``evloop.h``, for packages that compile against the C interface."""
    return str(Path(__file__).parent / "include")
