"""What is counted of a loop's streams."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from typing import Any

import pytest

from evloop import Loop, LoopClosedError
from evnet import Traffic, open_stream, traffic


def test_bytes_of_all_streams_are_counted(loop: Loop) -> None:
    assert traffic(loop) == Traffic(0, 0)
    ours, theirs = socket.socketpair()
    received: list[bytes] = []

    class Answers(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            received.append(data)
            self.transport.write(b"12345")
            with tempfile.TemporaryFile() as file:
                file.write(b"678")
                file.flush()
                self.transport.send_file(file, 0, 3)
            self.transport.close()

    with theirs:
        open_stream(loop, ours, Answers)
        theirs.sendall(b"hello world")
        theirs.settimeout(0)
        loop.run_until(lambda: loop_has_ended(theirs))
    assert received == [b"hello world"]
    # The stream is gone; what it has moved is not.
    assert traffic(loop) == Traffic(11, 8)


def loop_has_ended(theirs: socket.socket) -> bool:
    try:
        return theirs.recv(100, socket.MSG_PEEK).endswith(b"678")
    except BlockingIOError:
        return False


def test_a_closed_loop() -> None:
    loop = Loop()
    loop.close()
    with pytest.raises(LoopClosedError):
        traffic(loop)
