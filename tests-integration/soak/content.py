"""The bytes that both sides know: whatever is sent is a piece of one random text, so that each byte can be checked.

A piece is told by where it begins. A byte that is lost, doubled or from somebody else's answer makes a piece another one.
"""

from __future__ import annotations

import random

SIZE = 1 << 22
BLOB = random.Random(8).randbytes(SIZE)
LARGEST = SIZE // 2


def piece(seed: int, size: int) -> bytes:
    """Bytes for a seed."""
    begin = begin_of(seed)
    return BLOB[begin : begin + size]


def begin_of(seed: int) -> int:
    """Where in the text the bytes for a seed begin. A prime, so that neighbours are far from each other."""
    return seed * 1_000_003 % (SIZE - LARGEST)
