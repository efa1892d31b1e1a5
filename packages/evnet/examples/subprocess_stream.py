"""The output of a subprocess comes through one stream, what it reads goes through another."""

import subprocess
import sys

import evloop
import evnet

SCRIPT = """
import sys
for line in sys.stdin:
    print(line.strip()[::-1], flush=True)
"""


class Lines:
    """Print each line, and stop at the end."""

    def connection_made(self, transport: evnet.Connection) -> None:
        """The stream is open."""
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        """Print what is complete."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            print("from the subprocess:", line.decode())

    def eof_received(self) -> None:
        """It has closed its output."""
        loop.stop()

    def connection_lost(self, error: Exception | None) -> None:
        """There is nothing to release."""


class Feeder:
    """Write some lines, and close."""

    def connection_made(self, transport: evnet.Connection) -> None:
        """Everything at once: what the pipe does not hold waits in the queue."""
        transport.writelines([b"stressed\n", b"drawer\n", b"a stream\n"])
        transport.write_eof()

    def pause_writing(self) -> None:
        """A longer text would be written in pieces, and wait here."""

    def resume_writing(self) -> None:
        """And go on here."""

    def connection_lost(self, error: Exception | None) -> None:
        """The subprocess has it all, unless there is an error."""
        if error is not None:
            print("the subprocess does not read:", error)


with evloop.Loop() as loop:
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        evnet.open_stream(loop, process.stdout, Lines)
        evnet.open_stream(loop, process.stdin, Feeder)
        loop.run()
    print("it ended with", process.returncode)
