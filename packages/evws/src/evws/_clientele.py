"""Many clients at once, on one loop or on several in threads: for applications that keep many connections, and for load tests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Unpack

from evloop import Loop
from evws._broadcast import Group
from evws._client import ClientWebSocket, Connecting, ConnectOptions, OnFailure, connect
from evws._frames import Buffer, CloseCode

if TYPE_CHECKING:
    from evws._endpoint import OnMessage
    from evws._socket import WebSocket

__all__ = ["Clientele"]


class Clientele:
    """A set of clients with the same callbacks.

    ::

        with evws.Clientele(threads=2, on_message=lambda ws, message: print(message)) as crowd:
            crowd.connect("ws://127.0.0.1:9001/", 1000).result(30)
            crowd.send("hello from each of us")

    Args:
        on_message: ``on_message(ws, message)``, called in the thread of the client's loop, as are all the others.
        loop: The loop to run the clients on, which the caller runs; ``None``: loops of our own.
        threads: How many loops of our own, in a thread each, the clients are shared out to.
        at_once: How many handshakes may be under way on each loop; the others wait for their turn.
        **options: As for `connect`: the other callbacks, ``headers``, ``subprotocols``, ``limits``, ``timeout`` and so on.
            ``on_failure(error, delay)`` tells of those that could not be opened.

    Raises:
        ValueError: Not ``threads >= 1`` and ``at_once >= 1``.

    Thread safety: any thread, but with ``loop`` `close` does not wait.
    """

    def __init__(
        self,
        *,
        on_message: OnMessage,
        loop: Loop | None = None,
        threads: int = 1,
        at_once: int = 100,
        **options: Unpack[ConnectOptions],
    ) -> None:
        if threads < 1 or at_once < 1:
            raise ValueError(f"threads and at_once must be at least 1, not {threads!r} and {at_once!r}")
        self._group = Group()
        self._crews = [
            _Crew(self._group, each, on_message, at_once, options)
            for each in ([Loop() for _ in range(threads)] if loop is None else [loop])
        ]
        self._next = 0
        self._closed = False
        self._threads: list[threading.Thread] = []
        if loop is None:
            for number, crew in enumerate(self._crews):
                thread = threading.Thread(target=crew.run, name=f"evws-clientele-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()

    @property
    def clients(self) -> list[WebSocket]:
        """Those that are open or closing, in no order. Thread safety: any thread; what they can do, only their own."""
        return list(self._group)

    def __len__(self) -> int:
        return len(self._group)

    def __iter__(self) -> Iterator[WebSocket]:
        return iter(self._group)

    def connect(self, url: str, count: int = 1) -> Future[int]:
        """Open so many more.

        Returns:
            A future whose result is how many of them were opened, when the last has been opened or has failed. With ``reconnect``
            one that fails for now is waited for. `close` cancels it.

        Raises:
            ValueError: ``count`` is negative.
            RuntimeError: The clientele is closed.

        What `connect` would raise is the future's exception.
        """
        if count < 0:
            raise ValueError(f"count must be a number >= 0, not {count!r}")
        if self._closed:
            raise RuntimeError("the clientele is closed")
        wave = _Wave(count)
        each, more = divmod(count, len(self._crews))
        for number in range(len(self._crews)):
            crew = self._crews[(self._next + number) % len(self._crews)]
            share = each + (number < more)
            if share:
                crew.loop.call_soon_threadsafe(crew.enlist, url, share, wave)
        self._next += more
        return wave.future

    def send(self, message: str | Buffer, *, timeout: float | None = None) -> list[WebSocket]:
        """Send a message from each. Arguments and result: as of `broadcast`."""
        return self._group.send(message, timeout=timeout)

    def close(self, code: int | None = CloseCode.NORMAL, reason: str = "", *, timeout: float = 10.0) -> None:
        """Close all with the closing handshake, and open no more. Calling this again does nothing.

        Args:
            code: As for `WebSocket.close`.
            reason: The same.
            timeout: Seconds to wait for the closing handshakes, on loops of our own; then the rest is aborted. With the caller's
                loop nothing is waited for.

        Raises:
            ValueError: The code must not be sent, or the reason is too long.
        """
        if self._closed:
            return
        self._closed = True
        for crew in self._crews:
            crew.loop.call_soon_threadsafe(crew.dismiss, code, reason, timeout if self._threads else None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def __enter__(self) -> Clientele:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Wave:
    """One call of `Clientele.connect`, over all crews."""

    def __init__(self, count: int) -> None:
        self.future: Future[int] = Future()
        self._left = count
        self._opened = 0
        self._lock = threading.Lock()
        if not count:
            self.future.set_result(0)

    def ended(self, opened: bool) -> None:
        with self._lock:
            self._left -= 1
            self._opened += opened
            if self._left or self.future.done():
                return
        self.future.set_result(self._opened)

    def fail(self, error: Exception | None) -> None:
        with self._lock:
            if self.future.done():
                return
            if error is None:
                self.future.cancel()
                return
        self.future.set_exception(error)


class _Crew:
    """The clients of one loop. Everything but the constructor runs in its thread."""

    def __init__(self, group: Group, loop: Loop, on_message: OnMessage, at_once: int, options: ConnectOptions) -> None:
        self.loop = loop
        self._group = group
        self._on_message = on_message
        self._options = options.copy()
        self._on_open = options.get("on_open")
        self._on_close = options.get("on_close")
        self._on_failure: OnFailure | None = options.get("on_failure")
        self._options["on_open"] = self._opened
        self._options["on_close"] = self._lost
        self._options["on_failure"] = self._heard
        self._at_once = at_once
        self._waiting: deque[tuple[str, _Wave]] = deque()
        self._under_way: dict[Connecting, _Wave] = {}
        self._all: set[Connecting] = set()  # with those that are open, which may be connected again
        self._dismissed = False
        self._stops = False  # the loop is our own, and ends with the last client

    def run(self) -> None:
        try:
            self.loop.run()
        finally:
            self.loop.close()

    def enlist(self, url: str, count: int, wave: _Wave) -> None:
        if self._dismissed:
            wave.fail(None)
            return
        self._waiting.extend([(url, wave)] * count)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and len(self._under_way) < self._at_once:
            url, wave = self._waiting.popleft()
            try:
                connecting = connect(self.loop, url, on_message=self._on_message, **self._options)
            except Exception as error:
                wave.fail(error)
                continue
            self._under_way[connecting] = wave
            self._all.add(connecting)
            connecting.add_done_callback(self._done)

    def _done(self, connecting: Connecting) -> None:
        wave = self._under_way.pop(connecting)
        if connecting.cancelled():
            wave.fail(None)
        else:
            failed = connecting.exception() is not None
            wave.ended(not failed)
            if failed:
                self._all.discard(connecting)
        if not self._dismissed:
            self._go_on()

    def _opened(self, ws: WebSocket) -> None:
        self._group.add(ws)
        if self._on_open is not None:
            self._on_open(ws)

    def _lost(self, ws: WebSocket, code: int, reason: str) -> None:
        assert isinstance(ws, ClientWebSocket)
        if ws._connecting._backoff is None or ws._left:
            self._all.discard(ws._connecting)
        try:
            if self._on_close is not None:
                self._on_close(ws, code, reason)
        finally:
            self._look_for_the_end()

    def _heard(self, error: Exception, delay: float | None) -> None:
        if self._on_failure is not None:
            self._on_failure(error, delay)

    # -- the end ---------------------------------------------------------------------------------------------------------------

    def dismiss(self, code: int | None, reason: str, timeout: float | None) -> None:
        self._dismissed = True
        for _, wave in self._waiting:
            wave.fail(None)
        self._waiting.clear()
        for connecting in list(self._all):
            connecting.close(code, reason)
            if connecting.socket is None:
                self._all.discard(connecting)
        if timeout is not None:
            self._stops = True
            self.loop.call_later(timeout, self._give_up)
            self._look_for_the_end()

    def _give_up(self) -> None:
        for connecting in list(self._all):
            if connecting.socket is not None:
                connecting.socket.abort()

    def _look_for_the_end(self) -> None:
        if self._dismissed and not self._all and self._stops:
            self.loop.call_soon(self.loop.stop)  # after the callbacks that wait
