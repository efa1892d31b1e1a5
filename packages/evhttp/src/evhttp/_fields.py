"""The header fields and the query of a request: mappings that are made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import overload
from urllib.parse import parse_qsl

__all__ = ["Headers", "Query"]

# Names as handlers spell them, and what is searched for: "\nname:". Bounded, because names may come from anywhere.
_needles: dict[str, bytes] = {}
_NEEDLES_MOST = 1024


def _needle(name: str) -> bytes:
    try:
        needle = f"\n{name.lower()}:".encode("latin-1")
    except UnicodeEncodeError:
        needle = b"\n\n"  # found in no field block: the name cannot be a field's
    if ":" in name or "\n" in name:
        needle = b"\n\n"
    if len(_needles) < _NEEDLES_MOST:
        _needles[name] = needle
    return needle


class Headers:
    """The header fields of a request: a read-only mapping whose names are compared without case.

    Nothing is decoded before it is asked for. Values are text in ISO 8859-1, as received, without the white space around them
    (RFC 9110 §5.5). A name that was sent several times stands for its first value in ``[]`` and `get`; `get_all` has them all.
    """

    __slots__ = ("_block", "_end", "_start")

    def __init__(self, block: bytes, start: int, end: int) -> None:
        # block[start:end] is "\nname:value" for each field and a final "\n"; C has made sure that no value holds a line feed.
        self._block = block
        self._start = start
        self._end = end

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of a field, or ``default``."""
        needle = _needles.get(name) or _needle(name)
        block = self._block
        at = block.find(needle, self._start, self._end)
        if at < 0:
            return default
        at += len(needle)
        return block[at : block.find(b"\n", at)].decode("latin-1")

    def get_all(self, name: str) -> list[str]:
        """Every value of a field, in the order received."""
        needle = _needles.get(name) or _needle(name)
        values = []
        at = self._block.find(needle, self._start, self._end)
        while at >= 0:
            at += len(needle)
            end = self._block.find(b"\n", at)
            values.append(self._block[at:end].decode("latin-1"))
            at = self._block.find(needle, end, self._end)
        return values

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def items(self) -> list[tuple[str, str]]:
        """Every field as a pair of name, in lower case, and value; repeated ones too."""
        text = self._block[self._start + 1 : self._end - 1].decode("latin-1")
        return [(name, value) for name, _, value in (line.partition(":") for line in text.split("\n"))] if text else []

    def keys(self) -> list[str]:
        """Every name once, in lower case, in the order received."""
        return list(dict.fromkeys(name for name, _ in self.items()))

    def values(self) -> list[str]:
        """Every value, in the order received."""
        return [value for _, value in self.items()]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __repr__(self) -> str:
        return f"Headers({self.items()!r})"


class Query:
    """The parameters of a query string: a read-only mapping.

    ``+`` and percent-encoding are decoded as UTF-8; what is not UTF-8 becomes U+FFFD. A parameter without ``=`` has the value
    ``""``. A name that was sent several times stands for its first value in ``[]`` and `get`; `get_all` has them all.
    """

    __slots__ = ("_pairs",)

    def __init__(self, text: str) -> None:
        self._pairs = parse_qsl(text, keep_blank_values=True)

    @classmethod
    def of(cls, pairs: list[tuple[str, str]]) -> Query:
        """Make one of pairs that are decoded already."""
        query = cls("")
        query._pairs = pairs
        return query

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of a parameter, or ``default``."""
        for key, value in self._pairs:
            if key == name:
                return value
        return default

    def get_all(self, name: str) -> list[str]:
        """Every value of a parameter, in the order received."""
        return [value for key, value in self._pairs if key == name]

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self._pairs)

    def items(self) -> list[tuple[str, str]]:
        """Every parameter as a pair, repeated ones too."""
        return list(self._pairs)

    def keys(self) -> list[str]:
        """Every name once, in the order received."""
        return list(dict.fromkeys(name for name, _ in self._pairs))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __repr__(self) -> str:
        return f"Query({self._pairs!r})"
