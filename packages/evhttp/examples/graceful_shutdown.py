"""A server that is closed while it works: it takes nothing new, and the answers under way are finished.

`run` does this by itself at SIGTERM; here it is done by hand, with another patience and a last word.
"""

import signal
import sys

import evhttp
from evhttp import Request, Response

PATIENCE = 5.0


def slow(req: Request, res: Response) -> None:
    """Answer after a second."""
    res.defer()
    loop.call_later(1.0, res.send, "worth waiting for\n")


def close() -> None:
    """Stop listening; the loop ends when the last connection has."""
    print(f"closing, {server.connections} connections are open", flush=True)
    server.close(PATIENCE, on_closed=loop.stop)


server = evhttp.Server(slow).listen("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
loop = server.loop
loop.add_signal_handler(signal.SIGTERM, close)
loop.add_signal_handler(signal.SIGINT, close)
print(f"http://127.0.0.1:{server.addresses[0][1]}/", flush=True)
loop.run()
loop.close()
print("all have their answers", flush=True)
