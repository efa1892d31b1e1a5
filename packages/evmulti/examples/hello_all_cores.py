"""Hello from each core: `python hello_all_cores.py [port]`. With --selftest it asks itself, and ends."""

import http.client
import os
import sys
from collections import Counter

import evmulti


def hello(req, res):
    """Say which process answers."""
    res.send(f"hello from process {os.getpid()}\n")


if __name__ == "__main__":
    if "--selftest" not in sys.argv:
        evmulti.MultiServer(hello, metrics_path="/metrics").listen(
            "127.0.0.1", int((sys.argv[1:] or ["8080"])[0])
        ).run()
        sys.exit()
    answers: Counter[str] = Counter()
    with evmulti.MultiServer(hello, workers=2, mode="process").listen("127.0.0.1", 0) as server:
        for _ in range(100):
            client = http.client.HTTPConnection(*server.addresses[0])
            client.request("GET", "/")
            answers[client.getresponse().read().decode()] += 1
            client.close()
    print(f"{sum(answers.values())} answers from {len(answers)} processes")
