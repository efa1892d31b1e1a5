"""Connections whose sockets the threads of a pool read themselves: one epoll for all of them, with one-shot readiness."""

from __future__ import annotations

import errno
import math
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import evhttp
import evnet
from evhttp import BlockingConnection, BlockingExchange, Request
from evloop import Loop, LoopClosedError
from evmulti._connections import Cause, Connection, ConnectionClosed, Connections
from evmulti._context import suspended
from evmulti._errors import EvMultiError

if TYPE_CHECKING:
    from evloop import TimerHandle
    from evmulti._dispatcher import Dispatcher

__all__ = ["SocketServer"]

_GRACE = 10.0
_LOOK = 0.02  # seconds between two looks whether the last connection has ended
_SWEEP = 0.2  # seconds between two looks for deadlines
_LINGER = 2.0  # seconds for a client to close, after our last word
_PAUSE = 0.1  # seconds without accepting, when there are no descriptors left
_BATCH = 64  # clients that are accepted in a turn
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class SocketServer:
    """An HTTP/1.1 server for a `Dispatcher` with the strategy ``"socket"``: its threads have the sockets, for handlers that stream.

    ::

        def upload(req, res):
            with open(name_for(req), "wb") as file:
                shutil.copyfileobj(req.body_file, file)
            res.send("thank you")

        with evmulti.Dispatcher(upload, pool_size=20, strategy="socket") as dispatcher:
            evmulti.SocketServer(dispatcher).listen("127.0.0.1", 8080).run()

    The loop accepts clients, and looks for those whose time is over; requests and answers never pass it. The pool's idle threads
    wait in one epoll for all connections. Readiness is one-shot: the thread that is told of a connection has it for itself, reads
    what has come, and once a request's head is there calls the handler, which gets an `evhttp.BlockingExchange`. Reading
    `evhttp.Relayed.body_file` and writing are system calls of the handler's thread, and wait for the client: nothing is queued in
    between, so bodies in both directions may be of any size (``Limits.max_body_size`` counts). After the answer the connection goes
    back to the epoll. A client that is slow with a head, or idle, holds no thread; one that is slow with a body does, as long as
    ``Limits`` allow.

    Args:
        dispatcher: Whose pool it is; its ``queue_size`` bounds connections here, each of which may be ready at any time: when there
            are as many as threads and places in the queue together, further ones are answered with 503 and Retry-After.
        loop: The loop to accept on; by default one of its own, which `run` closes.
        limits: What clients may ask for. ``max_pipeline`` means nothing here: what comes behind a request stays in the kernel.
        on_close: Called on the loop's thread with a `ConnectionClosed` for each connection that has ended.

    There is no TLS, no upgrade (to WebSocket for one), no proxy that is trusted for its clients' addresses, and no access log; use
    the other strategies for these. Linux only.

    Raises:
        ValueError: The dispatcher has another strategy, or serves another such server.
        NotImplementedError: The system has no epoll.

    Thread safety: loop thread only, but for what is said otherwise.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        loop: Loop | None = None,
        limits: evhttp.Limits | None = None,
        on_close: Callable[[ConnectionClosed], object] | None = None,
    ) -> None:
        if not hasattr(select, "epoll"):
            raise NotImplementedError("the strategy 'socket' needs epoll, which this system does not have")
        dispatcher._attach_socket_server(self)
        self.dispatcher = dispatcher
        self.limits: evhttp.Limits = limits or evhttp.Limits()
        self._owns_loop = loop is None
        self.loop: Loop = Loop() if loop is None else loop
        self._log = dispatcher.log
        self._most = min(self.limits.max_connections, dispatcher.pool.size + dispatcher.queue_size)
        self._listeners: list[socket.socket] = []
        self._end_watchers: list[Callable[[evhttp.ConnectionEnd], object]] = []
        self._relay = _Relay(self)
        self._connections = Connections(cast(Any, self._relay), on_close, self._log)
        self.refused: int = 0
        """Connections that were answered with 503 because there were too many."""
        self._sweeper: TimerHandle | None = None
        self._deadline: TimerHandle | None = None  # of a drain
        self._closed = False
        self._next_id = 0
        # What the threads share with the loop's, under the lock. Whoever closes a socket has taken its line out before.
        self._lock = threading.Lock()
        self._lines: dict[int, Line] = {}  # by descriptor
        self._waiting = 0  # threads in the epoll
        self._waiters = 0  # tasks of the pool
        self._inside = 0  # those of them that have begun: the pool forgets the others when it ends
        self._stopped = False
        self._epoll = select.epoll()
        self._stopper, wake = socket.socketpair()
        self._stop_with: socket.socket | None = wake
        self._epoll.register(self._stopper, select.EPOLLIN)  # not one-shot: each thread is to see it
        self.loop.on_close(self._loop_closes)

    # -- life ------------------------------------------------------------------------------------------------------------------

    def listen(
        self,
        host: str | Iterable[str | None] | None = None,
        port: int = 8000,
        *,
        backlog: int = 1024,
        reuse_port: bool = False,
        ssl: None = None,
    ) -> SocketServer:
        """Listen on a TCP address, as `evhttp.Server.listen`; may be called several times.

        Raises:
            ValueError: ``ssl`` is not ``None``: the threads read plain sockets.
            OSError: The address cannot be bound; the message names it.
            EvMultiError: The server is closed.
        """
        if ssl is not None:
            raise ValueError("the strategy 'socket' has no TLS: its threads read plain sockets")
        if self._closed:
            raise EvMultiError("the server is closed")
        for sock in evnet.bind_tcp(host, port, backlog=backlog, reuse_port=reuse_port):
            self._listeners.append(sock)
            self.loop.add_reader(sock.fileno(), self._accept, sock)
        return self

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each socket that listens."""
        return [sock.getsockname()[:2] for sock in self._listeners]

    @property
    def connections(self) -> int:
        """How many connections are open. Thread safety: any thread."""
        return len(self._lines)

    @property
    def waiting(self) -> int:
        """How many threads wait for a connection. Thread safety: any thread."""
        return self._waiting

    def adopt(self, sock: socket.socket) -> int:
        """Serve a client whose connection was accepted elsewhere.

        Args:
            sock: A connected stream socket. It is detached: the connection owns the descriptor.

        Returns:
            The connection's number; see `evhttp.Request.connection_id`.

        Raises:
            OSError: The connection cannot be watched. The socket stays the caller's.
            EvMultiError: The server is closed.
        """
        if self._closed:
            raise EvMultiError("the server is closed")
        return self._take(sock).connection.id

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then drain: at most ten seconds, or until a second signal.

        In a thread other than the main one signals are left alone; end it with ``loop.stop``.
        """
        numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        for number in numbers:
            self.loop.add_signal_handler(number, self._signalled)
        try:
            self.loop.run()
        finally:
            for number in numbers:
                self.loop.remove_signal_handler(number)
            if self._deadline is not None:
                self._deadline.cancel()
            if self._owns_loop:
                self.loop.close()

    def _signalled(self) -> None:
        if self._deadline is not None:
            self._give_up()
            return
        self.close()
        self._deadline = self.loop.call_later(_GRACE, self._give_up)
        self._look()

    def _look(self) -> None:
        if self._lines:
            self.loop.call_later(_LOOK, self._look)
        else:
            self.loop.stop()

    def _give_up(self) -> None:
        count = self.abort()
        if count:
            self._log.warning("aborted %d connections that had not ended", count)
        self.loop.stop()

    def close(self) -> None:
        """Stop listening and close idle connections; the others end with the answer they wait for, and say so in it."""
        self._closed = True
        for sock in self._listeners:
            self.loop.remove_reader(sock.fileno())
            sock.close()
        self._listeners.clear()
        with self._lock:
            for line in list(self._lines.values()):
                line.http.closing = True
                if not line.busy and line.http.is_idle and not line.http.is_ending:
                    self._drop(line)

    def abort(self) -> int:
        """Close, and reset every connection at once. Returns how many there were."""
        self.close()
        with self._lock:
            lines = list(self._lines.values())
            for line in lines:
                self._abort(line)
        return len(lines)

    def end_connection(self, connection_id: int, *, abort: bool = False) -> None:
        """See `evhttp.Server.end_connection`."""
        with self._lock:
            for line in self._lines.values():
                if line.connection.id == connection_id:
                    line.http.closing = True
                    if abort:
                        self._abort(line)
                    elif not line.busy:
                        self._drop(line)
                    break

    def watch_ends(self, callback: Callable[[evhttp.ConnectionEnd], object]) -> None:
        """See `evhttp.Server.watch_ends`."""
        self._end_watchers.append(callback)

    def _loop_closes(self) -> None:
        self.abort()
        self._stop()
        self.dispatcher.pool.retire()
        self.dispatcher._detach_socket_server(self)

    def _stop(self) -> None:
        """Have the threads leave the epoll. Thread safety: any thread."""
        with self._lock:
            self._stopped = self._closed = True
            if self._stop_with is not None:
                self._stop_with.close()
                self._stop_with = None
            self._close_epoll()

    def _close_epoll(self) -> None:
        """The last one to leave closes it."""
        if self._stopped and not self._inside and not self._epoll.closed:
            self._epoll.close()
            self._stopper.close()

    # -- clients, on the loop's thread -----------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                sock = listener.accept()[0]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_MORE:
                    raise
                self._log.warning("cannot accept clients: %s", error.strerror)
                self.loop.remove_reader(listener.fileno())
                self.loop.call_later(_PAUSE, self._resume, listener)
                return
            try:
                self._take(sock)
            except OSError:  # it has gone already
                sock.close()

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self.loop.add_reader(listener.fileno(), self._accept, listener)

    def _take(self, sock: socket.socket, context: Any = None) -> Line:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.fileno())
        self._next_id += 1
        connection = self._connections.add(self._next_id, context)
        try:
            http = BlockingConnection(own, self.limits, connection_id=self._next_id)
            connection.client = http.client
            line = Line(http, connection)
            line.deadline = monotonic() + self.limits.head_timeout
            with self._lock:
                if self._stopped:
                    raise ConnectionAbortedError(errno.ECONNABORTED, "the server has stopped")
                self._epoll.register(line.fd, _READY)
                if full := len(self._lines) >= self._most:
                    retry = f"Retry-After: {self.dispatcher.retry_after}\r\n"
                    http.refuse(503, "the server is busy", retry, cause="by_us")
                    line.deadline = monotonic() + _LINGER
                self._lines[line.fd] = line
                self._more()
        except BaseException:
            self._connections.forget(connection)
            own.detach()
            raise
        sock.detach()
        if full:
            self.refused += 1
            self._log.debug("refused %r: %d connections are open", connection, len(self._lines))
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(_SWEEP, self._sweep)
        return line

    def _sweep(self) -> None:
        """Look for connections whose time is over."""
        self._sweeper = None
        now = monotonic()
        with self._lock:
            for line in list(self._lines.values()):
                if line.deadline > now:
                    continue
                http = line.http
                if line.busy:
                    if line.job is not None:
                        line.deadline = math.inf
                        self._expire(line, line.job)
                    continue
                if not http.is_ending and not http.is_idle:
                    http.refuse(408, "the request's head did not come in time", cause="timed_out")
                    if not http.is_over:
                        line.deadline = now + _LINGER
                        continue
                self._drop(line, "timed_out")
            if self._lines:
                self._sweeper = self.loop.call_later(_SWEEP, self._sweep)

    def _expire(self, line: Line, job: SocketJob) -> None:
        """The time for an answer is over."""
        dispatcher = self.dispatcher
        job.expired = True
        dispatcher._count_timeout()
        line.connection.because(Cause.TIMED_OUT)
        what = "the handler for %s %s has not answered within %g seconds"
        self._log.warning(what, job.method, job.path, min(dispatcher.timeout, self.limits.answer_timeout))
        status = 504 if dispatcher.timeout <= self.limits.answer_timeout else 503
        line.http.give_up(status, "the answer was not ready in time")

    def _ended(self, end: evhttp.ConnectionEnd) -> None:
        for watcher in self._end_watchers:
            watcher(end)

    # -- with the lock held ----------------------------------------------------------------------------------------------------

    def _abort(self, line: Line) -> None:
        line.http.abort()
        if not line.busy:
            self._drop(line)

    def _drop(self, line: Line, cause: str = "by_us") -> None:
        """Close a connection that nobody works on."""
        del self._lines[line.fd]
        line.http.close(cause)
        self._relay.call(self._ended, line.http.ended)

    def _more(self) -> None:
        """See to it that somebody waits in the epoll, if a thread is left for it."""
        if not self._waiting and not self._stopped and self._waiters < self.dispatcher.pool.size:
            self._waiters += self.dispatcher.pool.submit(Waiter(self))

    # -- on the pool's threads -------------------------------------------------------------------------------------------------

    def _wait(self) -> Line | None:
        """Wait for a connection with something to read, and take it; ``None`` when there is to be no more waiting."""
        with self._lock:
            if self._stopped:
                return None
            self._waiting += 1
        while True:
            ((fd, _),) = self._epoll.poll(-1, 1)
            with self._lock:
                if fd == self._stopper.fileno():
                    self._waiting -= 1
                    return None
                line = self._lines.get(fd)
                if line is not None and not line.busy:  # else another one's descriptor had this number
                    line.busy = True
                    self._waiting -= 1
                    self._more()
                    return line

    def _serve(self, waiter: Waiter, line: Line, handles: bool) -> None:
        """Serve the requests that have come."""
        http = line.http
        while (job := http.receive(SocketJob)) is not None:
            job.dispatcher = self.dispatcher
            job.connection = line.connection
            job.expired = False
            with self._lock:
                line.job = waiter.job = job
                line.deadline = monotonic() + min(self.dispatcher.timeout, self.limits.answer_timeout)
            if handles:
                job.run()
            else:
                job.refuse()
            if http.is_lost:
                self.dispatcher._count_loss()
            goes_on = http.finish()
            with self._lock:
                line.job = waiter.job = None
                line.deadline, line.in_head = math.inf, False
            if not goes_on:
                break
        self._give_back(line)

    def _give_back(self, line: Line) -> None:
        """Let the epoll wait for more from a client, or let him go."""
        http, limits = line.http, self.limits
        with self._lock:
            line.busy = False
            if http.is_over or (http.closing and http.is_idle and not http.is_ending):
                self._drop(line)
                return
            now = monotonic()
            if http.is_ending:
                line.deadline = now + _LINGER
            elif not http.is_idle:
                if not line.in_head:
                    line.deadline, line.in_head = now + limits.head_timeout, True
            elif http.requests:
                line.deadline = now + limits.idle_timeout
            if self._stopped:
                self._drop(line)
            else:
                self._epoll.modify(line.fd, _READY)

    def _enter(self) -> None:
        """A task of the pool begins."""
        with self._lock:
            self._inside += 1

    def _leave(self, again: bool) -> None:
        """A task of the pool ends."""
        with self._lock:
            self._waiters -= 1
            self._inside -= 1
            if again:
                self._more()
            self._close_epoll()


class Line:
    """A connection and who has it. Under its server's lock, but for what is in the hands of the thread that made it busy."""

    __slots__ = ("busy", "connection", "deadline", "fd", "http", "in_head", "job")

    def __init__(self, http: BlockingConnection, connection: Connection) -> None:
        self.http = http
        self.connection = connection
        self.fd = http.sock.fileno()
        self.busy = False
        self.job: SocketJob | None = None
        self.deadline = math.inf
        self.in_head = (
            True  # the deadline is that of a head: that of a new connection, or of one that has begun to come
        )


