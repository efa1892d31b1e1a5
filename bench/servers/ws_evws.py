"""Ours: ws_evws.py HOST PORT {echo|deflate|fanout}."""

import math
import sys

import evws

sockets = set()


def echo(ws, message):
    ws.send(message)


def to_all(ws, message):
    if hasattr(evws, "broadcast"):
        evws.broadcast(sockets, message)
    else:
        for each in sockets:
            each.send(message)


def greet(ws):
    sockets.add(ws)
    ws.send(b"!")


def forget(ws, code, reason):
    sockets.discard(ws)


host, port, work = sys.argv[1:]
options = {"on_message": echo, "limits": evws.Limits(ping_interval=math.inf)}
if work == "fanout":
    options |= {"on_message": to_all, "on_open": greet, "on_close": forget}
elif work == "deflate":  # aiohttp's and zlib's defaults
    options["compression"] = evws.Deflate(server_max_window_bits=15, client_max_window_bits=15, memory_level=8, level=1)
evws.Server(**options).listen(host, int(port), backlog=4096).run()
