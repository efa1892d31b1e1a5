"""Server-sent events: a page that counts along with everybody else who has it open."""

import sys

import evhttp
from evhttp import EventStream, Request, Response

PAGE = """<!DOCTYPE html><title>Events</title><p id=count>-</p>
<script>
const source = new EventSource("/events");
source.addEventListener("count", event => { document.getElementById("count").textContent = event.data; });
</script>
"""
TICK, SILENCE = 0.2, 15.0

streams: set[EventStream] = set()
count = 0


def handler(req: Request, res: Response) -> None:
    """The page, and the stream; who comes back tells what it saw last."""
    if req.path != "/events":
        res.header("Content-Type", "text/html; charset=utf-8").send(PAGE)
        return
    stream = res.events()
    stream.send(str(count), event="count", id=str(count), retry=1)
    streams.add(stream)


def tick() -> None:
    """Tell everybody. Those that have gone say so by being closed."""
    global count
    count += 1
    for stream in list(streams):
        if stream.closed:
            streams.remove(stream)
        else:
            stream.send(str(count), event="count", id=str(count))


def keep_alive() -> None:
    """So that no proxy takes a quiet stream for a dead one."""
    for stream in streams:
        stream.comment()


server = evhttp.Server(handler).listen("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
server.loop.call_every(TICK, tick)
server.loop.call_every(SILENCE, keep_alive)
print(f"http://127.0.0.1:{server.addresses[0][1]}/", flush=True)
server.run()
