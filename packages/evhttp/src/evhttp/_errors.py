"""The exceptions of evhttp.

::

    EvHttpError(Exception)
    ├── HeaderError(ValueError)    a header that must not be sent: a bad name, a control character, a field the server writes
    └── ResponseStateError         the response has been sent already

A peer's mistakes never reach a handler: they are answered with a 4xx status and logged.
"""

from __future__ import annotations

__all__ = ["EvHttpError", "HeaderError", "ResponseStateError"]


class EvHttpError(Exception):
    """Root of what this package raises by itself."""


class HeaderError(EvHttpError, ValueError):
    """A header field that must not be sent."""


class ResponseStateError(EvHttpError):
    """The response is past the point where this can be done."""
