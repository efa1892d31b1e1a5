"""One attempt to open a WebSocket: connect, through a proxy if need be, ask, and follow redirects."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import evnet
from evhttp import Headers, ResponseParser
from evhttp import Limits as HttpLimits
from evws._errors import HandshakeError, HandshakeRefusedError
from evws._extensions import Agreed, Deflate, offer_of
from evws._opening import check_agreement, connect_head, new_key, request_head
from evws._url import Target, redirected

if TYPE_CHECKING:
    import os
    import ssl

    from evloop import Loop

__all__ = ["Attempt", "Opened", "Plan"]

_BODY_MOST = 65536  # of a refusal, for its reader
_INTERIM_MOST = 10
_LIMITS = HttpLimits(max_body_size=1 << 30)
_REDIRECTS = (301, 302, 303, 307, 308)
_SECRETS = ("authorization", "cookie", "proxy-authorization")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of whom: the arguments of `connect`, checked."""

    target: Target
    fields: list[tuple[str, str]]
    subprotocols: tuple[str, ...]
    timeout: float
    redirects: int
    proxy: Target | None
    unix_path: str | bytes | os.PathLike[str] | None
    resolver: evnet.Resolver | None
    compression: Deflate | None
    context: Callable[[], ssl.SSLContext]
    server_hostname: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """What has come of it.

    Attributes:
        connection: Whose stream speaks WebSocket from now on.
        rest: What has come behind the 101.
        target: Where we are, after redirects.
        headers: Of the 101.
        subprotocol: The one that was agreed on.
        agreed: What was agreed on about compression; ``None``: there is none.
    """

    connection: evnet.Connection
    rest: bytes
    target: Target
    headers: Headers
    subprotocol: str | None
    agreed: Agreed | None


class Attempt:
    """Tries once, and calls ``done(outcome)`` with an `Opened` or an exception; never before the constructor has returned.

    `cancel` releases everything; then nothing is called.
    """

    __slots__ = ("_dialling", "_done", "_exchange", "_loop", "_plan", "_redirects", "_timer", "fields", "target")

    def __init__(self, loop: Loop, plan: Plan, done: Callable[[Opened | Exception], object]) -> None:
        self._loop = loop
        self._plan = plan
        self._done: Callable[[Opened | Exception], object] | None = done
        self._redirects = 0
        self.target = plan.target
        self.fields = plan.fields
        self._exchange: _Exchange | None = None
        self._dialling: evnet.Connecting | None = None
        self._timer = loop.call_later(plan.timeout, self._time_out)
        try:
            self._dial()
        except BaseException:
            self._timer.cancel()
            raise

    def cancel(self) -> None:
        """Give up."""
        self._done = None
        self._release()

    def _release(self) -> None:
        self._timer.cancel()
        if self._dialling is not None:
            self._dialling.cancel()
        if self._exchange is not None:
            self._exchange.leave()

    def _finish(self, outcome: Opened | Exception) -> None:
        done, self._done = self._done, None
        if isinstance(outcome, Opened):
            self._exchange = None  # what it holds belongs to somebody else now
        self._release()
        if done is not None:
            done(outcome)

    def _dial(self) -> None:
        plan = self._plan
        exchange = self._exchange = _Exchange(self)
        target = self.target
        name = target.host if plan.server_hostname is None else plan.server_hostname
        tls: dict[str, Any] = {}
        if target.scheme == "wss" and plan.proxy is None:
            tls = {"ssl": plan.context(), "server_hostname": name}
        # The timeout is ours: it is for the handshakes, too.
        if plan.unix_path is not None:
            self._dialling = evnet.connect_unix(self._loop, lambda: exchange, plan.unix_path, **tls)
        else:
            host, port = (plan.proxy or target)[2:4]
            self._dialling = evnet.connect_tcp(self._loop, lambda: exchange, host, port, resolver=plan.resolver, **tls)
        self._dialling.add_done_callback(self._dialled)

    def _dialled(self, dialling: evnet.Connecting) -> None:
        if self._done is None or dialling is not self._dialling or dialling.cancelled():
            return
        self._dialling = None
        error = dialling.exception()
        if error is not None:
            self._finish(error if isinstance(error, Exception) else ConnectionError(str(error)))

    def _time_out(self) -> None:
        where = "connecting" if self._exchange is None else self._exchange.progress
        text = f"no WebSocket at {self.target.url} within {self._plan.timeout:g} s: {where}"
        self._finish(TimeoutError(errno.ETIMEDOUT, text))

    # -- what the exchange tells -----------------------------------------------------------------------------------------------

    @property
    def proxy(self) -> Target | None:
        """The proxy that has to be asked first."""
        return self._plan.proxy

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """Those that are offered."""
        return self._plan.subprotocols

    @property
    def compression(self) -> Deflate | None:
        """What is offered."""
        return self._plan.compression

    def begin_tls(self, exchange: _Exchange, connection: evnet.Connection) -> None:
        """Go on with TLS, in the tunnel that a proxy has made."""
        name = self.target.host if self._plan.server_hostname is None else self._plan.server_hostname

        def shaken(pending: evnet.Pending[evnet.Connection]) -> None:
            error = None if pending.cancelled() else pending.exception()
            if error is None:
                exchange.secured()
            else:
                exchange.forget()
                self.ended(exchange, error if isinstance(error, Exception) else ConnectionError(str(error)))

        connection.start_tls(self._plan.context(), server_hostname=name).add_done_callback(shaken)

    def ended(self, exchange: _Exchange, outcome: Opened | Exception) -> None:
        """Take the outcome of an exchange."""
        if exchange is self._exchange:
            self._finish(outcome)

    def refused(self, exchange: _Exchange, status: int, headers: Headers, body: bytes) -> None:
        """Take another status than 101: go where the server sends us, if we may."""
        if exchange is not self._exchange:
            return
        location = headers.get("location")
        if status not in _REDIRECTS or location is None or not self._plan.redirects:
            self._finish(HandshakeRefusedError(self.target.url, status, headers, body))
            return
        if self._redirects == self._plan.redirects:
            self._finish(HandshakeError(f"{self._plan.target.url} redirects more than {self._redirects} times"))
            return
        try:
            target = redirected(self.target, location)
        except ValueError as error:
            self._finish(HandshakeError(f"{self.target.url} redirects to what is no place for us: {error}"))
            return
        if (target.host, target.port, target.scheme) != (self.target.host, self.target.port, self.target.scheme):
            # Who is redirected to a stranger does not tell him the password.
            self.fields = [(name, value) for name, value in self.fields if name.lower() not in _SECRETS]
        self._redirects += 1
        self.target = target
        exchange.leave()
        try:
            self._dial()
        except (OSError, ValueError) as error:
            self._finish(error)


