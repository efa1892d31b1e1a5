"""uvicorn with uvloop and httptools, a bare ASGI application: uvicorn_hello.py HOST PORT {hello|browser}."""

import sys

import uvicorn

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"13")],
}
BODY = {"type": "http.response.body", "body": b"Hello, World!"}
NO_BODY = {"type": "http.response.body", "body": b"no header----"}


async def hello(scope, receive, send):
    await send(START)
    await send(BODY)


async def browser(scope, receive, send):
    headers = dict(scope["headers"])
    found = headers.get(b"user-agent") and headers.get(b"accept-language")
    await send(START)
    await send(BODY if found else NO_BODY)


host, port, handler = sys.argv[1:]
uvicorn.run(
    {"hello": hello, "browser": browser}[handler],
    host=host,
    port=int(port),
    loop="uvloop",
    http="httptools",
    ws="none",
    lifespan="off",
    access_log=False,
    log_level="error",
    backlog=4096,
    timeout_keep_alive=600,  # the default of 5 s would close the idle connections while they are counted
)
