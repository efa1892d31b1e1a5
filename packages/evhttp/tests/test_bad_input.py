"""Bad input: each case is fed whole, byte by byte, and cut at every position, each on a connection of its own to one server.

Invariants: the answer is the one of the table, nothing comes after it, the connection is closed, no handler is called for what
stands behind it, nothing is logged, and a client that is connected all the while is served as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from evhttp import Limits, Request, Response

# Small, so that the cases for them are short. `Limits` itself is tested in test_limits.py.
LIMITS = Limits(
    max_request_line=60, max_header_section=150, max_headers=6, max_body_size=40, max_chunk_line=20, max_trailers=30
)
L = b"GET / HTTP/1.1\r\n"
H = b"Host: a\r\n"
P = b"POST / HTTP/1.1\r\n" + H
C = P + b"Transfer-Encoding: chunked\r\n\r\n"
GOOD = L + H + b"\r\n"


@dataclass(frozen=True)
class Case:
    data: bytes
    status: int
    good: int = 0  # requests before it that are answered with 200


# In the id stands the section of the RFC that the case offends against.
CASES: dict[str, Case] = {
    # -- request line --
    **{
        f"9112-3 request line {line!r}": Case(line + b"\r\n" + H + b"\r\n", status)
        for line, status in [
            (b"GET /", 400),
            (b"GET", 400),
            (b"GET ", 400),
            (b" GET / HTTP/1.1", 400),
            (b"GET  / HTTP/1.1", 400),
            (b"GET /  HTTP/1.1", 400),
            (b"GET / HTTP/1.1 ", 400),
            (b"GET\t/ HTTP/1.1", 400),
            (b"GET / a HTTP/1.1", 400),
            (b"/ HTTP/1.1", 400),
            (b"GET / HTTP/1.1\r", 400),
            (b"GET /\x00 HTTP/1.1", 400),
            (b"GET /\x07 HTTP/1.1", 400),
            (b"GET /\x7f HTTP/1.1", 400),
            (b"GET /\xc3\xa4 HTTP/1.1", 400),
            (b"GET /\rx HTTP/1.1", 400),
            (b"GET(/) / HTTP/1.1", 400),
            (b"G\x00T / HTTP/1.1", 400),
            (b"\xc4ET / HTTP/1.1", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS on a plain port
            (b"PRI * HTTP/2.0", 501),
            (b"SSH-2.0-OpenSSH_9.2", 400),
            (b"get / HTTP/1.1", 501),
            (b"BREW / HTTP/1.1", 501),
            (b"A" * 33 + b" / HTTP/1.1", 501),
        ]
    },
    **{
        f"9112-2.3 version {version!r}": Case(b"GET / " + version + b"\r\n" + H + b"\r\n", status)
        for version, status in [
            (b"HTTP/1.2", 505),
            (b"HTTP/0.9", 505),
            (b"HTTP/2.0", 505),
            (b"HTTP/9.9", 505),
            (b"http/1.1", 400),
            (b"HTTP/1", 400),
            (b"HTTP/1,1", 400),
            (b"HTTP/1.1.1", 400),
            (b"HTTP/11.1", 400),
            (b"HTTP/1.10", 400),
            (b"HTTP /1.1", 400),
            (b"HTTPS/1.1", 400),
            (b"ICAP/1.0", 400),
        ]
    },
    **{
        f"9112-3.2 target {target!r}": Case(target + b" HTTP/1.1\r\n" + H + b"\r\n", status)
        for target, status in [
            (b"GET *", 400),
            (b"POST *", 400),
            (b"GET index.html", 404),
            (b"GET ftp://a/", 421),
            (b"GET http:///x", 400),
            (b"GET http:/x", 400),
            (b"GET http://a:99999/", 400),
            (b"GET http://a b/", 400),
            (b"GET http://a@@b/", 400),
            (b"GET http://[::1/", 400),
            (b"CONNECT /", 400),
            (b"CONNECT a", 400),
            (b"CONNECT a:x", 400),
            (b"CONNECT http://a/", 400),
        ]
    },
    "9112-3 line too long": Case(b"GET /" + b"a" * 100 + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    "9112-3 line too long in the query": Case(b"GET /?" + b"a" * 100 + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    "9112-2.2 bare LF behind the request line": Case(b"GET / HTTP/1.1\n" + H + b"\r\n", 400),
    "9112-2.2 bare LF throughout": Case(b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "9112-2.2 bare CR before the request": Case(b"\rGET / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "9112-2.2 bare LF before the request": Case(b"\nGET / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "9112-2.2 too many blank lines": Case(b"\r\n" * 5 + GOOD, 400),
    "9112-2.2 white space before the first field": Case(L + b" " + H + b"\r\n", 400),
    # -- header fields --
    **{
        f"9112-5 field line {line!r}": Case(L + H + line + b"\r\n\r\n", 400)
        for line in [
            b"no colon",
            b"X",
            b": a",
            b"X : a",
            b"X\t: a",
            b" X: a",
            b"\tX: a",
            b"X: a\r\n b",
            b"X: a\r\n\tb",
            b"X:\r\n a",
            b"X: a\nY: b",
            b"X: a\rY: b",
            b"X: a\r\rY: b",
            b"X: \x00",
            b"X: \x07",
            b"X: a\x0bb",
            b"X: \x7f",
            b"X\x00: a",
            b"X\x80: a",
            b"\xc3\x84: a",
            b"X(y): a",
            b"X/y: a",
            b"X@: a",
            b'"X": a',
            b"Content Length: 5",
        ]
    },
    "9112-5.2 obs-fold of Transfer-Encoding": Case(P + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "6585-5 section too long": Case(L + H + b"X: " + b"a" * 200 + b"\r\n\r\n", 431),
    "6585-5 section too long by names": Case(L + H + b"a" * 200 + b": a\r\n\r\n", 431),
    "6585-5 too many fields": Case(L + H + b"X: 1\r\n" * 6 + b"\r\n", 431),
    "9112-3.2 no Host": Case(L + b"\r\n", 400),
    "9112-3.2 two Hosts": Case(L + H + H + b"\r\n", 400),
    "9112-3.2 two Hosts that differ": Case(L + H + b"Host: b\r\n\r\n", 400),
    **{
        f"9112-3.2 Host {host!r}": Case(L + b"Host: " + host + b"\r\n\r\n", 400)
        for host in (b"user@a", b"a/path", b"a, b", b"a b", b"a:x", b"a:99999", b"[::1", b"http://a", b"a\x01", b"a?b")
    },
    # -- lengths --
    **{
        f"9112-6.3 Content-Length {value!r}": Case(P + b"Content-Length: " + value + b"\r\n\r\nhello", status)
        for value, status in [
            (b"", 400),
            (b"-1", 400),
            (b"+5", 400),
            (b"5 5", 400),
            (b"5,5", 400),
            (b"5, 5", 400),
            (b"0x5", 400),
            (b"5.0", 400),
            (b"5_0", 400),
            (b"five", 400),
            (b"\xb5", 400),
            (b"41", 413),
            (b"99999999999999999999999", 413),
            (b"18446744073709551621", 413),  # 2^64 + 5
        ]
    },
    "9112-6.3 two lengths that differ": Case(P + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    "9112-6.3 two lengths that agree": Case(P + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "9112-6.3 length, then chunked": Case(P + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "9112-6.3 chunked, then length": Case(P + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "9112-6.3 GET with two lengths": Case(L + H + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n", 400),
    **{
        f"9112-6.1 Transfer-Encoding {value!r}": Case(P + b"Transfer-Encoding:" + value + b"\r\n\r\n0\r\n\r\n", status)
        for value, status in [
            (b"", 400),
            (b" ,", 400),
            (b" identity", 400),
            (b" xchunked", 400),
            (b" chunked, chunked", 400),
            (b" chunked, gzip", 400),
            (b" chunked;a=b", 400),
            (b" gzip, chunked", 501),
            (b" \x0bchunked", 400),
        ]
    },
    "9112-6.1 empty Transfer-Encoding with a length": Case(
        P + b"Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello", 400
    ),
    "9112-6.1 two Transfer-Encodings": Case(
        P + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 400
    ),
    "9112-6.1 HTTP/1.0 with Transfer-Encoding": Case(
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400
    ),
    "9110-10.1.1 another expectation": Case(P + b"Expect: the-unexpected\r\nContent-Length: 5\r\n\r\nhello", 417),
    # -- chunks --
    **{
        f"9112-7.1 chunk line {line!r}": Case(C + line + b"\r\nhello\r\n0\r\n\r\n", 400)
        for line in [
            b"",
            b"g",
            b"-5",
            b"+5",
            b"0x5",
            b" 5",
            b"5 ",
            b"5;",
            b"5\x00",
            b"5;a\x00",
            b"5;a\x01b",
            b"5;a\rb",
            b"5;a\nb",
            b'5;a="',
            b"5;a=",
            b"5;=b",
            b"5;bad[=x",
            b"5,",
            b"5\n",
        ]
    },
    "9112-7.1 data longer than its chunk": Case(C + b"3\r\nhello\r\n0\r\n\r\n", 400),
    "9112-7.1 data ends with LF": Case(C + b"5\r\nhello\n0\r\n\r\n", 400),
    "9112-7.1 size line ends with LF": Case(C + b"5\nhello\r\n0\r\n\r\n", 400),
    "9112-7.1 last line ends with LF": Case(C + b"5\r\nhello\r\n0\r\n\n", 400),
    "9112-7.1 over the limit at once": Case(C + b"29\r\n", 413),
    "9112-7.1 over the limit in the end": Case(C + b"20\r\n" + b"a" * 32 + b"\r\n9\r\naaaaaaaaa\r\n0\r\n\r\n", 413),
    "9112-7.1 overflow": Case(C + b"10000000000000005\r\nhello\r\n0\r\n\r\n", 413),
    "9112-7.1.1 line too long": Case(C + b"5;" + b"a" * 30 + b"\r\nhello\r\n0\r\n\r\n", 400),
    **{
        f"9112-7.1.2 trailer {line!r}": Case(C + b"0\r\n" + line + b"\r\n\r\n", status)
        for line, status in [
            (b"no colon", 400),
            (b"X : a", 400),
            (b" X: a", 400),
            (b"X: a\r\n b", 400),
            (b"X: \x00", 400),
            (b"X: a\nY: b", 400),
            (b"Host: evil", 400),
            (b"Content-Length: 5", 400),
            (b"Transfer-Encoding: chunked", 400),
            (b"X: " + b"a" * 40, 431),
        ]
    },
    # -- behind good ones --
    "9112-9.3.2 behind two good requests": Case(GOOD + GOOD + b"GET\r\n\r\n", 400, good=2),
    "9112-6 bytes behind a body": Case(P + b"Content-Length: 5\r\n\r\nhelloX: 1\r\n\r\n", 400, good=1),
    "9112-7.1 bytes behind the last chunk": Case(C + b"5\r\nhello\r\n0\r\n\r\n\x00", 400, good=1),
    "9112-9.3.2 a bad length behind a good body": Case(
        P + b"Content-Length: 1\r\n\r\nx" + P + b"Content-Length: x\r\n\r\n", 400, good=1
    ),
}

EVIL = b"GET /evil HTTP/1.1\r\n" + H + b"\r\n"


class Table:
    """The server of one backend, warmed up, and the client who must notice nothing."""

    def __init__(self, stepped: Callable[..., Any]) -> None:
        self.targets: list[str] = []
        self.running = stepped(self.handle, limits=LIMITS)
        self.witness = self.running.connect(1)[0]
        self.seen = 0

    def handle(self, req: Request, res: Response) -> None:
        self.targets.append(req.path)
        res.send(req.body)

    def undisturbed(self) -> None:
        """Ask for something as the client who was there all the time."""
        self.witness.send(b"GET /witness HTTP/1.1\r\n" + H + b"\r\n")
        self.running.until(lambda: self._answered())

    def _answered(self) -> bool:
        try:
            self.witness._more()
        except BlockingIOError:
            return False
        assert self.witness.answer().status == 200
        return True

    def feed(self, pieces: list[list[bytes]]) -> list[Any]:
        """Feed each list of pieces to a client of its own, a piece a turn; return the clients, at their connections' ends."""
        clients = self.running.connect(len(pieces))
        for step in range(max(len(each) for each in pieces)):
            for client, each in zip(clients, pieces, strict=True):
                if step < len(each):
                    client.send(each[step])
            self.running.turns(1 + len(pieces) // 64)  # a turn takes 64 events
        self.running.drain(clients)
        for client in clients:
            client.close()
        self.running.until(lambda: self.running.server.connections == 1)  # the witness: nobody lingers who has left
        return list(clients)

    def judge(self, name: str, case: Case, client: Any, how: str) -> None:
        statuses = []
        while client.buffer:
            answer = client.answer()
            statuses.append(answer.status)
        assert statuses == [200] * case.good + [case.status], f"{name}, {how}: {statuses}"
        assert answer.get("connection") == "close", f"{name}, {how}"
        assert answer.body.strip(), f"{name}, {how}"
        assert "/evil" not in self.targets, f"{name}, {how}: what stood behind it was served"


@pytest.fixture
def table(stepped: Callable[..., Any]) -> Iterator[Table]:
    table = Table(stepped)
    yield table
    table.undisturbed()


def test_whole_with_a_request_behind_it(table: Table) -> None:
    for name, case in CASES.items():
        (client,) = table.feed([[case.data + EVIL]])
        # What is incomplete without its end may make another fault of it, but never a request that is served.
        table.judge(name, case, client, "whole")
        table.undisturbed()


def test_byte_by_byte(table: Table) -> None:
    for name, case in CASES.items():
        (client,) = table.feed([[case.data[i : i + 1] for i in range(len(case.data))]])
        table.judge(name, case, client, "byte by byte")
    table.undisturbed()


@pytest.mark.timeout(120)
def test_cut_at_every_position(table: Table) -> None:
    for name, case in CASES.items():
        cuts = [[case.data[:at], case.data[at:]] for at in range(1, len(case.data))]
        for at, client in enumerate(table.feed(cuts), 1):
            table.judge(name, case, client, f"cut at {at}")
        table.undisturbed()


GOOD_CASES = {
    "9112-3 plain": (GOOD, [b""]),
    "9112-2.2 blank lines before": (b"\r\n\r\n" + GOOD + b"\r\n" + GOOD, [b"", b""]),
    "9112-6.2 length": (P + b"Content-Length: 5\r\n\r\nhello" + GOOD, [b"hello", b""]),
    "9112-7.1 chunked": (C + b'3;a="b"\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n' + GOOD, [b"hello", b""]),
    "9112-3.2.2 absolute-form": (b"GET http://a/x HTTP/1.1\r\nHost: b\r\n\r\n", [b""]),
    "9110-5.5 white space and bytes above 7F": (L + H + b"X: \t a \xff b\t \r\nY:\r\n\r\n", [b""]),
}


@pytest.mark.parametrize("name", GOOD_CASES)
def test_good_ones_cut_at_every_position(table: Table, name: str) -> None:
    data, bodies = GOOD_CASES[name]
    pieces = [[data[:at], data[at:]] for at in range(1, len(data))]
    pieces.append([data])
    pieces.append([data[i : i + 1] for i in range(len(data))])
    for each in pieces:
        each[-1] += b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    for client in table.feed(pieces):
        answers = [client.answer() for _ in range(len(bodies) + 1)]
        assert [answer.status for answer in answers] == [200] * (len(bodies) + 1)
        assert [answer.body for answer in answers] == [*bodies, b""]
        assert not client.buffer


ENDLESS = {
    "9112-3 method": (b"", b"A", 501),
    "9112-3 target": (b"GET /", b"a", 414),
    "9112-3 spaces": (b"GET / HTTP/1.1", b" ", 400),
    "9112-2.2 blank lines": (b"", b"\r\n", 400),
    "9112-5 field name": (L + H, b"a", 431),
    "9112-5 field value": (L + H + b"X: ", b"a", 431),
    "9112-5 white space": (L + H + b"X:", b" ", 431),
    "9112-5 fields": (L + H, b"X: 1\r\n", 431),
    "9112-6.3 length": (P + b"Content-Length: ", b"0", 431),
    "9112-7.1 chunk size": (C, b"0", 400),
    "9112-7.1 chunk extension": (C + b"1;", b"a", 400),
    "9112-7.1 tiny chunks": (C, b"1\r\nx\r\n", 413),
    "9112-7.1.2 trailers": (C + b"0\r\n", b"X: 1\r\n", 431),
    "random bytes": (b"", b"\x00\xff\x80", 400),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_bytes_that_never_end(table: Table, name: str) -> None:
    """A client that sends and sends is answered, and cut off although it never stops."""
    head, more, status = ENDLESS[name]
    (client,) = table.running.connect(1)
    client.send(head)
    sent = 0

    def step() -> bool:
        nonlocal sent
        try:
            sent += client.sock.send(more * 10_000)
        except BlockingIOError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            return True
        return False

    table.running.until(step)
    assert sent < 50_000_000
    while True:
        try:
            client._more()
        except ConnectionResetError:
            break
        if client.ended:
            break
    assert client.answer().status == status
    assert not client.buffer


def test_a_malformed_head_request_gets_no_content(serve: Callable[..., Any]) -> None:
    """RFC 9110 §9.3.2: "The server MUST NOT send content in the response" to HEAD; found by the fuzz target `static`."""
    client = serve(print).connect()
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nX y\r\n\r\n")
    assert client.answer(head=True).status == 400
    assert client.at_end()
