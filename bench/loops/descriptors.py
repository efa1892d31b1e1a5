"""Workloads ``readiness`` and ``latency``."""

from __future__ import annotations

import collections
import functools
import gc
import socket
from collections.abc import Callable
from time import perf_counter, perf_counter_ns
from typing import Any

from adapters import Loop
from sections import Done, Figures, Options, Stopwatch, Wrong, drive, expect, quantiles

PAIRS = (100, 1_000, 9_000)  # of sockets; two descriptors each
LAP = 1_000  # events, or as many as there are pairs, between two looks at the clock
QUICK, SLOW, SLOW_NS = 1_024, 64, 200_000
Pair = tuple[socket.socket, socket.socket]


def make_pairs(number: int) -> list[Pair]:
    """Make pairs of sockets that do not block."""
    pairs = [socket.socketpair() for _ in range(number)]
    for pair in pairs:
        for each in pair:
            each.setblocking(False)
    return pairs


def _unwatch(loop: Loop, pairs: list[Pair]) -> None:
    for pair in pairs:
        for each in pair:
            loop.remove_reader(each.fileno())


class _Lap:
    """Counts events, and calls what ``drive`` wants called at the end of every lap."""

    def __init__(self, length: int) -> None:
        self.length = self.left = length
        self.then: Done = int

    def step(self, done: Done) -> int:
        self.then = done
        return self.length

    def end(self) -> None:
        self.left += self.length
        # Only once: events go on after the end of a section, and may come before the next one has begun.
        then, self.then = self.then, int
        then()


def _bounce(loop: Loop, options: Options, pairs: list[Pair]) -> Figures:
    """A byte on each pair: whoever has it reads it and sends it back, all pairs at the same time."""
    number = len(pairs)
    name = f"bounce{number}"
    lap = _Lap(max(number, LAP))
    sent = [0] * number
    waits: list[int] = []

    def bounce(recv: Callable[[int], bytes], send: Callable[[bytes], int]) -> None:
        send(recv(1))
        lap.left -= 1
        if not lap.left:
            lap.end()

    def timed(index: int, recv: Callable[[int], bytes], send: Callable[[bytes], int]) -> None:
        waits.append(perf_counter_ns() - sent[index])
        send(recv(1))
        sent[index] = perf_counter_ns()
        lap.left -= 1
        if not lap.left:
            lap.end()

    for pair in pairs:
        pair[0].send(b"x")
        for each in pair:
            loop.add_reader(each.fileno(), bounce, each.recv, each.send)
    figures, _ = drive(loop, name, options.seconds, lap.step)

    for index, pair in enumerate(pairs):
        for each in pair:
            loop.add_reader(each.fileno(), timed, index, each.recv, each.send)
    begun = perf_counter_ns()
    sent[:] = [begun] * number
    drive(loop, name, options.seconds / 2, lap.step)
    _unwatch(loop, pairs)
    expect(f"{name}: bytes in flight at the end", sum(_take(each) for pair in pairs for each in pair), number)
    expect(f"{name}: pairs whose byte did not move", sum(when == begun for when in sent), 0)
    return figures | quantiles(name, waits[number:])  # the first of each waited for nothing but the start


def _take(end: socket.socket) -> int:
    try:
        return len(end.recv(16))
    except BlockingIOError:
        return 0


def _read(loop: Loop, options: Options, pairs: list[Pair]) -> Figures:
    """Only read: bytes are written while the clocks stand still."""
    name = f"read{len(pairs)}"
    watch = Stopwatch()
    read = goal = 0
    end = 0.0

    def reader(recv: Callable[[int], bytes]) -> None:
        nonlocal read
        read += len(recv(1))
        if read == goal:
            watch.stop()
            loop.call_soon(again)

    def again() -> None:
        nonlocal goal
        if perf_counter() >= end:
            loop.stop()
            return
        goal += len(pairs)
        for left, _ in pairs:
            left.send(b"x")
        watch.start()

    for _, right in pairs:
        loop.add_reader(right.fileno(), reader, right.recv)
    for seconds in (options.seconds / 10, options.seconds / 2):  # the first time is to get warm
        read = goal = watch.wall = watch.cpu = 0
        end = perf_counter() + seconds
        loop.call_soon(again)
        loop.run()
    _unwatch(loop, pairs)
    expect(f"{name}: bytes left unread", sum(_take(right) for _, right in pairs), 0)
    expect(f"{name}: bytes read", read, goal)
    return watch.figures(name, read)


def _touch(loop: Loop, options: Options, pairs: list[Pair]) -> Figures:
    """Do nothing at all: the descriptors stay readable, every turn reports all of them. It is the loop's own cost."""
    name = f"touch{len(pairs)}"
    lap = _Lap(max(len(pairs), LAP))

    def touched() -> None:
        lap.left -= 1
        if not lap.left:
            lap.end()

    for left, right in pairs:
        left.send(b"x")
        loop.add_reader(right.fileno(), touched)
    figures, _ = drive(loop, name, options.seconds / 2, lap.step)
    _unwatch(loop, pairs)
    expect(f"{name}: bytes still there", sum(_take(right) for _, right in pairs), len(pairs))
    return figures


