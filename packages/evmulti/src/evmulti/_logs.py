"""Log lines for the command line: for people, or one JSON object each."""

from __future__ import annotations

import json
import logging
import os
import sys
import time

from evmulti._log import LogEntry

__all__ = ["JsonFormatter", "PlainFormatter", "configure"]


def _entry(record: logging.LogRecord) -> LogEntry | None:
    """What one of our servers has said, if that is what the record is about."""
    args = record.args
    return args[0] if isinstance(args, tuple) and args and isinstance(args[0], LogEntry) else None


class PlainFormatter(logging.Formatter):
    """Time, level, who says it, where: ``server#id [process/thread]``, or for who is no server of ours ``logger [...]``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's line."""
        if _entry(record) is None:
            record.message = f"{record.name} [{os.getpid()}/{record.threadName}] {record.message}"
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time (RFC 3339, UTC), level, logger, server, its id, process, thread, message, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        whole, milli = int(record.created), int(record.msecs)
        said = _entry(record)
        entry: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milli:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if said is not None:
            entry |= {"server": said.server, "server_id": said.server_id}
        entry |= {
            # Not record.process: a record may have been made before a fork.
            "process": os.getpid(),
            "thread": record.threadName if said is None else said.thread,
            "message": record.getMessage() if said is None else said.message,
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(level: str, *, as_json: bool) -> None:
    """Have all loggers write to the standard error, from a level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
