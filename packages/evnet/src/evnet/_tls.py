"""TLS: a session makes the handshake of one stream, and whatever of TLS is not done in the turn (`tls.h`).

Python's `ssl.SSLObject` between two `ssl.MemoryBIO` is driven by records: what the peer has sent comes up, what it is to get goes
down. When the handshake is done, OpenSSL takes over in the turn, on the same object; or, where that cannot be, the session goes on.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from struct import Struct
from typing import TYPE_CHECKING, Any

from evnet import _link as _link
from evnet._errors import ConnectionClosedError
from evnet._openssl import engine_name, pointer_of
from evnet._options import milliseconds

if TYPE_CHECKING:
    from evloop import Loop, Record, TimerHandle

__all__ = [
    "HANDSHAKE_TIMEOUT",
    "SHUTDOWN_TIMEOUT",
    "Session",
    "TlsAcceptor",
    "TlsSettings",
    "client_settings",
    "server_settings",
]

logger = logging.getLogger("evnet")

HANDSHAKE_TIMEOUT = 60.0  # asyncio's
SHUTDOWN_TIMEOUT = 30.0

_HEADER = Struct("<IHH8s")
_START = Struct("<IHH8sII")
_OPEN = Struct("<IHH8sQ")
_NET = 1 << 8
_OP_START, _OP_SEND, _OP_OPEN, _OP_FEED, _OP_PLAIN, _OP_EOF, _OP_FAIL = (_NET | op for op in range(96, 103))
_SEALED, _ENDED = 1, 2
_EOF, _CLOSED, _NEW, _END, _BROKEN, _SEAL = 0, -1, -4, -5, -6, -16

_READ_SIZE = 256 * 1024
_REASON_MOST = 256


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """What a session begins with; checked by `client_settings` and `server_settings`."""

    context: ssl.SSLContext
    server_side: bool
    server_hostname: str | None
    handshake_timeout: float
    shutdown_timeout: float

    def __post_init__(self) -> None:
        # Found out here and not in the first handshake: by then there may be no descriptor left for what it has to load.
        engine_name()


def server_settings(
    context: ssl.SSLContext | None, handshake_timeout: float | None, shutdown_timeout: float | None
) -> TlsSettings | None:
    """What a server's options say; ``None``: no TLS.

    Raises:
        TypeError: This is no context.
        ValueError: A timeout is not positive, or given without a context.
    """
    if context is None:
        _refuse_without(handshake_timeout, shutdown_timeout)
        return None
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext or None, not {context!r}")
    return TlsSettings(context, True, None, *_timeouts(handshake_timeout, shutdown_timeout))


def client_settings(
    context: ssl.SSLContext | bool | None,
    server_hostname: str | None,
    host: str | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
) -> TlsSettings | None:
    """What a client's options say; ``None``: no TLS. Raises: as `server_settings`."""
    if context is None or context is False:
        _refuse_without(handshake_timeout, shutdown_timeout)
        if server_hostname is not None:
            raise ValueError("server_hostname is only meaningful with ssl")
        return None
    if context is True:
        context = ssl.create_default_context()
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext, True or None, not {context!r}")
    if server_hostname is None:
        if host is None:
            raise ValueError(
                "server_hostname must be given with ssl when there is no host; an empty one is not checked"
            )
        server_hostname = host
    if not server_hostname and context.check_hostname:
        raise ValueError("server_hostname is empty, but the context checks it")
    if host is None or server_hostname is not host:  # else the resolver has its say
        _check_name(server_hostname)
    return TlsSettings(context, False, server_hostname or None, *_timeouts(handshake_timeout, shutdown_timeout))


def _check_name(name: str) -> None:
    """Raise ValueError for what the ssl module would refuse when the connection is there."""
    try:
        encoded = name.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"server_hostname is not a host name: {error}: {name!r}") from None
    if b"\0" in encoded:
        raise ValueError(f"server_hostname is not a host name: it has a null character: {name!r}")


def _refuse_without(handshake_timeout: float | None, shutdown_timeout: float | None) -> None:
    if handshake_timeout is not None or shutdown_timeout is not None:
        raise ValueError("ssl_handshake_timeout and ssl_shutdown_timeout are only meaningful with ssl")


def _timeouts(handshake_timeout: float | None, shutdown_timeout: float | None) -> tuple[float, float]:
    handshake = HANDSHAKE_TIMEOUT if handshake_timeout is None else handshake_timeout
    shutdown = SHUTDOWN_TIMEOUT if shutdown_timeout is None else shutdown_timeout
    milliseconds("ssl_handshake_timeout", handshake)
    milliseconds("ssl_shutdown_timeout", shutdown)
    return handshake, shutdown


