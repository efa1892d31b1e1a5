"""Our own server: evhttp_hello.py HOST PORT {hello|browser}."""

import sys

import evhttp


def hello(req, res):
    res.send(b"Hello, World!")


def browser(req, res):
    agent = req.headers.get("user-agent")
    language = req.headers.get("accept-language")
    res.send(b"Hello, World!" if agent and language else b"no such header")


host, port, handler = sys.argv[1:]
evhttp.Server({"hello": hello, "browser": browser}[handler]).listen(host, int(port)).run()
