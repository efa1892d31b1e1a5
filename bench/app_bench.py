"""The "app" benchmark: what applications do beside a constant answer; JSON, posted bodies, files, 304, streams.

Loaded by wrk, which reads every answer's framing but no body; the bodies are checked once, before each measurement.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import socket
import ssl
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import catalog
import loads
import peers
import processes
from catalog import SCRIPTS, Ready, Server, Settings, Start, nginx_config, our_environment
from harness import Benchmark, Plan, ServerFailed, Window, Workload, serving
from http_bench import SPEED, sample_of
from net_bench import certificate
from samples import Column, Sample, Samples, Table, count, median_ratio, share, target_row

FIELDS = {"User-Agent": "bench", "Accept": "*/*", "Authorization": "Bearer x"}
STREAM = 10_000 * 1024
FILES = {"f4k": 4096, "f1m": 1 << 20}


@dataclass(frozen=True)
class Ask:
    """What is asked for, and how long the answer's body is."""

    path: str
    size: int
    method: str = "GET"
    body: int = 0
    connections: int = 64
    if_none_match: bool = False
    tls: bool = False

    @property
    def handler(self) -> str:
        """What the servers are told that they are for."""
        return "tls" if self.tls else "app"


ASKS = {
    "json": Ask("/json", 1013),
    "post64k": Ask("/post", 5, "POST", 65536),
    "file4k": Ask("/f4k", 4096),
    "file1m": Ask("/f1m", 1 << 20, connections=16),
    "notmodified": Ask("/f4k", 0, if_none_match=True),
    "stream": Ask("/stream", STREAM, connections=8),
    "tls": Ask("/hello", 13, tls=True),
}
SUMMARIES = {
    "json": "GET, three header fields read, a value encoded as 1 KiB of JSON",
    "post64k": "POST of 64 KiB, read whole",
    "file4k": "a file of 4 KiB",
    "file1m": "a file of 1 MiB, 16 connections",
    "notmodified": "If-None-Match answered with 304",
    "stream": "an answer of 10,000 pieces of 1 KiB, chunked, 8 connections",
    "tls": "hello over TLS 1.3, connections kept",
}
WORKLOADS = {
    name: Workload(name, SUMMARIES[name], shape=loads.Shape(connections=ask.connections)) for name, ask in ASKS.items()
}
UPLOADS = {"upload": "/multipart", "uploadraw": "/raw"}
UPLOAD_SIZE = 1 << 30
WORKLOADS |= {
    "upload": Workload("upload", "one file of 1 GiB in a multipart form, to disk", "upload", handler="upload"),
    "uploadraw": Workload("uploadraw", "one body of 1 GiB, to disk as it is", "upload", handler="upload"),
}


def _ask(host: str, port: int, ask: Ask, tag: str = "") -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    if ask.tls:  # with a certificate that only this run knows
        connection = http.client.HTTPSConnection(host, port, timeout=10, context=ssl._create_unverified_context())
    try:
        fields = FIELDS | ({"If-None-Match": tag} if tag else {})
        connection.request(ask.method, ask.path, b"x" * ask.body or None, fields)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def _check(host: str, port: int, ask: Ask) -> str:
    """Ask once; returns the ETag for the workload that needs one.

    Raises:
        ServerFailed: The answer is wrong.
    """
    response, body = _ask(host, port, ask if not ask.if_none_match else Ask(ask.path, 4096))
    tag = response.getheader("ETag") or ""
    if ask.if_none_match:
        response, body = _ask(host, port, ask, tag)
    wanted = 304 if ask.if_none_match else 200
    if response.status != wanted or len(body) != ask.size:
        raise ServerFailed(f"wrong answer: status {response.status}, {len(body)} bytes of body")
    if ask.path == "/json":
        json.loads(body)
    return tag


def _script(ask: Ask, tag: str) -> str:
    fields = FIELDS | ({"If-None-Match": tag} if ask.if_none_match else {})
    lines = [f"wrk.method = {json.dumps(ask.method)}"]
    lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in fields.items()]
    lines += [f'wrk.body = string.rep("x", {ask.body})'] if ask.body else []
    return "\n".join(lines) + "\n"


