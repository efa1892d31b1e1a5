"""What ``get_extra_info("socket")`` gives: the options and names of a socket that belongs to C, without its bytes."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Self

__all__ = ["SocketView"]


class SocketView:
    """The socket of a transport, for what a transport has no method for: what `asyncio.trsock.TransportSocket` offers.

    It does not keep the socket open.

    Raises:
        OSError: ``EBADF`` from each method when the transport has ended.

    Thread safety: loop thread only.
    """

    __slots__ = ("_fileno", "_proto", "family", "type")

    def __init__(
        self, fileno: Callable[[], int], family: socket.AddressFamily, kind: socket.SocketKind, proto: int = 0
    ) -> None:
        self._fileno = fileno
        self._proto = proto
        self.family: socket.AddressFamily = family
        self.type: socket.SocketKind = kind

    @classmethod
    def of(cls, fileno: Callable[[], int]) -> Self:
        """Ask the system what kind of socket this is. Raises: OSError, if the transport has ended or this is no socket."""
        fd = fileno()
        if fd < 0:
            raise _ended()
        sock = socket.socket(fileno=fd)
        try:
            return cls(fileno, socket.AddressFamily(sock.family), socket.SocketKind(sock.type), sock.proto)
        finally:
            sock.detach()

    @contextmanager
    def _socket(self) -> Iterator[socket.socket]:
        fd = self._fileno()
        if fd < 0:
            raise _ended()
        sock = socket.socket(self.family, self.type, self._proto, fd)
        try:
            yield sock
        finally:
            sock.detach()

    @property
    def proto(self) -> int:
        """The number of the protocol."""
        return self._proto

    def fileno(self) -> int:
        """The descriptor, which stays the transport's; -1 when the transport has ended."""
        return self._fileno()

    def getsockname(self) -> Any:
        """The socket's own address."""
        with self._socket() as sock:
            return sock.getsockname()

    def getpeername(self) -> Any:
        """The address that the socket is connected to."""
        with self._socket() as sock:
            return sock.getpeername()

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        """An option as a number, or ``size`` bytes of it."""
        with self._socket() as sock:
            return sock.getsockopt(level, option, size) if size else sock.getsockopt(level, option)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set an option."""
        with self._socket() as sock:
            sock.setsockopt(level, option, value)

    def dup(self) -> socket.socket:
        """A socket of the caller's own, which the caller closes."""
        with self._socket() as sock:
            return sock.dup()

    def get_inheritable(self) -> bool:
        """Whether a program that is started gets it: no."""
        with self._socket() as sock:
            return sock.get_inheritable()

    def gettimeout(self) -> float:
        """Always 0: it does not block."""
        return 0.0

    def settimeout(self, value: float | None) -> None:
        """Accept 0, and refuse everything else with ValueError."""
        if value != 0:
            raise ValueError(f"the timeout of a transport's socket is 0 and cannot be {value!r}")

    def setblocking(self, flag: bool) -> None:
        """Accept ``False``, and refuse ``True`` with ValueError."""
        if flag:
            raise ValueError("a transport's socket cannot block")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a transport's socket cannot be pickled")

    def __repr__(self) -> str:
        return f"<SocketView fd={self._fileno()} {self.family.name} {self.type.name}>"


def _ended() -> OSError:
    return OSError(errno.EBADF, "the transport of this socket has ended")
