"""The client, against our server and against one that does what it is told to."""

from __future__ import annotations

import contextlib
import errno
import gc
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from framing import raw

import evhttp
import evws
from evloop import Loop, LoopClosedError
from evloop.testing import checked_loop, run_until
from evws import (
    Backoff,
    ConnectionClosedError,
    Deflate,
    Frame,
    FrameParser,
    HandshakeError,
    HandshakeRefusedError,
    Limits,
    Opcode,
    PeerError,
    State,
    encode_close,
    encode_frame,
)
from evws._handshake import accept_of
from evws._pins import pins_of

BLOB = random.Random(9).randbytes(2_000_000)
PATIENCE = 30


class Peer:
    """A server in a thread, whose script is told what to do; what goes wrong in it fails the test."""

    def __init__(self, script: Callable[[Script], object], times: int = 1) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.port = self._listener.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/"
        self.failures: list[BaseException] = []
        self.done = 0
        self._thread = threading.Thread(target=self._run, args=(script, times), daemon=True)
        self._thread.start()

    def _run(self, script: Callable[[Script], object], times: int) -> None:
        try:
            for _ in range(times):
                sock = self._listener.accept()[0]
                sock.settimeout(PATIENCE)
                with sock:
                    script(Script(sock))
                self.done += 1
        except BaseException as error:
            self.failures.append(error)

    def end(self, loop: Loop) -> None:
        """Wait for the script; the loop still has to do what was asked of it last."""
        deadline = time.monotonic() + PATIENCE
        while self._thread.is_alive() and time.monotonic() < deadline:
            loop.run_once(0.002)
        self._listener.close()
        assert not self._thread.is_alive()
        if self.failures:
            raise self.failures[0]


class Script:
    """What a scripted server can do."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = ""
        self.parser = FrameParser("server", max_message_size=1 << 30)
        self.frames: list[Any] = []

    def request(self) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            assert more, data
            data += more
        self.head = data.decode("latin-1")
        assert data.endswith(b"\r\n\r\n"), "the client speaks before it is answered"
        return self.head

    def field(self, name: str) -> str | None:
        for line in self.head.split("\r\n"):
            if line.lower().startswith(name.lower() + ":"):
                return line.partition(":")[2].strip()
        return None

    def answer(self, *lines: str) -> bytes:
        key = self.field("sec-websocket-key")
        assert key is not None
        head = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        head += [f"Sec-WebSocket-Accept: {accept_of(key)}", *lines, "", ""]
        return "\r\n".join(head).encode("latin-1")

    def shake(self, *lines: str, behind: bytes = b"") -> Script:
        self.request()
        self.sock.sendall(self.answer(*lines) + behind)
        return self

    def send(self, data: bytes) -> Script:
        self.sock.sendall(data)
        return self

    def frame(self) -> Frame | None:
        while not self.frames:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.frames += self.parser.feed(data)
        frame = self.frames.pop(0)
        assert isinstance(frame, Frame), frame
        return frame

    def closes(self, code: int | None) -> None:
        """Expect a Close, answer it and hang up."""
        frame = self.frame()
        assert frame is not None
        assert frame.opcode == Opcode.CLOSE, frame
        assert (int.from_bytes(frame.payload[:2], "big") if frame.payload else None) == code
        self.send(encode_frame(Opcode.CLOSE, frame.payload))

    def gone(self) -> None:
        """Expect the end of the connection, whichever way."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass


