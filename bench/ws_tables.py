"""The tables of the "ws" benchmark, and its claims beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from net_tables import TABLES as NET_TABLES
from net_tables import Claim, figure, per_cpu, rate
from samples import Column, Samples, Table, fine, median_ratio, target_row

OURS, SPEED, FLOOR = "evws", "evws-speed", "floor"
PEERS = ("picows", "websockets", "aiohttp", "socketify", "uvicorn")
TABLES: Mapping[str, tuple[Table, ...]] = {
    "echo": NET_TABLES["echo"],
    "deflate": NET_TABLES["echo"],
    "fanout": NET_TABLES["fanout"],
    "idle": NET_TABLES["idle"],
    "client": (Table(NET_TABLES["echo"][0].columns[:4]),),
    "mask": (Table((Column("GiB/s", figure("bytes_wall", 2**30), fine, True),)),),
}
CLAIMS = (
    Claim("echo16", "echoes/s", rate, ("picows",), 1.2),
    Claim("echo16", "echoes/s", rate, (FLOOR,), 0.85),
    Claim("echo16", "echoes per CPU time", per_cpu, ("picows",), 0),
    Claim("echo256", "echoes/s", rate, ("picows",), 1.2),
    Claim("echo256", "echoes/s", rate, (FLOOR,), 0.85),
    Claim("echo256", "echoes per CPU time", per_cpu, ("picows",), 0),
    Claim("echo8k", "echoes/s", rate, ("picows",), 1.4),
    Claim("echo100k", "echoes/s", rate, PEERS, 1.0),
    Claim("echo1m", "echoes/s", rate, PEERS, 1.0),
    Claim("deflate256", "echoes/s", rate, ("aiohttp",), 1.5),
    Claim("deflate8k", "echoes/s", rate, ("aiohttp",), 1.5),
    Claim("broadcast10k", "messages/s until the last has it", figure("delivered"), PEERS, 3.0),
    Claim("broadcast10k", "messages/s until the last has it", figure("delivered"), (FLOOR,), 0),
    Claim("client256", "echoes/s of a client", rate, ("picows",), 1.0),
    Claim("client256", "echoes per CPU time of a client", per_cpu, ("picows",), 0),
    Claim("client256", "echoes/s of a client", rate, (FLOOR,), 0),
    Claim("mask64k", "bytes/s, against memcpy", figure("bytes_wall"), (FLOOR,), 0.5),
)
SPEED_CLAIM = Claim("deflate8k", "echoes/s with evws[speed]", rate, ("socketify",), 1.0)
IDLE_KIB = 2.0


def _row(ours: str, claim: Claim, samples: Samples) -> tuple[str, str, str] | None:
    found = {peer: median_ratio(samples[ours], samples[peer], claim.figure) for peer in claim.peers if peer in samples}
    ratios = {peer: ratio for peer, ratio in found.items() if ratio is not None}
    if not found:
        return None
    best = min(ratios, key=lambda peer: ratios[peer], default="")
    value = ratios.get(best)
    whose = claim.peers[0] if len(claim.peers) == 1 else f"the best peer{f', {best}' if best else ''}"
    title = f"{claim.workload}: {claim.what}, against {whose}"
    if claim.least:
        return target_row(title, f"≥ {claim.least:g} ×", value, (value or 0) >= claim.least)
    return (title, "–", "not measured" if value is None else f"{value:.2f} ×")


def targets(measured: Mapping[str, Samples]) -> list[tuple[str, str, str]]:
    """Set our figures beside what they should be: rows of (claim, wanted, measured)."""
    rows = []
    for ours, claim in [*((OURS, claim) for claim in CLAIMS), (SPEED, SPEED_CLAIM)]:
        samples = measured.get(claim.workload, {})
        row = _row(ours, claim, samples) if ours in samples else None
        if row is not None:
            rows.append(row)
    if OURS in measured.get("idle10k", {}):
        sizes = [s.idle_bytes / 1024 for s in measured["idle10k"][OURS] if s and s.idle_bytes is not None]
        size = statistics.median(sizes) if sizes else None
        held = size is not None and size < IDLE_KIB
        rows.append(target_row("idle10k: memory per connection", f"< {IDLE_KIB:g} KiB", size, held, "KiB"))
    return rows
