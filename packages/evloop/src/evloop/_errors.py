"""The exceptions of evloop.

::

    EvLoopError(Exception)
    ├── ForkedLoopError      the loop was made before a fork, and this is the child
    ├── LoopClosedError      the loop has been closed
    ├── LoopRunningError     the loop is running, and must not be for this call
    └── WrongThreadError     debug mode: called from a thread other than the one that runs the loop

What the operating system refuses is an `OSError`; an argument of the wrong kind is a `TypeError` or `ValueError`.
"""

from __future__ import annotations

import os

__all__ = [
    "EvLoopError",
    "ForkedLoopError",
    "LoopClosedError",
    "LoopRunningError",
    "WrongThreadError",
    "check",
]


class EvLoopError(Exception):
    """Root of what this package raises by itself."""


class ForkedLoopError(EvLoopError):
    """The loop was made before a fork: its descriptors are shared with the parent, so the child needs a loop of its own."""


class LoopClosedError(EvLoopError):
    """The loop has been closed."""


class LoopRunningError(EvLoopError):
    """The loop is running: it cannot be run a second time, nor closed."""


class WrongThreadError(EvLoopError):
    """The call belongs to the thread that runs the loop. Only `call_soon_threadsafe` and `stop` may come from others."""


def check(result: int, what: str) -> int:
    """Return ``result``, or raise the `OSError` that a negative one stands for.

    Args:
        result: What a shim function returned: a count, or ``-errno``.
        what: The call and what it was about, for the message: ``"watch fd 7"``.
    """
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result
