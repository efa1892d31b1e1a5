"""What ``get_extra_info("socket")`` gives."""

from __future__ import annotations

import errno
import socket

import pytest

from evnet import SocketView


def test_it_shows_the_socket_and_does_not_own_it() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        sock.bind(("127.0.0.1", 0))
        peer.bind(("127.0.0.1", 0))
        view = SocketView(sock.fileno, sock.family, sock.type)
        assert view.fileno() == sock.fileno()
        assert (view.family, view.type, view.proto) == (socket.AF_INET, socket.SOCK_DGRAM, 0)
        assert view.getsockname() == sock.getsockname()
        view.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        assert view.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        assert view.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 4) != bytes(4)
        with pytest.raises(OSError, match="not connected") as caught:
            view.getpeername()
        assert caught.value.errno == errno.ENOTCONN
        sock.connect(peer.getsockname())
        assert view.getpeername() == peer.getsockname()
        with view.dup() as copy:
            assert copy.getsockname() == sock.getsockname()
        del view
        assert sock.getsockname()


def test_after_the_end() -> None:
    view = SocketView(lambda: -1, socket.AF_INET, socket.SOCK_DGRAM)
    assert view.fileno() == -1
    assert repr(view) == "<SocketView fd=-1 AF_INET SOCK_DGRAM>"
    for call in (view.getsockname, view.getpeername, view.dup, lambda: view.getsockopt(1, 1)):
        with pytest.raises(OSError, match="has ended") as caught:
            call()
        assert caught.value.errno == errno.EBADF
