"""The public names of evhttp."""

import importlib.metadata
import subprocess
import sys

import evhttp


def test_exports() -> None:
    assert sorted(evhttp.__all__) == [
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
    assert all(hasattr(evhttp, name) for name in evhttp.__all__)


def test_version_is_the_distribution_s() -> None:
    assert evhttp.__version__ == importlib.metadata.version("evhttp")


def test_importing_evhttp_loads_nothing_above_it() -> None:
    script = "import evhttp, sys; print([name for name in sys.modules if name.startswith(('evws', 'evmulti'))])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
