"""picows on uvloop as a client: ws_client_picows.py HOST PORT --seconds S --warmup S."""

import asyncio
import os

import picows
import uvloop
from net_counting import Dialing
from ws_counting import MESSAGE, arguments


class Client(picows.WSListener):
    def on_ws_connected(self, transport):
        transport.send(picows.WSMsgType.BINARY, MESSAGE)

    def on_ws_frame(self, transport, frame):
        dialing.count(None if frame.get_payload_as_bytes() == MESSAGE else "another message came back")
        transport.send(picows.WSMsgType.BINARY, MESSAGE)


async def main():
    global dialing
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    dialing = Dialing(loop.call_later, done.set, args.warmup, args.seconds)
    await picows.ws_connect(Client, f"ws://{args.host}:{args.port}/")
    await done.wait()
    os._exit(0)


args = arguments()
uvloop.run(main())
