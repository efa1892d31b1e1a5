"""``python -m evhttp``: serve the files of a folder."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from evhttp._server import Server
from evhttp._static import StaticFiles
from evhttp._version import __version__

__all__ = ["main"]

logger = logging.getLogger("evhttp")

_HELP = """Serve the files of a folder over HTTP/1.1, with a page for each folder that has no index.html.

Names that begin with a dot are not served, nor is anything outside the folder. Each request is logged
on standard error. Ctrl-C, or SIGTERM, ends it: answers under way are given ten seconds."""

_EXAMPLES = """examples:
  python -m evhttp                               the current folder, at http://127.0.0.1:8000/
  python -m evhttp 8080 --directory public       another port and folder
  python -m evhttp --bind 0.0.0.0                for everyone who can reach this machine
  python -m evhttp 0                             a free port; its number is printed

exit codes: 0 ended by a signal, 1 could not serve, 2 wrong arguments"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"evhttp: {message} (--help tells more)\n")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m evhttp",
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an option that is added later must not change what a script means
    )
    ports = parser.add_mutually_exclusive_group()
    # The default stands in main: argparse takes a positional's default for a value given beside --port.
    ports.add_argument("number", nargs="?", metavar="port", type=_port, help="the same as --port")
    ports.add_argument("--port", type=_port, metavar="N", help="port to listen on, 0 for a free one (default: 8000)")
    parser.add_argument(
        "--bind",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="address or host name to listen on (default: %(default)s)",
    )
    parser.add_argument("--directory", metavar="DIR", default=".", help="folder to serve (default: the current one)")
    parser.add_argument("--version", action="version", version=f"evhttp {__version__}")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parse(arguments)
    try:
        return _serve(options)
    except KeyboardInterrupt:  # before or after the time in which the server takes the signal itself
        return 0


def _serve(options: argparse.Namespace) -> int:
    port = next((each for each in (options.number, options.port) if each is not None), 8000)
    try:
        files = StaticFiles(options.directory)
    except OSError as error:
        return _fail(f"cannot serve {options.directory!r}: {error.strerror}")
    _log_to_stderr()
    server = Server(files, access_log=logging.getLogger("evhttp.access"))
    try:
        server.listen(options.bind, port)
    except OSError as error:
        text = error.strerror or str(error)
        # What the socket says names the address; what the look-up of a name says does not.
        return _fail(text if text.startswith("cannot listen") else f"cannot listen on {options.bind!r}: {text}")
    except UnicodeError:
        return _fail(f"cannot listen on {options.bind!r}: not a host name")
    host = f"[{options.bind}]" if ":" in options.bind else options.bind or "0.0.0.0"
    url = f"http://{host}:{server.addresses[0][1]}/"
    # From inside the loop, when signals are taken care of: who reads this line may end us at once.
    server.loop.call_soon(_say, f"evhttp serves {os.path.abspath(options.directory)} at {url}")
    server.run()
    return 0


def _log_to_stderr() -> None:
    logging.raiseExceptions = False  # a closed standard error is no reason for a traceback
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
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
