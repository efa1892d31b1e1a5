"""A loop inside a running asyncio or uvloop loop."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from evloop import READ, WRITE, Loop, LoopClosedError, LoopRunningError
from evloop.testing import backends, checked_loop

ATTACHABLE = [name for name in backends() if name != "poll"]
PATIENCE = 30.0


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine in a new host loop."""
    if request.param == "asyncio":
        return asyncio.run
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        pytest.skip("uvloop is not installed")

    warmed_up = uvloop.new_event_loop()  # what the first one leaves open for ever is not a leak of ours
    warmed_up.run_until_complete(asyncio.sleep(0))
    warmed_up.close()

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)

    return run


@pytest.fixture(params=ATTACHABLE)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    with checked_loop(request.param) as loop:
        yield loop


async def until(condition: Callable[[], object]) -> None:
    """Let the host run until the condition is true."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.001)


Run = Callable[[Coroutine[Any, Any, None]], None]


def test_timers(run: Run, loop: Loop) -> None:
    fired: list[str] = []

    async def main() -> None:
        loop.call_later(0.001, fired.append, "before")
        with_attachment = loop.attach(asyncio.get_running_loop())
        late = loop.time() + 0.02
        loop.call_at(late, lambda: fired.append("in time" if loop.time() >= late else "early"))
        cancelled = loop.call_later(0.005, fired.append, "cancelled")
        cancelled.cancel()
        every = loop.call_every(0.002, fired.append, "every")
        await until(lambda: "in time" in fired and fired.count("every") >= 2)
        every.cancel()
        sooner = loop.call_later(1000, fired.append, "sooner")
        await asyncio.sleep(0.005)
        sooner.reschedule(0)
        await until(lambda: "sooner" in fired)
        with_attachment.close()

    run(main())
    assert fired[0] == "before"
    assert not {"cancelled", "early"} & set(fired)


def test_callbacks_and_idle(run: Run, loop: Loop) -> None:
    order: list[str] = []

    async def main() -> None:
        attachment = loop.attach(asyncio.get_running_loop())

        def soon() -> None:
            order.append("soon")
            loop.call_soon(order.append, "nested")

        loop.call_soon(soon)
        loop.defer(order.append, "deferred")
        await until(lambda: len(order) == 3)
        idle = loop.on_idle(order.append, "idle")
        await until(lambda: order.count("idle") > 3)
        idle.cancel()
        seen: list[int] = []
        value = 1
        loop.observe(lambda: value, lambda new, old: seen.append(new))
        value = 2
        loop.call_soon(int)
        await until(lambda: seen)
        attachment.close()

    run(main())
    assert order[:3] == ["soon", "deferred", "nested"]


def test_posts_from_other_threads(run: Run, loop: Loop) -> None:
    """The host sleeps: each post has to wake it."""
    got: list[int] = []

    async def main() -> None:
        attachment = loop.attach(asyncio.get_running_loop())
        done = asyncio.Event()
        taken = threading.Semaphore(0)

        def take(number: int) -> None:
            got.append(number)
            taken.release()

        def post() -> None:
            for number in range(200):
                loop.call_soon_threadsafe(take, number)
                if number % 2:
                    assert taken.acquire(timeout=PATIENCE)
                    assert taken.acquire(timeout=PATIENCE)
            loop.call_soon_threadsafe(done.set)

        thread = threading.Thread(target=post)
        thread.start()
        await asyncio.wait_for(done.wait(), PATIENCE)
        thread.join()
        attachment.close()

    run(main())
    assert got == list(range(200))


def test_watchers(run: Run, loop: Loop) -> None:
    async def main() -> None:
        attachment = loop.attach(asyncio.get_running_loop())
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            got: list[bytes] = []
            loop.add_reader(ours.fileno(), lambda: got.append(ours.recv(1)))
            theirs.send(b"abc")
            await until(lambda: len(got) == 3)
            written: list[int] = []

            def writable() -> None:
                written.append(1)
                loop.remove_writer(ours.fileno())

            loop.add_writer(ours.fileno(), writable)
            await until(lambda: written)
            # Two loops, one thread: each wakes the other.
            host = asyncio.get_running_loop()
            bounced: list[int] = []

            def bounce() -> None:
                bounced.append(1)
                if len(bounced) < 50:
                    host.call_soon(loop.call_soon, bounce)

            loop.call_soon(bounce)
            await until(lambda: len(bounced) == 50)
            loop.remove_reader(ours.fileno())
        attachment.close()

    run(main())


@pytest.mark.parametrize("way", ["append", "extend", "+="])
def test_what_is_submitted_outside_a_turn_leaves_although_nothing_else_happens(run: Run, loop: Loop, way: str) -> None:
    """As the layers above do it, from callbacks of the host: by whatever way the list grows."""

    async def main() -> None:
        attachment = loop.attach(asyncio.get_running_loop())
        turns = -1
        while turns != loop.stats().turns:  # nothing is under way any more
            turns = loop.stats().turns
            await asyncio.sleep(0.001)
        nothing = bytes(16)  # the header of an operation that there is none of
        if way == "append":
            loop.submissions.append(nothing)
        elif way == "extend":
            loop.submissions.extend((nothing[:8], nothing[8:]))
        else:
            loop.submissions += [nothing]
        await until(lambda: not loop.submissions)
        attachment.close()
        assert type(loop.submissions) is list

    run(main())


@pytest.mark.parametrize("edge", [False, True], ids=["level", "edge"])
def test_more_events_than_one_turn_takes(run: Run, loop: Loop, edge: bool) -> None:
    """The kernel has handed over all of them; it does not report those again that wait for the next turn."""
    pipes = [os.pipe() for _ in range(300)]
    called: set[int] = set()

    def read(fd: int, ready: int) -> None:
        os.read(fd, 1)
        called.add(fd)

    async def main() -> None:
        attachment = loop.attach(asyncio.get_running_loop())
        for _ in range(3):
            watchers = []
            for r, w in pipes:
                watchers.append(loop.watch(r, READ, read, edge=edge))
                os.write(w, b"x")
            await until(lambda: len(called) == len(pipes))
            for watcher in watchers:
                watcher.close()
            called.clear()
        attachment.close()

    run(main())
    for ends in pipes:
        for end in ends:
            os.close(end)


def test_close_from_a_callback(run: Run, loop: Loop) -> None:
    ran: list[str] = []

    async def main() -> None:
        attachment = loop.attach(asyncio.get_running_loop())

        def close() -> None:
            attachment.close()
            attachment.close()
            loop.call_soon(ran.append, "alone")
            loop.call_later(0.05, ran.append, "timer")  # not in the turn that goes on here

        loop.call_soon(close)
        await until(lambda: attachment.closed)
        await asyncio.sleep(0.06)

    run(main())
    assert ran == []
    loop.call_later(0.002, loop.stop)
    loop.run()  # it is itself again
    assert sorted(ran) == ["alone", "timer"]


def test_the_loop_s_end_is_the_attachment_s(run: Run, loop: Loop) -> None:
    async def main() -> None:
        attachment = loop.attach(asyncio.get_running_loop())
        loop.call_later(0.001, int)
        with pytest.raises(LoopRunningError, match="attached already"):
            loop.attach(asyncio.get_running_loop())
        await asyncio.sleep(0)
        loop.close()
        assert attachment.closed
        attachment.close()
        await asyncio.sleep(0.005)
        with pytest.raises(LoopClosedError):
            loop.attach(asyncio.get_running_loop())

    run(main())


def test_the_host_s_end(run: Run, loop: Loop) -> None:
    """A host that was closed before the attachment: nothing is left to be taken out of it."""
    attachments = []

    async def main() -> None:
        attachments.append(loop.attach(asyncio.get_running_loop()))
        loop.call_later(1000, int)
        await asyncio.sleep(0.001)

    run(main())
    attachments[0].close()
    loop.call_soon(loop.stop)
    loop.run()


def test_a_host_that_is_closed_is_refused(loop: Loop) -> None:
    host = asyncio.new_event_loop()
    host.close()
    with pytest.raises(RuntimeError):
        loop.attach(host)
    ran: list[int] = []
    loop.call_soon(ran.append, 1)  # no trace of the attempt is left
    loop.call_later(0, loop.stop)
    loop.run()
    assert ran == [1]

    async def main() -> None:
        loop.attach(asyncio.get_running_loop()).close()

    asyncio.run(main())


def test_one_host_after_another(run: Run, loop: Loop) -> None:
    fired: list[int] = []

    async def main(number: int) -> None:
        attachment = loop.attach(asyncio.get_running_loop())
        loop.call_later(0.001, fired.append, number)
        await until(lambda: number in fired)
        attachment.close()

    for number in range(3):
        run(main(number))
    assert fired == [0, 1, 2]


def test_exceptions_go_to_our_exception_handler(run: Run, loop: Loop) -> None:
    reports: list[str] = []
    loop.set_exception_handler(lambda _, context: reports.append(str(context["exception"])))

    async def main() -> None:
        attachment = loop.attach(asyncio.get_running_loop())
        nothing: dict[str, int] = {}
        loop.call_soon(nothing.__getitem__, "soon")
        loop.call_later(0, nothing.__getitem__, "timer")
        await until(lambda: len(reports) == 2)
        attachment.close()

    run(main())
    assert reports == ["'soon'", "'timer'"]


def test_an_interrupt_leaves_the_attachment_working(loop: Loop, pipe: tuple[int, int]) -> None:
    """Ctrl-C ends the host's run; the host can be run again, and so can what is attached to it."""
    host = asyncio.new_event_loop()
    ran: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        await until(lambda: ran == ["of the same batch"])
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(ran.append, "posted"))
        thread.start()  # the host sleeps: it has to be woken
        thread.join()
        await until(lambda: len(ran) == 2)
        loop.watch(pipe[1], WRITE, lambda fd, ready: ran.append("watched"))
        await until(lambda: len(ran) >= 3)

    loop.attach(host)
    loop.call_at(0, interrupt)
    loop.call_at(0, ran.append, "of the same batch")
    with pytest.raises(KeyboardInterrupt):
        host.run_forever()
    host.run_until_complete(main())
    assert ran[:3] == ["of the same batch", "posted", "watched"]
    loop.close()
    host.close()


def test_poll_has_no_descriptor_to_watch() -> None:
    async def main() -> None:
        with checked_loop("poll") as loop:
            with pytest.raises(NotImplementedError, match="backend poll has no descriptor"):
                loop.attach(asyncio.get_running_loop())
            loop.call_later(0, loop.stop)
            loop.run()

    asyncio.run(main())
