"""Rounds of measurements: start a server, load it, read what it used, next server; then the next round.

A benchmark (http, evloop, later echo, ws) is a set of servers, a set of workloads and a function that takes one
measurement. Everything that is the same for all of them is here.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import loads
import machine
import processes
import profiles
from catalog import Ready, Server, Settings, Start
from peers import NotAvailable
from samples import Sample, Samples, Table

HOST = "127.0.0.1"
START_SECONDS = 20


class ServerFailed(Exception):
    """What is measured did not start, did not answer or did the wrong thing; the message says what it wrote."""


@dataclass
class Plan:
    """How to measure: what the command line says."""

    settings: Settings
    rounds: int = 5
    seconds: float = 4
    warmup: float = 1
    load: str = "own"
    rate: float = 0  # for constant-rate workloads; 0: worked out by the benchmark
    scale: float = 1  # of the sizes, where a benchmark has any
    cores: machine.Cores = field(default_factory=machine.choose_cores)
    files: int = 1024
    profile: bool = False  # take samples of the first server once more, when all rounds of a workload are done
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Remember something that a reader of the results has to know, once."""
        if text and text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True)
class Workload:
    """One way to load a server."""

    name: str
    summary: str
    # http: "closed", as fast as it answers; "beside", the same with two shapes; "rate", a constant rate; "idle", memory
    kind: str = "closed"
    shape: loads.Shape = field(default_factory=loads.Shape)
    beside: loads.Shape | None = None  # also loaded like this, before and after, for a ratio within one run
    handler: str = "hello"
    wrk: bool = False  # whether wrk can do it


@dataclass(frozen=True)
class Benchmark:
    """A registered benchmark."""

    name: str
    summary: str
    servers: Mapping[str, Server]
    workloads: Mapping[str, Workload]
    measure: Callable[[Ready, Workload, Plan], Sample]
    prepare: Callable[[Sequence[Ready], Sequence[Workload], Plan], None]
    targets: Callable[[Mapping[str, Samples]], list[tuple[str, str, str]]]
    tables: Mapping[str, Sequence[Table]]  # by the kind of workload
    subject: str = "server"  # what is measured, in one word
    rounds: int = 5
    seconds: float = 4
    warmup: float = 1
    files: int = 1024  # that have to be open at the same time


@dataclass
class Results:
    """Everything that was measured, round by round; a failed measurement is ``None`` and has its reason below."""

    samples: dict[str, dict[str, list[Sample | None]]] = field(default_factory=dict)
    failures: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    profiles: dict[str, profiles.Profile] = field(default_factory=dict)  # of the first server, by workload
    interrupted: bool = False


