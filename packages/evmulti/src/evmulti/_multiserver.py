"""The front door: one server on many loops."""

from __future__ import annotations

import logging
import os
import ssl as _ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_network
from types import TracebackType
from typing import Literal

import evhttp
from evmulti._connections import ConnectionClosed
from evmulti._cores import usable_cores
from evmulti._errors import EvMultiError
from evmulti._listeners import Fd, Place, Tcp, Unix, balances
from evmulti._log import Log, LogCallback
from evmulti._plan import FORWARDED, Plan
from evmulti._supervisor import Supervisor
from evmulti._systemd import Notifier
from evmulti._table import MultiStats
from evmulti._target import Target
from evmulti._worker import Worker

__all__ = ["MultiServer", "default_mode"]


def default_mode() -> Literal["thread", "process"]:
    """Threads where the interpreter runs them at the same time, processes where it does not.

    With the GIL two threads serve what one does, at more CPU time per request, for a handler runs only while no other does
    (`bench/run.py multi` measures both).
    """
    has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return "process" if has_gil() else "thread"


class MultiServer:
    r"""One handler, served by many loops that share an address, and looked after.

    ::

        def hello(req, res):
            res.send("hello\n")

        evmulti.MultiServer(hello).listen("127.0.0.1", 8080).run()

    Args:
        handler: A handler of `evhttp.Server`, which may upgrade to WebSockets; or a class with the methods of
            `asyncio.Protocol`; or either as ``"module:name"``, which each worker imports for itself. Only what is named is new code
            after SIGHUP.
        workers: How many; 0: one for each core that this process may use.
        mode: ``"process"``, ``"thread"`` or ``"auto"``: threads on a free-threaded interpreter, else processes.
        protocol: ``handler`` is a factory of plain protocols that is no class.
        setup: Called with the `Worker` in each worker, before it listens: what must be made in the thread or process it is used in.
            An exception is a worker that cannot start.
        teardown: Called with the `Worker` when its last connection has ended.
        limits: As for `evhttp.Server`.
        stream_bodies: As for `evhttp.Server`.
        name: For the log; by default the handler's.
        access_log: As for `evhttp.Server`.
        on_close: Called in the worker with a `ConnectionClosed` for each HTTP connection that has ended and was not upgraded.
        log_level: What is below is not logged; ``None`` leaves that to `logging`.
        log: Takes each log entry, in the workers and in the supervisor, from any thread, instead of the logger "evmulti".
        ssl: TLS on all addresses, but not for statistics: a context, or what makes one. That is called in each worker before it
            listens, so certificates that have changed are in use after SIGHUP, and if they cannot be read all stays as it is.
        trusted: As for `evhttp.Server`.
        forwarded: As for `evhttp.Server`.
        grace: Seconds that requests under way may take when a worker ends; then they are aborted and counted.
        max_requests: A worker is replaced after so many requests; 0: never.
        max_requests_jitter: Up to so many more, by chance, so that workers are not replaced all at once.
        worker_timeout: A worker whose loop has stood still for so many seconds is replaced; ``None``: never. A process is killed, a
            thread left behind.
        accept: ``"kernel"``: each worker has a socket of its own and the kernel spreads clients; ``"acceptor"``: the supervisor
            accepts and deals connections out in turn; ``"auto"``: the kernel where it can, on Linux.
        metrics_path: The path at which statistics are answered in Prometheus' format, instead of by the handler.
        metrics: Host and port at which ``/metrics`` is answered with them.

    Raises:
        ValueError: An argument is out of its range.
        TypeError: The handler is not callable.
        TargetError: Its name has not the form ``module:name``.

    Thread safety: for one thread, except `stop` and `reload`.
    """

    def __init__(
        self,
        handler: Callable[..., object] | str,
        workers: int = 0,
        mode: Literal["auto", "thread", "process"] = "auto",
        *,
        protocol: bool = False,
        setup: Callable[[Worker], object] | None = None,
        teardown: Callable[[Worker], object] | None = None,
        limits: evhttp.Limits | None = None,
        stream_bodies: bool = False,
        name: str = "",
        access_log: logging.Logger | None = None,
        on_close: Callable[[ConnectionClosed], object] | None = None,
        log_level: int | None = None,
        log: LogCallback | None = None,
        ssl: _ssl.SSLContext | Callable[[], _ssl.SSLContext] | None = None,
        trusted: Sequence[str] = (),
        forwarded: Sequence[str] = FORWARDED,
        grace: float = 10.0,
        max_requests: int = 0,
        max_requests_jitter: int = 0,
        worker_timeout: float | None = 30.0,
        accept: Literal["auto", "kernel", "acceptor"] = "auto",
        metrics_path: str = "",
        metrics: tuple[str, int] | None = None,
    ) -> None:
        numbers = {
            "workers": workers,
            "grace": grace,
            "max_requests": max_requests,
            "max_requests_jitter": max_requests_jitter,
        }
        for argument, value in numbers.items():
            if value < 0:
                raise ValueError(f"{argument} must not be negative, not {value!r}")
        if worker_timeout is not None and worker_timeout < 2:
            raise ValueError(f"worker_timeout must be at least 2 seconds or None, not {worker_timeout!r}")
        if mode not in ("auto", "thread", "process"):
            raise ValueError(f"mode must be 'auto', 'thread' or 'process', not {mode!r}")
        if accept not in ("auto", "kernel", "acceptor"):
            raise ValueError(f"accept must be 'auto', 'kernel' or 'acceptor', not {accept!r}")
        if metrics_path and not metrics_path.startswith("/"):
            raise ValueError(f"metrics_path must begin with a slash, not {metrics_path!r}")
        self.workers: int = workers or usable_cores()
        self.mode: Literal["thread", "process"] = default_mode() if mode == "auto" else mode
        self._accept: Literal["kernel", "acceptor"]
        if accept == "auto":
            self._accept = "kernel" if balances() else "acceptor"
        else:
            self._accept = accept
        if not (ssl is None or isinstance(ssl, _ssl.SSLContext) or callable(ssl)):
            raise TypeError(f"ssl must be an ssl.SSLContext, or a function that makes one, not {ssl!r}")
        for each in trusted:  # evhttp.Server would say so, too, but in each worker
            if each != "unix":
                ip_network(each)
        target = Target(handler, protocol=protocol)
        self.log: Log = Log(name or target.name, level=log_level, callback=log)
        """What it logs with."""
        self._plan = Plan(
            target,
            self.log,
            setup=setup,
            teardown=teardown,
            limits=limits,
            stream_bodies=stream_bodies,
            name=name,
            access_log=access_log,
            on_close=on_close,
            ssl=ssl,
            trusted=trusted,
            forwarded=forwarded,
            grace=grace,
            max_requests=max_requests,
            max_requests_jitter=max_requests_jitter,
            metrics_path=metrics_path,
        )
        self._worker_timeout = worker_timeout
        self._metrics = None if metrics is None else Tcp(*metrics)
        self._places: list[Place] = []
        self._supervisor: Supervisor | None = None

    # -- where -----------------------------------------------------------------------------------------------------------------

    def listen(
        self,
        host: str | None = None,
        port: int = 8000,
        *,
        backlog: int = 1024,
        reuse_port: bool = False,
        proxy_protocol: bool = False,
    ) -> MultiServer:
        """Listen on an address when the server starts; may be called several times.

        Args:
            host: A name or address; ``None`` means every interface.
            port: 0 lets the system choose; see `addresses`.
            backlog: Connections that the kernel may hold for each worker.
            reuse_port: Share the port with other programs of this user that ask for it, too.
            proxy_protocol: As for `evhttp.Server.listen`; for all addresses of the server, or none.

        Returns:
            The server itself.

        Raises:
            ValueError: ``proxy_protocol`` is asked for together with TLS, while nobody is trusted, or not for an address before.
        """
        return self._add(Tcp(host, port, backlog, reuse_port), proxy_protocol)

    def listen_unix(
        self,
        path: str | os.PathLike[str],
        *,
        mode: int | None = None,
        backlog: int = 1024,
        proxy_protocol: bool = False,
    ) -> MultiServer:
        """Listen on a unix socket, as `evnet.listen_unix` does; all workers accept from it. Returns the server itself.

        Raises: as `listen`.
        """
        return self._add(Unix(os.fspath(path), mode, backlog), proxy_protocol)

    def listen_fd(self, fd: int, *, proxy_protocol: bool = False) -> MultiServer:
        """Listen on a socket that somebody else has bound, and goes on holding: `evnet.listen_fds`. Returns the server itself.

        Raises: as `listen`.
        """
        return self._add(Fd(fd), proxy_protocol)

    def _add(self, place: Place, proxied: bool) -> MultiServer:
        if self._supervisor is not None:
            raise EvMultiError("the server was started already")
        if proxied and self._plan.ssl is not None:
            raise ValueError("proxy_protocol and ssl exclude each other: the proxy ends TLS")
        if proxied and not self._plan.trusted:
            raise ValueError("proxy_protocol needs proxies that are trusted: MultiServer(..., trusted=[...])")
        # Connections are dealt out, and taken over from those who end: nobody knows by then where they came in.
        if self._places and proxied != self._plan.proxied:
            raise ValueError("proxy_protocol is for all addresses of a server, or none")
        self._plan = replace(self._plan, proxied=proxied)
        self._places.append(place)
        return self

    # -- life ------------------------------------------------------------------------------------------------------------------

    def start(self) -> MultiServer:
        """Return the server itself when every worker listens, or raise and leave nothing behind. See `Supervisor.start`."""
        if self._supervisor is not None:
            raise EvMultiError("the server was started already")
        supervisor = self._made()
        supervisor.start()
        self._supervisor = supervisor
        return self

    def run(self, on_ready: Callable[[], object] | None = None) -> int:
        """Start if need be, and serve until SIGTERM, SIGINT or `stop`; see `Supervisor.run`.

        Args:
            on_ready: Called without arguments when every worker listens.

        Returns:
            How many connections had to be aborted.
        """
        if self._supervisor is None:
            self._supervisor = self._made()
        return self._supervisor.run(on_ready)

    def _made(self) -> Supervisor:
        if not self._places:
            raise EvMultiError("nowhere to listen: call listen() first")
        return Supervisor(
            self._plan,
            self._places,
            self.workers,
            self.mode,
            self._accept,
            worker_timeout=self._worker_timeout,
            metrics=self._metrics,
            notifier=Notifier(log=self.log),
        )

    def stop(self) -> None:
        """Let what is under way end, and end; see `Supervisor.stop`."""
        if self._supervisor is not None:
            self._supervisor.stop()

    def reload(self) -> None:
        """Replace the workers one by one; see `Supervisor.reload`."""
        self.supervisor.reload()

    def __enter__(self) -> MultiServer:
        return self.start() if self._supervisor is None else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- what there is ---------------------------------------------------------------------------------------------------------

    @property
    def supervisor(self) -> Supervisor:
        """Who looks after the workers. EvMultiError before `start`."""
        if self._supervisor is None:
            raise EvMultiError("the server was not started")
        return self._supervisor

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each TCP address that is listened on."""
        return self.supervisor.addresses

    def stats(self) -> MultiStats:
        """What the workers have counted, half a second old at most."""
        return self.supervisor.stats()