def readiness(loop: Loop, options: Options) -> Figures:
    """Events over few and many socket pairs."""
    figures: Figures = {}
    for full in PAIRS:
        number = options.size(full, least=3)
        pairs = make_pairs(number)
        for work in (_bounce, _read, _touch):
            found = work(loop, options, pairs)
            figures |= {key.replace(str(number), str(full)): value for key, value in found.items()}
        for pair in pairs:
            for each in pair:
                each.close()
    figures["kept"] = figures["bounce100_ns"] / figures["bounce9000_ns"]
    return figures


def latency(loop: Loop, options: Options) -> Figures:
    """Quick watchers around slow ones, all ready at once: how long the quick ones wait, and what for.

    The time that other handlers took is what explains a quick one's latency; the rest is the loop's.
    """
    quick, slow = options.size(QUICK, least=4), options.size(SLOW, least=2)
    pairs = make_pairs(quick + slow)
    first_slow, first_after = quick // 2, quick // 2 + slow
    waits: dict[str, list[int]] = {"before": [], "after": [], "explained": [], "own": []}
    rounds = ran = spent = written = 0
    end = 0.0

    def handle(place: str, recv: Callable[[int], bytes]) -> None:
        nonlocal ran, spent
        entered = perf_counter_ns()
        recv(1)
        if place == "slow":
            while perf_counter_ns() - entered < SLOW_NS:
                pass
        else:
            wait = entered - written
            waits[place].append(wait)
            waits["explained"].append(spent)
            waits["own"].append(wait - spent)
        ran += 1
        if ran == len(pairs):
            loop.call_soon(again)
        spent += perf_counter_ns() - entered

    def again() -> None:
        nonlocal rounds, ran, spent, written
        if perf_counter() >= end and rounds > 1:
            loop.stop()
            return
        rounds += 1
        ran = spent = 0
        for left, _ in pairs:
            left.send(b"x")
        written = perf_counter_ns()

    for index, (_, right) in enumerate(pairs):
        place = "before" if index < first_slow else "slow" if index < first_after else "after"
        loop.add_reader(right.fileno(), functools.partial(handle, place, right.recv))
    gc.collect()
    end = perf_counter() + options.seconds
    loop.call_soon(again)
    loop.run()
    expect("latency: quick handlers that ran", len(waits["own"]), rounds * quick)
    if min(waits["own"]) < 0:
        raise Wrong("latency: a handler ran before its byte was written")
    figures: Figures = {"rounds": rounds}
    for place, values in waits.items():
        figures |= quantiles(place, values)
    for _, right in pairs:
        loop.remove_reader(right.fileno())
    for pair in pairs:
        for each in pair:
            each.close()
    return figures | _answers(loop, options, quick, slow)


class _Answering:
    """A protocol of asyncio's that answers each byte by one; a slow one first takes its time."""

    def __init__(self, answered: Callable[[], None], before: Callable[[], None] | None) -> None:
        self._answered = answered
        self._before = before

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._before is not None:
            self._before()
            end = perf_counter_ns() + SLOW_NS
            while perf_counter_ns() < end:
                pass
        self._transport.write(b"y")
        self._answered()

    def eof_received(self) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        pass


def _answers(loop: Loop, options: Options, quick: int, slow: int) -> Figures:
    """Quick and slow ones again, as streams that answer: how long an answer that was given takes to reach its peer.

    The peers are looked at before each slow handler, and when all have answered: no finer than that are the times.
    """
    pairs = make_pairs(quick + slow)
    waiting: collections.deque[tuple[socket.socket, int]] = collections.deque()
    waits: list[int] = []
    rounds = given = 0
    end = 0.0

    def look() -> None:
        now = perf_counter_ns()
        while waiting and _take(waiting[0][0]):  # in the order in which they were given, so that looking costs little
            waits.append(now - waiting.popleft()[1])

    def again() -> None:
        nonlocal rounds, given
        look()
        if waiting:
            loop.call_soon(again)
            return
        if perf_counter() >= end and rounds > 1:
            loop.stop()
            return
        rounds += 1
        given = 0
        for left, _ in pairs:
            left.send(b"x")

    def answered(left: socket.socket) -> None:
        nonlocal given
        waiting.append((left, perf_counter_ns()))
        given += 1
        if given == len(pairs):
            loop.call_soon(again)

    def connect(index: int) -> None:
        left, right = pairs[index]
        before = look if 0 <= index - quick // 2 < slow else None
        loop.open_stream(right, lambda: _Answering(functools.partial(answered, left), before))

    for index in range(len(pairs)):
        connect(index)
    gc.collect()
    end = perf_counter() + options.seconds
    loop.call_soon(again)
    loop.run()
    expect("latency: answers", len(waits), rounds * len(pairs))
    return quantiles("answer", waits)
