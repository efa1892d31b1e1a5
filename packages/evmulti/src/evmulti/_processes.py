"""A worker in a process of its own."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from evloop import Loop
from evmulti._channel import Channel, receive_connections, send_connection
from evmulti._errors import StartError
from evmulti._listeners import Listeners
from evmulti._plan import Plan
from evmulti._table import Row, Table
from evmulti._worker import Runner

__all__ = ["ProcessWorker"]

_FORGOTTEN = 1.0


class ProcessWorker:
    """The supervisor's side: the process, and the sockets to it.

    Args:
        plan: What it serves.
        number: Which worker it is.
        listeners: The server's sockets.
        listens: It accepts from its sockets; else connections are dealt to it.
        row, table: Where it counts.
    """

    mode = "process"

    def __init__(self, plan: Plan, number: int, listeners: Listeners, listens: bool, row: Row, table: Table) -> None:
        self.plan = plan
        self.number = number
        self.row = row
        self._listeners = listeners
        self._listens = listens
        self._table = table
        self.pid = 0
        self._how: str | None = None

    def start(
        self,
        loop: Loop,
        others: Sequence[ProcessWorker],
        life: tuple[int, int],
        on_message: Callable[[list[Any]], object],
        on_end: Callable[[], object],
    ) -> None:
        """Fork. ``on_end`` is called when the process has closed its sockets, or may be about to: ask `ended`.

        Args:
            loop: The supervisor's.
            others: The other workers' sides, which the new process has no use for.
            life: A pipe of which only the supervisor has the writing end.
            on_message: Called with what it tells.
            on_end: Called without arguments.
        """
        ours, theirs = socket.socketpair()
        self._deals, deals = socket.socketpair()
        self._deals.setblocking(False)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # else both processes would write what is in the buffer
        try:
            self.pid = os.fork()
        except BaseException:
            for sock in (ours, theirs, self._deals, deals):
                sock.close()
            raise
        if self.pid == 0:
            ours.close()
            self._deals.close()
            self._become(theirs, deals, others, life)
        theirs.close()
        deals.close()
        self._channel = Channel(ours)
        self._channel.open(loop, on_message, on_end)

    def command(self, what: str) -> None:
        """Send a command."""
        self._channel.send(what)

    def deal(self, connection: socket.socket) -> bool:
        """Hand a connection over; whether it was taken, and is not ours any more."""
        if not send_connection(self._deals, connection):
            return False
        connection.close()
        return True

    def ended(self) -> str | None:
        """How the process ended; ``None`` while it lives. Empty: as it should."""
        if self._how is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if not pid:
                return None
            self._how = _description(os.waitstatus_to_exitcode(status))
            self._channel.drain()  # its last words
        return self._how

    def kill(self) -> bool:
        """End it now, whatever it does; whether that was possible."""
        if self.ended() is None:  # until it has been waited for, the number is its own
            os.kill(self.pid, signal.SIGKILL)
        return True

    def close(self) -> None:
        """Close our ends."""
        self._channel.close()
        self._deals.close()

    def describe(self) -> str:
        """For log lines."""
        return f"worker {self.number} (process {self.pid})"

    # -- in the new process ----------------------------------------------------------------------------------------------------

    def _become(
        self, control: socket.socket, deals: socket.socket, others: Sequence[ProcessWorker], life: tuple[int, int]
    ) -> NoReturn:
        """Be the worker. Nothing of the supervisor's stack is ever returned to."""
        code = 1
        try:
            threading.current_thread().name = f"worker-{self.number}"
            # Ctrl-C goes to every process of the terminal; the supervisor decides what comes of it.
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for other in others:
                other.close_in_child()
            os.close(life[1])
            self._listeners.close_all_but(self.number)
            threading.Thread(target=_end_with_the_supervisor, args=(life[0], self.plan.grace), daemon=True).start()
            code = self._serve(ProcessLink(Channel(control), deals))
        except BaseException:
            self.plan.log.exception("worker %d fails", self.number)
        finally:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError, AttributeError):
                    pass  # it is closed, or nobody reads it, or there is none
            logging.shutdown()
            os._exit(code)

    def _serve(self, link: ProcessLink) -> int:
        sockets = self._listeners.of(self.number) if self._listens else []
        ours = [sock for sock in sockets if self._listeners.is_ours(sock)]
        if not self._listens:
            for sock in self._listeners.all():
                sock.close()
        metrics = self._listeners.metrics
        try:
            aborted = Runner(self.plan, self.number, sockets, ours, metrics, link, self.row, self._table).run()
        except StartError as error:
            link.tell("failed", str(error))
            return 1
        except BaseException as error:
            self.plan.log.exception("worker %d fails", self.number)
            link.tell("failed", f"{type(error).__name__}: {error}")
            return 1
        link.tell("ended", aborted)
        return 0

    def close_in_child(self) -> None:
        """Close what a fork has left us of another worker's sockets; the loop to which they belonged is the parent's."""
        self._channel._sock.close()
        self._deals.close()


class ProcessLink:
    """The worker's side."""

    mode = "process"

    def __init__(self, channel: Channel, deals: socket.socket) -> None:
        self._channel = channel
        self._deals = deals
        deals.setblocking(False)

    def open(self, runner: Runner, loop: Loop) -> None:
        """Take commands, and connections; SIGTERM to this process alone has it end by itself."""
        self._loop = loop
        self._runner = runner
        self._channel.open(loop, lambda message: runner.command(message[0]), lambda: runner.command("lost"))
        loop.add_reader(self._deals.fileno(), self._take)
        loop.add_signal_handler(signal.SIGTERM, runner.command, "retire")

    def tell(self, *message: Any) -> None:
        """Send a message."""
        self._channel.send(*message)

    def take_dealt(self) -> list[socket.socket]:
        """Connections that are in the socket."""
        return receive_connections(self._deals)

    def close(self) -> None:
        """Read no more; what is said to the end is still sent."""
        self._loop.remove_reader(self._deals.fileno())
        self._loop.remove_reader(self._channel._sock.fileno())

    def _take(self) -> None:
        for connection in self.take_dealt():
            self._runner.adopt(connection)


def _description(code: int) -> str:
    if code >= 0:
        return f"exited with status {code}" if code else ""
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    return f"was killed by {name}" + (", perhaps because memory ran out" if -code == signal.SIGKILL else "")


def _end_with_the_supervisor(pipe: int, grace: float) -> None:
    """End this process when the supervisor is gone, and the worker's loop, which has noticed it too, does not end by itself."""
    os.read(pipe, 1)
    time.sleep(grace + _FORGOTTEN)
    os._exit(1)
