"""Several servers in one process, each made for what it serves."""

from __future__ import annotations

import math
import signal
import socket
import ssl as _ssl
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Literal, TypeVar

import evhttp
import evnet
from evhttp import Request, Response
from evloop import Loop, TimerHandle
from evmulti._connections import Connection, ConnectionClosed, Connections
from evmulti._context import context
from evmulti._dispatcher import Dispatcher, Strategy
from evmulti._errors import StartError
from evmulti._log import Log, LogCallback
from evmulti._plan import FORWARDED
from evmulti._socketserver import SocketServer

__all__ = ["Body", "Service", "Services"]

T = TypeVar("T")
Body = Literal["none", "buffered", "streamed"]

_GRACE = 10.0
_LOOK = 0.02  # seconds between two looks whether the last connection has ended


class Service:
    """One server among `Services`: an address, a handler, and what fits it.

    Args:
        name: For the log, and the names of its threads.
        handler: Called as ``handler(request, response)``: with ``pool_size`` on a thread of its own pool, as by `Dispatcher`, else
            on the loop's thread.
        host: A name or address; ``None``: every interface.
        port: 0 lets the system choose. ``None``: the service listens nowhere, and serves the sockets that `register` gives it.
        body: ``"none"``: a request with a body is answered with 413. ``"buffered"``: the handler gets requests that are whole.
            ``"streamed"``: it gets them at the head, and reads the body: in a pool by `evhttp.Relayed.body_file`, on the loop's
            thread by `evhttp.Request.read_body`.
        keep_headers: Names of the request headers that the handler is to see, without regard to case; ``None``: all of them.
        limits: What its clients may ask for.
        pool_size: Threads of its pool; 0: none.
        max_active: See `Dispatcher`, as for the next two.
        queue_size: Requests that may wait for a thread.
        timeout: Seconds for an answer.
        strategy: The pool's, see `Dispatcher`; ``None`` goes by ``body``. With ``"socket"`` the service is a `SocketServer`, whose
            threads read and write the sockets themselves; it takes ``"none"`` and ``"streamed"`` as ``body``.
        thread_init: Called by each thread of the pool before it works.
        thread_exit: Called by each thread of the pool when it ends.
        on_close: Called on the loop's thread with a `ConnectionClosed` for each connection that has ended and was not upgraded.
        log_level: What is below is not logged; ``None`` leaves that to `logging`.
        log: Takes each log entry, from any thread, instead of the logger "evmulti".
        reuse_port: Let services in other processes listen on the same port.
        ssl: TLS for its clients, and for sockets that are registered; not with the strategy ``"socket"``.
        trusted: As for `evhttp.Server`, as the next one; not with the strategy ``"socket"``.
        forwarded: Header fields in which those who are trusted speak of their clients.
        proxy_protocol: As for `evhttp.Server.listen`; needs ``trusted``.

    Raises:
        ValueError: A number is out of its range, ``body`` or ``strategy`` is no such word, or two arguments exclude each other.
    """

    def __init__(
        self,
        name: str,
        handler: Callable[..., object],
        *,
        host: str | None = "127.0.0.1",
        port: int | None = None,
        body: Body = "buffered",
        keep_headers: Iterable[str] | None = None,
        limits: evhttp.Limits | None = None,
        pool_size: int = 0,
        max_active: int | None = None,
        queue_size: int = 1000,
        timeout: float = math.inf,
        strategy: Strategy | None = None,
        thread_init: Callable[[], object] | None = None,
        thread_exit: Callable[[], object] | None = None,
        on_close: Callable[[ConnectionClosed], object] | None = None,
        log_level: int | None = None,
        log: LogCallback | None = None,
        reuse_port: bool = False,
        ssl: _ssl.SSLContext | None = None,
        trusted: Iterable[str] = (),
        forwarded: Iterable[str] = FORWARDED,
        proxy_protocol: bool = False,
    ) -> None:
        if body not in ("none", "buffered", "streamed"):
            raise ValueError(f"body must be 'none', 'buffered' or 'streamed', not {body!r}")
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {handler!r}")
        trusted = tuple(trusted)
        if proxy_protocol and ssl is not None:
            raise ValueError("proxy_protocol and ssl exclude each other: the proxy ends TLS")
        if proxy_protocol and not trusted:
            raise ValueError("proxy_protocol needs proxies that are trusted: Service(..., trusted=[...])")
        if strategy is not None and not pool_size:
            raise ValueError(f"the strategy {strategy!r} needs a pool: Service(..., pool_size=...)")
        if strategy == "socket":
            if ssl is not None:
                raise ValueError("the strategy 'socket' has no TLS: its threads read plain sockets")
            if trusted:
                raise ValueError("the strategy 'socket' trusts no proxies: its threads believe no header")
            if body == "buffered":
                raise ValueError("the strategy 'socket' gathers no bodies: body must be 'none' or 'streamed'")
        elif strategy is not None and (strategy == "stream") != (body == "streamed"):
            raise ValueError(f"the strategy {strategy!r} does not go with body={body!r}")
        self.name = name
        self.host = host
        self.port = port
        self.limits: evhttp.Limits = limits or evhttp.Limits()
        if body == "none":
            self.limits = replace(self.limits, max_body_size=0)
        self.log: Log = Log(name, level=log_level, callback=log)
        self._keep = None if keep_headers is None else frozenset(header.lower() for header in keep_headers)
        self._in_sockets = strategy == "socket"
        self.dispatcher: Dispatcher | None = None
        """The pool's, if there is one."""
        if pool_size:
            self.dispatcher = Dispatcher(
                self._handle_kept if self._in_sockets and self._keep is not None else handler,
                pool_size=pool_size,
                max_active=max_active,
                queue_size=queue_size,
                timeout=timeout,
                strategy=strategy or ("stream" if body == "streamed" else "request"),
                name=name,
                thread_init=thread_init,
                thread_exit=thread_exit,
                log=self.log,
            )
        self._streams = body == "streamed"
        self._on_close = on_close
        self._reuse_port = reuse_port
        self._direct = handler
        self._ssl = ssl
        self._acceptor: evnet.TlsAcceptor | None = None  # of sockets that are registered
        self._trusted = trusted
        self._forwarded = tuple(forwarded)
        self._proxy_protocol = proxy_protocol
        self._server: evhttp.Server | SocketServer | None = None
        self._connections: Connections | None = None

    @property
    def server(self) -> evhttp.Server | SocketServer:
        """The server; it is made when `Services` start.

        Raises:
            StartError: They have not.
        """
        if self._server is None:
            raise StartError(f"the service {self.name} has not been started")
        return self._server

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket, the real port where 0 was asked for. Raises: as `server`."""
        return self.server.addresses

    def register(self, sock: socket.socket, context: Any = None) -> Connection:
        """Serve whoever is at the other end of a connected socket, as a client that came to a port.

        Args:
            sock: A stream socket, connected by somebody else: to a proxy that sends its requests this way, or half of a pair. It is
                detached: the connection owns the descriptor.
            context: For `Connection.context`.

        Raises:
            OSError: The connection cannot be watched. The socket stays the caller's.
            StartError: The services have not been started.

        Thread safety: any thread, and waits for the loop's.
        """
        server = self.server
        return _on_loop(server.loop, lambda: self._register(server, sock, context))

    def unregister(self, connection: Connection) -> bool:
        """End a connection after the answers it waits for; whether it was open. Thread safety: any thread, waits for the loop's."""

        def end() -> bool:
            open = self._connections is not None and connection in self._connections
            connection.close()
            return open

        return _on_loop(self.server.loop, end)

    def _register(self, server: evhttp.Server | SocketServer, sock: socket.socket, context: Any) -> Connection:
        if isinstance(server, SocketServer):
            return server._take(sock, context).connection
        assert self._connections is not None
        if self._ssl is not None and self._acceptor is None:
            self._acceptor = evnet.TlsAcceptor(server.loop, self._ssl)
        return self._connections.add(server.adopt(sock, ssl=self._acceptor), context)

    def _start(self, loop: Loop) -> None:
        """Listen.

        Raises:
            StartError: It cannot; the message says why.
        """
        server: evhttp.Server | SocketServer
        try:
            if self._in_sockets:
                assert self.dispatcher is not None
                server = SocketServer(self.dispatcher, loop=loop, limits=self.limits, on_close=self._on_close)
                self._server, self._connections = server, server._connections
                if self.port is not None:
                    server.listen(self.host, self.port, reuse_port=self._reuse_port)
            else:
                server = self._server = self._make_server(loop)
                self._connections = Connections(evhttp.Relay.at(server), self._on_close, self.log)
                if self.port is not None:
                    server.listen(
                        self.host,
                        self.port,
                        reuse_port=self._reuse_port,
                        ssl=self._ssl,
                        proxy_protocol=self._proxy_protocol,
                    )
        except OSError as error:
            raise StartError(f"the service {self.name} cannot listen: {error}") from error
        if self.port is not None:
            self.log.info("listens on %s", ", ".join(f"{host}:{port}" for host, port in server.addresses))

    def _make_server(self, loop: Loop) -> evhttp.Server:
        handler = self._handle_in_pool if self.dispatcher is not None else self._handle
        # The ends of connections are logged here, with more in each line than evhttp has.
        return evhttp.Server(
            handler,
            loop=loop,
            limits=self.limits,
            stream_bodies=self._streams,
            name=self.name,
            on_connection_end=_logged_elsewhere,
            log=self.log,
            trusted=self._trusted,
            forwarded=self._forwarded,
        )

    def _handle(self, request: Request, response: Response) -> None:
        assert self._connections is not None
        if self._keep is not None:
            request.keep_headers(self._keep)
        context._task = _Direct(request, self._connections.of(request))
        try:
            self._direct(request, response)
        finally:
            context._task = None

    def _handle_kept(self, request: Request, response: Response) -> None:
        assert self._keep is not None
        request.keep_headers(self._keep)
        self._direct(request, response)

    def _handle_in_pool(self, request: Request, response: Response) -> None:
        assert self.dispatcher is not None
        if self._keep is not None:
            request.keep_headers(self._keep)
        self.dispatcher(request, response)


