"""One worker, from its loop to its drained end; whether it has a thread or a process is for others to know."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import evhttp
import evnet
from evloop import Loop, TimerHandle
from evmulti._dispatcher import Dispatcher
from evmulti._errors import StartError
from evmulti._listeners import drain_queue
from evmulti._plan import Plan
from evmulti._prometheus import CONTENT_TYPE, render
from evmulti._serving import HttpServing, ProtocolServing, Serving
from evmulti._table import Row, Table

__all__ = ["LAST_CALL", "Link", "Runner", "Worker"]

# Seconds in which a connection that is idle at the end may ask once more, so that no request crosses with the close. Whoever has
# been silent for so long will notice the close before his next request.
LAST_CALL = 1.0
_LOOK = 0.05
_BEAT = 0.5


class Worker:
    """What `setup`, `teardown` and handlers know of their worker.

    Attributes:
        number: From 0; a worker that takes another's place has its number.
        mode: ``"thread"`` or ``"process"``.
        loop: Its loop.
        server: Its `evhttp.Server`; ``None`` for plain protocols.
        context: Yours.

    Thread safety: for the worker's own thread.
    """

    __slots__ = ("context", "loop", "mode", "number", "server")

    def __init__(self, number: int, mode: str, loop: Loop, server: Any) -> None:
        self.number: int = number
        self.mode: str = mode
        self.loop: Loop = loop
        self.server: Any = server
        self.context: Any = None

    def __repr__(self) -> str:
        return f"<Worker {self.number} ({self.mode})>"


class Link(Protocol):
    """A worker's way to the one who has started it."""

    mode: str

    def open(self, runner: Runner, loop: Loop) -> None:
        """Take commands from now on, and give them to ``runner.command`` and ``runner.adopt`` on the loop's thread."""

    def tell(self, *message: Any) -> None:
        """Send a message."""

    def take_dealt(self) -> list[socket.socket]:
        """Connections that were dealt to this worker and not adopted yet."""

    def close(self) -> None:
        """Take no more commands."""


