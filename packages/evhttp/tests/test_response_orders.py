"""What a handler does with its response, in any order, beside a model of it: exceptions, status, wire and access log.

Every two calls behind one another, and longer rows of them at random, for a handler's own response and for one in another thread.
"""

from __future__ import annotations

import itertools
import logging
import queue
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from evhttp import AccessRecord, Relay, Response, ResponseStateError

Serve = Callable[..., Any]
FILE = b"of a file"
LARGE = b"x" * 40_000
ROWS = [
    *itertools.product(CALLS := (
        "status", "empty", "header", "close", "defer", "begin", "begin 3", "write", "end", "inform", "send", "text", "large",
        "error", "redirect", "json", "file", "serve", "events", "drop",
    ), repeat=2),
    *(tuple(random.Random(seed).choices(CALLS, k=3 + seed % 4)) for seed in range(400)),
]  # fmt: skip


@dataclass
class Model:
    """What the documentation says of a response."""

    relayed: bool
    status: int = 200
    phase: str = "new"
    deferred: bool = False
    dropped: bool = False
    closes: bool = False
    fields: int = 0
    informed: int = 0
    left: int | None = None
    body: bytes = b""
    trace: list[tuple[str, int, bool]] = field(default_factory=list)

    def call(self, name: str) -> None:
        """Raises ResponseStateError where the response has to."""
        if name == "drop":
            self.dropped |= self.phase != "sent"
            self.phase = "sent"
        elif name == "defer":
            if self.phase == "sent" or self.relayed:
                raise ResponseStateError
            self.deferred = True
        elif name == "write":
            if self.phase == "new":
                self.phase = "begun"
            self.write(b"ab")
        elif name == "end" and self.phase == "begun":
            self.write(b"c")
            self.dropped = bool(self.left) and self.status != 204
            self.phase = "sent"
            if self.dropped:
                raise ResponseStateError
        elif self.phase != "new":
            raise ResponseStateError
        else:
            self.first(name)

    def write(self, data: bytes) -> None:
        if self.phase == "sent":
            raise ResponseStateError
        if self.left is not None:
            if len(data) > self.left:
                self.phase, self.dropped = "sent", True
                raise ResponseStateError
            self.left -= len(data)
        self.body += data

    def first(self, name: str) -> None:
        """On a response of which nothing has left."""
        self.phase, self.status, self.body = {
            "status": ("new", 404, b""),
            "empty": ("new", 204, b""),
            "begin": ("begun", self.status, b""),
            "begin 3": ("begun", self.status, b""),
            "events": ("begun", self.status, b"data: x\n\n"),
            "end": ("sent", self.status, b"c"),
            "send": ("sent", self.status, b"hi"),
            "text": ("sent", self.status, b"text"),
            "large": ("sent", self.status, LARGE),
            "error": ("sent", 503, b"Service Unavailable\n"),
            "redirect": ("sent", 302, b""),
            "json": ("sent", self.status, b"[1]"),
            "file": ("sent", self.status, FILE),
            "serve": ("sent", self.status, FILE),
        }.get(name, ("new", self.status, b""))
        self.fields += name == "header"
        self.closes |= name == "close"
        self.informed += name == "inform"
        self.left = 3 if name == "begin 3" else None

    def finish(self) -> None:
        """What the server, or who calls handlers in threads, makes of it."""
        if self.phase == "begun":
            self.phase, self.dropped = "sent", True
        elif self.phase == "new":
            self.phase, self.status, self.fields, self.body = "sent", 500, 0, b"Internal Server Error\n"

    @property
    def size(self) -> int:
        return 0 if self.status == 204 else len(self.body)


