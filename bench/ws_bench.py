"""The "ws" benchmark: WebSocket servers and clients. Echo of several sizes, compressed echo, broadcast, memory of idle
connections; echo from the client's side; masking alone."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import loads
import peers
import processes
from catalog import SCRIPTS, Ready, Server, Settings, Start, our_environment
from harness import Benchmark, Plan, Running, Window, Workload, serving
from net_bench import listens, many
from samples import Sample
from ws_tables import TABLES, targets

SMALL = 64
SECONDS = 1 << 9  # that a client holds idle connections, at most


def _workload(name: str, kind: str, work: str, summary: str) -> Workload:
    return Workload(name, summary, kind=kind, handler=work)


WORKLOADS = {
    workload.name: workload
    for workload in (
        _workload("echo16", "echo", "echo", "echo of binary messages of 16 bytes, 64 connections"),
        _workload("echo256", "echo", "echo", "the same, 256 bytes"),
        _workload("echo8k", "echo", "echo", "the same, 8 KiB"),
        _workload("echo100k", "echo", "echo", "the same, 100 KiB"),
        _workload("echo1m", "echo", "echo", "the same, 1 MiB, 16 connections"),
        _workload(
            "deflate256", "deflate", "deflate", "echo of compressed text like JSON, 256 bytes, no context takeover"
        ),
        _workload("deflate8k", "deflate", "deflate", "the same, 8 KiB"),
        _workload("broadcast10k", "fanout", "fanout", "one message of 128 bytes to 10,000 connections"),
        _workload("idle10k", "idle", "echo", "memory of 10,000 idle connections, after one exchange of 64 bytes each"),
        _workload("client256", "client", "client", "echo of 256 bytes over one connection: the client"),
        _workload("mask64k", "mask", "mask", "masking of 64 KiB, again and again; the floor is memcpy"),
    )
}
SIZES = {
    "echo16": 16,
    "echo256": 256,
    "echo8k": 8 << 10,
    "echo100k": 100 << 10,
    "echo1m": 1 << 20,
    "deflate256": 256,
    "deflate8k": 8 << 10,
    "broadcast10k": 128,
    "client256": 256,
    "mask64k": 64 << 10,
}
CONNECTIONS = {"echo1m": 16}
DEFLATE = frozenset(name for name, workload in WORKLOADS.items() if workload.kind == "deflate")
SERVED = frozenset(name for name, workload in WORKLOADS.items() if workload.kind not in ("client", "mask"))


def _mask(how: str) -> list[str]:
    return [str(loads.build("ws_mask")), how, str(SIZES["mask64k"])]


def _ready(name: str, environment: peers.Environment, workloads: frozenset[str] = frozenset()) -> Ready:
    def command(start: Start) -> list[str]:
        if start.handler == "mask":
            return _mask("mask")
        address = [start.host, str(start.port)]
        if start.handler == "client":
            return [str(environment.python), str(SCRIPTS / f"ws_client_{name}.py"), *address]
        return [str(environment.python), str(SCRIPTS / f"ws_{name}.py"), *address, start.handler]

    described = environment.interpreter.describe()
    return Ready(name, command, environment.versions(), described, environment.note, workloads)


def _ours(settings: Settings) -> Ready:
    return _ready("evws", our_environment(settings, ("evloop", "evnet", "evhttp", "evws")))


def _ours_speed(settings: Settings) -> Ready:
    """With what ``evws[speed]`` installs, in an environment of its own."""
    ours = our_environment(settings, ("evloop", "evnet", "evhttp", "evws"))
    zlib_ng = peers.peer("zlib-ng", settings.base)
    paths = subprocess.run(
        [str(zlib_ng.python), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    env = shutil.which("env") or "env"

    def command(start: Start) -> list[str]:
        script = [str(ours.python), str(SCRIPTS / "ws_evws.py"), start.host, str(start.port), start.handler]
        return [env, f"PYTHONPATH={paths.stdout.strip()}", *script]

    versions = ours.versions() | zlib_ng.versions()
    return Ready("evws-speed", command, versions, ours.interpreter.describe(), ours.note, DEFLATE)


def _peer(name: str, summary: str, workloads: frozenset[str]) -> Server:
    def prepare(settings: Settings) -> Ready:
        return _ready(name, peers.peer(name, settings.base), workloads)

    return Server(name, summary, prepare)


def _floor(settings: Settings) -> Ready:
    program, client = str(loads.build("ws_floor")), str(loads.build("ws_load"))

    def command(start: Start) -> list[str]:
        address = f"{start.host}:{start.port}"
        if start.handler == "mask":
            return _mask("memcpy")
        if start.handler == "client":
            return [client, address, "--connections", "1", "--size", str(SIZES["client256"])]
        return [program, address, start.handler]

    return Ready("floor", command, {}, "C", workloads=frozenset(WORKLOADS) - DEFLATE)


SERVERS = {
    server.name: server
    for server in (
        Server("evws", "ours", _ours),
        Server("evws-speed", "ours with zlib-ng (compressed echo only)", _ours_speed),
        _peer("picows", "picows on uvloop; it has no compression", SERVED - DEFLATE | {"client256"}),
        _peer("websockets", "websockets on uvloop", SERVED | {"client256"}),
        _peer("aiohttp", "aiohttp on uvloop", SERVED | {"client256"}),
        _peer("socketify", "socketify (uWebSockets)", SERVED),
        _peer("uvicorn", "uvicorn with uvloop and websockets, bare ASGI", SERVED),
        Server("floor", "C: epoll, recv, unmask, send, nothing else", _floor),
    )
}


def _client(workload: Workload, address: str, plan: Plan) -> list[str]:
    """The command of the load client."""
    program = "ws_load_deflate" if workload.kind == "deflate" else "ws_load"
    command = [str(loads.build(program)), address, "--size", str(SIZES[workload.name])]
    command += ["--seconds", str(plan.seconds), "--warmup", str(plan.warmup)]
    if workload.kind == "fanout":
        return [*command, "--fanout", "--connections", str(many(plan)), "--timeout", "20"]
    return [*command, "--connections", str(CONNECTIONS.get(workload.name, 64))]


def _figures(workload: Workload, plan: Plan, result: dict[str, Any], window: Window) -> dict[str, float]:
    if workload.kind == "mask":
        return {"bytes_wall": result["rps"] * SIZES[workload.name]}
    if workload.kind != "fanout":
        return {}
    cpu = window.usage.total or 1e-9
    return {"delivered": many(plan) * 1e6 / result["p50"], "delivered_cpu": many(plan) * result["requests"] / cpu}


def _sample(
    workload: Workload, plan: Plan, result: dict[str, Any], process: processes.Process, window: Window
) -> Sample:
    if not result["requests"]:
        raise loads.LoadFailed(f"nothing was exchanged ({result['first_error'] or 'no error either'})")
    client_cpu = result["user"] + result["system"] if workload.kind not in ("client", "mask") else 0.0
    each = 1e6 / result["requests"]
    return Sample(
        rps=result["rps"],
        p50=result.get("p50"),
        p99=result.get("p99"),
        p99_9=result.get("p99_9"),
        max=result.get("max"),
        user_us=window.usage.user * each,
        kernel_us=window.usage.kernel * each,
        server_busy=window.usage.total / window.seconds,
        client_busy=client_cpu / window.seconds or None,
        foreign=window.foreign(client_cpu),
        peak_mib=process.memory().peak / 2**20 or None,
        errors=result["errors"],
        first_error=result["first_error"],
        figures=_figures(workload, plan, result, window),
    )


def _measure_idle(running: Running, plan: Plan) -> Sample:
    number, core = many(plan), plan.cores.load
    client = [str(loads.build("ws_load")), running.address, "--size", str(SMALL)]
    # What the first exchanges of its life make a server allocate is not the price of a connection.
    with processes.running([*client, "--seconds", "0.5", "--warmup", "0"], core=core, pipes=True) as process:
        loads.follow(process)
    before = running.process.memory()
    command = [*client, "--idle", "--connections", str(number), "--seconds", str(SECONDS)]
    with loads.holding(command, number, core=core):
        after = running.process.memory()
    return Sample(
        idle_bytes=(after.used - before.used) / number,
        peak_mib=after.peak / 2**20,
        rss_mib=after.used / 2**20,
    )


def _measure_program(ready: Ready, workload: Workload, plan: Plan, address: str) -> Sample:
    """What is measured is no server, but a program that says itself when it is measured; on the server's core."""
    host, _, port = address.rpartition(":")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = ready.command(Start(host, int(port), workload.handler, folder, plan.files, plan.scale))
        times = [str(plan.seconds), str(plan.warmup)]
        command += times if workload.kind == "mask" else ["--seconds", times[0], "--warmup", times[1]]
        with processes.running(command, core=plan.cores.server, pipes=True, cwd=folder) as process:
            window = Window(process, plan.cores)
            result = loads.follow(process, window.start, window.end)
            return _sample(workload, plan, result, process, window)


