"""What the WebSockets of one server or of one call of `upgrade` have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from evhttp import Request, Response
from evws._deflate import Codec
from evws._extensions import Deflate, agree
from evws._handshake import Origins, Refusal, answer_head, choose_subprotocol, is_allowed, read_offer
from evws._limits import Limits
from evws._pins import Pins, pins_of
from evws._socket import WebSocket

if TYPE_CHECKING:
    from evloop import Loop

__all__ = ["Endpoint", "upgrade"]

_TELL_PING, _TELL_PONG, _TELL_DRAINED, _DEFLATE = 2, 4, 8, 16

OnSocket = Callable[[WebSocket], object]
OnMessage = Callable[[WebSocket, Any], object]
OnData = Callable[[WebSocket, bytes], object]
OnClose = Callable[[WebSocket, int, str], object]
OnError = Callable[[WebSocket, Exception], object]


class Endpoint:
    """Callbacks, limits and what the handshake is decided by."""

    __slots__ = (
        "binary_type",
        "compressed_options",
        "compression",
        "limits",
        "on_close",
        "on_drain",
        "on_error",
        "on_message",
        "on_open",
        "on_ping",
        "on_pong",
        "options",
        "origins",
        "pins",
        "subprotocols",
    )

    def __init__(
        self,
        loop: Loop,
        on_message: OnMessage,
        *,
        on_open: OnSocket | None = None,
        on_close: OnClose | None = None,
        on_error: OnError | None = None,
        on_ping: OnData | None = None,
        on_pong: OnData | None = None,
        on_drain: OnSocket | None = None,
        subprotocols: Sequence[str] = (),
        origins: Origins = None,
        limits: Limits | None = None,
        compression: Deflate | None = None,
        binary_type: type[bytes] | type[memoryview] = bytes,
    ) -> None:
        if not callable(on_message):
            raise TypeError(f"on_message must be callable, not {on_message!r}")
        if binary_type not in (bytes, memoryview):
            raise ValueError(f"binary_type must be bytes or memoryview, not {binary_type!r}")
        if not (compression is None or isinstance(compression, Deflate)):
            raise TypeError(f"compression must be a Deflate or None, not {compression!r}")
        self.on_message: OnMessage = on_message
        self.on_open: OnSocket | None = on_open
        self.on_close: OnClose | None = on_close
        self.on_error: OnError | None = on_error
        self.on_ping: OnData | None = on_ping
        self.on_pong: OnData | None = on_pong
        self.on_drain: OnSocket | None = on_drain
        self.subprotocols: tuple[str, ...] = tuple(subprotocols)
        self.origins: Origins = (
            origins if origins is None or callable(origins) else tuple(name.lower() for name in origins)
        )
        self.limits: Limits = limits or Limits()
        wanted = ((on_ping, _TELL_PING), (on_pong, _TELL_PONG), (on_drain, _TELL_DRAINED))
        flags = sum(flag for callback, flag in wanted if callback is not None)
        self.options: bytes = self.limits.pack(flags)
        self.compressed_options: bytes = self.limits.pack(flags | _DEFLATE)
        self.compression: Deflate | None = compression
        self.binary_type: type[bytes] | type[memoryview] = binary_type
        self.pins: Pins = pins_of(loop)

    def accept(self, loop: Loop, request: Request, response: Response) -> WebSocket | None:
        """Answer a handshake: with a 101, or with a status that says what is wrong with it."""
        offer = read_offer(request.method, request.version, request.headers)
        if isinstance(offer, Refusal):
            if offer.status == 426:
                response.upgrade_required("websocket").header("Sec-WebSocket-Version", "13")
            response.status(offer.status).send(offer.reason + "\n")
            return None
        if not is_allowed(offer.origin, self.origins):
            response.status(403).send("this origin may not connect\n")
            return None
        subprotocol = choose_subprotocol(self.subprotocols, offer.subprotocols)
        codec, extension = None, None
        if self.compression is not None and (chosen := agree(offer.extensions, self.compression)) is not None:
            agreed, extension = chosen
            # A compressor that refers to earlier messages must not have one of them dropped.
            alone = self.limits.when_full == "drop"
            codec = Codec(self.compression, agreed, "server", messages_alone=alone)
        exchange, lines = response.hand_over()
        socket = WebSocket(loop, self, request, exchange, subprotocol, codec)
        socket._begin(exchange, answer_head(offer, subprotocol, extension, lines))
        return socket


class Options(TypedDict, total=False):
    """What `upgrade` takes beside ``on_message``."""

    on_open: OnSocket | None
    on_close: OnClose | None
    on_error: OnError | None
    on_ping: OnData | None
    on_pong: OnData | None
    on_drain: OnSocket | None
    subprotocols: Sequence[str]
    origins: Origins
    limits: Limits | None
    compression: Deflate | None
    binary_type: type[bytes] | type[memoryview]


def upgrade(
    request: Request, response: Response, *, on_message: OnMessage, **options: Unpack[Options]
) -> WebSocket | None:
    """Make a WebSocket of a request, in a handler of `evhttp.Server`: HTTP and WebSocket on one port.

    Whoever wants to refuse answers the request instead of calling this. Header fields that the response has got go into the 101.

    Args:
        request: The handler's.
        response: The handler's; it is answered when this returns.
        on_message: As for `Server`.
        **options: The other callbacks, ``subprotocols``, ``origins``, ``limits``, ``compression`` and
            ``binary_type``: as for `Server`.

    Returns:
        The WebSocket, which is open: ``on_open`` is called for it before anything else. ``None`` when the request is no WebSocket
        handshake of RFC 6455 §4.2.1 (it was answered with 400 or 426) or its origin is not allowed (403).

    Raises:
        evhttp.ResponseStateError: The response has been sent.

    Thread safety: loop thread only.
    """
    loop = response._server.loop
    return Endpoint(loop, on_message, **options).accept(loop, request, response)
