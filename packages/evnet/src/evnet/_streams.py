"""Streams over descriptors: pipes, terminals, what a subprocess reads and writes, and pairs of connected sockets."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from evnet._connection import FINISHED, OPEN, Connection, StreamProtocol, abort_entry, adopt, take
from evnet._errors import ConnectionClosedError
from evnet._inbox import inbox_of
from evnet._options import MAX_QUEUED, PIPE, SOCKET, stream_options

if TYPE_CHECKING:
    from evloop import Loop

__all__ = ["Stream", "open_stream", "stream_pair"]

_READ_ONLY, _WRITE_ONLY = 1, 2
_KINDS = ((stat.S_ISREG, "a regular file"), (stat.S_ISDIR, "a directory"), (stat.S_ISBLK, "a block device"))


class Stream(Connection):
    """A `Connection` over a pipe, a terminal or another descriptor that is no socket. Made by `open_stream`.

    One that can only be read refuses `write`. One that can only be written calls no ``data_received``, and when nobody reads the
    other end any more it is lost: with `BrokenPipeError` if something was still to be written.
    """

    __slots__ = ("_one_way",)

    _one_way: int

    def can_write_eof(self) -> bool:
        """Whether this is the writing end of a pipe: a terminal has no half that could be closed alone."""
        return self._one_way == _WRITE_ONLY

    def write_eof(self) -> None:
        """Close the writing end of a pipe, after what is queued.

        Raises:
            NotImplementedError: See `can_write_eof`; as in asyncio.
        """
        if self._one_way != _WRITE_ONLY:
            raise NotImplementedError("only the writing end of a pipe can be shut down")
        self.close()

    def _refuse(self) -> None:
        if self._one_way == _READ_ONLY and self._state == FINISHED:
            raise ConnectionClosedError("the descriptor is open for reading only: nothing can be written")
        super()._refuse()

    def _peer_text(self) -> str:
        return ("a descriptor", "a descriptor for reading", "a descriptor for writing")[self._one_way]


def open_stream(
    loop: Loop,
    fd: Any,
    protocol_factory: Callable[[], StreamProtocol],
    *,
    idle_timeout: float | None = None,
    write_timeout: float | None = None,
    max_queued: int | None = MAX_QUEUED,
) -> Connection:
    """Drive a protocol with an open pipe, terminal or connected socket.

    Args:
        loop: The loop that serves it.
        fd: A descriptor, which belongs to the stream from now on, or an object with ``fileno()``, whose descriptor is duplicated
            and which is then closed: what it may have buffered is written, or lost if it was read. The descriptor is made
            non-blocking, and with it every other one of the same description: a terminal that a shell will use again wants that
            undone.
        protocol_factory: Called without arguments; its result has the methods of `asyncio.Protocol`. ``connection_made`` is called
            before this function returns.
        idle_timeout: Seconds without a byte in either direction after which the stream is aborted; ``None``: never.
        write_timeout: Seconds after which it is aborted when nothing of what is queued is taken; ``None``: never.
        max_queued: See `listen_tcp`.

    Returns:
        A `Stream`; a `Connection` for a socket.

    Raises:
        OSError: The descriptor is not open, or cannot be watched. It stays the caller's.
        ValueError: It is a file, a directory or a block device, which are always ready; or an option is out of its range.

    Thread safety: loop thread only.
    """
    number = fd if isinstance(fd, int) else fd.fileno()
    mode = os.fstat(number).st_mode
    for is_it, name in _KINDS:
        if is_it(mode):
            raise ValueError(f"descriptor {number} is {name}: a stream needs a pipe, a terminal or a socket")
    if stat.S_ISSOCK(mode):
        kind, one_way = SOCKET, 0
    else:
        access = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        kind, one_way = PIPE, {os.O_RDONLY: _READ_ONLY, os.O_WRONLY: _WRITE_ONLY}.get(access, 0)
    options = stream_options(
        idle_timeout=idle_timeout, write_timeout=write_timeout, max_queued=max_queued, kind=kind, one_way=one_way
    )
    protocol = protocol_factory()
    token, peer = _take_over(loop, fd, options)
    if kind == SOCKET:
        connection = Connection(inbox_of(loop), None, protocol, token, peer)
    else:
        connection = Stream(inbox_of(loop), None, protocol, token, peer)
        connection._one_way = one_way
        connection._state = FINISHED if one_way == _READ_ONLY else OPEN
    connection._begin()
    return connection


def _take_over(loop: Loop, fd: Any, options: Any) -> tuple[bytes, bytes]:
    """Make a stream of a descriptor, or of the one that an object has, which is closed."""
    if isinstance(fd, int):
        return take(loop, fd, options, blocking=True)
    copy = os.dup(fd.fileno())
    try:
        token, peer = take(loop, copy, options, blocking=True)
    except BaseException:
        os.close(copy)
        raise
    try:
        fd.close()
    except BaseException:
        loop.submissions.append(abort_entry(token))
        raise
    return token, peer


def stream_pair(
    loop: Loop, first_factory: Callable[[], StreamProtocol], second_factory: Callable[[], StreamProtocol]
) -> tuple[Connection, Connection]:
    """Connect two protocols of one loop with each other, as `socket.socketpair` does.

    Raises:
        OSError: There are no descriptors left, or they cannot be watched.
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """
    first, second = socket.socketpair()
    with first, second:
        # In this order: an exception in a factory closes both, one in a connection_made what has not been adopted.
        protocols = first_factory(), second_factory()
        one = adopt(loop, first, protocols[0])
        return one, adopt(loop, second, protocols[1])
