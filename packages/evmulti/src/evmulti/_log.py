"""Log lines that say which server, which process and which thread they come from."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from evmulti._context import context

__all__ = ["Log", "LogCallback", "LogEntry"]

logger = logging.getLogger("evmulti")

_ids = count(1)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One thing that a server has to say.

    Attributes:
        level: As in `logging`.
        message: What it says.
        server: The server's name.
        server_id: Its number in this process, from 1 on.
        process: The process' id.
        thread: The name of the thread: in a pool that of the pool and a number.
        error: The exception that it is about.
    """

    level: int
    message: str
    server: str
    server_id: int
    process: int
    thread: str
    error: BaseException | None = None

    def __str__(self) -> str:
        return f"{self.server}#{self.server_id} [{self.process}/{self.thread}] {self.message}"


LogCallback = Callable[[LogEntry], object]


class Log:
    """What a server logs with.

    Args:
        server: Its name.
        level: What is below is not logged; ``None`` leaves that to `logging`.
        callback: Takes each entry, from any thread, instead of the logger "evmulti".
    """

    __slots__ = ("_callback", "_level", "server", "server_id")

    def __init__(self, server: str = "", *, level: int | None = None, callback: LogCallback | None = None) -> None:
        self.server: str = server
        self.server_id: int = next(_ids)
        self._level = level
        self._callback = callback

    def isEnabledFor(self, level: int, /) -> bool:
        """Whether anybody hears what is logged at this level; named as in `logging`, for those who take a logger."""
        if self._level is not None and level < self._level:
            return False
        return self._callback is not None or logger.isEnabledFor(level)

    def log(self, level: int, message: object, /, *args: object, error: BaseException | None = None) -> None:
        """Log a message, made of a format and its arguments as in `logging`."""
        if not self.isEnabledFor(level):
            return
        text = str(message) % args if args else str(message)
        entry = LogEntry(level, text, self.server, self.server_id, os.getpid(), context.thread_name, error)
        if self._callback is not None:
            try:
                self._callback(entry)
                return
            except Exception:
                logger.exception("exception in the log callback of %s, called for:", self.server)
        fields = {"server": entry.server, "server_id": entry.server_id, "worker": entry.thread}
        logger.log(level, "%s", entry, exc_info=error, extra=fields)

    def debug(self, message: object, /, *args: object) -> None:
        """Log at DEBUG."""
        self.log(logging.DEBUG, message, *args)

    def info(self, message: object, /, *args: object) -> None:
        """Log at INFO."""
        self.log(logging.INFO, message, *args)

    def warning(self, message: object, /, *args: object) -> None:
        """Log at WARNING."""
        self.log(logging.WARNING, message, *args)

    def error(self, message: object, /, *args: object) -> None:
        """Log at ERROR."""
        self.log(logging.ERROR, message, *args)

    def exception(self, message: object, /, *args: object) -> None:
        """Log at ERROR, with the exception that is being handled."""
        self.log(logging.ERROR, message, *args, error=sys.exception())
