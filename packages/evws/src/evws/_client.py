"""The client: `connect`, and the WebSocket that it makes."""

from __future__ import annotations

import functools
import math
import ssl as _ssl
from collections.abc import Callable, Sequence
from struct import Struct
from typing import TYPE_CHECKING, TypedDict, Unpack

import evnet
from evhttp import Headers
from evws._attempt import Attempt, Opened, Plan
from evws._backoff import Backoff
from evws._deflate import Codec
from evws._endpoint import Endpoint, OnClose, OnData, OnError, OnMessage, OnSocket
from evws._errors import HandshakeRefusedError
from evws._extensions import Deflate
from evws._frames import CloseCode
from evws._limits import Limits
from evws._opening import HeaderFields, checked_fields, checked_subprotocols
from evws._socket import WebSocket
from evws._url import parse_proxy, parse_url

if TYPE_CHECKING:
    import os

    from evloop import Loop, TimerHandle

__all__ = ["ClientWebSocket", "Connecting", "ConnectOptions", "OnFailure", "connect"]

_ADOPT = Struct("<IHH8sI")
_OP_ADOPT = 3 << 8 | 16
# Refusals that may be over the next time: RFC 9110 §15.5.9 and §15.6, RFC 6585 §4.
_PASSING = (408, 425, 429)

OnFailure = Callable[[Exception, float | None], object]


class ClientWebSocket(WebSocket):
    """A WebSocket that we have opened; made by `connect`. It has no ``request``; it has what stands below.

    Attributes:
        url: Where it leads, after redirects, without credentials.
        headers: The header fields of the server's answer.
    """

    __slots__ = ("_connecting", "_left", "headers", "url")

    def __init__(self, loop: Loop, endpoint: Endpoint, connecting: Connecting, token: bytes, opened: Opened) -> None:
        codec = None
        if opened.agreed is not None and endpoint.compression is not None:
            # A compressor that refers to earlier messages must not have one of them dropped.
            alone = endpoint.limits.when_full == "drop"
            codec = Codec(endpoint.compression, opened.agreed, "client", messages_alone=alone)
        super().__init__(loop, endpoint, None, token, opened.subprotocol, codec)
        self._connecting = connecting
        self._left = False
        self.url: str = opened.target.url
        self.headers: Headers = opened.headers

    def _adopt(self, rest: bytes) -> None:
        endpoint = self._endpoint
        payload = (endpoint.options if self._codec is None else endpoint.compressed_options) + rest
        header = _ADOPT.pack(4 + len(payload), _OP_ADOPT, 0, self._token, self._target)
        self._loop.submissions.extend((header, payload))

    def close(self, code: int | None = CloseCode.NORMAL, reason: str = "") -> None:
        """As `WebSocket.close`; and it is not connected again."""
        super().close(code, reason)
        self._left = True

    def abort(self) -> None:
        """As `WebSocket.abort`; and it is not connected again."""
        self._left = True
        super().abort()

    def _callback_failed(self) -> None:
        WebSocket.close(self, CloseCode.INTERNAL_ERROR, "exception in a handler")

    def _lost(self, cause: int) -> None:
        try:
            super()._lost(cause)
        finally:
            self._connecting._lost(self)

    def _peer(self) -> str:
        return self.url


