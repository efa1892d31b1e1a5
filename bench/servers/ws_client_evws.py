"""Ours as a client: ws_client_evws.py HOST PORT --seconds S --warmup S."""

import math
import os

from net_counting import Dialing
from ws_counting import MESSAGE, arguments

import evloop
import evws


def opened(ws):
    ws.send(MESSAGE)


def answered(ws, message):
    dialing.count(None if message == MESSAGE else "another message came back")
    ws.send(MESSAGE)


args = arguments()
loop = evloop.Loop()
dialing = Dialing(loop.call_later, loop.stop, args.warmup, args.seconds)
url = f"ws://{args.host}:{args.port}/"
evws.connect(loop, url, on_open=opened, on_message=answered, limits=evws.Limits(ping_interval=math.inf))
loop.run()
os._exit(0)  # the exchange under way is of no interest
