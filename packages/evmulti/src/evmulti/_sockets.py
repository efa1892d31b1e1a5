"""WebSocket messages for handlers that block: each socket's in order, on the threads of a pool."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypedDict

from evhttp import Relay, Request
from evloop import LoopClosedError
from evmulti._connections import Connection, Connections
from evws import CloseCode, ConnectionClosedError, State, WebSocket

if TYPE_CHECKING:
    from evloop import Loop
    from evmulti._log import Log
    from evmulti._pool import Pool

__all__ = ["Callbacks", "PooledSocket", "Strands"]

_AGAIN = 0.1  # seconds between two attempts to find a thread for `on_close`
_STRIDE = 16  # messages of one socket that a thread deals with before others have their turn

Buffer = bytes | bytearray | memoryview


class Callbacks(TypedDict):
    """What `evws.Server` and `evws.upgrade` take."""

    on_message: Callable[[WebSocket, Any], object]
    on_open: Callable[[WebSocket], object]
    on_close: Callable[[WebSocket, int, str], object]


class PooledSocket:
    """A WebSocket in the hands of a pool: what `evws.WebSocket` is, for any thread.

    What is sent goes to the loop's thread, which is woken once for all that is ready, and from there in the order in which it was
    given. If the connection closes before, it is dropped.

    Thread safety: any thread.

    Attributes:
        request: The request that asked for it.
        subprotocol: The one that was agreed on, or ``None``.
        connection: The connection, with flags and a context.
    """

    __slots__ = ("__weakref__", "_gone", "_loop", "_ws", "connection", "request", "subprotocol")

    def __init__(self, ws: WebSocket, connection: Connection, loop: Loop) -> None:
        self._ws = ws
        self._loop = loop
        self._gone = threading.Event()
        self.connection: Connection = connection
        self.request: Request = ws.request
        self.subprotocol: str | None = ws.subprotocol

    @property
    def state(self) -> State:
        """Where the connection stands, as far as the loop knows."""
        return self._ws.state

    def send(self, message: str | Buffer) -> None:
        """Send a message: text for ``str``, binary for anything else.

        Raises:
            evws.ConnectionClosedError: The connection is closing or closed.
            TypeError: The message is of another type.
        """
        if not isinstance(message, str | bytes):
            if not isinstance(message, bytearray | memoryview):
                raise TypeError(f"a message must be str or bytes-like, not {type(message).__name__}")
            message = bytes(message)  # now: it may be changed before it is sent
        if self._ws.state is not State.OPEN:
            raise ConnectionClosedError(f"the connection is {self._ws.state.name.lower()}: nothing more can be sent")
        self.call(self._send, message)

    def close(self, code: int | None = CloseCode.NORMAL, reason: str = "") -> None:
        """Begin the closing handshake, behind what was sent before; as `evws.WebSocket.close`."""
        self.call(self._ws.close, code, reason)

    def abort(self) -> None:
        """End the connection at once, with a reset."""
        self.call(self._ws.abort)

    def call(self, callback: Callable[..., object], *args: object) -> None:
        """Call ``callback(*args)`` on the loop's thread; not if the loop is closed."""
        with suppress(LoopClosedError):
            self._loop.call_soon_threadsafe(callback, *args)

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        """Call ``callback()`` on the loop's thread ``delay`` seconds from now. Thread safety: loop thread only."""
        self._loop.call_later(delay, callback)

    def _send(self, message: str | bytes) -> None:
        if self._ws.state is State.OPEN:
            self._ws.send(message)

    def __repr__(self) -> str:
        return f"<PooledSocket of {self.connection!r} {self.state.name.lower()}>"


