"""What a dialing client counts, and the JSON lines that it tells the benchmark; they are those of the load clients."""

from __future__ import annotations

import json
import time


class Dialing:
    """Counts exchanges, in the measured time only."""

    def __init__(self, call_later, stop, warmup, seconds):
        self.requests = self.errors = 0
        self.first_error = ""
        self.stop = stop
        self.finished = False
        self.seconds = seconds
        self.call_later = call_later
        call_later(warmup, self.begin)

    def count(self, problem):
        """One exchange is over."""
        self.requests += 1
        if problem is not None:
            self.errors += 1
            self.first_error = self.first_error or str(problem)

    def begin(self):
        self.requests = 0
        self.started = time.monotonic()
        print(json.dumps({"event": "measuring"}), flush=True)
        self.call_later(self.seconds, self.end)

    def end(self):
        print(json.dumps({"event": "measured"}), flush=True)
        spent = time.monotonic() - self.started
        self.finished = True
        found = {"requests": self.requests, "seconds": spent, "rps": self.requests / spent}
        found |= {"errors": self.errors, "first_error": self.first_error}
        print(json.dumps(found), flush=True)
        self.stop()
