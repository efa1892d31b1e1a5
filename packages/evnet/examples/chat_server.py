"""A chat server: what one says, all hear. `python chat_server.py [host] [port]`, and chat_client.py or netcat to talk to it.

With --selftest it chats with itself, through chat_client.py's own client, and ends.
"""

import sys
from typing import Any

import evloop
import evnet

LONGEST_LINE = 1000


class Room:
    """Who is here."""

    def __init__(self) -> None:
        self.guests: dict[str, Guest] = {}

    def say(self, line: str) -> None:
        """Let everybody hear a line."""
        print(line, flush=True)
        for guest in list(self.guests.values()):
            guest.hear(line)


class Guest:
    """One connection. Its first line is its name, every other one is for all."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.name = ""
        self.unread = b""
        self.busy = False

    def connection_made(self, transport: Any) -> None:
        """Greet."""
        self.transport = transport
        transport.write(b"your name?\n")

    def data_received(self, data: bytes) -> None:
        """Take the lines that are complete."""
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            self.line_received(line.decode(errors="replace").strip())
        if len(self.unread) > LONGEST_LINE:
            self.transport.abort()

    def line_received(self, line: str) -> None:
        """Come in, or say something."""
        if self.transport.is_closing():
            return
        if self.name:
            self.room.say(f"{self.name}: {line}")
        elif not line or line in self.room.guests:
            self.transport.write(b"that name is not free\n")
            self.transport.close()
        else:
            self.name = line
            self.room.guests[line] = self
            self.room.say(f"{line} has come")

    def hear(self, line: str) -> None:
        """Tell this guest; but one who does not read misses what the others say meanwhile."""
        if not self.busy and not self.transport.is_closing():
            self.transport.write(line.encode() + b"\n")

    def pause_writing(self) -> None:
        """Much is on its way to this guest already."""
        self.busy = True

    def resume_writing(self) -> None:
        """It has been read."""
        self.busy = False

    def eof_received(self) -> None:
        """Close, which is what happens without an answer."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave."""
        if self.name:
            del self.room.guests[self.name]
            self.room.say(f"{self.name} has gone")


def serve(loop: evloop.Loop, host: str, port: int) -> evnet.Server:
    """Open a room."""
    room = Room()
    return evnet.listen_tcp(loop, lambda: Guest(room), host, port)


def main(host: str = "127.0.0.1", port: str = "7000") -> None:
    """Serve until Ctrl-C."""
    with evloop.Loop() as loop:
        server = serve(loop, host, int(port))
        print("listening on", *server.addresses, flush=True)
        try:
            loop.run()
        except KeyboardInterrupt:
            print("closing")


def selftest() -> None:
    """Two guests talk, and leave."""
    from chat_client import Chat

    heard: dict[str, list[str]] = {"ann": [], "bob": []}
    with evloop.Loop() as loop:
        server = serve(loop, "127.0.0.1", 0)
        chats = {}
        for name, lines in heard.items():
            chats[name] = Chat(name, lines.append)
            connecting = evnet.connect_tcp(loop, lambda chat=chats[name]: chat, *server.addresses[0], timeout=10)
            loop.run_until(connecting.done)
            connecting.result()
            loop.run_until(lambda name=name, lines=lines: f"{name} has come" in lines)
        chats["ann"].say("hello bob")
        loop.run_until(lambda: all("ann: hello bob" in lines for lines in heard.values()))
        chats["ann"].leave()
        loop.run_until(lambda: "ann has gone" in heard["bob"])
        chats["bob"].leave()
        loop.run_until(lambda: chats["bob"].gone and server.connections == 0)
        server.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["--selftest"]:
        selftest()
    else:
        main(*sys.argv[1:])
