"""Workloads ``sendfile`` and ``idle``."""

from __future__ import annotations

import gc
import os
import random
import resource
import socket
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

from adapters import Loop
from descriptors import make_pairs
from sections import Figures, Options, Stopwatch, Wrong, expect
from timing import LONGEST, SHORTEST, in_chunks

SendFile = Callable[[int, int, int, int], int]
SEND_SIZE = 1 << 30
SEND_TIMES = 5
FILE_SIZE = 64 << 20  # sent again and again, so that it surely stays in the page cache
SEND_BUFFER = 1 << 20  # as in c/sendfile.c
IDLE_WATCHERS = IDLE_TIMERS = 10_000
IDLE_SHARE = 4  # of --seconds: how long it is watched doing nothing
SETTLE = 0.2


def _send(loop: Loop, send: SendFile, source: int, in_file: int, size: int, peer: str) -> Stopwatch:
    """Send the file again and again until the size is reached; the end is when the receiver says that it has all."""
    host, _, port = peer.rpartition(":")
    watch = Stopwatch()
    sent = 0
    answer = b""
    with socket.create_connection((host, int(port))) as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        out = connection.fileno()

        def writable() -> None:
            nonlocal sent
            offset = sent % in_file
            try:
                sent += send(out, source, offset, min(in_file - offset, size - sent))
            except BlockingIOError:
                return
            if sent == size:
                loop.remove_writer(out)
                connection.shutdown(socket.SHUT_WR)

        def readable() -> None:
            nonlocal answer
            piece = connection.recv(64)
            answer += piece
            if not piece:
                watch.stop()
                loop.remove_reader(out)
                loop.stop()

        loop.add_reader(out, readable)
        loop.add_writer(out, writable)
        watch.start()
        loop.run()
    expect("sendfile: bytes that the receiver has", answer.strip(), str(size).encode())
    return watch


def sendfile(loop: Loop, options: Options) -> Figures:
    """Send a file over TCP to a receiver that discards it; the median of some times."""
    if loop.sendfile is None:
        return {}
    size = options.size(SEND_SIZE)
    in_file = min(size, FILE_SIZE)
    with tempfile.TemporaryFile() as file:
        for _ in range(0, in_file, 1 << 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        taken = [_send(loop, loop.sendfile, file.fileno(), in_file, size, options.peer) for _ in range(SEND_TIMES)]
    return {
        "bytes_wall": size * 1e9 / statistics.median(watch.wall for watch in taken),
        "bytes_cpu": size * 1e9 / max(1, statistics.median(watch.cpu for watch in taken)),
    }


def _switches() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw + usage.ru_nivcsw


def idle(loop: Loop, options: Options) -> Figures:
    """Let a loop with many watchers and timers do nothing, and see what that takes."""
    chance = random.Random(1)
    number = options.size(IDLE_TIMERS, least=10)
    pairs = make_pairs(options.size(IDLE_WATCHERS, least=10) // 2)
    pending: list[Any] = []
    called = 0
    watch = Stopwatch()
    switches = 0

    def callback() -> None:
        nonlocal called
        called += 1

    for pair in pairs:
        for each in pair:
            loop.add_reader(each.fileno(), callback)
    in_chunks(loop, number, lambda _: pending.append(loop.call_later(chance.uniform(SHORTEST, LONGEST), callback)))
    gc.collect()

    def begin() -> None:
        nonlocal switches
        switches = _switches()
        watch.start()

    def end() -> None:
        nonlocal switches
        watch.stop()
        switches = _switches() - switches
        loop.stop()

    loop.call_later(SETTLE, begin)
    loop.call_later(SETTLE + IDLE_SHARE * options.seconds, end)
    loop.run()
    expect("idle: callbacks that ran", called, 0)
    if not watch.wall:
        raise Wrong("idle: the time was not measured")
    seconds = watch.wall / 1e9
    return {
        "idle_seconds": seconds,
        "idle_ms": watch.cpu / 1e6,
        "idle_share": watch.cpu / watch.wall,
        "switches": switches,
    }
