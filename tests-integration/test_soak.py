"""The soak in its short form, everything at once and each fault at least once; and what its verdict tells apart."""

import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SOAK = Path(__file__).resolve().parent / "soak"


@pytest.mark.timeout(300)
def test_nothing_is_lost_and_nothing_grows() -> None:
    done = subprocess.run(
        [sys.executable, str(SOAK), "0.5"], capture_output=True, text=True, timeout=280, check=False, cwd=SOAK.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: nothing lost, nothing grown" in done.stdout


def test_a_wrong_argument_is_refused() -> None:
    done = subprocess.run([sys.executable, str(SOAK), "-1"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "must be more than 0" in done.stderr


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The names of the soak's program; its modules are found only here, and forgotten afterwards."""
    monkeypatch.syspath_prepend(str(SOAK))
    before = set(sys.modules)
    yield SimpleNamespace(**runpy.run_path(str(SOAK / "__main__.py"), run_name="soak"))
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == SOAK:
            del sys.modules[name]


MIB = 1 << 20


@pytest.mark.parametrize(
    ("after", "failure"),
    [
        # More memory of the kernel's, and not more in use: pages that an allocator keeps.
        ({"memory": 38 * MIB, "allocated": 14 * MIB + 80_000, "objects": 125_300}, None),
        ({"memory": 32 * MIB, "allocated": 16 * MIB, "objects": 125_000}, "allocated in C has grown"),
        ({"memory": 32 * MIB, "allocated": 14 * MIB, "objects": 140_000}, "have become more"),
        ({"memory": 32 * MIB, "allocated": 14 * MIB, "objects": 125_000, "arena": 8 * MIB}, "larger than any turn"),
        ({"memory": 50 * MIB, "allocated": 14 * MIB, "objects": 125_000}, "memory of process 1 has grown"),
        ({"memory": 32 * MIB, "allocated": 14 * MIB, "objects": 125_000, "descriptors": 37}, "descriptors"),
    ],
)
def test_what_has_grown(soak: SimpleNamespace, after: dict[str, int], failure: str | None) -> None:
    outcome: Any = soak.Outcome("thread", soak.Ledger(), growth=soak.GROWTH["thread"])
    outcome.before[1] = soak.Use(32 * MIB, 36, 14 * MIB, 125_000)
    outcome.after[1] = soak.Use(**{"descriptors": 36} | after)
    outcome.judge("", 0, [])
    assert [failure in each for each in outcome.failures] == ([True] if failure else [])


@pytest.mark.parametrize(
    ("kind", "worker", "age", "explained"),
    [
        ("lossy network", "", 1.7, True),
        ("lossy network", "", 0.4, False),  # the worker was there for that long, and should have read it
        ("lossy network", "1/1", 1.7, False),  # answered before, so the connection was no new one
        ("http", "", 1.7, False),
    ],
)
def test_what_a_rolling_restart_explains(
    soak: SimpleNamespace, kind: str, worker: str, age: float, explained: bool
) -> None:
    ledger = soak.Ledger()
    now = time.monotonic()
    with ledger.fault("rolling restart", "lost", newcomers=True, kind="lossy network", longer=1.0):
        ledger.failed(kind, now - age, worker, EOFError())
    assert (len(ledger.unexplained), sum(ledger.explained.values())) == ((0, 1) if explained else (1, 0))
