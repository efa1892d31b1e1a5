"""One message for many WebSockets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import TYPE_CHECKING

from evloop import LoopClosedError
from evws._frames import Buffer, Opcode, bytes_of, encode_frame
from evws._shim import ffi
from evws._socket import State, WebSocket

if TYPE_CHECKING:
    from evloop import Loop

__all__ = ["Group", "broadcast"]

_OP_BROADCAST = 3 << 8 | 17
_HEADER = Struct("<IHHQQQQQII")  # payload length, operation, header length, count; struct evw_broadcast of shim.h
_RECORD = 40
_FAILED, _PINNED = 1, 2
_OPEN = State.OPEN


def broadcast(sockets: Iterable[WebSocket], message: str | Buffer, *, timeout: float | None = None) -> list[WebSocket]:
    """Send a message to many: text for ``str``, binary for anything else. Its frame is made once.

    It is compressed once for all whose agreement about compression says that no message refers to another
    (``no_context_takeover``), and not at all for the others. One crossing into C for each of these sets hands it to the kernel for
    all of them. What a receiver does not take now is queued for it, without a copy of its own if it is large, so that slow
    receivers keep nobody waiting.

    Args:
        sockets: The receivers, of any loops; those in the client's role send it masked. Those that are closing are left out.
        message: What to send.
        timeout: Seconds after which a receiver that has not taken the message is aborted, with a `TimeoutError` for ``on_error``.
            One that was still busy with a former broadcast has up to three times as long. ``None``: only `Limits` has its patience.

    Returns:
        Those that do not get it: they are not open, or their queue is full, with the consequences of ``when_full`` in `Limits`.
        Of sockets on other loops than the one that runs in this thread only the former: the message is passed to their loops.

    Raises:
        ValueError: ``timeout`` is not a positive number.

    Thread safety: any thread.
    """
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds > 0, not {timeout!r}")
    limit = 0 if timeout is None or timeout == math.inf else math.ceil(min(timeout * 1000, 0xFFFF_FFFF))
    failed: list[WebSocket] = []
    by_loop: dict[Loop, list[WebSocket]] = {}
    for socket in sockets:
        if socket._state is not _OPEN:
            failed.append(socket)
        elif (some := by_loop.get(socket._loop)) is not None:
            some.append(socket)
        else:
            by_loop[socket._loop] = [socket]
    if not by_loop:
        return failed
    opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
    data = bytes_of(message)
    for loop, receivers in by_loop.items():
        if loop.is_current():
            failed += _send(loop, receivers, opcode, data, limit)
        else:
            try:
                loop.call_soon_threadsafe(_send_to_open, loop, receivers, opcode, data, limit)
            except LoopClosedError:
                failed += receivers
    return failed


def _send_to_open(loop: Loop, sockets: list[WebSocket], opcode: Opcode, data: bytes, timeout: int) -> None:
    _send(loop, [socket for socket in sockets if socket._state is _OPEN], opcode, data, timeout)


def _send(loop: Loop, sockets: list[WebSocket], opcode: Opcode, data: bytes, timeout: int) -> list[WebSocket]:
    """Send a message to open sockets of one loop, compressed once for each set of parameters; those that do not get it.

    A compressor that refers to earlier messages belongs to one connection; there it goes as it is, which RFC 7692 §6 allows.
    """
    plain: list[WebSocket] = []
    alike: dict[tuple[int, int, int], list[WebSocket]] = {}
    for socket in sockets:
        codec = socket._codec
        if codec is None or codec.shared_by is None or len(data) < codec.threshold:
            plain.append(socket)
        else:
            alike.setdefault(codec.shared_by, []).append(socket)
    failed: list[WebSocket] = []
    for some in alike.values():
        codec = some[0]._codec
        compressed = codec.deflate(data) if codec is not None else None
        if compressed is None:
            plain += some
        else:
            failed += _submit(loop, some, encode_frame(opcode, compressed, rsv1=True), timeout)
    return failed + _submit(loop, plain, encode_frame(opcode, data), timeout)


def _submit(loop: Loop, sockets: list[WebSocket], frame: bytes, timeout: int) -> list[WebSocket]:
    """Send a frame to open sockets of one loop; those that do not get it."""
    if not sockets:
        return []
    count = len(sockets)
    pins = sockets[0]._endpoint.pins
    results = ffi.new("uint8_t[]", count)
    ffi.buffer(results)[:] = bytes((_FAILED,)) * count
    # Kept from before C hears of it: Ctrl-C may come between any two steps.
    pin = pins.keep((frame, results), count)
    size = len(frame)
    header = _HEADER.pack(
        _RECORD + 8 * count,
        _OP_BROADCAST,
        _header_size(size),
        count,
        int(ffi.cast("uintptr_t", results)),
        int(ffi.cast("uintptr_t", ffi.from_buffer("char[]", frame))),
        size,
        pin,
        pins.target,
        timeout,
    )
    loop.submissions.append(header + b"".join([socket._token for socket in sockets]))
    loop.flush()
    outcome = bytes(ffi.buffer(results))
    pins.let_go(pin, count - outcome.count(_PINNED))
    if _FAILED not in outcome:
        return []
    return [socket for socket, result in zip(sockets, outcome, strict=True) if result == _FAILED]


def _header_size(size: int) -> int:
    """How much of an unmasked frame is its header."""
    return 2 if size <= 2 + 125 else 4 if size <= 4 + 0xFFFF else 10


class Group:
    """WebSockets that get the same messages. Who closes is not in it any more.

    ::

        everybody = evws.Group()
        evws.Server(on_open=everybody.add, on_message=lambda ws, message: everybody.send(message))

    Thread safety: any thread, but `add`: loop thread of the socket only.
    """

    __slots__ = ("__weakref__", "_members")

    def __init__(self) -> None:
        self._members: set[WebSocket] = set()

    def add(self, socket: WebSocket) -> None:
        """Take a WebSocket in, until it is closed; one that is closed already is not. It fits as an ``on_open``."""
        if socket._state is not State.CLOSED:
            if socket._groups is None:
                socket._groups = set()
            socket._groups.add(self)
            self._members.add(socket)

    def discard(self, socket: WebSocket) -> None:
        """Leave a WebSocket out, if it is in."""
        self._members.discard(socket)
        groups = socket._groups
        if groups is not None:
            groups.discard(self)

    def send(
        self, message: str | Buffer, *, timeout: float | None = None, without: WebSocket | None = None
    ) -> list[WebSocket]:
        """Send a message to all, or to all but one: as `broadcast`."""
        members = list(self._members)
        if without is not None:
            members = [socket for socket in members if socket is not without]
        return broadcast(members, message, timeout=timeout)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[WebSocket]:
        return iter(list(self._members))

    def __contains__(self, socket: object) -> bool:
        return socket in self._members

    def __repr__(self) -> str:
        return f"<Group of {len(self._members)}>"
