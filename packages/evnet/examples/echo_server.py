"""An echo server on a TCP port and on a unix socket, for any number of clients; it drains at SIGTERM and Ctrl-C.

    python echo_server.py [--host HOST] [--port PORT] [--path PATH]

Try ``nc 127.0.0.1 7777`` and ``nc -U echo.sock``. Started by systemd with sockets, it serves those:
``systemd-socket-activate -l 7777 python echo_server.py``.
"""

from __future__ import annotations

import argparse
import signal

import evloop
import evnet


class Echo:
    """Sends back what comes, no faster than the peer reads it."""

    def connection_made(self, transport: evnet.Connection) -> None:
        """Keep what answers are written to."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self.transport.write(data)

    def eof_received(self) -> bool:
        """Close when everything is sent."""
        return False

    def pause_writing(self) -> None:
        """Stop the peer until it has read."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say why, if it was not the peer's or our own wish."""
        if exc is not None:
            print("lost:", exc, flush=True)


def listen(loop: evloop.Loop, options: argparse.Namespace) -> list[evnet.Server]:
    """The sockets that the service manager has opened, or else those that are asked for."""
    inherited = evnet.listen_fds()
    if inherited:
        return [evnet.listen_socket(loop, Echo, [each.fd for each in inherited], max_connections=1000)]
    keep_alive = evnet.KeepAlive(idle=60)
    servers = [evnet.listen_tcp(loop, Echo, options.host, options.port, max_connections=1000, keep_alive=keep_alive)]
    if options.path:
        servers.append(evnet.listen_unix(loop, Echo, options.path, mode=0o600, max_connections=1000))
    return servers


def main() -> None:
    """Serve until told to stop, then for as long as there are clients, but at most five seconds."""
    parser = argparse.ArgumentParser(description="echo over TCP and a unix socket")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7777)
    parser.add_argument("--path")
    options = parser.parse_args()

    with evloop.Loop() as loop:
        servers = listen(loop, options)
        for server in servers:
            print("listening on", *server.addresses, *server.paths, flush=True)

        def drain() -> None:
            for server in servers:
                server.close()
                server.close_clients()
            loop.call_later(5, loop.stop)  # for those who do not read

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, drain)
        loop.run_until(lambda: not any(server.addresses or server.paths or server.connections for server in servers))
        for server in servers:
            print("served:", server.stats().accepted, flush=True)


if __name__ == "__main__":
    main()
