"""The errors of evmulti.

::

    EvMultiError
    ├── ContextError     the calling thread is in no handler, or has lent its place already
    └── StartError       the server cannot start; nothing is left behind
        └── TargetError  "module:handler" names nothing that can be served
"""

from __future__ import annotations

__all__ = ["ContextError", "EvMultiError", "StartError", "TargetError"]


class EvMultiError(Exception):
    """The root of this package's errors. What the operating system refuses is an `OSError`."""


class ContextError(EvMultiError):
    """What was asked for is known in a handler only; or the thread has lent its place already."""


class StartError(EvMultiError):
    """The server cannot start. The message says which worker and why; what had been started is gone."""


class TargetError(StartError):
    """What was to be served cannot be imported, is not there or is not callable; one line says which."""
