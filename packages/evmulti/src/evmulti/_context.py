"""What a handler can ask without having been given it: its request, its connection; and how it lends its place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evmulti._errors import ContextError

if TYPE_CHECKING:
    from evhttp import Request
    from evmulti._connections import Connection
    from evmulti._pool import Pool, Worker

__all__ = ["Context", "context", "suspend", "suspended"]


class Context(threading.local):
    """The request that the calling thread deals with. There is one object, `evmulti.context`, and each thread sees its own.

    Raises:
        ContextError: By each property: the thread is not in a handler that a `Dispatcher` or a `Service` has called.
    """

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._worker: Worker | None = None
        self._task: Any = None  # outside of pools: what the thread does; in them that is the worker's

    def _begin(self, pool: Pool, worker: Worker) -> None:
        """This thread belongs to a pool from now on."""
        self._pool = pool
        self._worker = worker

    def _what(self) -> Any:
        task = self._worker.task if self._worker is not None else self._task
        if task is None:
            raise ContextError("this thread is not in a handler")
        return task

    @property
    def request(self) -> Request:
        """The request; in a thread of a pool an `evhttp.Relayed`, which knows whether its client is still there."""
        request: Request | None = getattr(self._what(), "request", None)
        if request is None:
            raise ContextError("this thread is in a handler that answers no request")
        return request

    @property
    def connection(self) -> Connection:
        """The connection that the request or message came on."""
        connection: Connection = self._what().connection
        return connection

    @property
    def client_gone(self) -> bool:
        """Whether the client of the request has gone away meanwhile: what is still done for it may be in vain."""
        return bool(self._what().client_gone)

    @property
    def thread_name(self) -> str:
        """The name of the pool's thread, as in the log; of another thread its own."""
        return self._worker.name if self._worker is not None else threading.current_thread().name


context: Context = Context()
"""What the calling thread deals with; see `Context`."""


@contextmanager
def suspended() -> Iterator[None]:
    """Lend the thread's place in its pool to another one for the time of a ``with`` block, in which this one waits for something.

    Where ``max_active`` is less than ``pool_size``, another handler runs meanwhile; at the end of the block this one waits until it
    has a place again. Outside of a pool it does nothing.

    Raises:
        ContextError: The thread's place is lent already.
    """
    pool, worker = context._pool, context._worker
    if pool is None or worker is None or worker.task is None:
        yield
        return
    if worker.suspended:
        raise ContextError("this thread's place is lent already")
    pool.lend(worker)
    try:
        yield
    finally:
        pool.take_back(worker)


def suspend(seconds: float) -> bool:
    """Wait, and lend the thread's place in its pool to another one meanwhile; see `suspended`.

    It ends early when the client of the request goes away.

    Args:
        seconds: How long.

    Returns:
        Whether the client is still there; outside of a handler, always true.

    Raises:
        ValueError: The time is negative or not a number.
        ContextError: The thread's place is lent already, or it is the loop's, with a handler that is in no pool.
    """
    if not seconds >= 0:
        raise ValueError(f"suspend needs a number of seconds >= 0, not {seconds!r}")
    if context._task is not None:
        raise ContextError("a handler on the loop's thread must not wait: everybody else would wait with it")
    worker = context._worker
    task: Any = worker.task if worker is not None else None
    with suspended():
        if task is None:
            threading.Event().wait(seconds)
            return True
        return not task.wait_gone(min(seconds, threading.TIMEOUT_MAX))
