"""The "http" benchmark: one GET, one constant answer, loaded in the ways that tell servers apart."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import statistics
from collections.abc import Mapping, Sequence

import loads
from catalog import SERVERS, Ready
from harness import Benchmark, Plan, Running, ServerFailed, Window, Workload, serving
from samples import Column, Figure, Sample, Samples, Table, count, fine, median_ratio, share, target_row

IDLE_CONNECTIONS = 5000
RATE_SHARE = 0.6  # of nginx's closed-loop rate: loaded, but far from where queues grow by themselves

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("plain", "GET /, 64 keep-alive connections", wrk=True),
        Workload(
            "browser",
            "a browser's GET of 12 header fields, the handler reads two of them",
            shape=loads.Shape(browser=True),
            handler="browser",
        ),
        Workload("pipeline16", "16 requests sent together, 64 connections", shape=loads.Shape(pipeline=16)),
        Workload("close", "a connection per request, 64 at a time", shape=loads.Shape(close=True), wrk=True),
        Workload(
            "c1000",
            "GET /, 1,000 keep-alive connections; before and after it 64, of the same process",
            kind="beside",
            shape=loads.Shape(connections=1000),
            beside=loads.Shape(),
        ),
        Workload("p99", "latency at one constant rate for all, 64 connections", kind="rate"),
        Workload("idle5000", "memory of 5,000 idle keep-alive connections", kind="idle"),
    )
}


def answers(host: str, port: int) -> bool:
    """Whether the server gives the right answer to one request."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/", headers={"User-Agent": "bench", "Accept-Language": "en"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    if response.status != 200 or body != loads.BODY.encode():
        raise ServerFailed(f"wrong answer: status {response.status}, {len(body)} bytes of body")
    return True


def sample_of(result: loads.LoadResult, running: Running, window: Window) -> Sample:
    memory = running.process.memory()
    inside = result.requests - result.late  # the CPU time was read at the end of the measured time
    per_request = 1e6 / inside if inside else 0.0
    return Sample(
        rps=result.rps,
        p50=result.p50,
        p99=result.p99,
        p99_9=result.p99_9 or None,
        max=result.max,
        user_us=window.usage.user * per_request,
        kernel_us=window.usage.kernel * per_request,
        server_busy=window.usage.total / window.seconds,
        client_busy=result.client_cpu / window.seconds or None,
        foreign=window.foreign(result.client_cpu),
        peak_mib=memory.peak / 2**20,
        rss_mib=memory.used / 2**20,
        late=(result.late + result.unfinished) / max(1, result.requests + result.unfinished),
        errors=result.errors,
        first_error=result.first_error,
    )


def _measure_idle(running: Running, plan: Plan) -> Sample:
    # What the first requests of its life make a server allocate is not the price of a connection.
    loads.run_client(running.address, loads.Shape(), seconds=0.5, warmup=plan.warmup, core=plan.cores.load)
    before = running.process.memory()
    with loads.idle_connections(running.address, IDLE_CONNECTIONS, core=plan.cores.load):
        after = running.process.memory()
    return Sample(
        idle_bytes=(after.used - before.used) / IDLE_CONNECTIONS,
        peak_mib=after.peak / 2**20,
        rss_mib=after.used / 2**20,
    )


def measure(ready: Ready, workload: Workload, plan: Plan) -> Sample:
    """Take one measurement of one server, freshly started."""
    with serving(ready, workload.handler, plan, answers) as running:
        if workload.kind == "idle":
            return _measure_idle(running, plan)
        before = _rate_of(running, workload.beside, plan)
        window = Window(running.process, plan.cores)
        if plan.load == "wrk" and workload.wrk:
            result = loads.run_wrk(
                running.address,
                workload.shape,
                seconds=plan.seconds,
                warmup=plan.warmup,
                core=plan.cores.load,
                at_start=window.start,
                at_end=window.end,
            )
        else:
            result = loads.run_client(
                running.address,
                workload.shape,
                seconds=plan.seconds,
                warmup=plan.warmup,
                core=plan.cores.load,
                rate=plan.rate if workload.kind == "rate" else 0,
                at_start=window.start,
                at_end=window.end,
            )
        if not result.requests:
            raise loads.LoadFailed(f"no request was answered ({result.first_error or 'no error either'})")
        sample = sample_of(result, running, window)
        after = _rate_of(running, workload.beside, plan)
        return dataclasses.replace(sample, beside=2 * result.rps / (before + after)) if before and after else sample


def _rate_of(running: Running, shape: loads.Shape | None, plan: Plan) -> float:
    if shape is None:
        return 0.0
    seconds, core = plan.seconds / 2, plan.cores.load
    return loads.run_client(running.address, shape, seconds=seconds, warmup=plan.warmup / 2, core=core).rps


def prepare(ready: Sequence[Ready], workloads: Sequence[Workload], plan: Plan) -> None:
    """Find the rate of the equal-load workload: a share of nginx's, or of the slowest server's without nginx."""
    if plan.load == "wrk":
        plan.note("wrk checks no bodies; workloads it cannot do were loaded by our own client")
    if plan.rate or not any(workload.kind == "rate" for workload in workloads):
        return
    nginx = [server for server in ready if server.name == "nginx"]
    speeds = []
    for server in nginx or ready:
        with contextlib.suppress(ServerFailed, loads.LoadFailed), serving(server, "hello", plan, answers) as running:
            shape, core = loads.Shape(), plan.cores.load
            speeds.append(loads.run_client(running.address, shape, seconds=2, warmup=1, core=core).rps)
    plan.rate = round(RATE_SHARE * min(speeds, default=50_000), -2)
    plan.note(f"p99: {plan.rate:,.0f} requests/s, {RATE_SHARE:.0%} of {'nginx' if nginx else 'the slowest server'}")


def _rps(sample: Sample) -> float | None:
    return sample.rps


def _against(samples: Samples, peers: Sequence[str], figure: Figure = _rps) -> float | None:
    """Our median ratio to the best of some peers, which is the lowest ratio."""
    ratios = [median_ratio(samples["evhttp"], samples[peer], figure) for peer in peers if peer in samples]
    return min((ratio for ratio in ratios if ratio is not None), default=None)


PYTHON_PEERS = ("uvicorn", "granian-rsgi", "granian-wsgi")
# workload, peers whose best is meant, at least this many times its requests/s
SPEED_TARGETS = (
    ("plain", ("nginx",), 1.0),
    ("plain", ("floor",), 0.85),
    ("plain", PYTHON_PEERS, 2.0),
    ("plain", ("mrhttp",), 0.95),  # "level with" the fastest C extensions
    ("plain", ("japronto",), 0.95),
    ("browser", ("nginx",), 0.9),
    ("pipeline16", ("nginx",), 5.0),
    ("pipeline16", PYTHON_PEERS, 8.0),
)


def targets(samples: Mapping[str, Samples]) -> list[tuple[str, str, str]]:
    """Set our figures beside what they should be: rows of (claim, wanted, measured)."""
    rows = []
    mine = {name: servers for name, servers in samples.items() if "evhttp" in servers}
    for workload, peers, least in SPEED_TARGETS:
        if workload in mine:
            value = _against(mine[workload], peers)
            name = peers[0] if len(peers) == 1 else "best of uvicorn and granian"
            rows.append(target_row(f"{workload}: against {name}", f"≥ {least:g} ×", value, (value or 0) >= least))
    if "close" in mine:
        # The client is often the limit here, so CPU time per request decides.
        value = _against(mine["close"], ("nginx",), lambda s: 1 / s.cpu_us if s.cpu_us else None)
        rows.append(target_row("close: nginx's CPU time per request / ours", "≥ 0.95 ×", value, (value or 0) >= 0.95))
    if "c1000" in mine:
        ratios = [s.beside for s in mine["c1000"]["evhttp"] if s and s.beside is not None]
        value = statistics.median(ratios) if ratios else None
        rows.append(target_row("c1000: against ourselves with 64", "≥ 0.85 ×", value, (value or 0) >= 0.85))
    if "p99" in mine:
        value = median_ratio(mine["p99"]["evhttp"], mine["p99"].get("nginx", []), lambda s: s.p99)
        rows.append(target_row("p99: against nginx", "≤ 1.5 ×", value, value is not None and value <= 1.5))
    if "idle5000" in mine:
        sizes = [s.idle_bytes / 1024 for s in mine["idle5000"]["evhttp"] if s and s.idle_bytes is not None]
        size = statistics.median(sizes) if sizes else None
        rows.append(
            target_row("idle5000: memory per connection", "< 1.5 KiB", size, size is not None and size < 1.5, "KiB")
        )
    return rows


SPEED = (
    Column("requests/s", _rps, count, True),
    Column("p50 µs", lambda s: s.p50, count),
    Column("p99 µs", lambda s: s.p99, count, True),
    Column("user µs/req", lambda s: s.user_us, fine),
    Column("kernel µs/req", lambda s: s.kernel_us, fine),
    Column("server CPU", lambda s: s.server_busy, share),
    Column("load CPU", lambda s: s.client_busy, share),
    Column("peak MiB", lambda s: s.peak_mib, count),
)
IDLE = (
    Column("KiB per connection", lambda s: s.idle_bytes and s.idle_bytes / 1024, fine, True),
    Column("MiB in all", lambda s: s.rss_mib, count),
)
BESIDE = Column("× at 64", lambda s: s.beside, fine, True)
TABLES = {
    "closed": (Table(SPEED),),
    "beside": (Table((SPEED[0], BESIDE, *SPEED[2:])),),
    "rate": (Table(tuple(SPEED[index] for index in (2, 1, 3, 4, 5, 0, 7))),),  # what decides stands first
    "idle": (Table(IDLE),),
}
BENCHMARK = Benchmark(
    "http",
    "HTTP/1.1 servers answering a constant",
    SERVERS,
    WORKLOADS,
    measure,
    prepare,
    targets,
    TABLES,
    files=6000,
)
