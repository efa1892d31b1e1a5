"""A folder to serve, servers in threads of their own, and raw sockets to ask them: clients' libraries mend paths."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import pytest

import evhttp
from evhttp import Server, StaticFiles

SECRET = b"the secret outside"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


Ask = Callable[..., Answer]


def receive(sock: socket.socket) -> Answer:
    """Read until the server closes."""
    data = bytearray()
    while part := sock.recv(1 << 16):
        data += part
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(status.split()[1]), headers, body)


def asker(server: Server) -> Ask:
    def ask(target: str, method: str = "GET", **fields: str) -> Answer:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        with socket.create_connection(server.addresses[0], timeout=20) as sock:
            sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n".encode("latin-1"))
            return receive(sock)

    return ask


class Running:
    """Servers that run in threads of their own until the test has ended."""

    def __init__(self) -> None:
        self.started: list[tuple[Server, threading.Thread]] = []
        self.files: list[StaticFiles] = []

    def __call__(self, handler: evhttp.Handler) -> Server:
        server = Server(handler).listen("127.0.0.1", 0)
        thread = threading.Thread(target=server.run)
        thread.start()
        self.started.append((server, thread))
        if isinstance(handler, StaticFiles):
            self.files.append(handler)
        return server

    def stop(self) -> None:
        for server, thread in self.started:
            server.loop.call_soon_threadsafe(server.loop.stop)  # in the loop: it may not have begun to run
            thread.join()
        for files in self.files:
            files.close()


@pytest.fixture
def serve() -> Iterator[Running]:
    before = set(os.listdir("/proc/self/fd"))
    running = Running()
    yield running
    running.stop()
    assert set(os.listdir("/proc/self/fd")) <= before, "a descriptor was left open"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "file.txt").write_text("a file\n")
    (root / "sub" / "inner.txt").write_text("an inner file\n")
    (root / ".hidden").write_bytes(SECRET)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "root-sibling").mkdir()
    (tmp_path / "root-sibling" / "secret").write_bytes(SECRET)
    return root


@pytest.fixture(name="asker")
def asker_fixture() -> Callable[[Server], Ask]:
    return asker


@pytest.fixture
def ask(root: Path, serve: Running) -> Ask:
    return asker(serve(StaticFiles(root)))


class Page(HTMLParser):
    """A page: the links of its table, the labels of these, and the names of all its elements."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.links: list[str] = []
        self.labels: list[str] = []
        self.tags: set[str] = set()
        self.in_table = self.in_label = False
        self.feed(body.decode())
        self.close()

    @property
    def names(self) -> list[str]:
        return [os.fsdecode(unquote_to_bytes(link)) for link in self.links]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.in_table |= tag == "table"
        if tag == "a" and self.in_table:
            self.links.append(dict(attrs)["href"] or "")
        if tag == "bdi" and self.in_table:
            self.labels.append("")
            self.in_label = True

    def handle_data(self, data: str) -> None:
        if self.in_label:
            self.labels[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "bdi":
            self.in_label = False


@pytest.fixture
def read_page() -> Callable[[bytes], Page]:
    return Page
