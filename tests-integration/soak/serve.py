"""Run the service: `python serve.py MODE WORKERS HOST...`. When it serves it says where, in one line of JSON."""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import sys

import evhttp
import evmulti

# Shared by all workers, as their queue is: made here it outlives each of them.
secure = socket.create_server(("127.0.0.1", 0), backlog=1024)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(os.path.join(os.environ["SOAK_FOLDER"], "cert.pem"))


def set_up(worker: evmulti.Worker) -> None:
    """Have the worker's own server listen for TLS too, and its service begin."""
    import service  # the module that the handler was loaded from, which is new after each SIGHUP

    service.join(worker)
    worker.server.listen_socket(secure.dup(), ssl=context)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    server = evmulti.MultiServer(
        "service:handler",
        workers=int(sys.argv[2]),
        mode="process" if sys.argv[1] == "process" else "thread",
        setup=set_up,
        stream_bodies=True,
        limits=evhttp.Limits(max_body_size=64 << 20),
        grace=8.0,
        worker_timeout=5.0,
    )
    for host in sys.argv[3:]:
        server.listen(host, 0)
    server.run(lambda: print(json.dumps({"plain": server.addresses, "tls": secure.getsockname()}), flush=True))
