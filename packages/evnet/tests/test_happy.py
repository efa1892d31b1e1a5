"""The order of addresses."""

from __future__ import annotations

import pytest

from evnet._happy import interleaved


def order(text: str, first: int) -> str:
    return " ".join(
        family + rest for family, rest in interleaved([(word[0], word[1:]) for word in text.split()], first)
    )


@pytest.mark.parametrize(
    ("infos", "first", "expected"),
    [
        # RFC 8305 §4: the families take turns, beginning with that of the first address
        ("61 62 63 41 42 43", 1, "61 41 62 42 63 43"),
        ("41 42 61 62", 1, "41 61 42 62"),
        # §4, §8: First Address Family Count
        ("61 62 63 41 42 43", 2, "61 62 41 63 42 43"),
        ("61 62 63 41 42 43", 9, "61 62 63 41 42 43"),
        ("61 62 63 41", 1, "61 41 62 63"),
        ("61 41 42 43", 1, "61 41 42 43"),
        ("61 41 62 42", 0, "61 41 62 42"),
        ("61 62 41 42", 0, "61 62 41 42"),
        ("61 61 41 61", 1, "61 41"),
        ("61 61 41", 0, "61 41"),
        ("61 62 63", 1, "61 62 63"),
        ("61 41 a1 62 42 a2", 1, "61 41 a1 62 42 a2"),
        ("41", 1, "41"),
        ("", 1, ""),
        ("", 0, ""),
    ],
)
def test_order(infos: str, first: int, expected: str) -> None:
    assert order(infos, first) == expected
