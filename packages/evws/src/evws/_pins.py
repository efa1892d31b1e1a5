"""Large messages that are sent from where they lie: kept alive until C says that they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from evloop import Loop, Record
from evloop import __version__ as evloop_version
from evws import _link as _link
from evws._shim import lib

if TYPE_CHECKING:
    from evws._client import Connecting

__all__ = ["Pins", "pins_of"]


class Pins:
    """What C borrows from one loop's Python, and the clients of the loop. Thread safety: loop thread only."""

    __slots__ = ("_kept", "_next", "_times", "clients", "target")

    def __init__(self, loop: Loop) -> None:
        result = lib.evws_open(loop.address)
        if result < 0:
            raise OSError(-result, f"cannot add WebSocket to a loop of evloop {evloop_version}")
        self._kept: dict[int, object] = {}
        self._times: dict[int, int] = {}  # how often C has still to let go, where that is more than once
        self.clients: set[Connecting] = (
            set()
        )  # that open WebSockets or will do so again; given up when the loop is closed
        self._next = 0
        self.target: int = loop.add_target(self._back)

    def keep(self, data: object, times: int = 1) -> int:
        """Keep an object alive until C has returned the number that it gets, so many times."""
        self._next += 1
        self._kept[self._next] = data
        if times > 1:
            self._times[self._next] = times
        return self._next

    def let_go(self, number: int, times: int) -> None:
        """Do not wait for C so many times, of those that `keep` was told of."""
        left = self._times.get(number, 1) - times
        if left > 0:
            self._times[number] = left
        else:
            del self._kept[number]
            self._times.pop(number, None)

    def _back(self, record: Record) -> None:
        number = record[1]
        if number in self._times:
            self.let_go(number, 1)
        else:
            del self._kept[number]

    def give_up(self) -> None:
        """The loop is being closed."""
        for client in list(self.clients):
            client.close()

    def __len__(self) -> int:
        return len(self._kept)


_pins: WeakKeyDictionary[Loop, Pins] = WeakKeyDictionary()


def pins_of(loop: Loop) -> Pins:
    """The pins of a loop; the first call makes the loop ready for WebSocket."""
    pins = _pins.get(loop)
    if pins is None:
        pins = _pins[loop] = Pins(loop)
        loop.on_close(pins.give_up)
    return pins
