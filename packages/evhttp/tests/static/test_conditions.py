"""Files with conditions, ranges, codings and origins, as `StaticFiles` and `Response.serve_file` answer them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evhttp import Request, Response, StaticFiles
from evhttp._static.cache import OpenFiles
from evhttp._static.root import Refused, Root

Ask = Callable[..., Any]  # conftest.py says what it takes and returns
OLD = 784111777  # RFC 9110 §5.6.7's example
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
TEN = b"0123456789"
LARGE = bytes(range(256)) * 256  # not kept in memory


@pytest.fixture(params=["StaticFiles", "serve_file"])
def ten(request: pytest.FixtureRequest, root: Path, serve: Any, asker: Any) -> Ask:
    """Asks for a file of ten bytes, and one of 64 KiB, both old."""
    for name, content in (("ten.txt", TEN), ("large.bin", LARGE)):
        (root / name).write_bytes(content)
        os.utime(root / name, (OLD, OLD))

    def handler(req: Request, res: Response) -> None:
        res.serve_file(req, f"{root}{req.path}")

    return asker(serve(StaticFiles(root) if request.param == "StaticFiles" else handler))  # type: ignore[no-any-return]


def test_validators(ten: Ask) -> None:
    for name, content in (("/ten.txt", TEN), ("/large.bin", LARGE)):
        first, second = ten(name), ten(name)
        assert first.body == content
        assert re.fullmatch(r'"[0-9a-f]+-[0-9a-f]+-[0-9a-f]+"', first.headers["etag"])
        assert first.headers["last-modified"] == DATE
        assert first.headers["accept-ranges"] == "bytes"
        assert first.headers["etag"] == second.headers["etag"]


def test_conditions(ten: Ask) -> None:
    etag = ten("/ten.txt").headers["etag"]
    for fields, status in (
        ({"If_None_Match": etag}, 304),
        ({"If_None_Match": f"W/{etag}"}, 304),
        ({"If_None_Match": '"x"'}, 200),
        ({"If_Match": etag}, 200),
        ({"If_Match": '"x"'}, 412),
        ({"If_Modified_Since": DATE}, 304),
        ({"If_Unmodified_Since": "Sun, 06 Nov 1994 08:49:36 GMT"}, 412),
        ({"If_Match": '"x"', "If_None_Match": etag}, 412),
    ):
        for method in ("GET", "HEAD"):
            answer = ten("/ten.txt", method, **fields)
            assert (fields, answer.status) == (fields, status)
            if status == 304:
                # RFC 9110 §15.4.5: these MUST be there, and nothing about a content that is not sent.
                assert answer.headers["etag"] == etag
                assert "content-type" not in answer.headers and "content-length" not in answer.headers
                assert answer.body == b""


@pytest.mark.parametrize(("name", "content"), [("/ten.txt", TEN), ("/large.bin", LARGE)])
def test_one_range(ten: Ask, name: str, content: bytes) -> None:
    size = len(content)
    for value, start, end in (
        ("0-0", 0, 1),
        ("2-4", 2, 5),
        ("5-", 5, size),
        ("-3", size - 3, size),
        ("7-99999999", 7, size),
    ):
        answer = ten(name, Range=f"bytes={value}")
        assert (answer.status, answer.body) == (206, content[start:end])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.headers["content-length"] == str(end - start)
        assert "etag" in answer.headers
    answer = ten(name, Range=f"bytes={size}-")
    assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{size}")
    assert ten(name, Range="bytes=5-4").status == 200
    head = ten(name, "HEAD", Range="bytes=0-0")
    assert (head.status, head.headers["content-length"]) == (200, str(size)), "RFC 9110 §14.2: for GET alone"


def test_several_ranges(ten: Ask) -> None:
    answer = ten("/large.bin", Range="bytes=1000-1004,0-2,-2")
    assert answer.status == 206
    assert "content-range" not in answer.headers
    boundary = re.fullmatch("multipart/byteranges; boundary=([0-9a-f]{32})", answer.headers["content-type"])
    assert boundary is not None
    empty, *parts, end = answer.body.split(b"\r\n--" + boundary[1].encode())
    assert (empty, end) == (b"", b"--\r\n")
    for part, (start, stop) in zip(parts, ((1000, 1005), (0, 3), (65534, 65536)), strict=True):
        head, _, content = part.partition(b"\r\n\r\n")
        assert head.decode().split("\r\n")[1:] == [
            "Content-Type: application/octet-stream",
            f"Content-Range: bytes {start}-{stop - 1}/65536",
        ]
        assert content == LARGE[start:stop]
    answer = ten("/large.bin", Range="bytes=0-5,6-9")
    assert (answer.status, answer.headers["content-range"]) == (206, "bytes 0-9/65536"), "made one"


def test_several_ranges_that_are_too_much_for_memory(ten: Ask, root: Path) -> None:
    with open(root / "huge", "wb") as file:
        file.truncate(3 << 20)
    answer = ten("/huge", Range="bytes=0-1000000,2000000-3000000")
    assert (answer.status, len(answer.body)) == (200, 3 << 20)


def test_if_range(ten: Ask) -> None:
    etag = ten("/ten.txt").headers["etag"]
    for value, status in (
        (etag, 206),
        (DATE, 206),
        ('"x"', 200),
        (f"W/{etag}", 200),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
    ):
        assert ten("/ten.txt", Range="bytes=0-1", If_Range=value).status == status
    assert ten("/ten.txt", Range="bytes=0-1", If_Range=etag, If_None_Match=etag).status == 304


def test_a_file_just_written_has_a_weak_tag(ask: Ask, root: Path) -> None:
    now = time.time() + 100  # surely not a second ago, however long the test takes
    os.utime(root / "file.txt", (now, now))
    etag = ask("/file.txt").headers["etag"]
    assert etag.startswith('W/"')
    assert ask("/file.txt", If_None_Match=etag).status == 304
    assert ask("/file.txt", If_Match=etag).status == 412
    assert ask("/file.txt", Range="bytes=0-1", If_Range=etag).status == 200


def test_serve_file(root: Path, serve: Any, asker: Any) -> None:
    (root / "n\u00e4me").write_text("x")

    def handler(req: Request, res: Response) -> None:
        if req.path == "/attachment":
            res.serve_file(req, root / "n\u00e4me", attachment=True, cache_control="no-store")
        elif req.path == "/named":
            res.serve_file(req, root / "file.txt", attachment="other.txt", content_type="text/x")
        elif req.path == "/sent":
            res.send_file(root / "file.txt", attachment="sent.txt")
        else:
            for bad, error in ((root, ValueError), (root / "none", FileNotFoundError), ("/dev/null", ValueError)):
                with pytest.raises(error):
                    res.serve_file(req, bad)
            with pytest.raises(ValueError, match="a file name was expected"):
                res.send_file(root / "file.txt", attachment="..")
            res.send("fine")

    ask = asker(serve(handler))
    answer = ask("/attachment")
    assert answer.headers["content-disposition"] == "attachment; filename=\"n_me\"; filename*=UTF-8''n%C3%A4me"
    assert answer.headers["cache-control"] == "no-store"
    answer = ask("/named")
    assert (answer.headers["content-disposition"], answer.headers["content-type"]) == (
        'attachment; filename="other.txt"',
        "text/x",
    )
    assert ask("/sent").headers["content-disposition"] == 'attachment; filename="sent.txt"'
    assert ask("/").body == b"fine"


# -- codings -------------------------------------------------------------------------------------------------------------------


def test_precompressed_siblings(root: Path, serve: Any, asker: Any) -> None:
    for name in ("a.js", "b.js"):
        (root / name).write_bytes(b"plain")
        os.utime(root / name, (OLD, OLD))
    (root / "a.js.br").write_bytes(b"brotli")
    (root / "a.js.gz").write_bytes(b"gzip" * 20000)
    (root / "b.js.gz").write_bytes(b"older")
    os.utime(root / "b.js.gz", (OLD - 1, OLD - 1))
    ask = asker(serve(StaticFiles(root)))
    tags = set()
    for accept, coding, body in (
        ("gzip, br", "br", b"brotli"),
        ("gzip", "gzip", b"gzip" * 20000),
        ("zstd", None, b"plain"),
        ("br;q=0", None, b"plain"),
    ):
        answer = ask("/a.js", Accept_Encoding=accept)
        assert (answer.headers.get("content-encoding"), answer.body) == (coding, body)
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["vary"] == "Accept-Encoding"
        tags.add(answer.headers["etag"])
        assert (
            ask("/a.js", Accept_Encoding=accept, If_None_Match=answer.headers["etag"]).headers["vary"]
            == "Accept-Encoding"
        )
    assert len(tags) == 3, "each coding is a representation of its own (RFC 9110 §8.8.3.3)"
    answer = ask("/b.js", Accept_Encoding="gzip")
    assert (answer.body, "vary" in answer.headers) == (b"plain", False), "older than the file: of other content"
    assert ask("/a.js", Accept_Encoding="br", Range="bytes=0-1").body == b"br"
    assert asker(serve(StaticFiles(root, precompressed=False)))("/a.js", Accept_Encoding="br").body == b"plain"


def test_cache_control(root: Path, serve: Any, asker: Any) -> None:
    ask = asker(serve(StaticFiles(root, cache_control="max-age=60")))
    etag = ask("/file.txt").headers["etag"]
    for fields in ({}, {"If_None_Match": etag}, {"Range": "bytes=0-0"}):
        assert ask("/file.txt", **fields).headers["cache-control"] == "max-age=60"
    with pytest.raises(ValueError, match="Cache-Control"):
        StaticFiles(root, cache_control="a\r\nb")


# -- listings and origins --------------------------------------------------------------------------------------------------------


def test_a_listing_for_programs(ask: Ask, root: Path) -> None:
    (root / "a b").write_bytes(b"xyz")
    answer = ask("/", Accept="application/json")
    assert (answer.headers["content-type"], answer.headers["vary"]) == ("application/json", "Accept")
    found = json.loads(answer.body)
    assert found["total"] == 3
    folder, *files = found["entries"]
    assert (folder["name"], folder["type"], folder["url"], "size" in folder) == ("sub", "folder", "sub/", False)
    assert [(each["name"], each["size"], each["url"], each["type"]) for each in files] == [
        ("a b", 3, "a%20b", "file"),
        ("file.txt", 7, "file.txt", "file"),
    ]
    assert abs(files[0]["modified"] - os.stat(root / "a b").st_mtime) < 1
    for accept in ("text/html,application/json", "*/*"):
        assert ask("/", Accept=accept).headers["content-type"] == "text/html; charset=utf-8"


def test_cors(root: Path, serve: Any, asker: Any) -> None:
    ask = asker(serve(StaticFiles(root, cors="*")))
    answer = ask("/file.txt", Origin="https://a")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "Content-Range" in answer.headers["access-control-expose-headers"]
    asked = {"Origin": "https://a", "Access_Control_Request_Method": "GET"}
    answer = ask("/file.txt", "OPTIONS", **asked)
    assert (answer.status, answer.headers["access-control-allow-methods"]) == (204, "GET, HEAD")
    assert "Range" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in ask("/file.txt", "OPTIONS").headers
    ask = asker(serve(StaticFiles(root, cors=["https://a", "http://b:1"])))
    for origin, allowed in (("https://a", True), ("http://b:1", True), ("https://b", False), ("https://a.evil", False)):
        answer = ask("/none", Origin=origin)
        assert (answer.status, answer.headers["vary"]) == (404, "Origin")
        assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
        preflight = ask("/x", "OPTIONS", Origin=origin, Access_Control_Request_Method="GET")
        assert ("access-control-allow-methods" in preflight.headers) == allowed
    assert "access-control-allow-origin" not in asker(serve(StaticFiles(root)))("/file.txt", Origin="https://a").headers
    for bad in (["a"], ["https://a/"], ["https://a b"], "a\r\nb", ["*"]):
        with pytest.raises(ValueError, match="an origin is"):
            StaticFiles(root, cors=bad)


# -- files that are kept open ------------------------------------------------------------------------------------------------------


def open_files(root: Path, **options: Any) -> OpenFiles:
    options = {"most": 3, "seconds": 1.0, "codings": [], "fields": "", **options}
    return OpenFiles(Root(root), **options)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_entries_are_good_for_their_time(root: Path) -> None:
    files = open_files(root)
    first = files.find([b"file.txt"], 10.0, 0.0)
    assert first is not None
    (root / "file.txt").write_text("changed\n")
    assert files.find([b"file.txt"], 10.9, 0.0) is first
    again = files.find([b"file.txt"], 11.0, 0.0)
    assert again is not None and again.variants[0].content.data == b"changed\n"
    (root / "file.txt").unlink()
    assert files.find([b"file.txt"], 11.5, 0.0) is again
    with pytest.raises(Refused):
        files.find([b"file.txt"], 12.0, 0.0)
    assert files.find([b"sub"], 12.0, 0.0) is None


def test_no_more_entries_than_the_bound_and_no_descriptor_left(root: Path) -> None:
    for n in range(6):
        (root / f"l{n}").write_bytes(LARGE)
    before = descriptors()
    files = open_files(root)
    for n in range(6):
        file = files.find([b"l%d" % n], n / 100, 0.0)
        assert file is not None and file.variants[0].fd >= 0
        del file
        assert len(files) == min(n + 1, 3)
        assert descriptors() == before + len(files)
    files.find([b"l0"], 5.0, 0.0)
    assert (len(files), descriptors()) == (1, before + 1), "those whose time is over go first"
    files.forget([b"l0"])
    assert descriptors() == before
    held = files.find([b"l0"], 5.0, 0.0)
    files.clear()
    assert held is not None
    assert os.fstat(held.variants[0].fd).st_size == len(LARGE), "who holds it may use it"
    del held
    assert descriptors() == before
    small = open_files(root).find([b"file.txt"], 0.0, 0.0)
    assert small is not None and descriptors() == before, "a small file needs none"
    assert open_files(root, most=0).find([b"l1"], 0.0, 0.0) is not None
    assert descriptors() == before


def test_a_kept_file_that_became_shorter(root: Path, serve: Any, asker: Any) -> None:
    (root / "large").write_bytes(LARGE)
    ask = asker(serve(StaticFiles(root, cache_seconds=1000.0)))
    assert ask("/large").body == LARGE
    os.truncate(root / "large", 40000)
    assert ask("/large", Range="bytes=0-9").body == LARGE[:10]
    assert ask("/large").body == LARGE[:40000]
    os.truncate(root / "large", 35000)
    assert ask("/large", Range="bytes=0-1,39000-39001").headers["content-range"] == "bytes 0-1/35000"


@pytest.mark.parametrize("options", [{"cache_files": -1}, {"cache_seconds": -1.0}, {"cache_seconds": float("nan")}])
def test_bad_bounds(root: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least 0"):
        StaticFiles(root, **options)


def test_what_was_made_beforehand_is_what_would_be_made(root: Path, serve: Any, asker: Any) -> None:
    """A small file's second answer was made with its first: whatever is asked, it is the same as one made for the request."""
    folder = root / "kept"
    folder.mkdir()
    (folder / "ten.txt").write_bytes(TEN)
    os.utime(folder / "ten.txt", (OLD, OLD))
    kept = StaticFiles(folder, cache_seconds=600, cache_control="max-age=5")
    made = StaticFiles(folder, cache_seconds=0, cache_control="max-age=5")
    ask, ask_made = asker(serve(kept)), asker(serve(made))
    etag = ask("/ten.txt").headers["etag"]
    assert kept._files.recent("/ten.txt", time.monotonic()) is not None
    fields: list[dict[str, str]] = [
        {},
        {"If_None_Match": etag},
        {"If_None_Match": f"W/{etag}"},
        {"If_None_Match": f'"x", {etag}'},
        {"If_None_Match": "*"},
        {"If_None_Match": etag, "If_Match": '"x"'},
        {"If_Match": '"x"', "If_None_Match": etag},
        {"if_none_match": etag, "IF_NONE_MATCH": '"x"'},
        {"If_None_Match": etag, "Range": "bytes=0-1"},
        {"If_None_Match": etag, "If_Modified_Since": DATE},
        {"If_Modified_Since": DATE},
        {"Range": "bytes=0-1"},
        {"Range": "bytes=50-"},
        {"Range": "bytes=0-1", "If_Range": etag},
        {"X_If_": "range:", "Accept_Encoding": "gzip"},
    ]
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        for each in fields:
            first, second = ask("/ten.txt", method, **each), ask_made("/ten.txt", method, **each)
            for answer in (first, second):
                answer.headers.pop("date")
            assert first == second, (method, each)
    assert ask("/ten.txt?query").body == TEN
    kept.close()
    assert kept._files.recent("/ten.txt", time.monotonic()) is None


def test_few_paths_are_remembered(root: Path) -> None:
    for number in range(5):
        (root / f"{number}.txt").write_bytes(TEN)
    files = OpenFiles(Root(root), most=3, seconds=10, codings=[], fields="")
    for number in range(5):
        name = f"{number}.txt"
        file = files.find([name.encode()], 1.0, time.time())
        assert file is not None
        files.remember(f"/{name}", file)
        assert files.recent(f"/{name}", 2.0) is file.swift
        assert sum(files.recent(f"/{each}.txt", 2.0) is not None for each in range(5)) <= 3
    assert files.recent("/4.txt", 11.0) is None
    assert files.recent("/4.txt", 2.0) is None, "what is too old is let go"
