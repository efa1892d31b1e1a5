"""The service that is tried: a handler of HTTP and WebSockets that each worker imports, and what the workers tell by themselves.

Every answer says which worker has made it, so that a client knows what was lost with whom.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

from content import LARGEST, begin_of, piece

import evhttp
import evmulti
import evws

FOLDER = os.environ["SOAK_FOLDER"]
# Not in the folder, whose disk is filled.
REPORT = os.path.join(os.path.dirname(FOLDER), "in-use")
LIBC = ctypes.CDLL(None)
TICK = 0.05
_PIECE = 40_000


class Here(threading.local):
    """What belongs to the worker that runs: a process, or a thread among others."""

    who: str
    loop: Any
    live: evws.Group
    told = 0


here = Here()


def join(worker: evmulti.Worker) -> None:
    """Called in each worker before it listens."""
    here.who = f"{os.getpid()}/{threading.get_native_id()}"
    here.loop = worker.loop
    here.live = evws.Group()
    worker.loop.call_every(TICK, tell)
    worker.loop.call_every(0.5, tidy, worker)


class Allocated(ctypes.Structure):
    """The C library's `struct mallinfo2`, over all of its arenas."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


LIBC.mallinfo2.restype = Allocated
ARENAS: dict[int, int] = {}  # bytes that each worker of this process keeps for what its loop brings up in one turn


def tidy(worker: evmulti.Worker) -> None:
    """When nobody is there give back all memory that is free, and write down what is in use.

    What the kernel counts is more than what is in use: a page stays whole for a little that is kept, and with several threads
    what one keeps lies between what the others have freed.
    """
    if worker.server.connections:
        return
    gc.collect()
    LIBC.malloc_trim(0)
    allocated = LIBC.mallinfo2()
    # These double when a turn brings more than any before, and stay: a quantity of its own, with a bound of its own.
    ARENAS[worker.number] = worker.loop.stats().arena_capacity
    arenas = sum(ARENAS.values())
    report = f"{REPORT}-{os.getpid()}"
    try:
        with open(f"{report}.{threading.get_native_id()}", "w") as file:
            file.write(
                f"{allocated.uordblks + allocated.hblkhd - arenas} {sys.getallocatedblocks()} {max(ARENAS.values())}"
            )
        os.replace(file.name, report)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise  # without a descriptor it is written the next time


def tell() -> None:
    """Broadcast the next message of this worker: its number, and bytes."""
    here.told += 1
    size = here.told * 997 % 5000
    if here.told % 40 == 0:
        size = 100_000
    here.live.send(here.told.to_bytes(8, "big") + piece(here.told, size))


def handler(req: evhttp.Request, res: evhttp.Response) -> None:
    """Answer by path."""
    res.header("X-Worker", here.who)
    match req.path:
        case "/bytes":
            res.send(piece(*wanted(req)))
        case "/later":
            res.defer()
            here.loop.call_later(0.03, res.send, piece(*wanted(req)))
        case "/file":
            seed, size = wanted(req)
            try:
                res.send_file(os.path.join(FOLDER, "blob"), offset=begin_of(seed), count=size)
            except OSError:
                res.status(503).send()
        case "/chunks":
            Chunks(res, *wanted(req))
        case "/upload":
            Upload(req, res)
        case "/mirror":
            Mirror(req, res)
        case "/echo":
            evws.upgrade(req, res, on_message=lambda ws, message: ws.send(message), compression=evws.Deflate())
        case "/live":
            evws.upgrade(req, res, on_open=here.live.add, on_message=lambda ws, message: None)
        case "/exit":
            raise SystemExit(7)
        case _:
            res.status(404).send()


def wanted(req: evhttp.Request) -> tuple[int, int]:
    """The seed and the size that the client asks for."""
    return int(req.query["seed"]), min(int(req.query["size"]), LARGEST)


class Chunks:
    """An answer in pieces of its own length, which waits for the client."""

    def __init__(self, res: evhttp.Response, seed: int, size: int) -> None:
        self.res = res
        data = piece(seed, size)
        self.pieces: Iterator[bytes] = (data[at : at + _PIECE] for at in range(0, size, _PIECE))
        self.gone = False
        res.begin()
        res.on_close(self.closed)
        res.on_drain(self.more)
        self.more()

    def closed(self, complete: bool) -> None:
        self.gone = True

    def more(self) -> None:
        if self.gone:
            return
        for each in self.pieces:
            if not self.res.write(each):
                return
        self.gone = True
        self.res.end()


class Upload:
    """A body that goes to a file. Answered with the SHA-256 of what the file holds; 507 if the disk is full."""

    def __init__(self, req: evhttp.Request, res: evhttp.Response) -> None:
        self.res = res
        try:
            req.save_body(FOLDER, self.saved)
        except OSError as error:
            self.refuse(error)
        else:
            res.defer()

    def refuse(self, error: OSError) -> None:
        self.res.status(507).header("X-Error", errno_name(error)).send(b"")

    def saved(self, path: str | None, error: Exception | None) -> None:
        if path is None:
            # A client that is gone takes no answer.
            if isinstance(error, OSError):
                self.refuse(error)
            elif isinstance(error, evhttp.BodyError) and not self.res.sent:
                self.res.status(error.status).send(b"")
            return
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as refused:
            self.refuse(refused)
        else:
            self.res.send(digest)
        finally:
            os.unlink(path)


class Mirror:
    """A body that is sent back while it comes, with the client held back by itself."""

    def __init__(self, req: evhttp.Request, res: evhttp.Response) -> None:
        self.res = res
        self.gone = False
        res.begin()
        res.on_close(self.closed)
        res.on_drain(lambda: self.reader.resume())
        self.reader = req.read_body(self.data, self.ended)

    def closed(self, complete: bool) -> None:
        self.gone = True

    def data(self, data: bytes) -> None:
        if not self.gone and not self.res.write(data):
            self.reader.pause()

    def ended(self, error: evhttp.BodyError | None) -> None:
        if not self.gone:
            if error is None:
                self.res.end()
            else:
                self.res.drop()


def errno_name(error: OSError) -> str:
    """What the system has refused, for the client's books."""
    return f"{type(error).__name__} {error.errno}"
