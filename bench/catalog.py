"""The HTTP servers by name: how each is started, in its fastest honest configuration for one core."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import loads
import peers

SCRIPTS = Path(__file__).resolve().parent / "servers"


@dataclass(frozen=True)
class Start:
    """What a server is started with."""

    host: str
    port: int
    handler: str  # "hello", or "browser" for the handler that reads two header fields
    folder: Path  # of its own, empty, gone afterwards
    files: int  # limit on open files
    scale: float = 1  # of the sizes, where a benchmark has any


@dataclass(frozen=True)
class Settings:
    """What the command line says about interpreters."""

    base: peers.Interpreter
    ours: str | None = None  # a Python that has our packages already
    checkout: Path | None = None  # whose packages are ours; None: this one's


@dataclass(frozen=True)
class Ready:
    """A server that can be started here."""

    name: str
    command: Callable[[Start], list[str]]
    versions: dict[str, str]
    interpreter: str = ""
    note: str = ""
    workloads: frozenset[str] = frozenset()  # that it is for; empty: all

    def takes(self, workload: str) -> bool:
        """Whether it is measured in a workload."""
        return not self.workloads or workload in self.workloads


@dataclass(frozen=True)
class Server:
    """A server by name; ``prepare`` builds what it needs, or raises NotAvailable with the reason."""

    name: str
    summary: str
    prepare: Callable[[Settings], Ready]


def _script(environment: peers.Environment, script: str) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        return [str(environment.python), str(SCRIPTS / script), start.host, str(start.port), start.handler]

    return command


def _python_server(name: str, summary: str) -> Server:
    def prepare(settings: Settings) -> Ready:
        environment = peers.peer(name, settings.base)
        command = _script(environment, f"{name}_hello.py")
        return Ready(name, command, environment.versions(), environment.interpreter.describe(), environment.note)

    return Server(name, summary, prepare)


def our_environment(settings: Settings, only: tuple[str, ...] = ()) -> peers.Environment:
    """The environment with our packages, or only some of them: the one given, or one built from the checkout.

    Raises:
        NotAvailable: A package does not build, or the given Python does not run.
    """
    if settings.ours is None:
        return peers.ours(settings.base, only, settings.checkout)
    interpreter = peers.ask_interpreter(settings.ours)
    if interpreter is None:
        raise peers.NotAvailable("the Python given by --python does not run")
    return peers.Environment("ours", Path(settings.ours).absolute(), interpreter)


def _prepare_evhttp(settings: Settings) -> Ready:
    environment = our_environment(settings)
    command = _script(environment, "evhttp_hello.py")
    return Ready("evhttp", command, environment.versions(), environment.interpreter.describe(), environment.note)


def _granian(interface: str) -> Server:
    name = f"granian-{interface}"

    def prepare(settings: Settings) -> Ready:
        environment = peers.peer("granian", settings.base)

        def command(start: Start) -> list[str]:
            options = ["--interface", interface, "--workers", "1", "--runtime-threads", "1", "--runtime-mode", "st"]
            options += ["--blocking-threads", "1", "--backlog", "8192", "--backpressure", "8192", "--no-ws"]
            options += ["--http", "1", "--http1-pipeline-flush", "--log-level", "error"]
            options += ["--loop", "uvloop"] if interface == "rsgi" else []
            where = ["--host", start.host, "--port", str(start.port), "--working-dir", str(SCRIPTS)]
            application = f"granian_hello:{interface}_{start.handler}"
            return [str(environment.python), "-m", "granian", *options, *where, application]

        return Ready(name, command, environment.versions(), environment.interpreter.describe(), environment.note)

    return Server(name, f"granian, one worker, {interface.upper()}", prepare)


def nginx_config(start: Start) -> str:
    """Return the configuration of the C reference: one process, no log, a constant answer."""
    return f"""daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile {start.files};
pid {start.folder}/nginx.pid;
error_log stderr crit;
events {{
    use epoll;
    multi_accept on;
    worker_connections {min(20000, start.files)};
}}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    tcp_nodelay on;
    client_body_temp_path {start.folder}/body;
    proxy_temp_path {start.folder}/proxy;
    fastcgi_temp_path {start.folder}/fastcgi;
    uwsgi_temp_path {start.folder}/uwsgi;
    scgi_temp_path {start.folder}/scgi;
    server {{
        listen {start.host}:{start.port} backlog=4096;
        location / {{
            return 200 "{loads.BODY}";
        }}
    }}
}}
"""


def _prepare_nginx(settings: Settings) -> Ready:
    program = loads.system_program("nginx", "nginx-light")
    shown = subprocess.run([program, "-v"], capture_output=True, text=True)
    version = re.findall(r"nginx/(\S+)", shown.stdout + shown.stderr)

    def command(start: Start) -> list[str]:
        config = start.folder / "nginx.conf"
        config.write_text(nginx_config(start))
        return [program, "-e", "stderr", "-p", str(start.folder), "-c", str(config)]

    return Ready("nginx", command, {"nginx": version[0] if version else "unknown"}, "C")


def _prepare_floor(settings: Settings) -> Ready:
    program = loads.build("floor")
    return Ready("floor", lambda start: [str(program), f"{start.host}:{start.port}"], {}, "C")


SERVERS = {
    server.name: server
    for server in (
        Server("evhttp", "ours: evhttp.Server with a Python handler", _prepare_evhttp),
        Server("nginx", "nginx, one process, `return 200`: the C reference", _prepare_nginx),
        Server("floor", "C: epoll_wait, recv and send of a constant, nothing else", _prepare_floor),
        _python_server("uvicorn", "uvicorn with uvloop and httptools, bare ASGI"),
        _granian("rsgi"),
        _granian("wsgi"),
        _python_server("fastpysgi", "fastpysgi, successor of fastwsgi, WSGI"),
        _python_server("socketify", "socketify (uWebSockets through cffi)"),
        _python_server("mrhttp", "mrhttp (C extension)"),
        _python_server("japronto", "japronto (C extension, on an old Python)"),
    )
}
