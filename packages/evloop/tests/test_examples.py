"""Every example ends by itself, complains of nothing, and prints what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# Each line must be there, in this order; others may stand between.
PROMISED = {
    "timers.py": ["heartbeat", "nobody was active", "the heartbeat is cancelled: True"],
    "idle.py": ["primes below 20000: 2262"],
    "pipe_echo.py": ["HELLO", "FROM THE OTHER END", "OF TWO PIPES", "the echo has ended: True"],
    "signal_bus.py": ["first order: tea", "counted: tea", "counted: from SIGUSR1", "listeners to quit: 0"],
    "file_watcher.py": [
        "created    notes.txt",
        "renamed    notes.txt -> renamed.txt",
        "deleted    renamed.txt",
        "created    below",
        "created    below/deep.txt",
    ],
    "two_loops.py": ["left has caught the ball 1000 times", "right has caught the ball 1000 times"],
}


def test_there_are_no_others() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PROMISED)


@pytest.mark.parametrize("name", PROMISED)
def test_example(name: str, backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", EXAMPLES / name],
        capture_output=True,
        text=True,
        env={"EVLOOP_BACKEND": backend, "PYTHONPATH": ":".join(path for path in sys.path if path)},
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The development mode names slow callbacks; on a busy machine any may be.
    assert [line for line in done.stderr.splitlines() if not line.startswith("callback ")] == []
    lines = iter(done.stdout.splitlines())
    for promised in PROMISED[name]:
        assert any(promised in line for line in lines), (promised, done.stdout)
