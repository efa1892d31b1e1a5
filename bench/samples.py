"""What one measurement gives, how it is compared, and how it is shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Spread = tuple[float, float, float]  # median, lowest, highest


@dataclass(frozen=True)
class Sample:
    """One measurement of one server. ``None`` where a workload does not have the figure."""

    rps: float | None = None
    p50: float | None = None
    p99: float | None = None
    p99_9: float | None = None
    max: float | None = None
    user_us: float | None = None  # CPU time of the server per request
    kernel_us: float | None = None
    server_busy: float | None = None  # share of a core
    client_busy: float | None = None
    foreign: float | None = None  # share of the server's and the load's core that others used, the worse of the two
    peak_mib: float | None = None
    rss_mib: float | None = None
    idle_bytes: float | None = None
    late: float = 0  # share of the requests due that were answered after the end or never
    errors: int = 0
    first_error: str = ""
    beside: float | None = None  # rps ÷ what the same process reached just before and after with another shape of load
    figures: Mapping[str, float] = field(default_factory=dict)  # by name, of benchmarks that are not about servers

    @property
    def cpu_us(self) -> float | None:
        """CPU time of the server per request, user and kernel."""
        return None if self.user_us is None or self.kernel_us is None else self.user_us + self.kernel_us


Samples = Mapping[str, Sequence[Sample | None]]
Figure = Callable[[Sample], float | None]


class Column(NamedTuple):
    """A column of a table."""

    name: str
    figure: Figure
    form: Callable[[float], str]
    with_range: bool = False  # not for all, or no line would fit a screen


class Table(NamedTuple):
    """A table; the ratios beside it are those of its first column."""

    columns: Sequence[Column]
    title: str = ""


def count(value: float) -> str:
    """Show a whole number."""
    return f"{value:,.0f}"


def fine(value: float) -> str:
    """Show a number with two places."""
    return f"{value:.2f}"


def share(value: float) -> str:
    """Show a share as a percentage."""
    return f"{value:.0%}"


def spread(values: Sequence[float]) -> Spread | None:
    """Median and range."""
    return (statistics.median(values), min(values), max(values)) if values else None


def round_ratios(
    ours: Sequence[Sample | None], theirs: Sequence[Sample | None], figure: Figure, their_figure: Figure | None = None
) -> list[float]:
    """Compare round by round, where both had the same minute of the machine; another figure of theirs if one is named."""
    pairs = [(figure(a), (their_figure or figure)(b)) for a, b in zip(ours, theirs, strict=False) if a and b]
    return [a / b for a, b in pairs if a is not None and b]


def median_ratio(ours: Sequence[Sample | None], theirs: Sequence[Sample | None], figure: Figure) -> float | None:
    """The median of the rounds' ratios."""
    found = spread(round_ratios(ours, theirs, figure))
    return found[0] if found else None


def target_row(what: str, wanted: str, value: float | None, held: bool, unit: str = "×") -> tuple[str, str, str]:
    """A claim, what it says, and what was measured."""
    if value is None:
        return what, wanted, "not measured"
    return what, wanted, f"{value:.2f} {unit}, {'held' if held else 'MISSED'}"
