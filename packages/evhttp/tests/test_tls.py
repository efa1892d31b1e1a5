"""HTTPS: the native parser behind TLS, by OpenSSL in the turn and by way of Python, with real clients."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import trustme

import evhttp
import evnet
from evhttp import Request, Response
from evloop import Loop


@pytest.fixture(params=["openssl", "portable"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EVNET_TLS", request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA, tmp_path: Path) -> Iterator[evhttp.Server]:
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 8000)

    def handler(req: Request, res: Response) -> None:
        if req.path == "/file":
            res.send_file(big)
        elif req.method == "POST":
            res.send(bytes(req.body))
        else:
            res.send(b"hello " + req.path.encode())

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    server = evhttp.Server(handler).listen("127.0.0.1", 0, ssl=context)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.loop.call_soon_threadsafe(server.close, 1)
    server.loop.call_soon_threadsafe(server.loop.stop)
    thread.join()


@pytest.fixture
def port(server: evhttp.Server) -> int:
    return server.addresses[0][1]


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def test_http_client(port: int, authority: trustme.CA) -> None:
    client = http.client.HTTPSConnection("localhost", port, context=trusting(authority), timeout=20)
    for number in range(3):
        client.request("GET", f"/{number}")
        answer = client.getresponse()
        assert answer.status == 200
        assert answer.read() == b"hello /%d" % number
    body = bytes(range(256)) * 1000
    client.request("POST", "/", body)
    assert client.getresponse().read() == body
    client.request("GET", "/file")
    assert client.getresponse().read() == bytes(range(256)) * 8000
    client.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(port: int, authority: trustme.CA, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    base = f"https://localhost:{port}"
    command = ["curl", "-sS", "--max-time", "20", "--ipv4", "--cacert", str(ca), f"{base}/a", f"{base}/b"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"hello /ahello /b"


def test_plain_http_is_hung_up_on(port: int, authority: trustme.CA) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    plain.request("GET", "/")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        plain.getresponse()
    plain.close()
    test_http_client(port, authority)


def test_who_does_not_finish_the_handshake_is_hung_up_on(authority: trustme.CA) -> None:
    """In the time that a request's head has; it used to be a minute whatever the limits said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with Loop() as loop:
        limits = evhttp.Limits(head_timeout=0.2)
        server = evhttp.Server(lambda req, res: res.send(), loop=loop, limits=limits)
        server.listen("127.0.0.1", 0, ssl=context)
        with socket.create_connection(server.addresses[0], 20) as silent:
            silent.sendall(b"\x16\x03\x01")

            def wait() -> None:
                try:
                    silent.recv(100)
                except ConnectionResetError:
                    pass
                except TimeoutError:
                    still.append(True)
                loop.call_soon_threadsafe(loop.stop)

            still: list[bool] = []
            thread = threading.Thread(target=wait)
            thread.start()
            loop.run()
            thread.join()
        assert still == []
        server.close()


def test_pipelined(port: int, authority: trustme.CA) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        with trusting(authority).wrap_socket(sock, server_hostname="localhost") as tls:
            tls.sendall(
                b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 20 + b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            )
            data = b""
            while more := tls.recv(1 << 16):
                data += more
    assert data.count(b"hello /x") == 21


def test_what_is_no_context() -> None:
    server: Any = evhttp.Server(print)
    with pytest.raises(TypeError, match="SSLContext"):
        server.listen("127.0.0.1", 0, ssl="a path")
    server.close()
    server.loop.close()


