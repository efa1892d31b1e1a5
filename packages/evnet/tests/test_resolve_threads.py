"""The system's resolver in threads; `socket.getaddrinfo` is the test's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from evloop import Loop
from evloop.testing import run_until
from evnet import Resolver, _resolve_threads

ANSWER = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.1", 80))]


class Names:
    """A `socket.getaddrinfo` that waits until the test lets it answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.gate = threading.Semaphore(0)
        self.error: Exception | None = None

    def __call__(self, host: str, *rest: Any) -> list[Any]:
        if threading.current_thread() is threading.main_thread():
            raise socket.gaierror(socket.EAI_NONAME, "asked by the loop's thread")
        self.threads.add(threading.current_thread())
        self.asked.append(host)
        assert self.gate.acquire(timeout=30)
        if self.error is not None:
            raise self.error
        return ANSWER


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Names that block, and threads of the test's own."""
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    monkeypatch.setattr(_resolve_threads, "_pool", _resolve_threads._Pool())
    monkeypatch.setattr(_resolve_threads, "_IDLE_SECONDS", 0.01)
    yield names
    names.gate.release(1000)
    for thread in names.threads:
        thread.join(30)
        assert not thread.is_alive(), "an idle thread ends"
    assert _resolve_threads._pool._threads == 0


def test_answers_come_through_the_loop(loop: Loop, names: Names) -> None:
    lookup = Resolver(loop).resolve("name.example", 80)
    names.gate.release()
    loop.run_until(lookup.done)
    assert lookup.result() == tuple(ANSWER)
    assert all(thread.daemon for thread in names.threads)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "later"), socket.EAI_AGAIN),
        (UnicodeError("label too long"), socket.EAI_NONAME),
        (RuntimeError("a bug somewhere"), socket.EAI_NONAME),
    ],
)
def test_whatever_happens_is_an_answer(loop: Loop, names: Names, error: Exception, code: int) -> None:
    names.error = error
    lookup = Resolver(loop).resolve("name.example", 80)
    names.gate.release()
    loop.run_until(lookup.done)
    with pytest.raises(socket.gaierror, match=r"cannot resolve host 'name.example' port 80: ") as caught:
        lookup.result()
    assert caught.value.errno == code


def test_there_are_only_so_many_threads(loop: Loop, names: Names) -> None:
    count = _resolve_threads.MAX_THREADS
    resolver = Resolver(loop)
    lookups = [resolver.resolve(f"name{number}.example", 80) for number in range(3 * count)]
    run_until(loop, lambda: len(names.asked) == count)
    assert threading.active_count() <= count + 1 + len(set(threading.enumerate()) - names.threads)
    names.gate.release(3 * count)
    run_until(loop, lambda: all(lookup.done() for lookup in lookups))
    assert len(names.threads) <= count
    assert sorted(names.asked) == sorted(f"name{number}.example" for number in range(3 * count))


def test_a_question_that_still_waits_is_withdrawn(loop: Loop, names: Names) -> None:
    count = _resolve_threads.MAX_THREADS
    resolver = Resolver(loop)
    busy = [resolver.resolve(f"name{number}.example", 80) for number in range(count)]
    run_until(loop, lambda: len(names.asked) == count)
    waiting = resolver.resolve("withdrawn.example", 80)
    waiting.cancel()
    assert [question.host for question in resolver._asked] == [f"name{number}.example" for number in range(count)]
    names.gate.release(1000)
    run_until(loop, lambda: all(lookup.done() for lookup in busy))
    last = resolver.resolve("last.example", 80)
    loop.run_until(last.done)
    assert "withdrawn.example" not in names.asked


def test_asking_again_and_again_takes_one_thread(loop: Loop, names: Names) -> None:
    resolver = Resolver(loop)
    for _ in range(50):
        lookup = resolver.resolve("slow.example", 80)
        run_until(loop, lambda: names.asked)
        lookup.cancel()
    assert names.asked == ["slow.example"]


def test_a_loop_that_is_closed_meanwhile(backend: str, names: Names) -> None:
    with Loop(backend=backend) as loop:
        lookup = Resolver(loop).resolve("name.example", 80)
        run_until(loop, lambda: names.asked)
    assert lookup.cancelled()
    names.gate.release()
    # The fixture waits for the thread; an exception in it would fail the test.


def test_no_thread_can_be_started(loop: Loop, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver = Resolver(loop)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        lookup = resolver.resolve("name.example", 80)
        loop.run_until(lookup.done)
    with pytest.raises(socket.gaierror, match="can't start new thread"):
        lookup.result()
    # With one thread there is somebody to do it later.
    first = resolver.resolve("first.example", 80)
    run_until(loop, lambda: names.asked)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        second = resolver.resolve("second.example", 80)
    names.gate.release(2)
    run_until(loop, lambda: first.done() and second.done())
    assert first.result() == second.result() == tuple(ANSWER)
