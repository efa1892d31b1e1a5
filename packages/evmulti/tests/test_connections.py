"""Connections' ends: the cause of each, and its level."""

from __future__ import annotations

import errno
import logging
from typing import Any

import pytest

import evhttp
from evmulti import Cause, ConnectionClosed, Connections, LogEntry, Service, Services
from evmulti._connections import Connection

from .blocking import Client, Serving

QUICK = evhttp.Limits(idle_timeout=0.05, head_timeout=0.05)


def half(req: Any, res: Any) -> None:
    res.write("half")
    raise ValueError("on purpose")


@pytest.mark.parametrize(
    ("cause", "act", "limits"),
    [
        (Cause.CLOSED_BY_US, lambda client: client.get("/close"), None),
        (Cause.CLOSED_BY_CLIENT, lambda client: (client.get(), client.close()), None),
        (Cause.LOST, lambda client: (client.get(), client.reset()), None),
        (Cause.TIMED_OUT, lambda client: client.get(), QUICK),
        (Cause.PROTOCOL_VIOLATED, lambda client: (client.get(), client.send(b"\0\r\n\r\n")), None),
        (Cause.SECURITY, lambda client: client.get("/security"), None),
        (Cause.EXCEPTION, lambda client: client.ask("/half"), None),
    ],
)
def test_causes(serving: Serving, cause: Cause, act: Any, limits: Any) -> None:
    closed: list[ConnectionClosed] = []
    entries: list[LogEntry] = []

    def handler(req: Any, res: Any) -> None:
        if req.path == "/half":
            half(req, res)
        if req.path == "/close":
            res.close_connection()
        if req.path == "/security":
            req.connection.close(Cause.SECURITY)
        res.send("hello")

    service = Service(
        "front", handler, port=0, pool_size=1, limits=limits, on_close=closed.append, log=entries.append, log_level=0
    )
    services = Services(service, loop=serving.loop).start()
    serving.dispatcher = service.dispatcher
    serving.address = service.addresses[0]
    serving.serve_started()
    client = serving.connect()
    act(client)
    serving.until(lambda: closed)
    (end,) = closed
    assert end.cause is cause
    assert end.requests >= 1
    assert end.connection.client is not None
    assert (end.error is not None) == (cause is Cause.LOST)
    logged = [entry for entry in entries if entry.message == str(end)]
    assert [(entry.level, entry.server) for entry in logged] == [(cause.level, "front")]
    assert services.services == (service,)


def test_errors_of_the_network_are_told_from_clients_that_left() -> None:
    class Server:
        def watch_ends(self, callback: Any) -> None:
            self.ended = callback

    class Relay:
        server = Server()
        context = None

    closed: list[ConnectionClosed] = []
    Connections(Relay(), closed.append)  # type: ignore[arg-type]
    for number in (errno.ECONNRESET, errno.EPIPE, errno.EHOSTUNREACH, errno.ETIMEDOUT):
        Relay.server.ended(evhttp.ConnectionEnd("lost", None, 1, OSError(number, "why"), 7))
    assert [end.cause for end in closed] == [Cause.LOST, Cause.LOST, Cause.NET_ERROR, Cause.NET_ERROR]
    assert str(closed[0]) == "connection 7 of - ended after 1 requests: lost (why)"


def test_levels_rise_with_what_should_be_looked_at() -> None:
    levels = [cause.level for cause in Cause]
    assert min(levels) == logging.DEBUG
    assert Cause.EXCEPTION.level == logging.ERROR
    assert levels == sorted(levels)


def test_a_connection_that_has_ended_is_forgotten(serving: Serving) -> None:
    serving.start(lambda req, res: res.send("hello"))
    clients = [Client(serving.address) for _ in range(10)]
    for client in clients:
        client.get()
    known = evhttp.Relay.at(serving.server).context
    assert len(known) == 10
    for client in clients:
        client.close()
    serving.until(lambda: len(known) == 0)


def test_what_a_connection_looks_like() -> None:
    connection = Connection(None, 3, ("192.0.2.1", 80))  # type: ignore[arg-type]
    assert repr(connection) == "<Connection 3 of 192.0.2.1:80>"