def _measure_upload(ready: Ready, workload: Workload, plan: Plan) -> Sample:
    def answers(host: str, port: int) -> bool:
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError:
            return False
        return True

    size = max(1 << 20, int(UPLOAD_SIZE * plan.scale))
    with serving(ready, workload.handler, plan, answers) as running:
        command = [
            sys.executable,
            str(loads.BENCH / "upload_load.py"),
            running.address,
            UPLOADS[workload.name],
            str(size),
        ]
        window = Window(running.process, plan.cores)
        with processes.running(command, core=plan.cores.load, pipes=True) as process:
            window.start()
            output, _ = process.popen.communicate(timeout=120)
            window.end()
            if process.popen.returncode:
                raise loads.LoadFailed(process.last_words() or output.decode())
        mebibytes = size / 2**20
        return Sample(
            rps=mebibytes / float(output),
            user_us=window.usage.user * 1e6 / mebibytes,
            kernel_us=window.usage.kernel * 1e6 / mebibytes,
            server_busy=window.usage.total / window.seconds,
            peak_mib=running.process.memory().peak / 2**20,
        )


def measure(ready: Ready, workload: Workload, plan: Plan) -> Sample:
    """Take one measurement of one server, freshly started."""
    if workload.name in UPLOADS:
        return _measure_upload(ready, workload, plan)
    ask = ASKS[workload.name]

    def answers(host: str, port: int) -> bool:
        try:
            _check(host, port, ask)
        except (OSError, http.client.HTTPException):
            return False
        return True

    with serving(ready, ask.handler, plan, answers) as running, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        host, _, port = running.address.rpartition(":")
        script = Path(folder) / "ask.lua"
        script.write_text(_script(ask, _check(host, int(port), ask)))
        text = ""
        window = Window(running.process, plan.cores)
        for seconds, measured in ((plan.warmup, False), (plan.seconds, True)):
            whole = max(1, round(seconds))  # wrk takes whole seconds only
            command = [loads.system_program("wrk", "wrk"), "-t1", f"-c{ask.connections}", f"-d{whole}s", "--latency"]
            command += ["-s", str(script), f"http{'s' if ask.tls else ''}://{running.address}{ask.path}"]
            with processes.running(command, core=plan.cores.load, pipes=True) as process:
                if measured:
                    window.start()
                output, _ = process.popen.communicate(timeout=whole + 20)
                if measured:
                    window.end()
                text = output.decode()
                if process.popen.returncode:
                    raise loads.LoadFailed(process.last_words() or text)
        result = loads.parse_wrk(text)
        if not result.requests:
            raise loads.LoadFailed("no request was answered")
        return sample_of(result, running, window)


def prepare(ready: Sequence[Ready], workloads: Sequence[Workload], plan: Plan) -> None:
    """Say what the load does not look at."""
    plan.note("loaded by wrk, which checks no bodies; one answer of each is checked before it is measured")


# -- servers ---------------------------------------------------------------------------------------------------------------


def _files(start: Start) -> Path:
    folder = start.folder / "files"
    folder.mkdir()
    for name, size in FILES.items():
        (folder / name).write_bytes(os.urandom(size))
    return folder


def _tls(start: Start, *options: str) -> list[str]:
    """The certificate and the key, each behind its option if there is one, for the workload that needs them."""
    if start.handler != "tls":
        return []
    return [
        word for pair in itertools.zip_longest(options, map(str, certificate())) for word in pair if word is not None
    ]


def _prepare_evhttp(settings: Settings) -> Ready:
    environment = our_environment(settings)

    def command(start: Start) -> list[str]:
        if start.handler == "upload":
            script = str(SCRIPTS / "upload_evhttp.py")
            return [str(environment.python), script, start.host, str(start.port), str(start.folder)]
        return [
            str(environment.python),
            str(SCRIPTS / "app_evhttp.py"),
            start.host,
            str(start.port),
            str(_files(start)),
            *_tls(start),
        ]

    return Ready("evhttp", command, environment.versions(), environment.interpreter.describe(), environment.note)


def _prepare_nginx(settings: Settings) -> Ready:
    ready = catalog.SERVERS["nginx"].prepare(settings)

    def command(start: Start) -> list[str]:
        config = nginx_config(start)
        served = f"root {_files(start)}; sendfile on; tcp_nopush on; open_file_cache max=64 inactive=60s;"
        config, count = re.subn(r"location / \{.*?\n        \}", served, config, flags=re.DOTALL)
        assert count == 1
        words = ready.command(start)
        (start.folder / "nginx.conf").write_text(config)
        return words

    return Ready(
        "nginx", command, ready.versions, ready.interpreter, workloads=frozenset(("file4k", "file1m", "notmodified"))
    )


