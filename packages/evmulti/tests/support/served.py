"""A handler that does what handlers do wrong, and others for the tests to serve. Served by name, from this folder."""

from __future__ import annotations

import os
import resource
import threading
import time
from typing import Any

import evhttp
import evmulti
import evws

_HOG = 1 << 30


def handler(req: evhttp.Request, res: evhttp.Response) -> None:
    match req.path:
        case "/who":
            res.send(f"{os.getpid()} {threading.current_thread().name} {threading.get_native_id()}")
        case "/raise":
            raise RuntimeError("on purpose")
        case "/exit":
            raise SystemExit(7)
        case "/hang":
            time.sleep(3600)
        case "/eat":
            res.send(str(len(bytearray(_HOG))))
        case "/slow":
            res.defer()
            res._server.loop.call_later(0.2, res.send, "slow")
        case "/very-slow":
            res.defer()
            res._server.loop.call_later(float(req.query["s"]), res.send, "very slow")
        case "/ws":
            evws.upgrade(req, res, on_message=lambda ws, message: ws.send(message))
        case _:
            res.send("hello")


def blocking(req: evhttp.Relayed, res: evhttp.Relayed) -> None:
    """Wait for whoever opens the pipe of this name, or answer at once."""
    if path := req.query.get("pipe"):
        open(path, "rb", buffering=0).close()
    res.send("hello")


pooled = evmulti.Dispatcher(blocking, pool_size=1, queue_size=5)


def frugal(worker: evmulti.Worker) -> None:
    """Let this process have less memory than /eat wants."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + _HOG // 2
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return  # another thread has done it
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class Echo:
    """A plain protocol."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        pass


number = 5
