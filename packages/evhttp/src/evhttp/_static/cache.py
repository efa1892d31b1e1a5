"""Files that were asked for a moment ago, kept open: their content if it is small, else their descriptor.

An entry is good for a fixed time from when it was opened, whether it is used or not; then the next request walks the path anew. So
what is served is never older than that, whatever has been renamed, replaced or forbidden meanwhile, and while an entry is good a
request costs no system call at all for a small file, and one for another.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from stat import S_ISREG
from threading import Lock
from typing import NamedTuple

from evhttp._files import SMALL, Representation, Swift, describe, read_part
from evhttp._media import media_type
from evhttp._ranges import ByteRange
from evhttp._static.root import Refused, Root

__all__ = ["CODINGS", "File", "OpenFiles", "Variant"]

# Codings that a sibling of the file may have, the best first, and how such a sibling ends (RFC 9110 §8.4.1, RFC 8878 §7, RFC 7932).
CODINGS = {"br": b".br", "zstd": b".zst", "gzip": b".gz"}


class Variant(NamedTuple):
    """One content of a file: the file itself, or a compressed sibling.

    Attributes:
        coding: Its content coding; ``None`` for the file itself.
        content: What it is.
        fd: Its descriptor, or -1 where the content is in memory.
    """

    coding: str | None
    content: Representation
    fd: int

    def open(self) -> int:
        """A descriptor of its own for somebody who closes it."""
        return os.dup(self.fd)

    def read(self, part: ByteRange) -> bytes:
        """A part of the content."""
        if self.content.data is not None:
            return self.content.data[part.start : part.end]
        return read_part(self.fd, part)


class File:
    """A file with its siblings, open. It closes its descriptors when nobody holds it any more."""

    __slots__ = ("opened", "swift", "variants")

    def __init__(self, opened: float) -> None:
        self.opened = opened
        self.variants: list[Variant] = []
        self.swift: Swift | None = None
        """Its answers, where there is one variant and its content at hand."""

    def __del__(self) -> None:
        for variant in self.variants:
            if variant.fd >= 0:
                os.close(variant.fd)


class OpenFiles:
    """The files of one root, by their paths.

    Args:
        root: Opens them.
        most: Entries kept; 0 keeps none.
        seconds: How long an entry is good.
        codings: Codings of siblings to look for.
        fields: Header lines for each file, also with 304.

    Thread safety: may be used from several threads.
    """

    def __init__(self, root: Root, *, most: int, seconds: float, codings: list[str], fields: str) -> None:
        self._root = root
        self._most = most
        self._seconds = seconds
        self._codings = [(coding, CODINGS[coding]) for coding in codings]
        self._fields = fields
        # In the order of their opening, so that those to go come first.
        self._files: OrderedDict[bytes, File] = OrderedDict()
        # The small ones among them by the paths of requests, which saves decoding and walking them. They hold no descriptors.
        self._by_path: dict[str, File] = {}
        self._lock = Lock()

    def recent(self, path: str, now: float) -> Swift | None:
        """The answers of the small file that was last found for a path, while it is good."""
        file = self._by_path.get(path)
        if file is None:
            return None
        if now - file.opened < self._seconds:
            return file.swift
        self._by_path.pop(path, None)
        return None

    def remember(self, path: str, file: File) -> None:
        """Let `recent` find a file, if it is one for that."""
        if file.swift is not None and self._most:
            if len(self._by_path) >= self._most:  # most of them are no longer good
                self._by_path.clear()
            self._by_path[path] = file

    def find(self, names: list[bytes], now: float, wall: float) -> File | None:
        """Return a file, or ``None`` where there is a folder or what is neither.

        Args:
            names: Its path below the root.
            now: Seconds on a clock that goes forward.
            wall: Seconds since the epoch.

        Raises:
            Refused: As `Root.open`.
        """
        key = b"/".join(names)
        file = self._files.get(
            key
        )  # without the lock: an entry is never changed, and lives as long as somebody holds it
        if file is not None and now - file.opened < self._seconds:
            return file
        file = self._open(names, now, wall)
        if file is not None and self._most:
            with self._lock:
                self._files.pop(key, None)
                self._files[key] = file
                self._trim(now)
        return file

    def forget(self, names: list[bytes]) -> None:
        """Open a file anew the next time."""
        with self._lock:
            self._files.pop(b"/".join(names), None)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._files.clear()
        self._by_path.clear()

    def __len__(self) -> int:
        return len(self._files)

    def _trim(self, now: float) -> None:
        while self._files:
            oldest = next(iter(self._files.values()))
            if len(self._files) <= self._most and now - oldest.opened < self._seconds:
                break
            self._files.popitem(last=False)

    def _open(self, names: list[bytes], now: float, wall: float) -> File | None:
        opened: list[tuple[str | None, int, os.stat_result]] = []
        try:
            fd = self._root.open(names)
            status = os.fstat(fd)
            opened.append((None, fd, status))
            if not S_ISREG(status.st_mode):
                return None
            self._open_siblings(names, opened)
            more = self._fields + ("Vary: Accept-Encoding\r\n" if len(opened) > 1 else "")
            kind = media_type(names[-1])
            file = File(now)
            for coding, each, of in opened:
                data = _small_content(each, of)
                content = describe(of, kind, wall, coding=coding, more=more, data=data)
                file.variants.append(Variant(coding, content, os.dup(each) if data is None else -1))
            only = file.variants[0].content
            if len(file.variants) == 1 and only.data is not None and len(only.data) < SMALL:
                file.swift = Swift(only)
            return file
        finally:
            for _, each, _ in opened:
                os.close(each)

    def _open_siblings(self, names: list[bytes], opened: list[tuple[str | None, int, os.stat_result]]) -> None:
        """Add the compressed siblings that are at least as new as the file: an older one was made of other content."""
        changed = opened[0][2].st_mtime_ns
        for coding, suffix in self._codings:
            try:
                fd = self._root.open([*names[:-1], names[-1] + suffix])
            except Refused:
                continue
            status = os.fstat(fd)
            if S_ISREG(status.st_mode) and status.st_mtime_ns >= changed:
                opened.append((coding, fd, status))
            else:
                os.close(fd)


def _small_content(fd: int, status: os.stat_result) -> bytes | None:
    if status.st_size > SMALL:
        return None
    data = read_part(fd, ByteRange(0, status.st_size))
    after = os.fstat(fd)
    # Written while it was read: let it be sent from the file, with what is there then.
    unchanged = (after.st_mtime_ns, after.st_size) == (status.st_mtime_ns, status.st_size)
    return data if unchanged and len(data) == status.st_size else None
