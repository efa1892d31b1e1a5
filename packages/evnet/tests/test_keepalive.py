"""Keep-alive probes. That a peer which has vanished is noticed by them is shown in test_faults_network."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from evnet import KeepAlive


def test_it_is_set_on_a_socket() -> None:
    with socket.socket() as sock:
        KeepAlive(idle=1.2, interval=2, count=3).apply(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
        assert [sock.getsockopt(socket.IPPROTO_TCP, each) for each in options] == [2, 2, 3]


@pytest.mark.parametrize("name", ["idle", "interval", "count"])
@pytest.mark.parametrize("value", [0, -1, 32768, float("nan"), float("inf")])
def test_values_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"keep_alive's {name} must be > 0 and at most"):
        KeepAlive(**{name: value})


def test_the_largest_values_are_taken() -> None:
    with socket.socket() as sock:
        KeepAlive(32767, 32767, 127).apply(sock)
