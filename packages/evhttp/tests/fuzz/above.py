"""Fuzz targets of what is above the C parsers: each is a function of bytes, and raises where its invariant does not hold.

``nox -s fuzz -- TARGET SECONDS`` gives them to atheris, which looks for inputs that reach new code (see ``run.py``);
``test_fuzz.py`` gives them their corpus, and mutations of it.

The targets with a server feed it by a socket pair and run its loop themselves, so that an input takes no time but its own.
"""

from __future__ import annotations

import atexit
import gzip
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from evhttp import BodyError, Limits, Multipart, Request, Response, ResponseParser, Server, StaticFiles
from evhttp._conditional import ETag, Validators, parse_etags, precondition, range_applies
from evhttp._dates import format_date, parse_date
from evhttp._fields import Headers
from evhttp._forms import MultipartReader
from evhttp._ranges import RangeNotSatisfiable, parse_ranges

__all__ = ["TARGETS", "Broken", "close"]


class Broken(Exception):
    """An invariant does not hold; the message says which."""


def expect(holds: object, what: str) -> None:
    """Raise where it does not."""
    if not holds:
        raise Broken(what)


# -- Range ---------------------------------------------------------------------------------------------------------------

_SIZES = (0, 1, 2, 63, 200, 1000, 4096, 1 << 40)
_NEAR = 128  # parts that are closer than this may be made one


def _asked(text: str, size: int) -> list[range] | None:
    """Range as a second reading of RFC 9110 §14.1.2 has it: what is asked for and there, or ``None`` for what is no range."""
    if not text.lower().startswith("bytes="):
        return None
    found = []
    for spec in text[6:].split(","):
        spec = spec.strip(" \t")
        if not spec:
            continue
        if not re.fullmatch(r"[0-9]+-[0-9]*|-[0-9]+", spec):
            return None
        first, _, last = spec.partition("-")
        if not first:
            found.append(range(max(0, size - int(last)), size))
        elif last and int(last) < int(first):
            return None
        else:
            found.append(range(int(first), min(size, int(last) + 1) if last else size))
    return found or None


def ranges(data: bytes) -> None:
    """Range: parts within the representation, in no one's way; all that was asked for, and no more than gaps besides."""
    if not 1 <= len(data) <= 512:
        return
    size = _SIZES[data[0] % len(_SIZES)]
    text = data[1:].decode("latin-1")
    asked = _asked(text, size)
    try:
        parts = parse_ranges([text], size)
    except RangeNotSatisfiable:
        expect(asked is not None and not any(asked), "416 for a range that is there, or that is none")
        return
    if parts is None:
        # It may be ignored: what is none, too many, and a part of nothing.
        expect(asked is None or size == 0 or text.count(",") >= 32, "a range was ignored")
        return
    expect(asked is not None, "a part for what is no range")
    assert asked is not None
    expect(parts and len(parts) <= 32, "no parts, or too many")
    expect(all(0 <= start < end <= size for start, end in parts), "a part outside")
    in_order = sorted(parts)
    gaps = [after.start - before.end for before, after in pairwise(in_order)]
    expect(all(gap > _NEAR for gap in gaps), "parts that overlap, or nearly")
    wanted = [each for each in asked if each]
    for each in wanted:
        expect(any(start <= each.start and each.stop <= end for start, end in parts), "a part is missing")
    if size <= 4096:
        given = {at for start, end in parts for at in range(start, end)}
        lone = given.difference(*wanted)
        expect(
            all(any(each.stop <= at < each.stop + _NEAR for each in wanted) for at in lone), "more than was asked for"
        )


# -- conditions ----------------------------------------------------------------------------------------------------------

_CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range")
_CURRENT = (
    Validators(),
    Validators(exists=False),
    Validators(ETag("a"), 784111777),
    Validators(ETag("a", weak=True), 784111777),
    Validators(ETag("")),
)
_NOW = 1.7e9


class _Fields:
    """Header fields of the lines of an input: the first byte of each says which field it is."""

    def __init__(self, lines: list[bytes]) -> None:
        self._values: dict[str, list[str]] = {}
        for line in lines:
            if line:
                name = _CONDITIONS[line[0] % len(_CONDITIONS)]
                self._values.setdefault(name, []).append(line[1:].decode("latin-1").strip(" \t"))

    def get_all(self, name: str) -> list[str]:
        return self._values.get(name, [])


