"""The server: what a request meets on its way from the arena to the handler."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import ssl as _ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from typing import Any

import evnet
from evhttp import _link as _link
from evhttp._access import log_answers, log_refusal
from evhttp._ends import ConnectionEnd, NamedLog, ServerLog, end_from
from evhttp._errors import BodyError, EvHttpError
from evhttp._exchange import Exchange, LoggedExchange
from evhttp._forwarded import Network, Proxies
from evhttp._later import Later
from evhttp._limits import Limits
from evhttp._listening import PROXIED, Listeners
from evhttp._request import Request, address, body_of
from evhttp._response import CLOSE, SENT, Response
from evhttp._shim import ffi, lib
from evhttp._stats import ServerStats, read_counts
from evloop import Attachment, Loop, Record, TimerHandle

__all__ = ["Handler", "Server"]

getrefcount: Callable[[object], int] = getattr(
    sys, "getrefcount", lambda each: 0
)  # elsewhere than in CPython there is none

logger = logging.getLogger("evhttp")

Handler = Callable[[Request, Response], object]

_REFUSED = Struct("<BBH16sI")
_END = Struct("<IHHQ")
_ARRIVAL = Struct("<qqq8s")  # struct evh_arrival of request.c: a request's own record
_OP_DROP, _OP_CLOSE = 2 << 8 | 5, 2 << 8 | 13  # shim.h
_EVENT_EMPTY = 0
# References to what only a local variable and the call of getrefcount know; from 3.14 on a call may borrow the variable's.
_OURS_ALONE = 2 if sys.version_info < (3, 14) else 1
_GRACE = 10.0
_LOOK = 0.05  # seconds between two looks for handshakes of a server that is closed


class Server:
    r"""An HTTP/1.1 server: one handler, called for each request on the loop's thread.

    ::

        def hello(req, res):
            res.send("hello\n")

        evhttp.Server(hello).listen("127.0.0.1", 8080).run()

    Args:
        handler: Called as ``handler(request, response)``. It answers before it returns; one that does not, or that raises, is
            answered for with 500, and a log record says why.
        loop: The loop to serve on; by default a loop of its own, which `run` closes.
        limits: What clients may ask for; see `Limits`.
        stream_bodies: Call the handler when a request's head is there; it asks for the body by `Request.read_body` or
            `Request.save_body`. By default it is called when the body is there, too.
        name: Stands before each log record of this server, where a process has several.
        on_connection_end: Called with a `ConnectionEnd` for each connection that has ended and was not upgraded. Without it the
            ends are logged, at DEBUG or INFO, if ``log`` lets INFO through when the server is made.
        access_log: A logger that gets one INFO record per answer, with an `AccessRecord` as its message; ``None`` costs nothing.
            `JsonFormatter` and `CombinedFormatter` write them as lines.
        trusted: Addresses and networks of proxies, ``"10.0.0.0/8"``, or ``"unix"`` for whoever connects by a unix socket. What
            they say of their clients is believed: `Request.client`, `Request.scheme` and `Request.host` follow it.
        forwarded: The header fields by which they say it, of ``Forwarded`` alone or of ``X-Forwarded-For``, ``X-Forwarded-Proto``
            and ``X-Forwarded-Host``. Name only what your proxies set or remove themselves: any other is the client's own word.
        measure: Count answers, and how long they take, for `stats`.
        log: What it logs with, instead of the logger "evhttp".

    Thread safety: loop thread only.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        loop: Loop | None = None,
        limits: Limits | None = None,
        stream_bodies: bool = False,
        name: str = "",
        on_connection_end: Callable[[ConnectionEnd], object] | None = None,
        access_log: logging.Logger | None = None,
        trusted: Iterable[str | Network] = (),
        forwarded: Iterable[str] = ("X-Forwarded-For", "X-Forwarded-Proto"),
        measure: bool = False,
        log: ServerLog | None = None,
    ) -> None:
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {handler!r}")
        self._proxies = Proxies(trusted, forwarded)
        self._measure = measure
        self._handler = handler
        self._owns_loop = loop is None
        self.loop: Loop = Loop() if loop is None else loop
        self.limits: Limits = limits or Limits()
        self._access_log = access_log
        self._streams_bodies = stream_bodies
        self._name = name
        self._log: ServerLog = NamedLog(logger, {"server": name}) if log is None else log
        self._on_connection_end = on_connection_end
        self._end_watchers: list[Callable[[ConnectionEnd], object]] = []
        self._relay: Any = None  # evhttp._relay.Relay, once somebody wants one
        self._listeners = Listeners()
        self._counts: ServerStats | None = None
        self._on_closed: Callable[[], object] | None = None
        self._pins: dict[int, bytes] = {}
        self._next_pin = 0
        self._closed = False
        self._stop_when_empty = False
        self._grace: TimerHandle | None = None
        if access_log is None:
            self._receive = self._receiver(Exchange)
        else:
            self._receive = log_answers(self._receiver(LoggedExchange), access_log, name)
        self._target = self.loop.add_target(self._receive)
        # One by one where each is timed: the access log does so, and a loop that names slow callbacks.
        one_by_one = access_log is not None or self.loop.get_debug()
        self._batch_target = 0 if one_by_one else self.loop.add_target(self._batch_receiver())
        self._large_target = self.loop.add_target(self._received_large)
        self._event_target = self.loop.add_target(self._event)
        self._short_target = self.loop.add_target(self._short)
        self._pin_target = self.loop.add_target(self._unpin)
        wants_ends = on_connection_end is not None or self._log.isEnabledFor(logging.INFO)
        self._end_target = self.loop.add_target(self._connection_ended) if wants_ends else 0
        self._ptr = self._open()
        self.loop.on_close(self._loop_closes)

    def _open(self) -> Any:
        limits = self.limits
        c_limits = ffi.new(
            "struct evh_limits *",
            {
                "max_request_line": limits.max_request_line,
                "max_header_section": limits.max_header_section,
                "max_headers": limits.max_headers,
                "max_body": limits.max_body_size,
                "max_chunk_ext": limits.max_chunk_line,
                "max_trailers": limits.max_trailers,
                "any_method": 0,
            },
        )
        networks = ffi.new("struct evh_network[]", self._proxies.for_shim())
        names = ("head", "body", "idle", "write", "answer")
        timeouts = {name: limits.milliseconds(f"{name}_timeout") for name in names}
        options = {
            "target": self._target,
            "batch_target": self._batch_target,
            "large_target": self._large_target,
            "event_target": self._event_target,
            "end_target": self._end_target,
            "max_pipeline": limits.max_pipeline,
            "max_requests": 0 if limits.max_requests == math.inf else limits.max_requests,
            "short_target": self._short_target,
            "max_connections": 0 if limits.max_connections == math.inf else limits.max_connections,
            "max_handshakes": 0 if limits.max_handshakes == math.inf else limits.max_handshakes,
            "max_queued": 0 if limits.max_queued_size == math.inf else limits.max_queued_size,
            "refuse_connections": limits.refuse_connections,
            "measure": self._measure,
            "network_count": len(networks),
            "networks": networks,
            "stream_bodies": self._streams_bodies,
        }
        out = ffi.new("struct evh_server **")
        result = lib.evhttp_open(
            self.loop.address,
            ffi.new("struct evh_options *", options),
            c_limits,
            ffi.new("struct evh_timeouts *", timeouts),
            out,
        )
        if result < 0:
            raise OSError(-result, "cannot open a server")
        return out[0]

    # -- life ------------------------------------------------------------------------------------------------------------------

    def listen(
        self,
        host: str | Iterable[str | None] | None = None,
        port: int = 8000,
        *,
        backlog: int = 1024,
        reuse_port: bool = False,
        dual_stack: bool = False,
        ssl: _ssl.SSLContext | None = None,
        proxy_protocol: bool = False,
    ) -> Server:
        """Listen on a TCP address; as the other methods that listen it may be called several times.

        Args:
            host: A name or address, or several; ``None`` means every interface.
            port: 0 lets the system choose; see `addresses`.
            backlog: Connections that the kernel may hold for us.
            reuse_port: Let servers in other threads or processes listen on the same port.
            dual_stack: One IPv6 socket for both families, instead of two; ``host`` must be every interface.
            ssl: HTTPS with this context. Certificates that are loaded into it later are for clients to come.
            proxy_protocol: Every connection has to come from a trusted proxy, which begins it with a header of the PROXY protocol,
                version 1 or 2, within ``Limits.head_timeout``; others are reset. `Request.client` is whom the header names, and
                `Request.scheme` what it says of TLS. Not with ``ssl``: the proxy ends TLS.

        Returns:
            The server itself.

        Raises:
            OSError: The address cannot be bound; the message names it.
            ValueError: A number is out of its range, or ``proxy_protocol`` is asked for and nobody trusted.
            EvHttpError: The server is closed.
            evloop.LoopClosedError: Its loop is.
        """
        self._check_listening(proxy_protocol, ssl)
        sockets = evnet.bind_tcp(host, port, backlog=backlog, reuse_port=reuse_port, dual_stack=dual_stack)
        self._listen(sockets, proxy_protocol, ssl, socket.socket.close)
        return self

    def listen_unix(
        self,
        path: str | bytes | os.PathLike[str],
        *,
        mode: int | None = None,
        backlog: int = 1024,
        ssl: _ssl.SSLContext | None = None,
        proxy_protocol: bool = False,
    ) -> Server:
        """Listen on a unix socket; its clients have no address: `Request.client` is ``None``.

        Args:
            path: Of the socket file, which `close` removes; the stale one of a server that is no more is replaced. Or, on Linux,
                an abstract name, which begins with a zero byte.
            mode: The file's permissions, for instance ``0o660``; ``None``: what the umask leaves.
            backlog: As for `listen`.
            ssl: As for `listen`.
            proxy_protocol: As for `listen`; ``"unix"`` has to be among the trusted.

        Raises:
            OSError: EADDRINUSE if a live server listens there, EEXIST if what is there is no socket; the message names the path.
            ValueError, EvHttpError, evloop.LoopClosedError: As for `listen`.
        """
        self._check_listening(proxy_protocol, ssl)
        sock, file = evnet.bind_unix(path, mode=mode, backlog=backlog)

        def drop(sock: socket.socket) -> None:
            if file is not None:
                file.remove()
            sock.close()

        self._listen([sock], proxy_protocol, ssl, drop)
        self._listeners.add_file(file)
        return self

    def listen_socket(
        self,
        sock: socket.socket | int | Iterable[socket.socket | int],
        *,
        backlog: int = 1024,
        ssl: _ssl.SSLContext | evnet.TlsAcceptor | None = None,
        proxy_protocol: bool = False,
    ) -> Server:
        """Listen on sockets that somebody else has bound: inherited ones (`evnet.listen_fds`), or with options of your own.

        Args:
            sock: A bound TCP or unix stream socket, or its descriptor, or several. They are the server's from now on, which closes
                them; the file of a unix socket is left to whoever has made it.
            backlog: For sockets that do not listen yet.
            ssl: As for `listen`; or who makes the handshakes, on the server's loop. That one stays yours: `close` leaves alone the
                clients whose handshakes are under way.
            proxy_protocol: As for `listen`.

        Raises:
            OSError: A descriptor is not open, or not a socket that can listen; the message names it. Those that are not served
                stay the caller's.
            ValueError, EvHttpError, evloop.LoopClosedError: As for `listen`.
        """
        self._check_listening(proxy_protocol, ssl)
        given = [sock] if isinstance(sock, (socket.socket, int)) else list(sock)

        def drop(sock: socket.socket) -> None:
            if not any(sock is each for each in given):  # made of a descriptor, which stays open
                sock.detach()

        sockets = evnet.inherit_sockets(given, backlog=backlog)
        self._listen(sockets, proxy_protocol, ssl, drop)
        return self

    def _listen(
        self,
        sockets: Sequence[socket.socket],
        proxied: bool,
        ssl: _ssl.SSLContext | evnet.TlsAcceptor | None,
        drop: Callable[[socket.socket], object],
    ) -> None:
        if ssl is None or isinstance(ssl, evnet.TlsAcceptor):
            acceptor = ssl
        else:
            try:
                patience = self.limits.head_timeout
                acceptor = evnet.TlsAcceptor(
                    self.loop, ssl, ssl_handshake_timeout=None if patience == math.inf else patience
                )
            except BaseException:
                for sock in sockets:
                    drop(sock)
                raise
            self._listeners.add_acceptor(acceptor)
        self._listeners.add(
            self._ptr, sockets, proxied=proxied, tls_target=acceptor.target if acceptor else 0, drop=drop
        )

    def _check_listening(self, proxy_protocol: bool, ssl: object) -> None:
        self.loop.address  # noqa: B018 - raises when the loop is closed, and C's server with it
        if self._closed:
            raise EvHttpError("the server is closed")
        self._check_proxied(proxy_protocol, ssl)

    def _check_proxied(self, proxy_protocol: bool, ssl: object) -> None:
        if proxy_protocol and ssl is not None:
            raise ValueError("proxy_protocol and ssl exclude each other: the proxy ends TLS")
        if proxy_protocol and not self._proxies:
            raise ValueError("proxy_protocol needs proxies that are trusted: Server(..., trusted=[...])")

    def attach(self, host: Any) -> Attachment:
        """Serve inside a running asyncio (or uvloop) loop, beside what else it does, until the attachment is closed.

        Args:
            host: An `asyncio.AbstractEventLoop` that has ``add_reader``. Handlers run in its thread.

        Returns:
            What `evloop.Loop.attach` returns. Its ``close`` takes the server out of the host again; connections stay as they are
            then, served by nobody, so `close` or `abort` the server first.

        Raises:
            evloop.LoopRunningError: The server's loop is running, or attached already.
            NotImplementedError: Its backend has no descriptor that could be watched (``poll``).
        """
        return self.loop.attach(host)

    @property
    def name(self) -> str:
        """The server's name."""
        return self._name

    def adopt(self, sock: socket.socket, *, ssl: evnet.TlsAcceptor | None = None, proxy_protocol: bool = False) -> int:
        """Serve a client whose connection was accepted elsewhere.

        Args:
            sock: A connected stream socket. It is detached: the connection owns the descriptor. When the server is closed the
                client gets one answer.
            ssl: Who makes the TLS handshake, on the server's loop; ``None``: no TLS.
            proxy_protocol: As for `listen`.

        Returns:
            The connection's number; see `Request.connection_id`.

        Raises:
            OSError: The connection cannot be watched. The socket stays the caller's.
            ValueError: ``proxy_protocol`` is asked for together with ``ssl``, or nobody is trusted.
            evloop.LoopClosedError: The loop is closed.
        """
        self.loop.address  # noqa: B018 - raises when the loop is closed, and C's server with it
        self._check_proxied(proxy_protocol, ssl)
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        token = ffi.new("uint64_t *")
        flags = PROXIED if proxy_protocol else 0
        result = lib.evhttp_adopt(self._ptr, sock.fileno(), flags, 0 if ssl is None else ssl.target, token)
        if result < 0:
            raise OSError(-result, f"cannot watch a connection that was accepted elsewhere: {os.strerror(-result)}")
        sock.detach()
        if ssl is not None:
            self._see_to_it()
        return int(token[0])

    def watch_ends(self, callback: Callable[[ConnectionEnd], object]) -> None:
        """Call ``callback(end)`` too for each connection that ends from now on, and was not upgraded; it cannot be taken back."""
        if not self._end_target:
            self._end_target = self.loop.add_target(self._connection_ended)
            lib.evhttp_tell_ends(self._ptr, self._end_target)
        self._end_watchers.append(callback)

    def end_connection(self, connection_id: int, *, abort: bool = False) -> None:
        """End a connection (`Request.connection_id`) when the answers that it waits for are sent, or at once with a reset.

        One that has ended already, or was upgraded, is left alone.
        """
        self.loop.submissions.append(_END.pack(0, _OP_DROP if abort else _OP_CLOSE, 0, connection_id))

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each TCP socket that listens, the real port where 0 was asked for."""
        return self._listeners.addresses

    @property
    def paths(self) -> list[str | bytes]:
        """The path of each unix socket that listens; abstract names are bytes that begin with a zero byte."""
        return self._listeners.paths

    def stats(self) -> ServerStats:
        """What was counted up to now; also after `close`, and when the loop is closed."""
        return self._counts or read_counts(self._ptr, self.connections, self._measure)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        if self.loop.is_closed():
            return 0
        count: int = lib.evhttp_connections(self._ptr)
        # Those who are accepted and not here yet are waited for at the end.
        return count + self._listeners.shaking if self._closed else count

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then drain: at most ten seconds, or until a second signal.

        In a thread other than the main one signals are left alone; end it with ``loop.stop``. After `close` it serves what is left
        and returns.
        """
        numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        for number in numbers:
            self.loop.add_signal_handler(number, self._signalled)
        try:
            self._stop_when_empty |= self._closed
            if not self._closed or self.connections:
                self.loop.run()
        finally:
            if self._grace is not None:
                self._grace.cancel()
            for number in numbers:
                self.loop.remove_signal_handler(number)
            if self._owns_loop:
                self.loop.close()

    def close(
        self,
        timeout: float | None = None,
        on_closed: Callable[[], object] | None = None,
        *,
        keep_idle: bool = False,
    ) -> None:
        """Stop listening and close idle connections; the others end with the answer they wait for, and say so in it.

        Args:
            timeout: Seconds after which those that have not ended are aborted; ``None``: never.
            on_closed: Called without arguments, on the loop, when the last connection has ended.
            keep_idle: Let each idle connection ask once more. Its client may be sending a request just now, which closing would
                lose; it is closed when this is called again without.

        Calling this again sets another timeout and another ``on_closed``, and closes the idle connections that were kept.
        """
        if self.loop.is_closed():
            return
        if on_closed is not None:
            self._on_closed = on_closed
            if self._closed and not self.connections:
                self.loop.call_soon(self._call_on_closed)
        lib.evhttp_close(self._ptr, keep_idle)
        self._closed = True
        self._listeners.close()
        self._see_to_it()
        if timeout is not None and self.connections:
            if self._grace is not None:
                self._grace.cancel()
            self._grace = self.loop.call_later(timeout, self._give_up)

    def abort(self) -> int:
        """Close, and reset every connection at once. Returns how many there were."""
        self.close()
        if self.loop.is_closed():
            return 0
        count = self.connections
        self._listeners.abort()
        lib.evhttp_abort(self._ptr)
        self._see_to_it()
        return count

    def _signalled(self) -> None:
        if self._stop_when_empty and self._grace is not None:
            self._give_up()
            return
        self._stop_when_empty = True
        self.close(_GRACE)
        if not self.connections:
            self.loop.stop()

    def _give_up(self) -> None:
        count = self.abort()
        if count:
            self._log.warning("aborted %d connections that had not ended", count)
        if self._stop_when_empty:
            self.loop.stop()

    def _see_to_it(self) -> None:
        """Make a turn come: what C was told to do between turns is done in one, and a host has to know that there is one."""
        self.loop.call_soon(_nothing)

    def _call_on_closed(self) -> None:
        callback, self._on_closed = self._on_closed, None
        if callback is not None:
            callback()

    def _loop_closes(self) -> None:
        self._counts = read_counts(self._ptr, 0, self._measure)
        self._listeners.close()
        self._closed = True

    # -- requests --------------------------------------------------------------------------------------------------------------

    def _receiver(self, made: type[Exchange]) -> Callable[[Record], Exchange]:
        """Make the function that the loop calls for each request. Everything it needs is in its cells."""
        server, loop, handler, fail, unanswered = self, self.loop, self._handler, self._fail, self._unanswered

        def receive(record: Record) -> Exchange:
            exchange = made()
            exchange._arena = loop.arena
            exchange._record = record
            exchange._server = server
            exchange._arg = 200
            exchange._lines = None
            try:
                handler(exchange, exchange)
            except Exception:
                fail(exchange)
            if exchange._lines is not SENT:
                unanswered(exchange)
            return exchange

        return receive

    def _batch_receiver(self) -> Callable[[Record], None]:
        """Make the function that the loop calls for several requests at once: a frame less for each than with `_receiver`."""
        server, loop, handler, fail, unanswered = self, self.loop, self._handler, self._fail, self._unanswered

        def receive(record: Record) -> None:
            _, offset, count, _ = record
            take(_ARRIVAL.iter_unpack(loop.arena[offset : offset + count * _ARRIVAL.size]))

        def take(records: Iterator[Record]) -> None:
            try:
                loop.pace(records, serve)
            except BaseException:
                # An interrupt: the others come before the next turn, which the arena does not outlive.
                loop.defer(take, records)
                raise

        def serve(records: Iterator[Record]) -> None:
            arena = loop.arena
            exchange = None
            for record in records:
                # One that nobody has kept serves again: to make and to drop an object is a tenth of what a hello costs.
                if exchange is None or getrefcount(exchange) != _OURS_ALONE:
                    exchange = Exchange()
                    exchange._server = server
                exchange._arena = arena  # each time: hand_over puts another one in its place
                exchange._record = record
                exchange._arg = 200
                exchange._lines = None
                try:
                    handler(exchange, exchange)
                except Exception:
                    fail(exchange)
                if exchange._lines is not SENT:
                    unanswered(exchange)

        return receive

    def _received_large(self, record: Record) -> None:
        """Give a request whose body is not in the arena an arena of its own, with the body where it would have been."""
        arena = self.loop.arena
        target, offset, info, exchange = record
        head_size, body_size, address = body_of(arena, offset)
        body = ffi.buffer(ffi.cast("char *", address), body_size)
        self.loop.arena = b"".join((arena[offset : offset + head_size], body))
        try:
            self._receive((target, 0, info, exchange))
        finally:
            self.loop.arena = arena

    def _fail(self, exchange: Exchange) -> None:
        """Answer for a handler that raised."""
        begun = type(exchange._lines) is Later and exchange._lines.begun
        if exchange.sent or begun:
            text = "exception in the handler for %s %s, after it had %s"
            self._log.exception(text, exchange.method, exchange.path, "begun to answer" if begun else "answered")
            if begun:
                exchange.drop()  # so that nobody takes a part for the whole
            return
        error = sys.exception()
        if isinstance(error, BodyError):  # the client's mistake, which the handler has left to us
            self._log.log(logging.DEBUG, "%s %s refused: %d %s", exchange.method, exchange.path, error.status, error)
            self._answer_error(exchange, error.status, str(error))
            return
        self._log.exception("exception in the handler for %s %s", exchange.method, exchange.path)
        self._answer_500(exchange)

    def _failed(self, part: Request | Response) -> None:
        """Answer for a callback of a handler's that raised."""
        assert isinstance(part, Exchange)
        self._fail(part)

    def _unanswered(self, exchange: Exchange) -> None:
        """Answer for a handler that did not, unless it will."""
        if type(exchange._lines) is Later:
            return
        self._log.error("the handler for %s %s returned without an answer", exchange.method, exchange.path)
        self._answer_500(exchange)

    def _answer_500(self, exchange: Exchange) -> None:
        self._answer_error(exchange, 500, "Internal Server Error")

    def _answer_error(self, exchange: Exchange, status: int, text: str) -> None:
        exchange._prepare().clear()
        exchange._arg = exchange._arg & CLOSE | status
        exchange.send(f"{text}\n")

    def _connection_ended(self, record: Record) -> None:
        end = end_from(self.loop.arena, record)
        for watcher in self._end_watchers:
            watcher(end)
        if self._on_connection_end is not None:
            self._on_connection_end(end)
        else:
            self._log.log(end.level, "%s", end)

    def _event(self, record: Record) -> None:
        _, offset, status, _ = record
        if status != _EVENT_EMPTY:
            arena = self.loop.arena
            family, _, port, ip, length = _REFUSED.unpack_from(arena, offset)
            reason = arena[offset + _REFUSED.size : offset + _REFUSED.size + length].decode()
            log, level = (self._access_log, logging.INFO) if self._access_log else (self._log, logging.DEBUG)
            log_refusal(log, level, self._name, address(family, ip, port), status, reason)
            return
        self._empty()

    def _empty(self) -> None:
        """The last connection has ended."""
        if self._listeners.shaking:
            self.loop.call_later(_LOOK, self._empty)
            return
        self._call_on_closed()
        if self._stop_when_empty:
            self.loop.stop()

    def _short(self, record: Record) -> None:
        _, error, shed, _ = record
        where = self._listeners.names()
        self._log.warning("cannot accept clients on %s: %s; %d were hung up on so far", where, os.strerror(error), shed)

    # -- large bodies ----------------------------------------------------------------------------------------------------------

    def _pin(self, body: bytes) -> tuple[int, int]:
        """Keep an object alive until C has sent it. Returns its number, and the target of the record that will say so."""
        self._next_pin += 1
        self._pins[self._next_pin] = body
        return self._next_pin, self._pin_target

    def _unpin(self, record: Record) -> None:
        del self._pins[record[1]]


def _nothing() -> None:
    pass
