"""Results as a Markdown table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import loads
import machine
from harness import Benchmark, Plan, Results
from peers import NotAvailable
from samples import Column, Sample, Samples, Spread, Table, round_ratios, spread

NOISY = 0.05  # share of a core in foreign hands from which on a figure is marked
CHECKOUT = f"{Path(__file__).resolve().parent.parent}/"  # what servers wrote may name files: as seen from there
LATE = 0.01  # share of late answers from which on a server does not sustain a rate


def _cell(samples: Sequence[Sample], column: Column) -> str:
    found = spread([value for value in map(column.figure, samples) if value is not None])
    if found is None:
        return "–"
    middle, low, high = map(column.form, found)
    return f"{middle} ({low}..{high})" if column.with_range and low != high else middle


def ratios(samples: Samples, base: str, column: Column) -> dict[str, Spread]:
    """Ratio of the base server to each other one, round by round, since a round has the same noise for all."""
    found: dict[str, Spread] = {}
    for name, others in samples.items():
        values = spread(round_ratios(samples[base], others, column.figure))
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


def _table(subject: str, samples: Samples, table: Table) -> list[str]:
    base = next(iter(samples), "")
    ratio = ratios(samples, base, table.columns[0]) if base else {}
    heads = [subject, *(column.name for column in table.columns), f"{base} ÷ it"]
    lines = [f"{table.title}:", ""] if table.title else []
    lines += [f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    for name, taken in samples.items():
        good = [sample for sample in taken if sample is not None]
        over = f"{ratio[name][0]:.2f} ({ratio[name][1]:.2f}..{ratio[name][2]:.2f})" if name in ratio else "–"
        lines.append(f"| {' | '.join([name, *(_cell(good, column) for column in table.columns), over])} |")
    return [*lines, ""]


def workload_tables(
    subject: str, title: str, samples: Samples, failures: Mapping[str, list[str]], tables: Sequence[Table]
) -> str:
    """One workload as Markdown tables, with remarks below."""
    lines = [f"### {title}", ""]
    for table in tables:
        lines += _table(subject, samples, table)
    remarks = []
    for name, taken in samples.items():
        good = [sample for sample in taken if sample is not None]
        for text in filter(None, [_marks(good), *failures.get(name, [])[:2]]):
            remarks.append(f"- {name}: {text}")
    return "\n".join([*lines, *remarks, ""] if remarks else lines)


def markdown(benchmark: Benchmark, plan: Plan, results: Results) -> str:
    """The whole report."""
    about = machine.describe()
    parts = [
        f"## {benchmark.summary}",
        "",
        f"{about['cpu']}, {about['cores']} cores, {about['kernel']}, {about['date']}. {benchmark.subject.capitalize()} on core "
        f"{plan.cores.server}, load on core {plan.cores.load}. Medians of {plan.rounds} interleaved rounds of "
        f"{plan.seconds:g} s (lowest..highest)." + (f" Sizes multiplied by {plan.scale:g}." if plan.scale != 1 else ""),
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
        title, failures = f"{name}: {workload.summary}", results.failures.get(name, {})
        parts.append(workload_tables(benchmark.subject, title, samples, failures, benchmark.tables[workload.kind]))
        if name in results.profiles:
            parts += [f"Where the time of {next(iter(samples))} goes: {results.profiles[name].text()}.", ""]
    rows = benchmark.targets(results.samples)
    if rows:
        parts += ["### Targets", "", "| claim | wanted | measured |", "|---|--:|--:|"]
        parts += [f"| {' | '.join(row)} |" for row in rows]
    if results.interrupted:
        parts.append("\nInterrupted: the last round is not complete.")
    return "\n".join(parts).replace(CHECKOUT, "") + "\n"


def _summary(samples: Sequence[Sample | None]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    good = [sample for sample in samples if sample is not None]
    columns = {field.name: [getattr(sample, field.name) for sample in good] for field in fields(Sample)}
    columns |= {name: [s.figures.get(name) for s in good] for name in {name for s in good for name in s.figures}}
    for name, values in columns.items():
        found = spread([value for value in values if isinstance(value, int | float)])
        if found:
            summary[name] = dict(zip(("median", "min", "max"), found, strict=True))
    return summary


def write_json(path: Path, benchmark: Benchmark, plan: Plan, results: Results, *, rounds: bool = True) -> None:
    """Write everything; with ``rounds`` each of them, too."""
    tools = {}
    if plan.load == "wrk":
        try:
            tools["wrk"] = loads.wrk_version()
        except NotAvailable as error:
            tools["wrk"] = str(error)
    rows = benchmark.targets(results.samples)
    workloads = {}
    for name, servers in results.samples.items():
        column = benchmark.tables[benchmark.workloads[name].kind][0].columns[0]
        base = next(iter(servers), "")
        workloads[name] = {
            "summary": {server: _summary(samples) for server, samples in servers.items()},
            "ratios": {"base": base, "of": column.name, "to": ratios(servers, base, column) if base else {}},
            "failures": results.failures.get(name, {}),
        }
        if name in results.profiles:
            workloads[name]["profile"] = asdict(results.profiles[name])
        if rounds:
            each = {server: [asdict(s) if s else None for s in samples] for server, samples in servers.items()}
            workloads[name]["rounds"] = each
    document = {
        "benchmark": benchmark.name,
        "machine": machine.describe(),
        "plan": {
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "warmup": plan.warmup,
            "load": plan.load,
            "rate": plan.rate,
            "scale": plan.scale,
            "cores": asdict(plan.cores),
        },
        "tools": tools,
        "servers": results.servers,
        "notes": plan.notes,
        "workloads": workloads,
        "targets": [dict(zip(("claim", "wanted", "measured"), row, strict=True)) for row in rows],
        "interrupted": results.interrupted,
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False).replace(CHECKOUT, "") + "\n")