class Connecting(evnet.Pending[ClientWebSocket]):
    """A WebSocket that is being opened; `connect` returns it. Its result is the `ClientWebSocket`, whose ``on_open`` comes first.

    If it fails, `exception` is:

    * an `OSError` as of `evnet.connect_tcp`, or `TimeoutError` if it took longer than ``timeout``, which says how far it got;
    * `HandshakeRefusedError`, if the server or the proxy has answered with another status;
    * `HandshakeError`, if the answer breaks a rule of RFC 6455 §4.1, is no HTTP, does not come, or redirects too often.

    With ``reconnect`` it goes on after the first success: `socket` is the present one.
    """

    __slots__ = (
        "_attempt",
        "_backoff",
        "_endpoint",
        "_failures",
        "_on_failure",
        "_opened_at",
        "_plan",
        "_timer",
        "socket",
    )

    def __init__(
        self, loop: Loop, endpoint: Endpoint, plan: Plan, backoff: Backoff | None, on_failure: OnFailure | None
    ) -> None:
        super().__init__(loop)
        self._endpoint = endpoint
        self._plan = plan
        self._backoff = backoff
        self._on_failure = on_failure
        self._failures = 0
        self._opened_at = 0.0
        self._attempt: Attempt | None = None
        self._timer: TimerHandle | None = None
        self.socket: ClientWebSocket | None = None
        """The WebSocket that is open or closing; ``None`` while there is none."""
        endpoint.pins.clients.add(self)
        try:
            self._try()
        except BaseException:
            self._end()
            raise

    def close(self, code: int | None = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the WebSocket, or give up opening it, and do not connect again. Arguments and errors: as of `WebSocket.close`."""
        if self.socket is not None:
            self.socket.close(code, reason)
        self.cancel()
        self._end()

    def _try(self) -> None:
        self._timer = None
        self._attempt = Attempt(self._loop, self._plan, self._attempted)

    def _attempted(self, outcome: Opened | Exception) -> None:
        self._attempt = None
        if isinstance(outcome, Exception):
            self._failed(outcome)
            return
        try:
            outcome.connection.hand_over(lambda token, rest: self._take(outcome, token, rest), outcome.rest)
        except evnet.ConnectionClosedError as error:
            self._failed(ConnectionError(f"connection with {outcome.target.url} lost: {error}"))

    def _take(self, opened: Opened, token: bytes, rest: bytes) -> None:
        before = self.socket
        socket = self.socket = ClientWebSocket(self._loop, self._endpoint, self, token, opened)
        socket._adopt(rest)
        if self.cancelled() or self not in self._endpoint.pins.clients:  # meanwhile
            socket.abort()
            return
        if before is not None:
            socket.context = before.context
        self._opened_at = self._loop.time()
        try:
            socket._opened()
        finally:
            if not self.done():
                self._finish(socket)

    def _lost(self, socket: ClientWebSocket) -> None:
        if socket is not self.socket or self not in self._endpoint.pins.clients:
            return
        if socket._left or self._backoff is None:
            self.socket = None
            self._end()
            return
        if self._loop.time() - self._opened_at >= self._backoff.stable:
            self._failures = 0
        code = socket.close_code
        self._failed(ConnectionError(f"connection with {socket.url} ended with close code {code}"))

    def _failed(self, error: Exception) -> None:
        """Wait for the next attempt, or give up."""
        self._failures += 1
        delay = self._backoff.delay(self._failures) if self._backoff is not None and _is_passing(error) else None
        if delay is not None:
            self._timer = self._loop.call_later(delay, self._try_again)
        else:
            self._end()
        try:
            if self._on_failure is not None:
                self._on_failure(error, delay)
        finally:
            if delay is None and not self.done():
                self._fail(error)

    def _try_again(self) -> None:
        try:
            self._try()
        except (OSError, ValueError) as error:
            self._failed(error)

    def _end(self) -> None:
        """Nothing more is begun."""
        self._endpoint.pins.clients.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None

    def _release(self) -> None:
        if self.cancelled():
            self._end()

    def __repr__(self) -> str:
        return f"<Connecting to {self._plan.target.url} {self._state}>"


@functools.cache
def _default_context() -> _ssl.SSLContext:
    # Once: it takes milliseconds to read the certificates of the system.
    return _ssl.create_default_context()


def _is_passing(error: Exception) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(error, _ssl.SSLCertVerificationError):
        return False
    if isinstance(error, HandshakeRefusedError):
        return error.status >= 500 or error.status in _PASSING
    return isinstance(error, OSError)


class ConnectOptions(TypedDict, total=False):
    """What `connect` takes beside ``on_message``."""

    on_open: OnSocket | None
    on_close: OnClose | None
    on_error: OnError | None
    on_ping: OnData | None
    on_pong: OnData | None
    on_drain: OnSocket | None
    headers: HeaderFields
    subprotocols: Sequence[str]
    limits: Limits | None
    compression: Deflate | None
    binary_type: type[bytes] | type[memoryview]
    timeout: float
    redirects: int
    proxy: str | None
    unix_path: str | bytes | os.PathLike[str] | None
    resolver: evnet.Resolver | None
    ssl: _ssl.SSLContext | None
    server_hostname: str | None
    reconnect: Backoff | None
    on_failure: OnFailure | None


def connect(loop: Loop, url: str, *, on_message: OnMessage, **options: Unpack[ConnectOptions]) -> Connecting:
    """Open a WebSocket (RFC 6455 §4.1).

    Args:
        loop: The loop that serves it.
        url: ``ws://[user:password@]host[:port]/path?query``, or ``wss://`` for TLS.
        on_message: ``on_message(ws, message)``: ``str`` for text, ``bytes`` for binary.
        **options: Optional, all of them:

            ``on_open``, ``on_close``, ``on_error``, ``on_ping``, ``on_pong``, ``on_drain``, ``limits``, ``compression``,
            ``binary_type``: as for `Server`.

            ``headers``: fields for the request, a mapping or pairs, such as Origin or Cookie. Host may be among them, what belongs
            to the handshake may not.

            ``subprotocols``: those that we speak, the one we like best first.

            ``timeout``: seconds for all of one attempt: look-up, connection, handshake, redirects. Default: 10.

            ``redirects``: how many are followed; 0, the default: none. A stranger is told neither cookies nor passwords.

            ``proxy``: ``http://[user:password@]host[:port]``, which is asked for a tunnel by CONNECT.

            ``unix_path``: a unix socket to connect to; the URL says what to ask for.

            ``resolver``: as for `evnet.connect_tcp`.

            ``ssl``: the context for ``wss://``; by default what `ssl.create_default_context` makes, once for all.
            ``server_hostname``: what the certificate must be for, by default the host of the URL.

            ``reconnect``: a `Backoff`: try again when it fails, and connect again when it ends, until `Connecting.close`,
            `ClientWebSocket.close` or `abort` is called. Each connection is a new object, for which ``on_open`` is called, with
            the ``context`` of the one before. Refusals that mean us (such as 404) and answers that are no handshake end it.

            ``on_failure``: ``on_failure(error, delay)`` for each attempt that fails and, with ``reconnect``, each connection that
            ends; the next attempt is ``delay`` seconds later, or never (``None``).

    Returns:
        A `Connecting`, which says how a failure is reported.

    Raises:
        ValueError: The URL is none, or an option is out of range.
        TypeError: An option is of another kind.
        evloop.LoopClosedError: The loop is closed.

    Thread safety: loop thread only.
    """
    loop.address  # noqa: B018 - raises if the loop is closed
    timeout, redirects = options.pop("timeout", 10.0), options.pop("redirects", 0)
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be a number of seconds > 0, not {timeout!r}")
    if redirects < 0:
        raise ValueError(f"redirects must be a number >= 0, not {redirects!r}")
    proxy, unix_path = options.pop("proxy", None), options.pop("unix_path", None)
    if proxy is not None and unix_path is not None:
        raise ValueError("a unix socket is not reached through a proxy")
    context = options.pop("ssl", None)
    if context is not None and not isinstance(context, _ssl.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext, not {context!r}")
    plan = Plan(
        parse_url(url),
        checked_fields(options.pop("headers", ())),
        checked_subprotocols(options.pop("subprotocols", ())),
        timeout,
        redirects,
        None if proxy is None else parse_proxy(proxy),
        unix_path,
        options.pop("resolver", None),
        options.get("compression"),
        _default_context if context is None else lambda: context,
        options.pop("server_hostname", None),
    )
    reconnect, on_failure = options.pop("reconnect", None), options.pop("on_failure", None)
    endpoint = Endpoint(loop, on_message, **options)  # type: ignore[misc] # what is left is what it takes
    return Connecting(loop, endpoint, plan, reconnect, on_failure)
