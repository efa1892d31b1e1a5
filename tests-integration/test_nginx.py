"""nginx in front of two servers that differ: one for pages, with workers and without bodies, one for what is sent to us."""

import http.client
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
PATIENCE = 20

APP = """
import os

def pages(req, res):
    res.header("X-Worker", str(os.getpid())).send(f"page {req.path} for {req.headers.get('x-real-ip')}")

def uploads(req, res):
    res.send(f"{len(req.body)} bytes")
"""
CONFIGURATION = """
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
    client_max_body_size 1m;
    upstream pages {{ server 127.0.0.1:{pages}; keepalive 16; }}
    upstream uploads {{ server unix:{folder}/uploads.sock; keepalive 4; }}
    map $request_method $where {{ default pages; POST uploads; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://$where;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Real-IP $remote_addr;
            proxy_next_upstream off;
        }}
    }}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def until_it_listens(port: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
            return
        except ConnectionRefusedError:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.02)


class Site:
    def __init__(self, port: int, pages: "subprocess.Popen[str]", log: Path) -> None:
        self.port = port
        self.pages = pages
        self.log = log

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if NGINX is None:
        pytest.skip("nginx is not installed; .ci/run installs it")
    (tmp_path / "app.py").write_text(APP)
    port, pages_port = free_port(), free_port()
    (tmp_path / "nginx.conf").write_text(CONFIGURATION.format(folder=tmp_path, port=port, pages=pages_port))
    server = [sys.executable, "-m", "evmulti", "--app-dir", str(tmp_path)]
    commands = [
        [*server, "app:pages", "--workers", "2", "--bind", f"127.0.0.1:{pages_port}", "--name", "pages"],
        [*server, "app:uploads", "--mode", "thread", "--unix", f"{tmp_path}/uploads.sock", "--name", "uploads"],
        [NGINX, "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")],
    ]
    log = tmp_path / "log"
    processes = []
    with log.open("w") as file:
        try:
            for command in commands:
                processes.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True))
            until_it_listens(pages_port, processes[0])
            deadline = time.monotonic() + PATIENCE
            while not (tmp_path / "uploads.sock").exists():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            until_it_listens(port, processes[2])
            while log.read_text().count("evmulti 2.") < 2:  # both serve
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield Site(port, processes[0], log)
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0, log.read_text()
        finally:
            for process in processes:
                process.kill()
                process.wait()
    assert "Traceback" not in log.read_text()


def test_each_server_gets_what_is_its(site: Site) -> None:
    for number in range(20):
        assert site.request("GET", f"/{number}") == (200, f"page /{number} for 127.0.0.1")
        assert site.request("POST", "/", b"x" * (1 << number)) == (200, f"{1 << number} bytes")


def test_curl(site: Site) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    url = f"http://127.0.0.1:{site.port}"
    command = [curl, "-sS", "--fail", f"{url}/a", f"{url}/b", "--next", "-sS", "--data-binary", "hello", f"{url}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout == "page /a for 127.0.0.1page /b for 127.0.0.15 bytes"


def test_workers_are_replaced_behind_it(site: Site) -> None:
    """nginx keeps its connections to us and repeats nothing: a single lost request would be a 502."""
    counts: Counter[int] = Counter()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            counts[site.request("GET", "/")[0]] += 1

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for times in range(1, 4):
            before = counts[200]
            site.pages.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + PATIENCE
            while site.log.read_text().count("the workers are replaced: ") < times or counts[200] < before + 300:
                assert time.monotonic() < deadline, (counts, site.log.read_text())
                time.sleep(0.01)
        # Connections of the old workers that were idle meanwhile are closed a second later: past that too.
        time.sleep(1.2)
    finally:
        over.set()
        for client in clients:
            client.join()
    assert set(counts) == {200}, (counts, site.log.read_text())
