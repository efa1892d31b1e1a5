"""TLS in front of workers: what is served, and that certificates are replaced without a loss."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trustme

import evmulti

from .conftest import PATIENCE, Load, Process, until
from .support.served import Echo, handler

Run = Callable[..., Process]


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


def made() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost").configure_cert(context)
    return context


def write_certificate(folder: Path) -> list[str]:
    """A new certificate and its key in the same two files; returns the options that name them."""
    certificate = authority().issue_cert("localhost")
    (folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())
    (folder / "chain.pem").write_bytes(b"".join(each.bytes() for each in certificate.cert_chain_pems))
    return ["--tls", str(folder / "chain.pem"), str(folder / "key.pem")]


def serial(port: int) -> object:
    """The number of the certificate that a new client is shown."""
    with connected(port) as client:
        certificate = client.getpeercert()
        assert certificate is not None
        return certificate["serialNumber"]


def connected(port: int) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    return trusting().wrap_socket(sock, server_hostname="localhost")


def talk(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(1000)


@pytest.mark.parametrize("given", [made, made()], ids=["function", "context"])
def test_requests(mode: str, accept: str, given: Any, run_in_thread: Callable[[evmulti.MultiServer], int]) -> None:
    port = run_in_thread(evmulti.MultiServer(handler, 2, mode, accept=accept, ssl=given))  # type: ignore[arg-type]
    with connected(port) as client:
        for _ in range(3):
            assert talk(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").endswith(b"hello")
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain:
        assert b"hello" not in talk(plain, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")


def test_plain_protocols(mode: str, accept: str, run_in_thread: Callable[[evmulti.MultiServer], int]) -> None:
    port = run_in_thread(evmulti.MultiServer(Echo, 2, mode, accept=accept, ssl=made))  # type: ignore[arg-type]
    with connected(port) as client:
        assert talk(client, b"hello") == b"hello"
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain:  # its handshake fails, and harms nobody
        assert b"hello" not in talk(plain, b"hello, this is no TLS")
    with connected(port) as client:
        assert talk(client, b"hello") == b"hello"


def test_new_certificates_are_used_after_sighup_without_a_loss(
    run: Run, loads: Callable[..., Load], mode: str, accept: str, tmp_path: Path
) -> None:
    options = write_certificate(tmp_path)
    server = run("served:handler", "--workers", "2", "--mode", mode, "--accept", accept, *options)
    port = server.port
    before = serial(port)
    load = loads(port, 4, tls=trusting())
    load.more(50)
    # One client is in the middle of its handshake while the workers are replaced.
    slow = socket.create_connection(("127.0.0.1", port), PATIENCE)
    write_certificate(tmp_path)
    server.send(signal.SIGHUP)
    server.logged("the workers are replaced: ")
    with trusting().wrap_socket(slow, server_hostname="localhost") as client:
        assert talk(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").endswith(b"hello")
    load.more(50)
    now = serial(port)
    assert now != before
    (tmp_path / "chain.pem").write_text("nonsense")
    server.send(signal.SIGHUP)
    server.logged("there is no TLS: cannot use ")
    server.logged("the workers stay as they are")
    assert serial(port) == now
    load.more(50)
    counts = load.end()
    assert (counts["lost"], counts["refused"]) == (0, 0), load.reasons
    assert server.end() == 0
    assert "Traceback" not in server.log


def test_a_drain_lets_clients_with_tls_finish(run: Run, mode: str, tmp_path: Path) -> None:
    server = run("served:handler", "--workers", "2", "--mode", mode, *write_certificate(tmp_path))
    with connected(server.port) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: stat(server), "the request")
        assert server.end() == 0
        assert client.recv(1000).endswith(b"slow")


def stat(server: Process) -> bool:
    """A second client is answered, so the first one's request, which is older, was read by its worker or waits for it."""
    with connected(server.port) as client:
        return talk(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").endswith(b"hello")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "[Errno 2] No such file or directory: "),
        ("nonsense", "cannot use "),
    ],
)
def test_certificates_that_cannot_be_used_are_one_line(
    run: Run, mode: str, tmp_path: Path, content: str | None, line: str
) -> None:
    path = tmp_path / "chain.pem"
    if content is not None:
        path.write_text(content)
    server = run("served:handler", "--mode", mode, "--ssl-certfile", str(path))
    assert server.popen.wait(PATIENCE) == 1
    assert server.log.startswith(f"evmulti: worker 0 cannot start: there is no TLS: {line}")
    assert str(path) in server.log
    assert server.log.count("\n") == 1


def test_a_key_that_needs_a_password_is_one_line(run: Run, tmp_path: Path) -> None:
    """Nobody is asked for it on the terminal."""
    from cryptography.hazmat.primitives import serialization

    write_certificate(tmp_path)
    key = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    server = run("served:handler", "--tls", str(tmp_path / "chain.pem"), str(tmp_path / "key.pem"))
    assert server.popen.wait(PATIENCE) == 1
    assert "protected by a password" in server.log
    assert server.log.count("\n") == 1


def test_a_key_without_a_certificate(run: Run) -> None:
    server = run("served:handler", "--ssl-keyfile", "key.pem")
    assert server.popen.wait(PATIENCE) == 2
    assert server.log == "evmulti: --ssl-keyfile needs --ssl-certfile\n"


def test_what_is_no_context() -> None:
    with pytest.raises(TypeError, match="ssl must be"):
        evmulti.MultiServer(handler, ssl="chain.pem")  # type: ignore[arg-type]
