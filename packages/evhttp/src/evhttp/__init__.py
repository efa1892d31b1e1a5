"""An HTTP/1.1 server: strict, fast, one handler. See `Server`."""

from __future__ import annotations

from pathlib import Path

from evhttp._access import AccessRecord, CombinedFormatter, JsonFormatter
from evhttp._blocking import BlockingConnection, BlockingExchange
from evhttp._body import BodyReader
from evhttp._ends import ConnectionEnd, ServerLog
from evhttp._errors import BodyError, EvHttpError, HeaderError, ParserStateError, ProtocolError, ResponseStateError
from evhttp._events import EventStream
from evhttp._fields import Headers, Query
from evhttp._forms import Multipart, Upload
from evhttp._limits import Limits
from evhttp._link import capi_address
from evhttp._parser import RequestParser, ResponseParser
from evhttp._rate import RateLimiter
from evhttp._relay import Relay, Relayed
from evhttp._request import Request
from evhttp._response import Response
from evhttp._server import Handler, Server
from evhttp._static import StaticFiles
from evhttp._stats import LATENCY_BOUNDS, MetricsHandler, ServerStats
from evhttp._version import __version__

__all__ = [
    "LATENCY_BOUNDS",
    "AccessRecord",
    "BlockingConnection",
    "BlockingExchange",
    "BodyError",
    "BodyReader",
    "CombinedFormatter",
    "ConnectionEnd",
    "EvHttpError",
    "EventStream",
    "Handler",
    "HeaderError",
    "Headers",
    "JsonFormatter",
    "Limits",
    "MetricsHandler",
    "Multipart",
    "ParserStateError",
    "ProtocolError",
    "Query",
    "RateLimiter",
    "Relay",
    "Relayed",
    "Request",
    "RequestParser",
    "Response",
    "ResponseParser",
    "ResponseStateError",
    "Server",
    "ServerLog",
    "ServerStats",
    "StaticFiles",
    "Upload",
    "__version__",
    "capi_address",
    "get_include",
]


def get_include() -> str:
    """The folder with ``evhttp.h``, for packages that compile against the C interface."""
    return str(Path(__file__).parent / "include")
