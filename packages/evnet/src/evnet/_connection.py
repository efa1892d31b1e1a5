"""A connection as Python sees it: an asyncio-style transport whose other end is a stream in C."""

from __future__ import annotations

import errno
import os
import socket
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

from evnet._errors import ConnectionClosedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evloop import Loop, Record
    from evnet._server import Server

__all__ = ["Connection", "StreamProtocol"]

_HEADER = Struct("<IHH8s")  # see evloop.h, EV_SUBMISSION_HEADER
_ADOPT = Struct("<IHH8sI")
_PEER = Struct("<BBH16s")
_NET = 1 << 8
_OP_ADOPT, _OP_WRITE, _OP_CLOSE, _OP_ABORT, _OP_FINISH, _OP_PAUSE, _OP_RESUME = (_NET | op for op in range(1, 8))
_EOF, _CLOSED, _PAUSE_WRITING, _RESUME_WRITING = 0, -1, -2, -3
_BY_PEER, _TIMED_OUT = -1, -2


def abort_entry(token: bytes) -> bytes:
    """What is submitted to reset the stream of a token that has no connection."""
    return _HEADER.pack(0, _OP_ABORT, 0, token)


class StreamProtocol(Protocol):
    """What a connection calls: the methods of `asyncio.Protocol`, from which a class may but need not inherit."""

    def connection_made(self, transport: Any, /) -> object: ...
    def data_received(self, data: bytes, /) -> object: ...
    def eof_received(self) -> object: ...
    def connection_lost(self, exc: Exception | None, /) -> object: ...
    def pause_writing(self) -> object: ...
    def resume_writing(self) -> object: ...


class Connection:
    """A TCP connection that drives a protocol object with asyncio's methods.

    What is written is queued and sent at the end of the turn, several writes in one system call. Thread safety: loop thread only.
    """

    __slots__ = ("_fd", "_loop", "_peer", "_protocol", "_reading", "_server", "_target", "_token", "_writable")

    def __init__(
        self, loop: Loop, server: Server, protocol: StreamProtocol, token: bytes, fd: int, peer: bytes
    ) -> None:
        self._loop = loop
        self._server = server
        self._protocol = protocol
        self._token = token
        self._fd = fd
        self._peer = peer
        self._reading = True
        self._writable = True
        self._target = loop.add_target(self._event)
        self._loop.submissions.append(_ADOPT.pack(4, _OP_ADOPT, 0, token, self._target))

    def _event(self, record: Record) -> None:
        _, a, kind, _ = record
        if kind > 0:
            try:
                self._protocol.data_received(self._loop.arena[a : a + kind])
            except Exception:
                self.abort()  # as in asyncio: bytes are lost, so the protocol cannot go on
                raise
        elif kind == _EOF:
            try:
                stay = self._protocol.eof_received()
            except Exception:
                self.abort()
                raise
            # As in asyncio: a true answer keeps our side open.
            if not stay:
                self.close()
        elif kind == _CLOSED:
            self._lost(a)
        elif kind == _PAUSE_WRITING:
            self._protocol.pause_writing()
        else:
            self._protocol.resume_writing()

    def _lost(self, cause: int) -> None:
        self._writable = False
        self._loop.drop_target(self._target)
        self._server._forget(self)
        error: OSError | None = None
        if cause > 0:
            error = OSError(cause, f"connection with {self._peer_text()} lost: {os.strerror(cause)}")
        elif cause == _TIMED_OUT:
            error = TimeoutError(errno.ETIMEDOUT, f"connection with {self._peer_text()} timed out")
        self._protocol.connection_lost(error)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes; they are copied now and sent at the end of the turn.

        Raises:
            ConnectionClosedError: The connection is closing.
        """
        if not self._writable:
            raise ConnectionClosedError("the connection is closing: nothing more can be written")
        data = bytes(data)
        # In one step: Ctrl-C must not leave a header without its payload.
        self._loop.submissions.extend((_HEADER.pack(len(data), _OP_WRITE, 0, self._token), data))

    def writelines(self, lines: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue several pieces. Raises: as `write`."""
        self.write(b"".join(lines))

    def can_write_eof(self) -> bool:
        """Always true."""
        return True

    def write_eof(self) -> None:
        """Tell the peer, after what is queued, that no more comes. Reading goes on."""
        if self._writable:
            self._writable = False
            self._loop.submissions.append(_HEADER.pack(0, _OP_FINISH, 0, self._token))

    def close(self) -> None:
        """Send what is queued, then close. Calling this again does nothing."""
        self._writable = False
        self._loop.submissions.append(_HEADER.pack(0, _OP_CLOSE, 0, self._token))

    def abort(self) -> None:
        """Close at once, with a reset; what is queued is lost."""
        self._writable = False
        self._loop.submissions.append(_HEADER.pack(0, _OP_ABORT, 0, self._token))

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return not self._writable

    def pause_reading(self) -> None:
        """Leave what comes in the kernel, so that the peer comes to a stop. What was received in this turn is still delivered."""
        if self._reading:
            self._reading = False
            self._loop.submissions.append(_HEADER.pack(0, _OP_PAUSE, 0, self._token))

    def resume_reading(self) -> None:
        """Go on reading."""
        if not self._reading:
            self._reading = True
            self._loop.submissions.append(_HEADER.pack(0, _OP_RESUME, 0, self._token))

    def is_reading(self) -> bool:
        """Whether reading is not paused."""
        return self._reading

    def get_protocol(self) -> StreamProtocol:
        """The object that is being driven."""
        return self._protocol

    def set_protocol(self, protocol: StreamProtocol) -> None:
        """Drive another object from the next event on."""
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Facts about the connection: ``"peername"`` as asyncio gives it; ``default`` for what is not known."""
        if name == "peername":
            return self._peername() or default
        return default

    def _peername(self) -> tuple[Any, ...] | None:
        family, _, port, ip = _PEER.unpack(self._peer)
        if family == 4:
            return socket.inet_ntop(socket.AF_INET, ip[:4]), port
        if family == 6:
            return socket.inet_ntop(socket.AF_INET6, ip), port, 0, 0
        return None

    def _peer_text(self) -> str:
        name = self._peername()
        return f"{name[0]} port {name[1]}" if name else "an unnamed peer"

    def __repr__(self) -> str:
        return f"<Connection {self._peer_text()}{'' if self._writable else ' closing'}>"
