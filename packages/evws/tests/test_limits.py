"""Options: what they may be, and how they reach C."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from evws import Limits


def test_packed() -> None:
    packed = Limits(
        max_message_size=7, max_queue_size=9, when_full="drop", ping_interval=math.inf, ping_timeout=0.0001
    ).pack(4)
    assert struct.unpack("<QQQIIIIII", packed) == (7, 7, 9, 0, 1, 0, 10_000, 60_000, 5)
    assert struct.unpack("<QQQIIIIII", Limits(max_frame_size=3, idle_timeout=1e9).pack(0))[::5] == (3, 0xFFFF_FFFF)


@pytest.mark.parametrize(
    "options",
    [
        {"max_message_size": 0},
        {"max_message_size": 1.5},
        {"max_frame_size": 1 << 63},
        {"max_queue_size": None} | {"max_queue_size": -1},
        {"when_full": "wait"},
        {"ping_interval": 0},
        {"ping_timeout": -1},
        {"idle_timeout": math.nan},
    ],
)
def test_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Limits(**options)
