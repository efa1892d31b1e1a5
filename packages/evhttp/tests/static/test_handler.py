"""`StaticFiles`: files, conditions, redirects, methods."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from evhttp import StaticFiles

Ask = Callable[..., Any]  # conftest.py says what it takes and returns


@pytest.mark.parametrize(
    "target",
    [
        "/file.txt",
        "//file.txt",
        "/./file.txt",
        "/sub/../file.txt",
        "/f%69le.txt",
        "/file.txt?a=../..",
        "http://b//file.txt",
    ],
)
def test_spellings_of_a_path(ask: Ask, target: str) -> None:
    answer = ask(target)
    assert (answer.status, answer.body) == (200, b"a file\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-length"] == "7"


TYPES = [
    ("a.html", "text/html; charset=utf-8"),
    ("a.css", "text/css; charset=utf-8"),
    ("a.JS", "text/javascript; charset=utf-8"),
    ("a.mjs", "text/javascript; charset=utf-8"),
    ("a.json", "application/json; charset=utf-8"),
    ("a.svg", "image/svg+xml"),
    ("a.webp", "image/webp"),
    ("a.woff2", "font/woff2"),
    ("a.wasm", "application/wasm"),
    ("a.pdf", "application/pdf"),
    ("a.tar.gz", "application/gzip"),
    ("a.html.br", "application/x-brotli"),
    ("data:text,html", "application/octet-stream"),
    ("a.unheard-of", "application/octet-stream"),
    ("LICENSE", "application/octet-stream"),
]


def test_media_types(ask: Ask, root: Path) -> None:
    for name, kind in TYPES:
        (root / name).touch()
        assert (name, ask(f"/{name}").headers["content-type"]) == (name, kind)


@pytest.mark.parametrize("target", ["/file.txt", "/", "/sub/", "/sub", "/none", "/../x", "/empty"])
def test_head_is_get_without_the_body(ask: Ask, root: Path, target: str) -> None:
    (root / "empty").touch()
    get, head = ask(target), ask(target, "HEAD")
    get.headers.pop("date"), head.headers.pop("date")
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")
    assert int(get.headers["content-length"]) == len(get.body)


def test_an_empty_file(ask: Ask, root: Path) -> None:
    (root / "empty").touch()
    answer = ask("/empty")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "0", b"")


def test_a_large_file(ask: Ask, root: Path) -> None:
    content = os.urandom(1 << 20) * 8
    (root / "large").write_bytes(content)
    assert ask("/large").body == content


def test_several_at_once(root: Path, serve: Any, asker: Any) -> None:
    contents = [os.urandom(300_000 + number) for number in range(8)]
    for number, content in enumerate(contents):
        (root / str(number)).write_bytes(content)
    ask = asker(serve(StaticFiles(root)))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: ask(f"/{number % 8}").body, range(32)))
    assert answers == contents * 4


def test_a_file_that_shrinks_while_it_is_sent(root: Path, serve: Any, asker: Any) -> None:
    size = 64 << 20
    with (root / "shrinks").open("wb") as file:
        file.truncate(size)
    server = serve(StaticFiles(root))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.settimeout(20)
        sock.connect(server.addresses[0])
        sock.sendall(b"GET /shrinks HTTP/1.1\r\nHost: a\r\n\r\n")
        assert f"Content-Length: {size}".encode() in sock.recv(1000)
        os.truncate(root / "shrinks", 1000)
        got = 0
        try:
            while part := sock.recv(1 << 16):
                got += len(part)
        except ConnectionResetError:
            pass
        assert got < size  # the end came early, so that nobody takes this for the whole file
    assert asker(server)("/file.txt").status == 200


def test_a_client_that_leaves_in_the_middle(root: Path, serve: Any, asker: Any) -> None:
    with (root / "large").open("wb") as file:
        file.truncate(64 << 20)
    server = serve(StaticFiles(root))
    with socket.create_connection(server.addresses[0], timeout=20) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(1000)
    assert asker(server)("/file.txt").status == 200  # and the fixture sees that the file was closed


# -- dates -------------------------------------------------------------------------------------------------------------------

CHANGED = 784111777  # RFC 9110 §5.6.7's example
CONDITIONS = [
    ("equal", "Sun, 06 Nov 1994 08:49:37 GMT", 304),
    ("later", "Sun, 06 Nov 1994 08:49:38 GMT", 304),
    ("earlier", "Sun, 06 Nov 1994 08:49:36 GMT", 200),
    ("rfc850", "Sunday, 06-Nov-94 08:49:37 GMT", 304),
    ("rfc850 of another century", "Monday, 06-Nov-93 08:49:37 GMT", 200),
    ("asctime", "Sun Nov  6 08:49:37 1994", 304),
    ("leap second", "Tue, 30 Jun 2015 23:59:60 GMT", 304),
    ("other zone", "Sun, 06 Nov 1994 08:49:37 EST", 200),
    ("no such day", "Thu, 30 Feb 1995 08:49:37 GMT", 200),
    ("no date", "yesterday", 200),
    ("empty", "", 200),
]


@pytest.mark.parametrize(("since", "status"), [pytest.param(*row[1:], id=row[0]) for row in CONDITIONS])
def test_if_modified_since(ask: Ask, root: Path, since: str, status: int) -> None:
    os.utime(root / "file.txt", (CHANGED, CHANGED + 0.5))
    answer = ask("/file.txt", If_Modified_Since=since)
    assert answer.status == status
    assert answer.headers["last-modified"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    # RFC 9110 §8.6: with 304 it is what a 200 would have had, or nothing.
    assert answer.headers.get("content-length") == (None if status == 304 else "7")
    assert answer.body == (b"" if status == 304 else b"a file\n")


def test_if_modified_since_gives_way_to_if_none_match(ask: Ask) -> None:
    answer = ask("/file.txt", If_Modified_Since="Sun, 06 Nov 2094 08:49:37 GMT", If_None_Match='"x"')
    assert answer.status == 200


def test_a_file_from_the_future_is_of_now(ask: Ask, root: Path) -> None:
    os.utime(root / "file.txt", (time.time() + 1e6,) * 2)
    answer = ask("/file.txt")
    assert (
        answer.headers["last-modified"] <= answer.headers["date"]
        or answer.headers["date"][:3] != answer.headers["last-modified"][:3]
    )
    assert ask("/file.txt", If_Modified_Since=answer.headers["last-modified"]).status in (200, 304)


# -- folders and methods -------------------------------------------------------------------------------------------------------

REDIRECTS = [
    ("/sub", "./sub/"),
    ("/sub?a=1&b", "./sub/?a=1&b"),
    ("//sub", "./sub/"),
    ("/sub/deep", "./deep/"),
    ("/sub/../sub", "./sub/"),
    ("/a:b", "./a%3Ab/"),
    ("//evil.example", "./evil.example/"),
    ("/%5cevil.example", "./%5Cevil.example/"),
    ("/%0d%0aX:%20y", "./%0D%0AX%3A%20y/"),
    ("http://evil.example/sub", "./sub/"),
]


@pytest.mark.parametrize(("target", "location"), REDIRECTS)
def test_a_folder_without_its_slash(ask: Ask, root: Path, target: str, location: str) -> None:
    for name in ("a:b", "evil.example", "\\evil.example", "\r\nX: y"):
        (root / name).mkdir()
    answer = ask(target)
    assert (answer.status, answer.headers["location"]) == (301, location)


def test_index(ask: Ask, root: Path, serve: Any, asker: Any) -> None:
    (root / "sub" / "index.html").write_text("<p>index")
    answer = ask("/sub/?x")
    assert (answer.status, answer.body) == (200, b"<p>index")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    other = asker(serve(StaticFiles(root, index=("none", "deep", "inner.txt"), cache_seconds=0)))
    assert other("/sub/").body == b"an inner file\n"  # a folder is no index
    (root / "sub" / "none").symlink_to("/etc/passwd")
    assert other("/sub/").status == 403


def test_no_listing(root: Path, serve: Any, asker: Any) -> None:
    ask = asker(serve(StaticFiles(root, listing=False)))
    assert [ask(target).status for target in ("/", "/sub/", "/none/", "/file.txt/", "/file.txt")] == [
        403,
        403,
        404,
        404,
        200,
    ]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
def test_other_methods(ask: Ask, method: str) -> None:
    answer = ask("/file.txt", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("target", ["/file.txt", "*"])
def test_options(ask: Ask, target: str) -> None:
    answer = ask(target, "OPTIONS")
    assert (answer.status, answer.headers["allow"], answer.body) == (204, "GET, HEAD", b"")


def test_a_root_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError):
        StaticFiles(tmp_path / "none")
    with pytest.raises(NotADirectoryError):
        StaticFiles(tmp_path / "file")


@pytest.mark.parametrize("index", ["index.html", ["../secret"], [".."], [""], ["a\0b"]])
def test_an_index_that_is_none(tmp_path: Path, index: list[str]) -> None:
    with pytest.raises(ValueError, match="index must be a sequence of file names"):
        StaticFiles(tmp_path, index=index)
