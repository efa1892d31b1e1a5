"""A connection without a loop: one thread reads requests from a socket and answers them, and nobody waits but it."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from evhttp import BlockingConnection, BlockingExchange, BodyError, Limits, ResponseStateError

PATIENCE = 20


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, BlockingConnection]]:
    theirs, ours = socket.socketpair()
    theirs.settimeout(PATIENCE)
    connection = BlockingConnection(ours, Limits(body_timeout=0.05, write_timeout=0.05), connection_id=7)
    yield theirs, connection
    connection.close()
    theirs.close()


def next_request(connection: BlockingConnection) -> BlockingExchange:
    """Wait as whoever has many of them does."""
    while (exchange := connection.receive()) is None:
        assert not connection.is_over
        assert select.select([connection.sock], [], [], PATIENCE)[0]
    return exchange


def test_it_waits_for_nobody(pair: tuple[socket.socket, BlockingConnection]) -> None:
    theirs, connection = pair
    assert connection.receive() is None
    assert connection.is_idle
    theirs.sendall(b"GET /a?b=c HTTP/1.1\r\nHo")
    assert connection.receive() is None
    assert not connection.is_idle
    theirs.sendall(b"st: h\r\n\r\nGET /second HTTP/1.1\r\nHost: h\r\n\r\n")
    exchange = next_request(connection)
    assert (exchange.path, exchange.query["b"], exchange.client, exchange.connection_id) == ("/a", "c", None, 7)
    exchange.send(b"one")
    assert connection.finish()
    second = next_request(connection)
    assert second.path == "/second"
    second.close_connection().send("two")
    assert not connection.finish()
    answers = b"".join(iter(lambda: theirs.recv(1000), b""))
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answers.endswith(b"\r\n\r\ntwo")
    theirs.shutdown(socket.SHUT_WR)
    assert connection.receive() is None
    assert connection.is_over
    assert (connection.ended.cause, connection.ended.requests) == ("by_us", 2)


def test_a_body_in_pieces_and_one_that_does_not_come(pair: tuple[socket.socket, BlockingConnection]) -> None:
    theirs, connection = pair
    theirs.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    exchange = next_request(connection)
    assert exchange.is_streamed
    assert exchange.body_file.read1() == b"abc"
    with pytest.raises(BodyError, match="read by body_file") as error:
        _ = exchange.body
    assert error.value.status == 500
    with pytest.raises(BodyError, match="did not come in time") as error:
        exchange.body_file.read()
    assert error.value.status == 408
    exchange.send_error(error.value.status)
    assert not connection.finish()
    assert connection.ended.cause == "timed_out"
    assert b"408 Request Timeout\r\n" in theirs.recv(1000)


def test_a_client_that_takes_nothing(pair: tuple[socket.socket, BlockingConnection]) -> None:
    theirs, connection = pair
    theirs.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    exchange = next_request(connection)
    while exchange.write(bytes(1_000_000)):
        pass
    assert exchange.is_lost
    assert exchange.client_gone
    assert not connection.finish()
    assert connection.ended.cause == "timed_out"


def test_giving_up(pair: tuple[socket.socket, BlockingConnection]) -> None:
    theirs, connection = pair
    theirs.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    exchange = next_request(connection)
    connection.give_up(504, "too late")
    exchange.send("later still")  # is dropped
    assert not connection.finish()
    answer = b"".join(iter(lambda: theirs.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    assert answer.endswith(b"too late\n")
    with pytest.raises(ResponseStateError):
        _ = exchange.relay