class Session:
    """TLS on one stream.

    ``done(session)`` is called once: when the handshake is over, ``error`` saying how, or when the stream has ended before.

    Thread safety: loop thread only.
    """

    __slots__ = (
        "_done",
        "_incoming",
        "_loop",
        "_outgoing",
        "_shaking",
        "_target",
        "_timer",
        "_token",
        "_unsealed",
        "engine",
        "error",
        "registry",
        "settings",
        "sslobject",
    )

    def __init__(self, loop: Loop, token: bytes, settings: TlsSettings, done: Callable[[Session], object]) -> None:
        self._loop = loop
        self._token = token
        self.settings: TlsSettings = settings
        self._done: Callable[[Session], object] | None = done
        self.error: Exception | None = None
        self.engine: str = ""
        self.registry: dict[bytes, Session] | None = None  # that forgets it when the stream is gone
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.sslobject: ssl.SSLObject = settings.context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=settings.server_side,
            server_hostname=settings.server_hostname,
        )
        self._shaking = True
        self._unsealed: memoryview | None = None  # of what C has asked to encrypt
        self._timer: TimerHandle | None = None
        if settings.handshake_timeout != math.inf:
            self._timer = loop.call_later(settings.handshake_timeout, self._too_late)
        self._target = loop.add_target(self._event)
        shutdown_ms = milliseconds("ssl_shutdown_timeout", settings.shutdown_timeout) or 0xFFFF_FFFF
        loop.submissions.append(_START.pack(8, _OP_START, 0, token, self._target, shutdown_ms))
        if not settings.server_side:
            self._shake()

    # -- what C tells ----------------------------------------------------------------------------------------------------------

    def _event(self, record: Record) -> None:
        _, a, b, _ = record
        if b > 0:
            self.feed(self._loop.arena_view[a : a + b])
        elif b == _EOF:
            self.feed(b"")
        elif b <= _SEAL:
            self._seal(self._loop.arena_view[a : a - b + _SEAL])
        elif b == _END:
            self._end()
        elif b == _BROKEN:
            self._broken(self._loop.arena_view[a : a + _REASON_MOST].split(b"\0")[0].decode("ascii", "replace"))
        elif b == _CLOSED:
            self._closed(a)

    def feed(self, data: bytes) -> None:
        """Take what the peer has sent; ``b""``: it has shut down its side."""
        if self.error is not None:
            return
        if self._shaking:
            if data:
                self._incoming.write(data)
                self._shake()
            else:
                text = "the peer closed the connection during the TLS handshake"
                self._fail(ConnectionResetError(errno.ECONNRESET, text))
        elif self.engine == "openssl":
            # It was on its way when C took over.
            self._loop.submissions.extend((_HEADER.pack(len(data), _OP_FEED, 0, self._token), data))
        elif data:
            self._incoming.write(data)
            self._read()
        else:
            self._submit(_OP_EOF)

    def _submit(self, op: int, payload: bytes = b"", arg: int = 0) -> None:
        self._loop.submissions.extend((_HEADER.pack(len(payload), op, arg, self._token), payload))

    def _send(self, answers: int = 0) -> None:
        """Give the peer what OpenSSL has for it."""
        if self._outgoing.pending or answers:
            self._submit(_OP_SEND, self._outgoing.read(), answers)

    # -- the handshake ---------------------------------------------------------------------------------------------------------

    def _shake(self) -> None:
        try:
            self.sslobject.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
        except (ssl.SSLError, OSError) as error:
            self._send()  # the alert
            self._fail(error)
        else:
            self._send()
            self._open()

    def _open(self) -> None:
        self._shaking = False
        self._stop_timer()
        pointer = pointer_of(self.sslobject)
        self.engine = "openssl" if pointer else "portable"
        self._loop.submissions.append(_OPEN.pack(8, _OP_OPEN, 0, self._token, pointer))
        self._tell()
        if not pointer:
            self._read()  # what came behind the handshake

    def _fail(self, error: Exception) -> None:
        if self.error is not None:
            return
        self.error = error
        self._submit(_OP_FAIL)
        self._tell()

    def _too_late(self) -> None:
        self._timer = None
        text = f"the TLS handshake has taken longer than {self.settings.handshake_timeout:g} s"
        self._fail(TimeoutError(errno.ETIMEDOUT, text))

    def abort(self) -> None:
        """End the stream at once; ``done`` is not called any more."""
        self._done = None
        self._stop_timer()
        self._submit(_OP_FAIL, arg=1)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        self._stop_timer()
        done, self._done = self._done, None
        if done is not None:
            done(self)

    def _closed(self, cause: int) -> None:
        self._loop.drop_target(self._target)
        if self.registry is not None:
            self.registry.pop(self._token, None)
        if self._done is not None and self.error is None:
            if cause > 0:
                self.error = OSError(cause, f"the connection was lost during the TLS handshake: {os.strerror(cause)}")
            else:
                self.error = ConnectionClosedError("the connection was closed during the TLS handshake")
        self._tell()

    def _broken(self, reason: str) -> None:
        """Make the exception that the ssl module would raise. C has ended the stream."""
        mnemonic = reason.upper().replace(" ", "_")
        error = ssl.SSLError(ssl.SSL_ERROR_SSL, f"[SSL: {mnemonic}] {reason}")
        error.library, error.reason = "SSL", mnemonic
        self.error = error

    # -- what OpenSSL in C does otherwise --------------------------------------------------------------------------------------

    def _read(self) -> None:
        pieces: list[bytes] = []
        ended = False
        try:
            while not ended:
                data = self.sslobject.read(_READ_SIZE)
                pieces.append(data)
                ended = not data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            self._deliver(pieces)
            self._send()
            self._fail(error)
            return
        self._deliver(pieces)
        self._send()  # answers to messages of the handshake
        if ended:
            self._submit(_OP_EOF)
        elif self._unsealed is not None:
            self._write()

    def _deliver(self, pieces: list[bytes]) -> None:
        plain = b"".join(pieces)
        if plain:
            self._submit(_OP_PLAIN, plain)

    def _seal(self, plain: bytes) -> None:
        self._unsealed = memoryview(plain)
        self._write()

    def _write(self) -> None:
        try:
            while self._unsealed:
                self._unsealed = self._unsealed[self.sslobject.write(self._unsealed) :]
        except ssl.SSLWantReadError:  # a renegotiation: what comes next lets it go on
            self._send()
        except ssl.SSLError as error:
            self._fail(error)
        else:
            self._unsealed = None
            self._send(_SEALED)

    def _end(self) -> None:
        try:
            self.sslobject.unwrap()
        except ssl.SSLError:  # what it had to send it has; the answer comes to C
            pass
        self._send(_ENDED)

    # -- facts -----------------------------------------------------------------------------------------------------------------

    def extra_info(self, name: str) -> Any:
        """What `Connection.get_extra_info` has by TLS, else ``None``."""
        if name == "ssl_object":
            return self.sslobject
        if name == "sslcontext":
            return self.settings.context
        if name == "peercert":
            return self.sslobject.getpeercert() if not self._shaking else None
        if name == "cipher":
            return self.sslobject.cipher()
        if name == "compression":
            return self.sslobject.compression()
        return self.engine or None if name == "tls_engine" else None


