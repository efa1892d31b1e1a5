"""The command line: ``python -m evmulti module:handler``."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import evnet
from evmulti._errors import StartError
from evmulti._logs import configure
from evmulti._multiserver import MultiServer
from evmulti._version import __version__

__all__ = ["main"]

_EPILOG = """signals:
  TERM, INT   end: requests under way may take --grace seconds; a second one ends at once
  HUP         replace the workers one by one, with new code, without losing a request

examples:
  python -m evmulti app:handler --workers 4
  python -m evmulti app:handler --reload
  python -m evmulti app:handler --unix /run/app.sock --metrics 127.0.0.1:9100 --log-json
"""


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Serve. Returns the exit status: 0 after an orderly end, 1 if the server cannot start, 2 for wrong usage."""
    variables = os.environ if environment is None else environment
    parser = _parser()
    options = parser.parse_args(arguments)
    configure(options.log_level, as_json=options.log_json)
    sys.path.insert(0, options.app_dir)
    try:
        server = _server(options, variables)
    except (ValueError, StartError, OSError) as error:
        print(f"evmulti: {_one_line(error)}", file=sys.stderr)
        return 2
    try:
        aborted = server.run(lambda: _began(server, options))
    except (StartError, OSError, ValueError) as error:
        print(f"evmulti: {_one_line(error)}", file=sys.stderr)
        return 1
    if aborted:
        server.log.warning("ended; %d connections were aborted", aborted)
    else:
        server.log.info("ended")
    return 0


def _began(server: MultiServer, options: argparse.Namespace) -> None:
    """Say what runs where, now that it does."""
    supervisor = server.supervisor
    if options.reload:  # before the line: who reads it may change a file
        supervisor.watch(Path(folder) for folder in options.reload_dir or [options.app_dir])
    server.log.info(
        "evmulti %s: %s on %s, %d %s, process %d, %s %s%s",
        __version__,
        options.target,
        ", ".join(supervisor.names),
        server.workers,
        ("worker processes" if server.mode == "process" else "threads"),
        os.getpid(),
        platform.python_implementation(),
        platform.python_version(),
        "".join(f", statistics on http://{host}:{port}/metrics" for host, port in supervisor.metrics_addresses),
    )


def _server(options: argparse.Namespace, variables: Mapping[str, str]) -> MultiServer:
    server = MultiServer(
        options.target,
        _workers(options.workers, variables),
        options.mode,
        protocol=options.protocol,
        name=options.name,
        access_log=logging.getLogger("evmulti.access") if options.access_log else None,
        grace=options.grace,
        max_requests=options.limit_max_requests,
        max_requests_jitter=options.limit_max_requests_jitter,
        worker_timeout=options.worker_timeout or None,
        accept=options.accept,
        metrics_path=options.metrics_path,
        ssl=_tls(options),
        trusted=[each.strip() for each in options.forwarded_allow_ips.split(",") if each.strip()],
        metrics=None if options.metrics is None else _address(options.metrics, 9100),
    )
    for text in options.bind:
        if text.startswith("unix:"):
            server.listen_unix(text.removeprefix("unix:"), backlog=options.backlog)
        else:
            server.listen(*_address(text, 8000), backlog=options.backlog, reuse_port=options.reuse_port)
    for path in options.unix:
        server.listen_unix(path, mode=options.unix_mode, backlog=options.backlog)
    passed = [each.fd for each in evnet.listen_fds()]
    for fd in (*options.fd, *(each for each in passed if each not in options.fd)):
        server.listen_fd(fd)
    if not (options.bind or options.unix or options.fd or passed):
        server.listen("127.0.0.1", 8000, backlog=options.backlog, reuse_port=options.reuse_port)
    return server


def _tls(options: argparse.Namespace) -> Callable[[], ssl.SSLContext] | None:
    """What each worker makes its context with, from the files as they are then."""
    certificate, key = options.tls or (options.ssl_certfile, options.ssl_keyfile)
    if certificate is None:
        if key is not None:
            raise ValueError("--ssl-keyfile needs --ssl-certfile")
        return None

    def made() -> ssl.SSLContext:
        for path in (certificate, key):
            if path is not None:
                open(path, "rb").close()  # ssl's own message names no file
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(certificate, key, _no_password)
        except ssl.SSLError as error:
            what = error.reason.lower().replace("_", " ") if error.reason else "no certificate with its key, in PEM"
            raise ValueError(f"cannot use {certificate!r} with {key or certificate!r}: {what}") from error
        return context

    return made


def _no_password() -> str:
    # OpenSSL would ask for it on the terminal, and a service that starts by itself would stand still.
    raise ValueError("the key is protected by a password, which there is nobody to ask for")


