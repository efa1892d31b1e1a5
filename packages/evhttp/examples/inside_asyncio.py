"""A server inside an asyncio program: handlers start tasks, and their answers come when those are done."""

import asyncio
import signal
import sys

import evhttp
from evhttp import Request, Response

tasks: set[asyncio.Task[None]] = set()


async def look_up(name: str) -> str:
    """Something that waits, as for a database."""
    await asyncio.sleep(0.05)
    return f"{name} was looked up\n"


async def answer(res: Response, name: str) -> None:
    """Answer when it is there; a task that fails must not leave the client waiting."""
    try:
        res.send(await look_up(name))
    except Exception:
        res.send_error(500)
        raise


def handler(req: Request, res: Response) -> None:
    """Start a task. It is kept in a set, because the loop alone does not keep it alive."""
    task = asyncio.get_running_loop().create_task(answer(res.defer(), req.path[1:] or "nobody"))
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def main() -> None:
    """Serve until SIGTERM or Ctrl-C, then drain."""
    server = evhttp.Server(handler).listen("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    attachment = server.attach(asyncio.get_running_loop())
    stop, closed = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"http://127.0.0.1:{server.addresses[0][1]}/", flush=True)
    await stop.wait()
    server.close(10.0, on_closed=closed.set)
    await closed.wait()
    attachment.close()
    server.loop.close()


asyncio.run(main())
