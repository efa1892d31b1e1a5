"""What is done to the service. Each fault says what it may do to requests; what it may not is the service's failure."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from cable import Cable
from clients import LOSSY, Http, Site
from clock import Clock
from ledger import Fault, Ledger
from processes import Service, until, use

# Seconds: evmulti's for the last request on an idle connection of a worker that ends.
LAST_CALL = 1.0
Inject = Callable[[], Awaitable[None]]


class Faults:
    """The faults, each a method that returns when the service is as before.

    Args:
        service: Whom they are done to.
        site: Where it is.
        ledger: Where they are written down.
        folder: Where the service has its files, on a small disk of its own if ``small_disk``.
        cable: The network that loses packets, if there is one.
        clock: The service's, if it can be set.
        pause: Seconds that what is not over by itself lasts.
    """

    def __init__(
        self,
        service: Service,
        site: Site,
        ledger: Ledger,
        folder: Path,
        small_disk: bool,
        cable: Cable | None,
        clock: Clock | None,
        pause: float,
    ) -> None:
        self.service = service
        self.site = site
        self.ledger = ledger
        self.folder = folder
        self.small_disk = small_disk
        self.cable = cable
        self.clock = clock
        self.pause = pause
        self._replaced = 0
        self._next = 0

    def gentle(self) -> list[Inject]:
        """Those that no worker dies of."""
        return [
            self.worker_stands_still,
            *([self.clocks_jump] if self.clock is not None else []),
            self.descriptors_run_out,
            self.disk_is_full,
            *([self.cable_is_pulled] if self.cable is not None else []),
        ]

    def all(self) -> list[Inject]:
        """Each of them; what a process dies of is nothing that another thread could survive."""
        kills = (
            [self.worker_is_killed, self.worker_hangs, self.worker_is_ended] if self.service.mode == "process" else []
        )
        return [self.rolling_restart, *kills, self.handler_ends_its_worker, *self.gentle()]

    def victim(self) -> int:
        """One worker after the other."""
        self._next += 1
        workers = self.service.workers()
        return workers[self._next % len(workers)]

    async def replacement(self, pid: int) -> None:
        """Wait until another worker is there for a process that is gone."""
        await until(lambda: pid not in self.service.workers() and len(self.service.workers()) == 2, "a new worker")

    def in_order(self, name: str) -> AbstractContextManager[Fault]:
        """A fault that loses nothing, unless the network has held up a request for longer than a worker that ends waits for one.

        RFC 6298 §5.7: what is lost on a connection whose handshake was lost, too, is sent again after three seconds. Where no
        request has come the connection is idle, and its close crosses with what is sent again.
        """
        return self.ledger.fault(name, "lost", newcomers=True, kind=LOSSY, longer=LAST_CALL)

    async def worker_is_killed(self) -> None:
        """As the kernel does when memory runs out."""
        pid = self.victim()
        with self.ledger.fault("worker killed", "lost", worker=f"{pid}/"):
            os.kill(pid, signal.SIGKILL)
            await self.replacement(pid)

    async def worker_hangs(self) -> None:
        """Until its supervisor has enough of it."""
        pid = self.victim()
        with self.ledger.fault("worker hung, and killed for it", "lost", worker=f"{pid}/"):
            os.kill(pid, signal.SIGSTOP)
            await self.replacement(pid)

    async def worker_is_ended(self) -> None:
        """One worker, in order: its clients notice nothing."""
        pid = self.victim()
        with self.in_order("worker ended"):
            os.kill(pid, signal.SIGTERM)
            await self.replacement(pid)

    async def handler_ends_its_worker(self) -> None:
        """By an exception that ends processes and threads."""
        http = Http(*await self.site.open())
        http.ask("GET", "/bytes?seed=1&size=1")
        await http.answer()
        died = self.service.log.count(" died: ")
        with self.ledger.fault("handler ended its worker", "lost", worker=http.worker):
            http.ask("GET", "/exit")
            await until(lambda: self.service.log.count(" died: ") > died, "the death of a worker")
            if self.service.mode == "process":
                await self.replacement(int(http.worker.partition("/")[0]))
        await http.close()

    async def rolling_restart(self) -> None:
        """All workers are replaced, one by one: nothing is lost."""
        with self.in_order("rolling restart"):
            self._replaced = self.service.log.count("the workers are replaced: ")
            before = set(self.service.workers())
            os.kill(self.service.pid, signal.SIGHUP)
            await until(
                lambda: self.service.log.count("the workers are replaced: ") > self._replaced, "the end of the restart"
            )
            await until(lambda: not before & set(self.service.workers()), "the end of the old workers")

    async def clocks_jump(self) -> None:
        """The wall clock by a day or an hour, as somebody sets it, and the monotonic one by less than any timeout."""
        assert self.clock is not None
        self._next += 1
        with self.ledger.fault("clocks jumped"):
            self.clock.jump(wall=(86_400, -86_400, -3600, 3600)[self._next % 4], monotonic=2)
            await asyncio.sleep(self.pause)

    async def worker_stands_still(self) -> None:
        """A worker that gets no processor for a while finds much to do at once, and everything late."""
        pid = self.victim() if self.service.mode == "process" else self.service.pid
        with self.ledger.fault("worker stood still"):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(self.pause)
            os.kill(pid, signal.SIGCONT)

    async def descriptors_run_out(self) -> None:
        """Who is there is served; who comes may be hung up on; and files cannot be opened."""
        pids = self.service.workers() or [self.service.pid]
        limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
        with self.ledger.fault("no descriptors", "lost", "refused", newcomers=True), ExitStack() as crowd:
            for pid in pids:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (use(pid).descriptors + 3, limits[pid][1]))
            for _ in range(20):
                try:
                    crowd.callback((await self.site.open())[1].close)
                except ConnectionError:
                    pass  # as it should be
            await asyncio.sleep(self.pause)
            for pid in pids:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits[pid])

    async def disk_is_full(self) -> None:
        """Uploads are refused, with an answer."""
        pids = self.service.workers() or [self.service.pid]
        with self.ledger.fault("disk full", "refused"):
            if self.small_disk:
                with open(self.folder / "ballast", "wb", buffering=0) as ballast:
                    try:
                        while True:
                            ballast.write(bytes(4096))
                    except OSError:
                        pass  # it is full now
                await asyncio.sleep(self.pause)
                (self.folder / "ballast").unlink()
                return
            limits = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
            for pid in pids:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, limits[pid][1]))
            await asyncio.sleep(self.pause)
            for pid in pids:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits[pid])

    async def cable_is_pulled(self) -> None:
        """Nothing gets through for a while; what was under way comes later."""
        assert self.cable is not None
        with self.ledger.fault("network outage"):
            loss, self.cable.loss = self.cable.loss, 1.0
            await asyncio.sleep(self.pause)
            self.cable.loss = loss