class Runner:
    """Runs a worker.

    Args:
        plan: What to serve.
        number: Which worker this is.
        sockets: What to accept from; they belong to the worker.
        ours: Those of them that nobody else listens on at the end.
        metrics: What to answer with statistics on; they belong to the worker too.
        link: To the supervisor.
        row: Where it counts, in ``table``.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        sockets: Sequence[socket.socket],
        ours: Sequence[socket.socket],
        metrics: Sequence[socket.socket],
        link: Link,
        row: Row,
        table: Table,
    ) -> None:
        self._plan = plan
        self._number = number
        self._sockets = list(sockets)
        self._ours = list(ours)
        self._metrics = list(metrics)
        self._link = link
        self._row = row
        self._table = table
        self._queues: list[socket.socket] = []
        self._leaving: TimerHandle | None = None
        self._looked = 0
        self._aborted = 0

    def run(self) -> int:
        """Serve until the end. Returns how many connections had to be aborted.

        Raises:
            StartError: The handler cannot be loaded, or the certificates.
            BaseException: Whatever `setup` raises, or a handler that raises something that is no Exception.
        """
        plan = self._plan
        with Loop() as loop:
            self._loop = loop
            self._link.open(self, loop)
            try:
                target = plan.target.load()
                self._serving = self._made(target)
                worker = Worker(self._number, self._link.mode, loop, self._serving.server)
                if plan.setup is not None:
                    plan.setup(worker)
                self._queues = [sock.dup() for sock in self._ours]
                if self._metrics:
                    self._serve_metrics()
                while self._sockets:
                    self._serving.listen_socket(self._sockets.pop())
                self._beat()
                loop.call_every(_BEAT, self._beat)
                self._link.tell("ready")
                loop.run()
                if plan.teardown is not None:
                    plan.teardown(worker)
                self._beat()
            finally:
                self._link.close()
                for sock in (*self._sockets, *self._metrics, *self._queues):
                    sock.close()
        return self._aborted

    def _made(self, target: Callable[..., Any]) -> Serving:
        plan = self._plan
        tls = None
        if plan.ssl is not None:
            try:
                context = plan.ssl() if callable(plan.ssl) else plan.ssl
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                raise StartError(f"there is no TLS: {error}") from error
            tls = evnet.TlsAcceptor(self._loop, context)
        if plan.target.is_protocol(target):
            if plan.proxied:
                raise StartError("a plain protocol does not read headers of the PROXY protocol: it gets them itself")
            return ProtocolServing(self._loop, target, tls)
        if isinstance(target, Dispatcher) and target.strategy == "socket":
            raise StartError("a dispatcher with the strategy 'socket' serves a SocketServer, and no worker")
        return HttpServing(self._wrapped(target), self._loop, plan, tls)

    def _wrapped(self, handler: evhttp.Handler) -> evhttp.Handler:
        """Put before the handler what was asked for, and nothing else."""
        if self._plan.metrics_path:
            handler = _with_metrics(handler, self._plan.metrics_path, self._table)
        if self._plan.max_requests:
            most = self._plan.max_requests + random.randint(0, self._plan.max_requests_jitter)
            handler = _counted(handler, most, lambda: self._link.tell("tired", most))
        return handler

    def _serve_metrics(self) -> None:
        server = evhttp.Server(_with_metrics(_nothing, "/metrics", self._table), loop=self._loop, log=self._plan.log)
        while self._metrics:
            server.listen_socket(self._metrics.pop())

    # -- what the supervisor says ----------------------------------------------------------------------------------------------

    def command(self, what: str) -> None:
        """``retire``: another has this worker's sockets now. ``stop``: nobody will. ``abort``: at once. ``lost``: as ``stop``, for
        the supervisor is gone.
        """
        if what == "abort":
            self._give_up()
            return
        if what == "lost" and self._leaving is None:
            self._plan.log.warning("worker %d has lost its supervisor and ends", self._number)
        if self._leaving is not None:
            return
        if what == "retire":
            self._close_queues()
        now = self._seen = self._loop.time()
        self._idle_until, self._until = now + min(LAST_CALL, self._plan.grace), now + self._plan.grace
        self._take_waiting()
        self._serving.retire()
        self._leaving = self._loop.call_every(_LOOK, self._look)

    def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere."""
        try:
            self._serving.adopt(sock)
        except OSError as error:
            self._plan.log.warning("worker %d cannot take a connection: %s", self._number, error)
            sock.close()

    def _take_waiting(self) -> None:
        for sock in self._link.take_dealt():
            self.adopt(sock)
        for queue in self._queues:
            for sock in drain_queue(queue):
                self.adopt(sock)

    def _look(self) -> None:
        """Look whether the end has come."""
        now = self._loop.time()
        if now - self._seen > 4 * _LOOK:
            # We have stood still: of the last call nobody has heard, and handshakes and requests may have come meanwhile.
            self._idle_until = max(self._idle_until, min(now + LAST_CALL, self._until - 2 * _LOOK))
        self._seen = now
        self._take_waiting()
        self._looked += 1
        if now >= self._idle_until:
            self._close_queues()
            self._serving.close_idle()
        if now >= self._until:
            self._give_up()
        # Twice: whoever was in the middle of the handshake at the first look is there at the second.
        elif self._looked > 1 and not self._serving.connections:
            self._loop.stop()

    def _close_queues(self) -> None:
        for queue in self._queues:
            queue.close()
        self._queues.clear()

    def _give_up(self) -> None:
        self._aborted += self._serving.abort()
        self._loop.call_soon(self._loop.stop)  # a turn later, so that the resets have left, and their ends were told

    def _beat(self) -> None:
        self._row.beat(self._serving.counts())


def _counted(handler: evhttp.Handler, most: int, tired: Callable[[], object]) -> evhttp.Handler:
    left = most

    def call(req: evhttp.Request, res: evhttp.Response) -> object:
        nonlocal left
        left -= 1
        if not left:
            left = most  # asked again after as many: the successor may have failed
            tired()
        return handler(req, res)

    return call


def _nothing(req: evhttp.Request, res: evhttp.Response) -> None:
    res.status(404).send("statistics are at /metrics\n")


def _with_metrics(handler: evhttp.Handler, path: str, table: Table) -> evhttp.Handler:
    def call(req: evhttp.Request, res: evhttp.Response) -> object:
        if req.path != path:
            return handler(req, res)
        res.header("Content-Type", CONTENT_TYPE).send(render(table))
        return None

    return call
