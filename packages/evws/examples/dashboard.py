"""A page that shows how the server is doing, pushed to every visitor once a second: `python dashboard.py [host] [port]`.

With --selftest a client takes two pushes, and it ends.
"""

from __future__ import annotations

import json
import resource
import sys

import evhttp
import evws

PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>dashboard</title>
<style>body { font: 24px sans-serif; margin: 2em } td { padding: 0.2em 1em } td + td { text-align: right }</style>
<table id="table"></table>
<script>
const table = document.getElementById("table");
new WebSocket(`ws://${location.host}/live`).onmessage = event => {
  table.replaceChildren(...Object.entries(JSON.parse(event.data)).map(([name, value]) => {
    const row = document.createElement("tr");
    for (const text of [name, value]) row.insertCell().textContent = text;
    return row;
  }));
};
</script>
</html>
"""

visitors = evws.Group()


def handle(req: evhttp.Request, res: evhttp.Response) -> None:
    """Give out the page, or take in a visitor."""
    if req.path == "/live":
        # Visitors say nothing; who does not keep up misses a push or two.
        limits = evws.Limits(max_message_size=1, max_queue_size=65536, when_full="drop")
        evws.upgrade(req, res, on_message=lambda ws, message: None, on_open=visitors.add, limits=limits)
    else:
        res.header("Content-Type", "text/html; charset=utf-8").send(PAGE)


def main() -> None:
    """Serve."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--selftest"]
    server = evhttp.Server(handle)
    server.listen(arguments[0] if arguments else "127.0.0.1", int(arguments[1]) if arguments[1:] else 0)
    loop = server.loop
    begun = loop.time()

    def push() -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        about = {
            "up for": f"{loop.time() - begun:.0f} s",
            "visitors": len(visitors),
            "CPU time": f"{usage.ru_utime + usage.ru_stime:.2f} s",
            "turns of the loop": loop.stats().turns,
        }
        visitors.send(json.dumps(about))

    def took(ws: evws.WebSocket, message: str) -> None:
        print("pushed:", ", ".join(json.loads(message)))
        ws.context = (ws.context or 0) + 1
        if ws.context == 2:
            ws.close()
            server.close()
            loop.call_later(0.05, loop.stop)

    loop.call_every(0.05 if "--selftest" in sys.argv else 1.0, push)
    print("the dashboard is at http://{}:{}/".format(*server.addresses[0]), flush=True)
    if "--selftest" in sys.argv:
        evws.connect(loop, "ws://{}:{}/live".format(*server.addresses[0]), on_message=took)
    server.run()


if __name__ == "__main__":
    main()
