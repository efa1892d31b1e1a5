"""The public names of evhttp."""

import importlib.metadata
import subprocess
import sys

import evhttp


def test_exports() -> None:
    assert sorted(evhttp.__all__) == [
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
        "LATENCY_BOUNDS",
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
    assert all(hasattr(evhttp, name) for name in evhttp.__all__)


def test_version_is_the_distribution_s() -> None:
    assert evhttp.__version__ == importlib.metadata.version("evhttp")


def test_importing_evhttp_loads_nothing_above_it() -> None:
    script = "import evhttp, sys; print([name for name in sys.modules if name.startswith(('evws', 'evmulti'))])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
