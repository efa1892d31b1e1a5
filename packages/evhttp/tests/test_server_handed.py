"""Servers whose sockets come from elsewhere, and that end without losing a request that is on its way."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

import evnet
from evhttp import EvHttpError, Request, Response, Server
from evloop import Loop, LoopClosedError

Serve = Callable[..., Any]


def echo(req: Request, res: Response) -> None:
    res.send(req.path)


def test_listens_on_a_socket_from_elsewhere(serve: Serve) -> None:
    running = serve(echo)
    (sock,) = evnet.bind_tcp("127.0.0.1", 0)
    address = sock.getsockname()
    running.call(lambda: running.server.listen_socket(sock))
    assert address in running.server.addresses
    with socket.create_connection(address) as client:
        client.sendall(b"GET /there HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.makefile("rb").read().endswith(b"/there")


@pytest.mark.parametrize("closed", [False, True])
def test_serves_a_client_who_was_accepted_elsewhere(serve: Serve, closed: bool) -> None:
    running = serve(echo)
    with evnet.bind_tcp("127.0.0.1", 0)[0] as listener:
        running.address = listener.getsockname()
        client = running.connect()
        listener.setblocking(True)
        accepted = listener.accept()[0]
    if closed:
        running.call(running.server.close)
    running.call(lambda: running.server.adopt(accepted))
    assert accepted.fileno() == -1
    answer = client.get("/adopted")
    assert (answer.body, answer.get("connection")) == (b"/adopted", "close" if closed else None)
    if closed:
        assert client.at_end()
        running.until(lambda: running.server.connections == 0)


def test_adopts_a_unix_socket(serve: Serve) -> None:
    running = serve(echo)
    ours, theirs = socket.socketpair()
    with theirs:
        running.call(lambda: running.server.adopt(ours))
        theirs.sendall(b"GET /unix HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert theirs.makefile("rb").read().endswith(b"/unix")


def test_what_cannot_be_watched_stays_the_caller_s(serve: Serve, tmp_path: Any) -> None:
    running = serve(echo)
    running.call(running.server.close)
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(EvHttpError, match="closed"):
        running.server.listen_socket(sock)
    loop = Loop()
    server = Server(echo, loop=loop)
    loop.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(LoopClosedError):
            server.adopt(ours)
        assert ours.fileno() >= 0


def test_an_idle_connection_that_is_kept_asks_once_more(serve: Serve) -> None:
    running = serve(echo)
    asking, silent = running.connect(), running.connect()
    for client in (asking, silent):
        assert client.get("/first").get("connection") is None
    running.call(lambda: running.server.close(keep_idle=True))
    assert running.server.connections == 2
    answer = asking.get("/second")
    assert (answer.body, answer.get("connection")) == (b"/second", "close")
    assert asking.at_end()
    running.call(running.server.close)
    assert silent.at_end()
    running.until(lambda: running.server.connections == 0)


def test_a_client_whose_answer_had_begun_asks_once_more(serve: Serve) -> None:
    """Its head could not say that the server ends, so a request may be on its way."""
    waiting: list[Response] = []

    def handler(req: Request, res: Response) -> None:
        if req.path == "/pieces":
            res.write("first ")
            waiting.append(res)
        else:
            res.send(req.path)

    running = serve(handler)
    asking, silent = [running.connect().send(b"GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(2)]
    running.until(lambda: len(waiting) == 2)
    running.call(lambda: running.server.close(keep_idle=True))
    running.call(lambda: [res.end("last") for res in waiting])
    running.call(running.server.close)  # the idle ones; but these have not been told
    for client in (asking, silent):
        answer = client.answer()
        assert (answer.body, answer.get("connection")) == (b"first last", None)
    answer = asking.get("/once-more")
    assert (answer.body, answer.get("connection")) == (b"/once-more", "close")
    assert asking.at_end()
    asking.close()
    assert silent.at_end()  # after a second
    running.until(lambda: running.server.connections == 0)


def test_a_client_that_goes_on_sending_is_not_reset(serve: Serve) -> None:
    """RFC 9112 §9.6: a reset could wipe out the last answer before the client has read it."""
    running = serve(echo)
    client = running.connect()
    assert client.get("/first").get("connection") is None
    running.call(lambda: running.server.close(keep_idle=True))
    assert client.get("/last").get("connection") == "close"
    assert client.at_end()
    client.send(b"GET /too-late HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.sock.recv(100) == b""
    client.close()
    running.until(lambda: running.server.connections == 0)


def test_who_is_adopted_by_a_closed_server_has_a_second(serve: Serve) -> None:
    running = serve(echo)
    running.call(running.server.close)
    ours, theirs = socket.socketpair()
    with theirs:
        running.call(lambda: running.server.adopt(ours))
        running.call(running.server.close)
        theirs.settimeout(20)
        assert theirs.recv(100) == b""


def test_logs_where_it_is_told_to(serve: Serve) -> None:
    said: list[tuple[str, object]] = []

    class Log:
        def isEnabledFor(self, level: int, /) -> bool:
            return False

        def log(self, level: int, message: object, /, *args: object) -> None:
            said.append(("log", message))

        def warning(self, message: object, /, *args: object) -> None:
            said.append(("warning", message))

        def error(self, message: object, /, *args: object) -> None:
            said.append(("error", message))

        def exception(self, message: object, /, *args: object) -> None:
            said.append(("exception", message))

    def raises(req: Request, res: Response) -> None:
        if req.path == "/raise":
            raise RuntimeError("on purpose")

    client = serve(raises, log=Log()).connect()
    assert client.get("/raise").status == 500
    assert client.get("/nothing").status == 500
    assert said == [
        ("exception", "exception in the handler for %s %s"),
        ("error", "the handler for %s %s returned without an answer"),
    ]
