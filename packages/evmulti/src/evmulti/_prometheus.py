"""What the workers have counted, in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

import math
from collections.abc import Iterable

from evmulti._table import Counts, Table, WorkerStats

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FAMILIES = (
    ("connections", "gauge", "Connections that are open", "connections"),
    ("queued", "gauge", "Requests and WebSocket messages that wait for a thread", "queued"),
    ("requests_total", "counter", "Requests that were understood", "requests"),
    ("connections_accepted_total", "counter", "Connections that were accepted", "accepted"),
    ("received_bytes_total", "counter", "Bytes that came from clients", "received"),
    ("sent_bytes_total", "counter", "Bytes that went to clients", "sent"),
)


def render(table: Table) -> str:
    """The page that Prometheus asks for.

    Sums over all workers, and under names of their own, so that nobody counts twice, each worker's share under the label
    ``worker``. A worker that takes another's place goes on with what that one has counted, so these series never end or fall.
    """
    stats = table.read()
    workers = table.by_number()
    lines: list[str] = []

    def family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> None:
        lines.extend((f"# HELP {name} {text}", f"# TYPE {name} {kind}"))
        lines.extend(f"{name}{end} {_number(value)}" for end, value in samples)

    family("evmulti_workers", "gauge", "Workers that live.", [("", len(stats.workers))])
    family("evmulti_worker_restarts_total", "counter", "Workers started in others' place.", [("", stats.restarts)])
    for name, kind, text, attribute in _FAMILIES:
        family(f"evmulti_{name}", kind, f"{text}.", [("", getattr(stats, attribute))])
        family(
            f"evmulti_worker_{name}",
            kind,
            f"{text}, by worker.",
            [(_labels(number), getattr(each, attribute)) for number, each in enumerate(workers)],
        )
    text = "From the request to the end of its answer"
    family("evmulti_request_seconds", "histogram", f"{text}.", _histogram(stats))
    family(
        "evmulti_worker_request_seconds",
        "histogram",
        f"{text}, by worker.",
        [sample for number, each in enumerate(workers) for sample in _histogram(each, number)],
    )
    family(
        "evmulti_worker_silence_seconds",
        "gauge",
        "Seconds since a worker's last sign of life.",
        [(_labels(number), _silence(stats.workers, number)) for number in range(len(workers))],
    )
    return "\n".join(lines) + "\n"


def _silence(workers: Iterable[WorkerStats], number: int) -> float:
    """Of the youngest with this number; endless while there is none."""
    silences = [each.silence for each in workers if each.number == number]
    return min(silences, default=math.inf)


def _histogram(counts: Counts, number: int | None = None) -> list[tuple[str, float]]:
    samples: list[tuple[str, float]] = []
    total = 0
    for bound, count in counts.latency:
        total += count
        samples.append((f"_bucket{_labels(number, le=_number(bound))}", total))
    return [*samples, (f"_sum{_labels(number)}", counts.latency_sum), (f"_count{_labels(number)}", total)]


def _labels(number: int | None, **others: str) -> str:
    named = others if number is None else {"worker": str(number), **others}
    return "{" + ",".join(f'{key}="{value}"' for key, value in named.items()) + "}" if named else ""


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return f"{value:.0f}" if value == int(value) else f"{value:.9g}"
