"""``python -m evws``: talk to a WebSocket server, be one that echoes, or put one under load."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import NoReturn

from evws._cli.echo import listen
from evws._cli.load import Load, run_load
from evws._cli.talk import talk
from evws._url import parse_url
from evws._version import __version__

__all__ = ["main"]

_HELP = """Talk to a WebSocket server: each line that is typed is sent as a message, each message that comes is
printed. The end of the input (Ctrl-D), or Ctrl-C, closes the connection.

With --listen it is a server that echoes; with --load it puts a server that echoes under load and
prints how long the answers took."""

_EXAMPLES = """examples:
  python -m evws ws://127.0.0.1:9001/
  echo hello | python -m evws ws://127.0.0.1:9001/ --wait 1
  python -m evws --listen 9001
  python -m evws --load ws://127.0.0.1:9001/ --clients 1000 --seconds 10

exit codes: 0 ended as it should, 1 could not connect, listen or get answers, 2 wrong arguments,
3 the connection was lost or failed"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"evws: {message} (--help tells more)\n")


def _url(text: str) -> str:
    try:
        parse_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, not {text!r}")
    return int(text)


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise argparse.ArgumentTypeError(f"a size is a number of bytes, less than 100000000, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, not {text!r}")
    return seconds


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"expected 'Name: value', not {text!r}")
    return name, value.strip()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m evws",
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an option that is added later must not change what a script means
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("url", nargs="?", type=_url, help="ws://host[:port]/path: talk to this server")
    what.add_argument("--listen", type=_port, metavar="PORT", help="be a server that echoes; 0 for a free port")
    what.add_argument("--load", type=_url, metavar="URL", help="put a server that echoes under load")
    parser.add_argument("--version", action="version", version=f"evws {__version__}")
    client = parser.add_argument_group("as a client")
    client.add_argument("--header", type=_field, action="append", default=[], metavar="'NAME: VALUE'")
    client.add_argument("--subprotocol", action="append", default=[], metavar="NAME")
    client.add_argument("--proxy", metavar="URL", help="http://[user:password@]host[:port]")
    client.add_argument("--unix", metavar="PATH", help="connect to this unix socket")
    client.add_argument("--timeout", type=_seconds, default=10.0, metavar="S", help="for the handshake (default: 10)")
    client.add_argument(
        "--wait", type=_seconds, default=0.0, metavar="S", help="for messages, after the end of the input"
    )
    server = parser.add_argument_group("with --listen")
    server.add_argument("--bind", metavar="ADDRESS", default="127.0.0.1", help="default: %(default)s")
    load = parser.add_argument_group("with --load")
    load.add_argument("--clients", type=_count, default=100, metavar="N", help="connections (default: %(default)s)")
    load.add_argument("--seconds", type=_seconds, default=10.0, metavar="S", help="how long (default: %(default)s)")
    load.add_argument("--size", type=_size, default=64, metavar="BYTES", help="of a message (default: %(default)s)")
    load.add_argument("--threads", type=_count, default=1, metavar="N", help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parse(arguments)
    client = {
        "headers": options.header,
        "subprotocols": options.subprotocol,
        "proxy": options.proxy,
        "unix_path": options.unix,
        "timeout": options.timeout,
    }
    try:
        if options.listen is not None:
            return listen(options.bind, options.listen)
        if options.load is not None:
            load = Load(options.load, options.clients, options.seconds, options.size, options.threads)
            return run_load(load, client)
        return talk(options.url, client, options.wait)
    except KeyboardInterrupt:  # before or after the time in which Ctrl-C is taken care of
        return 0
    except ValueError as error:  # a header field, a subprotocol or a proxy that is none
        print(f"evws: {error} (--help tells more)", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
