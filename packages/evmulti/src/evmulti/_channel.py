"""Messages between a supervisor and a worker in another process: lines of JSON over a socket, and descriptors over a second one."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from evloop import Loop

__all__ = ["Channel", "receive_connections", "send_connection"]

# Descriptors that one message may carry: below the kernel's SCM_MAX_FD, 253.
_MOST = 64


class Channel:
    """One end. It is the loop's as soon as it is opened.

    Args:
        sock: One of a pair of stream sockets.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop: Loop | None = None
        self._unread = b""

    def open(self, loop: Loop, on_message: Callable[[list[Any]], object], on_end: Callable[[], object]) -> None:
        """Call back for each message, and once when the other end is gone."""
        self._loop = loop
        self._on_message = on_message
        self._on_end = on_end
        loop.add_reader(self._sock.fileno(), self._read)

    def send(self, *message: Any) -> None:
        """Send a message. A peer that is gone, or has not read for thousands of messages, does not get it."""
        try:
            self._sock.send(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # the end of the process, or its silence, is noticed by those who look for it

    def close(self) -> None:
        """Close this end. Calling this again does nothing."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._sock.fileno())
        self._loop = None
        self._sock.close()

    def drain(self) -> None:
        """Deliver what has come, when the other end is known to be gone."""
        try:
            while self._take():
                pass
        except BlockingIOError:
            pass  # a process that the worker has left behind still has its end

    def _read(self) -> None:
        try:
            more = self._take()
        except BlockingIOError:
            return
        if not more and self._loop is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._on_end()

    def _take(self) -> bool:
        """Read once; whether more may come."""
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            raise
        except OSError:  # it was reset
            data = b""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._on_message(json.loads(line))
        return bool(data)


def send_connection(sock: socket.socket, connection: socket.socket) -> bool:
    """Send a descriptor (SCM_RIGHTS); whether there was room for it."""
    try:
        socket.send_fds(sock, [b"+"], [connection.fileno()])
    except OSError:
        return False
    return True


def receive_connections(sock: socket.socket) -> list[socket.socket]:
    """The connections that were sent."""
    found: list[socket.socket] = []
    while True:
        try:
            data, numbers, _, _ = socket.recv_fds(sock, _MOST, _MOST)
        except OSError:
            return found
        found += [socket.socket(fileno=number) for number in numbers]
        if not data:
            return found
