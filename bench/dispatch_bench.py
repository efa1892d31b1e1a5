"""The "dispatch" benchmark: handlers on a pool of threads, behind one loop of ours and in servers made for such handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import http_bench
import loads
import peers
from catalog import SCRIPTS, Ready, Server, Settings, Start, our_environment
from harness import Benchmark, Plan, Workload
from samples import Samples, Table, median_ratio, target_row

SLEEP = 0.02  # what servers/*_blocking.py sleep
THREADS = {"sleep": 64, "noop": 4}
WORKLOADS = {
    workload.name: workload
    for workload in (
        # More connections than threads, so that each thread has its next request when it has answered one.
        Workload(
            "sleep64", "the handler sleeps 20 ms; 64 threads", handler="sleep", shape=loads.Shape(connections=128)
        ),
        Workload("noop4", "the handler does nothing; 4 threads", handler="noop"),
    )
}


def _prepare_ours(settings: Settings) -> Ready:
    environment = our_environment(settings)

    def command(start: Start) -> list[str]:
        script = str(SCRIPTS / "dispatch_blocking.py")
        where = [start.host, str(start.port)]
        return [str(environment.python), script, *where, start.handler, str(THREADS[start.handler])]

    return Ready("evmulti", command, environment.versions(), environment.interpreter.describe(), environment.note)


def _granian(start: Start) -> list[str]:
    options = ["--interface", "wsgi", "--workers", "1", "--runtime-threads", "1", "--runtime-mode", "st"]
    options += ["--blocking-threads", str(THREADS[start.handler]), "--backlog", "8192", "--backpressure", "8192"]
    options += ["--no-ws", "--http", "1", "--log-level", "error", "--working-dir", str(SCRIPTS)]
    return [*options, "--host", start.host, "--port", str(start.port), f"wsgi_blocking:{start.handler}"]


def _gunicorn(start: Start) -> list[str]:
    options = ["--worker-class", "gthread", "--workers", "1", "--threads", str(THREADS[start.handler])]
    options += ["--log-level", "error", "--keep-alive", "60", "--chdir", str(SCRIPTS)]
    return [*options, "--bind", f"{start.host}:{start.port}", f"wsgi_blocking:{start.handler}"]


def _peer(name: str, module: str, summary: str, options: Callable[[Start], list[str]]) -> Server:
    def prepare(settings: Settings) -> Ready:
        environment = peers.peer(module, settings.base)

        def command(start: Start) -> list[str]:
            return [str(environment.python), "-m", module, *options(start)]

        return Ready(name, command, environment.versions(), environment.interpreter.describe(), environment.note)

    return Server(name, summary, prepare)


SERVERS = {
    server.name: server
    for server in (
        Server("evmulti", "ours: a Dispatcher on evhttp.Server", _prepare_ours),
        _peer("granian", "granian", "granian, WSGI, one worker", _granian),
        _peer("gthread", "gunicorn", "gunicorn, gthread, one worker", _gunicorn),
    )
}


def _prepare(ready: Sequence[Ready], workloads: Sequence[Workload], plan: Plan) -> None:
    """There is nothing to find out before."""


def _best(samples: Samples, names: Sequence[str]) -> float | None:
    """Our median ratio to the best of some peers, which is the lowest ratio."""
    ratios = [median_ratio(samples["evmulti"], samples[name], lambda s: s.rps) for name in names if name in samples]
    return min((ratio for ratio in ratios if ratio is not None), default=None)


def _bound(samples: Samples) -> list[tuple[str, str, str]]:
    """What bounds the row before: where a peer keeps nearly all of its threads asleep there is no room above it."""
    peers = [
        _median([each.rps for each in samples[name] if each and each.rps]) for name in samples if name != "evmulti"
    ]
    best = max((speed for speed in peers if speed), default=None)
    if best is None:
        return []
    return [
        (
            "sleep64: all that 64 threads could do, against the better",
            "reported",
            f"{THREADS['sleep'] / SLEEP / best:.2f} ×",
        )
    ]


def _median(values: Sequence[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def targets(samples: Mapping[str, Samples]) -> list[tuple[str, str, str]]:
    """Set our figures beside what they should be: rows of (claim, wanted, measured)."""
    rows = []
    mine = {name: servers for name, servers in samples.items() if "evmulti" in servers}
    if "sleep64" in mine:
        speed = _median([sample.rps for sample in mine["sleep64"]["evmulti"] if sample and sample.rps])
        share = speed * SLEEP / THREADS["sleep"] if speed else None
        rows.append(target_row("sleep64: of what 64 threads could do", "≥ 0.9 ×", share, (share or 0) >= 0.9))
        value = _best(mine["sleep64"], ("granian", "gthread"))
        rows.append(target_row("sleep64: best of granian and gthread", "≥ 1.5 ×", value, (value or 0) >= 1.5))
        rows += _bound(mine["sleep64"])
    if "noop4" in mine:
        for name, least in (("granian", 0.8), ("gthread", 1.5)):
            value = _best(mine["noop4"], (name,))
            rows.append(target_row(f"noop4: against {name}", f"≥ {least:g} ×", value, (value or 0) >= least))
    return rows


BENCHMARK = Benchmark(
    "dispatch",
    "handlers on a pool of threads",
    SERVERS,
    WORKLOADS,
    http_bench.measure,
    _prepare,
    targets,
    {"closed": (Table(http_bench.SPEED),)},
    rounds=3,
    seconds=2,
)