class TlsAcceptor:
    """Makes the handshakes of a server's clients, for `Server` and for servers whose protocol is native.

    A native listener is given ``target`` (``net_capi.secure_listener`` of ``evnet.h``): its protocol sees a client when the
    handshake is done. A client whose handshake fails is seen by nobody; it is counted, and a DEBUG record of the logger "evnet"
    says why.

    Args:
        loop: The loop that serves them.
        context: For clients to come; may be replaced at any time, and its certificates may be loaded anew.
        ssl_handshake_timeout: Seconds; ``None``: 60.
        ssl_shutdown_timeout: Seconds for the answer to our close_notify; ``None``: 30.

    Raises:
        TypeError: This is no context.
        ValueError: A timeout is not positive.

    Thread safety: loop thread only.
    """

    def __init__(
        self,
        loop: Loop,
        context: ssl.SSLContext,
        *,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None:
        settings = server_settings(context, ssl_handshake_timeout, ssl_shutdown_timeout)
        if settings is None:
            raise TypeError("context must be an ssl.SSLContext, not None")
        self._loop = loop
        self._settings = settings
        self._sessions: dict[bytes, Session] = {}
        self._finished = False
        self.failed: int = 0
        """How many handshakes have failed."""
        self.target: int = loop.add_target(self._new)

    @property
    def context(self) -> ssl.SSLContext:
        """The context of clients to come."""
        return self._settings.context

    @context.setter
    def context(self, context: ssl.SSLContext) -> None:
        self._settings = self.with_context(context)

    def with_context(self, context: ssl.SSLContext) -> TlsSettings:
        """The settings with another context. Raises TypeError."""
        if not isinstance(context, ssl.SSLContext):
            raise TypeError(f"the context must be an ssl.SSLContext, not {context!r}")
        return replace(self._settings, context=context)

    @property
    def settings(self) -> TlsSettings:
        """What sessions to come begin with."""
        return self._settings

    @property
    def shaking(self) -> int:
        """How many handshakes are under way."""
        return sum(session._shaking for session in self._sessions.values())

    def session(self, token: bytes) -> Session | None:
        """The session of a stream, until that is closed."""
        return self._sessions.get(token)

    def finish(self) -> None:
        """Make no more handshakes; those under way go on. The listener has to be closed."""
        if not self._finished:
            self._finished = True
            if not self._loop.is_closed():  # as in a forked child, where that has not called us
                self._loop.call_soon(self._loop.drop_target, self.target)

    def close(self) -> None:
        """As `finish`, and reset the clients whose handshake is not done."""
        for session in self._sessions.values():
            if session._shaking:
                session.abort()
        self.finish()

    def _new(self, record: Record) -> None:
        if record[2] != _NEW:
            return
        token = record[3]
        try:
            session = Session(self._loop, token, self._settings, self._shaken)
        except BaseException:
            self._loop.submissions.append(_HEADER.pack(0, _OP_FAIL, 1, token))
            raise
        self._sessions[token] = session
        session.registry = self._sessions

    def _shaken(self, session: Session) -> None:
        if session.error is not None:
            self.count_failure(session.error)

    def count_failure(self, error: Exception) -> None:
        """Note that a handshake has failed."""
        self.failed += 1
        logger.debug("a client's TLS handshake has failed: %s", error)
