"""The page of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evhttp import StaticFiles

Ask = Callable[..., Any]  # conftest.py says what it takes and returns
CHANGED = 784111777

FOLDER = "<b>&"
ODD = [
    FOLDER,
    '"><img src=x>',
    "<script>alert(1)<script>",
    "javascript:alert(1)",
    "a b+c%41",
    "hash#q?x",
    "ü–日本",
    "new\nline\x1b[31m",
    "back\\slash",
    "'quoted'",
    "\udcff\udcfe",
    "~tilde",
    "\u202egnp.exe",
    "C:",
    "&amp;",
    "space ",
]


def test_a_listing_of_odd_names(ask: Ask, root: Path, read_page: Any) -> None:
    odd = root / "odd"
    odd.mkdir()
    for name in ODD:
        os.mkdir(odd / name) if name == FOLDER else (odd / name).write_bytes(os.fsencode(name))
    body = ask("/odd/").body
    page = read_page(body)
    assert sorted(page.names) == sorted(["../", *(f"{name}/" if name == FOLDER else name for name in ODD)])
    assert page.tags.isdisjoint(("b", "img", "script"))
    for link, name in zip(page.links, page.names, strict=True):
        assert all(c.isalnum() or c in "-._~%/" for c in link), link
        if not name.endswith("/"):
            answer = ask(f"/odd/{link}")
            assert (answer.status, answer.body) == (200, os.fsencode(name))
    assert page.labels[page.names.index("<script>alert(1)<script>")] == "<script>alert(1)<script>"
    assert page.labels[page.names.index("new\nline\x1b[31m")] == "new\u240aline\u241b[31m"
    assert b"\x1b" not in body
    assert "\u202e".encode() not in body


def test_a_listing(ask: Ask, root: Path, read_page: Any) -> None:
    (root / "Apple.txt").write_bytes(b"x" * 1234)
    (root / "zoo").mkdir()
    os.utime(root / "Apple.txt", (CHANGED, CHANGED))
    answer = ask("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert read_page(answer.body).names == ["sub/", "zoo/", "Apple.txt", "file.txt"]
    assert b"<td>1.2 kB</td><td>1994-11-06 08:49</td>" in answer.body
    assert b"2 folders, 2 files, 1.2 kB" in answer.body
    assert read_page(ask("/sub/deep/").body).names == ["../"]
    assert read_page(ask("/sub/deep/..").body).names == ["../", "deep/", "inner.txt"]


def test_an_empty_root(tmp_path: Path, serve: Any, asker: Any) -> None:
    ask = asker(serve(StaticFiles(tmp_path)))
    assert b"Nothing here yet" in ask("/").body
    tmp_path.rmdir()
    assert (ask("/").status, ask("/x").status) == (404, 404)
    tmp_path.mkdir()
    assert ask("/").status == 200


def test_a_folder_with_more_names_than_a_page(
    ask: Ask, root: Path, read_page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evhttp._static.listing._MOST", 3)
    for name in "dcba":
        (root / "sub" / "deep" / name).touch()
    body = ask("/sub/deep/").body
    assert b"the first 3 of 4 names" in body
    assert read_page(body).names == ["../", "a", "b", "c"]
