"""The order in which the addresses of a host are tried (RFC 8305 §4). No socket and no clock."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import TypeVar

__all__ = ["interleaved"]

Info = TypeVar("Info", bound=tuple[object, ...])


def interleaved(infos: Sequence[Info], first: int) -> list[Info]:
    """Put addresses in an order in which the families alternate, and each family keeps its own.

    Args:
        infos: As `socket.getaddrinfo` gives them; the first item of each is the family. Doubles are left out.
        first: RFC 8305 §8, First Address Family Count: how many of the family that comes first are tried before the others begin.
            0 leaves the order alone.
    """
    infos = list(dict.fromkeys(infos))
    if not first:
        return infos
    families: dict[object, list[Info]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    preferred = next(iter(families.values()), [])
    head = preferred[: first - 1]
    del preferred[: first - 1]
    # A family may be shorter than the others.
    rounds = chain.from_iterable(zip_longest(*families.values()))
    return head + [info for info in rounds if info is not None]
