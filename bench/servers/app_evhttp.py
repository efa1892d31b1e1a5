"""Our own server for the "app" benchmark: app_evhttp.py HOST PORT FOLDER [CERTIFICATE KEY]."""

import ssl
import sys

from app_wsgi import PIECE, VALUE

import evhttp

host, port, folder, *certificate = sys.argv[1:]
files = evhttp.StaticFiles(folder)


def stream(res):
    """10,000 pieces, at the client's pace."""
    left = 10_000

    def more():
        nonlocal left
        while left:
            left -= 1
            if not res.write(PIECE):
                return
        res.end()

    res.header("Content-Type", "application/octet-stream").on_drain(more)
    more()


def handler(req, res):
    path = req.path
    if path == "/json":
        headers = req.headers
        if headers.get("user-agent") and headers.get("accept") and headers.get("authorization"):
            res.json(VALUE)
        else:
            res.send(b"no such header")
    elif path == "/post":
        res.send(b"%d" % len(req.body))
    elif path == "/hello":
        res.send(b"Hello, World!")
    elif path == "/stream":
        stream(res)
    else:
        files(req, res)


context = None
if certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
evhttp.Server(handler).listen(host, int(port), ssl=context).run()
