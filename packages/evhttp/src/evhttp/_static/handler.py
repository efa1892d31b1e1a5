"""The handler that serves files."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from http import HTTPStatus
from stat import S_ISDIR
from urllib.parse import quote

from evhttp._files import FileShrunk, answer
from evhttp._negotiation import choose_coding
from evhttp._request import Request
from evhttp._response import Response
from evhttp._response import _line as header_line
from evhttp._static import listing as pages
from evhttp._static.cache import CODINGS, File, OpenFiles, Variant
from evhttp._static.cors import Cors
from evhttp._static.root import Refused, Root, split_path

__all__ = ["StaticFiles"]

_ALLOW = "GET, HEAD"


class StaticFiles:
    """A handler that serves the files below a folder.

    ::

        evhttp.Server(evhttp.StaticFiles("public")).listen("127.0.0.1", 8080).run()

    GET and HEAD are answered with the file and its media type by its name. It has an ETag and Last-Modified; preconditions are
    judged, and parts sent to those who ask for ranges; the content of all but small files goes from the file to the socket inside
    the kernel (sendfile). Where the client takes a coding of which a sibling of the file is there (``app.js.br``, ``.zst``,
    ``.gz``), not older than the file itself, that is sent in its place. The path of a folder without its final slash is redirected
    to the one with it. Names that begin with a dot are not found. Nothing outside ``root`` is served: symbolic links are followed
    only within it.

    What was asked for is kept open for a moment, small files in memory; see ``cache_seconds``.

    Args:
        root: The folder. It is looked up by its name.
        index: Names of files that stand for their folder, the first found wins.
        listing: Whether a folder without such a file is shown: as an HTML page, or as JSON to who accepts that and not HTML;
            otherwise it is 403.
        cache_control: The value of Cache-Control for files, for example ``"max-age=3600"``; ``None`` sends none.
        precompressed: Whether to look for compressed siblings.
        cors: ``"*"``, or the origins whose scripts may read the files; ``None``: no other site's.
        cache_files: Files kept at most. Each holds at most 32 KiB of memory, or a descriptor, for itself and each sibling.
        cache_seconds: For how long a file is served without looking at the path again, in seconds. Changes, also of permissions
            and links, are seen after that; 0 looks each time.

    Raises:
        OSError: ``root`` is not a folder, or may not be searched.
        ValueError: An argument is not as described.

    Thread safety: may serve several loops in several threads.
    Spec: RFC 9110 §8.8, §9.3.1, §9.3.2, §12.5.3, §13, §14.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        index: Sequence[str] = ("index.html",),
        listing: bool = True,
        cache_control: str | None = None,
        precompressed: bool = True,
        cors: str | Sequence[str] | None = None,
        cache_files: int = 256,
        cache_seconds: float = 1.0,
    ) -> None:
        if isinstance(index, str) or any(name in ("", ".", "..") or "/" in name or "\0" in name for name in index):
            raise ValueError(f"index must be a sequence of file names, not {index!r}")
        if cache_files < 0 or not cache_seconds >= 0:
            raise ValueError(
                f"cache_files and cache_seconds must be at least 0, not {cache_files!r} and {cache_seconds!r}"
            )
        self._root = Root(root)
        self._index = [os.fsencode(name) for name in index]
        self._listing = listing
        self._cors = None if cors is None else Cors(cors)
        self._files = OpenFiles(
            self._root,
            most=cache_files if cache_seconds else 0,
            seconds=cache_seconds,
            codings=list(CODINGS) if precompressed else [],
            fields="" if cache_control is None else header_line("Cache-Control", cache_control),
        )

    def close(self) -> None:
        """Let go of the files that are kept open. They come back with the next request."""
        self._files.clear()

    def __call__(self, req: Request, res: Response) -> None:
        """Answer a request."""
        method = req.method
        if method == "GET" and self._cors is None and res._lines is None:
            swift = self._files.recent(req.path, time.monotonic())
            if swift is not None and swift.answer(req, res):
                return
        try:
            if method in ("GET", "HEAD"):
                if self._cors is not None:
                    self._cors.mark(req, res)
                names, wants_folder = split_path(req.path)
                if wants_folder:
                    self._answer_folder(req, res, names)
                else:
                    self._answer_name(req, res, names)
            elif method == "OPTIONS":
                if self._cors is not None:
                    self._cors.preflight(req, res, _ALLOW)
                res.status(204).header("Allow", _ALLOW).send()
            else:
                res.header("Allow", _ALLOW)
                raise Refused(405)
        except Refused as refusal:
            res.status(refusal.status).send(f"{refusal.status} {HTTPStatus(refusal.status).phrase}\n")

    def _answer_name(self, req: Request, res: Response, names: list[bytes]) -> None:
        """Answer for a path that does not end with a slash."""
        if self._send(req, res, names):
            return
        if not self._is_folder(names):
            raise Refused(403)
        # Relative to the request's own path: true behind a proxy that strips a prefix, and, beginning with a dot, never the name of
        # another host (//evil) or a scheme.
        query = f"?{req.query_string}" if req.query_string else ""
        res.status(301).header("Location", f"./{quote(names[-1], safe='')}/{query}").send()

    def _answer_folder(self, req: Request, res: Response, names: list[bytes]) -> None:
        """Answer for a path that ends with a slash."""
        for index in self._index:
            try:
                if self._send(req, res, [*names, index]):
                    return
            except Refused as refusal:
                if refusal.status != 404:
                    raise
        fd = self._root.open(names)
        try:
            if not S_ISDIR(os.fstat(fd).st_mode):
                raise Refused(404)
            if not self._listing:
                raise Refused(403)
            entries, count = pages.read_folder(self._root, names, fd)
        finally:
            os.close(fd)
        accept = ",".join(req.headers.get_all("accept")).lower()
        if "application/json" in accept and "text/html" not in accept:
            for name, value in pages.JSON_HEADERS:
                res.header(name, value)
            res.send(pages.render_json(entries, count))
            return
        for name, value in pages.HEADERS:
            res.header(name, value)
        res.send(pages.render(names, entries, count))

    def _is_folder(self, names: list[bytes]) -> bool:
        fd = self._root.open(names)
        try:
            return S_ISDIR(os.fstat(fd).st_mode)
        finally:
            os.close(fd)

    def _send(self, req: Request, res: Response, names: list[bytes]) -> bool:
        """Answer with a file; false where there is none."""
        for last in (False, True):
            file = self._files.find(names, time.monotonic(), time.time())
            if file is None:
                return False
            variant = _chosen(req, file)
            self._files.remember(req.path, file)
            try:
                answer(req, res, variant.content, variant.open, variant.read)
                break
            except FileShrunk:  # what there is now is found by opening it again
                self._files.forget(names)
                if last:
                    raise Refused(503) from None
        return True


def _chosen(req: Request, file: File) -> Variant:
    first, *others = variants = file.variants
    if not others:
        return first
    coding = choose_coding(req.headers.get_all("accept-encoding"), [each.coding for each in others if each.coding])
    return next((each for each in variants if each.coding == coding), first)
