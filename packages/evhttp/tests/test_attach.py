"""A server inside another program's loop: asyncio's, and uvloop's where it is installed."""

from __future__ import annotations

import asyncio
import importlib
import os
from typing import Any

import pytest

from evhttp import Limits, Request, Response, Server
from evloop import Loop, LoopRunningError
from evloop.testing import backends

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = os.urandom(500_000)
HOSTS = ["asyncio", "uvloop"]


def run(kind: str, main: Any) -> None:
    if kind == "asyncio":
        asyncio.run(main)
        return
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        main.close()
        pytest.skip("uvloop is not installed")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def ask(port: int, target: bytes, pieces: int = 1) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = GET % target
        for at in range(0, len(data), -(-len(data) // pieces)):
            writer.write(data[at : at + -(-len(data) // pieces)])
            await writer.drain()
            await asyncio.sleep(0)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        return await reader.readexactly(length)
    finally:
        writer.close()
        await writer.wait_closed()


async def serve(loop: Loop, limits: Limits | None = None) -> None:
    host = asyncio.get_running_loop()
    tasks = set()

    async def later(res: Response) -> None:
        await asyncio.sleep(0.01)
        res.send(b"from a task")

    def handler(req: Request, res: Response) -> None:
        if req.path == "/task":
            task = host.create_task(later(res.defer()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        elif req.path == "/timer":
            res.defer()
            loop.call_later(0.01, res.send, b"from a timer")
        elif req.path == "/large":
            res.send(BODY)
        else:
            res.send(req.path.encode())

    server = Server(handler, loop=loop, limits=limits).listen("127.0.0.1", 0)
    port = server.addresses[0][1]
    attachment = server.attach(host)
    with pytest.raises(LoopRunningError):
        server.attach(host)
    try:
        assert await ask(port, b"/hello") == b"/hello"
        assert await ask(port, b"/hello", pieces=7) == b"/hello"
        assert await ask(port, b"/task") == b"from a task"
        assert await ask(port, b"/timer") == b"from a timer"
        assert await asyncio.gather(*(ask(port, b"/%d" % number) for number in range(50))) == [
            b"/%d" % number for number in range(50)
        ]
        assert await ask(port, b"/large") == BODY
        # A connection under way when it is closed gets its answer; then the end is told.
        closed = asyncio.Event()
        last = host.create_task(ask(port, b"/task"))
        while not tasks:
            await asyncio.sleep(0.001)
        server.close(10, on_closed=closed.set)
        assert await last == b"from a task"
        await asyncio.wait_for(closed.wait(), 20)
        assert server.connections == 0
        closed.clear()
        server.close(on_closed=closed.set)  # when it has ended already
        await asyncio.wait_for(closed.wait(), 20)
    finally:
        attachment.close()


@pytest.mark.parametrize("kind", HOSTS)
@pytest.mark.parametrize("backend", [name for name in backends() if name != "poll"])
def test_inside(kind: str, backend: str) -> None:
    with Loop(backend=backend) as loop:
        run(kind, serve(loop))


@pytest.mark.parametrize("act", ["close", "abort"])
@pytest.mark.parametrize("clients", [0, 1])
def test_an_idle_server_ends_inside(act: str, clients: int) -> None:
    """Nothing happens on any socket, so nobody but the server itself can ask for a turn."""

    async def main() -> None:
        with Loop(backend=backends()[0]) as loop:
            server = Server(lambda req, res: res.send(b""), loop=loop).listen("127.0.0.1", 0)
            attachment = server.attach(asyncio.get_running_loop())
            made = [await asyncio.open_connection("127.0.0.1", server.addresses[0][1]) for _ in range(clients)]
            for reader, writer in made:
                writer.write(GET % b"/")
                await reader.readuntil(b"\r\n\r\n")
            closed = asyncio.Event()
            if act == "close":
                server.close(on_closed=closed.set)
            else:
                server.abort()
                server.close(on_closed=closed.set)
            await asyncio.wait_for(closed.wait(), 20)
            for _, writer in made:
                writer.close()
            attachment.close()

    if backends()[0] == "poll":
        pytest.skip("poll has no descriptor to watch")
    asyncio.run(main())


@pytest.mark.parametrize("kind", HOSTS)
def test_deadlines_go_on_inside(kind: str) -> None:
    async def main() -> None:
        with Loop(backend=backends()[0]) as loop:
            limits = Limits(head_timeout=0.05)
            server = Server(lambda req, res: res.send(b""), loop=loop, limits=limits).listen("127.0.0.1", 0)
            attachment = server.attach(asyncio.get_running_loop())
            reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses[0][1])
            writer.write(b"GET / HT")
            assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 408 ")
            writer.close()
            await writer.wait_closed()
            server.close()
            attachment.close()

    if backends()[0] == "poll":
        pytest.skip("poll has no descriptor to watch")
    run(kind, main())
