"""Forms: urlencoded, and multipart/form-data (RFC 7578) with its files on disk.

Multipart is parsed by the library ``multipart``, a push parser that is kept well and small; what is ours is the limits, where the
parts go, and how long they stay. It is a plain requirement and no extra: it is one file of Python without requirements of its own,
it is imported when the first form of this kind comes, and a server that could not read a form would be found out too late.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl

from evhttp._body import BodyReader
from evhttp._errors import BodyError
from evhttp._fields import Query

if TYPE_CHECKING:
    from evhttp._request import Request

__all__ = ["Multipart", "MultipartReader", "Upload", "read_form", "read_multipart", "stream_multipart"]

_URLENCODED = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
# What the library is given at a time: it copies what it has not yet handed out.
_PIECE = 64 * 1024
_MAX_PART_HEADERS = 8

# RFC 2046 §5.1.1: bchars, 70 at most and no space at the end.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def _media_type(req: Request) -> str:
    return req.headers.get("content-type", "").partition(";")[0].strip(" \t").lower()


def read_form(req: Request, max_fields: int, max_field_size: int) -> Query:
    """What `Request.form` does."""
    if _media_type(req) != _URLENCODED:
        raise BodyError(f"expected a body of the type {_URLENCODED}", status=415)
    body = req.body
    count = body.count(b"&") + 1
    if count > max_fields:
        raise BodyError(f"the form has {count} fields, limit is {max_fields}", status=413)
    pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True)
    # The URL standard, §5.1: the bytes of names and values are UTF-8; a browser percent-encodes all but ASCII.
    for pair in pairs:
        for text in pair:
            if len(text) > max_field_size:
                raise BodyError(f"a form field has {len(text)} characters, limit is {max_field_size}", status=413)
    return Query.of(pairs)


class Upload:
    """A file that came in a form. It lies on disk, readable for the owner alone, under a name that nobody can foresee.

    Attributes:
        name: The field's name.
        filename: What the client calls the file: without folders and control characters, never empty, ``"."`` or ``".."``; and
            still nothing to open a file by.
        content_type: What the client says it is, in small letters; ``None`` if it says nothing.
        size: In bytes.
        path: Where it lies, until the form is closed.
    """

    __slots__ = ("content_type", "filename", "name", "path", "size")

    def __init__(self, name: str, filename: str, content_type: str | None, path: str) -> None:
        self.name: str = name
        self.filename: str = filename
        self.content_type: str | None = content_type
        self.path: str = path
        self.size: int = 0

    def open(self) -> IO[bytes]:
        """Open it for reading."""
        return open(self.path, "rb")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Move it to where it is to stay. A file that is there is replaced.

        Raises:
            OSError: It cannot be moved there.
        """
        shutil.move(self.path, path)
        self.path = os.fspath(path)

    def __repr__(self) -> str:
        return f"<Upload {self.name!r}: {self.filename!r}, {self.size} bytes>"


class Multipart:
    """A multipart form: its fields, and its files.

    The files are removed by `close`, at the end of a ``with`` block, or when nothing refers to the form any more, as after the
    request has ended; what `Upload.save` has moved stays.

    Attributes:
        fields: The parts that are no files.
        files: Those that are, in their order.
    """

    __slots__ = ("__weakref__", "_finish", "_folder", "fields", "files")

    def __init__(self) -> None:
        self.fields: Query = Query.of([])
        self.files: list[Upload] = []
        self._folder: str | None = None
        self._finish: weakref.finalize[Any, Any] | None = None

    def file(self, name: str) -> Upload | None:
        """The first file of a field, or ``None``."""
        return next((each for each in self.files if each.name == name), None)

    def close(self) -> None:
        """Remove the files. Calling this again does nothing."""
        if self._finish is not None:
            self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_path(self, folder: str | os.PathLike[str] | None) -> str:
        if self._folder is None:
            # Mode 0700; made with the first file, since most forms have none.
            self._folder = tempfile.mkdtemp(prefix="evhttp-", dir=folder)
            self._finish = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return os.path.join(self._folder, secrets.token_hex(16))

    def __repr__(self) -> str:
        return f"<Multipart {self.fields!r}, {self.files!r}>"