class _Direct:
    """What `evmulti.context` knows of a handler that the loop's thread calls."""

    __slots__ = ("connection", "request")

    client_gone = False

    def __init__(self, request: Request, connection: Connection) -> None:
        self.request = request
        self.connection = connection


class Services:
    """Services in one process, on one loop: they start together and end together.

    ::

        evmulti.Services(
            evmulti.Service("page", show_form, port=8080, body="none"),
            evmulti.Service("form", save_form, port=8081, pool_size=20),
        ).run()

    Args:
        services: At least one.
        loop: The loop to serve on; by default a loop of its own, which `run` closes.
        grace: Seconds that connections have to end after SIGTERM or `stop`.

    Thread safety: loop thread only, but for `stop`.
    """

    def __init__(self, *services: Service, loop: Loop | None = None, grace: float = _GRACE) -> None:
        if not services:
            raise ValueError("there must be at least one service")
        names = [service.name for service in services]
        if len(set(names)) < len(names):
            raise ValueError(f"each service needs a name of its own: {', '.join(names)}")
        self.services = services
        self.grace = grace
        self._owns_loop = loop is None
        self.loop: Loop = Loop() if loop is None else loop
        self._deadline: TimerHandle | None = None
        self._started = False

    def start(self) -> Services:
        """Listen. What cannot be started leaves nothing behind.

        Returns:
            The object itself.

        Raises:
            StartError: One of them cannot listen; the message says which and why.
        """
        if self._started:
            return self
        try:
            for service in self.services:
                service._start(self.loop)
        except BaseException:
            for service in self.services:
                if service._server is not None:
                    service._server.close()
            if self._owns_loop:
                self.loop.close()
            raise
        self._started = True
        return self

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or `stop`, then drain: at most ``grace`` seconds, or until a second signal.

        Raises:
            StartError: See `start`.
        """
        self.start()
        numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        for number in numbers:
            self.loop.add_signal_handler(number, self._end)
        try:
            self.loop.run()
        finally:
            for number in numbers:
                self.loop.remove_signal_handler(number)
            if self._deadline is not None:
                self._deadline.cancel()
            for service in self.services:
                if service.dispatcher is not None:
                    service.dispatcher.close()
            if self._owns_loop:
                self.loop.close()

    def stop(self) -> None:
        """Drain and end `run`; called again: at once. Thread safety: any thread."""
        self.loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._deadline is not None:
            self._give_up()
            return
        for service in self.services:
            service.server.close()
        self._deadline = self.loop.call_later(self.grace, self._give_up)
        self._look()

    def _look(self) -> None:
        if any(service.server.connections for service in self.services):
            self.loop.call_later(_LOOK, self._look)
        else:
            self.loop.stop()

    def _give_up(self) -> None:
        for service in self.services:
            count = service.server.abort()
            if count:
                service.log.warning("aborted %d connections that had not ended", count)
        self.loop.call_soon(self.loop.stop)  # a turn later, so that the resets have left


def _on_loop(loop: Loop, function: Callable[[], T]) -> T:
    """Call a function on the loop's thread, and return what it returns."""
    if not loop.is_running() or loop._thread == threading.get_ident():
        return function()
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    loop.call_soon_threadsafe(call)
    return future.result()


def _logged_elsewhere(end: evhttp.ConnectionEnd) -> None:
    pass
