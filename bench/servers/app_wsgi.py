"""The WSGI application of the "app" benchmark, for granian and, run as a program, for fastpysgi: app_wsgi.py HOST PORT."""

import json
import sys

VALUE = {"items": [{"id": number, "name": f"item {number:04}", "tags": ["a", "b"]} for number in range(22)]}
PIECE = b"x" * 1024


def application(environ, start_response):
    """Answer by the path."""
    path = environ["PATH_INFO"]
    if path == "/json":
        seen = [environ.get(name) for name in ("HTTP_USER_AGENT", "HTTP_ACCEPT", "HTTP_AUTHORIZATION")]
        body = json.dumps(VALUE, separators=(",", ":")).encode() if all(seen) else b"no such header"
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]
    if path == "/post":
        body = b"%d" % len(environ["wsgi.input"].read())
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]
    if path == "/hello":
        start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", "13")])
        return [b"Hello, World!"]
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return (PIECE for _ in range(10_000))


if __name__ == "__main__":
    import fastpysgi

    host, port = sys.argv[1:]
    fastpysgi.server.backlog = 4096
    fastpysgi.server.tcp_nodelay = 1
    fastpysgi.run(application, host, int(port), loglevel=0)
