"""`MultiServer(on_close=, log=)`: how connections of workers end, and who is told of it, in threads and in processes."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evhttp
from evmulti import Cause, ConnectionClosed, Dispatcher, LogEntry, MultiServer, context

from .blocking import Client
from .conftest import until

QUICK = evhttp.Limits(idle_timeout=0.05, head_timeout=0.05)
SLOW_TO_TAKE = evhttp.Limits(write_timeout=0.05)


def act_in_pool(req: Any, res: Any) -> None:
    match req.path:
        case "/close":
            res.close_connection().send("hello")
        case "/drop":
            res.drop()
        case "/security":
            context.connection.close(Cause.SECURITY)
            res.send("hello")
        case "/security-now":
            context.connection.abort(Cause.SECURITY)
            res.send("hello")
        case "/half":
            res.write("half")
            raise ValueError("on purpose")
        case "/large":
            res.send(bytes(50_000_000))
        case _:
            context.connection.context = "noted"
            res.send("hello")


class Record:
    """Takes lines from this process and its children: the callbacks are called where the worker is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def write(self, **fields: object) -> None:
        line = json.dumps(fields | {"pid": os.getpid()}) + "\n"
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, line.encode())  # at once, so that lines of several processes do not mix
        finally:
            os.close(fd)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def ends(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if "cause" in line]

    def entries(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if "message" in line]

    def on_close(self, end: ConnectionClosed) -> None:
        self.write(
            cause=end.cause.name,
            requests=end.requests,
            context=end.connection.context,
            error=end.error is not None,
            text=str(end),
        )

    def log(self, entry: LogEntry) -> None:
        self.write(
            message=entry.message,
            level=entry.level,
            server=entry.server,
            server_id=entry.server_id,
            process=entry.process,
            thread=entry.thread,
        )


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "record")


