"""The handler that serves files."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from http import HTTPStatus
from stat import S_ISDIR, S_ISREG
from urllib.parse import quote

from evhttp._request import Request
from evhttp._response import Response
from evhttp._static import listing as pages
from evhttp._static.dates import format_date, parse_date
from evhttp._static.media import media_type
from evhttp._static.root import Refused, Root, split_path

__all__ = ["StaticFiles"]

_ALLOW = "GET, HEAD"


class StaticFiles:
    """A handler that serves the files below a folder.

    ::

        evhttp.Server(evhttp.StaticFiles("public")).listen("127.0.0.1", 8080).run()

    GET and HEAD are answered with the file, its media type by its name, and Last-Modified; the content goes from the file to the
    socket inside the kernel (sendfile). The path of a folder without its final slash is redirected to the one with it. Names that
    begin with a dot are not found. Nothing outside ``root`` is served: symbolic links are followed only within it.

    Args:
        root: The folder. It is looked up by its name at each request.
        index: Names of files that stand for their folder, the first found wins.
        listing: Whether a folder without such a file is shown as an HTML page; otherwise it is 403.

    Raises:
        OSError: ``root`` is not a folder, or may not be searched.

    Thread safety: may serve several loops in several threads.  Spec: RFC 9110 §9.3.1, §9.3.2, §13.1.3.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, index: Sequence[str] = ("index.html",), listing: bool = True
    ) -> None:
        if isinstance(index, str) or any(name in ("", ".", "..") or "/" in name or "\0" in name for name in index):
            raise ValueError(f"index must be a sequence of file names, not {index!r}")
        self._root = Root(root)
        self._index = [os.fsencode(name) for name in index]
        self._listing = listing

    def __call__(self, req: Request, res: Response) -> None:
        """Answer a request."""
        method = req.method
        try:
            if method in ("GET", "HEAD"):
                names, wants_folder = split_path(req.path)
                if wants_folder:
                    self._answer_folder(req, res, names)
                else:
                    self._answer_name(req, res, names)
            elif method == "OPTIONS":
                res.status(204).header("Allow", _ALLOW).send()
            else:
                res.header("Allow", _ALLOW)
                raise Refused(405)
        except Refused as refusal:
            res.status(refusal.status).send(f"{refusal.status} {HTTPStatus(refusal.status).phrase}\n")

    def _answer_name(self, req: Request, res: Response, names: list[bytes]) -> None:
        """Answer for a path that does not end with a slash."""
        fd = self._root.open(names)
        status = os.fstat(fd)
        if S_ISREG(status.st_mode):
            _send(req, res, fd, status, names[-1])
            return
        os.close(fd)
        if not S_ISDIR(status.st_mode):
            raise Refused(403)
        # Relative to the request's own path: true behind a proxy that strips a prefix, and, beginning with a dot, never the name of
        # another host (//evil) or a scheme.
        query = f"?{req.query_string}" if req.query_string else ""
        res.status(301).header("Location", f"./{quote(names[-1], safe='')}/{query}").send()

    def _answer_folder(self, req: Request, res: Response, names: list[bytes]) -> None:
        """Answer for a path that ends with a slash."""
        for index in self._index:
            try:
                fd = self._root.open([*names, index])
            except Refused as refusal:
                if refusal.status == 404:
                    continue
                raise
            status = os.fstat(fd)
            if S_ISREG(status.st_mode):
                _send(req, res, fd, status, index)
                return
            os.close(fd)
        fd = self._root.open(names)
        try:
            if not S_ISDIR(os.fstat(fd).st_mode):
                raise Refused(404)
            if not self._listing:
                raise Refused(403)
            entries, count = pages.read_folder(self._root, names, fd)
        finally:
            os.close(fd)
        for name, value in pages.HEADERS:
            res.header(name, value)
        res.send(pages.render(names, entries, count))


def _send(req: Request, res: Response, fd: int, status: os.stat_result, name: bytes) -> None:
    """Send an open file, or say that the client has it already. The descriptor is taken over."""
    try:
        headers = req.headers
        now = time.time()
        # RFC 9110 §8.8.2.1: "An origin server with a clock MUST NOT generate a Last-Modified date that is later than the server's
        # time of message origination (Date, Section 6.6.1)."
        changed = min(int(status.st_mtime), int(now))
        since = headers.get("if-modified-since")
        # RFC 9110 §13.1.3: "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match header field".
        if since is not None and "if-none-match" not in headers:
            date = parse_date(since, now)
            if date is not None and changed <= date:
                res.status(304)
        res.header("Content-Type", media_type(name)).header("Last-Modified", format_date(changed))
        res.header("X-Content-Type-Options", "nosniff")
    except BaseException:
        os.close(fd)
        raise
    # With 304 too: its Content-Length must be that of a 200 (RFC 9110 §8.6), and the content is left out.
    res.send_file(fd)
