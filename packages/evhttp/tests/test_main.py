"""``python -m evhttp`` as a process: what it prints, how it ends, and what it says when it cannot do what it is asked."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from evhttp import __version__
from evhttp.__main__ import main

COMMAND = [sys.executable, "-W", "error", "-m", "evhttp"]
LOG_LINE = re.compile(
    r'(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) 127\.0\.0\.1 "(?P<line>[^"]*)" (?P<status>\d+) (?P<size>\d+) [\d.]+ms'
)

Start = Callable[..., "Program"]

# Looked up, localhost has an address of IPv6, too; on it nothing can be bound.
NO_IPV6 = """
import errno, socket
look_up, bind = socket.getaddrinfo, socket.socket.bind

def getaddrinfo(host, port, *args, **options):
    found = look_up("127.0.0.1" if host == "localhost" else host, port, *args, **options)
    return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("{lacking}", port or 0, 0, 0))] * (host == "localhost") + found

class Socket(socket.socket):
    def bind(self, address):
        if address[0] == "::1":
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        bind(self, address)

socket.getaddrinfo, socket.socket = getaddrinfo, Socket
"""


class Program:
    """The command, started; ``url`` is what it has printed."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.search(r"https?://(\[.+\]|[^:]+):(\d+)/$", self.line.strip())
        if found is None:
            pytest.fail(f"no address was printed: {self.line!r} {self.process.communicate()[1]}")
        self.host, self.port = found[1].strip("[]"), int(found[2])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=20)

    def get(self, target: str) -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request("GET", target)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal; return the exit code, and what was printed after the first line."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "hello.txt").write_text("hello\n")
    programs: list[Program] = []

    def start(*arguments: str, **environment: str) -> Program:
        programs.append(Program(tmp_path, *arguments, **environment))
        return programs[-1]

    yield start
    for each in programs:
        each.process.kill()
        each.process.communicate()


def run(*arguments: str, **options: object) -> tuple[int, str, str]:
    result = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=20, check=False, **options)  # type: ignore[call-overload]
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal(start: Start, tmp_path: Path, number: int) -> None:
    program = start("--port", "0")
    assert program.line == f"evhttp serves {tmp_path} at http://127.0.0.1:{program.port}/\n"
    assert program.get("/hello.txt") == (200, b"hello\n")
    assert program.get("/")[0] == 200
    assert program.get("/../x")[0] == 403
    code, out, err = program.end(number)
    assert (code, out) == (0, "")
    assert err.count("\n") == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_any_request(start: Start, number: int) -> None:
    assert start("0").end(number) == (0, "", "")


def test_a_signal_with_open_connections(start: Start) -> None:
    program = start("0")
    kept = program.connect()
    kept.request("GET", "/hello.txt")
    assert kept.getresponse().read() == b"hello\n"
    silent = socket.create_connection((program.host, program.port))
    code, _, err = program.end()
    assert code == 0
    assert "Traceback" not in err
    silent.close()
    kept.close()


def test_two_signals_do_not_wait_for_a_slow_client(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 << 20)
    program = start("0")
    with socket.create_connection((program.host, program.port), timeout=20) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(10)
        program.process.send_signal(signal.SIGTERM)
        while True:  # until it does not listen any more, so that the signals are two
            try:
                socket.create_connection((program.host, program.port), timeout=20).close()
            except ConnectionError:
                break
        code, _, err = program.end(signal.SIGTERM)
    assert code == 0
    assert "aborted 1 connections" in err


def test_options(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "inner.txt").write_text("inner\n")
    program = start("--directory", "sub", "--bind", "localhost", "0")
    assert program.line.startswith(f"evhttp serves {tmp_path / 'sub'} at http://localhost:")
    assert program.get("/inner.txt") == (200, b"inner\n")
    assert program.get("/hello.txt")[0] == 404


def test_an_ipv6_address(start: Start) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    program = start("0", "--bind", "::1")
    assert f"http://[::1]:{program.port}/" in program.line
    assert program.get("/hello.txt") == (200, b"hello\n")