def call(res: Response, name: str, path: Path) -> None:
    calls: dict[str, Callable[[], object]] = {
        "status": lambda: res.status(404),
        "empty": lambda: res.status(204),
        "header": lambda: res.header("X-A", "1"),
        "close": res.close_connection,
        "defer": res.defer,
        "begin": res.begin,
        "begin 3": lambda: res.begin(3),
        "write": lambda: res.write("ab"),
        "end": lambda: res.end("c"),
        "inform": lambda: res.inform(103),
        "send": lambda: res.send(b"hi"),
        "text": lambda: res.send("text"),
        "large": lambda: res.send(LARGE),
        "error": lambda: res.send_error(503),
        "redirect": lambda: res.redirect("/b"),
        "json": lambda: res.json([1]),
        "file": lambda: res.send_file(path),
        "serve": lambda: res.serve_file(res, path),  # type: ignore[arg-type]  # the two are one object
        "events": lambda: res.events().send("x"),
        "drop": res.drop,
    }
    calls[name]()


def run(res: Response, row: tuple[str, ...], path: Path) -> list[tuple[str, int, bool]]:
    trace = []
    for name in row:
        try:
            call(res, name, path)
        except ResponseStateError:
            trace.append((f"{name} refused", res.status_code, res.sent))
        else:
            trace.append((name, res.status_code, res.sent))
    return trace


def expected(row: tuple[str, ...], *, relayed: bool) -> Model:
    model = Model(relayed)
    for name in row:
        try:
            model.call(name)
        except ResponseStateError:
            model.trace.append((f"{name} refused", model.status, model.phase == "sent"))
        else:
            model.trace.append((name, model.status, model.phase == "sent"))
    model.finish()
    return model


@pytest.fixture
def records() -> Iterator[list[AccessRecord]]:
    logger = logging.getLogger("test.orders")
    found: list[AccessRecord] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.msg)  # type: ignore[method-assign, assignment, arg-type]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield found
    logger.removeHandler(handler)


@pytest.mark.parametrize("way", ["plain", "logged", "relayed"])
def test_in_any_order(serve: Serve, logged: Any, records: list[AccessRecord], tmp_path: Path, way: str) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(FILE)
    traces: queue.SimpleQueue[list[tuple[str, int, bool]]] = queue.SimpleQueue()
    jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def handler(req: Any, res: Any) -> None:
        row = ROWS[int(req.path[1:])]
        if way == "relayed":
            jobs.put((Relay.of(res).take(req, res), row))
            return
        traces.put(run(res, row, path))
        if not res.sent and type(res._lines).__name__ == "Later":
            if res._lines.begun:
                res.drop()
            else:
                res.defer()  # may be called again
                running.server._answer_500(res)

    def work() -> None:
        while (job := jobs.get()) is not None:
            relayed, row = job
            traces.put(run(relayed, row, path))
            relayed.replace(500)
            relayed.post()

    thread = threading.Thread(target=work)
    thread.start()
    running = serve(handler, access_log=None if way == "plain" else logging.getLogger("test.orders"))
    try:
        client = running.connect()
        for number, row in enumerate(ROWS):
            model = expected(row, relayed=way == "relayed")
            client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            if model.dropped:
                answers = range(model.informed + 1 + (model.status == 204))  # whose head is all of it
                with pytest.raises((ConnectionResetError, AssertionError)):
                    _ = [client.answer() for _ in answers]
            else:
                assert [client.answer().status for _ in range(model.informed)] == [103] * model.informed, row
                answer = client.answer()
                assert (answer.status, len(answer.body)) == (model.status, model.size), row
                assert answer.body == model.body[: model.size], row
                assert [name for name, _ in answer.headers].count("x-a") == model.fields, row
                assert answer.get("connection") == ("close" if model.closes else None), row
            assert traces.get(timeout=20) == model.trace, row
            if model.dropped or model.closes:
                assert model.dropped or client.at_end()
                client.close()
                running.clients.remove(client)
                client = running.connect()
            if way != "plain":
                running.until(lambda: records)
                (record,) = records
                records.clear()
                cause = "by_us" if model.dropped else ""
                assert (record.status, record.size, record.cause) == (model.status, model.size, cause), row
    finally:
        jobs.put(None)
        thread.join()
    logged.take()  # of those without an answer
