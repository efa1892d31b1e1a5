"""Our own server with a pool: dispatch_blocking.py HOST PORT {sleep|noop} THREADS."""

import sys
import time

import evhttp
import evmulti


def sleep(req, res):
    time.sleep(0.02)
    res.send(b"Hello, World!")


def noop(req, res):
    res.send(b"Hello, World!")


host, port, handler, threads = sys.argv[1:]
with evmulti.Dispatcher({"sleep": sleep, "noop": noop}[handler], pool_size=int(threads)) as dispatcher:
    evhttp.Server(dispatcher).listen(host, int(port)).run()
