"""An echo server: `python echo.py [host] [port]`; with --selftest it also connects to itself, says something and ends."""

from __future__ import annotations

import sys

import evws


def echo(ws: evws.WebSocket, message: str | bytes) -> None:
    """Send back what came."""
    ws.send(message)


def selftest(server: evws.Server) -> None:
    """Say something, hear the echo, and end."""

    def answered(ws: evws.WebSocket, message: str) -> None:
        print("the echo of what was said:", message)
        ws.close()
        server.close()
        server.loop.call_later(0.05, server.loop.stop)

    host, port = server.addresses[0]
    evws.connect(server.loop, f"ws://{host}:{port}/", on_message=answered, on_open=lambda ws: ws.send("hello"))


def main() -> None:
    """Serve."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--selftest"]
    server = evws.Server(on_message=echo)
    server.listen(arguments[0] if arguments else "127.0.0.1", int(arguments[1]) if arguments[1:] else 0)
    print("echoing at ws://{}:{}/".format(*server.addresses[0]), flush=True)
    if "--selftest" in sys.argv:
        server.loop.call_soon(selftest, server)
    server.run()


if __name__ == "__main__":
    main()
