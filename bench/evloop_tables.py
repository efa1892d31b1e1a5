"""The tables of the "evloop" benchmark, and its claims beside what was measured.

Where a workload is all computing, its claim is about CPU time, which a busy machine falsifies less; the time by the clock stands
beside it. What two threads, or sender and receiver, do together is judged by the clock.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from samples import Column, Figure, Sample, Samples, Table, count, fine, round_ratios, target_row

SIZES = (100, 1_000, 9_000)  # of readiness
TICK_MS = 10  # below which CPU time counts as none
# In per cent: to dispatch 1,087 handlers takes the fastest loop a tenth of the 13 ms that the slow ones take together.
UNEXPLAINED = 20


def figure(name: str, unit: float = 1.0) -> Figure:
    """A figure of the worker's by name, in a unit."""

    def find(sample: Sample) -> float | None:
        value = sample.figures.get(name)
        return None if value is None else value / unit

    return find


def _column(
    title: str, name: str, unit: float = 1.0, form: Callable[[float], str] = fine, *, with_range: bool = False
) -> Column:
    return Column(title, figure(name, unit), form, with_range)


def _rates(name: str, what: str = "", unit: float = 1e6, prefix: str = "M") -> tuple[Column, ...]:
    return (
        _column(f"{what}{prefix}/s of CPU", f"{name}_cpu", unit, with_range=True),
        _column(f"{prefix}/s by the clock", f"{name}_wall", unit),
        _column("CPU ns each", f"{name}_ns", form=count),
    )


_PEAK = Column("peak MiB", lambda s: s.peak_mib, count)


def _readiness(size: int) -> Table:
    columns = (
        *_rates(f"bounce{size}", unit=1e3, prefix="k"),
        _column("p50 µs", f"bounce{size}_p50", form=count),
        _column("p99 µs", f"bounce{size}_p99", form=count),
        _column("only read, k/s of CPU", f"read{size}_cpu", 1e3, count),
        _column("do nothing, k/s of CPU", f"touch{size}_cpu", 1e3, count),
    )
    return Table(columns, f"{size:,} pairs, events")


TABLES: Mapping[str, tuple[Table, ...]] = {
    "call_soon": (
        Table(
            (
                *_rates("soon_chunk"),
                _column("one that schedules itself, M/s of CPU", "soon_chain_cpu", 1e6),
                _column("defer, M/s of CPU", "defer_chunk_cpu", 1e6),
                _column("defer itself, M/s of CPU", "defer_chain_cpu", 1e6),
            )
        ),
    ),
    "timers": (
        Table(
            (
                *_rates("many", "pairs with 1,000,000: "),
                _column("with 1,000: M/s of CPU", "few_cpu", 1e6),
                _column("CPU ns each", "few_ns", form=count),
                _column("growth", "growth"),
                _column("cancelled in the same turn: M/s of CPU", "many_once_cpu", 1e6),
                _PEAK,
            )
        ),
    ),
    "fire": (
        Table(
            (
                *_rates("spread"),
                _column("late p50 ms", "spread_late_p50", 1e3),
                _column("late max ms", "spread_late_max", 1e3),
                _column("all overdue: M/s of CPU", "overdue_cpu", 1e6),
                _PEAK,
            )
        ),
    ),
    "readiness": tuple(_readiness(size) for size in SIZES),
    "latency": (
        Table(
            (
                _column("not explained p99 µs", "own_p99", form=count, with_range=True),
                _column("max", "own_max", form=count),
                _column("registered before: p50", "before_p50", form=count),
                _column("p99", "before_p99", form=count),
                _column("max", "before_max", form=count),
                _column("after: p50", "after_p50", form=count),
                _column("p99", "after_p99", form=count),
                _column("max", "after_max", form=count),
                _column("an answer that was given leaves after: p50", "answer_p50", form=count),
                _column("p99", "answer_p99", form=count),
                _column("max", "answer_max", form=count),
                _column("handlers before it: p50", "explained_p50", form=count),
                _column("p99", "explained_p99", form=count),
                _column("max", "explained_max", form=count),
            )
        ),
    ),
    "threadsafe": (
        Table(
            (
                _column("M/s by the clock", "post_wall", 1e6, with_range=True),
                _column("M/s of CPU", "post_cpu", 1e6),
                _column("wake-up p50 µs", "wake_p50", with_range=True),
                _column("p99", "wake_p99"),
            ),
            "Both threads on one core",
        ),
        Table(
            (
                _column("M/s by the clock", "post2_wall", 1e6, with_range=True),
                _column("M/s of CPU", "post2_cpu", 1e6),
                _column("wake-up p50 µs", "wake2_p50", with_range=True),
                _column("p99", "wake2_p99"),
            ),
            "A core for each",
        ),
    ),
    "sendfile": (
        Table(
            (
                _column("GiB/s by the clock", "bytes_wall", 2**30, with_range=True),
                _column("GiB/s of CPU", "bytes_cpu", 2**30),
            )
        ),
    ),
    "idle": (
        Table(
            (
                _column("CPU ms", "idle_ms", with_range=True),
                _column("in seconds", "idle_seconds"),
                _column("context switches", "switches", form=count),
                _PEAK,
            )
        ),
    ),
}

