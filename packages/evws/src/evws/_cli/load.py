"""``python -m evws --load``: many clients send, wait for the echo, and send again."""

from __future__ import annotations

import sys
import threading
from array import array
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from evws._clientele import Clientele
from evws._limits import Limits
from evws._socket import State, WebSocket

__all__ = ["Load", "latency_table", "run_load"]

_KEPT = 1 << 20  # latencies of each thread; later ones take the places of earlier ones


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be done.

    Attributes:
        url: Of a server that echoes.
        clients: How many.
        seconds: How long they send.
        size: Bytes of a message.
        threads: How many loops the clients are shared out to.
    """

    url: str
    clients: int
    seconds: float
    size: int
    threads: int


class _Tally(threading.local):
    """What one thread has counted."""

    def __init__(self, all_of_them: list[_Counts]) -> None:
        self.counts = _Counts()
        all_of_them.append(self.counts)


class _Counts:
    def __init__(self) -> None:
        self.answers = 0
        self.wrong = 0
        self.latencies = array("q")

    def add(self, nanoseconds: int) -> None:
        if self.answers < _KEPT:
            self.latencies.append(nanoseconds)
        else:
            self.latencies[self.answers % _KEPT] = nanoseconds
        self.answers += 1


class _Test:
    """One run."""

    def __init__(self, load: Load) -> None:
        self.counts: list[_Counts] = []
        self.failures: dict[str, int] = {}
        self.lost = 0
        self._message = b"x" * load.size
        self._tally = _Tally(self.counts)
        self._lock = threading.Lock()
        self.running = False
        self.ending = False

    def begin(self, crowd: Clientele) -> None:
        self.running = True
        for ws in crowd.clients:
            ws._loop.call_soon_threadsafe(self._send, ws)

    def _send(self, ws: WebSocket) -> None:
        if ws.state is State.OPEN:
            ws.context = perf_counter_ns()
            ws.send(self._message)

    def answered(self, ws: WebSocket, message: str | bytes) -> None:
        counts = self._tally.counts
        now = perf_counter_ns()
        if message != self._message or ws.context is None:
            counts.wrong += 1
            return
        counts.add(now - ws.context)
        if self.running:
            ws.context = now
            ws.send(self._message)
        else:
            ws.context = None

    def failed(self, error: Exception, delay: float | None) -> None:
        self._note(str(error))

    def broke(self, ws: WebSocket, error: Exception) -> None:
        self._note(str(error))

    def closed(self, ws: WebSocket, code: int, reason: str) -> None:
        if not self.ending:
            with self._lock:
                self.lost += 1

    def _note(self, text: str) -> None:
        with self._lock:
            if text in self.failures or len(self.failures) < 20:
                self.failures[text] = self.failures.get(text, 0) + 1

    @property
    def answers(self) -> int:
        return sum(counts.answers for counts in list(self.counts))


def run_load(load: Load, options: dict[str, Any]) -> int:
    """Connect, send for so many seconds, and print what came of it; returns the exit code."""
    test = _Test(load)
    bell = threading.Event()  # that nobody rings: to wait for time to pass, or for Ctrl-C
    with Clientele(
        threads=load.threads,
        on_message=test.answered,
        on_failure=test.failed,
        on_error=test.broke,
        on_close=test.closed,
        limits=Limits(max_message_size=max(load.size, 1)),
        **options,
    ) as crowd:
        opening = crowd.connect(load.url, load.clients)
        while not opening.done():
            bell.wait(0.1)
            _progress(f"{len(crowd)} of {load.clients} clients are connected")
        opened = opening.result()
        if not opened:
            _progress("")
            return _complain(test, "no client could connect")
        start = perf_counter_ns()
        test.begin(crowd)
        before = 0
        elapsed = 0.0
        while elapsed < load.seconds and len(crowd):
            bell.wait(min(0.5, load.seconds - elapsed))
            answers, last = test.answers, elapsed
            elapsed = (perf_counter_ns() - start) / 1e9
            rate = (answers - before) / max(elapsed - last, 1e-9)
            _progress(f"{elapsed:5.1f} s  {len(crowd)} clients  {answers} answers  {rate:,.0f}/s")
            before = answers
        test.running = False
        total, elapsed = test.answers, (perf_counter_ns() - start) / 1e9
        test.ending = True
    _progress("")
    latencies = sorted(nanoseconds for counts in test.counts for nanoseconds in counts.latencies)
    print(f"{opened} clients, {load.size} bytes, {elapsed:.1f} s: {total} answers, {total / elapsed:,.0f}/s")
    print(latency_table(latencies), end="", flush=True)
    wrong = sum(counts.wrong for counts in test.counts)
    if wrong or test.lost or opened < load.clients or not total:
        what = f"{load.clients - opened} could not connect, {test.lost} were lost, {wrong} answers were wrong"
        return _complain(test, what if total else f"no answers; {what}")
    return 0


def latency_table(nanoseconds: list[int]) -> str:
    """Percentiles of what is sorted already, one in a line."""
    if not nanoseconds:
        return ""
    rows = [("min", 0.0), ("50%", 0.5), ("90%", 0.9), ("99%", 0.99), ("99.9%", 0.999), ("max", 1.0)]
    last = len(nanoseconds) - 1
    return "".join(f"{name:>6} {nanoseconds[round(part * last)] / 1e6:10.3f} ms\n" for name, part in rows)


def _progress(line: str) -> None:
    """One line that is written over again and again; nothing where standard error is no terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def _complain(test: _Test, what: str) -> int:
    worst = max(test.failures, key=lambda text: test.failures[text], default="")
    print(f"evws: {what}{f' (mostly: {worst})' if worst else ''}", file=sys.stderr)
    return 1
