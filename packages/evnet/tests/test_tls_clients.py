"""TLS with others' clients and servers: asyncio, Python's blocking sockets, and OpenSSL's own program."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from tls_peers import authority, client_context, server_context

import evnet
from evloop import Loop
from evloop.testing import run_until

OPENSSL = shutil.which("openssl")


@pytest.fixture(params=["openssl", "portable"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EVNET_TLS", request.param)
    return str(request.param)


class Echo:
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def eof_received(self) -> None:
        pass

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        pass


def in_thread(loop: Loop, work: Any) -> Any:
    """Run blocking ``work()`` beside the loop; its result."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)
        loop.call_soon_threadsafe(lambda: None)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        run_until(loop, lambda: outcome, 40)
    finally:
        thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def test_asyncio_s_client(loop: Loop) -> None:
    server = evnet.listen_tcp(loop, Echo, "127.0.0.1", 0, ssl=server_context())
    data = bytes(range(256)) * 4000

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(
            *server.addresses[0], ssl=client_context(), server_hostname="localhost"
        )
        writer.write(data)
        answer = await reader.readexactly(len(data))
        writer.close()
        await writer.wait_closed()
        return answer

    assert in_thread(loop, lambda: asyncio.run(asyncio.wait_for(ask(), 30))) == data
    run_until(loop, lambda: not server.connections)


def test_a_blocking_client(loop: Loop) -> None:
    server = evnet.listen_tcp(loop, Echo, "127.0.0.1", 0, ssl=server_context())

    def ask() -> bytes:
        with socket.create_connection(server.addresses[0], 20) as sock:
            with client_context().wrap_socket(sock, server_hostname="localhost") as tls:
                tls.sendall(b"x" * 100_000)
                data = b""
                while len(data) < 100_000:
                    data += tls.recv(1 << 16)
                tls.unwrap().close()  # waits for our close_notify
                return data

    assert in_thread(loop, ask) == b"x" * 100_000


def test_a_blocking_server(loop: Loop, recorder: Any) -> None:
    class Made:
        def __init__(self) -> None:
            self.made: list[Any] = []

    made = Made()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        evnet.connect_tcp(
            loop, lambda: recorder(made), *listening.getsockname(), ssl=client_context(), server_hostname="localhost"
        )

        def serve() -> None:
            sock, _ = listening.accept()
            sock.settimeout(20)
            with server_context().wrap_socket(sock, server_side=True) as tls:
                tls.sendall(b"welcome" * 10_000)
                tls.unwrap().close()

        in_thread(loop, serve)
    run_until(loop, lambda: "lost" in made.made[0].calls)
    assert made.made[0].data == b"welcome" * 10_000
    assert made.made[0].calls == ["made", "eof", "lost"]
    assert made.made[0].error is None


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl program")
@pytest.mark.parametrize("command", ["k", "K", "R"], ids=["key update", "key update, both", "renegotiation"])
def test_new_keys_in_the_middle(loop: Loop, tmp_path: Path, command: str) -> None:
    """RFC 8446 §4.6.3; in TLS 1.2 a renegotiation, which OpenSSL refuses, and then the client gives up or goes on."""
    server = evnet.listen_tcp(loop, Echo, "127.0.0.1", 0, ssl=server_context())
    ca = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(ca)
    port = server.addresses[0][1]
    arguments = ["s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-CAfile", str(ca)]
    arguments += ["-brief", "-tls1_2" if command == "R" else "-tls1_3"]
    pipe = subprocess.PIPE
    with subprocess.Popen([str(OPENSSL), *arguments], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) as client:
        stdin, stdout, stderr = client.stdin, client.stdout, client.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None

        def talk(line: bytes) -> bytes:
            stdin.write(line)
            return stdout.readline()

        def obey() -> None:
            """It takes a command only if nothing else comes with it."""
            stdin.write(command.encode() + b"\n")
            while line := stderr.readline():
                if b"KEYUPDATE" in line or b"RENEGOTIATING" in line:
                    return

        assert in_thread(loop, lambda: talk(b"before\n")) == b"before\n"
        in_thread(loop, obey)
        if command == "R":
            run_until(loop, lambda: client.poll() is not None or not server.connections)
        else:
            for number in range(3):
                assert in_thread(loop, lambda number=number: talk(b"after %d\n" % number)) == b"after %d\n" % number
        stdin.close()
        in_thread(loop, lambda: client.wait(20))
    run_until(loop, lambda: not server.connections)
