"""A network that loses packets: two TUN devices, one of them in a network namespace of its own, and this program as the cable.

(tc-netem(8) would do it in the kernel, where that has it.) Needs root, iproute2 and a namespace of our own to begin with.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x4000_0000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x4004_54CA, 0x0001, 0x1000
NEAR, FAR = "10.77.0.1", "10.77.0.2"
LIBC = ctypes.CDLL(None, use_errno=True)


class Cable:
    """From our namespace, where `NEAR` is, to another, where `FAR` is. ``loss`` is a probability; 1: the cable is pulled."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.carried = 0
        self.dropped = 0
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _checked("unshare", LIBC.unshare(CLONE_NEWNET))
        try:
            self._there = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            self._ends = [_tun("far", FAR, NEAR)]
        finally:
            _checked("setns", LIBC.setns(self._home, CLONE_NEWNET))
        self._ends.append(_tun("near", NEAR, FAR))
        self._stop_at, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def close(self) -> None:
        """Take everything away."""
        os.write(self._stop, b"x")
        self._thread.join()
        for each in (*self._ends, self._stop, self._stop_at, self._home, self._there):
            os.close(each)

    async def connect(self, port: int) -> socket.socket:
        """Connect from the other end to ours."""
        with self._inside():
            sock = socket.socket()
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (NEAR, port))
        except BaseException:
            sock.close()
            raise
        return sock

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Sockets that are made here belong to the other end."""
        _checked("setns", LIBC.setns(self._there, CLONE_NEWNET))
        try:
            yield
        finally:
            _checked("setns", LIBC.setns(self._home, CLONE_NEWNET))

    def _carry(self) -> None:
        """Take what comes in at one end, and put it out at the other, unless chance says no."""
        chance = random.Random(3)
        other = dict(zip(self._ends, reversed(self._ends), strict=True))
        poller = select.poll()
        for each in (*self._ends, self._stop_at):
            poller.register(each, select.POLLIN)
        while True:
            for end, _ in poller.poll():
                if end == self._stop_at:
                    return
                packet = os.read(end, 65536)
                if chance.random() < self.loss:
                    self.dropped += 1
                    continue
                self.carried += 1
                os.write(other[end], packet)


def _tun(name: str, address: str, other: str) -> int:
    """Make a device in the namespace where we are; returns the descriptor of its cable."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    for command in (
        ["addr", "add", address, "peer", other, "dev", name],
        ["link", "set", name, "up"],
        # What is lost is sent again after milliseconds: this is about that, not about how long it takes.
        ["route", "replace", other, "dev", name, "src", address, "rto_min", "10ms"],
    ):
        subprocess.run(["ip", *command], check=True, capture_output=True, timeout=20)
    return end


def _checked(name: str, result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
