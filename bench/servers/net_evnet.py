"""Ours: net_evnet.py HOST PORT WORK [--cert FILE] [--key FILE] [--file FILE]."""

from __future__ import annotations

import argparse
import inspect
import os
import ssl
import sys

from net_counting import Dialing
from net_protocols import SERVERS, Dialer, EchoDatagram, Fanout, everyone, settle_malloc

import evloop
import evnet


def need(owner, name, option=None):
    """End with a remark for the results where this evnet does not have a function, or an option of it."""
    found = getattr(owner, name, None)
    if found is None or (option and option not in inspect.signature(found).parameters):
        sys.exit(f"not built: {owner.__name__}.{name}" + (f" has no {option}" if found else ""))
    return found


class Broadcast(Fanout):
    """The same, in one call."""

    __slots__ = ()

    def data_received(self, data):
        evnet.broadcast(everyone, data)


class SendFile:
    """Sends the file and closes."""

    def __init__(self, file):
        self.file = file

    def connection_made(self, connection):
        connection.send_file(self.file, 0, os.fstat(self.file.fileno()).st_size)
        connection.close()

    def data_received(self, data):
        pass

    def eof_received(self):
        pass

    def connection_lost(self, error):
        pass

    def pause_writing(self):
        pass

    def resume_writing(self):
        pass


def dial(loop, host, port, connections, dialing):
    """Keep so many exchanges going, each on a connection of its own."""
    connect = need(evnet, "connect_tcp")

    def again(problem):
        dialing.count(problem)
        if not dialing.finished:
            connect(loop, one, host, port)

    def one():
        return Dialer(again)

    for _ in range(connections):
        connect(loop, one, host, port)


def main():
    servers = {**SERVERS, "broadcast": Broadcast}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("work", choices=(*servers, "udp", "file", "dial"))
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--file")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--warmup", type=float, default=1)
    parser.add_argument("--seconds", type=float, default=4)
    args = parser.parse_args()
    settle_malloc()
    loop = evloop.Loop()
    if args.work == "dial":
        dialing = Dialing(loop.call_later, loop.stop, args.warmup, args.seconds)
        dial(loop, args.host, args.port, args.connections, dialing)
    elif args.work == "udp":
        need(evnet, "bind_udp")(loop, EchoDatagram, args.host, args.port)
    elif args.work == "file":
        need(evnet.Connection, "send_file")
        file = open(args.file, "rb")  # noqa: SIM115 - for all connections
        evnet.listen_tcp(loop, lambda: SendFile(file), args.host, args.port)
    elif args.work == "tls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(args.cert, args.key)
        need(evnet, "listen_tcp", "ssl")(loop, SERVERS["tls"], args.host, args.port, ssl=context, backlog=4096)
    else:
        evnet.listen_tcp(loop, servers[args.work], args.host, args.port, backlog=4096)
    loop.run()
    if args.work == "dial":
        os._exit(0)  # connections in flight are of no interest


main()
