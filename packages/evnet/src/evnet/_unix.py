"""Listening unix sockets, and the files by which they are found."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from evnet._sockets import check_backlog

__all__ = ["SocketFile", "bind_unix", "check_path"]

logger = logging.getLogger("evnet")

# unix(7): sun_path has 108 bytes on Linux, 104 on the BSDs and macOS; a path ends with a zero byte, an abstract name begins
# with one.
_ROOM = 108 if sys.platform == "linux" else 104
_LOCK_PATIENCE = 1.0  # seconds; what is done under the lock takes microseconds


class SocketFile:
    """The file of a socket that we have bound, to be removed by us and only if it is still ours.

    Args:
        path: Where it is; it stays there when the process changes its directory.
    """

    __slots__ = ("_identity", "_path", "_process")

    def __init__(self, path: str | bytes) -> None:
        self._path = os.path.abspath(path)
        self._identity = _identity(self._path)
        self._process = os.getpid()

    def remove(self) -> None:
        """Remove the file, while the socket is still open.

        As long as it is, the kernel gives its inode's number to no other file, so a file with this number is ours. A child
        process, which has inherited the socket, leaves the file to its parent.
        """
        if self._process != os.getpid():
            return
        try:
            if _identity(self._path) == self._identity:
                os.unlink(self._path)
        except FileNotFoundError:
            pass  # somebody has removed it
        except OSError as error:
            logger.warning("the socket file %r stays behind: %s", self._path, error.strerror)


def bind_unix(
    path: str | bytes | os.PathLike[str], *, mode: int | None = None, backlog: int = 1024
) -> tuple[socket.socket, SocketFile | None]:
    """Make a listening, non-blocking unix socket, and what removes its file.

    Args:
        path: Of the socket file, or an abstract name, as for `listen_unix`. A stale file, of a server that is no more, is replaced.
        mode: The file's permissions; ``None``: what the umask leaves.
        backlog: Connections that the kernel may hold for us.

    Returns:
        The socket, and a `SocketFile` to be removed before the socket is closed: ``None`` for an abstract name.

    Raises:
        OSError, ValueError: As `listen_unix`. Nothing is left behind then, and nothing that was there before is touched but the
            file of a server that is no more.
    """
    name = check_path(path)
    check_backlog(backlog)
    abstract = name[:1] in ("\0", b"\0")
    if mode is not None and abstract:
        raise ValueError("an abstract name has no file that could have a mode")
    if mode is not None and not 0 <= mode <= 0o777:
        raise ValueError(f"mode must be from 0 to 0o777, not {mode!r}")
    if abstract:
        return _listening(name, None, backlog)[0], None
    # From the look at what is there until we listen: a second server would find our file without a listener, and take it for
    # stale.
    with _alone_in(name):
        _make_room(name)
        return _listening(name, mode, backlog)


def check_path(path: str | bytes | os.PathLike[str]) -> str | bytes:
    """Return a path, or a name that begins with a zero byte, which a unix socket can have.

    Raises:
        ValueError: It is empty, or has a zero byte where none may be.
        OSError: ENAMETOOLONG; the message says how long it may be.
    """
    name = os.fspath(path)
    encoded = os.fsencode(name)
    if encoded[:1] == b"\0":
        if sys.platform != "linux":
            raise ValueError("only Linux has abstract names for unix sockets")
        if len(encoded) == 1:
            raise ValueError("the abstract name is empty")
        room = _ROOM
    else:
        if not encoded or b"\0" in encoded:
            raise ValueError(f"a path must have characters, and no zero byte among them, not {name!r}")
        room = _ROOM - 1
    if len(encoded) > room:
        raise OSError(
            errno.ENAMETOOLONG, f"the path of a unix socket has at most {room} bytes, not {len(encoded)}: {name!r}"
        )
    return name


def _listening(name: str | bytes, mode: int | None, backlog: int) -> tuple[socket.socket, SocketFile | None]:
    sock: socket.socket | None = None
    file: SocketFile | None = None
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind(name)
        if name[:1] not in ("\0", b"\0"):
            file = SocketFile(name)
        if mode is not None:
            # Nobody can connect before `listen`, so nobody comes in by the mode that the umask has left. The umask itself is
            # the whole process's, and other threads make files.
            os.chmod(name, mode)
        sock.listen(backlog)
    except BaseException as error:
        if file is not None:
            file.remove()
        if sock is not None:
            sock.close()
        if isinstance(error, OSError):
            raise OSError(error.errno, f"cannot listen on {name!r}: {os.strerror(error.errno or 0)}") from None
        raise
    return sock, file


def _make_room(name: str | bytes) -> None:
    """Remove what a server that is no more has left; raise for everything else that is there."""
    try:
        found = os.lstat(name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {name!r}: {error.strerror}") from None
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, f"cannot listen on {name!r}: what is there is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(name)
    if answer == errno.ECONNREFUSED:  # a file without anybody who listens
        with suppress(FileNotFoundError):
            os.unlink(name)
    elif answer in (
        0,
        errno.EAGAIN,
        errno.EINPROGRESS,
        errno.EPROTOTYPE,
    ):  # EAGAIN: its backlog is full; EPROTOTYPE: of datagrams
        raise OSError(errno.EADDRINUSE, f"cannot listen on {name!r}: a live server listens there")
    elif answer != errno.ENOENT:
        reason = os.strerror(answer)
        raise OSError(
            answer, f"cannot listen on {name!r}: whether the socket there is alive cannot be found out: {reason}"
        )


@contextmanager
def _alone_in(name: str | bytes) -> Iterator[None]:
    """Keep others who do the same out of the folder for a moment.

    The lock is on the folder itself, so that no lock file stays behind. Somebody may hold it for a purpose of his own, or the
    file
    system may have none: then we go on without, for it only guards against two servers that start on one path in the same
        moment.
    """
    folder = os.path.dirname(name) or (b"." if isinstance(name, bytes) else ".")
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        yield  # it may be written to but not read
        return
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {name!r}: {error.strerror}") from None
    try:
        _lock(descriptor, name)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, name: str | bytes) -> None:
    until = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                logger.warning("somebody holds a lock on the folder of %r; going on without", name)
                return
            time.sleep(0.005)
        except OSError:  # a file system without locks
            return
        else:
            return


def _identity(path: str | bytes) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
