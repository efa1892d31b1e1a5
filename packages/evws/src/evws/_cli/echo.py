"""``python -m evws --listen``: a server that echoes."""

from __future__ import annotations

import sys

from evws._server import Server
from evws._socket import WebSocket

__all__ = ["listen"]


def _echo(ws: WebSocket, message: str | bytes) -> None:
    ws.send(message)


def listen(host: str, port: int) -> int:
    """Serve until a signal comes; returns the exit code."""
    server = Server(on_message=_echo)
    try:
        server.listen(host, port)
    except (OSError, UnicodeError) as error:
        text = getattr(error, "strerror", None) or str(error)
        said = text if text.startswith("cannot listen") else f"cannot listen on {host!r}: {text}"
        print(f"evws: {said}", file=sys.stderr)
        server.loop.close()
        return 1
    shown = f"[{host}]" if ":" in host else host
    line = f"evws echoes at ws://{shown}:{server.addresses[0][1]}/"
    # From inside the loop, when signals are taken care of: who reads this line may end us at once.
    server.loop.call_soon(lambda: print(line, flush=True))
    server.run()
    return 0
