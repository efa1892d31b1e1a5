"""The server: evhttp's, whose requests become WebSockets."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import evhttp
from evhttp import Handler, Request, Response
from evloop import Loop
from evws._endpoint import Endpoint, OnClose, OnData, OnError, OnMessage, OnSocket
from evws._extensions import Deflate
from evws._handshake import Origins
from evws._limits import Limits

__all__ = ["Server"]


class Server(evhttp.Server):
    r"""A WebSocket server (RFC 6455): its callbacks are called on the loop's thread.

    ::

        def echo(ws, message):
            ws.send(message)

        evws.Server(on_message=echo).listen("127.0.0.1", 8765).run()

    `listen`, `run`, `close`, `abort`, `addresses` and `connections` are those of `evhttp.Server`. ``close`` tells every WebSocket
    that we are going away (code 1001), and ``run`` ends when the last has closed, or when it has waited ten seconds.

    Args:
        on_message: ``on_message(ws, message)``: ``str`` for text, ``bytes`` for binary (or see ``binary_type``).
        on_open: ``on_open(ws)``: the handshake is answered. Before anything else.
        on_close: ``on_close(ws, code, reason)``: the connection is gone. The code is the peer's, or 1005 or 1006 (RFC 6455
            §7.1.5). After everything else, once, in every case.
        on_error: ``on_error(ws, error)``: the connection ends because of a `PeerError`, a `QueueFullError` or an `OSError`.
        on_ping: ``on_ping(ws, payload)``: a ping came; it has been answered.
        on_pong: ``on_pong(ws, payload)``: a pong came, but not for those of ``ping_interval``.
        on_drain: ``on_drain(ws)``: the kernel has taken all of what it had refused; see `WebSocket.buffered_amount`.
        handler: Answers requests that are no WebSocket handshakes; by default they get 426.
        subprotocols: Those that we speak, the one we like best first.
        origins: Pages of which origins may connect: ``None`` for all, a list such as ``["https://example.org"]``, or a function of
            the origin, which is ``None`` where the client is no browser. Others get 403.
        limits: What peers may send, and our patience; see `Limits`.
        compression: How messages are compressed for clients that offer it (RFC 7692); ``None``: not at all.
        binary_type: What a binary message is given as: ``bytes``, or ``memoryview``, which spares a copy. It is read-only, may be
            kept, and keeps as long the memory that it lies in: with a small message that of all that came in the same turn.
        http_limits: The same for the requests before the WebSockets: ``head_timeout`` is that of the handshake, and
            ``max_handshakes`` caps how many may be under way: further clients wait in the kernel's queue.
        loop: The loop to serve on; by default a loop of its own, which `run` closes.
        access_log: A logger that gets one INFO record per request; ``None`` costs nothing.

    An exception in a callback goes to the loop's exception handler, and the WebSocket is closed with code 1011.
    """

    def __init__(
        self,
        *,
        on_message: OnMessage,
        on_open: OnSocket | None = None,
        on_close: OnClose | None = None,
        on_error: OnError | None = None,
        on_ping: OnData | None = None,
        on_pong: OnData | None = None,
        on_drain: OnSocket | None = None,
        handler: Handler | None = None,
        subprotocols: Sequence[str] = (),
        origins: Origins = None,
        limits: Limits | None = None,
        compression: Deflate | None = None,
        binary_type: type[bytes] | type[memoryview] = bytes,
        http_limits: evhttp.Limits | None = None,
        loop: Loop | None = None,
        access_log: logging.Logger | None = None,
    ) -> None:
        super().__init__(self._handle, loop=loop, limits=http_limits, access_log=access_log)
        self._other = handler
        self._endpoint = Endpoint(
            self.loop,
            on_message,
            on_open=on_open,
            on_close=on_close,
            on_error=on_error,
            on_ping=on_ping,
            on_pong=on_pong,
            on_drain=on_drain,
            subprotocols=subprotocols,
            origins=origins,
            limits=limits,
            compression=compression,
            binary_type=binary_type,
        )

    def _handle(self, request: Request, response: Response) -> None:
        if self._other is not None and "websocket" not in request.headers.get("upgrade", "").lower():
            self._other(request, response)
        else:
            self._endpoint.accept(self.loop, request, response)
