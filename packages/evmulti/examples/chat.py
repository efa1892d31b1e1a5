"""A chat over WebSocket in which it does not matter which worker a client comes to: `python chat.py [port]`.

Workers share nothing, so each tells the others what its clients have said: datagrams from unix socket to unix socket, in a
folder in which every worker has one. With --selftest clients of its own talk to each other.
"""

import os
import socket
import sys
import tempfile
from pathlib import Path

import evmulti
import evnet
import evws

FOLDER = Path(os.environ.setdefault("CHAT_FOLDER", tempfile.mkdtemp(prefix="chat-")))

members = set()
bus = None


class Bus:
    """What other workers' clients have said."""

    def connection_made(self, transport):
        """Remember how to say something."""
        self.transport = transport

    def datagram_received(self, data, address):
        """Pass it on to our clients."""
        tell(data.decode())

    def error_received(self, error):
        """A worker that has just gone hears nothing."""

    def connection_lost(self, error):
        """Nothing is left to do."""


def tell(text):
    """Say something to the clients of this worker."""
    for ws in members:
        ws.send(text)


def said(ws, text):
    """A client has said something: to those of this worker, and to the other workers."""
    tell(text)
    for path in FOLDER.iterdir():
        if path != bus.path:
            bus.transport.sendto(text.encode(), str(path))


def join_the_bus(worker):
    """Make this worker's socket."""
    global bus
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bus = Bus()
    bus.path = FOLDER / f"{worker.number}-{os.getpid()}"
    sock.bind(str(bus.path))
    evnet.open_datagram(worker.loop, lambda: bus, sock)


def leave_the_bus(worker):
    """Remove it."""
    bus.transport.close()
    bus.path.unlink()


def handler(req, res):
    """Everybody who speaks WebSocket is a member."""
    ws = evws.upgrade(req, res, on_message=said, on_close=lambda ws, code, reason: members.discard(ws))
    if ws is not None:
        members.add(ws)
        ws.send(f"you are in process {os.getpid()}")


class Client:
    """A client of the self-test: blocking, and it trusts the server."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), 10)
        self.parser = evws.FrameParser("client")
        self.sock.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.sock.recv(4096)
        self.frames = self.parser.feed(data.partition(b"\r\n\r\n")[2])

    def hear(self):
        """The next text."""
        while not self.frames:
            self.frames += self.parser.feed(self.sock.recv(4096))
        return self.frames.pop(0).payload.decode()

    def say(self, text):
        """Send a text."""
        self.sock.sendall(evws.encode_frame(evws.Opcode.TEXT, text, mask=b"abcd"))


if __name__ == "__main__":
    chat = evmulti.MultiServer(handler, workers=2, mode="process", setup=join_the_bus, teardown=leave_the_bus, grace=2)
    if "--selftest" not in sys.argv:
        chat.listen("127.0.0.1", int((sys.argv[1:] or ["8765"])[0])).run()
        sys.exit()
    with chat.listen("127.0.0.1", 0) as server:
        clients = {}
        while len(clients) < 2:  # until there is one in each worker
            client = Client(server.addresses[0][1])
            if clients.setdefault(client.hear(), client) is not client:
                client.sock.close()
        ann, bob = clients.values()
        ann.say("hello bob")
        print("ann and bob hear:", ann.hear(), "/", bob.hear())
        bob.say("hello ann")
        print("ann and bob hear:", ann.hear(), "/", bob.hear())
        for client in clients.values():
            client.sock.close()
    print("sockets left behind:", len(list(FOLDER.iterdir())))
    FOLDER.rmdir()
