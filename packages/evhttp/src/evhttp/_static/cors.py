"""Cross-origin requests for files (the Fetch standard, §3.3): who may read them from scripts of another site."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evhttp._request import Request
    from evhttp._response import Response

__all__ = ["Cors"]

_ORIGIN = re.compile(r"(?:[a-z][a-z0-9+.\-]*://[^\s/?#@]+|null)\Z")
# What scripts may look at besides what they always may; and the fields that they may send, to ask for parts and conditions.
_EXPOSED = "Accept-Ranges, Content-Length, Content-Range, ETag"
_ACCEPTED = "Range, If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since"
_MAX_AGE = "86400"


class Cors:
    """Answers the questions of browsers.

    Args:
        origins: ``"*"`` for everyone, or the origins that may read, as browsers write them: ``"https://example.com"``.

    Raises:
        ValueError: An origin is none.
    """

    def __init__(self, origins: str | Sequence[str]) -> None:
        self._everyone = origins == "*"
        self._origins = frozenset(() if self._everyone else [origins] if isinstance(origins, str) else origins)
        for origin in self._origins:
            if not _ORIGIN.match(origin):
                raise ValueError(f'an origin is "*" or like "https://example.com", not {origin!r}')

    def mark(self, req: Request, res: Response) -> bool:
        """Add to an answer what lets the asking site read it; whether it may."""
        if self._everyone:
            res.header("Access-Control-Allow-Origin", "*")
        else:
            # To caches: the answer depends on who asks, also where this one may not.
            res.header("Vary", "Origin")
            origin = req.headers.get("origin")
            if origin not in self._origins:
                return False
            res.header("Access-Control-Allow-Origin", origin)
        res.header("Access-Control-Expose-Headers", _EXPOSED)
        return True

    def preflight(self, req: Request, res: Response, methods: str) -> None:
        """Add to an answer to OPTIONS what a browser wants to know before it asks."""
        headers = req.headers
        if "origin" in headers and "access-control-request-method" in headers and self.mark(req, res):
            res.header("Access-Control-Allow-Methods", methods).header("Access-Control-Allow-Headers", _ACCEPTED)
            res.header("Access-Control-Max-Age", _MAX_AGE)
