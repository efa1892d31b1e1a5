"""The load: our own client, and wrk, which people know. Both return the same figures."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import processes
from peers import NotAvailable

BENCH = Path(__file__).resolve().parent
BUILD = BENCH / ".build"
KERNELS = BENCH.parent / "packages" / "evws" / "src" / "evws" / "_c"
SOURCES: dict[str, tuple[str | Path, ...]] = {
    "load": ("load.c", "connection.c"),
    "floor": ("floor.c",),
    "sendfile": ("sendfile.c",),
    "echo_load": ("echo_load.c", "echo_connection.c", "pattern.c", "wire_plain.c"),
    "echo_load_tls": ("echo_load.c", "echo_connection.c", "pattern.c", "wire_tls.c"),
    "ws_load": ("echo_load.c", "echo_connection.c", "pattern.c", "wire_ws.c", "ws_plain.c"),
    "ws_load_deflate": ("echo_load.c", "echo_connection.c", "pattern.c", "wire_ws.c", "ws_deflate.c"),
    "ws_floor": ("ws_floor.c",),
    "ws_mask": ("ws_mask.c", *sorted(KERNELS.glob("kernels*.c"))),
    "udp_load": ("udp_load.c", "pattern.c"),
    "file_load": ("file_load.c",),
    "net_floor": ("net_floor.c",),
}
LIBRARIES = {
    "echo_load_tls": ("-lssl", "-lcrypto"),  # Debian: apt install libssl-dev
    "ws_floor": ("-lcrypto",),
    "ws_mask": (f"-I{KERNELS}",),
    "ws_load_deflate": ("-lz",),  # zlib1g-dev
}
CFLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
BODY = "Hello, World!"


class LoadFailed(Exception):
    """The load could not be applied; the message says why."""


@dataclass(frozen=True)
class LoadResult:
    """What the load saw. Latencies are in microseconds, CPU times (of the client) in seconds."""

    requests: int
    seconds: float
    rps: float
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float
    client_cpu: float
    errors: int
    late: int = 0  # rate mode: of the requests, those answered only after the end
    unfinished: int = 0  # rate mode: those due and never answered
    error_kinds: dict[str, int] = field(default_factory=dict)
    first_error: str = ""


@dataclass(frozen=True)
class Shape:
    """What a load looks like, whatever program makes it."""

    connections: int = 64
    pipeline: int = 1
    close: bool = False
    browser: bool = False


def build(name: str, folder: Path = BUILD) -> Path:
    """Compile one of our C programs if its sources are newer than it.

    Raises:
        NotAvailable: There is no C compiler, or it refuses the sources.
    """
    target = folder / name
    files = [BENCH / "c" / source for source in SOURCES[name]]
    newest = max(path.stat().st_mtime for path in (*(BENCH / "c").iterdir(), *files))
    if target.exists() and target.stat().st_mtime > newest:
        return target
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotAvailable("no C compiler found (Debian: apt install gcc libc6-dev)")
    folder.mkdir(parents=True, exist_ok=True)
    command = [compiler, *CFLAGS, "-o", str(target), *map(str, files), *LIBRARIES.get(name, ())]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotAvailable(f"compiling {name} failed: {done.stderr.strip()[:500]}")
    return target


def system_program(name: str, package: str) -> str:
    """Find a program that comes from a package of the system.

    Raises:
        NotAvailable: It is not installed; the message names the package.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise NotAvailable(f"{name} not found (Debian: apt install {package})")
    return found


def _command(address: str, shape: Shape, seconds: float, warmup: float) -> list[str]:
    command = [str(build("load")), address, "--expect", BODY, "--seconds", str(seconds), "--warmup", str(warmup)]
    command += ["--connections", str(shape.connections), "--pipeline", str(shape.pipeline)]
    return command + ["--close"] * shape.close + ["--browser"] * shape.browser


def _lines(process: processes.Process) -> Iterator[dict[str, Any]]:
    assert process.popen.stdout is not None
    for line in process.popen.stdout:
        yield json.loads(line)


def _nothing() -> None:
    pass


def follow(
    process: processes.Process, at_start: Callable[[], None] = _nothing, at_end: Callable[[], None] = _nothing
) -> dict[str, Any]:
    """Read what a client says until it ends; the callbacks run when its measured time begins and ends. Returns the result.

    Raises:
        LoadFailed: It failed; the message is the first error that it met.
    """
    result: dict[str, Any] = {}
    for line in _lines(process):
        match line.get("event"):
            case "measuring":
                at_start()
            case "measured":
                at_end()
            case _:
                result = line
    status = process.popen.wait(timeout=10)
    if status or not result:
        raise LoadFailed(result.get("first_error") or process.last_words() or f"the load client ended with {status}")
    return result


