"""Fuzz targets of what is above the frame parser: each is a function of bytes, and raises where its invariant does not hold.

``nox -s fuzz -- TARGET SECONDS`` gives them to atheris, which looks for inputs that reach new code (see ``run.py``);
``test_fuzz.py`` gives them their corpus, and mutations of it.
"""

from __future__ import annotations

import base64
import logging
import math
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for framing.py

from framing import model

from evhttp import Headers, RequestParser, ResponseParser
from evws import CloseCode, Deflate, Frame, FrameParser, HandshakeError, Limits, Opcode, Server, Violation, WebSocket
from evws._extensions import agree, check_answer, read_extensions
from evws._handshake import Offer, Refusal, accept_of, answer_head, choose_subprotocol, read_offer
from evws._opening import check_agreement

__all__ = ["KEY", "REQUEST", "TARGETS", "Broken"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = (
    "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
).encode()
_OURS = (
    Deflate(),
    Deflate(server_max_window_bits=15, client_max_window_bits=15),
    Deflate(server_no_context_takeover=True, client_no_context_takeover=True, server_max_window_bits=8),
    Deflate(client_max_window_bits=9),
)


class Broken(Exception):
    """An invariant does not hold; the message says which."""


def expect(holds: object, what: str) -> None:
    """Raise where it does not."""
    if not holds:
        raise Broken(what)


# -- the server's handshake ------------------------------------------------------------------------------------------------------


def _listed(headers: Headers, name: str) -> list[str]:
    return [part.strip(" \t").lower() for part in ",".join(headers.get_all(name)).split(",")]


def _check_offer(offer: Offer, method: str, version: str, headers: Headers) -> None:
    """RFC 6455 §4.2.1, item by item, read a second time."""
    expect((method, version) == ("GET", "1.1"), "a handshake that is not GET in HTTP/1.1")
    expect(len(headers.get_all("host")) == 1, "a handshake without one Host")
    expect("websocket" in _listed(headers, "upgrade"), "a handshake without Upgrade: websocket")
    expect("upgrade" in _listed(headers, "connection"), "a handshake without Connection: Upgrade")
    expect(headers.get_all("sec-websocket-version") == ["13"], "a handshake of another version")
    expect(headers.get_all("sec-websocket-key") == [offer.key], "another key than that of the request")
    expect(re.fullmatch(r"[A-Za-z0-9+/]{22}==", offer.key), "a key that is not base64")
    expect(len(base64.b64decode(offer.key)) == 16, "a key that is not 16 bytes")
    expect(len(headers.get_all("origin")) <= 1, "two origins")


def handshake(data: bytes) -> None:
    """A request: it is refused, or it keeps every rule; then our own client agrees with what the server answers."""
    if not 2 <= len(data) <= 2048:
        return
    ours = _OURS[data[0] & 3]
    parser = RequestParser()
    parser.feed((REQUEST if data[0] & 4 else b"") + data[1:] + b"\r\n\r\n")
    if parser.error is not None or not parser.is_complete:
        return
    request = parser.request
    offer = read_offer(request.method, request.version, request.headers)
    if isinstance(offer, Refusal):
        expect(offer.status in (400, 426), "a refusal with another status")
        expect(re.fullmatch(r"[ -~]{1,200}", offer.reason), "a reason that is not one line of ASCII")
        return
    _check_offer(offer, request.method, request.version, request.headers)
    subprotocol = choose_subprotocol(("v2", "v1"), offer.subprotocols)
    chosen = agree(offer.extensions, ours)
    head = answer_head(offer, subprotocol, None if chosen is None else chosen[1], b"X-A: b\r\n")
    answer = ResponseParser()
    answer.feed(head)
    expect(answer.is_complete and answer.status_code == 101 and not answer.remaining, "an answer that is no 101")
    name, _ = check_agreement(answer.headers, offer.key, offer.subprotocols, None if chosen is None else _WIDEST)
    expect(name == subprotocol, "the client reads another subprotocol")
    if chosen is not None:
        agreed, text = chosen
        read = check_answer([text], _WIDEST)
        expect(read == agreed, "the client reads other parameters than the server has agreed to")
        expect(agreed.server_max_window_bits <= ours.server_max_window_bits, "a larger window than ours")


_WIDEST = Deflate(server_max_window_bits=15, client_max_window_bits=15)


# -- the client's ----------------------------------------------------------------------------------------------------------------


def answer(data: bytes) -> None:
    """What a server answers: our client fails the handshake, or it was what it had asked for."""
    if not 2 <= len(data) <= 2048:
        return
    ours = (None, *_OURS)[data[0] % 5]
    good = f"HTTP/1.1 101 A\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept_of(KEY)}\r\n"
    parser = ResponseParser()
    parser.feed((good.encode() if data[0] & 128 else b"") + data[1:] + b"\r\n\r\n")
    if parser.error is not None or parser.phase != "complete" or parser.status_code != 101:
        return
    headers = parser.headers
    try:
        subprotocol, agreed = check_agreement(headers, KEY, ("v1", "v2"), ours)
    except HandshakeError as error:
        expect(str(error), "an error without a text")
        return
    expect([each for each in _listed(headers, "upgrade") if each] == ["websocket"], "another protocol")
    expect("upgrade" in _listed(headers, "connection"), "no Connection: Upgrade")
    expect(headers.get_all("sec-websocket-accept") == [accept_of(KEY)], "another key")
    expect(subprotocol in (None, "v1", "v2"), "a subprotocol that was not offered")
    expect(headers.get("sec-websocket-protocol") == subprotocol, "another subprotocol than that of the answer")
    extensions = read_extensions(headers.get_all("sec-websocket-extensions"))
    expect((agreed is None) == (not extensions), "an extension that is not used")
    expect(agreed is None or ours is not None, "an extension that was not offered")
    if agreed is not None and ours is not None:
        expect(8 <= agreed.server_max_window_bits <= ours.server_max_window_bits, "a larger window than was offered")
        expect(agreed.server_no_context_takeover or not ours.server_no_context_takeover, "more memory than was offered")


# -- a connection ----------------------------------------------------------------------------------------------------------------

_TURNS = 60
_MAX_MESSAGE = 300


class _Log(logging.Handler):
    """What goes wrong inside of a callback is only logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(f"{record.getMessage()} {record.exc_info}")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Raise for what is logged while the block runs."""
        loggers = [logging.getLogger(name) for name in ("evhttp", "evloop", "evnet", "evws")]
        for each in loggers:
            each.addHandler(self)
        try:
            yield
        finally:
            for each in loggers:
                each.removeHandler(self)
        expect(not self.said, f"logged: {self.said}")


class _Harness:
    """An echo server, and clients that send it bytes."""

    def __init__(self, compression: Deflate | None) -> None:
        self.ends: list[int] = []
        limits = Limits(max_message_size=_MAX_MESSAGE, ping_interval=math.inf)
        self.server = Server(on_message=self._echo, on_close=self._closed, limits=limits, compression=compression)

    def _echo(self, ws: WebSocket, message: Any) -> None:
        ws.send(message)

    def _closed(self, ws: WebSocket, code: int, reason: str) -> None:
        self.ends.append(code)

    def exchange(self, head: bytes, pieces: list[bytes]) -> tuple[bytes, int | None]:
        """Send the pieces, a turn between each; what comes back, and the code that on_close was told (``None``: not called)."""
        ours, theirs = socket.socketpair()
        loop = self.server.loop
        got = bytearray()
        self.ends.clear()
        with ours, _Log().listening():
            ours.setblocking(False)
            self.server.adopt(theirs)
            for piece in (head, *pieces):
                try:
                    ours.sendall(piece)
                except (BrokenPipeError, ConnectionResetError):
                    break
                self._turn(ours, got)
            for _ in range(3):  # what is deferred by a turn or two
                self._turn(ours, got)
            try:
                ours.shutdown(socket.SHUT_WR)
            except OSError:  # it has ended already
                pass
            for _ in range(_TURNS):
                if self._turn(ours, got):
                    break
            else:
                raise Broken("the connection does not end")
        for _ in range(_TURNS):
            if not self.server.connections:
                break
            loop.run_once(0)
        expect(not self.server.connections, "a connection is left")
        expect(len(self.ends) <= 1, "on_close was called twice")
        return bytes(got), self.ends[0] if self.ends else None

    def _turn(self, ours: socket.socket, got: bytearray) -> bool:
        """Whether the server has closed."""
        self.server.loop.run_once(0)
        try:
            while more := ours.recv(1 << 16):
                got += more
            return True
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True


@cache
def _harnesses() -> list[_Harness]:
    return [_Harness(None), _Harness(Deflate(threshold=0)), _Harness(Deflate(server_no_context_takeover=True))]


def _wanted(frames: list[Frame | Violation]) -> tuple[list[Frame], list[bytes], int | None]:
    """What an echo server answers to them: messages, payloads of pongs, the code of its Close (1005: it has none)."""
    messages: list[Frame] = []
    pongs: list[bytes] = []
    kind, parts = Opcode.TEXT, b""
    for frame in frames:
        if isinstance(frame, Violation):
            return messages, pongs, frame.code
        if frame.opcode == Opcode.CLOSE:
            return messages, pongs, int.from_bytes(frame.payload[:2], "big") or 1005
        if frame.opcode == Opcode.PING:
            pongs.append(frame.payload)
        elif frame.opcode != Opcode.PONG:
            kind, parts = (kind, parts) if frame.opcode == Opcode.CONTINUATION else (frame.opcode, b"")
            parts += frame.payload
            if frame.fin:
                messages.append(Frame(kind, parts))
    return messages, pongs, None


def _read(answered: bytes) -> tuple[list[Frame], list[bytes], int | None]:
    """What came back behind the 101, which keeps every rule itself."""
    messages: list[Frame] = []
    pongs: list[bytes] = []
    parser = FrameParser("client", compression=True)
    for frame in parser.feed(answered):
        expect(isinstance(frame, Frame), f"what the server sends breaks a rule: {frame}")
        assert isinstance(frame, Frame)
        if frame.opcode == Opcode.CLOSE:
            return messages, pongs, int.from_bytes(frame.payload[:2], "big") or 1005
        (pongs.append(frame.payload) if frame.opcode == Opcode.PONG else messages.append(frame))
    return messages, pongs, None


def connection(data: bytes) -> None:
    """Frames to a server: it answers what the model of the rules says, however they are cut, and every connection ends."""
    if not 3 <= len(data) <= 2048:
        return
    harness = _harnesses()[data[0] % 3]
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if data[0] % 3 else b""
    sent, cut = data[2:], data[1] % (len(data) - 1)
    head = REQUEST + extension + b"\r\n"
    wholes = [
        harness.exchange(head, [sent]),
        harness.exchange(head, [sent[:cut], sent[cut:]]),
        harness.exchange(head + sent, []),
    ]
    found = []
    for got, code in wholes:
        first, _, rest = got.partition(b"\r\n\r\n")
        expect(first.startswith(b"HTTP/1.1 101 "), "the handshake was refused")
        expect(code is not None, "on_close was not called")
        found.append((_read(rest), code))
    ends = [(messages, code, told) for (messages, _, code), told in found]
    expect(ends[0] == ends[1] == ends[2], "the same frames are answered in another way when they are cut")
    # A compressed message is unpacked a step later than pings are answered: one behind a bad one may have its pong, or none.
    pongs = sorted((pongs for (_, pongs, _), _ in found), key=len)
    late = extension and ends[0][1] in (CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG)
    expect(
        all(pongs[-1][: len(each)] == each if late else pongs[-1] == each for each in pongs),
        "the same pings are answered in another way when they are cut",
    )
    if data[0] % 3 == 0:
        frames = model(sent, mask=True, max_frame=_MAX_MESSAGE, max_message=_MAX_MESSAGE, compression=False)
        (answered, code), wanted = found[0], _wanted(frames)
        expect(answered == wanted, f"answered {answered}, and not {wanted}")
        expect(code == (wanted[2] if _is_close(frames) else 1006), f"on_close was told {code}")


def _is_close(frames: list[Frame | Violation]) -> bool:
    """Whether the peer's Close was the last."""
    return bool(frames) and isinstance(frames[-1], Frame) and frames[-1].opcode == Opcode.CLOSE


TARGETS: dict[str, Callable[[bytes], None]] = {"handshake": handshake, "answer": answer, "connection": connection}
