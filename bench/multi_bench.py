"""The "multi" benchmark: one server on many loops. What a second worker costs and gives, and how clients are spread."""

from __future__ import annotations

import dataclasses
import http.client
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

import http_bench
import loads
import machine
from catalog import SCRIPTS, SERVERS, Ready, Server, Settings, Start, our_environment
from harness import Benchmark, Plan, Workload, serving
from samples import Column, Sample, Samples, Table, count, fine, median_ratio, target_row

CONNECTIONS = 400

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("plain", "GET /, 64 keep-alive connections; server and load on the same cores, as they like"),
        Workload("close", "a connection per request, 64 at a time; the same", shape=loads.Shape(close=True)),
        Workload("spread", f"{CONNECTIONS} connections: how many each worker gets", kind="spread", handler="who"),
    )
}


def _workers(mode: str, number: int, accept: str = "auto") -> Server:
    name = f"{mode}-{number}" if accept == "auto" else f"{mode}-{number}-{accept}"

    def prepare(settings: Settings) -> Ready:
        environment = our_environment(settings)

        def command(start: Start) -> list[str]:
            script = [str(environment.python), str(SCRIPTS / "multi_hello.py"), start.host, str(start.port)]
            return [*script, start.handler, mode, str(number), accept]

        return Ready(name, command, environment.versions(), environment.interpreter.describe(), environment.note)

    dealt = ", connections dealt out by the supervisor" if accept == "acceptor" else ""
    return Server(name, f"evmulti, workers in mode {mode}: {number}{dealt}", prepare)


def _prepare_alone(settings: Settings) -> Ready:
    ready = SERVERS["evhttp"].prepare(settings)
    return dataclasses.replace(ready, workloads=frozenset({"plain", "close"}))


MULTI_SERVERS = {
    server.name: server
    for server in (
        _workers("process", 1),
        _workers("process", 2),
        _workers("thread", 1),
        _workers("thread", 2),
        _workers("process", 2, "acceptor"),
        Server("evhttp", "evhttp.Server alone, without evmulti", _prepare_alone),
    )
}


def measure(ready: Ready, workload: Workload, plan: Plan) -> Sample:
    """Take one measurement; nothing is pinned, for there is no core that would be one worker's."""
    cores = {core for core in (plan.cores.server, plan.cores.load) if core is not None}
    if cores:
        os.sched_setaffinity(0, cores)  # ours is inherited, and was the load's core
    free = dataclasses.replace(plan, cores=machine.Cores(None, None))
    if workload.kind == "spread":
        return _spread(ready, free)
    return http_bench.measure(ready, workload, free)


def _spread(ready: Ready, plan: Plan) -> Sample:
    with serving(ready, "who", plan, http_bench.answers) as running:
        host, _, port = running.address.partition(":")
        connections = [http.client.HTTPConnection(host, int(port), timeout=10) for _ in range(CONNECTIONS)]
        shares: Counter[str] = Counter()
        try:
            for connection in connections:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                shares[answer.headers["X-Worker"]] += 1
        finally:
            for connection in connections:
                connection.close()
    return Sample(figures={"most": max(shares.values()), "least": min(shares.values()), "workers": len(shares)})


def prepare(ready: Sequence[Ready], workloads: Sequence[Workload], plan: Plan) -> None:
    """Say what the cores are used for."""
    plan.note("server and load share both cores, and are not pinned")


def _cpu(sample: Sample) -> float | None:
    return sample.cpu_us


def targets(samples: Mapping[str, Samples]) -> list[tuple[str, str, str]]:
    """Set our figures beside what they should be."""
    rows = []
    plain = samples.get("plain", {})
    for mode, most in (("process", 1.1), ("thread", 1.3)):
        if f"{mode}-2" in plain and f"{mode}-1" in plain:
            value = median_ratio(plain[f"{mode}-2"], plain[f"{mode}-1"], _cpu)
            what = f"plain: CPU time per request, two {mode} workers against one"
            rows.append(target_row(what, f"≤ {most} ×", value, value is not None and value <= most))
    for name, found in samples.get("spread", {}).items():
        ratios = [each.figures["most"] / CONNECTIONS for each in found if each and each.figures["workers"] > 1]
        if ratios:
            value = statistics.median(ratios)
            rows.append((f"spread: the busiest worker's share, {name}", "reported", f"{value:.1%}"))
    return rows


SPREAD = (
    Column("most connections", lambda s: s.figures.get("most"), count),
    Column("least connections", lambda s: s.figures.get("least"), count),
)
COLUMNS = (http_bench.SPEED[0], Column("CPU µs/req", _cpu, fine, True), *http_bench.SPEED[1:])
BENCHMARK = Benchmark(
    "multi",
    "one server on many loops",
    MULTI_SERVERS,
    WORKLOADS,
    measure,
    prepare,
    targets,
    {"closed": (Table(COLUMNS),), "spread": (Table(SPREAD),)},
    subject="server",
    files=1000,
    rounds=5,
    seconds=2,
)
