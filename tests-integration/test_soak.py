"""The soak in its short form: everything at once for half a minute, each fault at least once."""

import subprocess
import sys
from pathlib import Path

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
