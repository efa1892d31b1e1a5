"""The exceptions of evnet.

::

    EvNetError(Exception)
    ├── ConnectionClosedError    a write after the connection was closed
    └── WriteQueueFullError      (also a ConnectionAbortedError) more was written than a connection may have queued

What the operating system refuses is an `OSError` that names the address or descriptor concerned.
"""

from __future__ import annotations

__all__ = ["ConnectionClosedError", "EvNetError", "WriteQueueFullError"]


class EvNetError(Exception):
    """Root of what this package raises by itself."""


class ConnectionClosedError(EvNetError):
    """The connection is closing or closed; what was to be written was not."""


class WriteQueueFullError(EvNetError, ConnectionAbortedError):
    """The connection was aborted because somebody went on writing while more was queued than ``max_queued`` allows."""
