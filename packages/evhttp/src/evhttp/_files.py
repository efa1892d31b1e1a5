"""A file as the answer to a request: validators, preconditions, ranges. Which file it is, others decide."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from stat import S_ISREG
from typing import TYPE_CHECKING, NamedTuple

from evhttp._conditional import ETag, Validators, precondition, range_applies
from evhttp._dates import format_date
from evhttp._disposition import attachment as disposition
from evhttp._media import media_type
from evhttp._ranges import ByteRange, RangeNotSatisfiable, parse_ranges

if TYPE_CHECKING:
    from evhttp._request import Request
    from evhttp._response import Response

__all__ = ["SMALL", "FileShrunk", "Representation", "Swift", "answer", "describe", "read_part", "serve_path"]

# Up to this size a file's content may be kept beside its descriptor, or instead of it.
SMALL = 32 * 1024

# The parts of several ranges are gathered in memory, up to here; who asks for more gets the whole file instead, which §14.2 allows.
_PARTS_MOST = 1 << 20


class FileShrunk(OSError):
    """A file became shorter since it was described. Nothing has been sent, nor has the response been changed."""

    def __init__(self) -> None:
        super().__init__("the file became shorter while it was to be sent")


class Representation(NamedTuple):
    """What a file's content is, as far as an answer needs it.

    Attributes:
        size: In bytes.
        validators: Its entity tag and date.
        kind: Its media type.
        fields: Header lines of a 200 or 206, each with its CRLF, without those of ranges; Content-Type comes first.
        validator_fields: Those of them that a 304 has too (RFC 9110 §15.4.5).
        data: The content itself, if it is at hand.
    """

    size: int
    validators: Validators
    kind: str
    fields: str
    validator_fields: str
    data: bytes | None = None


class Swift:
    """The two commonest answers with a small file, made beforehand: the whole of it, and that the client has it.

    Args:
        file: With its content in ``data``.
    """

    __slots__ = ("_body", "_fields", "_tags", "_unchanged")

    def __init__(self, file: Representation) -> None:
        assert file.data is not None
        self._body = file.data
        self._fields = file.fields.encode("latin-1")
        self._unchanged = file.validator_fields.encode("latin-1")
        # As they stand in a request's block of fields (see Headers); weak, too, for who asked when the file was new (§13.1.2: "MUST
        # use the weak comparison").
        tag = file.validators.etag
        opaque = "" if tag is None else tag.opaque
        self._tags = tuple(f'\nif-none-match:{weak}"{opaque}"\n'.encode("latin-1") for weak in ("", "W/"))

    def answer(self, req: Request, res: Response) -> bool:
        """Answer a GET to which nothing was added yet; false for one with a range or conditions that want to be looked at."""
        headers = req.headers
        block, start, end = headers._block, headers._start, headers._end
        condition = block.find(b"\nif-", start, end)
        if condition < 0:
            if block.find(b"\nrange:", start, end) >= 0:
                return False
            res._send_made(200, self._fields, self._body)
            return True
        # The one condition is If-None-Match with this one tag, as caches send it; a 304 does not depend on Range (§13.2.2).
        if not block.startswith(self._tags, condition) or block.find(b"\nif-", condition + 1, end) >= 0:
            return False
        res._send_made(304, self._unchanged, b"")
        return True


def describe(
    status: os.stat_result,
    kind: str,
    now: float,
    *,
    coding: str | None = None,
    more: str = "",
    data: bytes | None = None,
) -> Representation:
    """Describe an open file.

    Args:
        status: Of its descriptor.
        kind: Its media type.
        now: Seconds since the epoch.
        coding: Its content coding.
        more: Header lines that a 304 has as well, such as Cache-Control.
        data: Its content.
    """
    # §8.8.2.1: "An origin server with a clock MUST NOT generate a Last-Modified date that is later than the server's time of
    # message origination (Date, Section 6.6.1)."
    modified = min(int(status.st_mtime), int(now))
    # §8.8.1: a strong validator changes whenever the content does. The kernel's time stamps are as coarse as its tick, so a file
    # that was written in the last second may be written again without its time changing.
    weak = now - status.st_mtime < 1
    etag = ETag(f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}", weak)
    shared = f"ETag: {etag}\r\nLast-Modified: {format_date(modified)}\r\n{more}"
    encoding = f"Content-Encoding: {coding}\r\n" if coding else ""
    fields = f"Content-Type: {kind}\r\n{encoding}{shared}Accept-Ranges: bytes\r\nX-Content-Type-Options: nosniff\r\n"
    return Representation(status.st_size, Validators(etag, modified), kind, fields, shared, data)


def answer(
    req: Request, res: Response, file: Representation, open_: Callable[[], int], read: Callable[[ByteRange], bytes]
) -> None:
    """Answer GET or HEAD with a file, a part of it, or the news that the client has it.

    Args:
        req: The request.
        res: Its response; header lines that it has already are kept.
        file: What is there.
        open_: Returns a descriptor of the file for the response to take over. Called only where the content is not at hand.
        read: Returns a part of the file, shorter only where the file has become so.

    Raises:
        FileShrunk: It has.

    Spec: RFC 9110 §13.2.2, §14.2, §15.3.7.
    """
    headers = req.headers
    now = time.time()
    outcome = precondition(req.method, headers, file.validators, now)
    if outcome == 304:
        add_lines(res.status(304), file.validator_fields)
        res.send()
        return
    if outcome == 412:
        res.status(412).send("412 Precondition Failed\n")
        return
    parts = None
    # §14.2: "A server MUST ignore a Range header field received with a request method that is unrecognized or for which range
    # handling is not defined. For this specification, GET is the only method for which range handling is defined."
    if req.method == "GET" and "range" in headers and range_applies(headers, file.validators, now):
        try:
            parts = parse_ranges(headers.get_all("range"), file.size)
        except RangeNotSatisfiable:
            add_lines(res.status(416), file.validator_fields)
            res.header("Content-Range", f"bytes */{file.size}").send("416 Range Not Satisfiable\n")
            return
    if parts is not None and len(parts) > 1:
        if sum(end - start for start, end in parts) <= _PARTS_MOST:
            _send_parts(res, file, parts, read)
            return
        parts = None
    part = ByteRange(0, file.size) if parts is None else parts[0]
    fd = -1 if file.data is not None else _opened(open_, part.end)
    if parts is not None:
        res.status(206).header("Content-Range", part.content_range(file.size))
    add_lines(res, file.fields)
    if file.data is None:
        res.send_file(fd, offset=part.start, count=part.end - part.start)
    elif parts is None:
        res.send(file.data)
    else:
        res.send(file.data[part.start : part.end])


def _opened(open_: Callable[[], int], least: int) -> int:
    fd = open_()
    if os.fstat(fd).st_size < least:
        os.close(fd)
        raise FileShrunk
    return fd


def _send_parts(
    res: Response, file: Representation, parts: list[ByteRange], read: Callable[[ByteRange], bytes]
) -> None:
    # RFC 2046 §5.1.1: the boundary must not appear in the parts, and who knows it beforehand could make a file that has it.
    boundary = secrets.token_hex(16)
    body = []
    for part in parts:
        head = (
            f"\r\n--{boundary}\r\nContent-Type: {file.kind}\r\nContent-Range: {part.content_range(file.size)}\r\n\r\n"
        )
        content = read(part)
        if len(content) != part.end - part.start:
            raise FileShrunk
        body += [head.encode("latin-1"), content]
    body.append(f"\r\n--{boundary}--\r\n".encode())
    # §15.3.7.2: a Content-Range "MUST NOT" stand in the header section of a response of several parts.
    _, _, others = file.fields.partition("\r\n")
    add_lines(res.status(206), f"Content-Type: multipart/byteranges; boundary={boundary}\r\n{others}")
    res.send(b"".join(body))


def add_lines(res: Response, lines: str) -> None:
    """Add header lines that were made and checked before: `Response.header` would check each of them for every request."""
    res._prepare().append(lines)


def read_part(fd: int, part: ByteRange) -> bytes:
    """Read a part of a file."""
    pieces, at = [], part.start
    while at < part.end and (piece := os.pread(fd, part.end - at, at)):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def serve_path(
    req: Request,
    res: Response,
    path: str | os.PathLike[str],
    content_type: str | None,
    attachment: str | bool,
    cache_control: str | None,
) -> None:
    """What `Response.serve_file` does."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(fd)
        if not S_ISREG(status.st_mode):
            raise ValueError(f"only a regular file can be served, not {os.fspath(path)!r}")
        name = os.path.basename(os.fsencode(path))
        if attachment:
            res.header("Content-Disposition", disposition(os.fsdecode(name) if attachment is True else attachment))
        if cache_control is not None:
            res.header("Cache-Control", cache_control)
        file = describe(status, content_type or media_type(name), time.time())
        answer(req, res, file, lambda: os.dup(fd), lambda part: read_part(fd, part))
    finally:
        os.close(fd)
