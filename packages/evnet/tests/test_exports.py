"""The public names of evnet."""

import importlib.metadata
from pathlib import Path

import evnet


def test_exports() -> None:
    assert sorted(evnet.__all__) == [
        "AddressInfo",
        "BufferedStreamProtocol",
        "CaresBackend",
        "Connecting",
        "Connection",
        "ConnectionClosedError",
        "DatagramProtocol",
        "DatagramStats",
        "DatagramTransport",
        "EvNetError",
        "KeepAlive",
        "ListenFd",
        "Lookup",
        "PeerCredentials",
        "Pending",
        "Resolver",
        "ResolverBackend",
        "Server",
        "ServerStats",
        "SocketFile",
        "SocketView",
        "Stream",
        "StreamProtocol",
        "TlsAcceptor",
        "Traffic",
        "WriteQueueFullError",
        "__version__",
        "bind_tcp",
        "bind_udp",
        "bind_unix",
        "broadcast",
        "capi_address",
        "connect_tcp",
        "connect_udp",
        "connect_unix",
        "get_include",
        "inherit_sockets",
        "listen_fds",
        "listen_socket",
        "listen_tcp",
        "listen_unix",
        "open_datagram",
        "open_stream",
        "resolve",
        "stream_pair",
        "traffic",
    ]
    assert all(hasattr(evnet, name) for name in evnet.__all__)


def test_version_is_the_distribution_s() -> None:
    assert evnet.__version__ == importlib.metadata.version("evnet")


def test_the_header_is_installed() -> None:
    assert "struct net_capi" in Path(evnet.get_include(), "evnet.h").read_text()
