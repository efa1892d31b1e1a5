"""How what C has to say of many connections reaches each of them."""

from __future__ import annotations

import gc
import socket
import weakref
from typing import Any

import pytest

import evnet
from evloop import Loop
from evnet._inbox import inbox_of


class Echo:
    """Answers; a test may put something in front of that."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.data = b""
        self.lost = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def before(self) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.before()
        self.transport.write(data)

    def eof_received(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1


@pytest.fixture
def echoes(pair: Any) -> tuple[list[Echo], list[socket.socket]]:
    """Four connections, and their clients, who have all sent something that is not read yet."""
    made: list[Echo] = []

    def factory() -> Echo:
        made.append(Echo())
        return made[-1]

    pair.listen(factory)
    clients = []
    for _ in range(4):
        clients.append(pair.connect())
        pair.until(lambda: len(made) == len(clients))
    pair.turns()
    for client in clients:
        client.sendall(b"hello")
    return made, clients


def test_one_record_tells_of_all(loop: Loop, pair: Any, echoes: Any) -> None:
    made, clients = echoes
    inbox = inbox_of(loop)
    assert inbox is inbox_of(loop)
    arrived: list[int] = []
    loop.set_target(
        loop._targets.index(inbox._arrived), lambda record: (arrived.append(record[2]), inbox._arrived(record))
    )
    pair.until(lambda: all(echo.data for echo in made))
    assert sum(arrived) == 4
    assert max(arrived) > 1
    for client in clients:
        assert pair.read(client, 5) == b"hello"


def test_no_answer_waits_for_a_slow_neighbour(
    loop: Loop, pair: Any, echoes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, clients = echoes
    monkeypatch.setattr("evloop._core.FLUSH_AFTER_NS", 0)  # each is slow
    answered: list[int] = []

    def count() -> None:
        for client in clients:
            client.setblocking(False)
        waiting = 0
        for client in clients:
            try:
                waiting += len(client.recv(5, socket.MSG_PEEK)) == 5
            except BlockingIOError:
                pass
        answered.append(waiting)

    for echo in made:
        echo.before = count
    loop._stride = 0
    pair.until(lambda: all(echo.data for echo in made))
    assert answered == [0, 1, 2, 3]


def test_an_exception_ends_one_connection_and_names_its_protocol(loop: Loop, pair: Any, echoes: Any) -> None:
    made, clients = echoes
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))

    def fail() -> None:
        raise RuntimeError("on purpose")

    made[1].before = fail
    pair.until(lambda: made[1].lost)
    assert [echo.data for echo in made] == [b"hello"] * 4
    assert [echo.lost for echo in made] == [0, 1, 0, 0]
    (problem,) = problems
    assert problem["message"] == "exception in Echo"
    assert problem["protocol"] is made[1]
    assert problem["transport"] is made[1].transport
    assert str(problem["exception"]) == "on purpose"
    for client in (clients[0], *clients[2:]):
        assert pair.read(client, 5) == b"hello"


def test_an_exception_in_connection_lost_is_reported(loop: Loop, pair: Any, echoes: Any) -> None:
    made, clients = echoes
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    lost = made[0].connection_lost

    def fail(exc: Exception | None) -> None:
        lost(exc)
        raise RuntimeError("on purpose")

    made[0].connection_lost = fail
    clients[0].close()
    pair.until(lambda: made[0].lost and all(echo.data for echo in made))
    assert problems[0]["message"] == "exception in a protocol's connection_lost"


def test_an_interrupt_loses_nobodys_bytes(loop: Loop, pair: Any, echoes: Any) -> None:
    made, clients = echoes

    def interrupt() -> None:
        made[0].before = Echo().before
        raise KeyboardInterrupt

    made[0].before = interrupt
    with pytest.raises(KeyboardInterrupt):
        pair.until(lambda: False)
    pair.until(lambda: all(echo.data for echo in made))
    assert [echo.data for echo in made] == [b"hello"] * 4
    for client in clients[1:]:
        assert pair.read(client, 5) == b"hello"


def test_numbers_are_used_again(loop: Loop, pair: Any, echoes: Any) -> None:
    made, clients = echoes
    for client in clients:
        client.close()
    pair.until(lambda: all(echo.lost for echo in made))
    size = len(inbox_of(loop).protocols)
    for _ in range(4):
        pair.connect()
    pair.until(lambda: len(made) == 8)
    assert len(inbox_of(loop).protocols) == size


def test_it_goes_with_its_loop() -> None:
    loop = Loop()
    inbox_of(loop)
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


def test_data_received_is_looked_up_each_time(pair: Any, echoes: Any) -> None:
    made, _ = echoes
    got: list[bytes] = []
    made[0].data_received = got.append
    pair.until(lambda: got)
    assert got == [b"hello"]


def test_a_protocol_without_data_received_loses_its_connection(loop: Loop, pair: Any) -> None:
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))

    class Deaf:
        lost = 0

        def connection_made(self, transport: Any) -> None:
            pass

        def connection_lost(self, exc: Exception | None) -> None:
            Deaf.lost += 1

    assert isinstance(pair.listen(Deaf), evnet.Server)
    pair.connect().sendall(b"hello")
    pair.until(lambda: Deaf.lost)
    assert isinstance(problems[0]["exception"], AttributeError)
