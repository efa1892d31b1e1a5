"""WebSockets on a loop that runs inside asyncio, for a part of their lives."""

from __future__ import annotations

import asyncio
from contextlib import closing

import evws
from evloop import Loop
from evws import WebSocket


def test_before_inside_and_after() -> None:
    """A socket that was opened before its loop went into a host sends from the host's callbacks, and when it is out again."""
    got: list[str | bytes] = []
    sockets: list[WebSocket] = []
    with Loop(backend="epoll") as loop:
        server = evws.Server(on_open=sockets.append, on_message=lambda ws, message: got.append(message), loop=loop)
        server.listen("127.0.0.1", 0)
        host, port = server.addresses[0]
        evws.connect(
            loop, f"ws://{host}:{port}/", on_message=lambda ws, message: got.append(message), on_open=sockets.append
        )
        loop.run_until(lambda: len(sockets) == 2)

        async def inside() -> None:
            with closing(server.attach(asyncio.get_running_loop())):
                await asyncio.sleep(0.01)  # nothing is under way: what follows has to bring about a turn by itself
                for ws in sockets:
                    ws.send("inside")
                    ws.send(b"inside")
                while len(got) < 4:
                    await asyncio.sleep(0.001)

        asyncio.run(asyncio.wait_for(inside(), 20))
        assert sorted(map(str, got)) == ["b'inside'", "b'inside'", "inside", "inside"]
        for ws in sockets:
            ws.send("after")
        loop.run_until(lambda: len(got) == 6)
        sockets[0].close()
        loop.run_until(lambda: all(ws.state is evws.State.CLOSED for ws in sockets))
