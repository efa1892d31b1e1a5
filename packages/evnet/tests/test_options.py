"""What a stream begins with: numbers in and out of their ranges."""

from __future__ import annotations

from typing import Any

import pytest

from evnet._options import milliseconds, stream_options, water


def test_defaults() -> None:
    options = stream_options()
    assert (options.idle_timeout_ms, options.write_timeout_ms) == (0, 0)
    assert (options.high_water, options.low_water, options.max_queued) == (65536, 16384, 64 << 20)
    assert (options.kind, options.one_way) == (0, 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None), (65536, 16384)),
        ((100, None), (100, 25)),
        ((None, 100), (400, 100)),
        ((0, None), (0, 0)),
        ((7, 7), (7, 7)),
    ],
)
def test_water(given: tuple[int | None, int | None], expected: tuple[int, int]) -> None:
    assert water(*given) == expected


@pytest.mark.parametrize("given", [(1, 2), (5, -1), (-1, None)])
def test_water_that_is_none(given: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="high"):
        water(*given)


@pytest.mark.parametrize("given", [(1.5, None), (None, 2.0), ("1", None)])
def test_water_is_counted_in_whole_bytes(given: Any) -> None:
    with pytest.raises(TypeError):
        water(*given)
    with pytest.raises(TypeError):
        stream_options(max_queued=given[0] or given[1])


def test_more_bytes_than_c_can_count() -> None:
    most = 2**64 - 1
    assert water(1 << 70, None) == (most, most)
    assert water(1 << 70, 5) == (most, 5)
    assert stream_options(max_queued=1 << 70, high=1 << 70).max_queued == most


def test_milliseconds() -> None:
    assert [milliseconds("t", t) for t in (None, float("inf"), 0.0001, 1.5, 1e9)] == [0, 0, 1, 1500, 0xFFFF_FFFF]


@pytest.mark.parametrize("name", ["idle_timeout", "write_timeout", "max_queued"])
@pytest.mark.parametrize("value", [0, -1])
def test_what_is_out_of_range_is_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        stream_options(**{name: value})
    stream_options(**{name: None})  # type: ignore[arg-type]
