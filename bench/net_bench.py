"""The "net" benchmark: transports. Echo over TCP, TLS and UDP, files, connections that come and go, many connections."""

from __future__ import annotations

import functools
import statistics
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
from net_tables import TABLES, targets
from samples import Sample

FILE_SIZE = 1 << 30
PAGE = 4096  # what c/file_load.c knows of the file's bytes
MANY = 10_000
LISTENING = {"tcp": "0A", "udp": "07"}  # states in /proc/net
SECONDS = 1 << 9  # that a client holds idle connections, at most


def _workload(name: str, kind: str, work: str, summary: str) -> Workload:
    return Workload(name, summary, kind=kind, handler=work)


WORKLOADS = {
    workload.name: workload
    for workload in (
        _workload("echo1k", "echo", "echo", "TCP echo of 1 KiB messages, 64 connections"),
        _workload("echo64k", "echo", "echo", "TCP echo of 64 KiB messages, 64 connections"),
        _workload("tls1k", "echo", "tls", "the same over TLS, 1 KiB"),
        _workload("tls64k", "echo", "tls", "the same over TLS, 64 KiB"),
        _workload("sendfile", "file", "file", "a file of 1 GiB to a client that discards it"),
        _workload("udp64", "udp", "udp", "UDP echo of 64-byte datagrams, 8 clients with 16 in flight each"),
        _workload("once", "once", "once", "connect, one exchange of 64 bytes, close, 64 at a time: the server"),
        _workload("dial", "dial", "dial", "the same: the client"),
        _workload("fanout10k", "fanout", "fanout", "one message of 128 bytes to 10,000 connections"),
        _workload(
            "broadcast10k", "fanout", "broadcast", "the same, in the best way that there is: ours is broadcast()"
        ),
        _workload("idle10k", "idle", "echo", "memory of 10,000 idle connections, after one exchange of 64 bytes each"),
    )
}
SIZES = {
    "echo1k": 1 << 10,
    "echo64k": 1 << 16,
    "tls1k": 1 << 10,
    "tls64k": 1 << 16,
    "fanout10k": 128,
    "broadcast10k": 128,
}
SMALL = 64
OTHERS = {"broadcast": "fanout"}  # what a server does that has nothing special for this


class _Folder:
    """Files that servers are started with, made once and gone when this process ends."""

    def __init__(self) -> None:
        self.temporary = tempfile.TemporaryDirectory(prefix="bench-net-")
        self.path = Path(self.temporary.name)


_folder = functools.cache(_Folder)


@functools.cache
def certificate() -> tuple[Path, Path]:
    """Make a certificate and its key, for this run.

    Raises:
        NotAvailable: There is no openssl.
    """
    cert, key = (_folder().path / name for name in ("cert.pem", "key.pem"))
    command = [loads.system_program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]
    done = subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], capture_output=True, text=True)
    if done.returncode:
        raise peers.NotAvailable(f"openssl made no certificate: {done.stderr.strip()[-200:]}")
    return cert, key


