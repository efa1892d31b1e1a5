"""What a handler can ask without having been given it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from evmulti import ContextError, context, suspend

from .blocking import Gate, Serving


def test_each_thread_has_its_own(serving: Serving) -> None:
    gate = Gate()

    def handler(req: Any, res: Any) -> None:
        gate.wait()
        assert context.request is req
        assert context.connection is req.connection  # type: ignore[attr-defined]  # of those that a pool handles
        assert not context.client_gone
        assert context.thread_name == threading.current_thread().name
        res.send(context.request.path)

    serving.start(handler, pool_size=4)
    clients = [serving.connect().ask(f"/{number}") for number in range(4)]
    gate.until(4)
    gate.opened.set()
    assert [client.answer().body for client in clients] == [b"/0", b"/1", b"/2", b"/3"]


@pytest.mark.parametrize("name", ["request", "connection", "client_gone"])
def test_outside_of_a_handler(name: str) -> None:
    with pytest.raises(ContextError, match="not in a handler"):
        getattr(context, name)
    assert context.thread_name == threading.current_thread().name


def test_suspend_outside_of_a_handler_is_a_sleep() -> None:
    assert suspend(0)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_what_is_no_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        suspend(seconds)


def test_handlers_that_suspend_share_one_place(serving: Serving) -> None:
    """Eight handlers sleep at the same time, although only one may run."""
    gate = Gate()

    def handler(req: Any, res: Any) -> None:
        gate.arrived.release()
        assert suspend(0.01)
        res.send("awake")

    serving.start(handler, pool_size=8, max_active=1)
    clients = [serving.connect().ask() for _ in range(8)]
    gate.until(8)
    assert [client.answer().body for client in clients] == [b"awake"] * 8


def test_flags_and_context_of_a_connection(serving: Serving) -> None:
    def handler(req: Any, res: Any) -> None:
        connection = context.connection
        before = connection.set_flags(1 << int(req.query["bit"]))
        connection.context = (connection.context or 0) + 1
        if "clear" in req.query:
            assert connection.clear_flags(1) == before | 1 << int(req.query["bit"])
        res.send(f"{before} {connection.flags} {connection.context}")

    client = serving.start(handler).connect()
    assert client.get("/?bit=0").body == b"0 1 1"
    assert client.get("/?bit=2").body == b"1 5 2"
    assert client.get("/?bit=3&clear=1").body == b"5 12 3"
    assert serving.connect().get("/?bit=0").body == b"0 1 1"
