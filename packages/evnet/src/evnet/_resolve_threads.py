"""The system's resolver, in threads: `socket.getaddrinfo` blocks, and nothing can be done about that."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from evloop import LoopClosedError
from evnet._literal import Infos, Question, failure

if TYPE_CHECKING:
    from evloop import Loop

__all__ = ["MAX_THREADS", "SystemBackend"]

# All threads may come to wait for name servers that do not answer, and then everybody waits. More than a few cost nothing while
# they wait, and each ends when it has had nothing to do for a while.
MAX_THREADS = 16
_IDLE_SECONDS = 10.0

Answer = Callable[[Infos | None, float | None, socket.gaierror | None], object]


class SystemBackend:
    """Asks `socket.getaddrinfo` in daemon threads, at most `MAX_THREADS` in a process, which all loops share.

    It follows the system's configuration: ``/etc/hosts``, ``nsswitch.conf`` and what that leads to.

    A question that a thread is busy with cannot be withdrawn. Such a thread keeps neither the loop nor the process from ending.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def ask(self, question: Question, answer: Answer) -> Callable[[], bool]:
        """Answer a question through the loop; see `evnet.ResolverBackend`."""
        job = _Job(self._loop, question, answer)
        _pool.submit(job)
        return job.withdraw

    def close(self) -> None:
        """Nothing is held."""


class _Job:
    """A question on its way through a thread."""

    __slots__ = ("_answer", "_loop", "_question", "_state")

    def __init__(self, loop: Loop, question: Question, answer: Answer) -> None:
        self._loop = loop
        self._question = question
        self._answer = answer
        # Who takes the token first, the thread that begins or the one that withdraws, has it; pop is atomic.
        self._state = [None]

    def withdraw(self) -> bool:
        return self._take()

    def run(self) -> None:
        if not self._take():
            return
        infos: Infos | None = None
        error: socket.gaierror | None = None
        try:
            infos = tuple(socket.getaddrinfo(*self._question))
        except Exception as caught:  # whatever it is, somebody waits for an answer
            error = failure(self._question, caught)
        self.answer(infos, error)

    def answer(self, infos: Infos | None, error: socket.gaierror | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._answer, infos, None, error)
        except LoopClosedError:
            return  # nobody waits any more

    def _take(self) -> bool:
        try:
            self._state.pop()
        except IndexError:
            return False
        return True


class _Pool:
    """Threads that are started when there is more to do than idle ones, and end when there is nothing for a while."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a child process: the threads have stayed with the parent, and one of them may have held the lock."""
        self._changed = threading.Condition(threading.Lock())
        self._jobs: deque[_Job] = deque()
        self._threads = 0
        self._idle = 0

    def submit(self, job: _Job) -> None:
        with self._changed:
            self._jobs.append(job)
            if len(self._jobs) <= self._idle:
                self._changed.notify()
                return
            if self._threads == MAX_THREADS:
                return  # the next one to be free takes it
            self._threads += 1
        try:
            threading.Thread(target=self._work, name="evnet-resolver", daemon=True).start()
        except RuntimeError as error:
            with self._changed:
                self._threads -= 1
                if self._threads or job not in self._jobs:
                    return  # another one does it
                self._jobs.remove(job)
            reason = socket.gaierror(socket.EAI_AGAIN, str(error))
            job.answer(None, failure(job._question, reason))

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job.run()
            del job  # while it waits for the next one, it keeps no loop

    def _next(self) -> _Job | None:
        with self._changed:
            while not self._jobs:
                self._idle += 1
                woken = self._changed.wait(_IDLE_SECONDS)
                self._idle -= 1
                if not woken and not self._jobs:
                    self._threads -= 1
                    return None
            return self._jobs.popleft()


_pool = _Pool()
os.register_at_fork(after_in_child=_pool.forget)
