"""A message for each of several channels, to all who have subscribed to it: `python multicast.py [clients]`.

A publisher in a thread of its own sends; the clients are a clientele in other threads. It tells how many messages came, and ends.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter

import evws

CHANNELS = ("news", "weather", "sport")
MESSAGES = 20


def main() -> None:
    """Serve the channels, with a crowd of subscribers."""
    count = int(sys.argv[1]) if sys.argv[1:] else 300
    groups = {name: evws.Group() for name in CHANNELS}

    def subscribe(ws: evws.WebSocket, channel: str) -> None:
        groups[channel].add(ws)
        ws.send(f"subscribed to {channel}")

    server = evws.Server(on_message=subscribe, limits=evws.Limits(max_message_size=100)).listen("127.0.0.1", 0)

    def publish() -> None:
        came: Counter[str] = Counter()
        lock = threading.Lock()
        all_subscribed, all_there = threading.Event(), threading.Event()

        def choose(ws: evws.WebSocket) -> None:
            with lock:
                ws.send(CHANNELS[came["opened"] % len(CHANNELS)])
                came["opened"] += 1

        def note(ws: evws.WebSocket, message: str) -> None:
            with lock:
                came[message.split()[0]] += 1
                if came["subscribed"] == count:
                    all_subscribed.set()
                if sum(came[name] for name in CHANNELS) == count * MESSAGES:
                    all_there.set()

        with evws.Clientele(threads=2, on_open=choose, on_message=note) as crowd:
            crowd.connect("ws://{}:{}/".format(*server.addresses[0]), count).result(30)
            all_subscribed.wait(30)
            for number in range(MESSAGES):
                for name, group in groups.items():
                    group.send(f"{name} number {number}", timeout=5)
            all_there.wait(30)
        for name in CHANNELS:
            print(f"{name}: {came[name]} messages came to {came[name] // MESSAGES} subscribers")
        server.loop.call_soon_threadsafe(server.close)
        server.loop.stop()

    thread = threading.Thread(target=publish)
    server.loop.call_soon(thread.start)
    server.run()
    thread.join()


if __name__ == "__main__":
    main()
