"""aiohttp on uvloop as a client: ws_client_aiohttp.py HOST PORT --seconds S --warmup S."""

import asyncio
import os

import uvloop
from aiohttp import ClientSession
from net_counting import Dialing
from ws_counting import MESSAGE, arguments


async def main():
    async with ClientSession() as session, session.ws_connect(f"http://{args.host}:{args.port}/") as ws:
        loop = asyncio.get_running_loop()
        dialing = Dialing(loop.call_later, lambda: os._exit(0), args.warmup, args.seconds)
        while True:
            await ws.send_bytes(MESSAGE)
            dialing.count(None if await ws.receive_bytes() == MESSAGE else "another message came back")


args = arguments()
uvloop.run(main())