def free_port() -> int:
    """Find a free port below the range from which the kernel takes the clients' own."""
    for _ in range(100):
        port = random.randrange(20000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise ServerFailed("no free port between 20000 and 30000")


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    process: processes.Process
    address: str


@contextlib.contextmanager
def serving(
    ready: Ready, handler: str, plan: Plan, answers: Callable[[str, int], bool], *, as_load: bool = False
) -> Iterator[Running]:
    """Run a server while the block runs; it is entered when ``answers(host, port)`` says that the server does.

    With ``as_load`` it is on the load's core: it is a client that is measured then.

    Raises:
        ServerFailed: It ended, or did not answer in time.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        command = ready.command(Start(HOST, port, handler, Path(folder), plan.files, plan.scale))
        env = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        core = plan.cores.load if as_load else plan.cores.server
        with processes.running(command, core=core, env=env, cwd=Path(folder)) as process:
            plan.note(process.note)
            deadline = time.monotonic() + START_SECONDS
            while not answers(HOST, port):
                if process.popen.poll() is not None:
                    raise ServerFailed(f"ended with {process.popen.returncode}: {process.last_words()}")
                if time.monotonic() > deadline:
                    raise ServerFailed(f"no answer after {START_SECONDS} s: {process.last_words()}")
                time.sleep(0.02)
            process.find_workers()
            yield Running(process, f"{HOST}:{port}")


@dataclass
class Window:
    """What the server and its cores used between the start and the end of the measured time."""

    process: processes.Process
    cores: machine.Cores
    usage: processes.Usage = field(default_factory=lambda: processes.Usage(0, 0))
    seconds: float = 0.0
    busy: dict[int, float] = field(default_factory=dict)

    profiler: ClassVar[profiles.Profiler | None] = None  # what is measured now is looked into, too

    def start(self) -> None:
        """Call when the measured time begins."""
        if self.profiler is not None:
            self.profiler.start(processes.session_pids(self.process.session))
        self._usage, self._ticks, self._time = self.process.usage(), machine.busy_ticks(), time.monotonic()

    def end(self) -> None:
        """Call when it ends."""
        self.usage = self.process.usage() - self._usage
        self.seconds = time.monotonic() - self._time
        now = machine.busy_ticks()
        self.busy = {core: (now[core] - then) / machine.TICKS for core, then in self._ticks.items() if core in now}
        if self.profiler is not None:
            self.profiler.stop()

    def foreign(self, client_cpu: float) -> float | None:
        """Share of a core that was used by something that is neither server nor load."""
        if self.cores.server is None or self.cores.load is None or not self.seconds:
            return None
        shares = [(self.busy[self.cores.server] - self.usage.total) / self.seconds]
        if client_cpu:
            shares.append((self.busy[self.cores.load] - client_cpu) / self.seconds)
        return max(0.0, *shares)


def wait_for_rest(patience: float, *, limit: float = 0.05) -> float:
    """Wait until the machine is at rest, at most ``patience`` seconds; return the share that is still in use."""
    deadline = time.monotonic() + patience
    while True:
        share = machine.busy_share(1.0)
        if share <= limit or time.monotonic() >= deadline:
            return share


def _prepare(benchmark: Benchmark, names: Sequence[str], plan: Plan, results: Results) -> list[Ready]:
    ready = []
    for name in names:
        try:
            server = benchmark.servers[name].prepare(plan.settings)
        except NotAvailable as error:
            results.servers[name] = {"not_available": str(error)}
            continue
        ready.append(server)
        results.servers[name] = {
            "interpreter": server.interpreter,
            "versions": server.versions,
            **({"note": server.note} if server.note else {}),
        }
    return ready


def _profile(benchmark: Benchmark, server: Ready, workload: Workload, plan: Plan, results: Results) -> None:
    """Measure once more to see where the time goes; the figures are not used, because looking takes time as well."""
    try:
        Window.profiler = profiles.Profiler()
        # perf needs a moment to begin.
        benchmark.measure(server, workload, replace(plan, seconds=max(plan.seconds, 2.0)))
        if Window.profiler.profile is not None:
            results.profiles[workload.name] = Window.profiler.profile
    except (ServerFailed, loads.LoadFailed, NotAvailable) as error:
        plan.note(f"no profile of {workload.name}: {error}")
    finally:
        Window.profiler = None


class Progress:
    """One line on a terminal that says what is being measured; nothing where nobody looks."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.begun = total, 0, time.monotonic()
        self.live = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Say what comes next."""
        left = (time.monotonic() - self.begun) / self.done * (self.total - self.done) if self.done else 0
        self.done += 1
        if self.live:
            rest = f", {left / 60:.0f} min left" if left >= 60 else ""
            sys.stderr.write(f"\r\x1b[K[{self.done}/{self.total}{rest}] {text}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Leave the line empty."""
        if self.live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def run(benchmark: Benchmark, servers: Sequence[str], workloads: Sequence[str], plan: Plan) -> Results:
    """Measure. The servers of a round follow each other, so that a slow minute of the machine hits all of them."""
    results = Results()
    ready = _prepare(benchmark, servers, plan, results)
    chosen = [benchmark.workloads[name] for name in workloads]
    if plan.cores.load is not None:
        os.sched_setaffinity(0, {plan.cores.load})  # our own little work must not disturb the server either
    takers = {workload.name: [server for server in ready if server.takes(workload.name)] for workload in chosen}
    progress = Progress(plan.rounds * sum(map(len, takers.values())) + plan.profile * len(chosen))
    try:
        benchmark.prepare(ready, chosen, plan)
        for workload in chosen:
            servers_here = takers[workload.name]
            samples = results.samples.setdefault(workload.name, {server.name: [] for server in servers_here})
            failures = results.failures.setdefault(workload.name, {})
            for number in range(plan.rounds):
                for server in servers_here:
                    progress.show(f"{workload.name}, round {number + 1} of {plan.rounds}: {server.name}")
                    sample: Sample | None = None
                    try:
                        sample = benchmark.measure(server, workload, plan)
                    except (ServerFailed, loads.LoadFailed, NotAvailable) as error:
                        failures.setdefault(server.name, []).append(f"round {number + 1}: {error}")
                    samples[server.name].append(sample)
            if plan.profile and servers_here:
                progress.show(f"{workload.name}, a profile of {servers_here[0].name}")
                _profile(benchmark, servers_here[0], workload, plan, results)
    except KeyboardInterrupt:
        results.interrupted = True
    finally:
        progress.clear()
    return results
