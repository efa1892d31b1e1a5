"""What workers count: rows, sums, and what is kept of those that have ended."""

from __future__ import annotations

from evhttp import LATENCY_BOUNDS
from evmulti._table import Counts, Table


def counts(number: int) -> Counts:
    return Counts(
        connections=number,
        queued=number + 1,
        requests=10 * number,
        accepted=20 * number,
        received=30 * number,
        sent=2**40 * number,
        latency=tuple((bound, number) for bound in LATENCY_BOUNDS),
        latency_sum=0.5 * number,
    )


def test_sums_and_shares() -> None:
    table = Table(2, 4)
    rows = [table.take(number) for number in (0, 1, 1)]
    for share, row in enumerate(rows, 1):
        assert row is not None
        row.beat(counts(share))
        assert row.connections == share
        assert row.silence >= 0
    stats = table.read()
    assert [(each.number, each.requests) for each in stats.workers] == [(0, 10), (1, 20), (1, 30)]
    assert (stats.connections, stats.queued, stats.requests, stats.sent) == (6, 9, 60, 6 * 2**40)
    assert stats.latency == tuple((bound, 6) for bound in LATENCY_BOUNDS)
    assert stats.latency_sum == 3.0
    assert [each.accepted for each in table.by_number()] == [20, 100]


def test_what_grows_never_falls_when_workers_end() -> None:
    table = Table(1, 1)
    for ended in range(3):
        row = table.take(0)
        assert row is not None
        assert table.take(0) is None  # as many live as may
        row.beat(counts(1))
        table.give_back(row)
        table.count_restart()
        stats = table.read()
        assert (stats.requests, stats.received, stats.latency_sum) == (
            10 * (ended + 1),
            30 * (ended + 1),
            0.5 * (ended + 1),
        )
        assert (stats.connections, stats.queued, stats.workers, stats.restarts) == (0, 0, (), ended + 1)
        assert table.by_number()[0].requests == stats.requests