def measure(ready: Ready, workload: Workload, plan: Plan) -> Sample:
    """Take one measurement of one server, freshly started, or of one client."""
    if workload.kind == "mask":
        return _measure_program(ready, workload, plan, ":0")
    if workload.kind == "client":
        floor = SERVERS["floor"].prepare(plan.settings)
        with serving(floor, "echo", plan, listens("tcp"), as_load=True) as running:
            return _measure_program(ready, workload, plan, running.address)
    with serving(ready, workload.handler, plan, listens("tcp")) as running:
        if workload.kind == "idle":
            return _measure_idle(running, plan)
        window = Window(running.process, plan.cores)
        with processes.running(_client(workload, running.address, plan), core=plan.cores.load, pipes=True) as client:
            result = loads.follow(client, window.start, window.end)
        return _sample(workload, plan, result, running.process, window)


def prepare(ready: Sequence[Ready], workloads: Sequence[Workload], plan: Plan) -> None:
    """Build the programs before anything is measured."""
    loads.build("ws_load")
    for kind, program in (("deflate", "ws_load_deflate"), ("mask", "ws_mask")):
        if any(workload.kind == kind for workload in workloads):
            loads.build(program)


BENCHMARK = Benchmark(
    "ws",
    "WebSocket servers and clients: echo, compressed echo, broadcast, many connections, masking",
    SERVERS,
    WORKLOADS,
    measure,
    prepare,
    targets,
    TABLES,
    files=10_100,
)