@pytest.mark.parametrize("lacking", ["::1", "2001:db8::1"], ids=["no IPv6", "not ours"])
def test_a_name_of_which_this_machine_lacks_an_address(start: Start, tmp_path: Path, lacking: str) -> None:
    """As localhost has, in /etc/hosts, where IPv6 is off: the other address is listened on."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_IPV6.format(lacking=lacking))
    program = start("0", "--bind", "localhost", PYTHONPATH=str(tmp_path / "site"))
    assert program.line.endswith(f"http://localhost:{program.port}/\n")
    with socket.create_connection(("127.0.0.1", program.port), timeout=20) as sock:
        sock.sendall(b"GET /hello.txt HTTP/1.0\r\n\r\n")
        assert sock.makefile("rb").read().endswith(b"hello\n")


def test_several_addresses(start: Start) -> None:
    program = start("0", "--bind", "127.0.0.1", "--bind", "127.0.0.2")
    assert f"http://127.0.0.1:{program.port}/ and http://127.0.0.2:{program.port}/" in program.line
    for host in ("127.0.0.1", "127.0.0.2"):
        socket.create_connection((host, program.port), timeout=20).close()


def test_a_unix_socket(start: Start, tmp_path: Path) -> None:
    program = start("0", "--unix", "socket")
    assert program.line == f"evhttp serves {tmp_path} at socket and http://127.0.0.1:{program.port}/\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(tmp_path / "socket"))
        sock.sendall(b"GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(4096).endswith(b"hello\n")
    code, _, err = program.end()
    assert code == 0
    assert ' - "GET /hello.txt HTTP/1.1" 200 6 ' in err
    assert not (tmp_path / "socket").exists()


def test_nothing_is_left_of_a_unix_socket_when_the_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = run("--unix", "socket", str(taken.getsockname()[1]), cwd=tmp_path)
    assert (code, err.count("\n")) == (1, 1)
    assert not (tmp_path / "socket").exists()


def test_the_log_as_json(start: Start) -> None:
    program = start("0", "--json-log")
    program.get("/hello.txt?a=b")
    program.get("/none")
    found = [json.loads(line) for line in program.end()[2].splitlines()]
    assert [(each["target"], each["status"], each["bytes"]) for each in found] == [
        ("/hello.txt?a=b", 200, 6),
        ("/none", 404, 14),
    ]


def test_index_and_cors(start: Start, tmp_path: Path) -> None:
    (tmp_path / "home.html").write_text("home")
    program = start("0", "--index", "none.html", "--index", "home.html", "--cors", "https://a.example")
    connection = program.connect()
    connection.request("GET", "/", headers={"Origin": "https://a.example"})
    answer = connection.getresponse()
    assert answer.read() == b"home"
    assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
    connection.close()


def test_a_rate(start: Start) -> None:
    program = start("0", "--rate", "2/600")
    assert [program.get("/hello.txt")[0] for _ in range(4)] == [200, 200, 429, 429]


def test_a_handler(start: Start, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "class api:\n    @staticmethod\n    def handler(req, res):\n        res.send('shop ' + req.path)\n"
    )
    program = start("shop:api.handler", "0")
    assert program.line == f"evhttp serves shop:api.handler at http://127.0.0.1:{program.port}/\n"
    assert program.get("/x") == (200, b"shop /x")


def certificate(folder: Path, *, password: bytes | None = None) -> trustme.CA:
    """Write certificate.pem and key.pem, for localhost."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    (folder / "certificate.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    key = issued.private_key_pem.bytes()
    if password is not None:
        options = ["-aes128", "-passout", f"pass:{password.decode()}"]
        done = subprocess.run(["openssl", "pkey", *options], input=key, capture_output=True, check=True)
        key = done.stdout
    (folder / "key.pem").write_bytes(key)
    return authority


