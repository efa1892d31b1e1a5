"""The "evloop" benchmark: what a reactor does, one measurement of one loop in a process of its own."""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import loads
import peers
import processes
from catalog import Ready, Server, Settings, Start, our_environment
from evloop_tables import TABLES, targets
from harness import HOST, Benchmark, Plan, ServerFailed, Window, Workload
from samples import Sample

WORKER = Path(__file__).resolve().parent / "loops" / "worker.py"
SEND_SIZE = 1 << 30
PATIENCE = 150  # seconds for one measurement

WORKLOADS = {
    name: Workload(name, summary, kind=name)
    for name, summary in (
        ("call_soon", "schedule callbacks and run them; with defer, which makes no handle"),
        ("timers", "insert and cancel a timer, with 1,000 and with 1,000,000 pending"),
        ("fire", "1,000,000 timers that fire within one second"),
        ("readiness", "socket pairs with add_reader: bounce a byte, only read it, do nothing"),
        ("latency", "1,024 quick handlers before and after 64 that take 200 µs each, all ready at once"),
        ("threadsafe", "callbacks from another thread, and one wake-up"),
        ("sendfile", "1 GiB over loopback with add_writer and sendfile, beside a C loop"),
        ("idle", "CPU time of a loop with 10,000 watchers and 10,000 timers that have nothing to do"),
    )
}


def _loop(name: str, summary: str) -> Server:
    def prepare(settings: Settings) -> Ready:
        if name == "evloop":
            environment = our_environment(settings, ("evloop", "evnet"))
        elif name == "asyncio":
            environment = peers.Environment(name, Path(settings.base.executable), settings.base)
        else:
            environment = peers.peer(name, settings.base)

        def command(start: Start) -> list[str]:
            return [str(environment.python), str(WORKER), name, start.handler, "--peer", f"{start.host}:{start.port}"]

        versions = {} if name == "asyncio" else environment.versions()
        return Ready(name, command, versions, environment.interpreter.describe(), environment.note)

    return Server(name, summary, prepare)


def _prepare_c(settings: Settings) -> Ready:
    program = str(loads.build("sendfile"))

    def command(start: Start) -> list[str]:
        return [program, "send", str(start.port)]

    return Ready("c", command, {}, "C", workloads=frozenset({"sendfile"}))


LOOPS = {
    loop.name: loop
    for loop in (
        _loop("evloop", "ours"),
        _loop("asyncio", "asyncio's own loop"),
        _loop("uvloop", "uvloop (libuv)"),
        _loop("rloop", "rloop (Rust, mio)"),
        Server("c", "C: epoll_wait and sendfile, nothing else (sendfile only)", _prepare_c),
    )
}


def _answer(process: processes.Process, what: str) -> dict[str, Any]:
    assert process.popen.stdout is not None
    line = process.popen.stdout.readline()
    if not line:
        raise ServerFailed(f"{what} wrote nothing: {process.last_words()}")
    found: dict[str, Any] = json.loads(line)
    return found


@contextlib.contextmanager
def receiver(plan: Plan) -> Iterator[int]:
    """Run the receiver of `sendfile` on the load's core; it is the same for all. Gives its port."""
    command = [str(loads.build("sendfile")), "receive"]
    with processes.running(command, core=plan.cores.load, pipes=True) as process:
        yield int(_answer(process, "the receiver")["port"])


def _options(plan: Plan) -> list[str]:
    cores = [str(core) for core in (plan.cores.server, plan.cores.load) if core is not None]
    options = ["--seconds", str(plan.seconds), "--scale", str(plan.scale), "--cores", ",".join(cores)]
    return [*options, "--limit", str(PATIENCE), "--hold"]


def _figures(ready: Ready, found: dict[str, Any], size: int) -> dict[str, float]:
    if "not_available" in found:
        raise peers.NotAvailable(str(found["not_available"]))
    if "wrong" in found:
        raise ServerFailed(f"wrong: {found['wrong']}")
    if ready.name == "c":
        seconds, cpu = statistics.median(found["seconds"]), statistics.median(found["cpu"])
        return {"bytes_wall": size / seconds, "bytes_cpu": size / max(1e-9, cpu)}
    return {name: float(value) for name, value in found["figures"].items()}


def measure(ready: Ready, workload: Workload, plan: Plan) -> Sample:
    """Take one measurement of one loop in a new process on its own core."""
    size = max(1, int(SEND_SIZE * plan.scale))
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(receiver(plan)) if workload.name == "sendfile" else 0
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = ready.command(Start(HOST, port, workload.name, folder, plan.files))
        command += [str(size)] if ready.name == "c" else _options(plan)
        env = {"PYTHONDONTWRITEBYTECODE": "1"}
        process = stack.enter_context(
            processes.running(command, core=plan.cores.server, env=env, cwd=folder, pipes=True)
        )
        plan.note(process.note)
        window = Window(process, plan.cores)
        window.start()
        found = _answer(process, ready.name)
        window.end()
        # The C program has ended by now, and its CPU time with it.
        foreign = None if ready.name == "c" else window.foreign(0)
        memory = process.memory()
        return Sample(
            figures=_figures(ready, found, size),
            foreign=foreign,
            server_busy=window.usage.total / window.seconds,
            peak_mib=memory.peak / 2**20 or None,
        )


def prepare(ready: Sequence[Ready], workloads: Sequence[Workload], plan: Plan) -> None:
    """Build the C program before anything is measured."""
    if any(workload.name == "sendfile" for workload in workloads):
        loads.build("sendfile")


BENCHMARK = Benchmark(
    "evloop",
    "Event loops: callbacks, timers, readiness, threads",
    LOOPS,
    WORKLOADS,
    measure,
    prepare,
    targets,
    TABLES,
    subject="loop",
    rounds=3,
    seconds=0.4,
    files=19_000,
)
