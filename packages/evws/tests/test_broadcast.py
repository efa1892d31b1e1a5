"""One message for many: whom it reaches, whom it does not, and that slow receivers hold nobody up."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

import evws
from evloop import Loop
from evloop.testing import checked_loop, run_until
from evws import Group, Limits, Opcode, QueueFullError
from evws._pins import pins_of

Serve = Callable[..., Any]
BLOB = random.Random(8).randbytes(4_000_000)


def test_everybody_gets_the_same(serve: Serve) -> None:
    group = Group()
    running = serve(on_open=group.add)
    clients = [running.open() for _ in range(50)]
    messages: list[Any] = [
        "",
        "é",
        b"\xff",
        "x" * 125,
        "x" * 126,
        b"b" * 65535,
        b"b" * 65536,
        BLOB[:300_000],
        bytearray(b"a"),
    ]
    for message in messages:
        assert running.call(lambda message=message: group.send(message)) == []
    for client in clients:
        for message in messages:
            frame = client.frame()
            text = isinstance(message, str)
            assert frame.opcode == (Opcode.TEXT if text else Opcode.BINARY)
            assert frame.payload == (message.encode() if text else bytes(message))
            assert frame.fin


def test_order_with_other_messages(serve: Serve) -> None:
    def answer(ws: Any, message: str) -> None:
        ws.send("before")
        evws.broadcast([ws], "middle")
        ws.send("after")

    client = serve(answer).open().text("go")
    assert [client.message() for _ in range(3)] == [b"before", b"middle", b"after"]


def test_those_that_are_not_open_are_returned(serve: Serve) -> None:
    sockets: list[Any] = []
    running = serve(on_open=sockets.append)
    first, second = running.open(), running.open()
    running.until(lambda: len(sockets) == 2)

    def send() -> list[Any]:
        sockets[0].close()
        return evws.broadcast(sockets, "x")

    assert running.call(send) == [sockets[0]]
    assert second.message() == b"x"
    first.send(Opcode.CLOSE, b"\x03\xe8")
    running.until(lambda: running.told("close"))
    assert running.call(lambda: evws.broadcast(sockets, "y")) == [sockets[0]]
    assert running.call(lambda: evws.broadcast([], "y")) == []
    assert second.message() == b"y"


def test_a_peer_that_is_going(serve: Serve) -> None:
    """It was aborted in this very turn."""
    sockets: list[Any] = []
    failed: list[Any] = []

    def answer(ws: Any, message: str) -> None:
        sockets[0].abort()
        failed.append(evws.broadcast(sockets, "x"))

    running = serve(answer, on_open=sockets.append)
    running.open()
    client = running.open()
    running.until(lambda: len(sockets) == 2)
    client.text("go")
    assert client.message() == b"x"
    running.until(lambda: failed)
    assert failed == [[sockets[0]]]


@pytest.mark.parametrize("size", [3000, 60_000])
def test_slow_receivers_hold_nobody_up(serve: Serve, size: int) -> None:
    """One takes nothing: the others get everything, then it is closed by its own limit, and what it borrowed comes back."""
    group = Group()
    running = serve(on_open=group.add, limits=Limits(max_queue_size=3_000_000))
    slow = running.open(receive_buffer=4096)
    fast = [running.open() for _ in range(3)]
    message = BLOB[:size]
    sent = 0
    while not running.told("error"):
        failed = running.call(lambda: group.send(message))
        sent += 1
        assert len(failed) <= 1
        for client in fast:
            assert client.message() == message
        assert sent < 20_000_000 // size
    ((_, error),) = running.told("error")
    assert isinstance(error, QueueFullError)
    running.until(lambda: len(group) == 3)
    slow.close()
    assert running.call(lambda: len(pins_of(running.loop))) == 0


def test_full_queues_drop(serve: Serve) -> None:
    sockets: list[Any] = []
    running = serve(on_open=sockets.append, limits=Limits(max_queue_size=1_000_000, when_full="drop"))
    client = running.open(receive_buffer=4096)
    running.until(lambda: sockets)
    results = [running.call(lambda: evws.broadcast(sockets, BLOB[:400_000])) for _ in range(30)]
    lost = results.count(sockets)
    assert lost == running.call(lambda: sockets[0].dropped) > 0
    for _ in range(30 - lost):
        assert client.message() == BLOB[:400_000]
    assert client.text("still here").message() == b"still here"


@pytest.mark.parametrize("size", [1000, 4_000_000])
def test_timeout_closes_those_that_stall(serve: Serve, size: int) -> None:
    sockets: list[Any] = []
    running = serve(on_open=sockets.append, limits=Limits(max_queue_size=100_000_000))
    running.open(receive_buffer=4096)
    reader = running.open()
    running.until(lambda: len(sockets) == 2)
    running.call(lambda: sockets[0].send(BLOB))  # so much that the kernel does not take it
    assert running.call(lambda: evws.broadcast(sockets, BLOB[:size], timeout=0.05)) == []
    assert reader.message() == BLOB[:size]
    running.until(lambda: running.told("close"))
    ((_, error),) = running.told("error")
    assert isinstance(error, TimeoutError)
    assert reader.text("x").message() == b"x"
    assert running.call(lambda: evws.broadcast(sockets[1:], "later", timeout=0.01)) == []
    assert reader.message() == b"later"
    assert len(running.told("close")) == 1


def test_who_takes_it_in_time_is_not_closed(serve: Serve) -> None:
    """What is written behind the broadcast, and is not taken, does not count."""
    sockets: list[Any] = []
    running = serve(on_open=sockets.append, limits=Limits(max_queue_size=100_000_000))
    client = running.open(receive_buffer=65536)
    running.until(lambda: sockets)

    def send() -> None:
        sockets[0].send(BLOB[:500_000])
        evws.broadcast(sockets, b"mark", timeout=1)
        for _ in range(5):
            sockets[0].send(BLOB)

    running.call(send)
    assert client.message() == BLOB[:500_000]
    assert client.message() == b"mark"
    ticks: list[int] = []
    running.call(lambda: running.loop.call_every(0.05, lambda: ticks.append(1)))
    for _ in range(5):
        assert client.message() == BLOB
    running.until(lambda: len(ticks) >= 30)
    assert running.told("close", "error") == []


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_timeouts_that_make_no_sense(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        evws.broadcast([], "x", timeout=timeout)


def test_from_other_threads(serve: Serve) -> None:
    """Four threads at once: every message comes whole, those of one thread in order."""
    group = Group()
    running = serve(on_open=group.add)
    clients = [running.open() for _ in range(5)]
    running.until(lambda: len(group) == 5)

    def send(name: int) -> None:
        for number in range(200):
            assert group.send(f"{name} {number}") == []

    threads = [threading.Thread(target=send, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for client in clients:
        seen: dict[str, list[int]] = {}
        for _ in range(800):
            name, number = client.message().decode().split()
            seen.setdefault(name, []).append(int(number))
        assert seen == {str(name): list(range(200)) for name in range(4)}
    for thread in threads:
        thread.join()


def test_sockets_of_a_closed_loop(backend: str) -> None:
    sockets: list[Any] = []
    with checked_loop(backend) as loop:
        server = evws.Server(on_message=print, loop=loop, on_open=sockets.append).listen("127.0.0.1", 0)
        evws.connect(loop, f"ws://127.0.0.1:{server.addresses[0][1]}/", on_message=print, on_open=sockets.append)
        run_until(loop, lambda: len(sockets) == 2)
    assert set(evws.broadcast(sockets, "x")) == set(sockets)


def test_clients_send_it_masked(backend: str) -> None:
    got: list[Any] = []
    sockets: list[Any] = []
    with checked_loop(backend) as loop:
        server = evws.Server(on_message=lambda ws, message: got.append(message), loop=loop).listen("127.0.0.1", 0)
        for _ in range(3):
            evws.connect(
                loop,
                f"ws://127.0.0.1:{server.addresses[0][1]}/",
                on_message=lambda ws, message: None,
                on_open=sockets.append,
            )
        run_until(loop, lambda: len(sockets) == 3)
        for message in ("hi", BLOB[:100_000]):
            loop.call_soon(evws.broadcast, sockets, message)
            run_until(loop, lambda: len(got) == 3)
            assert got == [message] * 3
            got.clear()


def test_groups(backend: str) -> None:
    one, other = Group(), Group()
    with checked_loop(backend) as loop:
        server = evws.Server(
            on_message=lambda ws, message: one.send(message, without=ws), on_open=one.add, loop=loop
        ).listen("127.0.0.1", 0)
        got: list[list[Any]] = [[], [], []]
        connectings = [
            evws.connect(
                loop,
                f"ws://127.0.0.1:{server.addresses[0][1]}/",
                on_message=lambda ws, message, mine=mine: mine.append(message),  # type: ignore[misc]
            )
            for mine in got
        ]
        run_until(loop, lambda: len(one) == 3 and all(each.done() for each in connectings))
        clients = [each.result() for each in connectings]
        clients[0].send("to the others")
        run_until(loop, lambda: got[1] and got[2])
        assert got == [[], ["to the others"], ["to the others"]]
        first = next(iter(one))
        other.add(first)
        other.add(first)
        assert (first in other, len(other), repr(other)) == (True, 1, "<Group of 1>")
        other.discard(first)
        other.discard(first)
        assert (first in other, first in one) == (False, True)
        other.add(first)
        for client in clients:
            client.close()
        run_until(loop, lambda: not len(one))
        assert len(other) == 0
        other.add(first)  # too late
        assert len(other) == 0
        assert one.send("nobody") == []
        server.close()
        run_until(loop, lambda: not server.connections)


def test_a_group_needs_no_loop() -> None:
    with Loop():
        group = Group()
        assert group.send("x") == []
