"""Every example runs, answers as it promises, complains of nothing, and ends at SIGTERM."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


class Example:
    def __init__(self, name: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # -W error, but for what the temporary folders of an example leave behind, which is its point.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().strip()
        if not self.line:
            pytest.fail(self.process.communicate()[1])
        self.port = int(self.line.split(":")[2].split("/")[0]) if self.line.startswith("http") else 0

    def ask(self, method: str, target: str, body: bytes | str | None = None, **fields: str) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, target, body, {name.replace("_", "-"): value for name, value in fields.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def end(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=20)
        assert (self.process.returncode, err) == (0, "")
        return out


@pytest.fixture
def start() -> Iterator[Callable[..., Example]]:
    started: list[Example] = []

    def start(name: str, *arguments: str) -> Example:
        started.append(Example(name, *(arguments or ["0"])))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            try:
                each.end()
            finally:
                each.process.kill()
                each.process.communicate()


Start = Callable[..., Example]


def test_there_are_no_others() -> None:
    tested = {name for name in globals() if name.startswith("test_")}
    assert {f"test_{path.stem}" for path in EXAMPLES.glob("*.py")} <= tested


def test_json_api(start: Start) -> None:
    example = start("json_api.py")
    assert example.ask("GET", "/notes")[2] == b"[]"
    status, headers, body = example.ask("POST", "/notes", json.dumps({"text": "buy tea"}))
    assert (status, headers["Location"], body) == (201, "/notes/1", b'{"id":1}')
    assert example.ask("GET", "/notes/1")[2] == b'{"id":1,"text":"buy tea"}'
    assert example.ask("HEAD", "/notes/1")[0] == 200
    assert [example.ask(*what)[0] for what in (("GET", "/notes/2"), ("GET", "/x"), ("POST", "/notes", "x"))] == [
        404,
        404,
        400,
    ]
    status, headers, _ = example.ask("DELETE", "/notes/1")
    assert (status, headers["Allow"]) == (405, "GET")
    status, headers, _ = example.ask("DELETE", "/notes")
    assert (status, headers["Allow"]) == (405, "GET, POST")


def test_static_site(start: Start) -> None:
    example = start("static_site.py")
    status, headers, body = example.ask("GET", "/")
    assert (status, headers["Cache-Control"]) == (200, "no-cache")
    assert b"A site" in body
    status, headers, _ = example.ask("GET", "/assets/style.3f1c.css", Origin="https://b.example")
    assert (status, headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert "immutable" in headers["Cache-Control"]
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert example.ask("GET", "/assets/")[0] == 403


def test_video(start: Start) -> None:
    example = start("video.py")
    assert b"<audio" in example.ask("GET", "/")[2]
    status, headers, body = example.ask("GET", "/tone.wav", Range="bytes=0-3")
    assert (status, headers["Content-Type"], body) == (206, "audio/wav", b"RIFF")
    assert headers["Content-Range"] == "bytes 0-3/160044"
    assert example.ask("GET", "/tone.wav", Range="bytes=200000-")[0] == 416
    assert example.ask("GET", "/tone.wav", If_None_Match=headers["ETag"])[0] == 304


def test_uploads(start: Start) -> None:
    example = start("uploads.py")
    assert b"multipart/form-data" in example.ask("GET", "/")[2]
    body = (
        b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\n<hello>\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a<b.txt"\r\n\r\nabc\r\n--b--\r\n'
    )
    status, _, page = example.ask("POST", "/", body, Content_Type="multipart/form-data; boundary=b")
    assert status == 200
    assert b"a&lt;b.txt: 3 bytes, SHA-256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in page
    assert b"<p>&lt;hello&gt;</p>" in page
    assert example.ask("POST", "/", b"x", Content_Type="text/plain")[0] == 415


def test_events(start: Start) -> None:
    example = start("events.py")
    assert b"EventSource" in example.ask("GET", "/")[2]
    with socket.create_connection(("127.0.0.1", example.port), timeout=20) as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
        found = b""
        while found.count(b"data: ") < 3:
            found += sock.recv(4096)
    assert b"Content-Type: text/event-stream" in found.replace(b"content-type", b"Content-Type")
    assert b"event: count\nid: " in found.replace(b"\r", b"")


def test_unix_socket(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    example = start("unix_socket.py", path)
    assert example.line == path
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(path)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(4096).endswith(b"hello, somebody on this machine, by http\n")
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\r\n")
        assert sock.recv(4096).endswith(b"hello, 192.0.2.1, by https\n")
    example.end()
    assert not os.path.exists(path)


def test_rate_limit(start: Start) -> None:
    example = start("rate_limit.py")
    answers = [example.ask("GET", "/") for _ in range(6)]
    assert [each[0] for each in answers] == [200] * 5 + [429]
    assert 1 <= int(answers[5][1]["Retry-After"]) <= 10
    assert [example.ask("GET", "/", X_Key="secret")[0] for _ in range(10)] == [200] * 10


def test_graceful_shutdown(start: Start) -> None:
    example = start("graceful_shutdown.py")
    with socket.create_connection(("127.0.0.1", example.port), timeout=20) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"x")
        example.process.send_signal(signal.SIGTERM)
        assert example.process.stdout is not None
        assert example.process.stdout.readline() == "closing, 1 connections are open\n"
        found = b""
        while data := sock.recv(4096):
            found += data
    assert found.endswith(b"worth waiting for\n")
    assert b"connection: close" in found.lower()
    out, err = example.process.communicate(timeout=20)
    assert (out, err, example.process.returncode) == ("all have their answers\n", "", 0)


def test_inside_asyncio(start: Start) -> None:
    example = start("inside_asyncio.py")
    assert example.ask("GET", "/tea")[2] == b"tea was looked up\n"


def certificate_of(port: int, context: ssl.SSLContext) -> Any:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            assert tls.selected_alpn_protocol() == "http/1.1"
            tls.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert tls.recv(4096).endswith(b"nobody else reads this\n")
            return tls.getpeercert()


def test_tls(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"

    def issue() -> None:
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(files[0])
        issued.private_key_pem.write_to_path(files[1])

    issue()
    example = start("tls.py", "0", *map(str, files))
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.configure_trust(context)
    assert example.line.startswith("https://127.0.0.1:")
    port = int(example.line.split(":")[2].split("/")[0])
    first = certificate_of(port, context)
    example.port = int(example.line.split(":")[-1].rstrip("/"))
    status, headers, _ = example.ask("GET", "/x?y")
    assert (status, headers["Location"]) == (308, f"https://localhost:{port}/x?y")
    issue()
    example.process.send_signal(signal.SIGHUP)
    assert example.process.stdout is not None
    assert example.process.stdout.readline() == "the certificate was read again\n"
    assert certificate_of(port, context)["serialNumber"] != first["serialNumber"]


@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="there is no openssl, which makes the example's certificate"
)
def test_tls_with_a_certificate_of_its_own(start: Start) -> None:
    example = start("tls.py", "0")
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate_of(int(example.line.split(":")[2].split("/")[0]), context)
