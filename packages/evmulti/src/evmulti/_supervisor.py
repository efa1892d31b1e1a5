"""The life of a server: workers are started, watched, replaced and ended."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from evloop import Loop
from evmulti._dealer import Dealer
from evmulti._errors import EvMultiError, StartError
from evmulti._listeners import Listeners, Place, Tcp
from evmulti._plan import Plan
from evmulti._processes import ProcessWorker
from evmulti._reload import Reloader
from evmulti._slots import Hand, Slot, Tenant
from evmulti._systemd import Notifier
from evmulti._table import MultiStats, Table
from evmulti._threads import ThreadWorker
from evmulti._worker import LAST_CALL

__all__ = ["Supervisor"]

_TICK = 0.5
_MARGIN = 2.0  # seconds that a worker has after its grace, until it is ended from outside


class Supervisor:
    """Starts workers, and answers for them until the end. `MultiServer` makes one.

    Args:
        plan: What workers serve.
        places: Where.
        count: How many there are.
        mode: Where they run.
        accept: ``"kernel"``: each has sockets of its own; ``"acceptor"``: the supervisor accepts, and deals connections out.
        worker_timeout: Seconds without a sign of life after which a worker is replaced; ``None``: never.
        metrics: An address for statistics.
        notifier: To whom the life of the server is told.

    Thread safety: for the thread that has called `start`, except `stop` and `reload`.
    """

    def __init__(
        self,
        plan: Plan,
        places: Sequence[Place],
        count: int,
        mode: Literal["thread", "process"],
        accept: Literal["kernel", "acceptor"],
        *,
        worker_timeout: float | None = 30.0,
        metrics: Tcp | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._plan = plan
        self._log = plan.log
        self._places = list(places)
        self._count = count
        self._kind: Callable[..., Hand] = ProcessWorker if mode == "process" else ThreadWorker
        self._mode = mode
        self._accepts = accept == "acceptor"
        self._worker_timeout = worker_timeout
        self._metrics = metrics
        self._notifier = notifier or Notifier(log=plan.log)
        self._slots: list[Slot] = []
        self._queue: deque[Slot] = deque()  # whose workers are to be replaced
        self._rolling = False
        self._failed: Tenant | None = None
        self._is_unwanted = False  # it was asked to end before it had begun
        self._runs = False  # somebody has called `run`
        self._state: Literal["new", "starting", "serving", "stopping", "ended"] = "new"
        self._dealer: Dealer | None = None
        self._turn = 0
        self._final: MultiStats | None = None
        self._aborted = 0

    # -- life ------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bind, start the workers and return when every one of them listens.

        Nobody replaces workers until `run` is called.

        Raises:
            OSError: An address cannot be bound; the message names it.
            StartError: A worker could not start; the message says which and why.
            EvMultiError: The server was started before.
            Whatever is raised, nothing is left behind.
        """
        self._begin(hears_signals=False)
        self._await_workers()

    def _begin(self, hears_signals: bool) -> None:
        """Bind, and start the workers; nothing is left behind if that fails."""
        if self._state != "new":
            raise EvMultiError("the server was started before")
        self._state = "starting"
        self._loop = Loop()
        if hears_signals:
            self._hear_signals()  # before anybody can find us
        spread = not self._accepts
        try:
            self._listeners = Listeners(self._places, self._count, spread=spread, metrics=self._metrics)
        except BaseException:
            self._state = "ended"
            self._loop.close()
            raise
        self._life = os.pipe()
        # While workers are replaced there are two, and more where those before have not ended.
        self._table = Table(self._count, 4 * self._count + 4)
        try:
            self._slots = [Slot(number) for number in range(self._count)]
            for slot in self._slots:
                slot.current = self._launched(slot)
        except BaseException:
            self._end()
            raise

    def _hear_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._asked_to_end)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._loop.add_signal_handler(signal.SIGCHLD, self._look_after)

    def _await_workers(self) -> None:
        """Wait until every worker listens, or it is clear that one will not, or we are asked to end before."""

        def is_clear() -> bool:
            if self._failed is not None or self._is_unwanted:
                return True
            return all(slot.current is not None and slot.current.listens for slot in self._slots)

        try:
            self._loop.run_until(is_clear)
            if self._failed is not None:
                raise StartError(f"worker {self._failed.hand.number} cannot start: {self._failed.reason}")
            if self._accepts:
                self._dealer = Dealer(self._loop, self._listeners.shared, self._deal, self._log)
        except BaseException:
            self._end()
            raise
        self._state = "serving"
        self._loop.call_every(_TICK, self._tick)

    def run(self, on_ready: Callable[[], object] | None = None) -> int:
        """Serve until SIGTERM or SIGINT and the end of what was under way, or until `stop`; start first, if need be.

        The first of these signals lets requests under way end, for at most ``grace`` seconds; a second one ends them at once.
        SIGHUP replaces the workers one by one. In a thread other than the main one there are no signals.

        Args:
            on_ready: Called without arguments when every worker listens.

        Returns:
            How many connections had to be aborted.

        Raises:
            OSError, StartError: As `start`.
        """
        in_main = threading.current_thread() is threading.main_thread()
        self._runs = True
        if self._state == "new":
            self._begin(in_main)
        elif self._state == "ended":
            return self._aborted
        elif in_main:
            self._hear_signals()
        try:
            if self._state == "starting":
                self._await_workers()
            if self._is_unwanted:
                self._drain()
            if on_ready is not None:
                on_ready()
            self._notifier.ready(self._status())
            if self._notifier.interval is not None:
                self._loop.call_every(self._notifier.interval, self._notifier.alive)
            self._loop.run()
        finally:
            self._end()
        return self._aborted

    def stop(self) -> None:
        """Drain and end, as at SIGTERM; `run` returns then. Without `run` this waits for the end.

        Thread safety: any thread while `run` runs.
        """
        if self._state not in ("serving", "stopping"):
            return
        if self._runs:  # perhaps not the loop yet: `on_ready` may have told us of the server
            self._loop.call_soon_threadsafe(self._drain)
            return
        self._drain()
        try:
            self._loop.run()
        finally:
            self._end()

    def reload(self) -> None:
        """Replace the workers one by one, as at SIGHUP. Thread safety: any thread while `run` runs."""
        self._loop.call_soon_threadsafe(self._reload)

    def watch(self, folders: Iterable[Path]) -> None:
        """Replace the workers whenever Python files below these folders change, from now on.

        Raises:
            OSError: A folder cannot be watched; the message names it.
        """
        Reloader(self._loop, folders, self._reload, self._log)  # its end is the loop's

    @property
    def names(self) -> list[str]:
        """Where is listened."""
        return self._listeners.names("http" if self._plan.ssl is None else "https")

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each TCP address."""
        return self._listeners.addresses()

    @property
    def metrics_addresses(self) -> list[tuple[str, int]]:
        """Host and port of each address for statistics."""
        return [sock.getsockname()[:2] for sock in self._listeners.metrics]

    @property
    def pids(self) -> list[int]:
        """The processes of the workers that serve; none in thread mode."""
        return [slot.current.hand.pid for slot in self._slots if slot.current is not None and slot.current.hand.pid]

    def stats(self) -> MultiStats:
        """What the workers have counted. Thread safety: any thread while the server is not ending."""
        return self._final or self._table.read()

    # -- one worker ------------------------------------------------------------------------------------------------------------

    def _launched(self, slot: Slot) -> Tenant | None:
        """A new worker for a place, which is not ready yet; ``None`` when too many live, or the system has no room for it."""
        row = self._table.take(slot.number)
        if row is None:
            return None
        tenant = Tenant(
            self._kind(self._plan, slot.number, self._listeners, not self._accepts, row, self._table), self._loop.time()
        )
        others = [each.hand for place in self._slots for each in place.tenants()]
        try:
            tenant.hand.start(
                self._loop,
                others,
                self._life,
                lambda message: self._told(slot, tenant, message),
                lambda: self._ended(slot, tenant),
            )
        except (OSError, RuntimeError) as error:
            self._table.give_back(row)
            if self._state == "starting":
                raise StartError(f"worker {slot.number} cannot start: {error}") from error
            self._log.error("worker %d cannot be started: %s", slot.number, error)
            return None
        return tenant

    def _told(self, slot: Slot, tenant: Tenant, message: list[Any]) -> None:
        match message:
            case ["ready"]:
                self._is_ready(slot, tenant)
            case ["failed", str(reason)]:
                tenant.reason = reason
            case ["ended", int(aborted)]:
                tenant.aborted = aborted
            case ["tired", int(most)] if tenant is slot.current:
                self._log.info("%s has had its %d requests and is replaced", tenant.hand.describe(), most)
                self._replace(slot)

    def _is_ready(self, slot: Slot, tenant: Tenant) -> None:
        tenant.listens = True
        if tenant is slot.coming:
            old, slot.current, slot.coming = slot.current, tenant, None
            if old is not None:
                self._let_go(slot, old, "retire")
            self._next()
        if slot.cover is not None and tenant is slot.current:
            slot.cover.finish()
            slot.cover = None

    def _let_go(self, slot: Slot, tenant: Tenant, how: str) -> None:
        tenant.hand.command(how)
        slot.leaving.append(tenant)
        tenant.overdue = self._loop.call_later(self._plan.grace + _MARGIN, self._is_overdue, slot, tenant)

    def _is_overdue(self, slot: Slot, tenant: Tenant) -> None:
        tenant.aborted = tenant.hand.row.connections
        self._log.error("%s does not end and is ended", tenant.hand.describe())
        if not tenant.hand.kill():
            self._abandon(slot, tenant)

    def _abandon(self, slot: Slot, tenant: Tenant) -> None:
        """Go on without a thread that hangs. Its row stays its own."""
        self._aborted += tenant.aborted
        self._leave_slot(slot, tenant, "does not react; its thread is left behind")

    def _ended(self, slot: Slot, tenant: Tenant) -> None:
        if self._state == "ended" or tenant not in slot.tenants():
            return
        how = tenant.hand.ended()
        if how is None:  # its sockets are closed, and the process is on its way
            self._loop.call_later(0.01, self._ended, slot, tenant)
            return
        self._discard(tenant)
        self._aborted += tenant.aborted
        self._leave_slot(slot, tenant, how)

    def _discard(self, tenant: Tenant) -> None:
        tenant.hand.close()
        self._table.give_back(tenant.hand.row)
        if tenant.overdue is not None:
            tenant.overdue.cancel()

    def _leave_slot(self, slot: Slot, tenant: Tenant, how: str) -> None:
        """Go on without a worker."""
        reason = tenant.reason or how
        if tenant in slot.leaving:
            slot.leaving.remove(tenant)
            if how and not tenant.superseded:
                self._log.warning("%s did not end as it should: %s", tenant.hand.describe(), reason)
            if tenant.aborted:
                self._log.warning(
                    "%s aborted %d connections that had not ended", tenant.hand.describe(), tenant.aborted
                )
        elif self._state == "starting":
            tenant.reason = reason or "ended"
            self._failed = self._failed or tenant
        elif tenant is slot.coming:
            slot.coming = None
            self._log.error("a new %s cannot start: %s", tenant.hand.describe(), reason or "it has ended")
            if slot.current is not None:
                self._give_up_replacing()
            else:
                self._respawn_later(slot, tenant)
            self._next()
        elif tenant is slot.current:
            slot.current = None
            if self._state == "serving":
                self._lost(slot, tenant, reason)
        if self._state == "stopping" and not any(each.tenants() for each in self._slots):
            self._loop.stop()

    def _lost(self, slot: Slot, tenant: Tenant, reason: str) -> None:
        if reason:
            self._log.error("%s died: %s", tenant.hand.describe(), reason)
        else:
            self._log.info("%s has ended", tenant.hand.describe())
        # Others serve those who wait in its queue, and those to come, until its successor is ready.
        if not self._accepts and slot.cover is None and self._listeners.own[slot.number]:
            slot.cover = Dealer(self._loop, self._listeners.own[slot.number], self._deal, self._log)
        if slot.coming is None:
            self._respawn_later(slot, tenant)

    def _respawn_later(self, slot: Slot, tenant: Tenant) -> None:
        delay = slot.delay(self._loop.time() - tenant.born)
        if delay:
            self._log.error("worker %d is started again in %.1f s", slot.number, delay)
        slot.timer = self._loop.call_later(delay, self._respawn, slot)

    def _respawn(self, slot: Slot) -> None:
        slot.timer = None
        if self._state != "serving" or slot.current is not None or slot.coming is not None:
            return
        self._table.count_restart()
        slot.coming = self._launched(slot)
        if slot.coming is None:
            slot.timer = self._loop.call_later(1.0, self._respawn, slot)

    # -- all workers, one by one -----------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        if self._state == "starting":  # some may have the old code already
            self._loop.call_later(_TICK, self._reload)
            return
        if self._state != "serving":
            return
        self._log.info("the workers are replaced")
        self._notifier.reloading()
        if self._mode == "thread":
            self._plan.target.forget()
        self._rolling = True
        for slot in self._slots:
            if (
                slot.coming is not None
            ):  # it may have begun with the old code, or hang in it; or serve, and not have said so
                tenant, slot.coming = slot.coming, None
                tenant.superseded = True
                self._let_go(slot, tenant, "retire")
            self._replace(slot)
        self._next()

    def _replace(self, slot: Slot) -> None:
        if slot not in self._queue:
            self._queue.append(slot)
        self._next()

    def _next(self) -> None:
        """Start the next replacement, unless one is under way."""
        if self._state != "serving" or any(slot.coming for slot in self._slots):
            return
        if not self._queue:
            if self._rolling:
                self._rolling = False
                self._log.info("the workers are replaced: %s", self._status())
                self._notifier.ready(self._status())
            return
        slot = self._queue[0]
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
        slot.coming = self._launched(slot)
        if slot.coming is None:
            self._loop.call_later(0.5, self._next)
            return
        self._table.count_restart()
        self._queue.popleft()

    def _give_up_replacing(self) -> None:
        self._log.error("the workers stay as they are")
        self._queue.clear()
        if self._rolling:
            self._rolling = False
            self._notifier.ready(self._status())

    def _tick(self) -> None:
        """Look for workers that have died without a word, or hang."""
        self._look_after()
        if self._worker_timeout is None:
            return
        for slot in self._slots:
            tenant = slot.current
            if tenant is not None and tenant.listens and tenant.hand.row.silence > self._worker_timeout:
                tenant.reason = f"it gave no sign of life for {self._worker_timeout:g} s"
                tenant.aborted = tenant.hand.row.connections
                if not tenant.hand.kill():
                    self._abandon(slot, tenant)

    def _look_after(self) -> None:
        for slot in self._slots:
            for tenant in slot.tenants():
                if tenant.hand.pid:
                    self._look_at(slot, tenant)

    def _look_at(self, slot: Slot, tenant: Tenant) -> None:
        how = tenant.hand.ended()
        if how is not None:
            self._ended(slot, tenant)

    # -- connections that we accept --------------------------------------------------------------------------------------------

    def _deal(self, connection: socket.socket) -> bool:
        """Hand a connection to the next worker that takes it."""
        for _ in range(self._count):
            self._turn = (self._turn + 1) % self._count
            tenant = self._slots[self._turn].current
            if tenant is not None and tenant.listens and tenant.hand.deal(connection):
                return True
        return False

    # -- the end ---------------------------------------------------------------------------------------------------------------

    def _asked_to_end(self) -> None:
        if self._state == "starting":
            self._is_unwanted = True
        elif self._state == "stopping":
            self._end_now()
        else:
            self._drain()

    def _drain(self) -> None:
        """Let nobody new in, and everybody who is there end."""
        if self._state != "serving":
            return
        self._state = "stopping"
        self._log.info("ending: what is under way may take %g s", self._plan.grace)
        self._notifier.stopping()
        self._queue.clear()
        self._listeners.last_call()
        for dealer in (self._dealer, *(slot.cover for slot in self._slots)):
            if dealer is not None:
                dealer.finish()
        for slot in self._slots:
            if slot.timer is not None:
                slot.timer.cancel()
            if slot.coming is not None:
                tenant, slot.coming = slot.coming, None
                self._let_go(slot, tenant, "abort")
                tenant.hand.kill()
            if slot.current is not None:
                tenant, slot.current = slot.current, None
                self._let_go(slot, tenant, "stop")
        # Workers have taken what was in the queues by then: whoever comes now is refused.
        self._loop.call_later(min(LAST_CALL, self._plan.grace) + 0.2, self._listeners.close)
        if not any(slot.tenants() for slot in self._slots):
            self._loop.stop()

    def _end_now(self) -> None:
        self._log.warning("ending at once")
        for slot in self._slots:
            for tenant in slot.tenants():
                tenant.aborted = tenant.hand.row.connections
                tenant.reason = "asked to end at once"
                tenant.hand.kill()
        self._loop.call_later(_MARGIN, self._loop.stop)  # for threads that hang

    def _end(self) -> None:
        """Leave nothing behind, whatever there is."""
        if self._state == "ended":
            return
        self._state = "ended"
        for dealer in (self._dealer, *(slot.cover for slot in self._slots)):
            if dealer is not None:
                dealer.close()
        tenants = [tenant for slot in self._slots for tenant in slot.tenants()]
        for tenant in tenants:
            tenant.hand.kill()
        patience = time.monotonic() + _MARGIN
        for tenant in tenants:
            while tenant.hand.ended() is None and time.monotonic() < patience:
                time.sleep(0.005)
            if tenant.hand.ended() is not None:
                self._discard(tenant)
        self._final = self._table.read()
        self._listeners.close()
        for end in self._life:
            os.close(end)
        self._loop.close()

    def _status(self) -> str:
        return f"{self._count} {'processes' if self._mode == 'process' else 'threads'} on {', '.join(self.names)}"
