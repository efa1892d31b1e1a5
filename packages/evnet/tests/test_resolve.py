"""Resolving through a backend that the test answers for."""

from __future__ import annotations

import gc
import math
import os
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import evnet
from evloop import Loop, LoopClosedError
from evloop.testing import ManualClock
from evnet import EvNetError, Lookup, Resolver

V4 = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.1", 80))
V6 = (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("2001:db8::1", 80, 0, 0))


class FakeBackend:
    """Remembers what it is asked; the test answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Callable[..., object]]] = []
        self.withdrawn: list[Any] = []
        self.can_withdraw = True
        self.closed = 0

    def ask(self, question: Any, answer: Callable[..., object]) -> Callable[[], bool]:
        self.asked.append((question, answer))

        def withdraw() -> bool:
            self.withdrawn.append(question)
            return self.can_withdraw

        return withdraw

    def close(self) -> None:
        self.closed += 1

    def answer(self, *infos: Any, holds: float | None = None, index: int = -1) -> None:
        self.asked[index][1](infos, holds, None)

    def fail(self, code: int = socket.EAI_AGAIN) -> None:
        self.asked[-1][1](None, None, socket.gaierror(code, "the test says no"))


@pytest.fixture
def backend_of_test() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def resolver(loop: Loop, backend_of_test: FakeBackend) -> Resolver:
    return Resolver(loop, backend_of_test)


def test_a_name_is_asked_for(loop: Loop, resolver: Resolver, backend_of_test: FakeBackend) -> None:
    lookup = resolver.resolve("name.example", "80", family=socket.AF_INET, flags=socket.AI_ADDRCONFIG)
    assert not lookup.done()
    assert backend_of_test.asked[0][0] == (
        "name.example",
        80,
        socket.AF_INET,
        socket.SOCK_STREAM,
        0,
        socket.AI_ADDRCONFIG,
    )
    got: list[Lookup] = []
    lookup.add_done_callback(got.append)
    backend_of_test.answer(V4, V6)
    assert lookup.result() == (V4, V6)
    assert got == []
    loop.run_once(0)
    assert got == [lookup]


def test_digits_are_answered_at_once(resolver: Resolver, backend_of_test: FakeBackend) -> None:
    assert resolver.resolve("127.0.0.1", 80).result()[0][4] == ("127.0.0.1", 80)
    assert resolver.resolve("", 80).result() == resolver.resolve(None, 80).result()
    refused = resolver.resolve("::g", 80)
    assert isinstance(refused.exception(), socket.gaierror)
    assert backend_of_test.asked == []


def test_a_failure(resolver: Resolver, backend_of_test: FakeBackend) -> None:
    first, second = (resolver.resolve("name.example", 80) for _ in range(2))
    backend_of_test.fail()
    for lookup in (first, second):
        with pytest.raises(socket.gaierror, match="the test says no") as caught:
            lookup.result()
        assert caught.value.errno == socket.EAI_AGAIN
    assert first.exception() is not second.exception()
    resolver.resolve("name.example", 80)
    assert len(backend_of_test.asked) == 2, "errors are not remembered"


def test_equal_questions_are_joined(resolver: Resolver, backend_of_test: FakeBackend) -> None:
    first, second = (resolver.resolve("name.example", 80) for _ in range(2))
    other = resolver.resolve("name.example", 81)
    assert [question.port for question, _ in backend_of_test.asked] == [80, 81]
    backend_of_test.answer(V4, index=0)
    assert first.result() is second.result()
    assert not other.done()


def test_cancelling_one_of_two(resolver: Resolver, backend_of_test: FakeBackend) -> None:
    first, second = (resolver.resolve("name.example", 80) for _ in range(2))
    assert first.cancel()
    assert backend_of_test.withdrawn == []
    backend_of_test.answer(V4)
    assert second.result() == (V4,)
    assert first.cancelled()


def test_cancelling_the_last_withdraws_the_question(resolver: Resolver, backend_of_test: FakeBackend) -> None:
    for _ in range(2):
        resolver.resolve("name.example", 80).cancel()
    assert len(backend_of_test.asked) == len(backend_of_test.withdrawn) == 2


def test_a_question_that_cannot_be_withdrawn_is_joined_again(resolver: Resolver, backend_of_test: FakeBackend) -> None:
    backend_of_test.can_withdraw = False
    for _ in range(3):
        resolver.resolve("name.example", 80).cancel()
    last = resolver.resolve("name.example", 80)
    assert len(backend_of_test.asked) == 1
    backend_of_test.answer(V4)
    assert last.result() == (V4,)


def test_an_answer_that_nobody_waits_for_any_more_is_remembered(
    resolver: Resolver, backend_of_test: FakeBackend
) -> None:
    backend_of_test.can_withdraw = False
    resolver.resolve("name.example", 80).cancel()
    backend_of_test.answer(V4)
    assert resolver.resolve("name.example", 80).result() == (V4,)


@pytest.mark.parametrize(("holds", "expected"), [(None, 10.0), (3.0, 3.0), (100.0, 10.0)])
def test_answers_are_remembered_for_a_while(
    loop: Loop, resolver: Resolver, backend_of_test: FakeBackend, holds: float | None, expected: float
) -> None:
    clock = ManualClock(loop)
    resolver.resolve("name.example", 80)
    backend_of_test.answer(V4, holds=holds)
    clock.advance(expected * 0.99)
    assert resolver.resolve("name.example", 80).result() == (V4,)
    clock.advance(expected * 0.01)
    assert not resolver.resolve("name.example", 80).done()
    assert len(backend_of_test.asked) == 2


def test_an_answer_that_holds_for_no_time_is_not_remembered(resolver: Resolver, backend_of_test: FakeBackend) -> None:
    lookup = resolver.resolve("name.example", 80)
    backend_of_test.answer(V4, holds=0.0)
    assert lookup.result() == (V4,)
    assert not resolver.resolve("name.example", 80).done()


def test_the_oldest_answer_makes_room(loop: Loop, backend_of_test: FakeBackend) -> None:
    resolver = Resolver(loop, backend_of_test, max_entries=2)
    for port in (1, 2, 3):
        resolver.resolve("name.example", port)
        backend_of_test.answer(V4)
    assert len(resolver._known) == 2
    assert [resolver.resolve("name.example", port).done() for port in (1, 2, 3)] == [False, True, True]


@pytest.mark.parametrize("options", [{"max_entries": 0}, {"max_age": 0}])
def test_a_resolver_without_memory(loop: Loop, backend_of_test: FakeBackend, options: Any) -> None:
    resolver = Resolver(loop, backend_of_test, **options)
    resolver.resolve("name.example", 80)
    backend_of_test.answer(V4)
    assert not resolver.resolve("name.example", 80).done()


def test_forget(resolver: Resolver, backend_of_test: FakeBackend) -> None:
    resolver.resolve("name.example", 80)
    backend_of_test.answer(V4)
    resolver.forget()
    assert not resolver.resolve("name.example", 80).done()


def test_a_timeout_is_one_lookup_s_own(loop: Loop, resolver: Resolver, backend_of_test: FakeBackend) -> None:
    clock = ManualClock(loop)
    hasty = resolver.resolve("name.example", 80, timeout=2)
    patient = resolver.resolve("name.example", 80, timeout=math.inf)
    clock.advance(1.9)
    assert not hasty.done()
    clock.advance(0.2)
    error = hasty.exception()
    assert isinstance(error, socket.gaierror)
    assert error.errno == socket.EAI_AGAIN
    assert error.strerror == "cannot resolve host 'name.example' port 80: no answer within 2 s"
    backend_of_test.answer(V4)
    assert patient.result() == (V4,)
    clock.advance(10)


def test_an_answer_in_time_stops_the_clock(loop: Loop, resolver: Resolver, backend_of_test: FakeBackend) -> None:
    clock = ManualClock(loop)
    lookup = resolver.resolve("name.example", 80, timeout=2)
    backend_of_test.answer(V4)
    clock.advance(3)
    assert lookup.result() == (V4,)


def test_a_backend_that_answers_at_once(loop: Loop) -> None:
    class Hosts(FakeBackend):
        def ask(self, question: Any, answer: Callable[..., object]) -> Callable[[], bool]:
            answer((V4,), None, None)
            return super().ask(question, answer)

    assert Resolver(loop, Hosts()).resolve("name.example", 80).result() == (V4,)


def test_a_backend_that_raises(loop: Loop) -> None:
    class Broken(FakeBackend):
        def ask(self, question: Any, answer: Callable[..., object]) -> Callable[[], bool]:
            raise RuntimeError("broken")

    resolver = Resolver(loop, Broken())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            resolver.resolve("name.example", 80, timeout=5)
    assert resolver._asked == {}


def test_close(loop: Loop, resolver: Resolver, backend_of_test: FakeBackend) -> None:
    lookup = resolver.resolve("name.example", 80)
    resolver.close()
    resolver.close()
    assert backend_of_test.closed == 1
    assert lookup.cancelled()
    backend_of_test.answer(V4)  # too late
    assert resolver._known == {}
    with pytest.raises(EvNetError, match="the resolver is closed"):
        resolver.resolve("127.0.0.1", 80)


def test_closing_the_loop_cancels(backend: str, backend_of_test: FakeBackend) -> None:
    with Loop(backend=backend) as loop:
        resolver = Resolver(loop, backend_of_test)
        lookup = resolver.resolve("name.example", 80, timeout=5)
        lookup.add_done_callback(lambda _: pytest.fail("called by a closed loop"))
    assert lookup.cancelled()
    assert backend_of_test.closed == 1
    backend_of_test.answer(V4)
    with pytest.raises(LoopClosedError):
        resolver.resolve("name.example", 80)
    with pytest.raises(LoopClosedError):
        evnet.resolve(loop, "name.example", 80)


def test_the_loop_s_own_resolver(loop: Loop) -> None:
    resolver = Resolver.of(loop)
    assert Resolver.of(loop) is resolver
    evnet.resolve(loop, "127.0.0.1", 80)
    loop.close()
    assert resolver._closed


def test_no_loop_is_kept(backend: str) -> None:
    loop = Loop(backend=backend)
    evnet.resolve(loop, "127.0.0.1", 80)
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


def test_another_loop_s_resolver(loop: Loop, resolver: Resolver, backend: str) -> None:
    assert evnet.resolve(loop, "127.0.0.1", 80, resolver=resolver).done()
    with Loop(backend=backend) as other, pytest.raises(ValueError, match="another loop"):
        evnet.resolve(other, "127.0.0.1", 80, resolver=resolver)


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("name.example", 65536), {}, ValueError),
        (("name.example", b"80"), {}, TypeError),
        ((b"name.example", 80), {}, TypeError),
        ((5, 80), {}, TypeError),
        (("name.example", 80), {"timeout": 0}, ValueError),
        (("name.example", 80), {"timeout": math.nan}, ValueError),
    ],
)
def test_bad_arguments(resolver: Resolver, arguments: Any, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="must be"):
        resolver.resolve(*arguments, **options)
    assert resolver._asked == {}


@pytest.mark.parametrize(
    "options", [{"max_age": -1}, {"max_age": math.nan}, {"max_entries": -1}, {"backend": "carrier pigeon"}]
)
def test_bad_settings(loop: Loop, options: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|is not one of system, c-ares"):
        Resolver(loop, **options)


def test_the_environment_names_a_backend(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVNET_RESOLVER", "carrier pigeon")
    with pytest.raises(ValueError, match="carrier pigeon"):
        Resolver(loop)
    Resolver(loop, "system")


def test_repr(resolver: Resolver) -> None:
    assert repr(resolver.resolve("name.example", 80)) == "<Lookup of 'name.example' port 80 pending>"


# -- the real thing -------------------------------------------------------------------------------------------------------------


def test_localhost(loop: Loop) -> None:
    lookup = evnet.resolve(loop, "localhost", "http", family=socket.AF_INET, timeout=30)
    loop.run_until(lookup.done)
    assert lookup.result() == ((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 80)),)


def test_a_child_process_resolves_with_a_loop_of_its_own(loop: Loop) -> None:
    lookup = evnet.resolve(loop, "localhost", 80)
    loop.run_until(lookup.done)  # so that there is a thread, which the child has not
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        status = 1
        try:
            with Loop() as own:
                again = evnet.resolve(own, "localhost", 81, timeout=20)
                own.run_until(again.done)
                status = 0 if again.result()[0][4][1] == 81 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
