"""Takes what C has to say of all connections of a loop, one record a turn, and tells each its part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from operator import length_hint
from struct import Struct
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from evnet import _link as _link
from evnet._shim import lib

if TYPE_CHECKING:
    from evloop import Loop, Record
    from evnet._connection import Connection

__all__ = ["Inbox", "inbox_of"]

_EVENT = Struct("=Iii")  # struct evnet_event in shim.h
_CLOSED = -1


class Inbox:
    """The connections of a loop, by number.

    What is received goes to a protocol's ``data_received`` straight from here, because a frame of Python in between costs half as
    much as a protocol that echoes. Only where there is more to it is a connection asked: see `Connection._redirect`.
    """

    __slots__ = ("__weakref__", "_free", "connections", "loop", "protocols")

    def __init__(self, loop: Loop) -> None:
        self.loop: Loop = loop
        # By number; 0 is nobody's. The protocol whose data_received gets what was received, or None: the connection's `_unusual`.
        self.protocols: list[Any] = [None]
        self.connections: list[Any] = [None]  # a Connection, or what has taken its place
        self._free: list[int] = []
        result = lib.evnet_events(loop.address, loop.add_target(self._arrived))
        if result < 0:
            raise OSError(-result, f"cannot serve connections on this loop: {os.strerror(-result)}")

    def add(self, connection: Connection) -> int:
        """Give a number to a connection."""
        if self._free:
            number = self._free.pop()
            self.connections[number] = connection
            return number
        self.connections.append(connection)
        self.protocols.append(None)
        return len(self.protocols) - 1

    def remove(self, number: int) -> None:
        """Take the number back; no event follows the one that says that a connection has ended."""
        self.connections[number] = self.protocols[number] = None
        self._free.append(number)

    def _arrived(self, record: Record) -> None:
        _, offset, count, _ = record
        self._go_on(_EVENT.iter_unpack(self.loop.arena_view[offset : offset + count * _EVENT.size]))

    def _go_on(self, events: Iterator[tuple[int, int, int]]) -> None:
        try:
            while length_hint(events):
                self._deliver(events)
        except BaseException:
            # An interrupt: the others come before the next turn, which the bytes in the arena do not outlive.
            self.loop.defer(self._go_on, events)
            raise

    def _deliver(self, events: Iterator[tuple[int, int, int]]) -> None:
        """Give out events until one brings an exception, and flush whenever those before have taken long (`Loop.pace`)."""
        loop, protocols = self.loop, self.protocols
        left = loop.begin_pace()
        number = b = 0
        try:
            for number, a, b in events:
                if b <= 0:
                    self.connections[number]._notice(a, b)  # C knows only numbers that are in use
                elif (protocol := protocols[number]) is not None:
                    protocol.data_received(loop.arena_view[a:b])
                else:
                    self.connections[number]._unusual(a, b)
                left -= 1
                if not left:
                    left = loop.keep_pace()
        except Exception as error:
            self._failed(number, b, error)
            loop.keep_pace()

    def _failed(self, number: int, b: int, error: Exception) -> None:
        connection = self.connections[number] if b != _CLOSED else None  # that number may be another's by now
        context: dict[str, Any] = {"message": "exception in a protocol's connection_lost", "exception": error}
        if connection is not None:
            if b > 0:
                connection.abort()  # as in asyncio: bytes are lost, so the protocol cannot go on
            protocol = connection.get_protocol()
            context["message"] = f"exception in {type(protocol).__qualname__}"
            context.update(transport=connection, protocol=protocol)
        self.loop.call_exception_handler(context)


# The loop keeps its inbox, as the target of a record; this must not keep the loop.
_inboxes: WeakKeyDictionary[Loop, ref[Inbox]] = WeakKeyDictionary()


def inbox_of(loop: Loop) -> Inbox:
    """The one of this loop."""
    known = _inboxes.get(loop)
    inbox = known() if known is not None else None
    if inbox is None:
        inbox = Inbox(loop)
        _inboxes[loop] = ref(inbox)
    return inbox
