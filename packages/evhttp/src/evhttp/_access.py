"""The access log: one record per answer, and the formats in which it is written."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from evhttp._ends import ServerLog, cause_of
from evhttp._later import Later

if TYPE_CHECKING:
    from evhttp._exchange import Exchange
    from evloop import Record

__all__ = ["AccessRecord", "CombinedFormatter", "JsonFormatter", "log_answers", "log_refusal"]


class AccessRecord:
    """What the access log says of one answer; the ``msg`` of its `logging.LogRecord`, which makes text of it by ``str``.

    Attributes:
        client: Address and port; ``None`` for a unix socket.
        status: Of the answer.
        size: Bytes of the body; 0 where HTTP leaves it out, as in answers to HEAD and with 304.
        duration: Seconds from when the handler was called until the answer was complete; ``None`` for a refused request.
        cause: Why the answer was not sent whole, as in `ConnectionEnd`; ``"refused"`` for a request that never came to the
            handler; ``""`` otherwise.
        reason: Why a request was refused.
        server: The server's name.

    The properties are cut out of the request when they are asked for, and are ``""`` for a request that was refused.
    """

    __slots__ = ("_exchange", "cause", "client", "duration", "reason", "server", "size", "status")

    def __init__(
        self,
        server: str,
        client: tuple[str, int] | None,
        status: int,
        size: int,
        duration: float | None,
        *,
        cause: str = "",
        reason: str = "",
        exchange: Exchange | None = None,
    ) -> None:
        self._exchange = exchange
        self.server: str = server
        self.client: tuple[str, int] | None = client
        self.status: int = status
        self.size: int = size
        self.duration: float | None = duration
        self.cause: str = cause
        self.reason: str = reason

    @property
    def method(self) -> str:
        """The request's method."""
        return self._exchange.method if self._exchange else ""

    @property
    def target(self) -> str:
        """The request's target, as received."""
        return self._exchange.target if self._exchange else ""

    @property
    def version(self) -> str:
        """``"1.1"`` or ``"1.0"``."""
        return self._exchange.version if self._exchange else ""

    @property
    def scheme(self) -> str:
        """``"http"`` or ``"https"``."""
        return self._exchange.scheme if self._exchange else ""

    @property
    def host(self) -> str:
        """Whom the client wanted to reach."""
        return self._exchange.host if self._exchange else ""

    @property
    def referer(self) -> str:
        """The Referer field."""
        return self._exchange.headers.get("referer", "") if self._exchange else ""

    @property
    def user_agent(self) -> str:
        """The User-Agent field."""
        return self._exchange.headers.get("user-agent", "") if self._exchange else ""

    def request_line(self) -> str:
        """Method, target and version, as they can stand between quotation marks; ``"-"`` for a request that was refused."""
        return f"{self.method} {_quotable(self.target)} HTTP/{self.version}" if self._exchange else "-"

    def __str__(self) -> str:
        client = self.client[0] if self.client else "-"
        if self.duration is None:
            return f"{client} refused: {self.status} {self.reason}"
        end = f" {self.cause}" if self.cause else ""
        return f'{client} "{self.request_line()}" {self.status} {self.size} {self.duration * 1000:.3f}ms{end}'


class JsonFormatter(logging.Formatter):
    """Writes each record as a line of JSON; those of other loggers with ``level``, ``logger`` and ``message``.

    ``time`` is in UTC with milliseconds (RFC 3339), ``duration`` in seconds.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        found: dict[str, object] = {"time": _rfc3339(record.created)}
        access = record.msg
        if isinstance(access, AccessRecord):
            found |= _members(access)
        else:
            found |= {"level": record.levelname, "logger": record.name, "message": record.getMessage()}
            if record.exc_info:
                found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=True, separators=(",", ":"))


class CombinedFormatter(logging.Formatter):
    """Writes the combined log format that Apache has made common, with the duration in seconds behind it.

    Records of other loggers, and refused requests, are written with their time and message.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        access = record.msg
        if not isinstance(access, AccessRecord) or access.duration is None:
            return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.created))} {super().format(record)}"
        client = access.client[0] if access.client else "-"
        when = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(record.created))
        fields = f'"{_quotable(access.referer) or "-"}" "{_quotable(access.user_agent) or "-"}"'
        line = f'"{access.request_line()}" {access.status} {access.size}'
        return f"{client} - - [{when}] {line} {fields} {access.duration:.6f}"


def log_answers(
    receive: Callable[[Record], Exchange], log: logging.Logger, server: str
) -> Callable[[Record], Exchange]:
    """Wrap what receives requests so that it writes the access log."""

    def write(exchange: Exchange, start: float, cause: str = "") -> None:
        duration = perf_counter() - start
        if log.isEnabledFor(logging.INFO):
            size, status = exchange._size, exchange.status_code
            if exchange._has_no_content:
                size = 0
            if exchange._was_dropped and not cause:
                cause = "by_us"
            record = AccessRecord(server, exchange.client, status, size, duration, cause=cause, exchange=exchange)
            log.info(record)

    def write_later(exchange: Exchange, start: float, later: Later) -> None:
        write(later.spokesman or exchange, start, cause_of(later.cause) if later.lost else "")

    def receive_and_log(record: Record) -> Exchange:
        start = perf_counter()
        exchange = receive(record)
        later = exchange._lines
        if type(later) is Later:
            later.logged = partial(write_later, exchange, start, later)
        else:
            write(exchange, start)
        return exchange

    return receive_and_log


def log_refusal(
    log: ServerLog,
    level: int,
    server: str,
    client: tuple[str, int] | None,
    status: int,
    reason: str,
) -> None:
    """Write that a request did not come to the handler."""
    if log.isEnabledFor(level):
        log.log(level, AccessRecord(server, client, status, 0, None, cause="refused", reason=reason))


def _members(access: AccessRecord) -> dict[str, object]:
    client = access.client
    found: dict[str, object] = {
        "server": access.server,
        "client": client[0] if client else None,
        "port": client[1] if client else None,
        "status": access.status,
    }
    if access.duration is None:
        return found | {"cause": access.cause, "reason": access.reason}
    return found | {
        "method": access.method,
        "scheme": access.scheme,
        "host": access.host,
        "target": access.target,
        "version": access.version,
        "bytes": access.size,
        "duration": round(access.duration, 6),
        "cause": access.cause,
        "referer": access.referer,
        "user_agent": access.user_agent,
    }


def _quotable(text: str) -> str:
    # The parser lets no control character through; a quotation mark or a backslash would end or change the field.
    return text.replace("\\", "%5C").replace('"', "%22")


def _rfc3339(seconds: float) -> str:
    whole, thousandths = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{thousandths:03}Z"
