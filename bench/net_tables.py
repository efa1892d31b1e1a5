"""The tables of the "net" benchmark, and its claims beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import NamedTuple

from samples import Column, Figure, Sample, Samples, Table, count, fine, median_ratio, share, target_row

OURS = "evnet"
FLOOR = "floor"
PEERS = ("asyncio", "uvloop", "rloop", "aiofastnet")


def per_cpu(sample: Sample) -> float | None:
    """Exchanges per second of the CPU time of what is measured."""
    return 1e6 / sample.cpu_us if sample.cpu_us else None


def rate(sample: Sample) -> float | None:
    """Exchanges per second by the clock."""
    return sample.rps


def figure(name: str, unit: float = 1.0) -> Figure:
    """A figure that only some workloads have, in a unit."""

    def find(sample: Sample) -> float | None:
        value = sample.figures.get(name)
        return None if value is None else value / unit

    return find


_CPU = (
    Column("user µs each", lambda s: s.user_us, fine),
    Column("kernel µs each", lambda s: s.kernel_us, fine),
)
_BUSY = (
    Column("its CPU", lambda s: s.server_busy, share),
    Column("load CPU", lambda s: s.client_busy, share),
    Column("peak MiB", lambda s: s.peak_mib, count),
)
_LATENCY = (
    Column("p50 µs", lambda s: s.p50, count),
    Column("p99 µs", lambda s: s.p99, count),
)
_RATE = Column("exchanges/s", rate, count, True)
_PER_CPU = Column("per s of CPU", per_cpu, count, True)

TABLES: Mapping[str, tuple[Table, ...]] = {
    "echo": (Table((_RATE, _PER_CPU, *_CPU, *_LATENCY, *_BUSY)),),
    "udp": (Table((_RATE, _PER_CPU, *_CPU, *_LATENCY, Column("lost", figure("lost"), count), *_BUSY)),),
    "once": (Table((_PER_CPU, _RATE, *_CPU, *_LATENCY, *_BUSY)),),
    "dial": (Table((_PER_CPU, _RATE, *_CPU, _BUSY[0], _BUSY[2])),),
    "file": (
        Table(
            (
                Column("GiB/s by the clock", figure("bytes_wall", 2**30), fine, True),
                Column("GiB/s of CPU", figure("bytes_cpu", 2**30), fine),
                *_BUSY,
            )
        ),
    ),
    "fanout": (
        Table(
            (
                Column("k messages/s", figure("delivered", 1e3), count, True),
                Column("k messages/s of CPU", figure("delivered_cpu", 1e3), count),
                Column("ms until the last has it, p50", lambda s: s.p50 and s.p50 / 1e3, fine),
                Column("p99", lambda s: s.p99 and s.p99 / 1e3, fine),
                *_CPU,
                *_BUSY,
            )
        ),
    ),
    "idle": (
        Table(
            (
                Column("KiB per connection", lambda s: s.idle_bytes and s.idle_bytes / 1024, fine, True),
                Column("MiB in all", lambda s: s.rss_mib, count),
            )
        ),
    ),
}


class Claim(NamedTuple):
    """Our figure over that of a peer, or of the best of some, is at least so much; 0 where nothing is claimed."""

    workload: str
    what: str
    figure: Figure
    peers: tuple[str, ...]
    least: float


CLAIMS = (
    Claim("echo1k", "exchanges/s", rate, ("uvloop",), 1.2),
    Claim("echo1k", "exchanges/s", rate, PEERS, 1.0),
    Claim("echo1k", "exchanges/s", rate, (FLOOR,), 0.85),
    Claim("echo1k", "exchanges per CPU time", per_cpu, ("uvloop",), 0),
    Claim("echo1k", "exchanges per CPU time", per_cpu, (FLOOR,), 0),
    Claim("echo64k", "exchanges/s", rate, PEERS, 1.0),
    Claim("echo64k", "exchanges per CPU time", per_cpu, PEERS, 0),
    Claim("tls1k", "exchanges/s", rate, ("uvloop",), 1.2),
    Claim("tls64k", "exchanges/s", rate, ("uvloop",), 1.2),
    Claim("sendfile", "bytes/s", figure("bytes_wall"), (FLOOR,), 0.95),
    Claim("sendfile", "bytes/s", figure("bytes_wall"), ("uvloop",), 1.5),
    Claim("sendfile", "bytes/s", figure("bytes_wall"), ("uvloop-fd",), 0),
    Claim("udp64", "exchanges/s", rate, ("uvloop",), 2.0),
    Claim("udp64", "exchanges per CPU time", per_cpu, ("uvloop",), 0),
    Claim("once", "exchanges per CPU time of the server", per_cpu, ("uvloop",), 1.2),
    Claim("dial", "exchanges per CPU time of the client", per_cpu, ("uvloop",), 1.2),
    Claim("fanout10k", "messages/s until the last has it", figure("delivered"), ("uvloop",), 3.0),
    Claim("fanout10k", "messages/s until the last has it", figure("delivered"), (FLOOR,), 0),
    Claim("broadcast10k", "messages/s until the last has it", figure("delivered"), ("uvloop",), 3.0),
    Claim("broadcast10k", "messages/s until the last has it", figure("delivered"), (FLOOR,), 0),
)
IDLE_KIB = 1.0


def _against(samples: Samples, claim: Claim) -> tuple[float | None, str]:
    """The lowest of the median ratios, and whose it is."""
    found = {peer: median_ratio(samples[OURS], samples[peer], claim.figure) for peer in claim.peers if peer in samples}
    ratios = {peer: ratio for peer, ratio in found.items() if ratio is not None}
    best = min(ratios, key=lambda peer: ratios[peer], default="")
    return ratios.get(best), best


def targets(measured: Mapping[str, Samples]) -> list[tuple[str, str, str]]:
    """Set our figures beside what they should be: rows of (claim, wanted, measured)."""
    rows = []
    for claim in CLAIMS:
        samples = measured.get(claim.workload, {})
        if OURS not in samples or not any(peer in samples for peer in claim.peers):
            continue
        value, best = _against(samples, claim)
        whose = claim.peers[0] if len(claim.peers) == 1 else f"the best peer{f', {best}' if best else ''}"
        title = f"{claim.workload}: {claim.what}, against {whose}"
        if claim.least:
            rows.append(target_row(title, f"≥ {claim.least:g} ×", value, (value or 0) >= claim.least))
        else:
            rows.append((title, "–", "not measured" if value is None else f"{value:.2f} ×"))
    if OURS in measured.get("idle10k", {}):
        sizes = [s.idle_bytes / 1024 for s in measured["idle10k"][OURS] if s and s.idle_bytes is not None]
        size = statistics.median(sizes) if sizes else None
        held = size is not None and size < IDLE_KIB
        rows.append(target_row("idle10k: memory per connection", f"< {IDLE_KIB:g} KiB", size, held, "KiB"))
    return rows
