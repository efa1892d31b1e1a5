"""Entity tags and conditional requests (RFC 9110 §8.8.3, §13): what a request wants to be true, and whether it is. No I/O."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, Protocol

from evhttp._dates import parse_date

__all__ = ["ETag", "Validators", "parse_etags", "precondition", "range_applies"]


class ETag(NamedTuple):
    """An entity tag: ``"opaque"``, or ``W/"opaque"`` when it tells apart only what differs in meaning.

    Attributes:
        opaque: What stands between the quotes.
        weak: Whether representations with this tag may differ in their bytes.
    """

    opaque: str
    weak: bool = False

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.opaque}"'

    def matches_strongly(self, other: ETag) -> bool:
        """RFC 9110 §8.8.3.2: equivalent "if both are not weak and their opaque-tags match character-by-character"."""
        return not self.weak and not other.weak and self.opaque == other.opaque

    def matches_weakly(self, other: ETag) -> bool:
        """RFC 9110 §8.8.3.2: equivalent if the opaque-tags match, "regardless of either or both being tagged as weak"."""
        return self.opaque == other.opaque


class Validators(NamedTuple):
    """What is known of the representation that a request selects.

    Attributes:
        etag: Its entity tag, if it has one.
        modified: When it was last changed, in whole seconds since the epoch, if that is known.
        exists: Whether there is one at all.
    """

    etag: ETag | None = None
    modified: int | None = None
    exists: bool = True


class Fields(Protocol):
    """The header fields of a request, as `Headers` has them."""

    def get_all(self, name: str, /) -> list[str]:
        """Every value of a field."""
        ...


# etagc = %x21 / %x23-7E / obs-text. Elements may be empty (RFC 9110 §5.6.1.2).
_TAG = re.compile(r'[ \t]*(?:(?P<weak>W/)?"(?P<opaque>[!#-~\x80-\xff]*)")?[ \t]*(?:,|$)')


def parse_etags(text: str) -> list[ETag] | Literal["*"] | None:
    """Read the value of If-Match or If-None-Match.

    Returns:
        The tags, ``"*"``, or ``None`` when it is neither: no tag of a list that is broken somewhere can be relied on.
    """
    if text.strip(" \t") == "*":
        return "*"
    tags = []
    at = 0
    while at < len(text):
        found = _TAG.match(text, at)
        if found is None:
            return None
        if found["opaque"] is not None:
            tags.append(ETag(found["opaque"], found["weak"] is not None))
        at = found.end()
    return tags or None


def _value(fields: Fields, name: str) -> str | None:
    """A field's value; of several lines one list (RFC 9110 §5.3)."""
    values = fields.get_all(name)
    return ", ".join(values) if values else None


def _if_match(text: str, current: Validators) -> bool:
    # RFC 9110 §13.1.1: '"*": the condition is false if the origin server does not have a current representation'; else true if any
    # tag matches by the strong comparison. A value that is neither matches nothing: what the client wants to protect stays.
    tags = parse_etags(text)
    if tags == "*":
        return current.exists
    etag = current.etag
    return tags is not None and etag is not None and any(etag.matches_strongly(tag) for tag in tags)


def _if_none_match(text: str, current: Validators) -> bool:
    # RFC 9110 §13.1.2: the same the other way round, by the weak comparison. A value that is neither matches nothing: the client
    # gets what it may have already.
    tags = parse_etags(text)
    if tags == "*":
        return not current.exists
    etag = current.etag
    return tags is None or etag is None or not any(etag.matches_weakly(tag) for tag in tags)


def precondition(method: str, fields: Fields, current: Validators, now: float) -> Literal[200, 304, 412]:
    """Evaluate a request's preconditions in the order of RFC 9110 §13.2.2, all but If-Range.

    To be called only where the answer without them would be a 2xx; and for CONNECT, OPTIONS and TRACE, which select nothing, it
    need not be (§13.2.1).

    Args:
        method: The request's method.
        fields: Its header fields.
        current: What it selects.
        now: Seconds since the epoch, for dates whose year has two digits.

    Returns:
        200 to go on, 304 where the client has it already, 412 where a condition is false.
    """
    reads = method in ("GET", "HEAD")
    if (text := _value(fields, "if-match")) is not None:
        if not _if_match(text, current):
            return 412
    elif _changed_since(_date(fields, "if-unmodified-since", now), current) is True:
        return 412
    if (text := _value(fields, "if-none-match")) is not None:
        if not _if_none_match(text, current):
            return 304 if reads else 412
    elif reads and _changed_since(_date(fields, "if-modified-since", now), current) is False:
        return 304
    return 200


def range_applies(fields: Fields, current: Validators, now: float) -> bool:
    """Evaluate If-Range (RFC 9110 §13.1.5): whether Range is to be honoured, or the whole is to be sent.

    Args:
        fields: The request's header fields.
        current: What it selects.
        now: Seconds since the epoch.
    """
    values = fields.get_all("if-range")
    if not values:
        return True
    if len(values) != 1:
        return False
    text = values[0]
    if text.startswith(('"', "W/")):
        tags = parse_etags(text)
        return (
            isinstance(tags, list)
            and len(tags) == 1
            and str(tags[0]) == text
            and current.etag is not None
            and current.etag.matches_strongly(tags[0])
        )
    date = parse_date(text, now)
    # "If the HTTP-date validator provided is not a strong validator in the sense defined by Section 8.8.2.2, the condition is
    # false": in the second in which something was changed it may be changed again. "exactly matches", not earlier or equal.
    return date is not None and date == current.modified and now - date >= 1


def _changed_since(date: int | None, current: Validators) -> bool | None:
    """``None``: no telling; §13.1.3, §13.1.4: "MUST ignore [...] if the resource does not have a modification date"."""
    return None if date is None or current.modified is None else current.modified > date


def _date(fields: Fields, name: str, now: float) -> int | None:
    values = fields.get_all(name)
    # §13.1.3, §13.1.4: to be ignored if it "is not a valid HTTP-date, the field value has more than one member".
    return parse_date(values[0], now) if len(values) == 1 else None
