"""No path leaves the root: what is asked for in other ways, what links lead to, and what changes in between."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evhttp import StaticFiles

Ask = Callable[..., Any]  # conftest.py says what it takes and returns
SECRET = b"the secret outside"
NEEDS_USER = pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")

# {up} is enough levels to reach the system's root.
ATTACKS = [
    ("dot-dot", "/../secret", 403),
    ("dot-dot within", "/sub/../../secret", 403),
    ("dot-dot to the sibling with our prefix", "/../root-sibling/secret", 403),
    ("dot-dot many", "/{up}etc/passwd", 403),
    ("dot-dot behind what is missing", "/none/../../secret", 403),
    ("dot-dot at the end", "/..", 403),
    ("dot-dot back into the root", "/../root/file.txt", 403),
    ("encoded dots", "/%2e%2e/secret", 403),
    ("encoded dots, capitals", "/%2E./secret", 403),
    ("encoded slash", "/..%2fsecret", 403),
    ("encoded slash behind a folder", "/sub%2f..%2f..%2fsecret", 403),
    ("encoded slash, no climbing", "/sub%2finner.txt", 404),
    ("all encoded", "/%2e%2e%2fsecret", 403),
    ("double encoding", "/%252e%252e/secret", 404),
    ("double encoded slash", "/..%252fsecret", 404),
    ("backslash", "/..\\secret", 403),
    ("encoded backslash", "/sub\\..%5c..%5csecret", 403),
    ("overlong UTF-8 dots", "/%c0%ae%c0%ae/secret", 404),
    ("overlong UTF-8 slash", "/..%c0%afsecret", 404),
    ("three dots", "/.../secret", 404),
    ("dots and a semicolon", "/..;/secret", 404),
    ("NUL", "/file.txt%00.html", 400),
    ("NUL behind dots", "/..%00/secret", 400),
    ("half of an escape", "/file%2", 400),
    ("no escape", "/%zz", 400),
    ("absolute path", "//etc/passwd", 404),
    ("absolute form", "http://a/../secret", 403),
    ("absolute form, encoded", "http://a/%2e%2e/secret", 403),
    ("hidden file", "/.hidden", 404),
    ("hidden file, encoded", "/%2ehidden", 404),
    ("in a hidden folder", "/.git/config", 404),
    ("hidden folder", "/.git/", 404),
    ("hidden by a detour", "/sub/../.hidden", 404),
    ("file as a folder", "/file.txt/", 404),
    ("below a file", "/file.txt/x", 404),
    ("above a file", "/file.txt/../../secret", 403),
    ("too long a name", "/" + "a" * 300, 404),
    ("too long a path", "/" + "a/" * 2500, 404),
]


@pytest.mark.parametrize(("target", "status"), [pytest.param(*row[1:], id=row[0]) for row in ATTACKS])
def test_attack(ask: Ask, root: Path, target: str, status: int) -> None:
    answer = ask(target.replace("{up}", "../" * len(root.parts)))
    assert answer.status == status
    assert SECRET not in answer.body


LINKS = [
    ("to a file inside", "file.txt", 200),
    ("by a detour inside", "sub/../file.txt", 200),
    ("absolute, inside", "{root}/file.txt", 200),
    ("to a link", "other", 200),
    ("outside", "../secret", 403),
    ("absolute, outside", "{root}/../secret", 403),
    ("to the sibling with our prefix", "{root}-sibling/secret", 403),
    ("to a link outside", "leaves", 403),
    ("through a folder that leads outside", "up/secret", 403),
    ("to nothing", "none", 404),
    ("to itself", "link", 403),
    ("above the system's root", "../" * 60 + "etc/passwd", 403),
    ("to a device", "/dev/zero", 403),
    ("to this process", "/proc/self/root/etc/passwd", 403),
]


@pytest.mark.parametrize(("target", "status"), [pytest.param(*row[1:], id=row[0]) for row in LINKS])
def test_link(ask: Ask, root: Path, target: str, status: int, read_page: Any) -> None:
    (root / "link").symlink_to(target.format(root=root))
    (root / "other").symlink_to("file.txt")
    (root / "leaves").symlink_to("../secret")
    (root / "up").symlink_to("..")
    answer = ask("/link")
    assert answer.status == status
    assert answer.body == b"a file\n" if status == 200 else SECRET not in answer.body
    assert ("link" in read_page(ask("/").body).names) == (status == 200)


def test_links_to_folders(ask: Ask, root: Path, read_page: Any) -> None:
    (root / "inside").symlink_to("sub")
    (root / "sub" / "top").symlink_to("../..//root/sub/..")
    (root / "sub" / "back").symlink_to("deep/../..")
    (root / "here").symlink_to(root)
    (root / "out").symlink_to("..")
    assert ask("/inside/inner.txt").body == b"an inner file\n"
    assert ask("/inside").headers["location"] == "./inside/"
    assert ask("/inside/back/file.txt").body == b"a file\n"
    assert ask("/here/here/here/file.txt").body == b"a file\n"
    # It goes above the root, though it comes back: whoever may rename the root's folder must not decide what is found.
    assert ask("/sub/top/file.txt").status == 403
    assert [ask(target).status for target in ("/out", "/out/", "/out/secret", "/out/root/file.txt")] == [403] * 4
    assert "file.txt" in read_page(ask("/here/").body).names
    assert "file.txt" in read_page(ask("/sub/back/").body).names


def test_a_root_that_is_reached_by_a_link(root: Path, serve: Any, asker: Any) -> None:
    (root.parent / "current").symlink_to("root")
    (root / "link").symlink_to(root / "file.txt")
    ask = asker(serve(StaticFiles(root.parent / "current")))
    assert ask("/link").body == b"a file\n"
    assert ask("/../secret").status == 403
    (root.parent / "next").mkdir()
    (root.parent / "next" / "file.txt").write_text("the next version\n")
    (root.parent / "new").symlink_to("next")
    (root.parent / "new").rename(root.parent / "current")
    assert ask("/file.txt").body == b"the next version\n"


def test_names_that_change_during_the_walk(root: Path, serve: Any, asker: Any) -> None:
    """A folder and a file swapped for links as fast as can be: either what is inside is served, or nothing."""
    (root / "sub" / "secret").write_text("harmless\n")
    handler = StaticFiles(root)
    servers = [serve(handler) for _ in range(2)]
    done = threading.Event()

    def swap() -> None:
        for number in range(1 << 30):
            if done.is_set():
                return
            (root / "new").symlink_to("..") if number % 2 else (root / "new").symlink_to("sub")
            (root / "new").rename(root / "folder")
            (root / "new").symlink_to("../secret") if number % 3 else (root / "new").write_text("harmless\n")
            (root / "new").rename(root / "name")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        statuses = set()
        for number in range(400):
            answer = asker(servers[number % 2])(("/folder/secret", "/name")[number // 2 % 2])
            assert answer.body == b"harmless\n" if answer.status == 200 else SECRET not in answer.body
            statuses.add(answer.status)
    finally:
        done.set()
        swapper.join()
    assert statuses <= {200, 403, 404}


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_is_refused_and_does_not_block(ask: Ask, root: Path, kind: str, read_page: Any) -> None:
    if kind == "pipe":
        os.mkfifo(root / "odd")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(root / "odd"))
    else:
        try:
            os.mknod(root / "odd", 0o20666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root makes devices")
    assert ask("/odd").status == 403
    assert "odd" not in read_page(ask("/").body).names
    (root / "odd").rename(root / "index.html")
    assert ask("/").status == 403 if kind == "socket" else ask("/").status == 200


@NEEDS_USER
def test_what_may_not_be_read(ask: Ask, root: Path) -> None:
    (root / "file.txt").chmod(0)
    assert ask("/file.txt").status == 403
    (root / "sub").chmod(0o111)
    assert ask("/sub/").status == 403
    assert ask("/sub").status == 301
    assert ask("/sub/inner.txt").status == 200
    (root / "sub").chmod(0)
    assert ask("/sub/inner.txt").status == 403
    (root / "sub").chmod(0o755)
