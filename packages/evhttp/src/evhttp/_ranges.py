"""Byte ranges (RFC 9110 §14): which parts of a file a request gets. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["ByteRange", "RangeNotSatisfiable", "parse_ranges"]

# §17.15: "a server ought to ignore, coalesce, or reject egregious range requests, such as requests for more than two overlapping
# ranges or for many small ranges in a single set". Players and PDF viewers ask for a handful.
_MOST = 32

# §15.3.7.2: a server "MAY coalesce any of the ranges that overlap, or that are separated by a gap that is smaller than the overhead
# of sending multiple parts". The overhead of ours is about that.
_GAP = 128

_SPEC = re.compile(r"[ \t]*(?:(?P<first>[0-9]*)-(?P<last>[0-9]*))?[ \t]*(?:,|$)")
_HUGE = 1 << 63


class ByteRange(NamedTuple):
    """A part of a representation: ``start`` is its first byte, ``end`` the one behind its last."""

    start: int
    end: int

    def content_range(self, size: int) -> str:
        """The value of Content-Range (§14.4), of a representation of ``size`` bytes."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


class RangeNotSatisfiable(Exception):
    """Nothing of what is asked for is there: the answer is 416."""


def parse_ranges(values: Sequence[str], size: int) -> list[ByteRange] | None:
    """Read Range and cut it to what there is.

    Args:
        values: Every value of the field.
        size: Bytes of the representation.

    Returns:
        The parts, in the order asked for, none overlapping another or close to it: those are made one. ``None`` where the field is
        to be ignored, so that the whole is sent: there is none or more than one, another unit than bytes, a range that is no range,
        or more than 32 of them. §14.2: "A server MAY ignore the Range header field."

    Raises:
        RangeNotSatisfiable: None of the ranges begins within the representation.
    """
    if len(values) != 1:
        return None
    unit, equals, text = values[0].partition("=")
    if not equals or unit.lower() != "bytes":
        return None
    specs = _specs(text)
    if specs is None:
        return None
    parts = []
    for first, last in specs:
        if first is None:
            # §14.1.2: "If the selected representation is shorter than the specified suffix-length, the entire representation is
            # used."
            start, end = max(size - (last or 0), 0), size
        else:
            start, end = first, size if last is None else min(last + 1, size)
        if start < end:
            parts.append(ByteRange(start, end))
    if parts:
        return _coalesce(parts)
    # §14.1.2: a suffix range is satisfiable if its length is not zero. But of nothing no part can be named: the whole is sent.
    if size == 0 and any(first is None and last for first, last in specs):
        return None
    raise RangeNotSatisfiable


def _specs(text: str) -> list[tuple[int | None, int | None]] | None:
    """The ranges as they are written: first and last position, or no first and the suffix's length; ``None`` if one is none."""
    specs: list[tuple[int | None, int | None]] = []
    at = empty = 0
    while at < len(text):
        found = _SPEC.match(text, at)
        if found is None:
            return None
        at = found.end()
        if found["first"] is None:
            # RFC 9110 §5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list elements".
            empty += 1
        else:
            first, last = _number(found["first"]), _number(found["last"])
            # §14.1.1: "An int-range is invalid if the last-pos value is present and less than first-pos"; and a lone "-" is none.
            if (first is None and last is None) or (first is not None and last is not None and last < first):
                return None
            specs.append((first, last))
        if len(specs) > _MOST or empty > _MOST:
            return None
    return specs or None


def _number(digits: str) -> int | None:
    # Not int() of whatever length: beyond a file's greatest size all are alike.
    return (int(digits) if len(digits.lstrip("0")) < 19 else _HUGE) if digits else None


def _coalesce(parts: list[ByteRange]) -> list[ByteRange]:
    """Make one of those that overlap or nearly touch; each stands where the first of its parts stood (§15.3.7.2)."""
    if len(parts) == 1:
        return parts
    merged: list[tuple[int, ByteRange]] = []
    for start, end, place in sorted((part.start, part.end, place) for place, part in enumerate(parts)):
        if merged and start <= merged[-1][1].end + _GAP:
            before, (from_, to) = merged[-1]
            merged[-1] = (min(before, place), ByteRange(from_, max(to, end)))
        else:
            merged.append((place, ByteRange(start, end)))
    return [part for _, part in sorted(merged)]
