"""The configurations on the site's page about deploying: nginx and systemd take them, and with nginx they do what the page says."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "deploying.md").read_text(encoding="utf-8")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
PATIENCE = 20

APP = """
import evws

def handler(req, res):
    if req.path == "/chat":
        evws.upgrade(req, res, on_message=lambda ws, message: ws.send(message))
    else:
        res.json([req.client[0], req.scheme, req.host, req.version])
"""
# As systemd starts a service: with the socket as descriptor 3, and its own number in the environment.
START = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.executable, sys.argv[2:])
"""
AROUND = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{block}
}}
"""


def block(language: str, holds: str) -> str:
    """Return the page's block of a language that holds a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = [each for each in blocks if holds in each]
    return str(found)


def replaced(text: str, **parts: tuple[str, str]) -> str:
    for old, new in parts.values():
        assert old in text, f"the page does not say {old!r} any more"
        text = text.replace(old, new)
    return text


@pytest.fixture
def site(tmp_path: Path) -> Iterator[int]:
    if NGINX is None:
        pytest.skip("there is no nginx here")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    path = tmp_path / "app.sock"
    text = replaced(
        block("nginx", "upstream"),
        socket=("/run/app/app.sock", str(path)),
        port=("listen 80;", f"listen 127.0.0.1:{port};"),
    )
    (tmp_path / "nginx.conf").write_text(AROUND.format(folder=tmp_path, block=text))
    (tmp_path / "app.py").write_text(APP)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        arguments = ["-m", "evmulti", *unit_arguments().replace("/srv/app", str(tmp_path)).split()]
        service = subprocess.Popen(
            [sys.executable, "-c", START, str(listener.fileno()), sys.executable, *arguments],
            env=os.environ | {"LISTEN_FDS": "1"},
            pass_fds=[listener.fileno()],
        )
    nginx = [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    proxy = subprocess.Popen(nginx, stderr=subprocess.PIPE, text=True)
    try:
        until_it_listens(proxy, port)
        yield port
        service.send_signal(signal.SIGTERM)
        assert service.wait(PATIENCE) == 0
    finally:
        for process in (proxy, service):
            process.kill()
            process.communicate()


def unit_arguments() -> str:
    """What the page's unit passes to evmulti."""
    (line,) = re.findall(r"^ExecStart=\S+ -m evmulti (.*)$", PAGE.replace("\\\n", ""), re.MULTILINE)
    return str(line)


def until_it_listens(process: "subprocess.Popen[str]", port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            pytest.fail(f"it ended: {process.communicate()[1]}")
        assert time.monotonic() < deadline, "it does not listen"
        time.sleep(0.02)


def test_nginx_says_who_asks(site: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", site, timeout=PATIENCE)
    for _ in range(3):  # on one connection, and on one to the server
        client.request("GET", "/", headers={"Host": "example.org", "X-Forwarded-For": "10.1.2.3"})
        answer = client.getresponse()
        assert answer.status == 200
        # What the client says of itself stands before what nginx says of it, and is not reached.
        assert answer.read() == b'["127.0.0.1","http","example.org","1.1"]'
    client.close()


def test_nginx_lets_websockets_through(site: int) -> None:
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{site}/chat", open_timeout=PATIENCE) as client:
        client.send("hello")
        assert client.recv(timeout=PATIENCE) == "hello"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for name in ("socket", "service"):
        text = block("ini", f"/etc/systemd/system/app.{name}")
        (tmp_path / f"app.{name}").write_text(text.replace("/srv/app/.venv/bin/python", sys.executable))
    units = [str(tmp_path / f"app.{name}") for name in ("service", "socket")]
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="there is no haproxy here")
def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(block("text", "frontend web"))
    result = subprocess.run(["haproxy", "-c", "-f", path], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
