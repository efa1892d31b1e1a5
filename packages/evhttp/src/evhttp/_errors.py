"""The exceptions of evhttp.

::

    EvHttpError(Exception)
    ├── BodyError                  a request's body that cannot be had: incomplete, malformed, too large, not asked for
    ├── HeaderError(ValueError)    a header that must not be sent: a bad name, a control character, a field the server writes
    ├── ParserStateError           a parser is asked for what it has not got
    ├── ProtocolError              a peer broke the protocol, or asked for more than a limit
    └── ResponseStateError         the response has been sent already

A peer's mistakes never reach a handler: they are answered with a 4xx status and logged. A parser that is used alone tells them as a
`ProtocolError`; the others are the caller's own mistakes.
"""

from __future__ import annotations

__all__ = ["BodyError", "EvHttpError", "HeaderError", "ParserStateError", "ProtocolError", "ResponseStateError"]


class EvHttpError(Exception):
    """Root of what this package raises by itself."""


class BodyError(EvHttpError):
    """A request's body that cannot be had; ``status`` is what the client should be answered with, 400 if nothing fits better."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class HeaderError(EvHttpError, ValueError):
    """A header field that must not be sent."""


class ParserStateError(EvHttpError):
    """A parser is asked for what it has not got: the request of a head that is not complete, or bytes behind the end."""


class ProtocolError(EvHttpError):
    """A peer broke the protocol, or asked for more than a limit allows.

    Attributes:
        status: What a server answers, 400 to 505; for a response that is broken, 502: what a gateway answers.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ResponseStateError(EvHttpError):
    """The response is past the point where this can be done."""
