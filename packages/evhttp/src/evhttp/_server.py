"""The server: what a request meets on its way from the arena to the handler."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable
from struct import Struct
from time import perf_counter
from typing import Any

import evnet
from evhttp import _link as _link
from evhttp._errors import EvHttpError
from evhttp._exchange import Exchange
from evhttp._limits import Limits
from evhttp._request import Request, address, body_of
from evhttp._response import SENT, Response
from evhttp._shim import ffi, lib
from evloop import Loop, Record, TimerHandle

__all__ = ["Handler", "Server"]

logger = logging.getLogger("evhttp")

Handler = Callable[[Request, Response], object]

_REFUSED = Struct("<BBH16sI")
_EVENT_EMPTY = 0
_GRACE = 10.0


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
        access_log: A logger that gets one INFO record per answer; ``None`` costs nothing.

    Thread safety: loop thread only.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        loop: Loop | None = None,
        limits: Limits | None = None,
        access_log: logging.Logger | None = None,
    ) -> None:
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {handler!r}")
        self._handler = handler
        self._owns_loop = loop is None
        self.loop = Loop() if loop is None else loop
        self.limits = limits or Limits()
        self._access_log = access_log
        self._sockets: list[socket.socket] = []
        self._pins: dict[int, bytes] = {}
        self._next_pin = 0
        self._closed = False
        self._stop_when_empty = False
        self._grace: TimerHandle | None = None
        receive = self._receiver()
        self._receive = receive if access_log is None else self._logged(receive)
        self._target = self.loop.add_target(self._receive)
        self._large_target = self.loop.add_target(self._received_large)
        self._event_target = self.loop.add_target(self._event)
        self._pin_target = self.loop.add_target(self._unpin)
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
        timeouts = {name: limits.milliseconds(f"{name}_timeout") for name in ("head", "body", "idle", "write")}
        out = ffi.new("struct evh_server **")
        result = lib.evhttp_open(
            self.loop.address,
            self._target,
            self._large_target,
            self._event_target,
            c_limits,
            ffi.new("struct evh_timeouts *", timeouts),
            limits.max_pipeline,
            out,
        )
        if result < 0:
            raise OSError(-result, "cannot open a server")
        return out[0]

    # -- life ------------------------------------------------------------------------------------------------------------------

    def listen(
        self, host: str | None = None, port: int = 8000, *, backlog: int = 1024, reuse_port: bool = False
    ) -> Server:
        """Listen on an address; may be called several times.

        Args:
            host: A name or address; ``None`` means every interface.
            port: 0 lets the system choose; see `addresses`.
            backlog: Connections that the kernel may hold for us.
            reuse_port: Let servers in other threads or processes listen on the same port.

        Returns:
            The server itself.

        Raises:
            OSError: The address cannot be bound; the message names it.
            EvHttpError: The server is closed.
            evloop.LoopClosedError: Its loop is.
        """
        self.loop.address  # noqa: B018 - raises when the loop is closed, and C's server with it
        if self._closed:
            raise EvHttpError("the server is closed")
        bound = evnet.bind_tcp(host, port, backlog=backlog, reuse_port=reuse_port)
        self._sockets += bound
        for sock in bound:
            result = lib.evhttp_listen(self._ptr, sock.fileno())
            if result < 0:
                raise OSError(-result, f"cannot watch the socket that listens on {sock.getsockname()}")
        return self

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket, the real port where 0 was asked for."""
        return [sock.getsockname()[:2] for sock in self._sockets]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return 0 if self.loop.is_closed() else lib.evhttp_connections(self._ptr)

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
            if self._grace is not None:
                self._grace.cancel()
            for number in numbers:
                self.loop.remove_signal_handler(number)
            if self._owns_loop:
                self.loop.close()

    def close(self) -> None:
        """Stop listening and close idle connections; the others end with the answer they wait for, and say so in it.

        Calling this again does nothing.
        """
        if not self._closed:
            self._closed = True
            lib.evhttp_close(self._ptr)
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()

    def abort(self) -> int:
        """Close, and reset every connection at once. Returns how many there were."""
        self.close()
        return 0 if self.loop.is_closed() else lib.evhttp_abort(self._ptr)

    def _signalled(self) -> None:
        if self._closed:
            self._give_up()
            return
        self._stop_when_empty = True
        self.close()
        self._grace = self.loop.call_later(_GRACE, self._give_up)

    def _give_up(self) -> None:
        count = self.abort()
        if count:
            logger.warning("aborted %d connections that had not ended", count)
        self.loop.stop()

    def _loop_closes(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        self._closed = True

    # -- requests --------------------------------------------------------------------------------------------------------------

    def _receiver(self) -> Callable[[Record], Exchange]:
        """Make the function that the loop calls for each request. Everything it needs is in its cells."""
        server, loop, handler, fail, unanswered = self, self.loop, self._handler, self._fail, self._unanswered

        def receive(record: Record) -> Exchange:
            exchange = Exchange()
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

    def _logged(self, receive: Callable[[Record], Exchange]) -> Callable[[Record], Exchange]:
        """Wrap ``receive`` so that it writes the access log."""
        log = self._access_log
        assert log is not None

        def receive_and_log(record: Record) -> Exchange:
            start = perf_counter()
            exchange = receive(record)
            duration = perf_counter() - start
            client = exchange.client
            log.info(
                '%s "%s %s HTTP/%s" %d %d %.3fms',
                client[0] if client else "-",
                exchange.method,
                # The parser lets visible ASCII through and nothing else; a quote would end the field early.
                exchange.target.replace('"', "%22"),
                exchange.version,
                exchange.status_code,
                exchange._size,
                duration * 1000,
            )
            return exchange

        return receive_and_log

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
        if exchange.sent:
            text = "exception in the handler for %s %s, after it had answered"
            logger.exception(text, exchange.method, exchange.path)
            return
        logger.exception("exception in the handler for %s %s", exchange.method, exchange.path)
        self._answer_500(exchange)

    def _unanswered(self, exchange: Exchange) -> None:
        """Answer for a handler that did not."""
        logger.error("the handler for %s %s returned without an answer", exchange.method, exchange.path)
        self._answer_500(exchange)

    def _answer_500(self, exchange: Exchange) -> None:
        exchange._lines = None
        exchange._arg = 500
        exchange.send("Internal Server Error\n")

    def _event(self, record: Record) -> None:
        _, offset, status, _ = record
        if status != _EVENT_EMPTY:
            arena = self.loop.arena
            family, _, port, ip, length = _REFUSED.unpack_from(arena, offset)
            reason = arena[offset + _REFUSED.size : offset + _REFUSED.size + length].decode()
            client = address(family, ip, port)
            log = self._access_log or logger
            level = logging.INFO if self._access_log else logging.DEBUG
            log.log(level, "%s refused: %d %s", client[0] if client else "-", status, reason)
        elif self._stop_when_empty:
            self.loop.stop()

    # -- large bodies ----------------------------------------------------------------------------------------------------------

    def _pin(self, body: bytes) -> tuple[int, int]:
        """Keep an object alive until C has sent it. Returns its number, and the target of the record that will say so."""
        self._next_pin += 1
        self._pins[self._next_pin] = body
        return self._next_pin, self._pin_target

    def _unpin(self, record: Record) -> None:
        del self._pins[record[1]]
