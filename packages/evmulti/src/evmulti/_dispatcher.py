"""Requests for handlers that block: from the loop to a pool of threads, and back."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evhttp import BodyError, Relay, Relayed, Request, Response
from evmulti._connections import Cause, Connection, Connections
from evmulti._errors import EvMultiError
from evmulti._log import Log
from evmulti._pool import Pool, PoolStats
from evmulti._sockets import Callbacks, PooledSocket, Strands

if TYPE_CHECKING:
    from evloop import TimerHandle
    from evmulti._socketserver import SocketJob, SocketServer

__all__ = ["Dispatcher", "DispatcherStats", "Strategy"]

Strategy = Literal["request", "stream", "socket"]
BlockingHandler = Callable[[Relayed, Relayed], object]

Answering: TypeAlias = "Job | SocketJob"  # a request in the hands of a thread

_names = count(1)


@dataclass(frozen=True, slots=True)
class DispatcherStats:
    """What a dispatcher does at the moment, and has done.

    Attributes:
        pool: Its threads and the queue.
        waiting: Requests that wait for the one before them on their connection.
        stuck: Threads whose handler runs although its time is over.
        failed: Handlers that raised, or did not answer.
        timed_out: Requests that were answered with 504, or with 503 because their handler had not begun.
        lost: Requests whose client did not wait for the answer.
    """

    pool: PoolStats
    waiting: int
    stuck: int
    failed: int
    timed_out: int
    lost: int


class Job(Relayed):
    """A request on its way through the pool."""

    __slots__ = (
        "_answered",
        "_dispatcher",
        "_gone",
        "_next",
        "_port",
        "_submitted",
        "_whole",
        "connection",
        "deadline",
        "expired",
    )

    connection: Connection
    deadline: float
    expired: bool  # its time was over while it was with the pool
    _dispatcher: Dispatcher
    _port: _Port
    _next: Job | None  # the next request of its connection, which waits for this one
    _gone: threading.Event | None
    _whole: bytes | None  # a body that the server streamed, and that was gathered
    _submitted: bool  # its turn on its connection has come
    _answered: bool  # out of our hands: complete, or its client is lost

    @property
    def request(self) -> Request:
        """Itself: for `evmulti.context`."""
        return self

    @property
    def body(self) -> bytes:
        """See `evhttp.Request.body`."""
        return super().body if self._whole is None else self._whole

    @property
    def is_streamed(self) -> bool:
        """See `evhttp.Request.is_streamed`."""
        return self._whole is None and super().is_streamed

    def run(self) -> None:
        """Call the handler, on a thread of the pool."""
        self._dispatcher._call(self)
        self.post()

    def refuse(self, error: Exception) -> None:
        """Answer for a thread that could not begin."""
        self._dispatcher._count_failure()
        self.replace(500)
        self.post()

    def wait_gone(self, seconds: float) -> bool:
        """Wait for the client to go away; whether it has."""
        gone = self._gone
        if gone is None:
            gone = self._gone = threading.Event()
        return self.client_gone or gone.wait(seconds)

    # On the loop's thread.

    def _left(self) -> None:
        super()._left()
        if self._gone is not None:
            self._gone.set()

    def _ended(self, complete: bool) -> None:
        super()._ended(complete)
        self._answered = True
        self._port.pending.pop(self, None)
        if not complete:
            self._port.lost += 1
            if self._gone is not None:
                self._gone.set()
        if self._submitted:
            self._advance()

    def _advance(self) -> None:
        """It is the next one's turn."""
        following, self._next = self._next, None
        if following is not None:
            self._port.waiting -= 1
            self._dispatcher._submit(following)
        elif self.connection.tail is self:
            self.connection.tail = None


