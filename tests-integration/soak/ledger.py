"""The books: what was asked, what came, and for what did not come the fault that explains it.

A loss is explained only by a fault that was there while the request was under way, and that concerned its worker. What no fault
explains is the service's.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class WrongBytes(Exception):
    """What came is not what should have come."""


class Refused(Exception):
    """An answer that says that the service cannot just now."""


@dataclass
class Fault:
    """A fault, from its beginning to its end.

    Attributes:
        explains: What it may do to a request: ``"lost"``, ``"refused"`` (with an answer), both, or nothing.
        worker: How the name of the worker begins that it was done to; ``""``: to all.
        newcomers: Only who has not been answered yet on his connection may be lost.
        kind: Whose requests it may do that to; ``""``: everybody's.
        longer: Only requests that were under way for longer than so many seconds.
    """

    name: str
    explains: frozenset[str]
    worker: str = ""
    newcomers: bool = False
    kind: str = ""
    longer: float = 0.0
    begun: float = 0.0
    ended: float = math.inf


class Ledger:
    """Counts. For one thread."""

    def __init__(self) -> None:
        self.checked: Counter[str] = Counter()
        self.bytes = 0
        self.explained: Counter[str] = Counter()
        self.unexplained: list[str] = []
        self.wrong: list[str] = []
        self.injected: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.faults: list[Fault] = []

    @contextmanager
    def fault(
        self,
        name: str,
        *explains: str,
        worker: str = "",
        newcomers: bool = False,
        kind: str = "",
        longer: float = 0.0,
        lasts: float = 1.0,
    ) -> Iterator[Fault]:
        """A fault that is there while the block runs, and whose consequences go on for ``lasts`` seconds."""
        fault = Fault(name, frozenset(explains), worker, newcomers, kind, longer, time.monotonic())
        self.faults.append(fault)
        self.injected[name] += 1
        try:
            yield fault
        finally:
            fault.ended = time.monotonic() + lasts

    def answered(self, kind: str, size: int) -> None:
        """An answer was checked to its last byte."""
        self.checked[kind] += 1
        self.bytes += size

    def failed(self, kind: str, begun: float, worker: str, error: Exception) -> None:
        """A request that was begun at a time with a worker (``""``: who knows) was not answered, or not as it should have been."""
        if isinstance(error, WrongBytes):
            self.wrong.append(f"{kind} of worker {worker or '?'}: {error}")
            return
        what = "refused" if isinstance(error, Refused) else "lost"
        now = time.monotonic()
        for fault in reversed(self.faults):
            concerned = not worker or worker.startswith(fault.worker)
            if what == "lost" and fault.newcomers:
                concerned = not worker
            concerned = concerned and fault.kind in ("", kind) and now - begun >= fault.longer
            if what in fault.explains and concerned and fault.ended >= begun:
                self.explained[f"{what}: {fault.name}" + (f", {fault.kind}" if fault.kind else "")] += 1
                return
        near = [f"{each.name} {now - each.begun:.1f} s before" for each in self.faults if now - each.begun < 4]
        self.unexplained.append(
            f"{time.strftime('%H:%M:%S')} {kind} of worker {worker or '?'} after {now - begun:.2f} s: {error!r}; "
            f"{', '.join(near) or 'no fault was near'}"
        )
