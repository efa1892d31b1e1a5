"""The public names of evnet."""

import importlib.metadata
from pathlib import Path

import evnet


def test_exports() -> None:
    assert sorted(evnet.__all__) == [
        "Connection",
        "ConnectionClosedError",
        "EvNetError",
        "Server",
        "StreamProtocol",
        "__version__",
        "bind_tcp",
        "capi_address",
        "get_include",
        "listen_tcp",
    ]
    assert all(hasattr(evnet, name) for name in evnet.__all__)


def test_version_is_the_distribution_s() -> None:
    assert evnet.__version__ == importlib.metadata.version("evnet")


def test_the_header_is_installed() -> None:
    assert "struct net_capi" in Path(evnet.get_include(), "evnet.h").read_text()
