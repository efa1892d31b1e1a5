"""Results as a Markdown table for people and as JSON for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import loads
import machine
from harness import Benchmark, Plan, Results, Sample
from peers import NotAvailable

Spread = tuple[float, float, float]  # median, lowest, highest
Column = tuple[str, Callable[[Sample], float | None], Callable[[float], str]]

NOISY = 0.05  # share of a core in foreign hands from which on a figure is marked
LATE = 0.01  # share of late answers from which on a server does not sustain a rate


def spread(values: Sequence[float]) -> Spread | None:
    """Median and range."""
    return (statistics.median(values), min(values), max(values)) if values else None


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _fine(value: float) -> str:
    return f"{value:.2f}"


def _share(value: float) -> str:
    return f"{value:.0%}"


def _kib(value: float) -> str:
    return f"{value / 1024:.2f}"


SPEED: Sequence[Column] = (
    ("requests/s", lambda s: s.rps, _count),
    ("p50 µs", lambda s: s.p50, _count),
    ("p99 µs", lambda s: s.p99, _count),
    ("user µs/req", lambda s: s.user_us, _fine),
    ("kernel µs/req", lambda s: s.kernel_us, _fine),
    ("server CPU", lambda s: s.server_busy, _share),
    ("load CPU", lambda s: s.client_busy, _share),
    ("peak MiB", lambda s: s.peak_mib, _count),
)
RATE = tuple(SPEED[index] for index in (2, 1, 3, 4, 5, 0, 7))  # what decides stands first
IDLE: Sequence[Column] = (
    ("KiB per connection", lambda s: s.idle_bytes, _kib),
    ("MiB in all", lambda s: s.rss_mib, _count),
)
COLUMNS = {"closed": SPEED, "rate": RATE, "idle": IDLE}
# The others are given without their range, or no line would fit a screen.
WITH_RANGE = {"requests/s", "p99 µs", "KiB per connection"}


def _cell(samples: Sequence[Sample], column: Column) -> str:
    name, figure, form = column
    found = spread([value for value in map(figure, samples) if value is not None])
    if found is None:
        return "–"
    middle, low, high = found
    return f"{form(middle)} ({form(low)}..{form(high)})" if name in WITH_RANGE and low != high else form(middle)


def ratios(samples: Mapping[str, Sequence[Sample | None]], base: str, column: Column) -> dict[str, Spread]:
    """Ratio of the base server to each other one, round by round, since a round has the same noise for all."""
    found: dict[str, Spread] = {}
    for name, others in samples.items():
        pairs = zip(samples[base], others, strict=False)
        figures = [(column[1](a), column[1](b)) for a, b in pairs if a and b]
        values = spread([a / b for a, b in figures if a is not None and b])
        if values and name != base:
            found[name] = values
    return found


def _marks(samples: Sequence[Sample]) -> str:
    marks = []
    errors = sum(sample.errors for sample in samples)
    if errors:
        first = next(sample.first_error for sample in samples if sample.errors)
        marks.append(f"{errors:,} errors ({first})")
    if any((sample.foreign or 0) > NOISY for sample in samples):
        marks.append(f"disturbed: others used up to {max(sample.foreign or 0 for sample in samples):.0%} of a core")
    late = max((sample.late for sample in samples), default=0)
    if late > LATE:
        marks.append(f"up to {late:.0%} of the requests were not answered in time: it does not sustain this rate")
    return "; ".join(marks)


def workload_table(
    title: str,
    samples: Mapping[str, Sequence[Sample | None]],
    failures: Mapping[str, list[str]],
    columns: Sequence[Column],
) -> str:
    """One workload as a Markdown table, with remarks below."""
    base = next(iter(samples), "")
    ratio = ratios(samples, base, columns[0]) if base else {}
    heads = ["server", *(column[0] for column in columns), f"{base} ÷ it"]
    lines = [f"### {title}", "", f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    remarks = []
    for name, taken in samples.items():
        good = [sample for sample in taken if sample is not None]
        over = f"{ratio[name][0]:.2f} ({ratio[name][1]:.2f}..{ratio[name][2]:.2f})" if name in ratio else "–"
        lines.append(f"| {' | '.join([name, *(_cell(good, column) for column in columns), over])} |")
        for text in filter(None, [_marks(good), *failures.get(name, [])[:2]]):
            remarks.append(f"- {name}: {text}")
    return "\n".join([*lines, "", *remarks, ""] if remarks else [*lines, ""])


def markdown(benchmark: Benchmark, plan: Plan, results: Results) -> str:
    """The whole report."""
    about = machine.describe()
    parts = [
        f"## {benchmark.summary}",
        "",
        f"{about['cpu']}, {about['cores']} cores, {about['kernel']}, {about['date']}. Server on core "
        f"{plan.cores.server}, load on core {plan.cores.load}. Medians of {plan.rounds} interleaved rounds of "
        f"{plan.seconds:g} s (lowest..highest).",
        "",
    ]
    for name, about_server in results.servers.items():
        if "not_available" in about_server:
            parts.append(f"- {name}: not available: {about_server['not_available']}")
        else:
            versions = ", ".join(f"{key} {value}" for key, value in about_server["versions"].items())
            note = f" ({about_server['note']})" if "note" in about_server else ""
            parts.append(f"- {name}: {'; '.join(filter(None, [about_server['interpreter'], versions]))}{note}")
    parts += ["", *(f"Note: {note}." for note in plan.notes), ""] if plan.notes else [""]
    for name, samples in results.samples.items():
        workload = benchmark.workloads[name]
        columns = COLUMNS[workload.kind]
        parts.append(workload_table(f"{name}: {workload.summary}", samples, results.failures.get(name, {}), columns))
    rows = benchmark.targets(results.samples)
    if rows:
        parts += ["### Targets", "", "| claim | wanted | measured |", "|---|--:|--:|"]
        parts += [f"| {' | '.join(row)} |" for row in rows]
    if results.interrupted:
        parts.append("\nInterrupted: the last round is not complete.")
    return "\n".join(parts) + "\n"


def _summary(samples: Sequence[Sample | None]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for field in fields(Sample):
        values = [getattr(sample, field.name) for sample in samples if sample is not None]
        found = spread([value for value in values if isinstance(value, int | float)])
        if found:
            summary[field.name] = dict(zip(("median", "min", "max"), found, strict=True))
    return summary


def write_json(path: Path, benchmark: Benchmark, plan: Plan, results: Results) -> None:
    """Write everything, the single rounds too."""
    tools = {}
    if plan.load == "wrk":
        try:
            tools["wrk"] = loads.wrk_version()
        except NotAvailable as error:
            tools["wrk"] = str(error)
    rows = benchmark.targets(results.samples)
    workloads = {}
    for name, servers in results.samples.items():
        column = COLUMNS[benchmark.workloads[name].kind][0]
        base = next(iter(servers), "")
        workloads[name] = {
            "summary": {server: _summary(samples) for server, samples in servers.items()},
            "ratios": {"base": base, "of": column[0], "to": ratios(servers, base, column) if base else {}},
            "rounds": {server: [asdict(s) if s else None for s in samples] for server, samples in servers.items()},
            "failures": results.failures.get(name, {}),
        }
    document = {
        "benchmark": benchmark.name,
        "machine": machine.describe(),
        "plan": {
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "warmup": plan.warmup,
            "load": plan.load,
            "rate": plan.rate,
            "cores": asdict(plan.cores),
        },
        "tools": tools,
        "servers": results.servers,
        "notes": plan.notes,
        "workloads": workloads,
        "targets": [dict(zip(("claim", "wanted", "measured"), row, strict=True)) for row in rows],
        "interrupted": results.interrupted,
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