def conditions(data: bytes) -> None:
    """If-Match and the like: one of three answers; tags and dates that were read are written as they are read again."""
    if not 2 <= len(data) <= 512:
        return
    current = _CURRENT[data[0] % len(_CURRENT)]
    fields = _Fields(data[2:].split(b"\n"))
    method = ("GET", "HEAD", "PUT")[data[1] % 3]
    outcome = precondition(method, fields, current, _NOW)
    expect(outcome in (200, 304, 412) and (outcome != 304 or method != "PUT"), "another answer")
    range_applies(fields, current, _NOW)
    for name in _CONDITIONS:
        for value in fields.get_all(name):
            tags = parse_etags(value)
            if isinstance(tags, list):
                expect(
                    parse_etags(", ".join(map(str, tags))) == tags, "entity tags that are not read as they are written"
                )
            date = parse_date(value, _NOW)
            if date is not None and 0 <= date < 1 << 33:
                expect(parse_date(format_date(date), _NOW) == date, "a date that is not read as it is written")


# -- forms ---------------------------------------------------------------------------------------------------------------


@cache
def _scratch() -> Path:
    """A folder for everything that the targets write."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "form").mkdir()
    (folder / "file").write_bytes(b"file" * 100)
    return folder


_TYPES = (
    "multipart/form-data; boundary=b",
    'multipart/form-data; boundary="b"',
    "multipart/form-data; charset=utf-8; boundary=bb",
    "multipart/form-data; boundary=" + "b" * 70,
)
_WIDE = {"max_parts": 50, "max_field_size": 1000, "max_file_size": 10_000, "max_header_size": 500}
_NARROW = {"max_parts": 3, "max_field_size": 8, "max_file_size": 16, "max_header_size": 60}
_NO_NAME = re.compile(r"[/\\\x00-\x1f\x7f]")


def _form(kind: str, pieces: list[bytes], limits: dict[str, int]) -> object:
    folder = _scratch() / "form"
    try:
        reader = MultipartReader(kind, folder=folder, **limits)
        for piece in pieces:
            reader.feed(piece)
        form = reader.finish()
    except BodyError as error:
        expect(error.status in (400, 413, 415), "a form was refused with another status")
        expect(os.listdir(folder) == [], "something is left of a form that was refused")
        return error.status
    with form:
        found = [(each.name, each.filename, each.content_type, _content(each.path, each.size)) for each in form.files]
        _check_form(form, limits)
        answer = (form.fields.items(), found)
    expect(os.listdir(folder) == [], "something is left of a form that was closed")
    return answer


def _content(path: str, size: int) -> bytes:
    expect(os.stat(path).st_mode & 0o777 == 0o600, "a file that others may read")
    content = Path(path).read_bytes()
    expect(len(content) == size, "a file of another size")
    return content


def _check_form(form: Multipart, limits: dict[str, int]) -> None:
    fields = form.fields.items()
    expect(len(fields) + len(form.files) <= limits["max_parts"], "too many parts")
    expect(all(len(value.encode()) <= limits["max_field_size"] for _, value in fields), "a field that is too large")
    for each in form.files:
        expect(each.size <= limits["max_file_size"], "a file that is too large")
        expect(each.filename not in ("", ".", "..") and not _NO_NAME.search(each.filename), "a name that is none")


def multipart(data: bytes) -> None:
    """A multipart body: the same form, or a refusal, however it was cut; nothing stays on disk."""
    if not 2 <= len(data) <= 4096:
        return
    kind, limits, body = _TYPES[data[0] >> 1 & 3], _NARROW if data[0] & 1 else _WIDE, data[2:]
    whole = _form(kind, [body], limits)
    cut = data[1] % (len(body) + 1)
    expect(_form(kind, [body[:cut], body[cut:]], limits) == whole, "a form that was cut in two is another one")
    step = 1 if len(body) <= 400 else 1 + data[1] % 61
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    expect(_form(kind, pieces, limits) == whole, "a form that came in small pieces is another one")


# -- servers -------------------------------------------------------------------------------------------------------------

_SECRET = b"this must not get out"
_TURNS = 2000  # more than any input needs


class _Log(logging.Handler):
    """Whatever is worth a warning is a finding."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


_harnesses: list[_Harness] = []


