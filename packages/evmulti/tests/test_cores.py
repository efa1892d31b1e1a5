"""How many cores may be used: affinity, and control groups of both versions, in files of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evmulti import usable_cores

ALL = 64


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(ALL)))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = "sys/fs/cgroup/"
V1 = "sys/fs/cgroup/cpu,cpuacct/"
CASES = {
    "nothing": ({}, ALL),
    "v2-no-limit": ({"proc/self/cgroup": "0::/a\n", f"{V2}a/cpu.max": "max 100000\n"}, ALL),
    "v2-three": ({"proc/self/cgroup": "0::/a\n", f"{V2}a/cpu.max": "300000 100000\n"}, 3),
    "v2-one-and-a-half": ({"proc/self/cgroup": "0::/a\n", f"{V2}a/cpu.max": "150000 100000\n"}, 2),
    "v2-a-tenth": ({"proc/self/cgroup": "0::/a\n", f"{V2}a/cpu.max": "10000 100000\n"}, 1),
    "v2-above": (
        {"proc/self/cgroup": "0::/a/b\n", f"{V2}a/b/cpu.max": "max 100000\n", f"{V2}a/cpu.max": "400000 100000\n"},
        4,
    ),
    "v2-container": ({"proc/self/cgroup": "0::/../host/path\n", f"{V2}cpu.max": "200000 100000\n"}, 2),
    "v1-two": (
        {
            "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n",
            f"{V1}a/cpu.cfs_quota_us": "200000\n",
            f"{V1}a/cpu.cfs_period_us": "100000\n",
        },
        2,
    ),
    "v1-no-limit": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/\n",
            f"{V1}cpu.cfs_quota_us": "-1\n",
            f"{V1}cpu.cfs_period_us": "100000\n",
        },
        ALL,
    ),
    "nonsense": ({"proc/self/cgroup": "0::/\nx\n", f"{V2}cpu.max": "0 0\n"}, ALL),
}


@pytest.mark.parametrize(("files", "want"), CASES.values(), ids=CASES)
def test_limits(tmp_path: Path, files: dict[str, str], want: int) -> None:
    assert usable_cores(write(tmp_path, files)) == want


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    files = {"proc/self/cgroup": "0::/\n", f"{V2}cpu.max": "400000 100000\n"}
    assert usable_cores(write(tmp_path, files)) == 1


def test_here() -> None:
    assert usable_cores() >= 1
