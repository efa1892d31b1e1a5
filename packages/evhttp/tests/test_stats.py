"""What a server counts, and how Prometheus is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from evhttp import Limits, MetricsHandler, Server, ServerStats
from evloop.testing import checked_loop

Serve = Callable[..., Any]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def respond(req: Any, res: Any) -> None:
    if req.path == "/pieces":
        res.status(404).write("a")
        res.end("b")
    elif req.path == "/later":
        res.defer()
        req._server.loop.call_later(0.03, lambda: res.send("x"))
    else:
        res.status(int(req.path[1:] or 200)).send("x")


def test_what_is_always_counted(serve: Serve) -> None:
    running = serve(respond)
    client = running.connect()
    client.send(GET * 10)
    for _ in range(10):
        client.answer()
    other = running.connect()
    other.send(b"\0\r\n\r\n").answer()
    other.at_end()
    other.close()
    running.until(lambda: running.server.connections == 1)
    stats = running.call(running.server.stats)
    assert (stats.connections, stats.accepted, stats.requests, stats.refused, stats.shed) == (1, 2, 10, 0, 0)
    assert stats.ends == {
        "by_us": 0,
        "by_client": 0,
        "timed_out": 0,
        "protocol_violated": 1,
        "lost": 0,
        "too_much_queued": 0,
    }
    assert (stats.answers, stats.latency, stats.latency_sum) == ({}, [], 0)
    client.close()
    running.until(lambda: running.server.connections == 0)
    stats = running.call(running.server.stats)
    assert (stats.requests, stats.ends["by_client"]) == (10, 1)


def test_answers_and_how_long_they_take(serve: Serve) -> None:
    running = serve(respond, measure=True, limits=Limits(max_body_size=10))
    client = running.connect()
    statuses = [200, 204, 304, 404, 500, 503]
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % status for status in statuses))
    for status in statuses:
        assert client.answer().status == status
    assert client.get("/pieces").status == 404
    assert client.get("/later").status == 200
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").send(b"abc").answer()
    assert client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n").answer().status == 413
    stats = running.call(running.server.stats)
    assert stats.answers == {"2xx": 4, "3xx": 1, "4xx": 3, "5xx": 2}
    bounds = [bound for bound, _ in stats.latency]
    assert bounds == sorted(bounds)
    assert bounds[-1] == float("inf")
    assert sum(count for _, count in stats.latency) == 10
    assert sum(count for bound, count in stats.latency if bound > 0.025) >= 1
    assert stats.latency_sum >= 0.03


def test_pipelined_answers_are_measured_each(serve: Serve) -> None:
    running = serve(respond, measure=True)
    client = running.connect()
    client.send(GET * 300)
    for _ in range(300):
        client.answer()
    stats = running.call(running.server.stats)
    assert sum(count for _, count in stats.latency) == stats.answers["2xx"] == 300


def test_after_the_end() -> None:
    with checked_loop() as loop:
        server = Server(respond, loop=loop, measure=True).listen("127.0.0.1", 0)
        server.close()
        assert server.stats().connections == 0
    assert server.stats() == ServerStats(
        0, 0, 0, 0, 0, server.stats().ends, server.stats().answers, server.stats().latency, 0
    )


LINE = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [\d.e+-]+')


def test_prometheus(serve: Serve) -> None:
    running = serve(respond, measure=True, name='a"\\b')
    metrics = running.call(lambda: Server(MetricsHandler(running.server), loop=running.loop).listen("127.0.0.1", 0))
    client = running.connect()
    client.get("/404")
    client.get("/later")
    running.address = metrics.addresses[0]
    scraper = running.connect()
    answer = scraper.get()
    assert answer.get("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.body.decode().splitlines()
    label = 'server="a\\"\\\\b"'
    assert f"evhttp_requests_total{{{label}}} 2" in lines
    assert f"evhttp_connections{{{label}}} 1" in lines
    assert f'evhttp_answers_total{{{label},code="4xx"}} 1' in lines
    assert f'evhttp_answer_seconds_bucket{{{label},le="+Inf"}} 2' in lines
    assert f"evhttp_answer_seconds_count{{{label}}} 2" in lines
    buckets = [int(line.rpartition(" ")[2]) for line in lines if "_bucket" in line]
    assert buckets == sorted(buckets)
    assert len(buckets) == 16
    # Each family has its HELP and TYPE once, before its lines.
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    for line in lines:
        if not line.startswith("#"):
            name = re.split(r"[{ ]", line)[0]
            assert name in families or re.sub("_(bucket|sum|count)$", "", name) in families
    assert scraper.get().status == 200
    assert scraper.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").answer(head=True).status == 200
    assert scraper.send(b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n").answer().get("allow") == "GET, HEAD"


def test_without_labels_and_measures() -> None:
    with checked_loop() as loop:
        text = MetricsHandler(Server(respond, loop=loop)).text()
        assert all(line.startswith("# ") or LINE.fullmatch(line) for line in text.splitlines())
        assert "evhttp_requests_total 0" in text.splitlines()
        assert "evhttp_answer_seconds" not in text
        with pytest.raises(ValueError, match="no server"):
            MetricsHandler()