def _workers(given: int | None, variables: Mapping[str, str]) -> int:
    if given is not None:
        return given
    text = variables.get("WEB_CONCURRENCY", "1")
    if not text.isdecimal():
        raise ValueError(f"WEB_CONCURRENCY must be a number of workers, not {text!r}")
    return int(text)


def _address(text: str, port: int) -> tuple[str, int]:
    """``host:port``, ``host``, ``:port``, ``[v6]:port``."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, number = rest[:1], rest[1:]
        if not bracket or colon not in ("", ":"):
            raise ValueError(f"expected [address]:port, not {text!r}")
    else:
        host, colon, number = text.rpartition(":")
        if not colon:
            host, number = text, ""
        elif ":" in host:
            raise ValueError(f"an IPv6 address stands in brackets, as in [::1]:8000, not {text!r}")
    if number and not (number.isascii() and number.isdecimal() and int(number) <= 65535):
        raise ValueError(f"expected a port from 0 to 65535 in {text!r}, not {number!r}")
    return host, int(number) if number else port


def _one_line(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all options before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"evmulti: {message} (--help lists the options)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="evmulti",
        description="Serve a handler on many loops, in processes or threads.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("target", metavar="module:handler", help="a handler of evhttp, or a class with the methods of asyncio.Protocol")
    add("--version", action="version", version=f"evmulti {__version__}")
    where = parser.add_argument_group("where to listen (default: 127.0.0.1:8000)")
    where.add_argument("--bind", action="append", default=[], metavar="HOST:PORT", help="an address; may be repeated")
    where.add_argument("--unix", "--uds", action="append", default=[], metavar="PATH", help="a unix socket")
    where.add_argument("--unix-mode", type=_octal, metavar="MODE", help="its file's permissions, for instance 660")
    where.add_argument("--fd", action="append", default=[], type=int, metavar="N", help="an inherited socket")
    where.add_argument(
        "--backlog", type=int, default=1024, metavar="N", help="clients the kernel may hold (default: 1024)"
    )
    where.add_argument("--reuse-port", action="store_true", help="share the port with other programs that do the same")
    where.add_argument(
        "--accept", choices=("auto", "kernel", "acceptor"), default="auto", help="who spreads clients over workers"
    )
    where.add_argument(
        "--tls",
        metavar=("CERT", "KEY"),
        nargs=2,
        help="HTTPS, with a certificate (and its chain) and its key, in PEM files",
    )
    where.add_argument("--ssl-certfile", metavar="CERT", help="the same, with the key in one file")
    where.add_argument("--ssl-keyfile", metavar="KEY", help="or in another")
    where.add_argument(
        "--forwarded-allow-ips",
        default="",
        metavar="LIST",
        help="proxies whose X-Forwarded-For and -Proto count: addresses, networks, or unix; separated by commas",
    )
    workers = parser.add_argument_group("workers")
    workers.add_argument(
        "--workers", type=_count, metavar="N", help="how many; 0: one per usable core (default: WEB_CONCURRENCY, or 1)"
    )
    workers.add_argument("--mode", choices=("auto", "thread", "process"), default="auto", help="where they run")
    workers.add_argument("--protocol", action="store_true", help="the target is a function that makes protocols")
    workers.add_argument(
        "--grace",
        "--timeout-graceful-shutdown",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds to end in (default: 10)",
    )
    workers.add_argument(
        "--worker-timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="replace a worker that stands still for so long; 0: never (default: 30)",
    )
    workers.add_argument(
        "--limit-max-requests", type=_count, default=0, metavar="N", help="replace a worker after so many requests"
    )
    workers.add_argument(
        "--limit-max-requests-jitter", type=_count, default=0, metavar="N", help="and up to so many more"
    )
    code = parser.add_argument_group("code")
    code.add_argument("--app-dir", default=".", metavar="DIR", help="where the module is looked for (default: here)")
    code.add_argument("--reload", action="store_true", help="replace the workers when Python files change")
    code.add_argument(
        "--reload-dir", action="append", metavar="DIR", help="where files are watched (default: --app-dir)"
    )
    logs = parser.add_argument_group("logs and statistics")
    logs.add_argument("--log-level", choices=("critical", "error", "warning", "info", "debug"), default="info")
    logs.add_argument("--log-json", action="store_true", help="one JSON object per line")
    logs.add_argument("--access-log", action="store_true", help="a line per request")
    logs.add_argument("--name", default="", help="stands in the log lines")
    logs.add_argument("--metrics", metavar="HOST:PORT", help="answer /metrics there, in Prometheus' format")
    logs.add_argument("--metrics-path", default="", metavar="PATH", help="or at this path of the server")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a number, not {text!r}")
    return int(text)


def _octal(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected permissions like 660, not {text!r}") from None
