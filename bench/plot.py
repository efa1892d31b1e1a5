"""A benchmark's results as a picture: a panel for each workload, a bar for each server, from its lowest round to its highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import machine
from harness import Benchmark, Plan, Results
from samples import Column, Sample, spread

__all__ = ["MissingPlotter", "check", "draw"]

OURS, FLOOR, OTHERS = "#0b7a75", "#b8b8b8", "#8aa0b8"
PER_ROW = 3


class MissingPlotter(Exception):
    """There is no matplotlib."""


def check() -> None:
    """Raise `MissingPlotter` now rather than after an hour of measuring."""
    try:
        import matplotlib  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise MissingPlotter(
            "--results draws plots with matplotlib, which this Python does not have: pip install matplotlib, or nox -s bench"
        ) from None
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"  # so that equal results are equal files
    matplotlib.rcParams["svg.fonttype"] = "none"


def draw(path: Path, benchmark: Benchmark, plan: Plan, results: Results) -> None:
    """Write the picture as SVG."""
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    names = [name for name, samples in results.samples.items() if any(any(taken) for taken in samples.values())]
    rows = -(-len(names) // PER_ROW)
    most = max(len(results.samples[name]) for name in names)
    size = (4.6 * min(PER_ROW, len(names)), rows * (0.9 + 0.24 * most))
    figure, axes = pyplot.subplots(rows, min(PER_ROW, len(names)), figsize=size, squeeze=False, layout="constrained")
    panels = [axis for row in axes for axis in row]
    for axis, name in zip(panels, names, strict=False):
        workload = benchmark.workloads[name]
        _panel(axis, name, results.samples[name], benchmark.tables[workload.kind][0].columns[0])
    for axis in panels[len(names) :]:
        axis.set_axis_off()
    about = machine.describe()
    figure.suptitle(
        f"{benchmark.summary}: {about['cpu']}, {about['cores']} cores, {str(about['date'])[:10]}, "
        f"medians of {plan.rounds} rounds of {plan.seconds:g} s, lines from the lowest to the highest",
        fontsize=8,
    )
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _panel(axis: Any, name: str, samples: Mapping[str, Sequence[Sample | None]], column: Column) -> None:
    found = {}
    for server, taken in samples.items():
        figures = [column.figure(sample) for sample in taken if sample is not None]
        values = spread([figure for figure in figures if figure is not None])
        if values:
            found[server] = values
    ours = next(iter(samples))
    for place, (server, (middle, low, high)) in enumerate(found.items()):
        color = OURS if server.partition("-")[0] == ours else FLOOR if server in ("floor", "c") else OTHERS
        axis.barh(place, middle, color=color, height=0.7)
        axis.plot([low, high], [place, place], color="#303030", linewidth=0.8)
        axis.text(high, place, f"  {column.form(middle)}", va="center", ha="left", fontsize=7)
    axis.set_yticks(range(len(found)), list(found), fontsize=7)
    axis.invert_yaxis()
    medians = [middle for middle, _, _ in found.values()]
    is_rate = any(each in column.name for each in ("/s", "per s", "of CPU"))
    wide = not is_rate and max(medians) > 50 * min(medians)
    if wide:
        axis.set_xscale("log")
    notes = ["more is better" if is_rate else "less is better", *(["logarithmic"] if wide else [])]
    axis.set_title(f"{name}: {column.name} ({', '.join(notes)})", fontsize=8, loc="left")
    axis.set_xlim(right=axis.get_xlim()[1] * (4 if wide else 1.25))
    axis.set_xticks([])  # each bar has its figure
    axis.minorticks_off()
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
