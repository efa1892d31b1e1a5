"""One acceptor for many workers: where the kernel does not spread clients over sockets, and in a dead worker's stead."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

from evloop import READ, Loop
from evmulti._listeners import drain_queue
from evmulti._log import Log

__all__ = ["Dealer"]

_AT_ONCE = 64
_PAUSE = 0.01


class Dealer:
    """Accepts from sockets and deals connections out.

    Args:
        loop: On which it accepts.
        sockets: Listening sockets. They stay the caller's.
        deal: Called with each connection; whether somebody has taken it.
        log: Where it says that it cannot accept.
    """

    def __init__(
        self, loop: Loop, sockets: Iterable[socket.socket], deal: Callable[[socket.socket], bool], log: Log
    ) -> None:
        self._loop = loop
        self._log = log
        self._sockets = list(sockets)
        self._deal = deal
        self._watchers = [loop.watch(sock.fileno(), READ, self._ready) for sock in self._sockets]
        self._waiting: list[socket.socket] = []
        self._paused = False
        self._closed = False

    def _ready(self, fd: int, ready: int) -> None:
        sock = next(sock for sock in self._sockets if sock.fileno() == fd)
        for _ in range(_AT_ONCE):
            if self._paused:
                return
            try:
                connection = sock.accept()[0]
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._log.warning("cannot accept clients on %s: %s", sock.getsockname(), error.strerror)
                self._pause()
                return
            self._give(connection)

    def _give(self, connection: socket.socket) -> None:
        if not self._deal(connection):
            self._waiting.append(connection)
            self._pause()

    def _pause(self) -> None:
        """Leave clients in the kernel's queue for a moment: nobody takes them, or there are no descriptors."""
        if self._paused or self._closed:
            return
        self._paused = True
        for watcher in self._watchers:
            watcher.close()
        self._watchers.clear()
        self._loop.call_later(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._paused = False
        if self._closed:
            return
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            self._give(connection)
        if not self._paused:
            self._watchers = [self._loop.watch(sock.fileno(), READ, self._ready) for sock in self._sockets]

    def finish(self) -> None:
        """Deal out everybody who waits, for the last time, and close."""
        for sock in self._sockets:
            self._waiting += drain_queue(sock)
        self._waiting = [connection for connection in self._waiting if not self._deal(connection)]
        self.close()

    def close(self) -> None:
        """Accept no more. Whoever was accepted and not dealt is hung up on. Calling this again does nothing."""
        self._closed = True
        for watcher in self._watchers:
            watcher.close()
        self._watchers.clear()
        for connection in self._waiting:
            connection.close()
        self._waiting.clear()
