"""Random use of descriptors against a plain model, on each backend.

The model knows for each open descriptor what would be read from it and whether something watches it; after every turn the
callbacks that ran must be those that the model expects, each with the right directions, and for the watcher that stands there now.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from evloop import READ, WRITE, Loop, Watcher
from evloop.testing import backends, open_descriptors

BOTH = READ | WRITE
EVENTS = st.sampled_from([READ, WRITE, BOTH])


@dataclass
class Channel:
    """One end of a socket pair; descriptors are copies of it."""

    end: socket.socket
    peer: socket.socket
    unread: int = 0
    hung_up: bool = False
    copies: set[int] = field(default_factory=set)

    def ready(self) -> int:
        return WRITE | (READ if self.unread or self.hung_up else 0)


@dataclass(eq=False)
class Watched:
    """A watcher, and what the model thinks of it."""

    channel: Channel
    fd: int
    events: int
    edge: bool
    watcher: Watcher | None = None
    # Edge-triggered: what has been reported and has not changed since. None: nothing yet, so that all of it is news.
    told: int = 0
    calls: list[int] = field(default_factory=list)
    on_call: str = ""  # what its callback does to others
    victims: list[Watched] = field(default_factory=list)


class Descriptors(RuleBasedStateMachine):
    """Open, dup, close, watch, modify, close watchers, write, drain, hang up; and turn."""

    backend = ""
    channels = Bundle("channels")
    descriptors = Bundle("descriptors")

    def __init__(self) -> None:
        super().__init__()
        self.before = open_descriptors()
        self.loop = Loop(backend=self.backend)
        self.errors: list[dict[str, object]] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.open: dict[int, Channel] = {}
        self.all_channels: list[Channel] = []
        self.watched: dict[int, Watched] = {}
        self.retired: list[Watched] = []

    # -- descriptors -----------------------------------------------------------------------------------------------------------

    @rule(target=channels)
    def open_pair(self) -> Channel:
        end, peer = socket.socketpair()
        end.setblocking(False)
        peer.setblocking(False)
        channel = Channel(end, peer)
        self.all_channels.append(channel)
        return channel

    @rule(target=descriptors, channel=channels)
    def dup(self, channel: Channel) -> int:
        fd = os.dup(channel.end.fileno())
        assert fd not in self.open
        self.open[fd] = channel
        channel.copies.add(fd)
        return fd

    @rule(fd=consumes(descriptors))
    def close_descriptor(self, fd: int) -> None:
        """Its watcher goes first, as it must; its number is free for the next one."""
        if fd in self.watched:
            self.close_watcher(fd)
        self.open.pop(fd).copies.discard(fd)
        os.close(fd)

    @rule(channel=channels, size=st.integers(1, 20))
    def write(self, channel: Channel, size: int) -> None:
        if not channel.hung_up:
            channel.peer.send(bytes(size))
            channel.unread += size
            self.news(channel, READ)

    @rule(channel=channels)
    def drain(self, channel: Channel) -> None:
        try:
            while channel.end.recv(1000):
                pass
        except BlockingIOError:
            pass
        channel.unread = 0
        for one in self.watched.values():
            if one.channel is channel and one.edge:
                assert one.watcher is not None
                if not channel.hung_up:
                    one.told &= ~READ
                    one.watcher.rearm()
                    one.told &= ~WRITE if self.backend == "poll" else ~0

    @rule(channel=channels)
    def hang_up(self, channel: Channel) -> None:
        if not channel.hung_up:
            channel.peer.close()
            channel.hung_up = True
            self.news(channel, BOTH)

    def news(self, channel: Channel, direction: int) -> None:
        """An arrival is a new edge, also when the last one was not looked after (where the kernel makes the edges)."""
        for one in self.watched.values():
            if one.channel is channel and self.backend != "poll":
                one.told &= ~direction

    # -- watchers --------------------------------------------------------------------------------------------------------------

    @rule(fd=descriptors, events=EVENTS, edge=st.booleans())
    def watch(self, fd: int, events: int, edge: bool) -> None:
        if fd in self.watched:
            with pytest.raises(FileExistsError):
                self.loop.watch(fd, events, print)
            return
        one = Watched(self.open[fd], fd, events, edge)

        def called(number: int, ready: int) -> None:
            assert number == fd
            assert self.watched.get(fd) is one, "the callback of a watcher that was closed"
            one.calls.append(ready)
            if one.on_call:
                action, one.on_call = one.on_call, ""
                self.act(action, one)

        one.watcher = self.loop.watch(fd, events, called, edge=edge)
        self.watched[fd] = one

    def act(self, action: str, caller: Watched) -> None:
        """What a callback does, to itself and to all others, in the middle of a batch."""
        for one in list(self.watched.values()):
            if one is caller and action != "close all":
                continue
            fd, channel, edge, events = one.fd, one.channel, one.edge, one.events
            self.close_watcher(fd)
            if action == "replace all":  # the same numbers, another description, no event of it
                end, peer = socket.socketpair()  # before the number is free, or it would be theirs
                end.setblocking(False)
                os.close(fd)
                channel.copies.discard(fd)
                fresh = Channel(end, peer)
                self.all_channels.append(fresh)
                os.dup2(end.fileno(), fd)
                self.open[fd] = fresh
                fresh.copies.add(fd)
                self.watch(fd, READ, edge)
            elif action == "watch again":
                self.watch(fd, events, edge)

    @rule(fd=descriptors, action=st.sampled_from(["close all", "close others", "replace all", "watch again"]))
    def plan(self, fd: int, action: str) -> None:
        """The next call of this watcher's callback does something to the others."""
        if fd in self.watched:
            self.watched[fd].on_call = action

    @rule(fd=descriptors, events=EVENTS)
    def modify(self, fd: int, events: int) -> None:
        one = self.watched.get(fd)
        if one is not None:
            assert one.watcher is not None
            one.watcher.modify(events)
            one.told &= ~(events & ~one.events)  # a direction that is new is told anew
            one.events = events

    @rule(fd=descriptors)
    def close_watcher(self, fd: int) -> None:
        one = self.watched.pop(fd, None)
        if one is not None:
            assert one.watcher is not None
            one.watcher.close()
            one.watcher.close()
            assert one.watcher.closed
            self.retired.append(one)

    # -- turns -----------------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.watched)
    @rule()
    def turn(self) -> None:
        planned = any(one.on_call for one in self.watched.values())
        expected = {
            one: one.channel.ready() & one.events & ~(one.told if one.edge else 0) for one in self.watched.values()
        }
        for one in self.watched.values():
            one.calls.clear()
        self.loop.run_once(0)
        assert not self.errors, self.errors
        assert any(one.calls for one in expected) or not any(expected.values())
        for one, ready in expected.items():
            if planned:  # somebody may have been closed before its turn came, but nobody is called for nothing
                assert len(one.calls) <= 1
                one.told = BOTH if one.edge and one.calls else one.told
                continue
            if not one.edge:
                assert one.calls == ([ready] if ready else []), one
            elif ready:
                # With an edge the kernel may tell again what it has told before.
                assert len(one.calls) == 1, one
                assert one.calls[0] & ready == ready, one
                assert not one.calls[0] & ~(one.channel.ready() & one.events), one
            if one.edge and one.calls:
                one.told |= one.calls[0]

    @invariant()
    def counts_agree(self) -> None:
        assert self.loop.stats().watchers == len(self.watched)
        assert all(one.watcher is not None and not one.watcher.closed for one in self.watched.values())

    def teardown(self) -> None:
        for fd in list(self.watched):
            self.close_watcher(fd)
        self.loop.close()
        for fd in self.open:
            os.close(fd)
        for channel in self.all_channels:
            channel.end.close()
            channel.peer.close()
        assert not self.errors
        assert open_descriptors() == self.before


@pytest.mark.parametrize("backend", backends())
def test_random_use_of_descriptors(backend: str) -> None:
    machine = type("Descriptors", (Descriptors,), {"backend": backend})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