class Notes:
    """What the callbacks of a client were told."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.events: list[tuple[Any, ...]] = []
        self.sockets: list[Any] = []

    def options(self) -> dict[str, Any]:
        return {
            "on_message": lambda ws, message: self.messages.append(message),
            "on_open": lambda ws: (self.sockets.append(ws), self.events.append(("open",))),
            "on_close": lambda ws, code, reason: self.events.append(("close", code, reason)),
            "on_error": lambda ws, error: self.events.append(("error", error)),
        }

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [event for event in self.events if event[0] == name]


@pytest.fixture
def loop(backend: str, logged: Any) -> Iterator[Loop]:
    """A loop on which no client, no pinned message and no descriptor may be left."""
    with checked_loop(backend) as loop:
        yield loop
        pins = pins_of(loop)
        run_until(loop, lambda: not len(pins))
        assert not pins.clients


@pytest.fixture
def peer(loop: Loop) -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(script: Callable[[Script], object], times: int = 1) -> Peer:
        made.append(Peer(script, times))
        return made[-1]

    yield make
    for each in made:
        each.end(loop)


def opened(loop: Loop, url: str, notes: Notes, **options: Any) -> Any:
    connecting = evws.connect(loop, url, **notes.options() | options)
    run_until(loop, connecting.done)
    return connecting.result()


def failed(loop: Loop, url: str, **options: Any) -> Any:
    connecting = evws.connect(loop, url, **{"on_message": lambda ws, message: None} | options)
    run_until(loop, connecting.done)
    return connecting.exception()


def closed(loop: Loop, notes: Notes) -> tuple[Any, ...]:
    run_until(loop, lambda: notes.named("close"))
    return notes.named("close")[0]


# -- with our own server -----------------------------------------------------------------------------------------------------


@pytest.fixture
def url(loop: Loop) -> Iterator[str]:
    """An echo server on the same loop."""
    server = evws.Server(
        on_message=lambda ws, message: ws.send(message),
        loop=loop,
        subprotocols=("v2", "v1"),
        limits=Limits(max_message_size=1 << 22),
    )
    server.listen("127.0.0.1", 0)
    yield f"ws://127.0.0.1:{server.addresses[0][1]}/echo"
    server.close()
    run_until(loop, lambda: not server.connections)


@pytest.mark.parametrize(
    "size", [0, 1, 125, 126, 511, 512, 513, 2048, 32768, 65519, 65520, 65521, 65536, 200_003, 2_000_000]
)
def test_echo(loop: Loop, url: str, size: int) -> None:
    notes = Notes()
    ws = opened(loop, url, notes, limits=Limits(max_message_size=1 << 22))
    messages = [BLOB[:size], "x" * size, "é" * (size // 2)]
    for message in messages:
        ws.send(message)
    run_until(loop, lambda: len(notes.messages) == 3)
    assert notes.messages == messages
    ws.close()
    assert closed(loop, notes) == ("close", 1000, "")


def test_everything_about_a_socket(loop: Loop, url: str) -> None:
    notes = Notes()
    pongs: list[bytes] = []
    ws = opened(
        loop, url, notes, subprotocols=["v1", "v2"], headers={"X-A": "b"}, on_pong=lambda ws, data: pongs.append(data)
    )
    assert isinstance(ws, evws.ClientWebSocket)
    assert notes.events == [("open",)]
    assert (ws.url, ws.subprotocol, ws.state) == (url, "v2", State.OPEN)
    assert ws.headers["upgrade"] == "websocket"
    assert url in repr(ws)
    assert not hasattr(ws, "request")
    ws.ping(b"p")
    ws.pong(b"q")
    ws.send_fragmented(["a", "é", ""])
    run_until(loop, lambda: pongs and notes.messages)
    assert (pongs, notes.messages, ws.buffered_amount, ws.dropped) == ([b"p"], ["aé"], 0, 0)
    ws.close(4001, "enough")
    with pytest.raises(ConnectionClosedError):
        ws.send("x")
    assert closed(loop, notes) == ("close", 4001, "enough")
    assert ws.state is State.CLOSED
    ws.close()
    ws.abort()
    assert notes.events == [("open",), ("close", 4001, "enough")]


def test_latency_is_measured(loop: Loop, url: str) -> None:
    notes = Notes()
    ws = opened(loop, url, notes, limits=Limits(ping_interval=0.01))
    run_until(loop, lambda: ws.latency is not None)
    ws.abort()
    assert closed(loop, notes) == ("close", 1006, "")


def test_a_message_sent_when_it_opens(loop: Loop, url: str) -> None:
    notes = Notes()
    ws = opened(loop, url, notes, on_open=lambda ws: ws.send("first"))
    run_until(loop, lambda: notes.messages == ["first"])
    ws.close()
    closed(loop, notes)


def test_closed_when_it_opens(loop: Loop, url: str) -> None:
    notes = Notes()
    opened(loop, url, notes, on_open=lambda ws: ws.close(3000))
    assert closed(loop, notes) == ("close", 3000, "")


def test_on_open_that_raises(loop: Loop, url: str, logged: Any) -> None:
    """The result is there all the same; the socket is closed with 1011."""
    notes = Notes()

    def fail(ws: Any) -> None:
        raise LookupError("no")

    loop.set_exception_handler(None)
    opened(loop, url, notes, on_open=fail)
    assert closed(loop, notes)[1] == 1011
    assert [record.exc_info[0] for record in logged.take() if record.exc_info] == [LookupError]


def test_unix_sockets(loop: Loop, tmp_path: Path) -> None:
    path = str(tmp_path / "ws")
    heads: list[str] = []

    def serve(listener: socket.socket) -> None:
        script = Script(listener.accept()[0])
        with script.sock:
            script.shake(behind=encode_frame(1, "hi"))
            heads.append(script.head)
            script.closes(1000)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        notes = Notes()
        ws = opened(loop, "ws://name/x", notes, unix_path=path)
        run_until(loop, lambda: notes.messages == ["hi"])
        ws.close()
        closed(loop, notes)
        thread.join(PATIENCE)
    assert heads[0].startswith("GET /x HTTP/1.1\r\nHost: name\r\n")
    error = failed(loop, "ws://name/x", unix_path=str(tmp_path / "none"))
    assert isinstance(error, FileNotFoundError)


# -- the handshake -----------------------------------------------------------------------------------------------------------


def test_what_is_asked(loop: Loop, peer: Callable[..., Peer]) -> None:
    heads: list[str] = []

    def script(s: Script) -> None:
        s.shake("Sec-WebSocket-Protocol: b")
        heads.append(s.head)
        s.closes(1000)

    server = peer(script)
    notes = Notes()
    headers = [("Cookie", "a=b"), ("Origin", "http://o"), ("X", "1"), ("X", "2")]
    ws = opened(loop, f"ws://u:p@127.0.0.1:{server.port}/p?q", notes, subprotocols=("a", "b"), headers=headers)
    assert (ws.subprotocol, ws.url) == ("b", f"ws://127.0.0.1:{server.port}/p?q")
    ws.close()
    closed(loop, notes)
    lines = heads[0].split("\r\n")
    assert lines[0] == "GET /p?q HTTP/1.1"
    assert {"Cookie: a=b", "Origin: http://o", "X: 1", "X: 2", "Sec-WebSocket-Protocol: a, b"} <= set(lines)
    assert {"Authorization: Basic dTpw", f"Host: 127.0.0.1:{server.port}", "Sec-WebSocket-Version: 13"} <= set(lines)


def test_answer_cut_at_every_byte(loop: Loop, peer: Callable[..., Peer]) -> None:
    """Head and what comes behind it, in two packets cut anywhere: nothing is lost, nothing is HTTP's."""
    behind = encode_frame(9, b"p") + encode_frame(1, "hallo") + encode_frame(2, b"b" * 200)
    size = 97 + 32 + len(behind)
    cuts = list(range(1, size, 3))
    left = list(cuts)

    def script(s: Script) -> None:
        s.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.request()
        wire = s.answer() + behind
        assert len(wire) == size
        cut = left.pop()
        s.send(wire[:cut])
        s.send(wire[cut:])
        assert s.frame() == Frame(Opcode.PONG, b"p")
        s.closes(1000)

    server = peer(script, len(cuts))
    for _ in cuts:
        notes = Notes()
        ws = opened(loop, server.url, notes)
        run_until(loop, lambda notes=notes: len(notes.messages) == 2)  # type: ignore[misc]
        assert notes.messages == ["hallo", b"b" * 200]
        ws.close()
        closed(loop, notes)


