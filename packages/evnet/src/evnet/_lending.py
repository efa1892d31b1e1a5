"""Objects that C borrows from Python: large bytes that are sent from where they lie, and files.

Each is kept until a record says what has become of it, which comes in every case: sent, or given up with its connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from evnet._errors import ConnectionClosedError
from evnet._shim import ffi

if TYPE_CHECKING:
    from evloop import Loop, Record

__all__ = ["Lender", "Sent", "address_of", "lender_of"]

Sent = Callable[[Exception | None], object]

_lenders: WeakKeyDictionary[Loop, Lender] = WeakKeyDictionary()


class Lender:
    """What one loop's connections have lent, by number. It knows no loop, so that it lives no longer than its own."""

    __slots__ = ("_lent", "_next", "target")

    def __init__(self, loop: Loop) -> None:
        self._lent: dict[int, bytes | Sent | None] = {}
        self._next = 0
        self.target = loop.add_target(self._back)

    def lend(self, what: bytes | Sent | None) -> int:
        """Keep bytes alive, or a function that is called with ``None`` or an exception; returns its number."""
        self._next += 1
        self._lent[self._next] = what
        return self._next

    def __len__(self) -> int:
        return len(self._lent)

    def _back(self, record: Record) -> None:
        _, number, whole, _ = record
        what = self._lent.pop(number)
        if what is not None and what.__class__ is not bytes:
            what(None if whole else ConnectionClosedError("the connection ended before the whole file was sent"))  # type: ignore[operator]


def lender_of(loop: Loop) -> Lender:
    """The one of this loop."""
    lender = _lenders.get(loop)
    if lender is None:
        lender = _lenders[loop] = Lender(loop)
    return lender


def address_of(data: bytes) -> int:
    """Where the bytes lie, for as long as the object lives."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(data)))
