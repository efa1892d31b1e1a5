"""Ours, all in one process for instructions.py: HTTP, WebSocket echo and TCP echo. Says their ports in one line of JSON."""

import json
import math

from net_protocols import Echo

import evhttp
import evloop
import evloop._core
import evnet
import evws

# Under callgrind everything takes fifty times as long, and answers would be flushed one by one, as those of slow handlers are.
evloop._core.FLUSH_AFTER_NS = 10**12
evloop._core.QUICK_NS = 10**12


def hello(req, res):
    res.send(b"Hello, World!")


def echo(ws, message):
    ws.send(message)


loop = evloop.Loop()
http = evhttp.Server(hello, loop=loop).listen("127.0.0.1", 0)
# Nothing that comes by the clock: under callgrind it would come more often per request.
limits = evws.Limits(ping_interval=math.inf)
websocket = evws.Server(on_message=echo, limits=limits, loop=loop).listen("127.0.0.1", 0)
tcp = evnet.listen_tcp(loop, Echo, "127.0.0.1", 0)
ports = {"http": http.addresses[0][1], "websocket": websocket.addresses[0][1], "tcp": tcp.addresses[0][1]}
print(json.dumps(ports), flush=True)
loop.run()
