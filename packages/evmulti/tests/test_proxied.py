"""The PROXY protocol before workers and services: whoever accepts a connection, its client is whom the header names."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from evmulti import Dispatcher, MultiServer, Service, StartError

from .blocking import PATIENCE, Client
from .support.served import Echo
from .test_service import quiet, running
from .test_tls import connected, made, trusting

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n"


def tell(req: Any, res: Any) -> None:
    res.send(f"{req.client[0]} {req.client[1]}")


def test_workers(mode: Any, accept: Any, run_in_thread: Callable[[MultiServer], int]) -> None:
    server = MultiServer(tell, 2, mode, accept=accept, trusted=["127.0.0.1"])
    listen = server.listen
    server.listen = lambda *where: listen(*where, proxy_protocol=True)  # type: ignore[assignment, method-assign, misc]
    port = run_in_thread(server)
    for _ in range(8):
        client = Client(("127.0.0.1", port)).send(HEADER)
        assert [client.get().body for _ in range(2)] == [b"192.0.2.1 4711"] * 2
        client.close()
    bare = Client(("127.0.0.1", port)).ask()
    assert bare.at_end()
    bare.close()


def test_workers_whose_clients_are_no_proxies(accept: Any, run_in_thread: Callable[[MultiServer], int]) -> None:
    server = MultiServer(tell, 1, "thread", accept=accept, trusted=["192.0.2.7"])
    listen = server.listen
    server.listen = lambda *where: listen(*where, proxy_protocol=True)  # type: ignore[assignment, method-assign, misc]
    port = run_in_thread(server)
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(("127.0.0.1", port))
            assert sock.recv(1) == b""
        except ConnectionResetError:
            return  # be it so early that `connect` says so


def test_a_unix_socket(tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    server = MultiServer(tell, 1, "thread", trusted=["unix"]).listen_unix(path, proxy_protocol=True)
    with server, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(path)
        sock.sendall(HEADER + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert sock.makefile("rb").read().endswith(b"192.0.2.1 4711")


def test_what_does_not_go_together() -> None:
    with pytest.raises(ValueError, match="needs proxies that are trusted"):
        MultiServer(tell).listen("127.0.0.1", 0, proxy_protocol=True)
    with pytest.raises(ValueError, match="the proxy ends TLS"):
        MultiServer(tell, ssl=made, trusted=["unix"]).listen("127.0.0.1", 0, proxy_protocol=True)
    with pytest.raises(ValueError, match="for all addresses of a server, or none"):
        MultiServer(tell, trusted=["unix"]).listen("127.0.0.1", 0).listen_fd(0, proxy_protocol=True)
    with pytest.raises(StartError, match="a plain protocol does not read headers"):
        MultiServer(Echo, 1, "thread", trusted=["127.0.0.1"]).listen("127.0.0.1", 0, proxy_protocol=True).start()
    with Dispatcher(tell, strategy="socket") as dispatcher, pytest.raises(StartError, match="serves a SocketServer"):
        MultiServer(dispatcher, 1, "thread").listen("127.0.0.1", 0).start()


def test_a_service() -> None:
    service = Service("a", tell, port=0, trusted=["127.0.0.1"], proxy_protocol=True, log=quiet)
    with running(service):
        client = Client(service.addresses[0]).send(HEADER)
        assert client.get().body == b"192.0.2.1 4711"
        client.close()
    with pytest.raises(ValueError, match="the proxy ends TLS"):
        Service("a", tell, ssl=made(), trusted=["unix"], proxy_protocol=True)
    with pytest.raises(ValueError, match="needs proxies that are trusted"):
        Service("a", tell, proxy_protocol=True)


def test_a_service_that_trusts_a_proxy() -> None:
    service = Service("a", tell, port=0, trusted=["127.0.0.1"], pool_size=1, log=quiet)
    with running(service):
        client = Client(service.addresses[0])
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n")
        assert client.answer().body == b"192.0.2.9 0"
        client.close()


@pytest.mark.parametrize("pool_size", [0, 2])
def test_a_service_with_tls(pool_size: int) -> None:
    def scheme(req: Any, res: Any) -> None:
        res.send(f"{req.scheme} {req.path}")

    service = Service("a", scheme, port=0, ssl=made(), pool_size=pool_size, log=quiet)
    with running(service):
        with connected(service.addresses[0][1]) as client:
            client.sendall(b"GET /port HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.makefile("rb").read().endswith(b"https /port")
        with socket.create_server(("127.0.0.1", 0)) as listener:  # a socket that is registered has TLS, too
            address = listener.getsockname()
            client_end = socket.create_connection(address, PATIENCE)
            service.register(listener.accept()[0])
        with trusting().wrap_socket(client_end, server_hostname="localhost") as client:
            client.sendall(b"GET /given HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.makefile("rb").read().endswith(b"https /given")
