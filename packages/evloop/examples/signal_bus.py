"""A signal bus: parts of a program that do not know each other, and the signals of the system, meet at a `SignalRelay`."""

import os
import signal

import evloop

with evloop.Loop() as loop:
    relay = evloop.SignalRelay(loop)

    def count(name: str) -> None:
        """A listener that hears everything that is said about orders."""
        print("counted:", name)

    def greet_first(name: str) -> None:
        """A listener that goes when it has heard enough; those after it are called all the same."""
        print("first order:", name)
        relay.unlisten("order", greet_first)

    relay.listen("order", greet_first)
    relay.listen("order", count)
    relay.listen_once("quit", loop.stop)

    # A signal of the system is one more source.
    loop.add_signal_handler(signal.SIGUSR1, relay.emit, "order", "from SIGUSR1")
    loop.call_soon(relay.emit, "order", "tea")
    loop.call_later(0.01, os.kill, os.getpid(), signal.SIGUSR1)
    loop.call_later(0.05, relay.emit, "quit")
    loop.run()
    print("listeners to quit:", relay.emit("quit"))
