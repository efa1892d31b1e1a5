"""A worker's place: who is in it, who comes, who leaves, and how long to wait after a death."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from evloop import Loop, TimerHandle
from evmulti._dealer import Dealer
from evmulti._table import Row

__all__ = ["Hand", "Slot", "Tenant"]

_SETTLED = 10.0  # seconds after which a worker's death is not the last one's fault any more
_FIRST, _LONGEST = 0.1, 30.0


class Hand(Protocol):
    """The supervisor's side of a worker, in a thread or a process. See `ProcessWorker`."""

    number: int
    pid: int
    row: Row

    def start(
        self,
        loop: Loop,
        others: Sequence[Any],
        life: tuple[int, int],
        on_message: Callable[[list[Any]], object],
        on_end: Callable[[], object],
    ) -> None: ...
    def command(self, what: str) -> None: ...
    def deal(self, connection: socket.socket) -> bool: ...
    def ended(self) -> str | None: ...
    def kill(self) -> bool: ...
    def close(self) -> None: ...
    def describe(self) -> str: ...


@dataclass(eq=False, slots=True)
class Tenant:
    """A worker in a place.

    Attributes:
        hand: It.
        born: When it was started, on the loop's clock.
        listens: It has said that it is ready.
        superseded: It was let go before it had said that it is ready, because there is newer code.
        reason: What it said of its failure, or why we killed it.
        aborted: Connections that it had to abort at its end.
        overdue: The timer after which it is not waited for any longer.
    """

    hand: Hand
    born: float
    listens: bool = False
    superseded: bool = False
    reason: str = ""
    aborted: int = 0
    overdue: TimerHandle | None = None


@dataclass(eq=False, slots=True)
class Slot:
    """A place.

    Attributes:
        number: The worker's.
        current: Who serves.
        coming: Who will when it is ready.
        leaving: Those who serve what they have.
        failures: Deaths in a row.
        timer: When the next one is started.
        cover: Accepts in its stead while nobody is here.
    """

    number: int
    current: Tenant | None = None
    coming: Tenant | None = None
    leaving: list[Tenant] = field(default_factory=list)
    failures: int = 0
    timer: TimerHandle | None = None
    cover: Dealer | None = None

    def tenants(self) -> list[Tenant]:
        """Everybody."""
        return [each for each in (self.current, self.coming, *self.leaving) if each is not None]

    def delay(self, lived: float) -> float:
        """Seconds to wait after somebody has died: none at first, then 0.1, doubled each time up to 30."""
        if lived > _SETTLED:
            self.failures = 0
        self.failures += 1
        return 0.0 if self.failures == 1 else float(min(_LONGEST, _FIRST * 2 ** (self.failures - 2)))
