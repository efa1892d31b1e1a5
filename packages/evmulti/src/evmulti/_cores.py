"""How many cores this process may use: not how many the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["usable_cores"]


def usable_cores(root: Path = Path("/")) -> int:
    """The number of cores that this process may keep busy: CPU affinity and the limits of its control groups counted.

    Args:
        root: Where ``proc`` and ``sys`` are looked for.

    Returns:
        At least 1. A limit of one and a half cores counts as 2: with one worker a third of it would lie idle.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(each) for each in _limits(root))]))


def _limits(root: Path) -> Iterator[float]:
    """Cores that each control group above this process allows."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        # cgroups(7): hierarchy-ID:controller-list:cgroup-path; the list is empty in version 2.
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        folders = _upwards(path)
        if not controllers:
            for folder in folders:
                yield from _ratio(*_text(root / "sys/fs/cgroup" / folder / "cpu.max").split()[:2])
        elif "cpu" in controllers.split(","):
            for folder in folders:
                for mount in (controllers, "cpu"):
                    base = root / "sys/fs/cgroup" / mount / folder
                    yield from _ratio(_text(base / "cpu.cfs_quota_us"), _text(base / "cpu.cfs_period_us"))


def _upwards(path: str) -> list[str]:
    """The control group and those above it. In a container the path may be that of the host; then the root is ours."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return ["/".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _ratio(quota: str = "", period: str = "") -> Iterator[float]:
    # "max" in version 2 and -1 in version 1 mean that there is no limit.
    if quota.strip().isdigit() and period.strip().isdigit() and int(quota) and int(period):
        yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # no such hierarchy here
        return ""
