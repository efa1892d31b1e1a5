"""c-ares on the loop, with a name server of the test's own."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from evloop import Loop
from evloop.testing import open_descriptors, run_until
from evnet import CaresBackend, Resolver

A, CNAME, AAAA = 1, 5, 28


class NameServer:
    """Answers from a table; a name that is not in it gets no answer at all."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.asked: list[tuple[str, int]] = []
        self.table: dict[str, Any] = {}  # name: a list of (type, ttl, data), or an error code
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"
        loop.add_reader(self.sock.fileno(), self.answer)

    def answer(self) -> None:
        query, client = self.sock.recvfrom(4096)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        name = ".".join(labels).lower()  # c-ares may mix the case
        (kind,) = struct.unpack_from("!H", query, at + 1)
        self.asked.append((name, kind))
        found = self.table.get(name)
        if found is None:
            return
        records = [] if isinstance(found, int) else [each for each in found if each[0] in (kind, CNAME)]
        code = found if isinstance(found, int) else 0
        reply = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0) + query[12 : at + 5]
        for record_kind, ttl, data in records:
            reply += struct.pack("!HHHIH", 0xC00C, record_kind, 1, ttl, len(data)) + data
        self.sock.sendto(reply, client)

    def close(self) -> None:
        self.loop.remove_reader(self.sock.fileno())
        self.sock.close()


@pytest.fixture
def server(loop: Loop) -> Iterator[NameServer]:
    server = NameServer(loop)
    yield server
    server.close()


@pytest.fixture
def resolver(loop: Loop, server: NameServer) -> Resolver:
    pytest.importorskip("pycares", reason="pycares is not installed")
    return Resolver(loop, CaresBackend(loop, servers=[server.address], timeout=10, tries=1))


@pytest.fixture
def impatient(loop: Loop, server: NameServer) -> Resolver:
    """For names that get no answer."""
    pytest.importorskip("pycares", reason="pycares is not installed")
    return Resolver(loop, CaresBackend(loop, servers=[server.address], timeout=0.2, tries=1))


def v4(text: str) -> bytes:
    return socket.inet_aton(text)