class Dispatcher:
    r"""A handler for `evhttp.Server` that has another one, which may block, run by a pool of threads.

    ::

        def slow(req, res):
            res.json(database.execute(QUERY, [req.query["id"]]).fetchall())

        with evmulti.Dispatcher(slow, pool_size=20) as dispatcher:
            evhttp.Server(dispatcher).listen("127.0.0.1", 8080).run()

    The loop's thread accepts, reads and parses, and sends what the threads have answered: all that is ready at once, and it is
    woken once for that, if it sleeps. The handler gets an `evhttp.Relayed` as its request and as its response: what it reads and
    sends is what it would be on the loop's thread, `Relayed.write` and `Relayed.body_file` wait for the client, and what
    `Relayed.client_gone` says may change while it runs. It answers before it returns. If it raises, the client gets a 500, or where
    the answer had begun the end of the connection, and the log says why.

    Args:
        handler: Called as ``handler(request, response)`` on a thread of the pool.
        pool_size: Threads at most; they are made when they are needed.
        max_active: Handlers that run at the same time, at most ``pool_size``, which is the default. One that lends its place by
            `evmulti.suspend` does not count.
        queue_size: Requests that may wait for a thread. Further ones are answered with 503 and Retry-After.
        timeout: Seconds from a request's arrival, after which it is answered with 504, or, if its handler has not begun, with 503
            and Retry-After; an answer that has begun ends with the connection. No thread can be stopped: what the handler still
            says is dropped, and until it returns it keeps its thread and its place, and is counted as stuck. ``math.inf``: none.
        strategy: ``"request"``: a thread gets a request that is whole; on a server that streams bodies, they are gathered first, up
            to ``Limits.max_body_size``, so that slow uploads hold no thread. ``"stream"``: a thread gets a request whose body is
            still coming, and reads it by `Relayed.body_file`; the server must have been made with ``stream_bodies``. ``"socket"``:
            threads have the connections' sockets, and read and write them themselves; see `SocketServer`, which takes the place of
            `evhttp.Server` then.
        retry_after: Seconds that a client should wait before it asks again, for Retry-After.
        name: For the log and the names of the threads.
        thread_init: Called by each thread of the pool before it works. If it raises, the request gets a 500.
        thread_exit: Called by each thread of the pool when it ends.
        log: Where it logs; by default to the logger "evmulti".

    Of the requests of one connection one is worked on at a time, in their order, also when the client does not wait for the answers
    (pipelining).

    One dispatcher can serve several servers, and a server can have several dispatchers behind a handler that chooses. Each is
    called on its loop's thread; `close` may be called by any.
    """

    def __init__(
        self,
        handler: BlockingHandler,
        *,
        pool_size: int = 32,
        max_active: int | None = None,
        queue_size: int = 1000,
        timeout: float = math.inf,
        strategy: Strategy = "request",
        retry_after: int = 1,
        name: str = "",
        thread_init: Callable[[], object] | None = None,
        thread_exit: Callable[[], object] | None = None,
        log: Log | None = None,
    ) -> None:
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {handler!r}")
        if not timeout > 0:
            raise ValueError(f"timeout must be a number of seconds > 0, not {timeout!r}")
        if strategy not in ("request", "stream", "socket"):
            raise ValueError(f"strategy must be 'request', 'stream' or 'socket', not {strategy!r}")
        if retry_after < 0:
            raise ValueError(f"retry_after must be at least 0, not {retry_after!r}")
        name = name or f"dispatcher-{next(_names)}"
        self.name = name
        self.timeout = timeout
        self.log: Log = log or Log(name)
        self.pool: Pool = Pool(
            size=pool_size,
            max_active=max_active,
            # A thread that is to wait for sockets is a task, too, and never one too many.
            queue_size=max(queue_size, pool_size) if strategy == "socket" and queue_size >= 0 else queue_size,
            name=name,
            thread_init=thread_init,
            thread_exit=thread_exit,
            log=self.log,
        )
        self._handler = handler
        self.strategy: Strategy = strategy
        self.queue_size: int = queue_size
        self.retry_after: int = int(retry_after)
        self._gathers = strategy == "request"
        self._socket_server: SocketServer | None = None
        self._ports: dict[Relay, _Port] = {}
        self._port: _Port | None = None  # the one that was used last, which is the only one in most processes
        self._closed = False
        self._count_lock = threading.Lock()
        self._failed = 0
        self._timed_out = 0  # at servers that are no more, as the next one
        self._lost = 0

    def __call__(self, request: Request, response: Response) -> None:
        """Take a request of a server. On its loop's thread."""
        if self.strategy == "socket":
            raise EvMultiError("a dispatcher with the strategy 'socket' serves a SocketServer, and no other one")
        relay = Relay.of(response)
        port = self._port
        if port is None or port.relay is not relay:
            port = self._port = self._open_port(relay)
        job = relay.take(request, response, Job)
        connection = port.connections.of(request)
        job.connection = connection
        job._dispatcher = self
        job._port = port
        job._gone = job._next = job._whole = None
        job._answered = job._submitted = job.expired = False
        if self.timeout != math.inf:
            port.expect(job, self.timeout)
        if request.is_streamed and self._gathers:
            self._gather(request, job)
        else:
            self._queue(job)

    def _gather(self, request: Request, job: Job) -> None:
        """Wait for the body of a request that is to be whole."""
        pieces: list[bytes] = []

        def complete(error: BodyError | None) -> None:
            job._whole = b"".join(pieces)
            if error is not None and not job._answered:
                self._fail(job, error)
                job.post()
            self._queue(job)

        request.read_body(pieces.append, complete)

    def _queue(self, job: Job) -> None:
        """Submit a job, or have it wait for the one before it on its connection."""
        before: Job | None = job.connection.tail
        job.connection.tail = job
        if before is None:
            self._submit(job)
        else:
            before._next = job
            job._port.waiting += 1
            if job._port.waiting > self.pool.queue_size:
                self._refuse(job, "too many requests wait")

    def websocket(
        self,
        on_message: Callable[[PooledSocket, Any], object],
        *,
        on_open: Callable[[PooledSocket], object] | None = None,
        on_close: Callable[[PooledSocket, int, str], object] | None = None,
        max_messages: int = 1000,
    ) -> Callbacks:
        """Make WebSocket callbacks run on the pool: each socket's one at a time, in their order.

        ::

            evws.Server(**dispatcher.websocket(on_message=slow))

        Args:
            on_message: ``on_message(socket, message)``; the socket is a `PooledSocket`, whose methods any thread may call.
            on_open: ``on_open(socket)``: before its first message.
            on_close: ``on_close(socket, code, reason)``: after its last one.
            max_messages: Of one socket that may wait. Beyond, and where the pool's queue is full, it is closed with code 1013.

        Returns:
            What `evws.Server` and `evws.upgrade` take as keyword arguments.
        """
        return Strands(self.pool, self.log, on_message, on_open, on_close, max_messages).callbacks()

    def stats(self) -> DispatcherStats:
        """What it does. Thread safety: any thread."""
        tasks = [worker.task for worker in self.pool.busy()]
        pool = self.pool.stats()
        if self._socket_server is not None:
            waiting = min(self._socket_server.waiting, pool.suspended)
            refused = self._socket_server.refused
            pool = replace(pool, suspended=pool.suspended - waiting, idle=pool.idle + waiting, refused=refused)
        ports = list(self._ports.values())
        return DispatcherStats(
            pool=pool,
            waiting=sum(port.waiting for port in ports),
            stuck=sum(bool(getattr(task, "expired", False)) for task in tasks),
            failed=self._failed,
            timed_out=self._timed_out + sum(port.timed_out for port in ports),
            lost=self._lost + sum(port.lost for port in ports),
        )

    def close(self, timeout: float = 5.0) -> int:
        """End the pool; requests that come are answered with 503. To be called when the server has ended.

        Args:
            timeout: Seconds to wait for the threads.

        Returns:
            How many have not ended by then: their handlers are still running. They end when they can, or with the process.
        """
        self._closed = True
        if self._socket_server is not None:
            self._socket_server._stop()
        left = self.pool.retire(timeout)
        if left:
            self.log.warning("%d threads have not ended: their handlers are still running", left)
        return left

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(self, job: Answering) -> None:
        """Call the handler, on a thread of the pool."""
        if job.is_lost:
            return
        try:
            self._handler(job, job)
        except Exception as error:
            self._fail(job, error)
        else:
            if not job.sent and not job.is_lost:
                self._unanswered(job)

    def _fail(self, job: Answering, error: Exception) -> None:
        # The client's mistake, which the handler has left to us.
        if isinstance(error, BodyError) and (job.is_lost or not job.begun):
            self.log.debug("%s %s refused: %d %s", job.method, job.path, error.status, error)
            job.replace(error.status, str(error))
            return
        self._count_failure()
        how = ", after it had answered" if job.sent else ", after it had begun to answer" if job.begun else ""
        self.log.exception("exception in the handler for %s %s%s", job.method, job.path, how)
        self._give_up(job)

    def _unanswered(self, job: Answering) -> None:
        self._count_failure()
        what = "with half of an answer" if job.begun else "without an answer"
        self.log.error("the handler for %s %s returned %s", job.method, job.path, what)
        self._give_up(job)

    def _give_up(self, job: Answering) -> None:
        if job.begun and not job.sent:
            job.connection.because(Cause.EXCEPTION)
        job.replace(500)

    def _attach_socket_server(self, server: SocketServer) -> None:
        if self.strategy != "socket":
            raise ValueError(f"a SocketServer needs a dispatcher with the strategy 'socket', not {self.strategy!r}")
        if self._socket_server is not None:
            raise ValueError("the dispatcher has a SocketServer already")
        self._socket_server = server

    def _detach_socket_server(self, server: SocketServer) -> None:
        if self._socket_server is server:
            self._socket_server = None

    def _count_timeout(self) -> None:
        with self._count_lock:
            self._timed_out += 1

    def _count_loss(self) -> None:
        with self._count_lock:
            self._lost += 1

    def _count_failure(self) -> None:
        with self._count_lock:
            self._failed += 1

    def _open_port(self, relay: Relay) -> _Port:
        port = self._ports.get(relay)
        if port is None:
            port = self._ports[relay] = _Port(self, relay)
        return port

    def _forget_port(self, relay: Relay) -> None:
        """A server's loop is being closed."""
        relay.close()  # before the pool is waited for: threads that wait for clients go on
        port = self._ports.pop(relay)
        with self._count_lock:
            self._timed_out += port.timed_out
            self._lost += port.lost
        self._port = None
        if not self._ports:
            self.pool.retire()

    def _submit(self, job: Job) -> None:
        job._submitted = True
        if job.sent or job._answered:  # refused, or its time was over before its turn came, or its client is lost
            if job._answered:
                job._advance()
        elif self._closed or not self.pool.submit(job):
            self._refuse(job, "the server is closing" if self._closed else "the server is busy")

    def _refuse(self, job: Job, text: str) -> None:
        """Answer a request that no thread has begun to work on."""
        job.header("Retry-After", str(self.retry_after)).status(503).send(f"{text}\n")
        job.post()

    def _expire(self, job: Job) -> None:
        """The time for a request is over."""
        job._port.timed_out += 1
        if not job._submitted or self.pool.withdraw(job):
            self.log.warning("no thread was free for %s %s within %g seconds", job.method, job.path, self.timeout)
            self._refuse(job, "the server is busy")
            return
        job.expired = True
        self.log.warning("the handler for %s %s has not answered within %g seconds", job.method, job.path, self.timeout)
        response = job.in_place()
        if response is None:
            job.connection.abort(Cause.TIMED_OUT)
        else:
            # The connection ends with it: what the handler says later must find nobody, not a later request in its place.
            job.connection.because(Cause.TIMED_OUT)
            response.close_connection().send_error(504, "the answer was not ready in time")