@functools.cache
def served_file(size: int) -> Path:
    """Make the file that is sent; each 8 bytes hold the number of their page, so that a wrong offset is seen."""
    path = _folder().path / f"file-{size}"
    with path.open("wb") as file:
        for page in range(size // PAGE):
            file.write(page.to_bytes(8, "little") * (PAGE // 8))
    return path


def file_size(scale: float) -> int:
    """Bytes of the file, whole pages."""
    return max(1, int(FILE_SIZE * scale) // PAGE) * PAGE


def many(plan: Plan) -> int:
    """How many connections the workloads with many of them have."""
    return max(10, int(MANY * plan.scale))


def _script(python: Path, script: str, *loop: str, start: Start, work: str) -> list[str]:
    command = [str(python), str(SCRIPTS / script), *loop, start.host, str(start.port), work]
    if start.handler == "tls":
        cert, key = certificate()
        command += ["--cert", str(cert), "--key", str(key)]
    return [*command, "--file", str(served_file(file_size(start.scale)))] if start.handler == "file" else command


def _ours(settings: Settings) -> Ready:
    environment = our_environment(settings, ("evloop", "evnet"))

    def command(start: Start) -> list[str]:
        return _script(environment.python, "net_evnet.py", start=start, work=start.handler)

    return Ready("evnet", command, environment.versions(), environment.interpreter.describe(), environment.note)


def _peer(
    name: str, summary: str, *, loop: str = "", file: str = "file", workloads: frozenset[str] = frozenset()
) -> Server:
    def prepare(settings: Settings) -> Ready:
        if name == "asyncio":
            environment = peers.Environment(name, Path(settings.base.executable), settings.base)
        else:
            environment = peers.peer(loop or name, settings.base)

        def command(start: Start) -> list[str]:
            work = file if start.handler == "file" else OTHERS.get(start.handler, start.handler)
            return _script(environment.python, "net_asyncio.py", loop or name, start=start, work=work)

        versions = {} if name == "asyncio" else environment.versions()
        return Ready(name, command, versions, environment.interpreter.describe(), environment.note, workloads)

    return Server(name, summary, prepare)


def _floor(settings: Settings) -> Ready:
    program, client = str(loads.build("net_floor")), str(loads.build("echo_load"))

    def command(start: Start) -> list[str]:
        address = f"{start.host}:{start.port}"
        if start.handler == "dial":
            return [client, address, "--once", "--size", str(SMALL)]
        path = [str(served_file(file_size(start.scale)))] if start.handler == "file" else []
        return [program, address, OTHERS.get(start.handler, start.handler), *path]

    without = frozenset(name for name, workload in WORKLOADS.items() if workload.handler != "tls")
    return Ready("floor", command, {}, "C", workloads=without)


SERVERS = {
    server.name: server
    for server in (
        Server("evnet", "ours", _ours),
        _peer("asyncio", "asyncio's own transports"),
        _peer("uvloop", "uvloop (libuv)"),
        _peer("rloop", "rloop (Rust, mio)"),
        _peer("aiofastnet", "aiofastnet's transports on uvloop"),
        _peer(
            "uvloop-fd",
            "uvloop, os.sendfile on a duplicate of the transport's descriptor (sendfile only)",
            loop="uvloop",
            file="file-fd",
            workloads=frozenset({"sendfile"}),
        ),
        Server("floor", "C: epoll and the system calls that the work needs, nothing else", _floor),
    )
}


def listens(protocol: str) -> Any:
    """Make the check whether a server listens. It does not connect: some would send a file, or remember the connection."""

    def answers(host: str, port: int) -> bool:
        for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == LISTENING[protocol]:
                return True
        return False

    return answers


def _client(workload: Workload, address: str, plan: Plan) -> list[str]:
    """The command of the load client."""
    times = ["--seconds", str(plan.seconds), "--warmup", str(plan.warmup)]
    match workload.kind:
        case "file":
            return [str(loads.build("file_load")), address, str(file_size(plan.scale)), str(plan.seconds)]
        case "udp":
            return [str(loads.build("udp_load")), address, *times]
        case "once":
            return [str(loads.build("echo_load")), address, "--once", "--size", str(SMALL), *times]
        case "fanout":
            options = ["--fanout", "--connections", str(many(plan)), "--size", str(SIZES[workload.name])]
            return [str(loads.build("echo_load")), address, *options, "--timeout", "20", *times]
        case _:
            program = "echo_load_tls" if workload.handler == "tls" else "echo_load"
            return [str(loads.build(program)), address, "--size", str(SIZES[workload.name]), *times]


def _figures(workload: Workload, plan: Plan, result: dict[str, Any], window: Window) -> dict[str, float]:
    requests, cpu = result["requests"], window.usage.total or 1e-9
    if workload.kind == "file":
        size = file_size(plan.scale)
        return {"bytes_wall": size / statistics.median(result["each"]), "bytes_cpu": size * requests / cpu}
    if workload.kind == "fanout":
        return {"delivered": many(plan) * 1e6 / result["p50"], "delivered_cpu": many(plan) * requests / cpu}
    return {"lost": result["lost"]} if workload.kind == "udp" else {}


def _sample(
    workload: Workload, plan: Plan, result: dict[str, Any], process: processes.Process, window: Window
) -> Sample:
    if not result["requests"]:
        raise loads.LoadFailed(f"nothing was exchanged ({result['first_error'] or 'no error either'})")
    memory = process.memory()
    client_cpu = result["user"] + result["system"] if workload.kind != "dial" else 0.0
    each = 1e6 / result["requests"]
    return Sample(
        rps=result["rps"] if "rps" in result else result["requests"] / result["seconds"],
        p50=result.get("p50"),
        p99=result.get("p99"),
        p99_9=result.get("p99_9"),
        max=result.get("max"),
        user_us=window.usage.user * each,
        kernel_us=window.usage.kernel * each,
        server_busy=window.usage.total / window.seconds,
        client_busy=client_cpu / window.seconds or None,
        foreign=window.foreign(client_cpu),
        peak_mib=memory.peak / 2**20 or None,
        errors=result["errors"],
        first_error=result["first_error"],
        figures=_figures(workload, plan, result, window),
    )


def _measure_idle(running: Running, plan: Plan) -> Sample:
    number, core = many(plan), plan.cores.load
    client = [str(loads.build("echo_load")), running.address, "--size", str(SMALL)]
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


def _measure_dial(ready: Ready, workload: Workload, plan: Plan) -> Sample:
    """Here the client is what is measured, on the server's core, and the C floor is its server."""
    floor = SERVERS["floor"].prepare(plan.settings)
    with serving(floor, "once", plan, listens("tcp"), as_load=True) as running, tempfile.TemporaryDirectory() as name:
        host, _, port = running.address.rpartition(":")
        folder = Path(name)
        command = ready.command(Start(host, int(port), workload.handler, folder, plan.files, plan.scale))
        command += ["--seconds", str(plan.seconds), "--warmup", str(plan.warmup)]
        with processes.running(command, core=plan.cores.server, pipes=True, cwd=folder) as process:
            window = Window(process, plan.cores)
            result = loads.follow(process, window.start, window.end)
            return _sample(workload, plan, result, process, window)


def measure(ready: Ready, workload: Workload, plan: Plan) -> Sample:
    """Take one measurement of one server, freshly started."""
    if workload.kind == "dial":
        return _measure_dial(ready, workload, plan)
    with serving(ready, workload.handler, plan, listens("udp" if workload.kind == "udp" else "tcp")) as running:
        if workload.kind == "idle":
            return _measure_idle(running, plan)
        command = _client(workload, running.address, plan)
        window = Window(running.process, plan.cores)
        with processes.running(command, core=plan.cores.load, pipes=True) as client:
            result = loads.follow(client, window.start, window.end)
        return _sample(workload, plan, result, running.process, window)


def prepare(ready: Sequence[Ready], workloads: Sequence[Workload], plan: Plan) -> None:
    """Build the programs and make the file before anything is measured."""
    for name in ("net_floor", "echo_load", "udp_load", "file_load"):
        loads.build(name)
    if any(workload.kind == "file" for workload in workloads):
        served_file(file_size(plan.scale))


BENCHMARK = Benchmark(
    "net",
    "Transports: TCP, TLS, UDP, files, many connections",
    SERVERS,
    WORKLOADS,
    measure,
    prepare,
    targets,
    TABLES,
    files=MANY + 100,
)