_DYNAMIC = frozenset(("json", "post64k", "stream"))
_TLS_TOO = _DYNAMIC | {"tls"}


def _prepare_granian(settings: Settings) -> Ready:
    environment = peers.peer("granian", settings.base)

    def command(start: Start) -> list[str]:
        options = ["--interface", "wsgi", "--workers", "1", "--runtime-threads", "1", "--runtime-mode", "st"]
        options += ["--blocking-threads", "1", "--backlog", "8192", "--backpressure", "8192", "--no-ws"]
        options += ["--http", "1", "--http1-pipeline-flush", "--log-level", "error"]
        options += _tls(start, "--ssl-certificate", "--ssl-keyfile")
        where = ["--host", start.host, "--port", str(start.port), "--working-dir", str(SCRIPTS)]
        return [str(environment.python), "-m", "granian", *options, *where, "app_wsgi:application"]

    return Ready(
        "granian-wsgi", command, environment.versions(), environment.interpreter.describe(), workloads=_TLS_TOO
    )


def _python(name: str, script: str, workloads: frozenset[str]) -> Server:
    def prepare(settings: Settings) -> Ready:
        environment = peers.peer(name, settings.base)

        def command(start: Start) -> list[str]:
            return [str(environment.python), str(SCRIPTS / script), start.host, str(start.port), *_tls(start)]

        return Ready(name, command, environment.versions(), environment.interpreter.describe(), workloads=workloads)

    return Server(name, f"{name}, the same application", prepare)


SERVERS = {
    server.name: server
    for server in (
        Server("evhttp", "ours: evhttp.Server with a Python handler, StaticFiles", _prepare_evhttp),
        Server("nginx", "nginx with sendfile and an open-file cache: files and 304 only", _prepare_nginx),
        Server("granian-wsgi", "granian, one worker, WSGI", _prepare_granian),
        _python("uvicorn", "app_uvicorn.py", _TLS_TOO),
        _python("fastpysgi", "app_wsgi.py", _DYNAMIC),
    )
}

# workload, peers whose best is meant, at least this many times its requests/s
TARGETS = (
    ("json", ("granian-wsgi",), 1.5),
    ("post64k", ("granian-wsgi", "fastpysgi"), 1.1),
    ("file1m", ("nginx",), 0.9),
    ("file4k", ("nginx",), 0.9),
    ("notmodified", ("nginx",), 0.8),
    ("stream", ("uvicorn",), 2.0),
    ("tls", ("uvicorn",), 1.5),
    ("tls", ("granian-wsgi",), 1.0),
)


def targets(samples: Mapping[str, Samples]) -> list[tuple[str, str, str]]:
    """Set our figures beside what they should be: rows of (claim, wanted, measured)."""
    rows = []
    for workload, names, least in TARGETS:
        mine = samples.get(workload, {})
        if "evhttp" not in mine:
            continue
        ratios = [median_ratio(mine["evhttp"], mine[name], lambda s: s.rps) for name in names if name in mine]
        value = min((ratio for ratio in ratios if ratio is not None), default=None)
        claim = f"{workload}: against {' and '.join(names)}"
        rows.append(target_row(claim, f"≥ {least:g} ×", value, (value or 0) >= least))
    form, raw = (samples.get(name, {}).get("evhttp", []) for name in UPLOADS)
    if form:
        value = median_ratio(form, raw, lambda s: s.rps)
        rows.append(target_row("upload: against the raw body to disk", "≥ 0.6 ×", value, (value or 0) >= 0.6))
        peak = max((s.peak_mib for s in form if s and s.peak_mib is not None), default=None)
        rows.append(target_row("upload: peak MiB", "≤ 64", peak, peak is not None and peak <= 64, "MiB"))
    return rows


UPLOAD = (
    Column("MiB/s", lambda s: s.rps, count, True),
    Column("user µs/MiB", lambda s: s.user_us, count),
    Column("kernel µs/MiB", lambda s: s.kernel_us, count),
    Column("server CPU", lambda s: s.server_busy, share),
    Column("peak MiB", lambda s: s.peak_mib, count),
)


BENCHMARK = Benchmark(
    "app",
    "HTTP/1.1 servers at the work of applications",
    SERVERS,
    WORKLOADS,
    measure,
    prepare,
    targets,
    {"closed": (Table(SPEED),), "upload": (Table(UPLOAD),)},
)
