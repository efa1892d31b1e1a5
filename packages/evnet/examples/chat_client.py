"""A chat client: `python chat_client.py name [host] [port]`. Lines that are typed are said, an end of file leaves.

With --selftest it finds out what happens when nobody listens.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import evloop
import evnet


class Chat:
    """Says its name, and passes on what it hears."""

    def __init__(self, name: str, heard: Callable[[str], object]) -> None:
        self.name = name
        self.heard = heard
        self.unread = b""
        self.gone = False

    def connection_made(self, transport: Any) -> None:
        """Introduce ourselves."""
        self.transport = transport
        self.say(self.name)

    def data_received(self, data: bytes) -> None:
        """Pass on the lines that are complete."""
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            self.heard(line.decode(errors="replace"))

    def say(self, line: str) -> None:
        """Say a line, if there is still somebody to hear it."""
        if not self.transport.is_closing():
            self.transport.write(line.encode() + b"\n")

    def leave(self) -> None:
        """Close when all has been said."""
        self.transport.close()

    def pause_writing(self) -> None:
        """Nobody types so fast."""

    def resume_writing(self) -> None:
        """Nobody types so fast."""

    def eof_received(self) -> None:
        """The server closes, and so do we."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Say why, if it was not us."""
        self.gone = True
        if exc is not None:
            self.heard(str(exc))


def main(name: str, host: str = "127.0.0.1", port: str = "7000") -> None:
    """Chat until the end of the file, or of the server."""
    with evloop.Loop() as loop:
        chat = Chat(name, print)
        connecting = evnet.connect_tcp(loop, lambda: chat, host, port, timeout=10)
        loop.run_until(connecting.done)
        try:
            connecting.result()
        except OSError as error:
            sys.exit(str(error.strerror))

        def typed() -> None:
            text = os.read(0, 4096)
            if text:
                for line in text.decode(errors="replace").splitlines():
                    chat.say(line)
            else:
                loop.remove_reader(0)
                chat.leave()

        loop.add_reader(0, typed)
        loop.run_until(lambda: chat.gone)


def selftest() -> None:
    """Connect to a port where nobody is."""
    with evloop.Loop() as loop:
        server = evnet.listen_tcp(loop, lambda: Chat("nobody", print), "127.0.0.1", 0)
        host, port = server.addresses[0][:2]
        server.close()
        connecting = evnet.connect_tcp(loop, lambda: Chat("nobody", print), host, port, timeout=10)
        loop.run_until(connecting.done)
        print("refused:", isinstance(connecting.exception(), ConnectionRefusedError))


if __name__ == "__main__":
    if sys.argv[1:] == ["--selftest"]:
        selftest()
    else:
        main(*sys.argv[1:])