def test_much_behind_the_answer(loop: Loop, peer: Callable[..., Peer]) -> None:
    """More than a packet, with messages that do not go through the arena, and the Close and the end of it all."""
    large = [BLOB[:100_000], BLOB[:1000], BLOB[:300_000]]
    wire = b"".join(encode_frame(2, message) for message in large) + encode_frame(8, encode_close(4000, "that was all"))
    server = peer(lambda s: s.shake(behind=wire).closes(4000))
    notes = Notes()
    opened(loop, server.url, notes)
    assert closed(loop, notes) == ("close", 4000, "that was all")
    assert notes.messages == large


def test_closed_right_behind_the_answer(loop: Loop, peer: Callable[..., Peer]) -> None:
    """The message and the end came in the turn of the answer: both are told."""

    def script(s: Script) -> None:
        s.shake(behind=encode_frame(1, "bye"))
        s.sock.shutdown(socket.SHUT_WR)
        s.gone()

    notes = Notes()
    opened(loop, peer(script).url, notes)
    assert closed(loop, notes) == ("close", 1006, "")
    assert notes.messages == ["bye"]


def test_interim_answers_are_passed_over(loop: Loop, peer: Callable[..., Peer]) -> None:
    def script(s: Script) -> None:
        s.request()
        s.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + s.answer())
        s.closes(1000)

    notes = Notes()
    opened(loop, peer(script).url, notes).close()
    closed(loop, notes)


