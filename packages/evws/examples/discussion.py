"""Ten clients discuss with a server, all on one loop, until each has heard ten answers: `python discussion.py`."""

from __future__ import annotations

import evws
from evloop import Loop

ROUNDS = 10


def main() -> None:
    """Let them discuss."""
    with Loop() as loop:

        def answer(ws: evws.WebSocket, message: str) -> None:
            ws.context = (ws.context or 0) + 1
            ws.send(f"you say {message!r}; that was argument number {ws.context}")

        server = evws.Server(on_message=answer, loop=loop).listen("127.0.0.1", 0)

        def argue(ws: evws.WebSocket) -> None:
            ws.context = 0
            ws.send("I think so")

        def consider(ws: evws.WebSocket, message: str) -> None:
            ws.context += 1
            if ws.context == ROUNDS:
                print(f"convinced by: {message}")
                ws.close(1000, "convinced")
            else:
                ws.send(f"but {ws.context} times no")

        people = evws.Clientele(loop=loop, on_open=argue, on_message=consider)
        opened = people.connect("ws://{}:{}/".format(*server.addresses[0]), 10)
        loop.run_until(lambda: opened.done() and not len(people))
        print("they have all gone")
        server.close()
        loop.run_until(lambda: not server.connections)


if __name__ == "__main__":
    main()
