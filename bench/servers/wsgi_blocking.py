"""The WSGI applications that servers with threads are pointed at."""

import time

HEADERS = [("content-type", "text/plain; charset=utf-8"), ("content-length", "13")]


def sleep(environ, start_response):
    time.sleep(0.02)
    start_response("200 OK", HEADERS)
    return [b"Hello, World!"]


def noop(environ, start_response):
    start_response("200 OK", HEADERS)
    return [b"Hello, World!"]
