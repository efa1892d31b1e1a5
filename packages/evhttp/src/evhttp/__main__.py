"""``python -m evhttp``: serve the files of a folder, or run a handler."""

from __future__ import annotations

import argparse
import logging
import math
import os
import ssl
import sys
from collections.abc import Sequence
from typing import NoReturn

from evhttp._access import JsonFormatter
from evhttp._load import LoadError, load_handler
from evhttp._rate import RateLimiter
from evhttp._request import Request
from evhttp._response import Response
from evhttp._server import Handler, Server
from evhttp._static import StaticFiles
from evhttp._version import __version__

__all__ = ["main"]

logger: logging.Logger = logging.getLogger("evhttp")

_HELP = """Serve the files of a folder over HTTP/1.1, with a page for each folder that has no index.html; or run a handler.

Names that begin with a dot are not served, nor is anything outside the folder. Each request is logged
on standard error. Ctrl-C, or SIGTERM, ends it: answers under way are given ten seconds."""

_EXAMPLES = """examples:
  python -m evhttp                               the current folder, at http://127.0.0.1:8000/
  python -m evhttp 8080 --directory public       another port and folder
  python -m evhttp --bind 0.0.0.0                for everyone who can reach this machine
  python -m evhttp 0                             a free port; its number is printed
  python -m evhttp shop.web:handler 8080         the function handler(req, res) of the module shop.web
  python -m evhttp --unix /run/files.sock        behind a proxy on this machine
  python -m evhttp 8443 --tls cert.pem key.pem   at https://127.0.0.1:8443/

exit codes: 0 ended by a signal, 1 could not serve, 2 wrong arguments"""


class _TlsError(Exception):
    """A certificate or key that cannot be used; the message says why."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"evhttp: {message} (--help tells more)\n")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _rate(text: str) -> RateLimiter:
    count, slash, seconds = text.partition("/")
    try:
        if not (count.isascii() and count.isdigit()):
            raise ValueError(text)
        window = float(seconds) if slash else 1.0
        if not math.isfinite(window):
            raise ValueError(text)
        return RateLimiter(int(count), window)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a rate is REQUESTS or REQUESTS/SECONDS, not {text!r}") from None


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m evhttp",
        usage="%(prog)s [module:handler] [port] [options]",
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an option that is added later must not change what a script means
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="module:handler, port", help="what to run, and the same as --port")
    add("--port", type=_port, metavar="N", help="port to listen on, 0 for a free one (default: 8000)")
    add(
        "--bind",
        metavar="ADDRESS",
        action="append",
        help="address or host name to listen on; may be given several times (default: 127.0.0.1)",
    )
    add("--unix", metavar="PATH", help="listen on a unix socket; on a port too only if one is given")
    add(
        "--tls",
        metavar=("CERT", "KEY"),
        nargs=2,
        help="HTTPS, with a certificate (and its chain) and its key, in PEM files",
    )
    add(
        "--rate",
        metavar="N[/S]",
        type=_rate,
        help="answer a client more than N times in S seconds (default: 1) with 429",
    )
    add("--json-log", action="store_true", help="log in lines of JSON")
    add("--directory", metavar="DIR", help="folder to serve (default: the current one)")
    add("--index", metavar="NAME", action="append", help="file that stands for its folder (default: index.html)")
    add(
        "--cors",
        metavar="ORIGIN",
        nargs="?",
        const="*",
        help="let scripts of other sites read the files (default: all)",
    )
    add("--version", action="version", version=f"evhttp {__version__}")
    options = parser.parse_args(arguments)
    _sort_words(parser, options)
    return options


def _sort_words(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Tell the handler from the port."""
    options.handler = None
    for word in options.words:
        if ":" in word:
            if options.handler is not None:
                parser.error("only one handler can be run")
            options.handler = word
            continue
        try:
            number = _port(word)
        except argparse.ArgumentTypeError as error:
            parser.error(f"{error}; and a handler is named module:handler")
        if options.port is not None:
            parser.error("the port was given twice")
        options.port = number
    if options.tls is not None and options.unix is not None and not (options.bind or options.port is not None):
        parser.error("--tls is for ports, and with --unix there is one only if it is given")
    if options.handler is not None:
        for name in ("directory", "index", "cors"):
            if getattr(options, name) is not None:
                parser.error(f"--{name} is for files, not for a handler")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parse(arguments)
    try:
        return _serve(options)
    except KeyboardInterrupt:  # before or after the time in which the server takes the signal itself
        return 0


