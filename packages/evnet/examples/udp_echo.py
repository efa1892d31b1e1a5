"""A UDP echo server and a client that asks a thousand questions, a few at a time, because datagrams may be lost in a crowd."""

from __future__ import annotations

from typing import Any

import evloop
import evnet

QUESTIONS = 1000
AT_ONCE = 20


class Echo:
    """Answers each datagram with itself."""

    def connection_made(self, transport: evnet.DatagramTransport) -> None:
        """Keep what answers are sent with."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer."""
        self.transport.sendto(data, addr)

    def error_received(self, exc: OSError) -> None:
        """Say which client has gone."""
        print(f"not delivered: {exc}")

    def pause_writing(self) -> None:
        """Go on: what finds no room is dropped, as UDP may."""

    def resume_writing(self) -> None:
        """There is room again."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is to be tidied up."""


class Client(Echo):
    """Asks, and says so when nobody is there any more."""

    def __init__(self, loop: evloop.Loop) -> None:
        self.loop = loop
        self.asked = 0
        self.answered: set[bytes] = set()

    def ask(self) -> None:
        """Send the next question, if one is left."""
        if self.asked < QUESTIONS:
            self.transport.sendto(b"question %d" % self.asked)
            self.asked += 1

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Count the answer, and ask on."""
        self.answered.add(data)
        self.ask()
        if len(self.answered) == QUESTIONS:
            self.loop.stop()

    def error_received(self, exc: OSError) -> None:
        """The network says that nobody listens any more."""
        print(f"nobody there: {exc.strerror.rpartition(': ')[2]}")
        self.loop.stop()


def main() -> None:
    """Ask, close the server, and ask once more."""
    with evloop.Loop() as loop:
        server = evnet.bind_udp(loop, Echo, "127.0.0.1", 0)
        client = Client(loop)
        evnet.connect_udp(loop, lambda: client, *server.get_extra_info("sockname"))
        for _ in range(AT_ONCE):
            client.ask()
        loop.run()
        print(f"{client.asked} questions, {len(client.answered)} answers")

        server.close()
        loop.call_later(0, client.transport.sendto, b"still there?")
        loop.run()


main()