REFUSALS = [
    ("401 with a body", b"HTTP/1.1 401 No\r\nContent-Length: 4\r\nWWW-Authenticate: Basic\r\n\r\nnope", 401, b"nope"),
    ("503 without", b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n", 503, b""),
    ("200 in chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok"),
    ("404 to the end", b"HTTP/1.0 404 No\r\n\r\nno such", 404, b"no such"),
    ("302 without leave", b"HTTP/1.1 302 There\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 302, b""),
    ("302 to nowhere", b"HTTP/1.1 302 There\r\nContent-Length: 0\r\n\r\n", 302, b""),
    ("a long body", b"HTTP/1.1 500 x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 70_000, 500, b"x" * 65536),
]


@pytest.mark.parametrize(("wire", "status", "body"), [pytest.param(*row[1:], id=row[0]) for row in REFUSALS])
def test_refused(loop: Loop, peer: Callable[..., Peer], wire: bytes, status: int, body: bytes) -> None:
    def script(s: Script) -> None:
        s.request()
        s.send(wire)
        if b"1.0" in wire:
            s.sock.shutdown(socket.SHUT_WR)
        s.gone()

    server = peer(script)
    error = failed(loop, server.url)
    assert isinstance(error, HandshakeRefusedError)
    assert (error.status, error.body) == (status, body)
    assert str(status) in str(error)
    assert server.url in str(error)


BROKEN = [
    ("nothing", b"", "closed the connection"),
    ("half a head", b"HTTP/1.1 101 Switch", "closed the connection"),
    ("no HTTP", b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP"),
    ("WebSocket at once", b"\x81\x02hi" * 20, "no HTTP"),
    ("no Accept", b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "Accept"),
    ("another Accept",
     b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n", "Accept"),
    ("HTTP/1.0", b"HTTP/1.0 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "HTTP"),
    ("an endless head", b"HTTP/1.1 101 x\r\n" + b"a: " + b"b" * 100_000, "no HTTP"),
    ("endless hints", b"HTTP/1.1 103 x\r\n\r\n" * 50, "does not come to an answer"),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "says"), [pytest.param(*row[1:], id=row[0]) for row in BROKEN])
def test_broken_answers(loop: Loop, peer: Callable[..., Peer], wire: bytes, says: str) -> None:
    def script(s: Script) -> None:
        s.request()
        try:
            s.send(wire)
            s.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has seen enough
        s.gone()

    error = failed(loop, peer(script).url)
    assert isinstance(error, HandshakeError)
    assert not isinstance(error, HandshakeRefusedError)
    assert says in str(error)


def test_a_reset_instead_of_an_answer(loop: Loop, peer: Callable[..., Peer]) -> None:
    def script(s: Script) -> None:
        s.request()
        s.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    assert isinstance(failed(loop, peer(script).url), ConnectionResetError)


def test_nobody_listens(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failed(loop, f"ws://127.0.0.1:{port}/")
    assert isinstance(error, ConnectionRefusedError)
    assert str(port) in str(error)


def test_timeouts(loop: Loop, peer: Callable[..., Peer]) -> None:
    def script(s: Script) -> None:
        s.request()
        s.gone()

    error = failed(loop, peer(script).url, timeout=0.05)
    assert isinstance(error, TimeoutError)
    assert error.errno == errno.ETIMEDOUT
    assert "the server has not answered" in str(error)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        error = failed(loop, f"ws://127.0.0.1:{address[1]}/", timeout=0.05)
        assert isinstance(error, TimeoutError)
        for each in waiting:
            each.close()


def test_cancel_in_each_state(loop: Loop, peer: Callable[..., Peer]) -> None:
    server = peer(lambda s: s.gone(), 2)
    connecting = evws.connect(loop, server.url, on_message=print)
    assert connecting.cancel()
    assert connecting.cancelled()
    assert not connecting.cancel()
    connecting = evws.connect(loop, server.url, on_message=print)
    run_until(loop, lambda: server.done or (connecting._attempt._exchange._transport is not None))  # type: ignore[union-attr]
    connecting.close()
    assert connecting.cancelled()
    if server.done == 0:  # the first never reached it
        with socket.create_connection(("127.0.0.1", server.port)):
            pass
    while server.done < 2 and not server.failures:
        loop.run_once(0.01)


def test_the_loop_is_closed_meanwhile(backend: str, logged: Any, peer: Callable[..., Peer]) -> None:
    def script(s: Script) -> None:
        s.request()
        s.gone()

    server = peer(script)
    with Loop(backend=backend) as loop:
        connecting = evws.connect(loop, server.url, on_message=print)
        run_until(loop, lambda: connecting._attempt._exchange._transport is not None)  # type: ignore[union-attr]
        loop.run_once(0)
    assert connecting.cancelled()
    with pytest.raises(LoopClosedError):
        evws.connect(loop, server.url, on_message=print)


def test_a_failure_nobody_asks_for_is_reported(loop: Loop) -> None:
    said: list[Any] = []
    loop.set_exception_handler(lambda loop, context: said.append(context))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    connecting = evws.connect(loop, f"ws://127.0.0.1:{port}/", on_message=print)
    run_until(loop, connecting.done)
    del connecting
    gc.collect()
    assert [type(context["exception"]) for context in said] == [ConnectionRefusedError]


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": float("inf")},
        {"redirects": -1},
        {"headers": {"a b": "c"}},
        {"subprotocols": ["a b"]},
        {"proxy": "socks://a"},
        {"proxy": "http://a", "unix_path": "b"},
    ],
)
def test_options_that_make_no_sense(loop: Loop, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"timeout|redirects|'a b'|http://|a proxy"):
        evws.connect(loop, "ws://127.0.0.1:1/", on_message=print, **options)
    with pytest.raises(TypeError):
        evws.connect(loop, "ws://127.0.0.1:1/", on_message=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        evws.connect(loop, "ws://127.0.0.1:1/", on_message=print, no_such=1)  # type: ignore[call-arg]
    assert not pins_of(loop).clients


# -- redirects ---------------------------------------------------------------------------------------------------------------


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} x\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects(loop: Loop, peer: Callable[..., Peer], status: int) -> None:
    heads: list[str] = []

    def last(s: Script) -> None:
        s.shake()
        heads.append(s.head)
        s.closes(1000)

    end = peer(last)

    def first(s: Script) -> None:
        heads.append(s.request())
        s.send(redirect("/second" if len(heads) == 1 else end.url.replace("ws:", "http:") + "third", status))
        s.gone()

    start = peer(first, 2)
    notes = Notes()
    ws = opened(loop, start.url.replace("//", "//u:p@"), notes, redirects=2, headers={"Cookie": "secret", "X": "kept"})
    assert ws.url == end.url + "third"
    ws.close()
    closed(loop, notes)
    assert [head.split(" ")[1] for head in heads] == ["/", "/second", "/third"]
    assert ["secret" in head for head in heads] == [True, True, False]
    assert ["Authorization" in head for head in heads] == [True, True, False]
    assert all("X: kept" in head for head in heads)


@pytest.mark.parametrize(("location", "says"), [("/again", "more than 3 times"), ("ftp://a/", "no place for us")])
def test_redirects_that_lead_nowhere(loop: Loop, peer: Callable[..., Peer], location: str, says: str) -> None:
    def script(s: Script) -> None:
        s.request()
        s.send(redirect(location))
        s.gone()

    server = peer(script, 4 if location == "/again" else 1)
    error = failed(loop, server.url, redirects=3)
    assert isinstance(error, HandshakeError)
    assert says in str(error)


# -- proxies -----------------------------------------------------------------------------------------------------------------


def test_through_a_proxy(loop: Loop, peer: Callable[..., Peer]) -> None:
    heads: list[str] = []

    def script(s: Script) -> None:
        heads.append(s.request())
        s.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        s.shake(behind=encode_frame(1, "hi"))
        heads.append(s.head)
        s.closes(1000)

    proxy = peer(script)
    notes = Notes()
    ws = opened(loop, "ws://far.example:81/x", notes, proxy=f"http://u:p@127.0.0.1:{proxy.port}")
    run_until(loop, lambda: notes.messages == ["hi"])
    ws.close()
    closed(loop, notes)
    assert heads[0].startswith("CONNECT far.example:81 HTTP/1.1\r\nHost: far.example:81\r\n")
    assert "Proxy-Authorization: Basic dTpw" in heads[0]
    assert heads[1].startswith("GET /x HTTP/1.1\r\nHost: far.example:81\r\n")
    assert "Proxy-Auth" not in heads[1]


@pytest.mark.parametrize(
    ("wire", "kind", "says"),
    [
        (b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno", HandshakeRefusedError, "the proxy http://127.0.0.1"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101", HandshakeError, "more than its answer"),
        (b"", HandshakeError, "the proxy has not answered"),
        (b"\5\0", HandshakeError, "no HTTP"),
    ],
)
def test_proxies_that_refuse(loop: Loop, peer: Callable[..., Peer], wire: bytes, kind: type, says: str) -> None:
    def script(s: Script) -> None:
        s.request()
        s.send(wire)
        with contextlib.suppress(OSError):  # a client that was refused may have gone already
            s.sock.shutdown(socket.SHUT_WR)
        s.gone()

    error = failed(loop, "ws://far.example/", proxy=f"http://127.0.0.1:{peer(script).port}")
    assert type(error) is kind
    assert says in str(error)


# -- what servers may not send, and what they may ----------------------------------------------------------------------------


def test_masked_frames_are_refused(loop: Loop, peer: Callable[..., Peer]) -> None:
    """RFC 6455 §5.1: a client MUST close a connection if it detects a masked frame."""
    server = peer(lambda s: s.shake(behind=encode_frame(1, "x", mask=b"abcd")).closes(1002))
    notes = Notes()
    opened(loop, server.url, notes)
    assert closed(loop, notes) == ("close", 1006, "")
    ((_, error),) = notes.named("error")
    assert isinstance(error, PeerError)
    assert error.code == 1002
    assert notes.messages == []


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(raw(0x83, b"", mask=None), 1002, id="6455-5.2 opcode 3"),
        pytest.param(raw(0xC1, b"", mask=None), 1002, id="6455-5.2 RSV1"),
        pytest.param(raw(0x81, b"\xff", mask=None), 1007, id="6455-8.1 no UTF-8"),
        pytest.param(raw(0x80, b"x", mask=None), 1002, id="6455-5.4 continuation of nothing"),
        pytest.param(raw(0x09, b"", mask=None), 1002, id="6455-5.4 ping in pieces"),
        pytest.param(b"\x89\x7e\0\x80" + b"x" * 128, 1002, id="6455-5.5 ping of 128"),
        pytest.param(raw(0x88, b"\x03", mask=None), 1002, id="6455-5.5.1 one byte"),
        pytest.param(raw(0x88, b"\x03\xed", mask=None), 1002, id="6455-7.4.1 code 1005"),
        pytest.param(b"\x82\x7f\0\0\0\0\x40\0\0\0", 1009, id="a gigabyte is announced"),
    ],
)
def test_bad_frames(loop: Loop, peer: Callable[..., Peer], wire: bytes, code: int) -> None:
    def script(s: Script) -> None:
        s.shake(behind=wire + b"what follows is not looked at")
        s.closes(code)

    notes = Notes()
    opened(loop, peer(script).url, notes)
    closed(loop, notes)
    assert [type(event[1]) for event in notes.named("error")] == [PeerError]


def test_every_frame_has_a_mask_of_its_own(loop: Loop, peer: Callable[..., Peer]) -> None:
    """So many that the pool of keys is filled anew; masks that repeat would be foreseeable."""
    masks: list[bytes] = []

    def script(s: Script) -> None:
        s.shake()
        data = b""
        while len(data) < 8 * 1000:
            data += s.sock.recv(65536)
        for at in range(0, 8000, 8):
            assert data[at : at + 2] == b"\x82\x82"
            mask = data[at + 2 : at + 6]
            assert bytes(a ^ b for a, b in zip(data[at + 6 : at + 8], mask, strict=False)) == b"hi"
            masks.append(mask)
        s.send(encode_frame(8, encode_close(1000)))
        assert s.sock.recv(100)[:2] == b"\x88\x82"

    notes = Notes()
    ws = opened(loop, peer(script).url, notes)
    for _ in range(1000):
        ws.send(b"hi")
    assert closed(loop, notes) == ("close", 1000, "")
    assert len(set(masks)) > 990


def test_pings_are_answered(loop: Loop, peer: Callable[..., Peer]) -> None:
    def script(s: Script) -> None:
        s.shake(behind=b"".join(encode_frame(9, b"%d" % number) for number in range(100)))
        for number in range(100):
            assert s.frame() == Frame(Opcode.PONG, b"%d" % number)
        s.send(encode_frame(8))
        s.closes(None)

    notes = Notes()
    pings: list[bytes] = []
    opened(loop, peer(script).url, notes, on_ping=lambda ws, data: pings.append(data))
    assert closed(loop, notes) == ("close", 1005, "")
    assert len(pings) == 100


# -- ends --------------------------------------------------------------------------------------------------------------------


def test_the_server_closes_first(loop: Loop, peer: Callable[..., Peer]) -> None:
    """RFC 6455 §7.1.1: we wait for the server to close the connection, in both directions of the handshake."""
    ended: list[bool] = []

    def script(s: Script) -> None:
        s.shake()
        frame = s.frame()
        assert frame is not None
        assert frame.opcode == Opcode.CLOSE
        s.send(encode_frame(8, frame.payload))
        s.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            s.sock.recv(1)
        ended.append(True)

    notes = Notes()
    opened(loop, peer(script).url, notes).close(4000)
    assert closed(loop, notes) == ("close", 4000, "")
    assert ended == [True]


def test_a_server_that_does_not_close(loop: Loop, peer: Callable[..., Peer]) -> None:
    """The closing handshake is done; after close_timeout we end the connection, and nobody made a mistake."""

    def script(s: Script) -> None:
        s.shake(behind=encode_frame(8, encode_close(1001, "going")))
        assert s.frame() == Frame(Opcode.CLOSE, encode_close(1001, "going"))
        s.gone()

    notes = Notes()
    opened(loop, peer(script).url, notes, limits=Limits(close_timeout=0.05))
    assert closed(loop, notes) == ("close", 1001, "going")
    assert notes.named("error") == []


def test_a_server_that_does_not_answer_the_close(loop: Loop, peer: Callable[..., Peer]) -> None:
    def script(s: Script) -> None:
        s.shake()
        s.gone()

    notes = Notes()
    opened(loop, peer(script).url, notes, limits=Limits(close_timeout=0.05)).close()
    assert closed(loop, notes) == ("close", 1006, "")
    assert [type(event[1]) for event in notes.named("error")] == [TimeoutError]


def test_a_silent_server(loop: Loop, peer: Callable[..., Peer]) -> None:
    def script(s: Script) -> None:
        s.shake()
        s.gone()

    notes = Notes()
    opened(loop, peer(script).url, notes, limits=Limits(ping_interval=0.02, ping_timeout=0.05))
    assert closed(loop, notes) == ("close", 1006, "")
    assert [type(event[1]) for event in notes.named("error")] == [TimeoutError]


def test_a_server_that_reads_nothing(loop: Loop, peer: Callable[..., Peer]) -> None:
    release = threading.Event()

    def script(s: Script) -> None:
        s.shake()
        release.wait(PATIENCE)

    notes = Notes()
    ws = opened(loop, peer(script).url, notes, limits=Limits(max_queue_size=1_000_000))
    for _ in range(60):
        if ws.state is State.OPEN:
            ws.send(BLOB)
            loop.run_once(0)
    assert closed(loop, notes) == ("close", 1006, "")
    assert [type(event[1]) for event in notes.named("error")] == [evws.QueueFullError]
    release.set()


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_connection_that_breaks(loop: Loop, peer: Callable[..., Peer], how: str) -> None:
    def script(s: Script) -> None:
        s.shake(behind=b"\x81\x05ha")
        if how == "reset":
            assert s.frame() is not None
            s.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    notes = Notes()
    ws = opened(loop, peer(script).url, notes)
    if how == "reset":
        ws.send("x")
    assert closed(loop, notes) == ("close", 1006, "")
    if how == "reset":
        assert [type(event[1]) for event in notes.named("error")] == [ConnectionResetError]


# -- connecting again --------------------------------------------------------------------------------------------------------

SOON = Backoff(initial=0.001, maximum=0.01)


def test_reconnect(loop: Loop, peer: Callable[..., Peer]) -> None:
    """Refused, then dropped, then open: each socket is a new one with the old one's context."""
    seen: list[int] = []

    def script(s: Script) -> None:
        seen.append(1)
        if len(seen) == 1:
            s.request()
            s.send(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n")
            s.gone()
        elif len(seen) == 2:
            s.shake(behind=encode_frame(1, "one"))
        else:
            s.shake(behind=encode_frame(1, "two"))
            s.closes(1000)

    failures: list[Any] = []
    notes = Notes()
    connecting = evws.connect(
        loop, peer(script, 3).url, reconnect=SOON, on_failure=lambda *about: failures.append(about), **notes.options()
    )
    run_until(loop, connecting.done)
    first = connecting.result()
    first.context = {"mine": 1}
    run_until(loop, lambda: notes.messages == ["one", "two"])
    second = connecting.socket
    assert second is not None
    assert second is not first
    assert second.context is first.context
    assert notes.sockets == [first, second]
    assert [type(error) for error, _ in failures] == [HandshakeRefusedError, ConnectionError]
    assert all(delay is not None and delay <= 0.01 for _, delay in failures)
    second.close()
    run_until(loop, lambda: len(notes.named("close")) == 2)
    assert connecting.socket is None


@pytest.mark.parametrize("end", ["close", "abort", "connecting"])
def test_reconnect_ends_when_we_say_so(loop: Loop, peer: Callable[..., Peer], end: str) -> None:
    def script(s: Script) -> None:
        s.shake()
        while (frame := s.frame()) is not None:
            if frame.opcode == Opcode.CLOSE:
                s.send(encode_frame(8, frame.payload))
                return

    def guarded(s: Script) -> None:
        try:
            script(s)
        except ConnectionResetError:
            assert end == "abort"

    notes = Notes()
    connecting = evws.connect(loop, peer(guarded).url, reconnect=SOON, **notes.options())
    run_until(loop, connecting.done)
    ws = connecting.result()
    {"close": ws.close, "abort": ws.abort, "connecting": connecting.close}[end]()
    closed(loop, notes)
    assert not pins_of(loop).clients


def test_reconnect_is_closed_while_it_waits(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failures: list[Any] = []
    connecting = evws.connect(
        loop,
        f"ws://127.0.0.1:{port}/",
        on_message=print,
        reconnect=Backoff(initial=1000, maximum=1000),
        on_failure=lambda *about: failures.append(about),
    )
    run_until(loop, lambda: failures)
    assert not connecting.done()
    connecting.close()
    assert connecting.cancelled()


def test_reconnect_gives_up(loop: Loop, peer: Callable[..., Peer]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failures: list[Any] = []
    backoff = Backoff(initial=0.001, attempts=3)
    error = failed(loop, f"ws://127.0.0.1:{port}/", reconnect=backoff, on_failure=lambda *about: failures.append(about))
    assert isinstance(error, ConnectionRefusedError)
    assert [delay is None for _, delay in failures] == [False, False, True]

    def script(s: Script) -> None:
        s.request()
        s.send(b"HTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n")
        s.gone()

    error = failed(loop, peer(script).url, reconnect=SOON)
    assert isinstance(error, HandshakeRefusedError)


def test_upgrade_in_a_handler_that_refuses(loop: Loop) -> None:
    def handler(req: Any, res: Any) -> None:
        res.status(401).send("who are you?\n")

    server = evhttp.Server(handler, loop=loop).listen("127.0.0.1", 0)
    error = failed(loop, f"ws://127.0.0.1:{server.addresses[0][1]}/")
    assert isinstance(error, HandshakeRefusedError)
    assert (error.status, error.body) == (401, b"who are you?\n")
    server.close()
    run_until(loop, lambda: not server.connections)


# -- hostile servers ------------------------------------------------------------------------------------------------------------


def test_a_flood_of_pings_that_reads_nothing(loop: Loop, peer: Callable[..., Peer]) -> None:
    """Pongs do not pile up: when it reads again, it gets those that fit, and the last."""
    flood = encode_frame(9, b"x" * 125) * 1000

    def script(s: Script) -> None:
        s.shake()
        for _ in range(100):
            s.send(flood)
        s.send(encode_frame(9, b"last"))
        while (frame := s.frame()) is not None and frame.payload != b"last":
            assert frame.opcode == Opcode.PONG
        s.send(encode_frame(1, "done"))
        s.closes(1000)

    notes = Notes()
    most = 0
    ws = opened(loop, peer(script).url, notes)

    def told() -> bool:
        nonlocal most
        most = max(most, ws.buffered_amount)
        return bool(notes.messages)

    run_until(loop, told)
    assert most < 1_000_000
    ws.close()
    closed(loop, notes)


@pytest.mark.parametrize("size", [0, 1])
def test_a_message_in_endless_fragments(loop: Loop, peer: Callable[..., Peer], size: int) -> None:
    """Those of one byte end at max_message_size; empty ones cost nothing, and come to nothing."""
    piece = encode_frame(0, b"x" * size, fin=False)

    def script(s: Script) -> None:
        s.shake(behind=encode_frame(2, b"", fin=False))
        for _ in range(20):
            s.send(piece * 1000)
        if size:
            s.closes(1009)
        else:
            s.send(encode_frame(0, b"end") + encode_frame(8))
            s.closes(None)

    notes = Notes()
    opened(loop, peer(script).url, notes, limits=Limits(max_message_size=20_000 - size))
    closed(loop, notes)
    assert notes.messages == ([] if size else [b"end"])


@pytest.mark.parametrize("what", ["before", "after"])
def test_garbage_after_the_close(loop: Loop, peer: Callable[..., Peer], what: str) -> None:
    """Nothing behind a Close is looked at, whoever has sent the first one."""
    garbage = b"\xff" * 100_000

    def script(s: Script) -> None:
        s.shake()
        if what == "after":
            assert s.frame() == Frame(Opcode.CLOSE, encode_close(4001))
        s.send(encode_frame(8, encode_close(4001)) + encode_frame(1, "late") + garbage)
        s.gone() if what == "after" else s.closes(4001)

    notes = Notes()
    ws = opened(loop, peer(script).url, notes, limits=Limits(close_timeout=0.2))
    if what == "after":
        ws.close(4001)
    assert closed(loop, notes) == ("close", 4001, "")
    assert notes.messages == []
    assert notes.named("error") == []


def test_what_comes_after_our_close_is_dropped(loop: Loop, peer: Callable[..., Peer]) -> None:
    def script(s: Script) -> None:
        s.shake()
        frame = s.frame()
        assert frame is not None
        s.send(encode_frame(1, "late") * 1000 + encode_frame(2, BLOB[:200_000]) + encode_frame(9, b"p"))
        s.send(encode_frame(8, frame.payload))

    notes = Notes()
    opened(loop, peer(script).url, notes).close()
    assert closed(loop, notes) == ("close", 1000, "")
    assert notes.messages == []


def test_a_handler_that_raises(loop: Loop, peer: Callable[..., Peer], logged: Any) -> None:
    def script(s: Script) -> None:
        s.shake(behind=encode_frame(1, "x"))
        s.closes(1011)

    def fail(ws: Any, message: str) -> None:
        raise LookupError("no")

    loop.set_exception_handler(None)
    notes = Notes()
    opened(loop, peer(script).url, notes, on_message=fail)
    closed(loop, notes)
    assert [record.exc_info[0] for record in logged.take() if record.exc_info] == [LookupError]


def test_cut_at_every_byte(loop: Loop, peer: Callable[..., Peer]) -> None:
    """Headers, payloads and characters of frames in two packets, cut anywhere."""
    wire = raw(0x01, "κ".encode()[:1], mask=None) + raw(0x89, b"hi", mask=None) + raw(0x80, "κ".encode()[1:], mask=None)
    wire += raw(0x82, b"b" * 130, mask=None)

    def script(s: Script) -> None:
        s.shake()
        s.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in range(1, len(wire)):
            s.send(wire[:cut])
            s.send(wire[cut:])
            assert s.frame() == Frame(Opcode.PONG, b"hi")
        s.closes(1000)

    notes = Notes()
    ws = opened(loop, peer(script).url, notes)
    run_until(loop, lambda: len(notes.messages) == 2 * (len(wire) - 1))
    assert notes.messages == ["κ", b"b" * 130] * (len(wire) - 1)
    ws.close()
    closed(loop, notes)


# -- compression and TLS --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [False, True])
def test_compression(loop: Loop, alone: bool) -> None:
    """Both ways; a broadcast is compressed once for those whose messages stand alone, and goes as it is to the others."""
    deflate = Deflate(server_no_context_takeover=alone, client_no_context_takeover=alone)
    group = evws.Group()
    server = evws.Server(
        on_message=lambda ws, message: ws.send(message), on_open=group.add, loop=loop, compression=deflate
    )
    server.listen("127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.addresses[0][1]}/"
    notes, plain = Notes(), Notes()
    ws = opened(loop, url, notes, compression=deflate)
    other = opened(loop, url, plain)
    assert "permessage-deflate" in ws.headers["sec-websocket-extensions"]
    messages = ["hello " * 1000, b"\0" * 100_000, "short", BLOB[:50_000], "hello " * 1000]
    for message in messages:
        ws.send(message)
        other.send(message)
    run_until(loop, lambda: len(notes.messages) == len(plain.messages) == len(messages))
    assert notes.messages == plain.messages == messages
    run_until(loop, lambda: len(group) == 2)
    for message in messages:
        loop.call_soon(group.send, message)
    run_until(loop, lambda: len(notes.messages) == len(plain.messages) == 2 * len(messages))
    assert notes.messages == plain.messages == 2 * messages
    for message in messages:  # and its context is as it was
        ws.send(message)
    run_until(loop, lambda: len(notes.messages) == 3 * len(messages))
    assert notes.messages == 3 * messages
    ws.close()
    other.close()
    run_until(loop, lambda: not len(group) and not pins_of(loop).clients)
    server.close()
    run_until(loop, lambda: not server.connections)


def test_an_extension_that_was_not_offered(loop: Loop, peer: Callable[..., Peer]) -> None:
    def script(s: Script) -> None:
        s.request()
        s.send(s.answer("Sec-WebSocket-Extensions: permessage-deflate"))
        s.gone()

    server = peer(script)
    assert "extension" in str(failed(loop, server.url))


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server for the name localhost, and of a client that trusts it."""
    if shutil.which("openssl") is None:
        pytest.skip("the command openssl is not installed (apt install openssl)")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-keyout",
        key,
        "-out",
        certificate,
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)


class SecurePeer(Peer):
    """A server with TLS, perhaps behind a proxy that it plays, too."""

    def __init__(self, script: Callable[[Script], object], context: ssl.SSLContext, proxied: bool = False) -> None:
        def secured(s: Script) -> None:
            if proxied:
                assert s.request().startswith("CONNECT localhost:")
                s.send(b"HTTP/1.1 200 OK\r\n\r\n")
            with context.wrap_socket(s.sock, server_side=True) as sock:
                s.sock = sock
                script(s)

        super().__init__(secured)


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxy"])
def test_wss(loop: Loop, contexts: Any, proxied: bool) -> None:
    def script(s: Script) -> None:
        s.shake(behind=encode_frame(1, "hi") + encode_frame(2, BLOB[:100_000]))
        frame = s.frame()
        assert frame is not None
        s.send(encode_frame(2, frame.payload))
        s.closes(4000)

    server = SecurePeer(script, contexts[0], proxied)
    url = f"wss://localhost:{443 if proxied else server.port}/"
    proxy = f"http://127.0.0.1:{server.port}" if proxied else None
    notes = Notes()
    ws = opened(loop, url, notes, ssl=contexts[1], proxy=proxy)
    ws.send(BLOB[:300_000])
    run_until(loop, lambda: len(notes.messages) == 3)
    assert notes.messages == ["hi", BLOB[:100_000], BLOB[:300_000]]
    ws.close(4000)
    assert closed(loop, notes) == ("close", 4000, "")
    server.end(loop)


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxy"])
def test_a_certificate_that_nobody_knows(loop: Loop, contexts: Any, proxied: bool) -> None:
    def script(s: Script) -> None:
        s.gone()

    server = SecurePeer(script, contexts[0], proxied)
    url = f"wss://localhost:{443 if proxied else server.port}/"
    proxy = f"http://127.0.0.1:{server.port}" if proxied else None
    error = failed(loop, url, proxy=proxy, reconnect=SOON)
    assert isinstance(error, ssl.SSLCertVerificationError)
    with pytest.raises(ssl.SSLError):
        server.end(loop)


def test_ssl_that_is_no_context(loop: Loop) -> None:
    with pytest.raises(TypeError, match="ssl"):
        evws.connect(loop, "wss://localhost/", on_message=print, ssl=True)  # type: ignore[arg-type]