class _Exchange:
    """The protocol of one connection until it speaks WebSocket: a request and its answer, or two with a proxy."""

    __slots__ = ("_attempt", "_interim", "_key", "_parser", "_transport", "_tunnelled", "progress")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._transport: Any = None
        self._tunnelled = attempt.proxy is None
        self._interim = 0
        self._key = ""
        self._parser: ResponseParser
        self.progress = "there is no connection yet"

    def leave(self) -> None:
        """End the connection, if there is one; nothing is told any more."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.abort()

    def forget(self) -> None:
        """Leave the connection to itself: it ends, but the server has to hear first why there is no TLS."""
        self._transport = None

    def _ask(self) -> None:
        attempt = self._attempt
        if not self._tunnelled and attempt.proxy is not None:
            self.progress = "the proxy has not answered"
            self._parser = ResponseParser("CONNECT", limits=_LIMITS)
            self._transport.write(connect_head(attempt.target, attempt.proxy))
            return
        self.progress = "the server has not answered"
        self._parser = ResponseParser(limits=_LIMITS)
        self._key = new_key()
        extensions = "" if attempt.compression is None else offer_of(attempt.compression)
        head = request_head(attempt.target, self._key, attempt.subprotocols, attempt.fields, extensions)
        self._transport.write(head)

    def secured(self) -> None:
        """The tunnel has TLS now."""
        if self._transport is not None:
            self._ask()

    def _fail(self, error: Exception) -> None:
        self._attempt.ended(self, error)

    # -- asyncio's methods -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: evnet.Connection) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._parser.feed(data)
        self._look()

    def eof_received(self) -> bool:
        if self._transport is not None:
            self._parser.feed_eof()
            if self._parser.is_complete:
                self._look()
            else:
                self._fail(HandshakeError(f"{self._who()} closed the connection: {self.progress}"))
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._fail(error or HandshakeError(f"{self._who()} closed the connection: {self.progress}"))

    def pause_writing(self) -> None:
        """Nothing is written that could be paused."""

    def resume_writing(self) -> None:
        """The same."""

    # -- answers ---------------------------------------------------------------------------------------------------------------

    def _who(self) -> str:
        proxy = self._attempt.proxy
        return self._attempt.target.url if self._tunnelled or proxy is None else f"the proxy {proxy.url}"

    def _look(self) -> None:
        parser = self._parser
        while parser.is_complete and 100 <= parser.status_code < 200 and parser.status_code != 101:
            self._interim += 1
            if self._interim > _INTERIM_MOST:
                self._fail(HandshakeError(f"{self._who()} does not come to an answer"))
                return
            parser.reset()
        if (error := parser.error) is not None:
            self._fail(HandshakeError(f"what {self._who()} answers is no HTTP: {error}"))
        elif parser.is_complete or (parser.phase == "body" and len(parser.body) >= _BODY_MOST):
            self._answered(parser)

    def _answered(self, parser: ResponseParser) -> None:
        status, headers = parser.status_code, parser.headers
        if not self._tunnelled:
            if not 200 <= status < 300:
                self._fail(HandshakeRefusedError(self._who(), status, headers, parser.body[:_BODY_MOST]))
            elif parser.remaining:
                self._fail(HandshakeError(f"{self._who()} sends more than its answer"))
            else:
                self._tunnelled = True
                if self._attempt.target.scheme == "wss":
                    self.progress = "TLS is being negotiated"
                    self._attempt.begin_tls(self, self._transport)
                else:
                    self._ask()
        elif status != 101:
            self._attempt.refused(self, status, headers, parser.body[:_BODY_MOST])
        elif parser.version != "1.1":
            self._fail(HandshakeError(f"{self._who()} answers in HTTP/{parser.version}"))
        else:
            try:
                attempt = self._attempt
                chosen = check_agreement(headers, self._key, attempt.subprotocols, attempt.compression)
            except HandshakeError as error:
                self._fail(error)
                return
            opened = Opened(self._transport, parser.remaining, attempt.target, headers, *chosen)
            self._attempt.ended(self, opened)
