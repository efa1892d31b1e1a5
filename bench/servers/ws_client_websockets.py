"""websockets on uvloop as a client: ws_client_websockets.py HOST PORT --seconds S --warmup S."""

import asyncio
import os

import uvloop
from net_counting import Dialing
from websockets.asyncio.client import connect
from ws_counting import MESSAGE, arguments


async def main():
    url = f"ws://{args.host}:{args.port}/"
    async with connect(url, compression=None, ping_interval=None, proxy=None) as connection:
        loop = asyncio.get_running_loop()
        dialing = Dialing(loop.call_later, lambda: os._exit(0), args.warmup, args.seconds)
        while True:
            await connection.send(MESSAGE)
            dialing.count(None if await connection.recv() == MESSAGE else "another message came back")


args = arguments()
uvloop.run(main())