def v6(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


def test_both_families(loop: Loop, server: NameServer, resolver: Resolver) -> None:
    server.table["both.example"] = [(A, 300, v4("127.0.0.9")), (AAAA, 300, v6("::9"))]
    lookup = resolver.resolve("both.example", 80)
    loop.run_until(lookup.done)
    assert set(lookup.result()) == {
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.9", 80)),
        (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::9", 80, 0, 0)),
    }
    assert sorted(server.asked) == [("both.example", A), ("both.example", AAAA)]


def test_the_loop_does_it_without_a_thread(loop: Loop, server: NameServer, resolver: Resolver) -> None:
    before = set(threading.enumerate())
    server.table["one.example"] = [(A, 300, v4("127.0.0.9"))]
    lookup = resolver.resolve("one.example", "http", family=socket.AF_INET)
    loop.run_until(lookup.done)
    assert lookup.result()[0][4] == ("127.0.0.9", 80)
    assert set(threading.enumerate()) <= before


def test_names_in_any_script(loop: Loop, server: NameServer, resolver: Resolver) -> None:
    server.table["xn--4ca.example"] = [(A, 300, v4("127.0.0.9"))]
    lookup = resolver.resolve("ä.example", 80, family=socket.AF_INET)
    loop.run_until(lookup.done)
    assert lookup.result()[0][4] == ("127.0.0.9", 80)


def test_the_canonical_name(loop: Loop, server: NameServer, resolver: Resolver) -> None:
    server.table["one.example"] = [(A, 300, v4("127.0.0.9"))]
    lookup = resolver.resolve("one.example", 80, family=socket.AF_INET, flags=socket.AI_CANONNAME)
    loop.run_until(lookup.done)
    assert lookup.result()[0][3] == "one.example"


@pytest.mark.parametrize(("ttl", "remembered"), [(300, True), (0, False)])
def test_answers_live_as_long_as_their_records(
    loop: Loop, server: NameServer, resolver: Resolver, ttl: int, remembered: bool
) -> None:
    server.table["one.example"] = [(A, ttl, v4("127.0.0.9"))]
    lookup = resolver.resolve("one.example", 80, family=socket.AF_INET)
    loop.run_until(lookup.done)
    assert resolver.resolve("one.example", 80, family=socket.AF_INET).done() is remembered


@pytest.mark.parametrize(
    ("answer", "codes"),
    [
        (3, {socket.EAI_NONAME}),  # NXDOMAIN
        ([], {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}),
        (2, {socket.EAI_AGAIN}),  # SERVFAIL
        (5, {socket.EAI_AGAIN}),  # REFUSED
        (None, {socket.EAI_AGAIN}),  # silence
    ],
)
def test_errors(
    loop: Loop, server: NameServer, resolver: Resolver, impatient: Resolver, answer: Any, codes: set[int]
) -> None:
    server.table["one.example"] = answer
    lookup = (impatient if answer is None else resolver).resolve("one.example", 80)
    loop.run_until(lookup.done)
    with pytest.raises(socket.gaierror, match=r"cannot resolve host 'one.example' port 80: ") as caught:
        lookup.result()
    assert caught.value.errno in codes


def test_a_timeout_of_the_lookup(loop: Loop, server: NameServer, resolver: Resolver) -> None:
    lookup = resolver.resolve("silent.example", 80, timeout=0.01)
    loop.run_until(lookup.done)
    with pytest.raises(socket.gaierror, match=r"no answer within 0\.01 s"):
        lookup.result()


def test_cancelling(loop: Loop, server: NameServer, impatient: Resolver) -> None:
    lookup = impatient.resolve("silent.example", 80)
    run_until(loop, lambda: server.asked)
    assert lookup.cancel()
    run_until(loop, lambda: not impatient._asked)  # c-ares gives up by itself


def test_closing_gives_its_sockets_back(loop: Loop, server: NameServer, resolver: Resolver) -> None:
    before = open_descriptors()
    lookup = resolver.resolve("silent.example", 80)
    run_until(loop, lambda: server.asked)
    assert open_descriptors() > before
    resolver.close()
    resolver.close()
    assert lookup.cancelled()
    assert open_descriptors() == before


def test_closing_the_loop_under_way(backend: str) -> None:
    pytest.importorskip("pycares", reason="pycares is not installed")
    before = open_descriptors()
    with Loop(backend=backend) as loop:
        server = NameServer(loop)
        resolver = Resolver(loop, CaresBackend(loop, servers=[server.address]))
        lookup = resolver.resolve("silent.example", 80)
        run_until(loop, lambda: server.asked)
        server.close()
    assert lookup.cancelled()
    assert open_descriptors() == before


def test_sockets_that_cannot_be_watched(
    loop: Loop, server: NameServer, impatient: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))

    def fail(*_: object) -> None:
        raise OSError(28, "no room")

    monkeypatch.setattr(Loop, "watch", fail)
    lookup = impatient.resolve("one.example", 80)
    loop.run_until(lookup.done)
    assert isinstance(lookup.exception(), socket.gaierror)
    assert reported
    assert all("cannot watch descriptor" in context["message"] for context in reported)


def test_many_at_once(loop: Loop, server: NameServer, resolver: Resolver) -> None:
    names = [f"n{number}.example" for number in range(100)]
    server.table.update({name: [(A, 300, v4(f"127.0.0.{number}"))] for number, name in enumerate(names)})
    lookups = [resolver.resolve(name, 80, family=socket.AF_INET) for name in names]
    run_until(loop, lambda: all(lookup.done() for lookup in lookups))
    assert [lookup.result()[0][4][0] for lookup in lookups] == [f"127.0.0.{number}" for number in range(100)]


def test_by_name(loop: Loop) -> None:
    pytest.importorskip("pycares", reason="pycares is not installed")
    resolver = Resolver(loop, "c-ares")
    lookup = resolver.resolve("localhost", 80, timeout=30)
    loop.run_until(lookup.done)
    assert lookup.result()[0][4][0] in ("127.0.0.1", "::1")


def test_bad_name_servers(loop: Loop) -> None:
    pytest.importorskip("pycares", reason="pycares is not installed")
    with pytest.raises(ValueError, match="cannot use the name servers"):
        CaresBackend(loop, servers=["not an address"])


def test_without_pycares(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycares", None)
    with pytest.raises(ImportError, match=r"evnet\[dns\]"):
        Resolver(loop, "c-ares")
