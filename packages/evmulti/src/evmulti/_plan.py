"""What every worker is told: what to serve, and how."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import evhttp
from evmulti._log import Log

if TYPE_CHECKING:
    from evmulti._connections import ConnectionClosed
    from evmulti._target import Target
    from evmulti._worker import Worker

__all__ = ["FORWARDED", "Plan"]

FORWARDED = ("X-Forwarded-For", "X-Forwarded-Proto")  # as of evhttp.Server


@dataclass(frozen=True, slots=True)
class Plan:
    """See `MultiServer`, whose arguments these are."""

    target: Target
    log: Log
    setup: Callable[[Worker], object] | None = None
    teardown: Callable[[Worker], object] | None = None
    limits: evhttp.Limits | None = None
    stream_bodies: bool = False
    name: str = ""
    access_log: logging.Logger | None = None
    on_close: Callable[[ConnectionClosed], object] | None = None
    ssl: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None
    trusted: Sequence[str] = ()
    forwarded: Sequence[str] = FORWARDED
    proxied: bool = False
    grace: float = 10.0
    max_requests: int = 0
    max_requests_jitter: int = 0
    metrics_path: str = ""
