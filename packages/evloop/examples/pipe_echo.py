"""A pipe echo: what is written to one pipe comes back in capitals through another."""

import os

import evloop

LINES = [b"hello\n", b"from the other end\n", b"of two pipes\n"]


def main() -> None:
    """Echo three lines and end when both pipes have been closed."""
    to_echo, from_user = os.pipe()
    to_user, from_echo = os.pipe()
    for end in (to_echo, from_user, to_user, from_echo):
        os.set_blocking(end, False)
    lines = iter(LINES)

    with evloop.Loop() as loop:

        def echo(fd: int, ready: int) -> None:
            """Read until the pipe is empty, as an edge-triggered watcher must; an empty read is the end of the other side."""
            try:
                while data := os.read(fd, 4096):
                    os.write(from_echo, data.upper())
            except BlockingIOError:
                echoing.rearm()
                return
            echoing.close()
            os.close(fd)
            os.close(from_echo)

        def send() -> None:
            line = next(lines, None)
            if line is None:
                loop.remove_writer(from_user)
                os.close(from_user)
            else:
                os.write(from_user, line)

        def receive() -> None:
            data = os.read(to_user, 4096)
            if data:
                print(data.decode(), end="")
            else:
                loop.remove_reader(to_user)
                os.close(to_user)
                loop.stop()

        echoing = loop.watch(to_echo, evloop.READ, echo, edge=True)
        loop.add_writer(from_user, send)
        loop.add_reader(to_user, receive)
        loop.run()
        print("the echo has ended:", echoing.closed)


main()
