"""A worker in a thread of this process."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from evloop import Loop, LoopClosedError
from evmulti._errors import StartError
from evmulti._listeners import Listeners
from evmulti._plan import Plan
from evmulti._table import Row, Table
from evmulti._worker import Runner

__all__ = ["ThreadWorker"]


class ThreadWorker:
    """The supervisor's side. Arguments: as `ProcessWorker`."""

    mode = "thread"
    pid = 0

    def __init__(self, plan: Plan, number: int, listeners: Listeners, listens: bool, row: Row, table: Table) -> None:
        self.plan = plan
        self.number = number
        self.row = row
        self._link = ThreadLink()
        sockets = [sock.dup() for sock in listeners.of(number)] if listens else []
        ours = [dup for dup, sock in zip(sockets, listeners.of(number), strict=False) if listeners.is_ours(sock)]
        metrics = [sock.dup() for sock in listeners.metrics]
        self._runner = Runner(plan, number, sockets, ours, metrics, self._link, row, table)
        self._over = False
        self._reason = ""

    def start(
        self,
        loop: Loop,
        others: Sequence[object],
        life: tuple[int, int],
        on_message: Callable[[list[Any]], object],
        on_end: Callable[[], object],
    ) -> None:
        """Start the thread. A daemon: one that hangs does not keep the interpreter from ending."""
        self._link.listen(loop, on_message)
        self._on_end = on_end
        threading.Thread(target=self._serve, name=f"worker-{self.number}", daemon=True).start()

    def command(self, what: str) -> None:
        """Have a command executed on the worker's loop."""
        self._link.command(what)

    def deal(self, connection: socket.socket) -> bool:
        """Hand a connection over; whether it was taken."""
        return self._link.deal(connection)

    def ended(self) -> str | None:
        """How it ended; ``None`` while it runs. Empty: as it should."""
        return self._reason if self._over else None

    def kill(self) -> bool:
        """Ask it to end now. A thread cannot be made to."""
        self.command("abort")
        return False

    def close(self) -> None:
        """Nothing is to be closed: the thread closes what it has."""

    def describe(self) -> str:
        """For log lines."""
        return f"worker {self.number} (thread)"

    def _serve(self) -> None:
        try:
            aborted = self._runner.run()
        except StartError as error:
            self._reason = str(error)
        except BaseException as error:
            self.plan.log.exception("worker %d fails", self.number)
            self._reason = f"ended with {type(error).__name__}: {error}"
        else:
            self._link.tell("ended", aborted)
        self._over = True
        self._link.post(self._on_end)


class ThreadLink:
    """The worker's side, and what both sides hold."""

    mode = "thread"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: Loop | None = None  # while it takes commands
        self._early: list[str] = []
        self._closed = False
        self._dealt: deque[socket.socket] = deque()

    # -- the supervisor's thread

    def listen(self, loop: Loop, on_message: Callable[[list[Any]], object]) -> None:
        """Where messages go."""
        self._home = loop
        self._on_message = on_message

    def command(self, what: str) -> None:
        """Have a command executed, now or when the worker is there."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._runner.command, what)
            elif not self._closed:
                self._early.append(what)

    def deal(self, connection: socket.socket) -> bool:
        """Hand a connection over."""
        with self._lock:
            if self._loop is None:
                return False
            self._dealt.append(connection)
            self._loop.call_soon_threadsafe(self._adopt)
        return True

    # -- the worker's

    def open(self, runner: Runner, loop: Loop) -> None:
        """Take commands from now on."""
        with self._lock:
            self._loop, self._runner = loop, runner
            for what in self._early:
                loop.call_soon(runner.command, what)

    def tell(self, *message: Any) -> None:
        """Post a message to the supervisor's loop."""
        self.post(self._on_message, list(message))

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Have something called on the supervisor's loop, if it is still there."""
        try:
            self._home.call_soon_threadsafe(callback, *args)
        except LoopClosedError:
            pass  # the supervisor has not waited for us

    def take_dealt(self) -> list[socket.socket]:
        """Connections that wait to be adopted."""
        found = []
        while self._dealt:
            found.append(self._dealt.popleft())
        return found

    def close(self) -> None:
        """Take no more commands."""
        with self._lock:
            self._loop, self._closed = None, True
        for connection in self.take_dealt():
            connection.close()

    def _adopt(self) -> None:
        for connection in self.take_dealt():
            self._runner.adopt(connection)
