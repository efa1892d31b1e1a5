"""Threads for work that blocks: how many there are, how many may run, and who comes next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from evmulti._context import context
from evmulti._log import Log

__all__ = ["Pool", "PoolStats", "Task", "Worker"]

# A thread that waits for a handler to end says so once.
_JOIN_SECONDS = 5.0


class Task(Protocol):
    """What a pool runs. It raises nothing: whatever its own work raises, it deals with."""

    @property
    def connection(self) -> Any:
        """The `Connection` that it came on."""

    def run(self) -> None:
        """Do it, on a thread of the pool."""

    def refuse(self, error: Exception) -> None:
        """It cannot be done: the thread that was to do it could not begin. On that thread."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool does at the moment, and has done.

    Attributes:
        threads: There are.
        running: Of them, run a task and do not lend their place.
        suspended: Run a task that lends its place (`evmulti.suspend`).
        idle: Wait for a task.
        queued: Tasks that wait for a thread.
        most_queued: The largest number of them so far.
        done: Tasks that have ended.
        refused: Tasks that were not taken, because the queue was full.
    """

    threads: int
    running: int
    suspended: int
    idle: int
    queued: int
    most_queued: int
    done: int
    refused: int


class Worker:
    """A thread of a pool."""

    __slots__ = ("epoch", "lock", "name", "suspended", "task", "thread")

    def __init__(self, name: str, epoch: int) -> None:
        self.name: str = name
        self.epoch: int = epoch
        self.task: Task | None = None  # the one that it does
        self.suspended: bool = False
        # Held by the thread; released by who wakes it, or gives back its place.
        self.lock: threading.Lock = threading.Lock()
        self.lock.acquire()
        self.thread: threading.Thread | None = None


class Pool:
    """At most ``size`` threads, of which at most ``max_active`` run at the same time.

    A *place* is the right to run. Invariant, outside the lock: while a place is free, nobody waits to have his back, and either
    nothing is queued, or a thread is on its way to the queue, or every thread that there may be is taken (because some of them are
    suspended).

    Tasks are not given to threads: threads take them, and they are woken one at a time, each by the one before it. So handlers that
    take no time are called by one thread, task after task, while the others sleep; to wake one for each task would cost two
    switches of threads for something that, with the GIL, cannot run yet. Handlers that wait cost one wake-up each, as they must.

    Threads are made when there is work for them and no other one is idle, so a pool that was made before a fork works after it.
    They are daemons: a handler that hangs keeps no process from ending.

    Args:
        size: Threads at most.
        max_active: Tasks that run at the same time, at most ``size``; ``None``: ``size``. Suspended ones do not count.
        queue_size: Tasks that may wait for a thread.
        name: Of the threads, which get a number too.
        thread_init: Called by each thread before its first task. If it raises, its task is refused and the thread ends; the next
            task tries again with a new one.
        thread_exit: Called by each thread whose ``thread_init`` was called without an error, when it ends.
        log: Where what these two raise is logged.

    Thread safety: any thread.
    """

    def __init__(
        self,
        *,
        size: int,
        max_active: int | None = None,
        queue_size: int = 1000,
        name: str = "pool",
        thread_init: Callable[[], object] | None = None,
        thread_exit: Callable[[], object] | None = None,
        log: Log | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"a pool needs at least 1 thread, not {size!r}")
        if max_active is not None and not 1 <= max_active <= size:
            raise ValueError(f"max_active must be from 1 to the number of threads, {size}, not {max_active!r}")
        if queue_size < 0:
            raise ValueError(f"queue_size must be at least 0, not {queue_size!r}")
        self.size = size
        self.max_active: int = size if max_active is None else max_active
        self.queue_size = queue_size
        self.name = name
        self._init = thread_init
        self._exit = thread_exit
        self._log = log or Log()
        self._lock = threading.Lock()
        self._queue: deque[Task] = deque()
        self._resuming: deque[Worker] = deque()  # whose suspension is over, and who wait for a place
        self._idle: list[Worker] = []  # the last one to become idle is the first to work: its caches are warm
        self._workers: set[Worker] = set()
        self._woken = 0  # threads that were idle and are on their way to the queue
        self._beginning = (
            0  # threads that were made and are on their way to it, by way of `thread_init`, which may take long
        )
        self._waking = False  # one of them has not run yet
        self._barren = False  # the system had no thread for us when we last asked
        self._active = 0
        self._suspended = 0
        self._made = 0
        self._done = 0
        self._refused = 0
        self._most_queued = 0
        self._epoch = 0  # threads of an earlier one end after their task

    def submit(self, task: Task) -> bool:
        """Have a thread run a task; false when all are taken and the queue is full."""
        with self._lock:
            self._queue.append(task)
            self._wake()
            if len(self._queue) > self._most_queued and (waiting := self._waiting()) > self._most_queued:
                if waiting > self.queue_size:
                    self._queue.pop()
                    self._refused += 1
                    return False
                self._most_queued = waiting
            return True

    def withdraw(self, task: Task) -> bool:
        """Take a task out of the queue; whether it was there."""
        with self._lock:
            try:
                self._queue.remove(task)
            except ValueError:
                return False
            return True

    def lend(self, worker: Worker) -> None:
        """Give a thread's place to somebody else. Called by that thread, in its task."""
        with self._lock:
            worker.suspended = True
            self._suspended += 1
            self._free_place()

    def take_back(self, worker: Worker) -> None:
        """Wait for a place; those whose task is under way come before those whose has not begun."""
        with self._lock:
            if waits := self._active >= self.max_active:
                self._resuming.append(worker)
            else:
                self._active += 1
        if waits:
            worker.lock.acquire()
        with self._lock:
            worker.suspended = False
            self._suspended -= 1

    def stats(self) -> PoolStats:
        """What it does."""
        with self._lock:
            return PoolStats(
                threads=len(self._workers),
                running=self._active,
                suspended=self._suspended,
                idle=len(self._idle),
                queued=self._waiting(),
                most_queued=self._most_queued,
                done=self._done,
                refused=self._refused,
            )

    def waiting(self, whose: object) -> int:
        """How many tasks wait for a thread that came on connections of this relay."""
        with self._lock:
            return sum(task.connection.is_of(whose) for task in self._queue)

    def busy(self) -> list[Worker]:
        """The threads that run a task."""
        with self._lock:
            return [worker for worker in self._workers if worker.task is not None]

    def retire(self, timeout: float = _JOIN_SECONDS) -> int:
        """End all threads, those that work after their task, and forget what is queued.

        Args:
            timeout: Seconds to wait for them.

        Returns:
            How many have not ended by then. A task that is submitted afterwards is run by a new thread.
        """
        with self._lock:
            self._epoch += 1
            while len(self._queue) > self._woken + self._beginning:
                self._queue.pop()
            left = list(self._workers)
            self._woken += len(self._idle)
            for worker in self._idle:
                worker.lock.release()
            self._idle.clear()
        deadline = monotonic() + timeout
        for worker in left:
            if worker.thread is not None and worker.thread is not threading.current_thread():
                worker.thread.join(max(0.0, deadline - monotonic()))
        return sum(worker.thread is not None and worker.thread.is_alive() for worker in left)

    # -- with the lock held ----------------------------------------------------------------------------------------------------

    def _waiting(self) -> int:
        """How many tasks wait for a thread: more than those that threads which are free will take at once."""
        queued = len(self._queue)
        if not queued:
            return 0
        unmade = 0 if self._barren else max(0, self.size - len(self._workers))
        return max(
            0, queued - min(self.max_active - self._active, self._woken + self._beginning + len(self._idle) + unmade)
        )

    def _wake(self) -> None:
        """Have one more thread come, if there is a task for it and a place, and the last one that was woken has run since."""
        if self._waking:
            return
        most = min(len(self._queue), self.max_active - self._active)  # that may be on their way
        if self._idle:
            if self._woken < most:
                self._idle.pop().lock.release()
                self._woken += 1
                self._waking = True
        elif self._woken + self._beginning < most and len(self._workers) < self.size and self._make():
            self._beginning += 1
            self._waking = True

    def _make(self) -> bool:
        self._made += 1
        worker = Worker(f"{self.name}-{self._made}", self._epoch)
        worker.thread = threading.Thread(target=self._work, args=(worker,), name=worker.name, daemon=True)
        self._workers.add(worker)
        try:
            worker.thread.start()
        except RuntimeError as error:  # the system has no more threads for us: those there are must do
            self._workers.discard(worker)
            self._barren = True
            self._log.error("cannot start thread %s of %d: %s", worker.name, self.size, error)
            return False
        self._barren = False
        return True

    def _free_place(self) -> None:
        """Give a place to who waits to have his back, or have somebody come for it."""
        if self._resuming:
            self._resuming.popleft().lock.release()
        else:
            self._active -= 1
            self._wake()

    def _take(self, worker: Worker) -> bool:
        """Take a task, if there is one and a place for it."""
        if not self._queue or self._active >= self.max_active:
            return False
        worker.task = self._queue.popleft()
        self._active += 1
        self._wake()
        return True

    # -- on the pool's threads -------------------------------------------------------------------------------------------------

    def _work(self, worker: Worker) -> None:
        context._begin(self, worker)
        with self._lock:
            self._waking = False
            self._wake()  # others need not wait for `thread_init`
        if self._init is not None:
            try:
                self._init()
            except Exception as error:
                self._log.exception("thread_init failed in %s", worker.name)
                self._fail(worker, error)
                return
        with self._lock:
            self._beginning -= 1
        while self._next(worker):
            task = worker.task
            assert task is not None
            task.run()
            del task  # while the thread waits, what it did last is not kept
        if self._exit is not None:
            try:
                self._exit()
            except Exception:
                self._log.exception("thread_exit failed in %s", worker.name)
        self._leave(worker)

    def _next(self, worker: Worker) -> bool:
        """Find a task after the last one, or after the thread was woken; false: it is to end."""
        with self._lock:
            if worker.task is not None:
                self._done += 1
                worker.task = None
                if self._resuming:  # our place goes to him
                    self._resuming.popleft().lock.release()
                else:
                    self._active -= 1
                if worker.epoch != self._epoch:
                    self._wake()
                    return False
            while not self._take(worker):
                if worker.epoch != self._epoch:
                    self._wake()
                    return False
                self._idle.append(worker)
                self._lock.release()
                try:
                    worker.lock.acquire()
                finally:
                    self._lock.acquire()
                self._waking = False
                self._woken -= 1
            return True

    def _fail(self, worker: Worker, error: Exception) -> None:
        """A thread cannot begin: a task is refused, since nobody knows whether another thread could."""
        with self._lock:
            self._beginning -= 1
            task = self._queue.popleft() if self._queue else None
        if task is not None:
            task.refuse(error)
        self._leave(worker)

    def _leave(self, worker: Worker) -> None:
        with self._lock:
            self._workers.discard(worker)
            self._wake()
