"""Who runs: threads, places, the queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from evmulti import ContextError, context, suspended
from evmulti._pool import Pool

from .blocking import PATIENCE, Gate


class Task:
    """Does what it is given, and can be waited for."""

    client_gone = False

    def __init__(self, work: Any) -> None:
        self.work = work
        self.done = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self.error = error
        self.done.set()

    def refuse(self, error: Exception) -> None:
        self.error = error
        self.done.set()

    def wait(self) -> None:
        assert self.done.wait(PATIENCE)
        assert self.error is None


@pytest.fixture
def pools() -> Iterator[Any]:
    made: list[Pool] = []

    def make(**options: Any) -> Pool:
        made.append(Pool(**options))
        return made[-1]

    yield make
    for pool in made:
        assert pool.retire(PATIENCE) == 0


def test_max_active_is_never_exceeded_and_everything_is_done(pools: Any) -> None:
    pool = pools(size=8, max_active=3, queue_size=1000)
    running, most = 0, 0
    lock = threading.Lock()

    def enter(step: int) -> None:
        nonlocal running, most
        with lock:
            running += step
            most = max(most, running)

    def work() -> None:
        enter(1)
        threading.Event().wait(0.0005)
        enter(-1)
        with suspended():
            threading.Event().wait(0.0005)
        enter(1)
        enter(-1)

    tasks = [Task(work) for _ in range(300)]
    assert all(pool.submit(task) for task in tasks)
    for task in tasks:
        task.wait()
    assert most <= 3
    assert pool.retire(PATIENCE) == 0
    stats = pool.stats()
    assert (stats.running, stats.suspended, stats.queued, stats.done, stats.threads) == (0, 0, 0, 300, 0)


def test_a_suspended_task_lends_its_place(pools: Any) -> None:
    pool = pools(size=2, max_active=1)
    first, second = Gate(), Gate()

    def lends() -> None:
        with suspended():
            first.wait()

    waiting = Task(lends)
    assert pool.submit(waiting)
    first.until()
    assert (pool.stats().running, pool.stats().suspended) == (0, 1)
    other = Task(second.wait)
    assert pool.submit(other)
    second.until()
    first.opened.set()  # it wants its place back, which the other one has
    assert not waiting.done.wait(0.05)
    second.opened.set()
    waiting.wait()
    other.wait()


def test_who_comes_back_is_before_who_has_not_begun(pools: Any) -> None:
    pool = pools(size=3, max_active=1)
    first, second = Gate(), Gate()
    order: list[str] = []

    def lends() -> None:
        with suspended():
            first.wait()
        order.append("back")

    waiting, other = Task(lends), Task(second.wait)
    assert pool.submit(waiting)
    first.until()
    assert pool.submit(other)
    second.until()
    late = Task(lambda: order.append("new"))
    assert pool.submit(late)
    first.opened.set()
    deadline = threading.Event()
    while not pool._resuming:
        assert not deadline.wait(0.001)
    second.opened.set()
    late.wait()
    waiting.wait()
    assert order == ["back", "new"]


def test_a_place_is_lent_once(pools: Any) -> None:
    def twice() -> None:
        with suspended():
            with pytest.raises(ContextError, match="already"):
                with suspended():
                    pass

    task = Task(twice)
    assert pools(size=1).submit(task)
    task.wait()


def test_a_full_queue(pools: Any) -> None:
    pool = pools(size=1, queue_size=1)
    gate = Gate()
    tasks = [Task(gate.wait) for _ in range(3)]
    assert [pool.submit(task) for task in tasks] == [True, True, False]
    assert pool.withdraw(tasks[1])
    assert not pool.withdraw(tasks[1])
    assert pool.submit(tasks[2])
    gate.opened.set()
    tasks[0].wait()
    tasks[2].wait()
    assert not tasks[1].done.is_set()


def test_a_pool_that_has_retired_can_be_used_again(pools: Any) -> None:
    pool = pools(size=2)
    names: list[str] = []
    for _ in range(2):
        task = Task(lambda: names.append(context.thread_name))
        assert pool.submit(task)
        task.wait()
        assert pool.retire(PATIENCE) == 0
    assert names == ["pool-1", "pool-2"]


def test_a_thread_that_works_ends_after_its_task(pools: Any) -> None:
    pool = pools(size=1)
    gate = Gate()
    task = Task(gate.wait)
    assert pool.submit(task)
    gate.until()
    assert pool.retire(0.01) == 1
    gate.opened.set()
    task.wait()
    assert pool.retire(PATIENCE) == 0


def test_a_system_without_threads(
    pools: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = pools(size=1, queue_size=0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not pool.submit(Task(lambda: None))
    assert "cannot start thread" in caplog.text
    task = Task(lambda: None)
    assert pool.submit(task)
    task.wait()


def test_a_thread_that_begins_slowly_delays_nobody(pools: Any) -> None:
    """While one is being made, an idle one takes what comes."""
    begun: list[str] = []
    slow, busy = Gate(), Gate()

    def init() -> None:
        begun.append(context.thread_name)
        if len(begun) == 2:
            slow.wait()

    pool = pools(size=2, thread_init=init)
    first, second, third = Task(busy.wait), Task(lambda: None), Task(lambda: None)
    assert pool.submit(first)
    busy.until()
    assert pool.submit(second)  # a second thread is made for it
    slow.until()
    busy.opened.set()
    second.wait()  # by the first thread, which was there before
    assert pool.submit(third)
    third.wait()
    assert pool.stats().threads == 2
    slow.opened.set()