class _Port:
    """What a dispatcher has for each server. Loop thread only."""

    __slots__ = ("_dispatcher", "_loop", "_timer", "connections", "lost", "pending", "relay", "timed_out", "waiting")

    def __init__(self, dispatcher: Dispatcher, relay: Relay) -> None:
        self._dispatcher = dispatcher
        self._loop = relay.server.loop
        self._timer: TimerHandle | None = None
        self.waiting = self.timed_out = self.lost = 0
        self.relay = relay
        self.connections = Connections.at(relay)
        self.connections.pools.add(dispatcher.pool)
        # Requests that have a deadline. All have the same time, so they are in the order of their ends.
        self.pending: dict[Job, None] = {}
        self._loop.on_close(self._closes)

    def expect(self, job: Job, seconds: float) -> None:
        """Look after a job's deadline. One timer runs for all: it is set anew when it fires, and costs a job nothing."""
        job.deadline = self._loop.time() + seconds
        self.pending[job] = None
        if self._timer is None:
            self._timer = self._loop.call_at(job.deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = []
        for job in self.pending:
            if job.deadline > now:
                self._timer = self._loop.call_at(job.deadline, self._look)
                break
            late.append(job)
        for job in late:
            del self.pending[job]
            if not job.sent:
                self._dispatcher._expire(job)

    def _closes(self) -> None:
        self._dispatcher._forget_port(self.relay)
