"""HTTP dates (RFC 9110 §5.6.7), without the locale that strftime and strptime look at."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from time import gmtime

__all__ = ["format_date", "parse_date"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_DAY, _LONG_DAY, _MONTH = (f"(?:{'|'.join(names)})" for names in (_DAYS, _LONG_DAYS, _MONTHS))
_CLOCK = r"(?P<H>[01]\d|2[0-3]):(?P<M>[0-5]\d):(?P<S>[0-5]\d|60)"
# "A recipient that parses a timestamp value in an HTTP field MUST accept all three HTTP-date formats."
_FORMATS = (
    re.compile(rf"{_DAY}, (?P<d>\d\d) (?P<m>{_MONTH}) (?P<y>\d{{4}}) {_CLOCK} GMT", re.ASCII),
    re.compile(rf"{_LONG_DAY}, (?P<d>\d\d)-(?P<m>{_MONTH})-(?P<y>\d\d) {_CLOCK} GMT", re.ASCII),
    re.compile(rf"{_DAY} (?P<m>{_MONTH}) (?P<d>[ \d]\d) {_CLOCK} (?P<y>\d{{4}})", re.ASCII),
)


@lru_cache(maxsize=1024)
def format_date(seconds: int) -> str:
    """Write a time since the epoch as HTTP wants it: ``"Sun, 06 Nov 1994 08:49:37 GMT"``."""
    at = gmtime(seconds)
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year:04} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"


def parse_date(text: str, now: float) -> int | None:
    """Read an HTTP date in any of its three formats; ``None`` when it is none.

    Args:
        text: The field's value.
        now: Seconds since the epoch, for the century of a year of two digits.
    """
    for form in _FORMATS:
        if found := form.fullmatch(text):
            break
    else:
        return None
    year, month, day = int(found["y"]), _MONTHS.index(found["m"]) + 1, int(found["d"])
    if len(found["y"]) == 2:
        # "Recipients of a timestamp value in rfc850-date format, which uses a two-digit year, MUST interpret a timestamp that
        # appears to be more than 50 years in the future as representing the most recent year in the past that had the same last
        # two digits."
        this_year = gmtime(now).tm_year
        year += this_year // 100 * 100
        if year > this_year + 50:
            year -= 100
    try:
        at = datetime(year, month, day, int(found["H"]), int(found["M"]), tzinfo=UTC)
    except ValueError:  # the thirtieth of February
        return None
    return int(at.timestamp()) + int(found["S"])  # added, because datetime has no leap seconds