Claim = tuple[str, str, str, str, str, float]  # workload, what, our figure, peer, its figure, at least this ratio
AGAINST: tuple[Claim, ...] = (
    ("call_soon", "call_soon", "soon_chunk_cpu", "asyncio", "soon_chunk_cpu", 1.7),
    ("call_soon", "defer beside call_soon", "defer_chunk_cpu", "uvloop", "soon_chunk_cpu", 0.9),
    ("timers", "insert and cancel, 1,000,000 pending", "many_cpu", "uvloop", "many_cpu", 3.0),
    ("fire", "1,000,000 timers within one second", "spread_cpu", "asyncio", "spread_cpu", 5.0),
    *(
        ("readiness", f"bounce over {size:,} pairs", f"bounce{size}_cpu", "uvloop", f"bounce{size}_cpu", 1.5)
        for size in SIZES
    ),
    # No claims, but they tell how much of the line above is recv and send.
    *(
        ("readiness", f"{what}, {size:,} pairs", f"{name}{size}_cpu", "uvloop", f"{name}{size}_cpu", 0.0)
        for name, what in (("read", "only read"), ("touch", "do nothing"))
        for size in (100, 9_000)
    ),
    ("threadsafe", "callbacks/s, one core", "post_wall", "uvloop", "post_wall", 1.0),
    ("threadsafe", "callbacks/s, a core for each thread", "post2_wall", "uvloop", "post2_wall", 1.0),
    ("sendfile", "1 GiB", "bytes_wall", "c", "bytes_wall", 0.95),
)
# The same, where less is better: its figure over ours.
LESS_AGAINST: tuple[Claim, ...] = (
    ("threadsafe", "wake-up p50, one core", "wake_p50", "uvloop", "wake_p50", 1.0),
    ("threadsafe", "wake-up p50, a core for each thread", "wake2_p50", "uvloop", "wake2_p50", 1.0),
)
# An answer is flushed when the handlers after it have run for half a millisecond. One of them may have begun just before that was
# over, and the next look at the peer is a slow handler later.
HELD_US = 1_500
OURS = "evloop"
Row = tuple[str, str, str]


def _values(samples: Samples, loop: str, name: str) -> list[float]:
    found = (figure(name)(sample) for sample in samples.get(loop, ()) if sample)
    return [value for value in found if value is not None]


def _ratio(samples: Samples, ours: str, peer: str, theirs: str) -> float | None:
    """Our figure over a figure of a peer's, round by round; the median."""
    mine, other = samples.get(OURS, ()), samples.get(peer, ())
    ratios = round_ratios(mine, other, figure(ours), figure(theirs))
    return statistics.median(ratios) if ratios else None


def _against(samples: Samples, claim: Claim, *, less: bool) -> Row:
    workload, what, ours, peer, theirs, least = claim
    title = f"{workload}: {what} (against {peer})"
    ratio = _ratio(samples, ours, peer, theirs)
    value = 1 / ratio if ratio and less else ratio
    if any(samples.get(OURS, ())) and not _values(samples, OURS, ours):
        return title, f"≥ {least:g} ×", "not available"
    if not least:
        return title, "–", "not measured" if value is None else f"{value:.2f} ×"
    return target_row(title, f"≥ {least:g} ×", value, (value or 0) >= least)


def _at_most(title: str, values: list[float], most: float, unit: str) -> Row:
    value = statistics.median(values) if values else None
    return target_row(title, f"≤ {most:g} {unit}", value, value is not None and value <= most, unit)


def targets(measured: Mapping[str, Samples]) -> list[Row]:
    """Set our figures beside what they should be: rows of (claim, wanted, measured)."""
    rows: list[Row] = []
    for workload, samples in measured.items():
        for claims, less in ((AGAINST, False), (LESS_AGAINST, True)):
            rows += [_against(samples, claim, less=less) for claim in claims if claim[0] == workload]
        if workload == "timers":
            growth = _values(samples, OURS, "growth")
            rows.append(_at_most("timers: cost with 1,000,000 pending over that with 1,000", growth, 1.3, "×"))
        if workload == "readiness":
            kept = _values(samples, OURS, "kept")
            value = statistics.median(kept) if kept else None
            rows.append(target_row("readiness: rate at 9,000 over that at 100", "≥ 0.7 ×", value, (value or 0) >= 0.7))
        if workload == "latency":
            pairs = zip(_values(samples, OURS, "own_p99"), _values(samples, OURS, "after_p99"), strict=True)
            shares = [100 * own / wait for own, wait in pairs]
            title = "latency: p99 not explained by handlers, of the whole p99"
            rows.append(_at_most(title, shares, UNEXPLAINED, "%"))
            title = "latency: p99 of an answer that waits for others' handlers, which take 12,800 µs together"
            rows.append(_at_most(title, _values(samples, OURS, "answer_p99"), HELD_US, "µs"))
        if workload == "idle":
            rows.append(_at_most("idle: CPU time (a tick is none)", _values(samples, OURS, "idle_ms"), TICK_MS, "ms"))
    return rows
