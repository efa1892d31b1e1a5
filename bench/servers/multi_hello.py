"""evmulti: multi_hello.py HOST PORT {hello|who} {process|thread} WORKERS [ACCEPT]; who says in a header which worker answers."""

import os
import sys
import threading

import evmulti


def hello(req, res):
    res.send(b"Hello, World!")


def who(req, res):
    res.header("X-Worker", f"{os.getpid()}-{threading.get_native_id()}").send(b"Hello, World!")


host, port, handler, mode, workers = sys.argv[1:6]
accept = sys.argv[6] if len(sys.argv) > 6 else "auto"
evmulti.MultiServer({"hello": hello, "who": who}[handler], int(workers), mode, accept=accept).listen(
    host, int(port)
).run()
