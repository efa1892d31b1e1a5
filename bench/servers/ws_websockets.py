"""websockets on uvloop: ws_websockets.py HOST PORT {echo|deflate|fanout}."""

import sys

import uvloop
from websockets.asyncio.server import broadcast, serve
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

connections = set()


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def fanout(connection):
    connections.add(connection)
    try:
        await connection.send(b"!")
        async for message in connection:
            broadcast(connections, message)
    finally:
        connections.discard(connection)


async def main(host, port, work):
    extensions = []
    if work == "deflate":
        extensions = [ServerPerMessageDeflateFactory(compress_settings={"level": 1, "memLevel": 8})]
    handler = fanout if work == "fanout" else echo
    options = {"compression": None, "extensions": extensions, "ping_interval": None, "backlog": 4096}
    async with serve(handler, host, port, **options) as server:
        await server.serve_forever()


host, port, work = sys.argv[1:]
uvloop.run(main(host, int(port), work))
