"""The access log: what a record holds, and the formats."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evhttp import AccessRecord, CombinedFormatter, JsonFormatter, Limits

Serve = Callable[..., Any]


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, list[logging.LogRecord]]]:
    logger = logging.getLogger("evhttp.test_access")
    handler = Kept()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger, handler.records
    logger.removeHandler(handler)


def respond(req: Any, res: Any) -> None:
    if req.path == "/later":
        res.defer()
        req._server.loop.call_later(0.02, lambda: res.status(201).send("later"))
    elif req.path == "/never":
        res.write(b"x" * 10)
    else:
        res.send("hello")


def one(running: Any, records: list[logging.LogRecord]) -> tuple[logging.LogRecord, AccessRecord]:
    running.until(lambda: records)
    (record,) = records
    assert isinstance(record.msg, AccessRecord)
    return record, record.msg


def test_an_answer(serve: Serve, log: Any) -> None:
    logger, records = log
    running = serve(respond, access_log=logger, name="front")
    fields = ("Referer: http://b/", 'User-Agent: a "tool" \\ \xe4')
    running.connect().get('/a"b?c', *fields)
    record, access = one(running, records)
    assert (access.method, access.target, access.version, access.status) == ("GET", '/a"b?c', "1.1", 200)
    assert (access.size, access.cause, access.server, access.scheme, access.host) == (5, "", "front", "http", "a")
    assert 0 < access.duration < 20  # type: ignore[operator]
    assert re.fullmatch(r'127\.0\.0\.1 "GET /a%22b\?c HTTP/1\.1" 200 5 [\d.]+ms', record.getMessage())

    found = json.loads(JsonFormatter().format(record))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found.pop("duration") >= 0
    assert found.pop("port") == access.client[1]  # type: ignore[index]
    assert found == {
        "server": "front",
        "client": "127.0.0.1",
        "status": 200,
        "method": "GET",
        "scheme": "http",
        "host": "a",
        "target": '/a"b?c',
        "version": "1.1",
        "bytes": 5,
        "cause": "",
        "referer": "http://b/",
        "user_agent": 'a "tool" \\ \xe4',
    }
    assert "\n" not in JsonFormatter().format(record)
    assert re.fullmatch(
        r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
        r'"GET /a%22b\?c HTTP/1\.1" 200 5 "http://b/" "a %22tool%22 %5C ä" \d+\.\d{6}',
        CombinedFormatter().format(record),
    )


def test_an_answer_that_comes_later(serve: Serve, log: Any) -> None:
    logger, records = log
    running = serve(respond, access_log=logger)
    running.connect().get("/later")
    _, access = one(running, records)
    assert (access.status, access.size, access.cause) == (201, 5, "")
    assert access.duration is not None
    assert access.duration >= 0.02


@pytest.mark.parametrize(
    ("send", "status"),
    [
        (lambda res: res.send(b"hello"), 200),
        (lambda res: res.send("hello"), 200),
        (lambda res: res.end("hello", trailers=[("X-A", "1")]), 200),
        (lambda res: res.status(304).send("hello"), 304),
    ],
    ids=["bytes", "text", "pieces", "304"],
)
def test_a_body_that_http_leaves_out_has_no_size(serve: Serve, log: Any, send: Any, status: int) -> None:
    logger, records = log
    running = serve(lambda req, res: send(res), access_log=logger)
    running.connect().send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").answer(head=True)
    _, access = one(running, records)
    assert (access.status, access.size, access.cause) == (status, 0, "")


@pytest.mark.parametrize("begun", [False, True])
def test_an_answer_that_was_dropped(serve: Serve, log: Any, begun: bool) -> None:
    """Not to be taken for one that was sent."""
    logger, records = log

    def handler(req: Any, res: Any) -> None:
        if begun:
            res.write(b"12345")
        res.drop()

    running = serve(handler, access_log=logger)
    client = running.connect().send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        client.at_end()
    record, access = one(running, records)
    assert (access.cause, access.size) == ("by_us", 5 if begun else 0)
    assert record.getMessage().endswith("ms by_us")


@pytest.mark.parametrize(
    ("act", "limits", "cause"),
    [
        (lambda client: client.reset(), None, "lost"),
        (lambda client: None, Limits(answer_timeout=0.05), "timed_out"),
    ],
)
def test_an_answer_that_is_cut_short(serve: Serve, log: Any, act: Any, limits: Any, cause: str) -> None:
    logger, records = log
    running = serve(respond, access_log=logger, limits=limits)
    client = running.connect().send(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n")
    while b"xxxxx" not in client.buffer:
        client._more()
    act(client)
    record, access = one(running, records)
    assert (access.cause, access.size) == (cause, 10)
    assert record.getMessage().endswith(f"ms {cause}")
    assert json.loads(JsonFormatter().format(record))["cause"] == cause


def test_a_refused_request(serve: Serve, log: Any) -> None:
    logger, records = log
    running = serve(respond, access_log=logger, name="front")
    running.connect().send(b"GET / HTTP/9.9\r\n\r\n").answer()
    record, access = one(running, records)
    assert (access.method, access.target, access.host, access.user_agent) == ("", "", "", "")
    assert re.fullmatch(r"127\.0\.0\.1 refused: 505 .+", record.getMessage())
    found = json.loads(JsonFormatter().format(record))
    assert (found["status"], found["cause"], found["reason"]) == (505, "refused", access.reason)
    assert "refused: 505" in CombinedFormatter().format(record)


def test_a_level_that_is_off_makes_no_records(serve: Serve, log: Any) -> None:
    logger, records = log
    logger.setLevel(logging.WARNING)
    running = serve(respond, access_log=logger)
    client = running.connect()
    client.get()
    client.send(b"\0\r\n\r\n").answer()
    assert records == []


def test_records_of_others() -> None:
    record = logging.makeLogRecord({"name": "x", "levelname": "ERROR", "msg": "a %s", "args": ("b",)})
    found = json.loads(JsonFormatter().format(record))
    assert (found["level"], found["logger"], found["message"]) == ("ERROR", "x", "a b")
    assert CombinedFormatter().format(record).endswith(" a b")
    try:
        raise ValueError("why")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "a", "exc_info": (ValueError, error, error.__traceback__)})
    assert json.loads(JsonFormatter().format(record))["exception"].endswith("ValueError: why")


def test_a_unix_client(log: Any, serve: Serve, tmp_path: Any) -> None:
    import socket

    logger, records = log
    running = serve(respond, access_log=logger)
    path = str(tmp_path / "s")
    running.call(lambda: running.server.listen_unix(path))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(path)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(4096)
    record, _ = one(running, records)
    assert record.getMessage().startswith('- "GET / HTTP/1.1" 200')
    assert CombinedFormatter().format(record).startswith("- - - [")
    assert json.loads(JsonFormatter().format(record))["client"] is None
