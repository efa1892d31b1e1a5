"""Connections that may break at any place, which they do when ``test_faults`` runs these tests: what holds all the same.

The protocols check the order of their calls themselves, and the fixtures that no descriptor is left open.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

import evnet
from evloop import Loop

SENT = random.Random(4).randbytes(40_000)
CLIENTS = 40


def answering(pair: Any, recorder: Any) -> Any:
    """A protocol that sends back what it gets, in one of the ways that there are, and closes at the end."""
    number = len(pair.made)

    class Answering(recorder):  # type: ignore[misc]
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.transport.is_closing():
                return
            if number % 4 == 0:
                self.transport.write(data)
            elif number % 4 == 1:
                self.transport.writelines([data[:100], data[100:]])
            elif number % 4 == 2:
                self.transport.pause_reading()
                self.transport.write(data)
                self.transport.resume_reading()
            else:
                with tempfile.TemporaryFile() as file:
                    file.write(data)
                    file.flush()
                    self.transport.send_file(file)

    return Answering(pair)


def check(pair: Any, protocol: Any) -> None:
    pair.until(lambda: "lost" in protocol.calls)
    assert protocol.calls[0] == "made"
    assert protocol.calls[-1] == "lost"
    assert protocol.error is None or isinstance(protocol.error, OSError)
    assert SENT.startswith(protocol.data)
    assert protocol.transport.state == "closed"


def everything_from(client: socket.socket) -> bytes:
    got = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := client.recv(65536):
            got += data
    return bytes(got)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_servers(pair: Any, loop: Loop, recorder: Any, tmp_path: Path, kind: str) -> None:
    def factory() -> Any:
        return answering(pair, recorder)

    path = str(tmp_path / "socket")
    server = pair.listen(factory) if kind == "tcp" else evnet.listen_unix(loop, factory, path)
    for number in range(CLIENTS):
        if kind == "tcp":
            client = pair.connect()
        else:
            client = socket.socket(socket.AF_UNIX)
            pair.clients.append(client)
            client.settimeout(10)
            client.connect(path)
        pair.until(lambda: len(pair.made) > number)  # noqa: B023 - called before number changes
        with contextlib.suppress(ConnectionError):
            client.sendall(SENT[: 1000 * (number + 1)])
            client.shutdown(socket.SHUT_WR)
        pair.turns(1)
    for protocol, client in zip(pair.made, pair.clients, strict=True):
        check(pair, protocol)
        assert SENT.startswith(everything_from(client))
    assert server.connections == 0
    assert server.stats().accepted == CLIENTS
    server.close()


def test_pipes(pair: Any, loop: Loop, recorder: Any) -> None:
    for _ in range(CLIENTS):
        reading, writing = os.pipe()
        reader, writer = recorder(pair), recorder(pair)
        evnet.open_stream(loop, reading, lambda: reader)  # noqa: B023 - called at once
        evnet.open_stream(loop, writing, lambda: writer)  # noqa: B023
        writer.transport.write(SENT)
        writer.transport.close()
        check(pair, writer)
        check(pair, reader)


def test_pairs(pair: Any, loop: Loop, recorder: Any) -> None:
    for _ in range(CLIENTS):
        left, right = recorder(pair), recorder(pair)
        evnet.stream_pair(loop, lambda: left, lambda: right)  # noqa: B023 - called at once
        left.transport.write(SENT)
        left.transport.close()
        check(pair, left)
        check(pair, right)