class _Harness:
    """A server, and clients that send it bytes and then end their side."""

    def __init__(self, handler: Callable[[Request, Response], object], *, limits: Limits, stream_bodies: bool) -> None:
        self.log = _Log()
        self._handler = handler
        for name in ("evhttp", "evloop", "evnet"):
            logging.getLogger(name).addHandler(self.log)
        self.server = Server(handler, limits=limits, stream_bodies=stream_bodies, measure=True)
        _harnesses.append(self)

    def close(self) -> None:
        """End the server."""
        for name in ("evhttp", "evloop", "evnet"):
            logging.getLogger(name).removeHandler(self.log)
        self.server.abort()
        self.server.loop.close()
        if isinstance(self._handler, StaticFiles):
            self._handler.close()

    def exchange(self, *pieces: bytes) -> bytes:
        """Send the pieces, a turn between each, and return what comes back up to the end of the connection."""
        ours, theirs = socket.socketpair()
        loop = self.server.loop
        got = bytearray()
        with ours:
            ours.setblocking(False)
            self.server.adopt(theirs)
            waiting = [piece for piece in pieces if piece]
            for _ in range(_TURNS):
                if waiting:
                    try:
                        sent = ours.send(waiting[0])
                    except BlockingIOError:
                        sent = 0
                    except (BrokenPipeError, ConnectionResetError):
                        waiting.clear()
                        sent = 0
                    else:
                        waiting[0] = waiting[0][sent:]
                        if not waiting[0]:
                            del waiting[0]
                    if not waiting:
                        ours.shutdown(socket.SHUT_WR)
                loop.run_once(0)
                try:
                    while more := ours.recv(1 << 16):
                        got += more
                    break
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    break
            else:
                raise Broken("the connection does not end")
        for _ in range(_TURNS):
            if not self.server.connections:
                break
            loop.run_once(0)
        else:
            raise Broken("a connection that has ended is still counted")
        expect(not self.log.said, f"logged: {self.log.said}")
        return bytes(got)


def _answers(raw: bytes, method: str) -> list[tuple[int, Headers, bytes]]:
    """Read answers as a client does; that it can is the first invariant."""
    found = []
    parser = ResponseParser(method, limits=Limits(max_body_size=1 << 24, max_header_section=100_000))
    complete = parser.feed(raw) or parser.feed_eof()
    while complete:
        found.append((parser.status_code, parser.headers, parser.body))
        complete = parser.reset(method) or bool(parser.remaining and parser.feed_eof())
    expect(parser.error is None, f"an answer that is none: {parser.error}")
    return found


_CONTENTS = {
    "a.txt": b"0123456789" * 10,
    "empty": b"",
    "sub/index.html": b"<p>index",
    "sub/b.js": b"let b = 1;\n" * 30,
    "sub/\N{LATIN SMALL LETTER U WITH DIAERESIS} %2e.txt": b"odd",
    "large.bin": bytes(range(256)) * 400,
}


@cache
def _site() -> _Harness:
    """A folder with what may go wrong in it: secrets beside it and above it, hidden names, links in and out."""
    top = _scratch()
    root = top / "root"
    for folder in (root / "sub", root / ".git", top / "root2"):
        folder.mkdir(parents=True)
    for secret in (top / "secret.txt", top / "root2" / "secret.txt", root / ".hidden", root / ".git" / "config"):
        secret.write_bytes(_SECRET)
    for name, content in _CONTENTS.items():
        (root / name).write_bytes(content)
        os.utime(root / name, (1e9, 1e9))
    (root / "sub" / "b.js.gz").write_bytes(gzip.compress(_CONTENTS["sub/b.js"]))
    for name, to in (("inside", "sub"), ("outside", ".."), ("secret", "../secret.txt"), ("circle", "circle")):
        (root / name).symlink_to(to)
    (root / "absolute").symlink_to(top / "secret.txt")
    os.mkfifo(root / "pipe")
    files = StaticFiles(root, cors=["https://a.example"], cache_control="no-cache")
    return _Harness(files, limits=Limits(max_request_line=2000), stream_bodies=False)