def take_nothing(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.ask("/large")


# What the client does, the limits that make it end, and how many requests the server has taken by then.
PROVOKED: list[Any] = [
    pytest.param(Cause.CLOSED_BY_US, lambda client: client.get("/close"), None, 1, id="closed by us"),
    pytest.param(Cause.CLOSED_BY_US, lambda client: client.ask("/drop"), None, 1, id="dropped by us"),
    pytest.param(Cause.CLOSED_BY_CLIENT, lambda client: (client.get(), client.close()), None, 1, id="closed by client"),
    pytest.param(Cause.CLOSED_BY_CLIENT, lambda client: client.close(), None, 0, id="closed without a request"),
    pytest.param(Cause.LOST, lambda client: (client.get(), client.reset()), None, 1, id="lost"),
    pytest.param(Cause.TIMED_OUT, lambda client: client.get(), QUICK, 1, id="timed out between requests"),
    pytest.param(Cause.TIMED_OUT, lambda client: client.send(b"GET /"), QUICK, 0, id="timed out in a head"),
    pytest.param(Cause.TIMED_OUT, take_nothing, SLOW_TO_TAKE, 1, id="timed out while it takes nothing"),
    pytest.param(Cause.PROTOCOL_VIOLATED, lambda client: client.send(b"\0\r\n\r\n"), None, 0, id="protocol violated"),
    pytest.param(Cause.SECURITY, lambda client: client.get("/security"), None, 1, id="security"),
    pytest.param(Cause.SECURITY, lambda client: client.ask("/security-now"), None, 1, id="security at once"),
    pytest.param(Cause.EXCEPTION, lambda client: client.ask("/half"), None, 1, id="exception"),
]


@pytest.mark.parametrize(("cause", "act", "limits", "requests"), PROVOKED)
def test_each_cause_is_told_and_logged_once(
    mode: Any, record: Record, cause: Cause, act: Callable[[Client], Any], limits: evhttp.Limits | None, requests: int
) -> None:
    pool = Dispatcher(act_in_pool, pool_size=1, name="pool", log=None)
    server = MultiServer(
        pool, 2, mode, name="front", limits=limits, on_close=record.on_close, log=record.log, log_level=logging.DEBUG
    )
    with pool, server.listen("127.0.0.1", 0):
        client = Client(server.addresses[0])
        act(client)
        until(record.ends, f"the end of a connection: {cause}")
        client.close()
        (number,) = {server.log.server_id}
    (end,) = record.ends()
    assert (end["cause"], end["error"]) == (cause.name, cause is Cause.LOST)
    # A refused head was not taken, an end in the middle of one was none.
    assert end["requests"] == requests
    (logged,) = [entry for entry in record.entries() if entry["message"] == end["text"]]
    assert logged["level"] == cause.level
    assert (logged["server"], logged["server_id"]) == ("front", number)
    assert logged["thread"] in ("worker-0", "worker-1")
    assert logged["process"] == logged["pid"] == end["pid"]
    assert (logged["process"] == os.getpid()) == (mode == "thread")


def test_what_a_handler_has_noted_is_there_at_the_end(mode: Any, record: Record) -> None:
    pool = Dispatcher(act_in_pool, pool_size=1)
    with pool, MultiServer(pool, 1, mode, on_close=record.on_close).listen("127.0.0.1", 0) as server:
        client = Client(server.addresses[0])
        client.get("/a")
        client.get("/b")
        client.close()
        until(record.ends, "the end of the connection")
    assert [(end["context"], end["requests"]) for end in record.ends()] == [("noted", 2)]


def test_those_that_are_aborted_at_the_end_are_told(mode: Any, record: Record) -> None:
    def never(req: Any, res: Any) -> None:
        res.defer()

    with MultiServer(never, 1, mode, on_close=record.on_close, log=record.log, grace=0.0).listen(
        "127.0.0.1", 0
    ) as server:
        clients = [Client(server.addresses[0]).ask() for _ in range(3)]
        until(lambda: sum(worker.requests for worker in server.stats().workers) == 3, "the requests")
    assert [end["cause"] for end in record.ends()] == ["CLOSED_BY_US"] * 3
    for client in clients:
        assert client.at_end()
        client.close()


def test_what_a_handler_raises_is_logged_by_its_worker(mode: Any, record: Record) -> None:
    """What a handler raises is logged by the worker, with its name, whichever process it is in."""

    def broken(req: Any, res: Any) -> None:
        raise RuntimeError("on purpose")

    server = MultiServer(broken, 1, mode, name="front", log=record.log)
    with server.listen("127.0.0.1", 0):
        client = Client(server.addresses[0])
        assert client.get("/raise").status == 500
        client.close()
        until(record.entries, "the log")
    (entry, *_) = [each for each in record.entries() if "exception in the handler" in each["message"]]
    assert entry["message"] == "exception in the handler for GET /raise"
    assert (entry["server"], entry["server_id"], entry["thread"]) == ("front", server.log.server_id, "worker-0")
    assert (entry["process"] == os.getpid()) == (mode == "thread")


def test_what_is_below_the_level_is_not_logged_and_told_all_the_same(mode: Any, record: Record) -> None:
    server = MultiServer(
        lambda req, res: res.send("hello"), 1, mode, on_close=record.on_close, log=record.log, log_level=logging.ERROR
    )
    with server.listen("127.0.0.1", 0):
        client = Client(server.addresses[0])
        client.get()
        client.reset()
        until(record.ends, "the end of the connection")
    assert [end["cause"] for end in record.ends()] == ["LOST"]
    assert record.entries() == []


def test_without_a_callback_logging_has_the_lines(record: Record, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "evmulti")
    server = MultiServer(lambda req, res: res.send("hello"), 1, "thread", name="front", on_close=record.on_close)
    with server.listen("127.0.0.1", 0):
        client = Client(server.addresses[0])
        client.get()
        client.close()
        until(record.ends, "the end of the connection")
    (end,) = record.ends()
    (line,) = [each for each in caplog.records if end["text"] in each.getMessage()]
    assert line.getMessage() == f"front#{server.log.server_id} [{os.getpid()}/worker-0] {end['text']}"
    assert (line.server, line.server_id, line.worker) == ("front", server.log.server_id, "worker-0")  # type: ignore[attr-defined]
