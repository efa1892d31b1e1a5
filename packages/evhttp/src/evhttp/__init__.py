"""An HTTP/1.1 server: strict, fast, one handler. See `Server`."""

from __future__ import annotations

from evhttp._errors import EvHttpError, HeaderError, ResponseStateError
from evhttp._fields import Headers, Query
from evhttp._limits import Limits
from evhttp._request import Request
from evhttp._response import Response
from evhttp._server import Handler, Server
from evhttp._static import StaticFiles
from evhttp._version import __version__

__all__ = [
    "EvHttpError",
    "Handler",
    "HeaderError",
    "Headers",
    "Limits",
    "Query",
    "Request",
    "Response",
    "ResponseStateError",
    "Server",
    "StaticFiles",
    "__version__",
]
