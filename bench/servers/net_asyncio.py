"""asyncio and what looks like it: net_asyncio.py LOOP HOST PORT WORK [--cert FILE] [--key FILE] [--file FILE]."""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import ssl

from net_counting import Dialing
from net_protocols import SERVERS, Dialer, EchoDatagram, settle_malloc


def make_loop(name):
    if name == "asyncio":
        return asyncio.new_event_loop()
    if name == "rloop":
        import rloop

        return rloop.new_event_loop()
    import uvloop

    if name == "uvloop":
        return uvloop.new_event_loop()
    import aiofastnet

    return aiofastnet.loop_factory(uvloop.new_event_loop)()


class SendFile(asyncio.Protocol):
    """Sends the file and closes, with what the loop has for it."""

    def __init__(self, loop, path):
        self.loop = loop
        self.file = open(path, "rb")  # noqa: SIM115 - closed with the connection
        self.resumed = asyncio.Event()
        self.resumed.set()

    def connection_made(self, transport):
        self.transport = transport
        self.task = self.loop.create_task(self.send())

    async def send(self):
        try:
            await self.loop.sendfile(self.transport, self.file)
        except NotImplementedError:
            await self.send_pieces()
        self.transport.close()

    async def send_pieces(self):
        # sendfile(2) on a descriptor that the loop reads is not possible with its public functions: so read and write.
        while piece := self.file.read(1 << 18):
            self.transport.write(piece)
            await self.resumed.wait()

    def pause_writing(self):
        self.resumed.clear()

    def resume_writing(self):
        self.resumed.set()

    def connection_lost(self, error):
        self.file.close()


class SendFileByFd(asyncio.Protocol):
    """Sends the file and closes, with sendfile(2) on a duplicate of the transport's descriptor, which the loop watches."""

    def __init__(self, loop, path):
        self.loop = loop
        self.file = open(path, "rb")  # noqa: SIM115 - closed with the connection
        self.left = os.fstat(self.file.fileno()).st_size
        self.offset = 0

    def connection_made(self, transport):
        self.transport = transport
        self.out = os.dup(transport.get_extra_info("socket").fileno())
        self.loop.add_writer(self.out, self.writable)

    def writable(self):
        try:
            sent = os.sendfile(self.out, self.file.fileno(), self.offset, self.left)
        except BlockingIOError:
            return
        self.offset += sent
        self.left -= sent
        if not self.left:
            self.loop.remove_writer(self.out)
            os.close(self.out)
            self.transport.close()

    def connection_lost(self, error):
        self.file.close()


async def dial(loop, host, port, connections, dialing):
    """Keep so many exchanges going, each on a connection of its own."""

    async def one():
        while not dialing.finished:
            over = loop.create_future()
            await loop.create_connection(functools.partial(Dialer, over.set_result), host, port)
            dialing.count(await over)

    await asyncio.gather(*(one() for _ in range(connections)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop", choices=("asyncio", "uvloop", "rloop", "aiofastnet"))
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("work", choices=(*SERVERS, "udp", "file", "file-fd", "dial"))
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--file")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--warmup", type=float, default=1)
    parser.add_argument("--seconds", type=float, default=4)
    args = parser.parse_args()
    settle_malloc()
    loop = make_loop(args.loop)
    asyncio.set_event_loop(loop)
    if args.work == "dial":
        dialing = Dialing(loop.call_later, loop.stop, args.warmup, args.seconds)
        task = loop.create_task(dial(loop, args.host, args.port, args.connections, dialing))
        task.add_done_callback(lambda _: loop.stop())
        loop.run_forever()
        if task.done():
            task.result()  # raises what went wrong
        os._exit(0)  # connections in flight are of no interest
    elif args.work == "udp":
        loop.run_until_complete(loop.create_datagram_endpoint(EchoDatagram, local_addr=(args.host, args.port)))
    else:
        context = None
        if args.work == "tls":
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(args.cert, args.key)
        files = {"file": SendFile, "file-fd": SendFileByFd}
        factory = SERVERS.get(args.work) or (lambda: files[args.work](loop, args.file))
        loop.run_until_complete(loop.create_server(factory, args.host, args.port, ssl=context, backlog=4096))
    loop.run_forever()


main()