@cache
def _strict_parser(multipart: Any) -> Any:
    """The library's parser, which refuses lone CR and LF in a header line always and not only where a piece ends behind them."""

    class StrictParser(multipart.PushMultipartParser):  # type: ignore[misc]
        def _on_segment_headerline(self, line: bytes) -> None:
            if b"\r" in line or b"\n" in line:
                raise multipart.ParserError("Invalid line break in segment header")
            super()._on_segment_headerline(line)

    return StrictParser


class MultipartReader:
    """Takes a multipart body in pieces and makes a form of it.

    Args:
        content_type: The request's Content-Type.
        folder: Where files are put, below a folder of the form's own; ``None``: where the system has such files.
        max_parts, max_field_size, max_file_size, max_header_size: See `Request.multipart`.

    Raises:
        BodyError: 415 for another type, 400 for a boundary that is none.
    """

    def __init__(
        self,
        content_type: str,
        *,
        folder: str | os.PathLike[str] | None,
        max_parts: int,
        max_field_size: int,
        max_file_size: int,
        max_header_size: int,
    ) -> None:
        import multipart  # not before it is needed

        if not hasattr(multipart, "PushMultipartParser"):
            raise ImportError(
                "evhttp needs the library multipart; another one, python-multipart, is installed under its name"
            )
        kind, options = multipart.parse_options_header(content_type)
        if kind != _MULTIPART:
            raise BodyError(f"expected a body of the type {_MULTIPART}", status=415)
        boundary = options.get("boundary", "")
        if not _BOUNDARY.fullmatch(boundary):
            raise BodyError("the boundary is not one of 1 to 70 characters that RFC 2046 allows")
        self._error = multipart.MultipartError
        # Not its strict mode, which refuses bytes behind the end only where they come in another piece, so that the outcome would
        # depend on how the body was cut. RFC 2046 §5.1.1 has both ends ignored; what else it would refuse is refused below.
        self._parser = _strict_parser(multipart)(
            boundary, max_header_size=max_header_size, max_header_count=_MAX_PART_HEADERS
        )
        self._delimiter = b"\r\n--" + boundary.encode()
        # What may be the beginning of the first delimiter; ``None`` when that is behind us. RFC 2046 §5.1.1: it stands at the
        # beginning of a line, of which the body's first is one.
        self._before: bytes | None = b"\r\n"
        self._held = b""
        self._folder = folder
        self._max_parts = max_parts
        self._max_field_size = max_field_size
        self._max_file_size = max_file_size
        self._form = Multipart()
        self._count = 0
        self._pairs: list[tuple[str, str]] = []
        self._name = ""
        self._field: bytearray | None = None
        self._upload: Upload | None = None
        self._file: IO[bytes] | None = None

    def feed(self, data: bytes) -> None:
        """Take a piece of the body.

        Raises:
            BodyError: 400 for what is malformed, 413 for what is beyond a limit.
            OSError: A file cannot be written.
        """
        try:
            if self._before is not None:
                data = self._skip_preamble(data)
            self._parse(self._held + data if self._held else data)
        except BaseException:
            self.abandon()
            raise

    def _parse(self, data: bytes, *, is_last: bool = False) -> None:
        # The library counts a CR that comes without its LF to the header line, and so may find the line too long. It is given none.
        self._held = b"\r" if data.endswith(b"\r") and not is_last else b""
        at, end = 0, len(data) - len(self._held)
        while at < end:
            to = min(at + _PIECE, end)
            if to < end and data[to - 1] == 13:
                to -= 1
            for event in self._events(data[at:to]):
                self._take(event)
            at = to

    def _skip_preamble(self, data: bytes) -> bytes:
        """Return what there is from the first delimiter on.

        The library looks for it, too, but forgets what stood before it in its line where that came in another piece: what is a form
        would depend on how the body was cut.
        """
        data = (self._before or b"") + data
        at = data.find(self._delimiter)
        if at < 0:
            self._before = data[-len(self._delimiter) + 1 :]
            return b""
        self._before = None
        return data[at + 2 :]

    def finish(self) -> Multipart:
        """Return the form; the body has ended.

        Raises:
            BodyError: 400, it is not complete.
        """
        try:
            self._parse(self._held, is_last=True)
            self._parser.close()
        except self._error:
            self.abandon()
            raise BodyError("the multipart body ends within a part") from None
        except BaseException:
            self.abandon()
            raise
        self._form.fields = Query.of(self._pairs)
        return self._form

    def abandon(self) -> None:
        """Remove what has come."""
        if self._file is not None:
            self._file.close()
        self._form.close()

    def _events(self, piece: bytes) -> Iterator[Any]:
        try:
            yield from self._parser.parse(piece)
        except self._error as error:
            # The library's messages name rules, never what came.
            raise BodyError(f"malformed multipart body: {error}") from None

    def _take(self, event: Any) -> None:
        if event is None:
            self._end_part()
        elif isinstance(event, bytes | bytearray):
            self._add(event)
        else:
            self._begin_part(event)

    def _begin_part(self, part: Any) -> None:
        self._count += 1
        if self._count > self._max_parts:
            raise BodyError(f"the form has more than {self._max_parts} parts", status=413)
        if not part.name:  # RFC 7578 §4.2: "MUST also contain an additional parameter of name"
            raise BodyError("a part of the form has no name")
        if part.filename is None:
            self._name, self._field = part.name, bytearray()
            return
        path = self._form._new_path(self._folder)
        self._upload = Upload(part.name, _plain_name(part.filename), part.content_type, path)
        # O_EXCL and a name of 128 random bits, in a folder of our own: nobody can have put anything there.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(fd, "wb", buffering=0)

    def _add(self, data: bytes | bytearray) -> None:
        if self._field is not None:
            self._field += data
            if len(self._field) > self._max_field_size:
                raise BodyError(f"a form field is over its limit of {self._max_field_size} bytes", status=413)
        elif self._upload is not None and self._file is not None:
            self._upload.size += len(data)
            if self._upload.size > self._max_file_size:
                raise BodyError(f"an uploaded file is over its limit of {self._max_file_size} bytes", status=413)
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]

    def _end_part(self) -> None:
        if self._field is not None:
            try:
                self._pairs.append((self._name, self._field.decode()))
            except UnicodeDecodeError:
                raise BodyError("a form field is not UTF-8") from None
            self._field = None
        elif self._upload is not None and self._file is not None:
            self._file.close()
            self._form.files.append(self._upload)
            self._file = self._upload = None


