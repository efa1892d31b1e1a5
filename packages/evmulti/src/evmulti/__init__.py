"""One server on many loops, and pools of threads for handlers that block. See `MultiServer`, `Dispatcher` and `Services`."""

from __future__ import annotations

from evmulti._connections import Cause, Connection, ConnectionClosed, Connections
from evmulti._context import Context, context, suspend, suspended
from evmulti._cores import usable_cores
from evmulti._dispatcher import Dispatcher, DispatcherStats, Strategy
from evmulti._errors import ContextError, EvMultiError, StartError, TargetError
from evmulti._log import Log, LogCallback, LogEntry
from evmulti._multiserver import MultiServer
from evmulti._pool import PoolStats
from evmulti._service import Body, Service, Services
from evmulti._sockets import PooledSocket
from evmulti._socketserver import SocketServer
from evmulti._supervisor import Supervisor
from evmulti._table import MultiStats, WorkerStats
from evmulti._version import __version__
from evmulti._worker import Worker

__all__ = [
    "Body",
    "Cause",
    "Connection",
    "ConnectionClosed",
    "Connections",
    "Context",
    "ContextError",
    "Dispatcher",
    "DispatcherStats",
    "EvMultiError",
    "Log",
    "LogCallback",
    "LogEntry",
    "MultiServer",
    "MultiStats",
    "PoolStats",
    "PooledSocket",
    "Service",
    "Services",
    "SocketServer",
    "StartError",
    "Strategy",
    "Supervisor",
    "TargetError",
    "Worker",
    "WorkerStats",
    "__version__",
    "context",
    "suspend",
    "suspended",
    "usable_cores",
]