def test_tls(start: Start, tmp_path: Path) -> None:
    authority = certificate(tmp_path)
    program = start("0", "--tls", "certificate.pem", "key.pem")
    assert program.line == f"evhttp serves {tmp_path} at https://127.0.0.1:{program.port}/\n"
    context = ssl.create_default_context()
    authority.configure_trust(context)
    connection = http.client.HTTPSConnection("127.0.0.1", program.port, timeout=20, context=context)
    connection.request("GET", "/hello.txt", headers={"Range": "bytes=1-2"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (206, b"el")
    connection.close()
    code, _, err = program.end()
    assert (code, err.count("\n")) == (0, 1)


def test_a_handler_by_tls(start: Start, tmp_path: Path) -> None:
    certificate(tmp_path)
    (tmp_path / "shop.py").write_text("def handler(req, res):\n    res.send(req.scheme)\n")
    program = start("shop:handler", "0", "--tls", "certificate.pem", "key.pem")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", program.port, timeout=20, context=context)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"https"
    connection.close()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("none.pem", "key.pem"), "cannot read 'none.pem': No such file or directory"),
        (("certificate.pem", "."), "cannot read '.': Is a directory"),
        (("certificate.pem", "other.pem"), "cannot use 'certificate.pem' with 'other.pem': key values mismatch"),
        (("text", "key.pem"), "cannot use 'text' with 'key.pem': not a certificate and its key in PEM"),
        (("certificate.pem", "text"), "cannot use 'certificate.pem' with 'text': not a certificate and its key in PEM"),
    ],
)
def test_a_certificate_that_cannot_be_used(tmp_path: Path, files: tuple[str, str], message: str) -> None:
    certificate(tmp_path)
    (tmp_path / "key.pem").rename(tmp_path / "other.pem")
    certificate(tmp_path)
    (tmp_path / "text").write_text("no PEM\n")
    assert run("0", "--tls", *files, cwd=tmp_path) == (1, "", f"evhttp: {message}\n")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to protect a key with a password")
