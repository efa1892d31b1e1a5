"""Opens what a request path names, and nothing outside the root.

A path that is checked first and opened afterwards can be changed in between, so the walk itself is the check: each component is
opened with ``O_NOFOLLOW`` relative to the descriptor of the folder before it, and the kernel never resolves a symbolic link or a
``..`` for us. Links are read and walked by the same rules, one component after the other; ``..`` in them goes back to the
descriptor that we came from. So whoever renames folders or swaps links meanwhile changes at most which file below the root is
found.

These are the rules of openat2(2) with ``RESOLVE_BENEATH``, and one more: an absolute link is followed when it leads back into the
root. The system call itself is not used because it is Linux's alone, Python has no binding for it, and seccomp profiles of
containers refuse it.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

__all__ = ["Refused", "Root", "split_path"]

_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a named pipe without a writer would stop the loop. It means nothing to regular files.
_LAST = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | _NO_LINK
# O_PATH: passing through a folder needs the permission to search it, not to read it.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | _NO_LINK
_MOST_LINKS = 40  # as Linux has it

_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_SEPARATOR = re.compile(rb"[/\\]")

# What the system says of a name that must not be read (ENXIO: a unix socket), or of one that is not there.
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP}
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
_STATUS = {**dict.fromkeys(_FORBIDDEN, 403), **dict.fromkeys(_MISSING, 404), **dict.fromkeys(_EXHAUSTED, 503)}


class Refused(Exception):
    """A path is not served; ``status`` says why."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def split_path(path: str) -> tuple[list[bytes], bool]:
    """Split the path of a request into names, and tell whether it asks for a folder, as one that ends with a slash does.

    It is decoded once, after it was split: an encoded slash is part of a name, and so is in no file's name.

    Raises:
        Refused: 400 for what is not percent-encoding and for NUL, 403 for a path above the root, 404 for a hidden name.
    """
    if _BAD_PERCENT.search(path):
        raise Refused(400)
    names: list[bytes] = []
    name = b""
    for segment in path.split("/"):
        name = unquote_to_bytes(segment)
        if b"\0" in name:
            raise Refused(400)
        if name == b"..":
            if not names:
                raise Refused(403)
            names.pop()
        elif name not in (b"", b"."):
            if b".." in _SEPARATOR.split(name):  # of another system's making, or hidden from a proxy before us
                raise Refused(403)
            names.append(name)
    if any(name.startswith(b".") or b"/" in name for name in names):
        raise Refused(404)
    return names, name in (b"", b".", b"..")


class Root:
    """A folder, found by its name at each use: one that is replaced, as builds and deployments do, stays served.

    Raises:
        OSError: There is no such folder, or it may not be searched.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        os.stat(path)  # abspath makes the current folder of an empty name
        self.path = os.fsencode(os.path.abspath(path))
        os.stat(self.path + b"/.")

    def open(self, names: Sequence[bytes]) -> int:
        """Open a file or folder for reading and return its descriptor, which is the caller's to close.

        What is opened may be neither: the caller looks at the type before it reads. A folder that may be searched but not read is
        opened all the same.

        Raises:
            Refused: 404 when there is none, 403 when it is outside the root or may not be read, 503 without free descriptors.
            OSError: Anything else that is wrong with the system.
        """
        walk = _Walk(self.path, names)
        try:
            return walk.open()
        finally:
            walk.close()


class _Walk:
    """One walk: the folders passed so far, and the names yet to come, the next one last."""

    def __init__(self, root: bytes, names: Sequence[bytes]) -> None:
        self._root = root
        self._passed: list[int] = []
        self._names = list(reversed(names)) or [b"."]
        self._links = 0

    def open(self) -> int:
        while True:
            name = self._names.pop()
            if name == b"..":
                self._go_up()
                continue
            try:
                if not self._names:
                    return self._open_last(name)
                self._passed.append(self._open_at(name, _FOLDER))
            except OSError as error:
                target = self._link_at(name, error)
                if target is None:
                    raise _refusal(error) from None
                self._follow(target)

    def close(self) -> None:
        while self._passed:
            os.close(self._passed.pop())

    def _open_at(self, name: bytes, flags: int) -> int:
        if self._passed:
            return os.open(name, flags, dir_fd=self._passed[-1])
        return os.open(self._root + b"/" + name, flags)

    def _open_last(self, name: bytes) -> int:
        try:
            return self._open_at(name, _LAST)
        except PermissionError:
            return self._open_folder_or_refuse(name)

    def _open_folder_or_refuse(self, name: bytes) -> int:
        try:
            return self._open_at(name, _FOLDER)
        except OSError:
            raise Refused(403) from None

    def _link_at(self, name: bytes, error: OSError) -> bytes | None:
        """The target, if the error came from a link. With O_DIRECTORY systems say ENOTDIR, else ELOOP or EMLINK."""
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            return None
        try:
            if self._passed:
                return os.readlink(name, dir_fd=self._passed[-1])
            return os.readlink(self._root + b"/" + name)
        except OSError:
            return None

    def _follow(self, target: bytes) -> None:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise Refused(403)
        if target.startswith(b"/"):
            # This only finds out which names to walk from the root. Should it be outdated by then, the walk finds another file
            # below the root, or none.
            real = os.path.realpath(target)
            root = os.path.realpath(self._root).rstrip(b"/")
            if real != root and not real.startswith(root + b"/"):
                raise Refused(403)
            target = real[len(root) :]
            self.close()
        parts = [part for part in target.split(b"/") if part not in (b"", b".")]
        self._names += reversed(parts)
        if not self._names:
            self._names.append(b".")

    def _go_up(self) -> None:
        if not self._passed:
            raise Refused(403)
        os.close(self._passed.pop())
        if not self._names:
            self._names.append(b".")


def _refusal(error: OSError) -> Exception:
    status = _STATUS.get(error.errno or 0)
    if error.errno == errno.ELOOP:  # a link that became something else while we looked
        status = 404
    return error if status is None else Refused(status)
