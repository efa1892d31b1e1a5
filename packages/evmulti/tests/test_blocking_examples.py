"""The examples of blocking handlers run, and do what they say."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import PATIENCE, Process, until

EXAMPLES = Path(__file__).parent.parent / "examples"
EXAMPLES_RUN = {"two_servers.py", "database.py"}

pytestmark = pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not here")


def free_ports() -> int:
    """The first of two free ports that follow each other."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
            return port


def ask(port: int, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True


def test_two_servers(run: Callable[..., Process]) -> None:
    port = free_ports()
    process = run(str(EXAMPLES / "two_servers.py"), str(port), serves=False)
    until(lambda: listens(port) and listens(port + 1))
    assert "<form" in ask(port, "GET", "/")[2]
    form = urllib.parse.urlencode({"name": "Ada <3"})
    status, headers, _ = ask(port + 1, "POST", "/", form, Content_Type="application/x-www-form-urlencoded")
    assert (status, headers["Location"]) == (303, f"http://127.0.0.1:{port}/")
    assert "<li>Ada &lt;3" in ask(port, "GET", "/")[2]
    assert ask(port, "POST", "/", form)[0] == 413
    assert ask(port + 1, "GET", "/")[0] == 405
    assert process.end(signal.SIGTERM) == 0


def test_database(run: Callable[..., Process], tmp_path: Path) -> None:
    port = free_ports()
    process = run(str(EXAMPLES / "database.py"), str(port), str(tmp_path / "notes"), serves=False)
    until(lambda: listens(port))
    for number in range(1, 4):
        status, _, text = ask(port, "POST", "/notes", f"note {number}")
        assert (status, json.loads(text)) == (201, {"id": number})
    notes = json.loads(ask(port, "GET", "/notes")[2])
    assert [note["text"] for note in notes] == ["note 3", "note 2", "note 1"]
    assert ask(port, "GET", "/other")[0] == 404
    assert process.end(signal.SIGTERM) == 0
