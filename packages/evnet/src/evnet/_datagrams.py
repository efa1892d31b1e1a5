"""A datagram socket as Python sees it: an asyncio-style transport whose other end is in C."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, Any, Protocol

from evnet import _link as _link
from evnet._errors import ConnectionClosedError
from evnet._multicast import Multicast
from evnet._options import HIGH_WATER, water
from evnet._packed import address_text, pack_address, unpack_address
from evnet._shim import ffi, lib
from evnet._socketview import SocketView

if TYPE_CHECKING:
    from evloop import Loop, Record

__all__ = ["DatagramProtocol", "DatagramStats", "DatagramTransport"]

_HEADER = Struct("<IHH8s")  # see evloop.h, EV_SUBMISSION_HEADER
_REST = Struct("<HH8s")  # what follows the length
_LENGTH = Struct("<I")
_LIMITS = Struct("=QQ")
_STATS = Struct("=8Q")
_ENTRY = Struct("=III")
_NAME = Struct("=HH")
_ERROR = Struct("=iIII")
_OP_SEND, _OP_CLOSE, _OP_ABORT, _OP_LIMITS = (1 << 8 | op for op in range(64, 68))
_IS_ERROR, _PAUSE_WRITING, _RESUME_WRITING = 0, -1, -2
_SENDING, _NETWORK, _TOO_LONG, _RECEIVING = range(4)
_CONNECTED, _ONE_BY_ONE = 1, 2
_PLACES = 256  # of senders' addresses, see net_peers in udp.h
_HEADS = 1024  # destinations whose packed address is kept


class DatagramProtocol(Protocol):
    """What a datagram transport calls: the methods of `asyncio.DatagramProtocol`, from which a class may but need not inherit."""

    def connection_made(self, transport: Any, /) -> object: ...
    def datagram_received(self, data: bytes, addr: Any, /) -> object: ...
    def error_received(self, exc: OSError, /) -> object: ...
    def connection_lost(self, exc: Exception | None, /) -> object: ...
    def pause_writing(self) -> object: ...
    def resume_writing(self) -> object: ...


@dataclass(frozen=True, slots=True)
class DatagramStats:
    """What a datagram transport has done so far; see `DatagramTransport.stats`."""

    received: int
    """Datagrams given to the protocol."""
    received_bytes: int
    sent: int
    """Datagrams that the kernel took."""
    sent_bytes: int
    queued: int
    """Bytes that wait because the kernel refused them: see `DatagramTransport.get_write_buffer_size`."""
    dropped: int
    """Datagrams that were not sent: the queue was full, the kernel refused them for good, or the transport was aborted."""
    truncated: int
    """Datagrams that came and were longer than ``max_datagram_size``."""
    errors: int
    """Calls of ``error_received``."""


class DatagramTransport(Multicast):
    """A datagram socket that drives a protocol object with asyncio's methods. Made by `bind_udp`, `connect_udp`, `open_datagram`.

    What is sent is handed to the kernel at the end of the turn, many datagrams in one system call. Thread safety: loop thread only.
    """

    __slots__ = (
        "_closing",
        "_connected",
        "_family",
        "_fd",
        "_heads",
        "_limits",
        "_loop",
        "_max_queued",
        "_max_size",
        "_peername",
        "_peers",
        "_protocol",
        "_sockname",
        "_stats",
        "_target",
        "_token",
    )

    def __init__(
        self, loop: Loop, protocol: DatagramProtocol, sock: socket.socket, max_size: int, max_queued: int, calls: int
    ) -> None:
        self._loop = loop
        self._protocol = protocol
        self._family = sock.family
        self._max_size = max_size
        self._max_queued = max_queued
        self._sockname = sock.getsockname()
        self._connected, self._peername = _peer(sock)
        self._peers: list[Any] = [self._peername] if self._connected else [None] * _PLACES
        self._heads: dict[Any, bytes] = {}
        self._limits = (HIGH_WATER // 4, HIGH_WATER)
        self._stats = ffi.new("struct evnet_udp_stats *")
        self._closing = False
        self._fd = sock.fileno()
        address = loop.address
        self._target = loop.add_target(self._event)
        self._token: bytes = b""
        try:
            self._token = self._open(address, calls)
        except BaseException:
            loop.drop_target(self._target)
            raise
        sock.detach()  # C closes it

    def _open(self, loop: int, calls: int) -> bytes:
        token = ffi.new("uint64_t *")
        options = ffi.new("struct evnet_udp_options *")
        options.family = self._family
        options.options = (_CONNECTED if self._connected else 0) | calls
        options.target = self._target
        options.most, options.limit = self._max_size, self._max_queued
        options.low, options.high = self._limits
        options.stats = self._stats
        result = lib.evnet_udp_open(loop, self._fd, options, token)
        if result < 0:
            raise OSError(-result, f"cannot watch the socket of {address_text(self._sockname)}: {os.strerror(-result)}")
        return int(token[0]).to_bytes(8, "little")

    # -- what comes ------------------------------------------------------------------------------------------------------------

    def _event(self, record: Record) -> None:
        _, offset, kind, _ = record
        if kind <= 0:
            self._other(offset, kind)
            return
        arena = self._loop.arena
        count = kind & 0xFFFF
        table_end = offset + count * 12
        if kind > 0xFFFF:
            self._learn(arena, table_end, kind >> 16)
        if count == 1:
            if not self._closing:
                start, end, place = _ENTRY.unpack_from(arena, offset)
                try:
                    self._protocol.datagram_received(arena[start:end], self._peers[place])
                except Exception as error:
                    self._report(error)
        else:
            self._deliver(arena, _ENTRY.iter_unpack(arena[offset:table_end]))

    def _learn(self, arena: bytes, at: int, count: int) -> None:
        """Take down the addresses that have got a place."""
        for _ in range(count):
            place, size = _NAME.unpack_from(arena, at)
            at += _NAME.size + size
            self._peers[place] = unpack_address(arena[at - size : at])

    def _deliver(self, arena: bytes, entries: Iterator[tuple[int, int, int]]) -> None:
        """Call the protocol for each datagram, and send what it has submitted whenever that has taken long."""
        received, peers = self._protocol.datagram_received, self._peers

        def deliver(entries: Iterator[tuple[int, int, int]]) -> None:
            try:
                for start, end, place in entries:
                    if self._closing:
                        return
                    received(arena[start:end], peers[place])
            except Exception as error:
                self._report(error)

        try:
            self._loop.pace(entries, deliver)
        except BaseException:  # an interrupt: the others come when the loop runs again
            self._loop.defer(self._deliver, arena, entries)
            raise

    def _other(self, offset: int, kind: int) -> None:
        if kind == _IS_ERROR:
            if not self._closing:
                self._protocol.error_received(self._error(offset))
        elif kind == _PAUSE_WRITING:
            self._protocol.pause_writing()
        elif kind == _RESUME_WRITING:
            self._protocol.resume_writing()
        else:
            self._lost(offset)

    def _error(self, offset: int) -> OSError:
        number, what, size, length = _ERROR.unpack_from(self._loop.arena, offset)
        offset += _ERROR.size
        address = unpack_address(self._loop.arena[offset : offset + length]) if length else self._peername
        who, why = address_text(address), os.strerror(number)
        if what == _SENDING:
            return OSError(number, f"cannot send {size} bytes to {who}: {why}")
        if what == _TOO_LONG:
            came = f"a datagram of {size} bytes" if size else "a datagram"
            return OSError(number, f"{came} came from {who}, longer than {self._max_size} bytes: {why}")
        if what == _NETWORK or self._connected:
            return OSError(number, f"what was sent to {who} did not arrive: {why}")
        return OSError(number, f"cannot receive on {address_text(self._sockname)}: {why}")

    def _lost(self, cause: int) -> None:
        self._stop()
        self._fd = -1
        self._loop.drop_target(self._target)
        error: OSError | None = None
        if cause:
            error = OSError(cause, f"socket of {address_text(self._sockname)} lost: {os.strerror(cause)}")
        self._protocol.connection_lost(error)

    def _report(self, error: Exception) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"exception in {type(self._protocol).__qualname__}.datagram_received",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    # -- what goes -------------------------------------------------------------------------------------------------------------

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        """Send a datagram, which may be empty; it is copied now and sent at the end of the turn.

        Datagrams that the kernel refuses for good, such as one that is too long (``EMSGSIZE``), are dropped and reported to
        ``error_received``; those for which it has no room yet are queued, and dropped and counted when the queue is full.

        Args:
            data: The bytes.
            addr: ``(host, port)`` with a numeric host, and for IPv6 flow label and scope id if wanted; the path of a unix socket.
                ``None`` where the socket is connected.

        Raises:
            TypeError: ``data`` is not bytes-like, or ``addr`` has not this form.
            ValueError: ``addr`` is missing, of another family, or not what the socket is connected to; or 4 GiB of data.
            ConnectionClosedError: The transport is closing.
        """
        if type(data) is not bytes:
            data = _bytes(data)
        try:
            head = self._heads[addr]
        except (KeyError, TypeError):
            head = self._head(addr)
        try:
            length = _LENGTH.pack(len(head) - 12 + len(data))
        except StructError:
            raise ValueError(f"no datagram has {len(data)} bytes") from None
        # In one step: Ctrl-C must not leave a header without its payload.
        self._loop.submissions.extend((length, head, data))

    def _head(self, addr: Any) -> bytes:
        """The header behind the length, and the address, of what goes to ``addr``; they are kept for the next time."""
        if self._closing:
            raise ConnectionClosedError("the transport is closing: nothing more can be sent")
        packed = b""
        if self._connected:
            if addr is not None and addr != self._peername:
                raise ValueError(f"this socket is connected to {address_text(self._peername)}, and sends nowhere else")
        elif addr is None:
            raise ValueError("this socket is not connected: an address is needed")
        else:
            packed = pack_address(self._family, addr)
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        head = _REST.pack(_OP_SEND, len(packed), self._token) + packed
        self._heads[addr] = head
        return head

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Call ``pause_writing`` when more than ``high`` bytes are queued, ``resume_writing`` when ``low`` or fewer are.

        Args:
            high: By default four times ``low``, or 64 KiB.
            low: By default a quarter of ``high``.

        Raises:
            ValueError: Not ``high >= low >= 0``.
            TypeError: They are no integers.
        """
        high, low = water(high, low)
        self._limits = (low, high)
        self._submit(_OP_LIMITS, _LIMITS.pack(high, low))

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """``low`` and ``high``, as asyncio gives them."""
        return self._limits

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has refused so far; what this turn has sent is offered to it first.

        Each datagram counts with its address and a few bytes more, about 40 in all.
        """
        return self.stats().queued

    def stats(self) -> DatagramStats:
        """Counts since the transport was made; what this turn has sent is offered to the kernel first."""
        self._loop.flush()
        return DatagramStats(*_STATS.unpack(ffi.buffer(self._stats)))

    # -- its end ---------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Receive nothing more, send what is queued, then close. Calling this again does nothing."""
        if not self._closing:
            self._stop()
            self._submit(_OP_CLOSE)

    def abort(self) -> None:
        """Close at once; what is queued is lost."""
        self._stop()
        if self._fd >= 0:
            self._submit(_OP_ABORT)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._closing

    def _stop(self) -> None:
        self._closing = True
        self._heads.clear()

    def _submit(self, op: int, payload: bytes = b"") -> None:
        self._loop.submissions.append(_HEADER.pack(len(payload), op, 0, self._token) + payload)

    # -- facts -----------------------------------------------------------------------------------------------------------------

    def get_protocol(self) -> DatagramProtocol:
        """The object that is being driven."""
        return self._protocol

    def set_protocol(self, protocol: DatagramProtocol) -> None:
        """Drive another object from the next event on."""
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Facts about the socket; ``default`` for what is not known.

        ``"sockname"`` and ``"peername"`` (of a connected socket) are as asyncio gives them, ``"socket"`` is a `SocketView`.
        """
        if name == "sockname":
            return self._sockname
        if name == "peername":
            return default if self._peername is None else self._peername
        if name == "socket":
            return self._view()
        return default

    def _view(self) -> SocketView:
        return SocketView(self._fileno, self._family, socket.SOCK_DGRAM)

    def _fileno(self) -> int:
        return -1 if self._loop.is_closed() else self._fd

    def __repr__(self) -> str:
        peer = f" connected to {address_text(self._peername)}" if self._peername else ""
        return f"<DatagramTransport {address_text(self._sockname)}{peer}{' closing' if self._closing else ''}>"


def _bytes(data: Any) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"a datagram is bytes, a bytearray or a memoryview, not {type(data).__name__}")
    return bytes(data)


def _peer(sock: socket.socket) -> tuple[bool, Any]:
    """Whether the socket is connected, and to whom, which of a unix socket may be nobody that has a name."""
    try:
        return True, sock.getpeername() or None
    except OSError:
        return False, None