def _serve(options: argparse.Namespace) -> int:
    try:
        context = None if options.tls is None else _tls_context(*options.tls)
        handler, what = _handler(options)
    except (LoadError, _TlsError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"cannot serve {options.directory!r}: {error.strerror}")
    except ValueError as error:
        return _fail(str(error))
    _log_to_stderr(as_json=options.json_log)
    if options.rate is not None:
        handler = _limited(handler, options.rate)
    server = Server(handler, access_log=logging.getLogger("evhttp.access"))
    hosts = options.bind or ["127.0.0.1"]
    try:
        if options.unix is not None:
            server.listen_unix(options.unix)
        if options.unix is None or options.bind or options.port is not None:
            port = 8000 if options.port is None else options.port
            server.listen(hosts[0] if len(hosts) == 1 else hosts, port, ssl=context)
    except OSError as error:
        server.close()  # removes the file of a unix socket
        text = error.strerror or str(error)
        # What the socket says names the address; what the look-up of a name says does not.
        where = ", ".join(map(repr, hosts))
        return _fail(text if text.startswith("cannot listen") else f"cannot listen on {where}: {text}")
    except UnicodeError:
        server.close()
        return _fail(f"cannot listen on {', '.join(map(repr, hosts))}: not a host name")
    except ValueError as error:  # of a path that none can be
        return _fail(f"cannot listen on {options.unix!r}: {error}")
    # From inside the loop, when signals are taken care of: who reads this line may end us at once.
    server.loop.call_soon(_say, f"evhttp serves {what} at {' and '.join(_urls(server, hosts, context))}")
    server.run()
    return 0


def _handler(options: argparse.Namespace) -> tuple[Handler, str]:
    """What to serve, and what it is called."""
    if options.handler is not None:
        # As with `python -m`: a module is looked for in the current folder first, also by the console script of a package.
        if "" not in sys.path and os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return load_handler(options.handler), options.handler
    directory = "." if options.directory is None else options.directory
    options.directory = directory
    index = options.index or ("index.html",)
    return StaticFiles(directory, index=index, cors=options.cors), os.path.abspath(directory)


def _limited(handler: Handler, limiter: RateLimiter) -> Handler:
    def limited(req: Request, res: Response) -> None:
        if limiter.allow(req, res):
            handler(req, res)

    return limited


def _tls_context(certificate: str, key: str) -> ssl.SSLContext:
    for path in (certificate, key):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:  # ssl's own message names no file
            raise _TlsError(f"cannot read {path!r}: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        what = error.reason.lower().replace("_", " ") if error.reason else "not a certificate and its key in PEM"
        raise _TlsError(f"cannot use {certificate!r} with {key!r}: {what}") from None
    except OSError as error:
        raise _TlsError(f"cannot use {certificate!r} with {key!r}: {error.strerror}") from None
    return context


def _no_password() -> str:
    # OpenSSL would ask for it on the terminal, and a service that starts by itself would stand still.
    raise _TlsError("the key is protected by a password, which there is nobody to ask for")


def _urls(server: Server, hosts: list[str], context: ssl.SSLContext | None) -> list[str]:
    urls = [os.fsdecode(path) for path in server.paths]
    scheme = "http" if context is None else "https"
    for host in hosts if server.addresses else []:
        named = f"[{host}]" if ":" in host else host or "0.0.0.0"
        urls.append(f"{scheme}://{named}:{server.addresses[0][1]}/")
    return urls


def _log_to_stderr(*, as_json: bool) -> None:
    logging.raiseExceptions = False  # a closed standard error is no reason for a traceback
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
    handler.setFormatter(JsonFormatter() if as_json else plain)
    logger.addHandler(handler)
    logging.getLogger("evhttp.access").setLevel(logging.INFO)
    logger.propagate = False


def _say(line: str) -> None:
    try:
        # A folder's name may be no valid text.
        print(line.encode("utf-8", "backslashreplace").decode(), flush=True)
    except (OSError, UnicodeEncodeError):
        pass  # nobody reads it


def _fail(line: str) -> int:
    print(f"evhttp: {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