_STATIC_STATUS = frozenset(
    (200, 204, 206, 301, 302, 307, 308, 304, 400, 403, 404, 405, 412, 413, 414, 416, 417, 421, 431, 501, 505)
)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def static(data: bytes) -> None:
    """Names and header fields to a folder: nothing from outside it, no error of ours, and of files what they hold."""
    if not 1 <= len(data) <= 2048:
        return
    target, *lines = data[1:].split(b"\n")
    method = (b"GET", b"HEAD", b"OPTIONS", b"POST")[data[0] & 3]
    raw = _site().exchange(b"\r\n".join((method + b" " + target + b" HTTP/1.1", b"Host: a", *lines, b"", b"")))
    expect(_SECRET not in raw, "a secret got out")
    if b"" in lines or b"\r" in data:  # it may have become several requests, of other methods
        return
    for status, headers, body in _answers(raw, method.decode()):
        expect(status in _STATIC_STATUS, f"status {status}")
        if method == b"GET" and status in (200, 206) and "etag" in headers:
            _check_content(status, headers, body)


def _check_content(status: int, headers: Headers, body: bytes) -> None:
    if headers.get("content-encoding") == "gzip":
        expect(status == 206 or gzip.decompress(body) in _CONTENTS.values(), "a coded file that holds something else")
    elif status == 200:
        expect(body in _CONTENTS.values(), "a file that holds something else")
    elif found := _CONTENT_RANGE.fullmatch(headers.get("content-range", "")):
        first, last, size = map(int, found.groups())
        parts = [each[first : last + 1] for each in _CONTENTS.values() if len(each) == size]
        expect(body in parts, "a part that holds something else")
    else:
        expect(headers.get("content-type", "").startswith("multipart/byteranges"), "a 206 without Content-Range")


def _application(req: Request, res: Response) -> None:
    """What handlers do, by the path's second character."""
    what = req.path[1:2]
    if what == "w":
        res.header("X-A", "b")
        for _ in range(3):
            res.write(b"piece")
        res.end(b"last", trailers=[("X-T", "u")])
    elif what == "l":
        res.defer()
        res._server.loop.call_soon(res.send, "later")
    elif what == "b":
        res.begin(6).write("abc")
        res.end("def")
    elif what == "i":
        res.inform(103, [("Link", "</a>")]).send("informed")
    elif what == "r":
        got: list[bytes] = []
        res.defer()

        def end(error: BodyError | None) -> None:
            if error is None:
                res.send(b"".join(got))
            else:
                res.status(error.status).close_connection().send(b"refused")

        req.read_body(got.append, end)
    elif what == "m":
        res.defer()

        def on_end(form: Multipart | None, error: Exception | None) -> None:
            if form is None:
                assert error is not None
                raise error
            res.send(repr(form.fields.items()))

        req.read_multipart(on_end, folder=_scratch() / "form", **_WIDE)
    elif what == "d":
        res.drop()
    elif what == "c":
        res.close_connection().send(req.query.get("q", "-"))
    elif what == "f":
        res.send_file(_scratch() / "file")
    else:
        res.send(repr(req.headers.items()))


@cache
def _applications() -> list[_Harness]:
    wide = Limits(max_body_size=100_000)
    narrow = Limits(
        max_request_line=60, max_header_section=200, max_headers=8, max_body_size=40, max_chunk_line=16, max_trailers=20
    )
    return [_Harness(_application, limits=each, stream_bodies=on) for each in (wide, narrow) for on in (False, True)]


# What may differ: a client that has ended its side before it is answered is told that this is the end.
_VARYING = re.compile(rb"\r\n(?:Date: [^\r]*|Connection: close)")


def server(data: bytes) -> None:
    """A connection's bytes to a server: answers that can be read, whatever came; the same ones however it was cut."""
    if not 3 <= len(data) <= 4096:
        return
    harness, sent = _applications()[data[0] & 3], data[2:]
    whole = harness.exchange(sent)
    cut = data[1] % (len(sent) + 1)
    split = harness.exchange(sent[:cut], sent[cut:])
    whole, split = _VARYING.sub(b"", whole), _VARYING.sub(b"", split)
    # What was dropped or refused may be reset before what came first has been read; never is it something else.
    expect(
        whole.startswith(split) or split.startswith(whole), "the same bytes in two packets are answered in another way"
    )
    _answers(whole, "GET") if b"HEAD" not in sent and b"CONNECT" not in sent else None


def close() -> None:
    """Close what the targets have open, and remove what they have written."""
    while _harnesses:
        _harnesses.pop().close()
    for made in (_site, _applications):
        made.cache_clear()
    shutil.rmtree(_scratch())
    _scratch.cache_clear()


TARGETS: dict[str, Callable[[bytes], Any]] = {
    "ranges": ranges,
    "conditions": conditions,
    "multipart": multipart,
    "static": static,
    "server": server,
}