class Strand:
    """The messages of one socket that wait: one thread at a time takes them, in their order. A task for a pool."""

    __slots__ = ("_calls", "_lock", "_running", "_strands", "connection", "socket")

    def __init__(self, strands: Strands, socket: PooledSocket) -> None:
        self._strands = strands
        self._lock = threading.Lock()
        self._calls: deque[tuple[Any, ...]] = deque()
        self._running = False
        self.socket = socket
        self.connection = socket.connection

    @property
    def request(self) -> Request:
        """The handshake's: for `evmulti.context`."""
        return self.socket.request

    @property
    def client_gone(self) -> bool:
        """Whether the connection is closed."""
        return self.socket._gone.is_set()

    def wait_gone(self, seconds: float) -> bool:
        """Wait for the connection to close; whether it has."""
        return self.socket._gone.wait(seconds)

    def add(self, callback: Callable[..., object], *args: Any, last: bool = False) -> None:
        """Have a callback called after those before it; unless too many wait. On the loop's thread."""
        with self._lock:
            full = len(self._calls) >= self._strands.most and not last
            if not full:
                self._calls.append((callback, *args))
                if self._running:
                    return
                self._running = True
        if full:
            self._give_up(f"more than {self._strands.most} messages wait")
        else:
            self._submit()

    def run(self) -> None:
        """Call what waits, on a thread of the pool; after some of it others have their turn, if the pool has room."""
        while True:
            for _ in range(_STRIDE):
                with self._lock:
                    if not self._calls:
                        self._running = False
                        return
                    callback, *args = self._calls.popleft()
                try:
                    callback(self.socket, *args)
                except Exception:
                    self._strands.log.exception("exception in a WebSocket callback")
                    self.socket.close(CloseCode.INTERNAL_ERROR, "exception in a handler")
            if self._strands.pool.submit(self):
                return

    def refuse(self, error: Exception) -> None:
        """The thread could not begin."""
        self.socket.call(self._drop, "a thread could not begin")

    # On the loop's thread.

    def _submit(self) -> None:
        if not self._strands.pool.submit(self):
            self._drop("no thread is free")

    def _drop(self, why: str) -> None:
        """Forget the messages, but not that the socket has closed: that is told when a thread is free."""
        on_close = self._strands.on_close
        with self._lock:
            last = [call for call in self._calls if call[0] is on_close]
            self._calls.clear()
            self._calls.extend(last)
            self._running = bool(last)
        if last:
            self.socket.call_later(_AGAIN, self._submit)
        else:
            self._give_up(why)

    def _give_up(self, why: str) -> None:
        """Nobody can deal with what comes on this socket: 1013 is "Try Again Later" (IANA's registry of RFC 6455 §11.7)."""
        self._strands.log.warning("a WebSocket is closed: %s", why)
        self.socket.close(CloseCode.TRY_AGAIN_LATER, "too busy")


class Strands:
    """The sockets of one set of callbacks. Loop thread only; one loop or several."""

    def __init__(
        self,
        pool: Pool,
        log: Log,
        on_message: Callable[[PooledSocket, Any], object],
        on_open: Callable[[PooledSocket], object] | None,
        on_close: Callable[[PooledSocket, int, str], object] | None,
        most: int,
    ) -> None:
        self.pool = pool
        self.log = log
        self.most = most
        self._on_message = on_message
        self._on_open = on_open
        self.on_close = on_close
        self._open: dict[WebSocket, Strand] = {}

    def callbacks(self) -> Callbacks:
        """For evws."""
        return {"on_message": self._message, "on_open": self._opened, "on_close": self._closed}

    def _opened(self, ws: WebSocket) -> None:
        relay = Relay.of(ws.request)
        connections = Connections.at(relay)
        connections.pools.add(self.pool)
        connection = connections.of(ws.request)
        strand = self._open[ws] = Strand(self, PooledSocket(ws, connection, relay.server.loop))
        if self._on_open is not None:
            strand.add(self._on_open)

    def _message(self, ws: WebSocket, message: Any) -> None:
        self._open[ws].add(self._on_message, message)

    def _closed(self, ws: WebSocket, code: int, reason: str) -> None:
        strand = self._open.pop(ws)
        strand.socket._gone.set()
        Connections.at(Relay.of(ws.request)).forget(strand.connection)
        if self.on_close is not None:
            strand.add(self.on_close, code, reason, last=True)
