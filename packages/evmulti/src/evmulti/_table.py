"""What workers count, in memory that all of them and their supervisor see.

One row per worker that lives, written by it alone, twice a second and at its end; so nobody waits for anybody, and a worker that
was killed has lost half a second of counts. What workers have counted that have ended is kept by the supervisor in a row for each
number, so sums never go down.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evhttp import LATENCY_BOUNDS

__all__ = ["Counts", "MultiStats", "Row", "Table", "WorkerStats"]

# What only grows, and is kept when a worker ends: as in `Counts`, and then the buckets of the histogram.
_COUNTERS = ("requests", "accepted", "received", "sent", "latency_ns")
_BUCKETS = len(LATENCY_BOUNDS)
_FIELDS = ("taken", "number", "started", "beat", "connections", "queued", *_COUNTERS)
_AT = {name: place for place, name in enumerate(_FIELDS)}
_GAUGES_AT, _COUNTERS_AT = _AT["connections"], _AT["requests"]
_WIDTH = len(_FIELDS) + _BUCKETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one worker, or all together, have counted.

    Attributes:
        connections: Open now.
        queued: Requests and WebSocket messages that wait now for a thread of a `Dispatcher`.
        requests: Those that were understood; 0 for plain protocols.
        accepted: Connections that were accepted, or dealt out by the supervisor.
        received: Bytes that came from clients.
        sent: Bytes that went to clients.
        latency: Answers by how long they took from the request on: pairs of a bound in seconds and how many took at most so long
            and longer than the bound before it. The last bound is infinite.
        latency_sum: Seconds, of all answers together.
    """

    connections: int
    queued: int
    requests: int
    accepted: int
    received: int
    sent: int
    latency: tuple[tuple[float, int], ...]
    latency_sum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats(Counts):
    """What a worker has counted that lives.

    Attributes:
        number: The worker's number; two have the same while one takes the other's place.
        age: Seconds since it was started.
        silence: Seconds since it last gave a sign of life; it does so twice a second.
    """

    number: int
    age: float
    silence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiStats(Counts):
    """What a server has counted, in workers that have ended too; half a second old at most.

    Attributes:
        workers: Those that live.
        restarts: How many workers were started in the place of others.
    """

    workers: tuple[WorkerStats, ...]
    restarts: int


class Table:
    """The rows.

    Args:
        numbers: How many workers there are to be.
        most: How many may live at a time.
    """

    def __init__(self, numbers: int, most: int) -> None:
        self.numbers = numbers
        self._first = 1 + numbers  # the first row, and one for each number, are the supervisor's
        self._rows = self._first + most
        # Anonymous and shared: forked workers have the same pages. Words of eight bytes, so that no reader sees half of one.
        self._memory = mmap.mmap(-1, self._rows * _WIDTH * 8)
        self._words = memoryview(self._memory).cast("Q")

    def take(self, number: int) -> Row | None:
        """A row for a new worker; ``None`` if as many live as may."""
        for index in range(self._first, self._rows):
            row = Row(self._row(index))
            if not row.words[0]:
                for place in range(_WIDTH):
                    row.words[place] = 0
                row.words[_AT["number"]] = number
                row.words[_AT["started"]] = row.words[_AT["beat"]] = time.monotonic_ns()
                row.words[_AT["taken"]] = 1
                return row
        return None

    def give_back(self, row: Row) -> None:
        """Keep what an ended worker has counted, and free its row."""
        kept = self._row(1 + row.words[_AT["number"]])
        for place in range(_COUNTERS_AT, _WIDTH):
            kept[place] += row.words[place]
        row.words[_AT["taken"]] = 0

    def count_restart(self) -> None:
        """A worker takes another's place."""
        self._words[_AT["started"]] += 1

    def read(self) -> MultiStats:
        """What was counted up to now. May be called by every worker."""
        now = time.monotonic_ns()
        workers = tuple(
            WorkerStats(
                number=words[_AT["number"]],
                age=(now - words[_AT["started"]]) / 1e9,
                silence=max(0, now - words[_AT["beat"]]) / 1e9,  # a beat may be younger than `now`
                **_counts(words),
            )
            for words in self._taken()
        )
        whole = [self._row(index).tolist() for index in range(1, self._first)]
        return MultiStats(
            workers=workers, restarts=self._words[_AT["started"]], **_counts(_sum([*whole, *self._taken()]))
        )

    def by_number(self) -> list[Counts]:
        """What the workers of each number have counted one after the other."""
        alive = list(self._taken())
        return [
            Counts(
                **_counts(
                    _sum(
                        [self._row(1 + number).tolist(), *(words for words in alive if words[_AT["number"]] == number)]
                    )
                )
            )
            for number in range(self.numbers)
        ]

    def _row(self, index: int) -> memoryview:
        return self._words[index * _WIDTH : (index + 1) * _WIDTH]

    def _taken(self) -> Iterator[list[int]]:
        for index in range(self._first, self._rows):
            words = self._row(index).tolist()
            if words[_AT["taken"]]:
                yield words


class Row:
    """A worker's row. Written by the worker."""

    __slots__ = ("words",)

    def __init__(self, words: memoryview) -> None:
        self.words = words

    def beat(self, counts: Counts) -> None:
        """Give a sign of life, and write down what was counted."""
        values = (
            *(counts.connections, counts.queued),
            *(counts.requests, counts.accepted, counts.received, counts.sent, int(counts.latency_sum * 1e9)),
            *(count for _, count in counts.latency),
        )
        for place, value in enumerate(values, _GAUGES_AT):
            self.words[place] = value
        self.words[_AT["beat"]] = time.monotonic_ns()

    @property
    def connections(self) -> int:
        """How many were open at the last sign of life."""
        return self.words[_AT["connections"]]

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return (time.monotonic_ns() - self.words[_AT["beat"]]) / 1e9


def _counts(words: Sequence[int]) -> dict[str, Any]:
    """What a row says, as arguments for `Counts`."""
    found: dict[str, Any] = {name: words[_AT[name]] for name in ("connections", "queued", *_COUNTERS[:-1])}
    found["latency"] = tuple(zip(LATENCY_BOUNDS, words[-_BUCKETS:], strict=True))
    found["latency_sum"] = words[_AT["latency_ns"]] / 1e9
    return found


def _sum(rows: Sequence[Sequence[int]]) -> list[int]:
    return [sum(words) for words in zip(*rows, strict=True)]