class SocketJob(BlockingExchange):
    """A request in the hands of a thread that has its socket."""

    __slots__ = ("connection", "dispatcher", "expired")

    connection: Connection
    dispatcher: Dispatcher
    expired: bool

    def run(self) -> None:
        """Call the handler."""
        self.dispatcher._call(self)

    def refuse(self) -> None:
        """Answer for a thread that could not begin."""
        self.dispatcher._count_failure()
        self.replace(500)


class Waiter:
    """A task of the pool: waits in the epoll with the others, and serves, until the server stops. A wait lends the place."""

    __slots__ = ("_server", "job")

    def __init__(self, server: SocketServer) -> None:
        self._server = server
        self.job: SocketJob | None = None

    @property
    def request(self) -> Request | None:
        """For `evmulti.context`."""
        return self.job

    @property
    def connection(self) -> Connection | None:
        """For `evmulti.context`."""
        return None if self.job is None else self.job.connection

    @property
    def client_gone(self) -> bool:
        """For `evmulti.context`."""
        return self.job is not None and self.job.client_gone

    def wait_gone(self, seconds: float) -> bool:
        """For `evmulti.suspend`."""
        return self.job is not None and self.job._connection.wait_gone(seconds)

    @property
    def expired(self) -> bool:
        """Whether the time for what it does is over."""
        job = self.job
        return job is not None and job.expired

    def run(self) -> None:
        """Serve, until the server stops."""
        server = self._server
        server._enter()
        while True:
            with suspended():
                line = server._wait()
            if line is None:
                break
            self._serve(line, True)
        server._leave(False)

    def refuse(self, error: Exception) -> None:
        """Serve one connection, with errors, and let another thread try."""
        self._server._enter()
        line = self._server._wait()
        if line is not None:
            self._serve(line, False)
        self._server._leave(line is not None)

    def _serve(self, line: Line, handles: bool) -> None:
        self._server._serve(self, line, handles)


class _Relay:
    """What `Connection` asks of a server's relay."""

    __slots__ = ("context", "server")

    def __init__(self, server: SocketServer) -> None:
        self.server = server
        self.context: Any = None

    def call(self, callback: Callable[..., object], *args: object) -> bool:
        """Call something on the loop's thread, if there is one left; see `evhttp.Relay.call`."""
        try:
            self.server.loop.call_soon_threadsafe(callback, *args)
        except LoopClosedError:
            return False
        return True


_READY = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT if hasattr(select, "epoll") else 0
