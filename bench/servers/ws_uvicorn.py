"""uvicorn with uvloop and websockets, a bare ASGI application: ws_uvicorn.py HOST PORT {echo|deflate|fanout}."""

import sys

import uvicorn

sends = set()


async def application(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    if work == "fanout":
        sends.add(send)
        await send({"type": "websocket.send", "bytes": b"!"})
    while (event := await receive())["type"] == "websocket.receive":
        answer = {"type": "websocket.send", "bytes": event.get("bytes"), "text": event.get("text")}
        for each in list(sends) if work == "fanout" else (send,):
            await each(answer)
    sends.discard(send)


host, port, work = sys.argv[1:]
uvicorn.run(
    application,
    host=host,
    port=int(port),
    loop="uvloop",
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=work == "deflate",
    ws_ping_interval=None,
    ws_max_size=4 << 20,
    lifespan="off",
    access_log=False,
    log_level="error",
    backlog=4096,
)
