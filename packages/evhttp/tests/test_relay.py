"""Answers from other threads."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from evhttp import BodyError, Relay, Relayed, ResponseStateError

PATIENCE = 20
Serve = Callable[..., Any]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def relayed_by(work: Callable[[Relayed], object], into: type[Relayed] = Relayed) -> Callable[[Any, Any], object]:
    """A handler that has each request dealt with by a thread of its own."""

    def handler(req: Any, res: Any) -> None:
        threading.Thread(target=work, args=(Relay.of(res).take(req, res, into),)).start()

    return handler


def test_a_server_has_one_relay(serve: Serve) -> None:
    relays: list[Relay] = []
    running = serve(lambda req, res: (relays.append(Relay.of(res)), res.send()))
    client = running.connect()
    client.get()
    client.get()
    assert relays[0] is relays[1] is Relay.at(running.server)
    assert relays[0].server is running.server


def test_an_answer_leaves_when_it_is_posted(serve: Serve) -> None:
    taken: list[Relayed] = []
    running = serve(lambda req, res: taken.append(Relay.of(res).take(req, res)))
    client = running.connect().send(GET)
    running.until(lambda: taken)
    taken[0].send("hello")
    assert taken[0].sent
    taken[0].post()
    assert client.answer().body == b"hello"


def test_what_the_handler_has_set_goes_on(serve: Serve) -> None:
    def work(relayed: Relayed) -> None:
        relayed.header("X-B", "2").send(b"hello")
        relayed.post()

    def handler(req: Any, res: Any) -> None:
        relayed_by(work)(req, res.status(202).header("X-A", "1"))

    answer = serve(handler).connect().get()
    assert (answer.status, answer.get("x-a"), answer.get("x-b")) == (202, "1", "2")


def test_what_a_trusted_proxy_says_is_known_in_the_other_thread(serve: Serve) -> None:
    def work(relayed: Relayed) -> None:
        relayed.send(f"{relayed.client} {relayed.scheme}")
        relayed.post()

    client = serve(relayed_by(work), trusted=["127.0.0.1"]).connect()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\n\r\n")
    assert client.answer().body == b"('192.0.2.9', 0) https"


def test_a_response_that_was_sent_cannot_be_taken(serve: Serve) -> None:
    def handler(req: Any, res: Any) -> None:
        res.send("hello")
        with pytest.raises(ResponseStateError):
            Relay.of(res).take(req, res)

    assert serve(handler).connect().get().body == b"hello"


def test_answers_of_many_threads_leave_together(stepped: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever posts while the loop's thread is busy wakes nobody, and one call takes what all of them have said."""
    taken: list[Relayed] = []
    running = stepped(lambda req, res: taken.append(Relay.of(res).take(req, res)))
    clients = running.connect(20)
    for client in clients:
        client.sock.setblocking(True)
        client.send(GET)
    running.until(lambda: len(taken) == 20)
    calls: list[Any] = []
    post = Relay.call

    def work(relayed: Relayed) -> None:
        relayed.send("hello")
        relayed.post()

    def call(relay: Relay, *args: Any) -> bool:
        calls.append(args)
        return post(relay, *args)

    monkeypatch.setattr(Relay, "call", call)
    threads = [threading.Thread(target=work, args=(each,)) for each in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running.turns()
    assert len(calls) == 1
    for client in clients:
        assert client.answer().body == b"hello"


def test_in_place_of_a_thread_that_does_not_answer(serve: Serve) -> None:
    taken: list[Relayed] = []
    running = serve(lambda req, res: taken.append(Relay.of(res).take(req, res)))
    client = running.connect().send(GET)
    running.until(lambda: taken)

    def answer() -> None:
        response = taken[0].in_place()
        assert response is not None
        response.close_connection().send_error(504)

    running.call(answer)
    taken[0].send("too late")
    taken[0].post()
    assert client.answer().status == 504
    assert client.at_end()
    assert running.call(taken[0].in_place) is None


@pytest.mark.parametrize("answers", [True, False])
def test_the_access_log_of_an_answer_in_place(serve: Serve, caplog: pytest.LogCaptureFixture, answers: bool) -> None:
    caplog.set_level(logging.INFO, "access")
    taken: list[Relayed] = []

    def handler(req: Any, res: Any) -> None:
        taken.append(Relay.of(res).take(req, res))

    running = serve(handler, access_log=logging.getLogger("access"))
    client = running.connect().send(GET)
    running.until(lambda: taken)
    response = running.call(taken[0].in_place)
    if answers:
        running.call(lambda: response.close_connection().send_error(504, "late"))
        assert client.answer().status == 504
    else:
        client.reset()
    running.until(lambda: caplog.records)
    assert ('"GET / HTTP/1.1" 504 5 ' if answers else '"GET / HTTP/1.1" 200 0 ') in caplog.text


def test_events_from_a_thread(serve: Serve) -> None:
    """They know when the page has left, as those of the loop's thread do."""
    left = threading.Event()
    seen: list[bool] = []

    def work(relayed: Relayed) -> None:
        stream = relayed.events()
        seen.append(stream.send("1", id="a"))
        left.wait(20)
        seen.extend((stream.closed, stream.send("2")))
        stream.close()
        relayed.post()

    class Told(Relayed):
        def _ended(self, complete: bool) -> None:
            super()._ended(complete)
            left.set()

    running = serve(relayed_by(work, Told))
    client = running.connect().send(GET)
    while b"id: a\ndata: 1\n\n" not in client.buffer:
        client._more()
    client.reset()
    running.until(lambda: len(seen) == 3)
    assert seen == [True, True, False]


def test_replacing_what_was_being_prepared(serve: Serve) -> None:
    def work(relayed: Relayed) -> None:
        relayed.status(201).header("X-A", "1")
        relayed.replace(503, "not now")
        relayed.replace(500)  # it is complete
        relayed.post()

    answer = serve(relayed_by(work)).connect().get()
    assert (answer.status, answer.body, answer.get("x-a")) == (503, b"not now\n", None)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_the_client_s_going_is_told(serve: Serve, how: str) -> None:
    taken: list[Relayed] = []
    running = serve(lambda req, res: taken.append(Relay.of(res).take(req, res)))
    client = running.connect().send(GET)
    running.until(lambda: taken)
    assert not taken[0].client_gone
    getattr(client, how)()
    running.until(lambda: taken[0].client_gone)
    assert taken[0].is_lost == (how == "reset")
    taken[0].send("to nobody")
    taken[0].post()
    running.until(lambda: taken[0].is_lost or not running.server.connections)


def test_a_client_that_is_gone_when_it_is_taken(stepped: Callable[..., Any]) -> None:
    """A request and the end of what the client sends, in one packet."""
    taken: list[Relayed] = []
    running = stepped(lambda req, res: taken.append(Relay.of(res).take(req, res)))
    (client,) = running.connect(1)
    client.send(GET)
    client.sock.shutdown(1)
    running.until(lambda: taken and taken[0].client_gone)
    taken[0].send("half-closed clients read on")
    taken[0].post()
    running.drain([client])
    assert client.answer().body == b"half-closed clients read on"


def test_the_access_log_says_what_the_thread_has_answered(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "access")

    def work(relayed: Relayed) -> None:
        relayed.status(404).send("12345")
        relayed.post()

    running = serve(relayed_by(work), access_log=logging.getLogger("access"))
    running.connect().get("/x")
    running.until(lambda: caplog.records)
    assert '"GET /x HTTP/1.1" 404 5' in caplog.text


def test_the_access_log_of_a_client_that_does_not_wait(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "access")
    deferred: list[Any] = []
    running = serve(lambda req, res: deferred.append(res.defer()), access_log=logging.getLogger("access"))
    client = running.connect().send(GET)
    running.until(lambda: deferred)
    client.reset()
    running.until(lambda: caplog.records)
    assert '"GET / HTTP/1.1" 200 0' in caplog.text


def test_what_is_said_after_the_loop_has_closed_goes_nowhere(serve: Serve, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    taken: list[Relayed] = []
    running = serve(lambda req, res: taken.append(Relay.of(res).take(req, res)))
    for _ in range(3):
        running.connect().send(GET)
    running.until(lambda: len(taken) == 3)
    running.loop.stop()
    running._thread.join(PATIENCE)
    taken[0].send_file(tmp_path / "file")  # before: the loop takes it when it closes
    running.loop.close()
    before = len(os.listdir("/dev/fd"))
    taken[1].send_file(tmp_path / "file")
    taken[1].post()
    taken[2].write("piece")
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("call", ["defer", "hand_over"])
def test_what_another_thread_cannot(serve: Serve, call: str) -> None:
    def work(relayed: Relayed) -> None:
        with pytest.raises(ResponseStateError):
            getattr(relayed, call)()
        relayed.send("refused")
        relayed.post()

    assert serve(relayed_by(work)).connect().get().body == b"refused"


def test_a_body_that_waits_in_the_kernel(serve: Serve) -> None:
    """Nothing is read before the thread asks, and the client is held back while it does not."""
    taken: list[Relayed] = []
    running = serve(lambda req, res: taken.append(Relay.of(res).take(req, res)), stream_bodies=True)
    client = running.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    sender = threading.Thread(target=client.send, args=(b"x" * 999_999 + b"\n",))
    sender.start()
    running.until(lambda: taken)
    file = taken[0].body_file
    assert file.readable()
    assert file.read(10) == b"x" * 10
    running.until(lambda: file._held)
    assert file._size < 600_000
    buffer = bytearray(5)
    assert (file.readinto(buffer), file.readinto1(memoryview(buffer))) == (5, 5)
    assert file.readline(7) == b"x" * 7
    assert len(file.readline()) == 1_000_000 - 27
    assert file.read() == b""
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read()
    taken[0].send("thanks")
    taken[0].post()
    sender.join(PATIENCE)
    assert client.answer().body == b"thanks"


def test_lines_of_a_body(serve: Serve) -> None:
    lines: list[bytes] = []

    def work(relayed: Relayed) -> None:
        lines.extend(relayed.body_file)
        relayed.send("read")
        relayed.post()

    client = serve(relayed_by(work)).connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\none\n\ntwo\nth").answer()
    assert lines == [b"one\n", b"\n", b"two\n", b"th"]


def test_a_body_whose_client_goes(serve: Serve) -> None:
    errors: list[Exception] = []
    taken: list[Relayed] = []
    running = serve(lambda req, res: taken.append(Relay.of(res).take(req, res)), stream_bodies=True)
    client = running.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nxyz")
    running.until(lambda: taken)
    assert taken[0].body_file.read(3) == b"xyz"

    def read() -> None:
        try:
            taken[0].body_file.read()
        except BodyError as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    client.close()
    reader.join(PATIENCE)
    assert len(errors) == 1


def test_ends_of_connections_are_told_of_from_now_on(serve: Serve) -> None:
    ends: list[Any] = []
    ids: list[int] = []
    running = serve(lambda req, res: (ids.append(req.connection_id), res.send("hello")))
    client = running.connect()
    client.get()
    running.call(lambda: running.server.watch_ends(ends.append))
    client.get()
    client.close()
    running.until(lambda: ends)
    assert [ends[0].connection_id] * 2 == ids


@pytest.mark.parametrize("abort", [False, True])
def test_ending_a_connection(serve: Serve, abort: bool) -> None:
    taken: list[Any] = []
    running = serve(lambda req, res: (taken.append(res), res.defer()))
    client = running.connect().send(GET)
    running.until(lambda: taken)
    running.call(lambda: running.server.end_connection(taken[0].connection_id, abort=abort))
    running.call(lambda: taken[0].send("last"))
    if abort:
        with pytest.raises(ConnectionResetError):
            client.at_end()
    else:
        assert client.answer().body == b"last"
        assert client.at_end()
    idle = running.connect()
    running.call(lambda: running.server.end_connection(taken[0].connection_id))  # long gone
    idle.send(GET)
    running.until(lambda: len(taken) == 2)
    running.call(lambda: taken[1].send("hello"))
    assert idle.answer().body == b"hello"


def test_headers_that_are_kept(serve: Serve) -> None:
    def handler(req: Any, res: Any) -> None:
        req.keep_headers({"host", "x-a"})
        res.send(
            f"{req.method} {req.target} {req.path} {list(req.headers.items())} {req.body.decode()} {req.client[0]}"
        )

    client = serve(handler).connect()
    request = b"%s /p?q HTTP/1.1\r\nHost: a\r\nX-B: no\r\nX-A: yes\r\nX-A: too\r\nContent-Length: 4\r\n\r\nbody"
    for method in (b"POST", b"PATCH"):
        answer = client.send(request % method).answer()
        fields = "[('host', 'a'), ('x-a', 'yes'), ('x-a', 'too')]"
        assert answer.body.decode() == f"{method.decode()} /p?q /p {fields} body 127.0.0.1"
    assert b"[]" in client.send(b"GET /p HTTP/1.0\r\nX-B: no\r\n\r\n").answer().body
