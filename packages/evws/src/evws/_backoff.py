"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits that grow from failure to failure, and are random so that a thousand clients do not come back at once.

    Attributes:
        initial: Seconds after the first failure.
        factor: By which the wait grows with each further one.
        maximum: Seconds that it never exceeds.
        jitter: From 0 to 1: which part of the wait is chosen at random.
        attempts: Failures in a row after which it is given up; ``None``: never.
        stable: Seconds that a connection must have been open for the count of failures to begin anew; one that ends earlier counts
            as a failure.

    Raises:
        ValueError: A number is out of range; the message names it.
    """

    initial: float = 0.5
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 0.5
    attempts: int | None = None
    stable: float = 5.0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("initial", 0.0, math.inf),
            ("factor", 1.0, math.inf),
            ("maximum", 0.0, math.inf),
            ("jitter", 0.0, 1.0),
            ("stable", 0.0, math.inf),
        ):
            value = getattr(self, name)
            if not (least <= value <= most and (value < math.inf or name == "stable")):
                raise ValueError(f"{name} must be a number from {least:g} to {most:g}, not {value!r}")
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts!r}")

    def delay(self, failures: int, chance: Callable[[], float] = random.random) -> float | None:
        """Seconds to wait after so many failures in a row, at least 1; ``None``: give up."""
        if self.attempts is not None and failures >= self.attempts:
            return None
        # Beyond 64 doublings the power only overflows.
        wait = min(self.maximum, self.initial * self.factor ** min(failures - 1, 64))
        return wait * (1 - self.jitter * chance())
