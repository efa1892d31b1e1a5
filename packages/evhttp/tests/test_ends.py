"""How connections end, and what is said of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from evhttp import ConnectionEnd, Limits, Response
from evloop.testing import ManualClock

Serve = Callable[..., Any]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
QUICK = Limits(head_timeout=0.05, idle_timeout=0.05)


def told(serve: Serve, handler: Any, act: Callable[[Any], object], limits: Limits | None = None) -> ConnectionEnd:
    ends: list[ConnectionEnd] = []
    running = serve(handler, limits=limits, on_connection_end=ends.append)
    client = running.connect()
    act(client)
    running.until(lambda: ends)
    assert len(ends) == 1
    return ends[0]


def hello(req: Any, res: Any) -> None:
    res.send("hello")


def read_and_wait(client: Any) -> None:
    client.get()
    assert client.at_end()


@pytest.mark.parametrize(
    ("act", "limits", "cause", "requests"),
    [
        pytest.param(lambda c: c.get("/", "Connection: close"), None, "by_us", 1, id="announced"),
        pytest.param(lambda c: (c.get(), c.get(), c.close()), None, "by_client", 2, id="client"),
        pytest.param(read_and_wait, QUICK, "timed_out", 1, id="idle"),
        pytest.param(lambda c: c.send(GET[:9]).answer(), QUICK, "timed_out", 0, id="slow-head"),
        pytest.param(lambda c: c.send(b"\0\r\n\r\n").answer(), None, "protocol_violated", 0, id="nonsense"),
        pytest.param(lambda c: (c.get(), c.reset()), None, "lost", 1, id="reset"),
    ],
)
def test_causes(serve: Serve, act: Any, limits: Any, cause: str, requests: int) -> None:
    end = told(serve, hello, act, limits)
    assert (end.cause, end.requests) == (cause, requests)
    assert end.client is not None
    assert end.client[0] == "127.0.0.1"
    assert (end.error is not None) == (cause == "lost")
    assert f"ended after {requests} requests: {cause}" in str(end)


def test_more_is_queued_than_may_be(serve: Serve) -> None:
    """By a handler that does not look at what `write` returns, for a client that takes nothing; what is taken does not count."""
    said: list[bool] = []

    def handler(req: Any, res: Any) -> None:
        if req.path == "/whole":
            res.send(b"x" * 1_000_000)  # one answer of any size
            return

        def more() -> None:
            res.write(b"x" * 50_000)
            if not res._lines.lost:
                running.loop.call_soon(more)

        res.on_close(said.append)
        more()

    ends: list[Any] = []
    running = serve(handler, limits=Limits(max_queued_size=400_000), on_connection_end=ends.append)
    assert len(running.connect().get("/whole").body) == 1_000_000
    running.connect(receive_buffer=4096).send(GET)
    running.until(lambda: said)
    running.until(lambda: ends)
    assert said == [False]
    assert [(end.cause, end.level) for end in ends] == [("too_much_queued", logging.INFO)]
    assert running.call(running.server.stats).ends["too_much_queued"] == 1


def test_ends_are_logged_without_a_hook(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "evhttp")
    running = serve(hello, name="front")
    running.connect().get("/", "Connection: close")
    running.connect().send(b"\0\r\n\r\n").answer()
    running.until(lambda: len([r for r in caplog.records if "ended after" in r.getMessage()]) == 2)
    records = {r.getMessage(): r for r in caplog.records if "ended after" in r.getMessage()}
    assert sorted(records) == [
        "front: connection of 127.0.0.1 ended after 0 requests: protocol_violated",
        "front: connection of 127.0.0.1 ended after 1 requests: by_us",
    ]
    assert [records[text].levelname for text in sorted(records)] == ["INFO", "DEBUG"]
    assert all(getattr(record, "server", None) == "front" for record in records.values())


def test_the_name_stands_before_tracebacks(serve: Serve, logged: Any) -> None:
    assert serve(lambda req, res: 1 / 0, name="front").connect().get().status == 500
    assert logged.take()[0].getMessage().startswith("front: exception in the handler")


def test_max_requests(serve: Serve) -> None:
    client = serve(hello, limits=Limits(max_requests=3)).connect().send(GET * 5)
    answers = [client.answer() for _ in range(3)]
    assert [answer.get("connection") for answer in answers] == [None, None, "close"]
    assert client.at_end()


def test_an_answer_that_is_late(serve: Serve) -> None:
    """503, what comes behind is dropped, and what the handler says later harms nobody."""
    waiting: list[Response] = []
    ended: list[bool] = []

    def handler(req: Any, res: Any) -> None:
        waiting.append(res.on_close(ended.append))

    running = serve(handler, limits=Limits(answer_timeout=0.05))
    client = running.connect().send(GET * 2)
    answer = client.answer()
    assert (answer.status, answer.get("connection"), answer.body) == (
        503,
        "close",
        b"the answer was not ready in time\n",
    )
    assert client.at_end()
    running.until(lambda: len(ended) == 2)
    assert ended == [False, False]
    running.call(lambda: [res.send("late") for res in waiting])


def test_an_answer_that_is_late_in_the_middle(serve: Serve) -> None:
    client = serve(lambda req, res: res.write("a part"), limits=Limits(answer_timeout=0.05)).connect().send(GET)
    with pytest.raises((AssertionError, ConnectionResetError)):
        client.answer()


def test_pipelined_requests_do_not_put_the_deadline_off(stepped: Serve) -> None:
    seen: list[str] = []
    running = stepped(lambda req, res: (seen.append(req.path), res.defer()), limits=Limits(answer_timeout=10))
    (client,) = running.connect(1)
    clock = ManualClock(running.loop)
    for second in range(1, 10):
        client.send(GET)
        running.until(lambda second=second: len(seen) == second)
        clock.advance(1)
    assert running.server.connections == 1
    clock.advance(1.1)
    running.drain([client])
    assert client.answer().status == 503


def test_closing_with_a_timeout(serve: Serve, logged: Any) -> None:
    running = serve(lambda req, res: res.defer())
    client = running.connect().send(GET)
    running.until(lambda: running.server.connections)
    running.call(lambda: running.server.close(timeout=0.05))
    running.until(lambda: not running.server.connections)
    with pytest.raises((AssertionError, ConnectionResetError)):
        client.answer()
    assert logged.take()[0].getMessage() == "aborted 1 connections that had not ended"
