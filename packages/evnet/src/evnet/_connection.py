"""A connection as Python sees it: an asyncio-style transport whose other end is a stream in C."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

from evloop import LoopClosedError
from evnet import _link as _link
from evnet._errors import ConnectionClosedError, EvNetError, WriteQueueFullError
from evnet._facts import extra_info, keep_alive, peer_name
from evnet._inbox import Inbox, inbox_of
from evnet._lending import Sent, address_of, lender_of
from evnet._options import milliseconds, stream_options, water
from evnet._pending import Pending
from evnet._shim import ffi, lib
from evnet._tls import Session, TlsSettings, client_settings, server_settings

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable
    from socket import socket

    from evloop import Loop

__all__ = ["Connection", "StreamProtocol", "broadcast"]

_HEADER = Struct("<IHH8s")  # see evloop.h, EV_SUBMISSION_HEADER; the payloads are in shim.h
_ADOPT = Struct("<IHH8sI")
_REF = Struct("<IHH8s2QqI")
_FILE = Struct("<IHH8s2QqIi")
_CLOSE_BY = Struct("<IHH8sI")
_LIMITS = Struct("<IHH8s2Q")
_BROADCAST = Struct("<IHHQ")
_NET = 1 << 8
_OP_ADOPT, _OP_WRITE, _OP_CLOSE, _OP_ABORT, _OP_FINISH, _OP_PAUSE, _OP_RESUME = (_NET | op for op in range(1, 8))
_OP_REF, _OP_FILE, _OP_LIMITS, _OP_BROADCAST = (_NET | op for op in range(8, 12))
_HEAD = Struct("<IHH")  # of a header, in front of the token
_CLOSE, _ABORT, _FINISH, _PAUSE, _RESUME = (
    _HEAD.pack(0, op, 0) for op in (_OP_CLOSE, _OP_ABORT, _OP_FINISH, _OP_PAUSE, _OP_RESUME)
)
_EOF, _CLOSED, _PAUSE_WRITING, _RESUME_WRITING = 0, -1, -2, -3
_BY_PEER, _TIMED_OUT, _TOO_MUCH_QUEUED = -1, -2, -3

# From this length on bytes are sent from where they lie, with a crossing of their own. Shorter ones are cheaper copied.
LARGE = 32 * 1024

# What can be written in which state; nothing can be after OPEN.
OPEN, FINISHED, CLOSING, CLOSED = range(4)
_STATES = ("open", "finished", "closing", "closed")


def abort_entry(token: bytes) -> bytes:
    """What is submitted to reset the stream of a token that has no connection."""
    return _ABORT + token


def adopt(
    loop: Loop, sock: socket | int, protocol: StreamProtocol, options: Any = None, *, owner: Owner | None = None
) -> Connection:
    """Drive a protocol with a connected socket that somebody else has made; ``connection_made`` is called before this returns.

    Args:
        loop: The loop that serves it.
        sock: Connected, or its descriptor. It is made non-blocking and belongs to the connection from now on: a socket object is
            detached.
        protocol: As for `listen_tcp`.
        options: Made by `stream_options`; ``None``: the defaults.
        owner: Is told when the connection is lost.

    Raises:
        OSError: The descriptor cannot be watched. It stays the caller's.
        evloop.LoopClosedError: The loop is closed. It stays the caller's.

    Thread safety: loop thread only.
    """
    fd = sock if isinstance(sock, int) else sock.fileno()
    token, peer = take(loop, fd, stream_options() if options is None else options, blocking=True)
    if not isinstance(sock, int):
        sock.detach()
    connection = Connection(inbox_of(loop), owner, protocol, token, peer)
    connection._begin()
    return connection


def take(loop: Loop, fd: int, options: Any, *, blocking: bool = False) -> tuple[bytes, bytes]:
    """Make a stream that waits for its connection: its token, and its ``struct net_address``.

    Args:
        loop: The loop that serves it.
        fd: Connected.
        options: Made by `stream_options`.
        blocking: It may be so, and is made non-blocking.

    Raises: as `adopt`.
    """
    address = loop.address
    if blocking:
        os.set_blocking(fd, False)
    token, peer = ffi.new("uint64_t *"), ffi.new("struct net_address *")
    result = lib.evnet_adopt(address, fd, options, token, peer)
    if result < 0:
        raise OSError(-result, f"cannot watch descriptor {fd}: {os.strerror(-result)}")
    return bytes(ffi.buffer(token)), bytes(ffi.buffer(peer))


class _Heads(dict[int, bytes]):
    """What stands in front of the token when so many bytes are written: packed once, since most programs write few lengths."""

    def __missing__(self, size: int) -> bytes:
        head = _HEAD.pack(size, _OP_WRITE, 0)
        if len(self) < 1024:
            self[size] = head
        return head


_heads = _Heads()


class StreamProtocol(Protocol):
    """What a connection calls: the methods of `asyncio.Protocol`, from which a class may but need not inherit."""

    def connection_made(self, transport: Any, /) -> object: ...
    def data_received(self, data: bytes, /) -> object: ...
    def eof_received(self) -> object: ...
    def connection_lost(self, exc: Exception | None, /) -> object: ...
    def pause_writing(self) -> object: ...
    def resume_writing(self) -> object: ...


class BufferedStreamProtocol(Protocol):
    """The other kind of protocol: it gives buffers to read to, as `asyncio.BufferedProtocol` does."""

    def connection_made(self, transport: Any, /) -> object: ...
    def get_buffer(self, sizehint: int, /) -> Any: ...
    def buffer_updated(self, nbytes: int, /) -> object: ...
    def eof_received(self) -> object: ...
    def connection_lost(self, exc: Exception | None, /) -> object: ...
    def pause_writing(self) -> object: ...
    def resume_writing(self) -> object: ...


class Owner(Protocol):
    """Who keeps a set of connections, and is told of each that is lost before its protocol is."""

    def _forget(self, connection: Connection, /) -> None: ...


class _Leaving:
    """Takes the place of a connection whose stream goes over to a native protocol, for what C has told Python meanwhile."""

    __slots__ = ("_inbox", "_place", "pieces")

    def __init__(self, inbox: Inbox, place: int, pieces: list[bytes]) -> None:
        self._inbox = inbox
        self._place = place
        self.pieces = pieces

    def _unusual(self, start: int, end: int) -> None:
        self.pieces.append(self._inbox.loop.arena_view[start:end])

    def _notice(self, cause: int, kind: int) -> None:
        """Note the end, which comes when the stream is taken, too. C tells the native protocol by itself that no more will come."""
        if kind == _CLOSED:
            self._inbox.remove(self._place)


class Connection:
    """A byte stream, mostly TCP, that drives a protocol object with asyncio's methods.

    What is written is queued and sent at the end of the turn, several writes in one system call. A protocol with a method
    ``get_buffer`` is driven as `asyncio.BufferedProtocol` is: what was received is copied once, to its buffer. For all others it is
    copied once, into a ``bytes`` object of its own.

    ``connection_lost`` is called once, with ``None`` after `close`, `abort` or the peer's end, `TimeoutError` after a timeout,
    `WriteQueueFullError`, or the `OSError` that the kernel gave. Thread safety: loop thread only.
    """

    __slots__ = (
        "__weakref__",
        "_held",
        "_inbox",
        "_loop",
        "_owner",
        "_peer",
        "_place",
        "_protocol",
        "_reading",
        "_sockname",
        "_state",
        "_tls",
        "_token",
    )

    def __init__(self, inbox: Inbox, owner: Owner | None, protocol: StreamProtocol, token: bytes, peer: bytes) -> None:
        self._inbox = inbox
        self._loop = inbox.loop
        self._owner = owner
        self._protocol: Any = protocol
        self._token = token
        self._peer = peer
        self._reading = True
        self._state = OPEN
        self._sockname: Any = None  # since it was asked for
        self._tls: Session | None = None
        self._held: deque[bytes] | None = None  # received while reading was paused; b"" is the end of file
        self._place = inbox.add(self)
        inbox.protocols[self._place] = None if hasattr(protocol, "get_buffer") else protocol
        self._loop.submissions.append(_ADOPT.pack(4, _OP_ADOPT, 0, token, self._place))

    def _begin(self) -> None:
        """Tell the protocol; if it raises, the connection is aborted."""
        try:
            self._protocol.connection_made(self)
        except BaseException:
            self.abort()
            raise

    # -- what C tells ----------------------------------------------------------------------------------------------------------

    def _redirect(self) -> None:
        """Have what is received go straight to the protocol where there is nothing else to it."""
        if self._state != CLOSED:
            usual = (
                self._state < CLOSING and self._reading and not self._held and not hasattr(self._protocol, "get_buffer")
            )
            if self._tls is not None and self._tls._shaking:
                usual = False
            self._inbox.protocols[self._place] = self._protocol if usual else None

    def _unusual(self, start: int, end: int) -> None:
        """Bytes that lie in the arena are not for ``data_received``, or not now."""
        if self._state >= CLOSING:
            return  # our side has closed: nothing more is received
        if self._tls is not None and self._tls._shaking:  # what C had read before it heard of TLS is that
            self._tls.feed(self._loop.arena_view[start:end])
        elif not self._reading or self._held:
            self._hold(self._loop.arena_view[start:end])
        else:
            self._fill(memoryview(self._loop.arena_view)[start:end])

    def _hold(self, data: bytes) -> None:
        """Reading is paused: what C had read before it heard of that is kept back."""
        if self._held is None:
            self._held = deque()
        self._held.append(data)

    def _deliver_held(self) -> None:
        # Not by a local name: a callback may begin TLS, which takes what is held, or leave a rest of what it was given.
        while self._held and self._reading and self._state < CLOSING:
            data = self._held.popleft()
            if not data:
                self._ended()
            elif hasattr(self._protocol, "get_buffer"):
                self._fill(memoryview(data))
            else:
                try:
                    self._protocol.data_received(data)
                except Exception:
                    self.abort()
                    raise
        if not self._held:
            self._held = None
            self._redirect()

    def _fill(self, data: memoryview) -> None:
        """Copy to the buffers of a buffered protocol."""
        try:
            while data:
                with memoryview(self._protocol.get_buffer(len(data))).cast("B") as buffer:
                    size = min(len(buffer), len(data))
                    if not size:
                        raise RuntimeError("get_buffer() returned an empty buffer")
                    buffer[:size] = data[:size]
                data = data[size:]
                behind = self._held if data else None
                if behind:  # TLS would take that, and what is left of this comes before it
                    behind.appendleft(bytes(data))
                self._protocol.buffer_updated(size)
                if self._state >= CLOSING:
                    return
                if self._tls is not None and self._tls._shaking:  # it has begun TLS: the rest is that
                    if data and not behind:
                        self._tls.feed(bytes(data))
                    return
                if behind:
                    behind.popleft()
                if data and not (self._reading and hasattr(self._protocol, "get_buffer")):
                    break
        except Exception:
            self.abort()
            raise
        if data:  # it has paused, or another protocol has come
            if self._held is None:
                self._held = deque()
            self._held.appendleft(bytes(data))
            self._redirect()
            if self._reading:
                self._deliver_held()

    def _ended(self) -> None:
        try:
            stay = self._protocol.eof_received()
        except Exception:
            self.abort()
            raise
        # As in asyncio: a true answer keeps our side open, but has no effect with TLS.
        if not stay or self._tls is not None:
            self.close()

    def _notice(self, a: int, kind: int) -> None:
        if kind == _CLOSED:
            self._lost(a)
        elif kind == _EOF:
            if self._state < CLOSING:
                if self._tls is not None and self._tls._shaking:
                    self._tls.feed(b"")
                elif self._reading and not self._held:
                    self._ended()
                else:
                    self._hold(b"")
        elif kind == _PAUSE_WRITING:
            self._protocol.pause_writing()
        else:
            self._protocol.resume_writing()

    def _lost(self, cause: int) -> None:
        self._state = CLOSED
        self._held = None
        self._inbox.remove(self._place)
        if self._owner is not None:
            self._owner._forget(self)
        error: Exception | None = None
        if self._tls is not None and self._tls.error is not None:
            error = self._tls.error
        elif cause > 0:
            error = OSError(cause, f"connection with {self._peer_text()} lost: {os.strerror(cause)}")
        elif cause == _TIMED_OUT:
            error = TimeoutError(errno.ETIMEDOUT, f"connection with {self._peer_text()} timed out")
        elif cause == _TOO_MUCH_QUEUED:
            error = WriteQueueFullError(
                errno.ECONNABORTED,
                f"connection with {self._peer_text()} aborted: more is queued than max_queued allows",
            )
        self._protocol.connection_lost(error)

    # -- writing ---------------------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes; they are sent at the end of the turn.

        A large ``bytes`` object is sent from where it lies and kept alive until then; everything else is copied now, so that a
        ``bytearray`` may be changed afterwards. Of each piece counts that it is queued, whichever way: see ``max_queued`` of
        `listen_tcp`.

        Raises:
            ConnectionClosedError: The connection is closing, or `write_eof` was called.
            TypeError: This is no bytes-like object.
        """
        if self._state:
            self._refuse()
        if type(data) is not bytes:
            data = bytes(memoryview(data))
        size = len(data)
        if size < LARGE:
            # In one step: Ctrl-C must not leave a header without its payload.
            self._loop.submissions.extend((_heads[size], self._token, data))
        else:
            self._write_large(data, size)

    def writelines(self, lines: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue several pieces; they are sent with one system call, and not joined before. Raises: as `write`."""
        if self._state:
            self._refuse()
        entries: list[bytes] = []
        small: list[bytes] = []
        for line in lines:
            data = line if line.__class__ is bytes else bytes(memoryview(line))
            if len(data) < LARGE:
                small.append(data)
                continue
            if small:
                self._copied(entries, small)
                small = []
            entries.append(self._lend(data))
        if small:
            self._copied(entries, small)
        self._loop.submissions.extend(entries)

    def _copied(self, entries: list[bytes], pieces: list[bytes]) -> None:
        """Add one entry whose payload is in pieces."""
        entries.append(_HEADER.pack(sum(map(len, pieces)), _OP_WRITE, 0, self._token))
        entries += pieces

    def _write_large(self, data: bytes, size: int) -> None:
        """Hand over to the kernel what it takes at once, and lend C the rest.

        Kept until the end of the batch, the large objects of all its connections would be more memory than the processor's cache
        holds, and malloc would fetch it from the kernel and give it back in every turn: 64 KiB cost three times as much.
        """
        loop = self._loop
        if loop.submissions:
            loop.flush()
        try:
            taken = lib.evnet_send_now(loop.address, self._number(), data, size)
        except LoopClosedError:  # nothing that is written then is sent
            return
        if taken < size:
            loop.submissions.append(self._lend(data, taken))

    def _lend(self, data: bytes, start: int = 0) -> bytes:
        lender = lender_of(self._loop)
        number = lender.lend(data)
        address = address_of(data) + start
        return _REF.pack(28, _OP_REF, 0, self._token, address, len(data) - start, number, lender.target)

    def send_file(self, file: Any, offset: int = 0, count: int | None = None, *, sent: Sent | None = None) -> None:
        """Queue a part of a file, in order with what is written, without copying it through Python.

        Args:
            file: A regular file: an object with ``fileno()``, or a descriptor. It is duplicated, so it may be closed at once.
            offset: The first byte to send; where the file object stands does not matter and is not changed.
            count: How many; ``None``: to the end that the file has now.
            sent: Is called once, before ``connection_lost``: with ``None`` when the kernel has taken the last byte, or with an
                exception when it never will.

        A file that has become shorter when its turn comes ends the connection, with an `OSError` (EIO): the peer was promised more.
        Files do not count for ``max_queued``, since they hold no memory; for `set_write_buffer_limits` they do.

        Raises:
            ConnectionClosedError: As of `write`.
            evloop.LoopClosedError: The loop is closed; unlike `write`, which does nothing then, this would owe an answer.
            OSError: The descriptor is not open.
            ValueError: This is no regular file, or it does not have so many bytes.
        """
        if self._state:
            self._refuse()
        self._loop.address  # noqa: B018 - raises if the loop is closed
        fd = file if isinstance(file, int) else file.fileno()
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"descriptor {fd} is not a regular file")
        if offset < 0 or (count is not None and count < 0):
            raise ValueError(f"offset and count must be >= 0, not {offset!r} and {count!r}")
        if count is None:
            count = max(status.st_size - offset, 0)
        elif offset + count > status.st_size:
            raise ValueError(f"the file has {status.st_size} bytes, not {count} from {offset} on")
        lender = lender_of(self._loop)
        copy = os.dup(fd)
        number = lender.lend(sent)
        self._loop.submissions.append(
            _FILE.pack(32, _OP_FILE, 0, self._token, offset, count, number, lender.target, copy)
        )

    def can_write_eof(self) -> bool:
        """Whether our side can be shut down alone: not with TLS, as in asyncio."""
        return self._tls is None

    def write_eof(self) -> None:
        """Tell the peer, after what is queued, that no more comes. Reading goes on.

        Raises:
            NotImplementedError: The connection has TLS; as in asyncio.
        """
        if self._tls is not None:
            raise NotImplementedError("a connection with TLS has no half that could be shut down alone")
        if not self._state:
            self._state = FINISHED
            self._loop.submissions.append(_FINISH + self._token)

    def _refuse(self) -> None:
        if self._state == FINISHED:
            raise ConnectionClosedError("our side was shut down by write_eof: nothing more can be written")
        raise ConnectionClosedError(f"the connection is {self.state}: nothing more can be written")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when the protocol is told to pause writing: at the end of a turn with more than ``high`` bytes queued that the kernel
        does not take, until not more than ``low`` are left. Defaults as in asyncio: 64 KiB, and a quarter of ``high``.

        Raises:
            ValueError: Not ``high >= low >= 0``.
            TypeError: They are no integers.
        """
        high, low = water(high, low)
        self._loop.submissions.append(_LIMITS.pack(16, _OP_LIMITS, 0, self._token, high, low))

    def get_write_buffer_size(self) -> int:
        """How many bytes are queued, files included, that the kernel has not taken. Sends what was written in this turn."""
        if self._state == CLOSED or self._loop.is_closed():
            return 0
        self._loop.flush()
        return lib.evnet_queued(self._loop.address, self._number())

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The limits ``(low, high)``, in this order, as asyncio has it."""
        if self._state == CLOSED or self._loop.is_closed():
            return 0, 0
        self._loop.flush()
        low, high = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        lib.evnet_limits(self._loop.address, self._number(), low, high)
        return low[0], high[0]

    def _number(self) -> int:
        return int.from_bytes(self._token, "little")

    # -- ends ------------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Send what is queued, then close; nothing more is received. Calling this again does nothing."""
        if self._state < CLOSING:
            self._state = CLOSING
            self._inbox.protocols[self._place] = None
            self._loop.submissions.append(_CLOSE + self._token)

    def close_after(self, timeout: float) -> None:
        """Like `close`, but what is not sent after so many seconds is given up, with a reset and a `TimeoutError`.

        Raises:
            ValueError: ``timeout`` is not a positive number.
        """
        limit = milliseconds("timeout", timeout)
        self.close()
        if self._state == CLOSING and limit:
            self._loop.submissions.append(_CLOSE_BY.pack(4, _OP_CLOSE, 0, self._token, limit))

    def abort(self) -> None:
        """Close at once, with a reset; what is queued is lost."""
        if self._state != CLOSED:
            self._state = CLOSING
            self._inbox.protocols[self._place] = None
            self._loop.submissions.append(_ABORT + self._token)

    def is_closing(self) -> bool:
        """Whether the connection is closing or closed."""
        return self._state >= CLOSING

    @property
    def state(self) -> str:
        """``"open"``; ``"finished"`` after `write_eof`; ``"closing"``; ``"closed"`` from ``connection_lost`` on."""
        return _STATES[self._state]

    # -- reading ---------------------------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Leave what comes in the kernel, so that the peer comes to a stop; nothing is received until `resume_reading`."""
        if self._reading and self._state < CLOSING:
            self._reading = False
            self._redirect()
            self._loop.submissions.append(_PAUSE + self._token)

    def resume_reading(self) -> None:
        """Go on reading."""
        if not self._reading:
            self._reading = True
            if self._state < CLOSING:
                self._loop.submissions.append(_RESUME + self._token)
                if self._held:
                    self._loop.call_soon(self._deliver_held)
                else:
                    self._redirect()

    def is_reading(self) -> bool:
        """Whether reading is neither paused nor over."""
        return self._reading and self._state < CLOSING

    # -- for native protocols --------------------------------------------------------------------------------------------------

    def hand_over(self, taker: Callable[[bytes, bytes], object], rest: bytes = b"") -> None:
        """Leave the stream to a native protocol, as after an answer that agrees to another protocol.

        This object is closed from now on, and its protocol is told of nothing more.

        Args:
            taker: ``taker(token, rest)`` is called from the loop, when what C has already told of the stream has come. It submits
                an operation for which C takes the stream (``evnet.h``, ``take``).
            rest: Bytes that were received and belong to the native protocol; what comes until then is put behind them.

        Raises:
            ConnectionClosedError: The connection is not open.
        """
        if self._state:
            self._refuse()
        self._state = CLOSED
        loop, inbox, place, token = self._loop, self._inbox, self._place, self._token
        leaving = _Leaving(inbox, place, [rest, *(self._held or ())])
        self._held = None

        def hand() -> None:
            try:
                taker(token, b"".join(leaving.pieces))
            except BaseException:
                loop.submissions.append(abort_entry(token))  # finds nothing if it has been taken all the same
                raise

        inbox.protocols[place] = None
        inbox.connections[place] = leaving
        loop.defer(hand)

    # -- TLS -------------------------------------------------------------------------------------------------------------------

    def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Pending[Connection]:
        """Go on with TLS, as STARTTLS does: what comes from here on is taken for TLS, and nothing of it for plain bytes.

        What was written before goes out as it was; what is written from now on, when the handshake is done. The protocol stays
        the same; one that is to see only what has come by TLS is set by `set_protocol` before this returns to the loop.

        Args:
            context: As `asyncio.loop.start_tls` takes it.
            server_side: Who began the connection does not matter; usually true on the side that has accepted it.
            server_hostname: Of the client's side: what the certificate must be for, if the context checks it; an empty one is not
                checked.
            ssl_handshake_timeout: Seconds, 60 by default.
            ssl_shutdown_timeout: Seconds for the peer's answer to our close_notify, 30 by default.

        Returns:
            A `Pending`, whose result is this connection. If the handshake fails, its exception is also that of
            ``connection_lost``: an `ssl.SSLError`, `ConnectionResetError` if the peer went away, or `TimeoutError`.

        Raises:
            ConnectionClosedError: The connection is closing, or `write_eof` was called.
            EvNetError: It has TLS already.
            ValueError: An argument is out of range.
            TypeError: This is no context.
        """
        if self._state:
            self._refuse()
        if self._tls is not None:
            raise EvNetError("the connection has TLS already")
        settings: TlsSettings | None
        if server_side:
            settings = server_settings(context, ssl_handshake_timeout, ssl_shutdown_timeout)
        else:
            settings = client_settings(context, server_hostname, None, ssl_handshake_timeout, ssl_shutdown_timeout)
        if settings is None:
            raise TypeError(f"context must be an ssl.SSLContext, not {context!r}")
        pending: Pending[Connection] = Pending(self._loop)
        self._begin_tls(settings, pending._finish, pending._fail)
        return pending

    def _begin_tls(
        self, settings: TlsSettings, made: Callable[[Connection], object], failed: Callable[[Exception], object]
    ) -> None:
        def shaken(session: Session) -> None:
            if session.error is not None:
                failed(session.error)
                return
            self._redirect()
            made(self)

        self._tls = tls = Session(self._loop, self._token, settings, shaken)
        held, self._held = self._held, None
        for data in held or ():
            tls.feed(data)
        self._redirect()
        self._loop.flush()  # C reads no plain bytes after this

    # -- facts -----------------------------------------------------------------------------------------------------------------

    def get_protocol(self) -> Any:
        """The object that is being driven."""
        return self._protocol

    def set_protocol(self, protocol: StreamProtocol | BufferedStreamProtocol) -> None:
        """Drive another object, of either kind, from the next event on."""
        self._protocol = protocol
        self._redirect()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Facts about the connection; ``default`` for what is not known.

        ``"peername"`` and ``"sockname"`` as asyncio gives them, ``"socket"``, a `SocketView`, which has the methods of asyncio's
        ``TransportSocket``, and ``"peercred"``, a `PeerCredentials` for unix sockets. With TLS also
        asyncio's ``"ssl_object"``, ``"sslcontext"``, ``"peercert"``, ``"cipher"`` and ``"compression"``, and ``"tls_engine"``,
        which is ``"openssl"`` or ``"portable"``. After the end those of TLS and ``"peername"`` are left, and ``"sockname"`` if it
        was asked for before: knowing it in any case would cost each connection a system call.
        """
        value = extra_info(self, name)
        return default if value is None else value

    def set_keep_alive(
        self, idle: float | None = None, *, interval: float | None = None, count: int | None = None
    ) -> None:
        """Have the kernel probe a TCP peer that is silent, and end the connection with a `TimeoutError` if it is gone.

        Args:
            idle: Whole seconds of silence before the first probe; ``None`` leaves the system's, as below.
            interval: Whole seconds between probes.
            count: So many without an answer end the connection.

        Raises:
            OSError: The connection has ended, or the system refuses.
        """
        keep_alive(self, idle, interval, count)

    def _peer_text(self) -> str:
        name = peer_name(self._peer)
        return f"{name[0]} port {name[1]}" if name else "an unnamed peer"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._peer_text()} {self.state}>"


def broadcast(connections: Iterable[Connection], data: bytes | bytearray | memoryview) -> None:
    """Write the same bytes to many connections of one loop: one submission, and no copy for those that take them at once.

    Connections that are closing are left out. What a connection's queue does not let through now is copied for it.

    Raises:
        ValueError: The connections belong to different loops.

    Thread safety: loop thread only.
    """
    everybody = [connection for connection in connections if not connection._state]
    if not everybody:
        return
    loop = everybody[0]._loop
    if any(connection._loop is not loop for connection in everybody):
        raise ValueError("the connections belong to different loops")
    payload = data if data.__class__ is bytes else bytes(memoryview(data))
    tokens = b"".join([connection._token for connection in everybody])
    size = len(tokens) + len(payload)
    loop.submissions.extend((_BROADCAST.pack(size, _OP_BROADCAST, 0, len(everybody)), tokens, payload))
