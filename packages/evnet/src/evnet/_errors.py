"""The exceptions of evnet.

::

    EvNetError(Exception)
    └── ConnectionClosedError    a write after the connection was closed

What the operating system refuses is an `OSError` that names the address or descriptor concerned.
"""

from __future__ import annotations

__all__ = ["ConnectionClosedError", "EvNetError"]


class EvNetError(Exception):
    """Root of what this package raises by itself."""


class ConnectionClosedError(EvNetError):
    """The connection is closing or closed; what was to be written was not."""
