"""aiohttp on uvloop: ws_aiohttp.py HOST PORT {echo|deflate|fanout}."""

import asyncio
import sys

import uvloop
from aiohttp import WSMsgType, web

sockets = set()


async def handle(request):
    ws = web.WebSocketResponse(compress=work == "deflate", max_msg_size=4 << 20)
    await ws.prepare(request)
    if work == "fanout":
        sockets.add(ws)
        await ws.send_bytes(b"!")
    try:
        async for message in ws:
            if work == "fanout":
                for each in list(sockets):
                    await each.send_bytes(message.data)
            elif message.type == WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
    finally:
        sockets.discard(ws)
    return ws


async def main(host, port):
    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=4096).start()
    await asyncio.Event().wait()


host, port, work = sys.argv[1:]
uvloop.run(main(host, int(port)))
