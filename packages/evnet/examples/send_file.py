"""A file goes to a peer by sendfile, between a head and a tail, without passing through Python."""

import hashlib
import socket
import sys
import tempfile
import threading

import evloop
import evnet

CONTENT = bytes(range(256)) * 40_000


class Download:
    """Send the file to whoever connects, and close."""

    def connection_made(self, transport: evnet.Connection) -> None:
        """Queue everything; it is sent in this order, as fast as the peer reads."""
        with tempfile.TemporaryFile() as file:
            file.write(CONTENT)
            file.flush()
            transport.write(b"head\n")
            transport.send_file(file, sent=lambda error: print("the file was sent" if error is None else error))
            transport.write(b"\ntail")
        transport.close()

    def data_received(self, data: bytes) -> None:
        """Nobody asks for anything."""

    def eof_received(self) -> None:
        """The peer may close its side first."""

    def pause_writing(self) -> None:
        """Nothing more is written in any case."""

    def resume_writing(self) -> None:
        """The same."""

    def connection_lost(self, error: Exception | None) -> None:
        """One client is enough."""
        loop.stop()


def fetch(address: tuple[str, int], into: list[bytes]) -> None:
    """Read to the end, in a thread: this client blocks."""
    with socket.create_connection(address) as client:
        while data := client.recv(1 << 20):
            into.append(data)


with evloop.Loop() as loop:
    server = evnet.listen_tcp(loop, Download, "127.0.0.1", 0)
    pieces: list[bytes] = []
    client = threading.Thread(target=fetch, args=(server.addresses[0], pieces))
    client.start()
    loop.run()
    server.close()
    client.join()

got = b"".join(pieces)
print(f"{len(got)} bytes came, {hashlib.sha256(got).hexdigest()[:16]}")
sys.exit(got != b"head\n" + CONTENT + b"\ntail")