def run_client(
    address: str,
    shape: Shape,
    *,
    seconds: float,
    warmup: float,
    core: int | None,
    rate: float = 0,
    at_start: Callable[[], None] = _nothing,
    at_end: Callable[[], None] = _nothing,
) -> LoadResult:
    """Load a server with our client; it says when the measured time begins and ends, and the callbacks run then.

    Raises:
        LoadFailed: The client could not open its connections.
    """
    command = _command(address, shape, seconds, warmup)
    if rate:
        command += ["--rate", str(rate)]
    with processes.running(command, core=core, pipes=True) as process:
        result = follow(process, at_start, at_end)
    return LoadResult(
        **{key: result[key] for key in ("requests", "seconds", "rps", "p50", "p90", "p99", "p99_9", "max")},
        client_cpu=result["user"] + result["system"],
        errors=result["errors"],
        late=result["late"],
        unfinished=result["unfinished"],
        error_kinds=result["error_kinds"],
        first_error=result["first_error"],
    )


def idle_connections(address: str, count: int, *, core: int | None) -> contextlib.AbstractContextManager[None]:
    """Hold open connections that have each had one answer, while the ``with`` block runs.

    Raises:
        LoadFailed: They could not all be opened, or the server did not keep them.
    """
    return holding([*_command(address, Shape(), 60, 0), "--idle", str(count)], count, core=core)


@contextlib.contextmanager
def holding(command: Sequence[str], count: int, *, core: int | None) -> Iterator[None]:
    """Run a client that holds idle connections, while the ``with`` block runs. Raises: as `idle_connections`."""
    with processes.running(command, core=core, pipes=True) as process:
        lines = _lines(process)
        first = next(lines, {})
        if first.get("event") != "idle":
            raise LoadFailed(f"{first.get('answered', 0)} of {count} connections: {first.get('first_error', '')}")
        yield
        assert process.popen.stdin is not None
        process.popen.stdin.close()
        last = next(lines, {})
        lost = last.get("lost_idle", count) + last.get("errors", 0)
        if lost:
            raise LoadFailed(f"{lost} of {count} idle connections were lost: {last.get('first_error', '')}")


_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


def _microseconds(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


def parse_wrk(text: str) -> LoadResult:
    """Read what wrk prints with --latency."""
    tail = {name: _microseconds(value) for name, value in re.findall(r"^\s+(\d+)%\s+(\S+)$", text, re.M)}
    total = re.search(r"(\d+) requests in ([\d.]+\w+),", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    peak = re.search(r"Latency\s+\S+\s+\S+\s+(\S+)", text)
    if not (total and rate and peak):
        raise LoadFailed(f"cannot read wrk's output: {text[-200:]}")
    kinds = {name: int(count) for name, count in re.findall(r"(connect|read|write|timeout) (\d+)", text) if int(count)}
    status = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if status:
        kinds["status"] = int(status[1])
    return LoadResult(
        requests=int(total[1]),
        seconds=_microseconds(total[2]) / 1e6,
        rps=float(rate[1]),
        p50=tail.get("50", 0.0),
        p90=tail.get("90", 0.0),
        p99=tail.get("99", 0.0),
        p99_9=0.0,
        max=_microseconds(peak[1]),
        client_cpu=0.0,
        errors=sum(kinds.values()),
        error_kinds=kinds,
        first_error=next(iter(kinds), ""),
    )


def run_wrk(
    address: str,
    shape: Shape,
    *,
    seconds: float,
    warmup: float,
    core: int | None,
    at_start: Callable[[], None] = _nothing,
    at_end: Callable[[], None] = _nothing,
) -> LoadResult:
    """Load a server with wrk. It cannot warm up by itself, so it runs twice; and it checks no body."""
    assert shape.pipeline == 1 and not shape.browser, "wrk does this only with a script"
    text = ""
    for duration, start, end in ((warmup, _nothing, _nothing), (seconds, at_start, at_end)):
        whole = max(1, round(duration))  # wrk takes whole seconds only
        command = [system_program("wrk", "wrk"), "-t1", f"-c{shape.connections}", f"-d{whole}s", "--latency"]
        command += ["-H", "Connection: close"] if shape.close else []
        with processes.running([*command, f"http://{address}/"], core=core, pipes=True) as process:
            start()
            output, _ = process.popen.communicate(timeout=whole + 20)
            end()
            text = output.decode()
            if process.popen.returncode:
                raise LoadFailed(process.last_words() or text)
    return parse_wrk(text)


def wrk_version() -> str:
    """The version of wrk; it prints it among its usage."""
    done = subprocess.run([system_program("wrk", "wrk"), "-v"], capture_output=True, text=True)
    match: Sequence[str] = re.findall(r"wrk (\S+)", done.stdout + done.stderr)
    return match[0] if match else "unknown"
