"""fastpysgi, the successor of fastwsgi, with a WSGI application: fastpysgi_hello.py HOST PORT {hello|browser}."""

import sys

import fastpysgi

HEADERS = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "13")]


def hello(environ, start_response):
    start_response("200 OK", HEADERS)
    return [b"Hello, World!"]


def browser(environ, start_response):
    agent = environ.get("HTTP_USER_AGENT")
    language = environ.get("HTTP_ACCEPT_LANGUAGE")
    start_response("200 OK", HEADERS)
    return [b"Hello, World!" if agent and language else b"no header----"]


host, port, handler = sys.argv[1:]
fastpysgi.server.backlog = 4096
fastpysgi.server.tcp_nodelay = 1
fastpysgi.run({"hello": hello, "browser": browser}[handler], host, int(port), loglevel=0)
