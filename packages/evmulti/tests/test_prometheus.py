"""The page for Prometheus."""

from __future__ import annotations

import re

from evhttp import LATENCY_BOUNDS
from evmulti._prometheus import render
from evmulti._table import Table

from .test_table import counts

# https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
SAMPLE = re.compile(r'([a-z_]+)(\{[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*\})? (\+Inf|[0-9.e+-]+)')


def test_every_sample_belongs_to_a_family_and_stands_once() -> None:
    table = Table(2, 3)
    row = table.take(1)
    assert row is not None
    row.beat(counts(1))
    kinds: dict[str, str] = {}
    seen: dict[str, float] = {}
    for line in render(table).splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            found = SAMPLE.fullmatch(line)
            assert found is not None, line
            name, labels, value = found.groups(default="")
            family = re.sub("_(bucket|sum|count)$", "", name)
            assert name in kinds or kinds[family] == "histogram"
            assert name + labels not in seen
            seen[name + labels] = float(value)
    assert seen["evmulti_requests_total"] == seen['evmulti_worker_requests_total{worker="1"}'] == 10
    assert seen['evmulti_worker_requests_total{worker="0"}'] == 0
    assert seen["evmulti_queued"] == 2
    # Buckets are cumulative, and the last one has all.
    assert seen['evmulti_request_seconds_bucket{le="0.0001"}'] == 1
    assert seen['evmulti_request_seconds_bucket{le="+Inf"}'] == len(LATENCY_BOUNDS)
    assert seen["evmulti_request_seconds_count"] == len(LATENCY_BOUNDS)
    assert seen["evmulti_request_seconds_sum"] == 0.5
    # Who is not there gives no sign of life.
    assert seen['evmulti_worker_silence_seconds{worker="0"}'] == float("inf")