def test_who_is_in_the_handshake_when_the_server_ends_is_served(
    port: int, server: evhttp.Server, authority: trustme.CA
) -> None:
    """Also when it takes longer than the look for who is there."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting(authority).wrap_bio(incoming, outgoing, server_hostname="localhost")
    ended = threading.Event()
    with socket.create_connection(("127.0.0.1", port), 20) as sock:

        def exchange(step: Callable[[], bytes | None]) -> bytes | None:
            while True:
                try:
                    result = step()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    data = sock.recv(65536)
                    assert data, "the server has hung up"
                    incoming.write(data)
                else:
                    sock.sendall(outgoing.read())
                    return result

        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        sock.sendall(hello[:20])
        while not on_loop(server, lambda: server._listeners.shaking):
            pass
        on_loop(server, lambda: server.close(on_closed=ended.set, keep_idle=True))
        assert on_loop(server, lambda: server.connections) == 1
        assert not ended.wait(0.2)
        sock.sendall(hello[20:])
        exchange(tls.do_handshake)
        tls.write(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = exchange(lambda: tls.read(1000)) or b""
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b"hello /late")
    assert ended.wait(20)


def test_who_gives_up_in_the_handshake_when_the_server_ends(port: int, server: evhttp.Server) -> None:
    ended = threading.Event()
    with socket.create_connection(("127.0.0.1", port), 20):
        while not on_loop(server, lambda: server._listeners.shaking):
            pass
        on_loop(server, lambda: server.close(on_closed=ended.set))
        assert not ended.wait(0.2)
    assert ended.wait(20)


def test_who_is_in_the_handshake_when_the_server_aborts(port: int, server: evhttp.Server) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        while not on_loop(server, lambda: server._listeners.shaking):
            pass
        assert on_loop(server, server.abort) == 1
        with pytest.raises(ConnectionResetError):
            sock.recv(100)


def on_loop(server: evhttp.Server, function: Callable[[], Any]) -> Any:
    """Call a function on the server's thread and return its result."""
    results: Queue[Any] = Queue()
    server.loop.call_soon_threadsafe(lambda: results.put(function()))
    return results.get(timeout=20)


def test_handshakes_outlive_the_server_that_stops_listening(authority: trustme.CA) -> None:
    """Where somebody else makes them: who was in the middle of one is served once, as is who was accepted elsewhere."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with Loop() as loop:
        acceptor = evnet.TlsAcceptor(loop, context)
        server = evhttp.Server(lambda req, res: res.send(f"{req.scheme} {req.path}"), loop=loop)
        (sock,) = evnet.bind_tcp("127.0.0.1", 0)
        (elsewhere,) = evnet.bind_tcp("127.0.0.1", 0)
        server.listen_socket(sock, ssl=acceptor)
        clients = [socket.create_connection(each.getsockname(), 20) for each in (sock, elsewhere)]
        loop.run_until(lambda: acceptor.shaking == 1)
        server.close(keep_idle=True)
        elsewhere.setblocking(True)
        server.adopt(elsewhere.accept()[0], ssl=acceptor)
        loop.run_until(lambda: acceptor.shaking == 2)
        answers: list[bytes] = []

        def talk(client: socket.socket) -> None:
            with trusting(authority).wrap_socket(client, server_hostname="localhost") as tls:
                tls.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
                answers.append(tls.makefile("rb").read())

        threads = [threading.Thread(target=talk, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        loop.run_until(lambda: len(answers) == 2)
        for thread in threads:
            thread.join()
        elsewhere.close()
        acceptor.close()
        loop.run_until(lambda: server.connections == 0)
    for answer in answers:
        assert answer.endswith(b"\r\n\r\nhttps /x")
        assert b"connection: close" in answer.lower()


def test_a_client_whose_handshake_fails_after_the_server_was_closed(authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with Loop() as loop:
        acceptor = evnet.TlsAcceptor(loop, context)
        server = evhttp.Server(lambda req, res: res.send("never"), loop=loop)
        (sock,) = evnet.bind_tcp("127.0.0.1", 0)
        server.listen_socket(sock, ssl=acceptor)
        with (
            socket.create_connection(sock.getsockname(), 20) as client,
            socket.create_connection(sock.getsockname(), 20),
        ):
            loop.run_until(lambda: acceptor.shaking == 2)
            server.close()
            client.sendall(b"this is no TLS at all")
            loop.run_until(lambda: acceptor.shaking == 1 and acceptor.failed == 1)
        # The other one is in its handshake when the loop is closed.
    assert server.connections == 0
