"""Waits between attempts."""

from __future__ import annotations

from typing import Any

import pytest

from evws import Backoff


def test_it_grows_to_its_maximum() -> None:
    backoff = Backoff(initial=1, factor=2, maximum=10, jitter=0)
    assert [backoff.delay(failures) for failures in (1, 2, 3, 4, 5, 6, 10_000)] == [1, 2, 4, 8, 10, 10, 10]


def test_jitter_takes_from_the_wait() -> None:
    backoff = Backoff(initial=4, jitter=0.5)
    assert backoff.delay(1, lambda: 0.0) == 4
    assert backoff.delay(1, lambda: 1.0) == 2
    assert len({backoff.delay(1) for _ in range(50)}) > 1


def test_it_gives_up() -> None:
    backoff = Backoff(attempts=2, initial=0)
    assert (backoff.delay(1), backoff.delay(2), backoff.delay(3)) == (0, None, None)


@pytest.mark.parametrize(
    "options",
    [
        {"initial": -1},
        {"factor": 0.5},
        {"maximum": float("inf")},
        {"jitter": 2},
        {"attempts": 0},
        {"stable": -1},
        {"initial": float("nan")},
    ],
)
def test_what_makes_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Backoff(**options)
