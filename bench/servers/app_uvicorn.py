"""uvicorn with uvloop and httptools, bare ASGI, for the "app" benchmark: app_uvicorn.py HOST PORT [CERTIFICATE KEY]."""

import json
import sys

import uvicorn
from app_wsgi import PIECE, VALUE


def head(kind, *more):
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind), *more]}


async def application(scope, receive, send):
    path = scope["path"]
    if path == "/json":
        headers = dict(scope["headers"])
        seen = [headers.get(name) for name in (b"user-agent", b"accept", b"authorization")]
        body = json.dumps(VALUE, separators=(",", ":")).encode() if all(seen) else b"no such header"
        await send(head(b"application/json", (b"content-length", b"%d" % len(body))))
        await send({"type": "http.response.body", "body": body})
    elif path == "/post":
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"%d" % size
        await send(head(b"text/plain", (b"content-length", b"%d" % len(body))))
        await send({"type": "http.response.body", "body": body})
    elif path == "/hello":
        await send(head(b"application/octet-stream", (b"content-length", b"13")))
        await send({"type": "http.response.body", "body": b"Hello, World!"})
    else:
        await send(head(b"application/octet-stream"))
        for _ in range(10_000):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


host, port, *certificate = sys.argv[1:]
files = dict(zip(("ssl_certfile", "ssl_keyfile"), certificate, strict=False))
uvicorn.run(
    application,
    host=host,
    port=int(port),
    loop="uvloop",
    http="httptools",
    ws="none",
    lifespan="off",
    access_log=False,
    log_level="error",
    backlog=4096,
    **files,
)