def _plain_name(filename: str) -> str:
    """A file's name as it may be shown: some clients send the whole path, some send tricks."""
    name = _CONTROLS.sub("", re.split(r"[/\\]", filename)[-1]).strip()
    return "unnamed" if name in ("", ".", "..") else name


def read_multipart(req: Request, **options: Any) -> Multipart:
    """What `Request.multipart` does."""
    reader = MultipartReader(req.headers.get("content-type", ""), **options)
    reader.feed(req.body)
    return reader.finish()


def stream_multipart(
    req: Request, on_end: Callable[[Multipart | None, Exception | None], object], **options: Any
) -> BodyReader:
    """What `Request.read_multipart` does."""
    reader = MultipartReader(req.headers.get("content-type", ""), **options)
    ended = False

    def end(form: Multipart | None, error: Exception | None) -> None:
        nonlocal ended
        ended = True
        on_end(form, error)

    def on_data(piece: bytes) -> None:
        if ended:  # what still comes of a body that was refused; the answer to it ends the connection
            return
        try:
            reader.feed(piece)
        except (BodyError, OSError) as error:
            end(None, error)

    def finished(lost: BodyError | None) -> None:
        if ended:
            return
        if lost is not None:
            reader.abandon()
            end(None, lost)
            return
        try:
            form = reader.finish()
        except BodyError as error:
            end(None, error)
        else:
            end(form, None)

    return BodyReader(req, on_data, finished)