def test_nobody_is_asked_for_a_password(tmp_path: Path) -> None:
    certificate(tmp_path, password=b"secret")
    code, out, err = run("0", "--tls", "certificate.pem", "key.pem", cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert (code, out) == (1, "")
    assert err == "evhttp: the key is protected by a password, which there is nobody to ask for\n"


BROKEN = [
    (
        "import nowhere_at_all",
        "cannot import 'broken': ModuleNotFoundError: No module named 'nowhere_at_all' (",
        ", line 1)",
    ),
    ("x = (", "cannot import 'broken': SyntaxError: '(' was never closed (broken.py, line 1)", ""),
    ("1 / 0", "cannot import 'broken': ZeroDivisionError: division by zero (", "broken.py, line 1)"),
    ("raise SystemExit(3)", "cannot import 'broken': SystemExit: 3 (", "broken.py, line 1)"),
]


@pytest.mark.parametrize(("text", "begin", "end"), BROKEN)
def test_a_module_that_cannot_be_imported(tmp_path: Path, text: str, begin: str, end: str) -> None:
    (tmp_path / "broken.py").write_text(text + "\n")
    code, out, err = run("broken:handler", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(f"evhttp: {begin}")
    assert err.endswith(f"{end}\n")
    assert err.count("\n") == 1


def test_access_log(start: Start) -> None:
    program = start("0")
    program.get("/hello.txt?a=b")
    program.get('/none"')
    with socket.create_connection((program.host, program.port), timeout=20) as sock:
        sock.sendall(b"GET /\x1b[31mred HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")
    err = program.end()[2]
    assert all(line.isascii() and line.isprintable() for line in err.splitlines())
    first, second, third = err.splitlines()
    assert [LOG_LINE.fullmatch(line).group("line", "status", "size") for line in (first, second)] == [  # type: ignore[union-attr]
        ("GET /hello.txt?a=b HTTP/1.1", "200", "6"),
        ("GET /none%22 HTTP/1.1", "404", "14"),
    ]
    assert re.search(r" 127\.0\.0\.1 refused: 400 ", third)


def test_a_folder_s_name_that_is_no_text(start: Start, tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    program = start("0", "--directory", "\udcff")
    assert "\\udcff" in program.line
    assert program.get("/")[0] == 200


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_nobody_reads_what_it_prints(stream: str, tmp_path: Path) -> None:
    """A pipe to a process that has ended. The server tells by listening that it has started."""
    reader, writer = os.pipe()
    os.close(reader)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer}
    with subprocess.Popen([*COMMAND, str(port)], cwd=tmp_path, **streams) as process:  # type: ignore[call-overload]
        os.close(writer)
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                connection.request("GET", "/")
                assert connection.getresponse().status == 200
                break
            except ConnectionRefusedError:
                assert process.poll() is None
            finally:
                connection.close()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"Traceback" not in (out or b"") + (err or b"")


# -- what it cannot do -----------------------------------------------------------------------------------------------------------


def test_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = run(str(port))
    assert (code, out) == (1, "")
    assert err == f"evhttp: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


FAILURES = [
    ("missing directory", ["--directory", "none"], "evhttp: cannot serve 'none': No such file or directory\n"),
    ("no directory", ["--directory", "file"], "evhttp: cannot serve 'file': Not a directory\n"),
    ("empty directory name", ["--directory", ""], "evhttp: cannot serve '': No such file or directory\n"),
    ("address of another machine", ["--bind", "192.0.2.1", "0"], "cannot listen on 192.0.2.1 port 0: Cannot assign"),
    ("no host name", ["--bind", "a..b", "0"], "evhttp: cannot listen on 'a..b'"),
    ("no address", ["--bind", "1::2::3", "0"], "evhttp: cannot listen on '1::2::3'"),
    ("two addresses", ["--bind", "127.0.0.1", "--bind", "192.0.2.1", "0"], "cannot listen on 192.0.2.1 port"),
    ("no socket", ["--unix", "file"], "evhttp: cannot listen on 'file': what is there is not a socket\n"),
    ("a path that is too long", ["--unix", "x" * 200], "the path of a unix socket has at most 107 bytes"),
    ("an empty path", ["--unix", ""], "evhttp: cannot listen on '': a path must have characters"),
    ("an index with a slash", ["--index", "a/b"], "evhttp: index must be a sequence of file names"),
    ("an origin that is none", ["--cors", "nonsense"], "evhttp: "),
    ("no module", ["nowhere_at_all:handler"], "evhttp: no module named 'nowhere_at_all'\n"),
    ("no name", ["os:handler"], "evhttp: 'os' has no 'handler'\n"),
    ("no handler", ["os:sep"], "evhttp: os:sep is no handler: 'str' cannot be called\n"),
    ("no name behind the colon", ["os:"], "evhttp: a handler is named module:handler, not 'os:'\n"),
]


@pytest.mark.parametrize(("arguments", "message"), [pytest.param(*row[1:], id=row[0]) for row in FAILURES])
def test_failure(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "file").touch()
    code, out, err = run(*arguments, cwd=tmp_path)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_no_permission(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """As for a port below 1024, which some systems let everyone have."""

    def refuse(host: str, port: int, **options: object) -> None:
        raise PermissionError(13, f"cannot listen on {host} port {port}: Permission denied")

    monkeypatch.setattr("evnet.bind_tcp", refuse)
    assert main(["80", "--directory", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "evhttp: cannot listen on 127.0.0.1 port 80: Permission denied\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["65536"],
        ["-1"],
        ["http"],
        ["--port", "1e3"],
        ["8000", "--port", "8001"],
        ["--bind"],
        ["--dir", "."],
        ["1", "2"],
        ["a:b", "c:d"],
        ["a:b", "--directory", "."],
        ["a:b", "--index", "x"],
        ["a:b", "--cors"],
        ["--tls", "a"],
        ["--unix", "s", "--tls", "a", "b"],
        ["--rate", "x"],
        ["--rate", "0"],
        ["--rate", "1/0"],
        ["--rate", "1/nan"],
        ["--rate", "-1"],
    ],
    ids=" ".join,
)
def test_usage(arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"evhttp: .+ \(--help tells more\)\n", err)


def test_version_and_help() -> None:
    assert run("--version") == (0, f"evhttp {__version__}\n", "")
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(option in out for option in ("--bind", "--port", "--directory", "--version", "127.0.0.1", "8000"))
