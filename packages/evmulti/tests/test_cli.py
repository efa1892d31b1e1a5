"""The command line, in processes of its own."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from evmulti import __version__
from evmulti._cli import _address, main

from .conftest import PATIENCE, Process, get, until

Run = Callable[..., Process]


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["served"], 2, "evmulti: expected module:handler, not 'served'"),
        (["nowhere:handler"], 1, "evmulti: worker 0 cannot start: there is no module 'nowhere'"),
        (["served:nothing"], 1, "evmulti: worker 0 cannot start: 'served' has no 'nothing'"),
        (["served:number"], 1, "evmulti: worker 0 cannot start: 'served:number' is not callable: it is int"),
        (["served:handler", "--bind", "a:b"], 2, "evmulti: expected a port from 0 to 65535 in 'a:b', not 'b'"),
        (["served:handler", "--fd", "987"], 1, "evmulti: cannot listen on descriptor 987: Bad file descriptor"),
        (
            ["served:handler", "--unix", "/no/where"],
            1,
            "evmulti: cannot listen on '/no/where': No such file or directory",
        ),
        (
            ["served:handler", "--workers", "x"],
            2,
            "evmulti: argument --workers: expected a number, not 'x' (--help lists the options)",
        ),
        (
            ["served:handler", "--forwarded-allow-ips", "127.0.0.1, proxy"],
            2,
            "evmulti: 'proxy' does not appear to be an IPv4 or IPv6 network",
        ),
        (["served:handler", "--grace", "-1"], 2, "evmulti: grace must not be negative, not -1.0"),
    ],
)
@pytest.mark.parametrize("mode", ["thread", "process"])
def test_what_is_wrong_is_said_in_one_line(run: Run, arguments: list[str], status: int, line: str, mode: str) -> None:
    server = run(*arguments, "--mode", mode)
    assert server.popen.wait(PATIENCE) == status
    assert server.log == f"{line}\n"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port(run: Run, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        server = run("served:handler", "--bind", f"127.0.0.1:{port}", "--workers", workers)
        assert server.popen.wait(PATIENCE) == 1
        assert server.log == f"evmulti: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_a_port_that_another_of_our_servers_has(run: Run) -> None:
    """It shares it among its workers, and with nobody else."""
    first = run("served:handler", "--workers", "2")
    second = run("served:handler", "--workers", "2", "--bind", f"127.0.0.1:{first.port}")
    assert second.popen.wait(PATIENCE) == 1
    assert "Address already in use" in second.log


def test_the_first_line_says_what_runs_where(run: Run, mode: str) -> None:
    server = run("served:handler", "--workers", "3", "--mode", mode)
    kind = "worker processes" if mode == "process" else "threads"
    assert f"evmulti {__version__}: served:handler on http://127.0.0.1:{server.port}, 3 {kind}, process" in server.log
    assert server.get("/") == (200, "hello")


def test_ctrl_c_ends_it(run: Run, mode: str) -> None:
    server = run("served:handler", "--mode", mode)
    assert server.get("/") == (200, "hello")
    assert server.end(signal.SIGINT) == 0
    assert "Traceback" not in server.log


def test_json_lines(run: Run) -> None:
    server = run("served:handler", "--log-json")
    assert server.get("/raise")[0] == 500
    assert server.end() == 0
    records = [json.loads(line) for line in server.log.splitlines()]
    assert [each["level"] for each in records] == ["info", "error", "info", "info"]
    assert "RuntimeError: on purpose" in records[1]["exception"]
    assert {(each["server"], each["server_id"]) for each in records} == {("served:handler", 1)}
    assert [each["thread"] for each in records] == ["MainThread", "worker-0", "MainThread", "MainThread"]
    assert records[1]["process"] != records[0]["process"]


def test_the_number_of_workers_from_the_environment(run: Run) -> None:
    server = run("served:handler", env={"WEB_CONCURRENCY": "2"})
    server.logged("2 worker processes")
    wrong = run("served:handler", env={"WEB_CONCURRENCY": "many"})
    assert wrong.popen.wait(PATIENCE) == 2
    assert wrong.log == "evmulti: WEB_CONCURRENCY must be a number of workers, not 'many'\n"


def test_a_unix_socket_and_an_address(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    server = run("served:handler", "--workers", "2", "--unix", str(path), "--unix-mode", "600", "--bind", "127.0.0.1:0")
    assert server.get("/") == (200, "hello")
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1000).endswith(b"hello")
    assert server.end() == 0
    assert not path.exists()


def test_a_descriptor(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = run("served:handler", "--fd", str(sock.fileno()), pass_fds=[sock.fileno()])
        assert server.port == sock.getsockname()[1]
        assert server.get("/") == (200, "hello")


@pytest.mark.parametrize("signalled", [True, False], ids=["sighup", "reload"])
def test_new_code(run: Run, tmp_path: Path, mode: str, signalled: bool) -> None:
    """At a signal, or when a file has changed; what cannot be served leaves everything as it was."""
    (tmp_path / "other.py").write_text("text = 'one'\n")
    code = tmp_path / "code_.py"
    code.write_text("import other\ndef handler(req, res):\n    res.send(other.text)\n")
    server = run(
        "code_:handler",
        "--workers",
        "2",
        "--mode",
        mode,
        "--app-dir",
        str(tmp_path),
        *(() if signalled else ("--reload",)),
    )
    server.logged("evmulti 2.")
    assert server.get("/") == (200, "one")
    code.write_text("this is no Python\n")
    if signalled:
        server.send(signal.SIGHUP)
    server.logged("cannot import 'code_': SyntaxError")
    server.logged("the workers stay as they are")
    assert server.get("/") == (200, "one")
    (tmp_path / "other.py").write_text("text = 'eleven'\n")
    code.write_text("import other\ndef handler(req, res):\n    res.send('new ' + other.text)\n")
    if signalled:
        server.send(signal.SIGHUP)
    server.logged("the workers are replaced: ")
    until(lambda: {get(server.port, "/") for _ in range(10)} == {(200, "new eleven")}, "the new code")


def test_statistics_on_a_port_of_their_own(run: Run, mode: str) -> None:
    server = run(
        "served:handler", "--workers", "2", "--mode", mode, "--metrics", "127.0.0.1:0", "--metrics-path", "/stats"
    )
    for _ in range(7):
        assert server.get("/") == (200, "hello")
    port = int(server.log.partition("statistics on http://127.0.0.1:")[2].split("/")[0])
    until(lambda: "evmulti_requests_total 7\n" in get(port, "/metrics")[1], "the count of both workers")
    page = get(port, "/metrics")[1]
    samples = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    for name in ("requests_total", "connections_accepted_total", "request_seconds_count"):
        assert samples[f"evmulti_{name}"] == "7"
        label = '{worker="%d"}'
        shares = [int(samples[f"evmulti_worker_{name}{label % number}"]) for number in (0, 1)]
        assert sum(shares) == 7
    assert samples['evmulti_request_seconds_bucket{le="+Inf"}'] == "7"
    assert int(samples["evmulti_received_bytes_total"]) >= 7 * len("GET / HTTP/1.1\r\n\r\n")
    assert int(samples["evmulti_sent_bytes_total"]) >= 7 * len("HTTP/1.1 200 OK\r\n\r\nhello")
    assert get(port, "/")[0] == 404
    assert "evmulti_workers 2\n" in server.get("/stats")[1]


def test_workers_are_replaced_after_so_many_requests(run: Run, mode: str) -> None:
    server = run("served:handler", "--mode", mode, "--limit-max-requests", "5", "--limit-max-requests-jitter", "2")
    first = server.get("/who")[1]
    for _ in range(6):
        assert server.get("/")[0] == 200
    server.logged("requests and is replaced")
    until(lambda: server.get("/who")[1] != first, "the new worker")
    assert server.end() == 0


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a:1", ("a", 1)),
        ("a", ("a", 8000)),
        ("a:", ("a", 8000)),
        (":1", ("", 1)),
        ("[::1]:1", ("::1", 1)),
        ("[::1]", ("::1", 8000)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
    ],
)
def test_addresses(text: str, want: tuple[str, int]) -> None:
    assert _address(text, 8000) == want


@pytest.mark.parametrize("text", ["::1", "[::1", "[::1]1", "a:x", "a:65536", "a:-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|brackets"):
        _address(text, 8000)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "--reload-dir" in capsys.readouterr().out
