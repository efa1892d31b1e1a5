"""Every example ends by itself, complains of nothing, and prints what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import test_blocking_examples

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PROMISED = {
    "hello_all_cores.py --selftest": ["100 answers from 2 processes"],
    "rolling_restart.py": [f"seen: {', '.join(f'version {number}' for number in range(6))}; requests lost: 0"],
    "chat.py --selftest": [
        "ann and bob hear: hello bob / hello bob",
        "ann and bob hear: hello ann / hello ann",
        "sockets left behind: 0",
    ],
}

pytestmark = pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not here")


@pytest.mark.parametrize("promised", PROMISED)
def test_example(promised: str) -> None:
    name, *rest = promised.split()
    environment = os.environ | {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *rest]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for line in PROMISED[promised]:
        assert line in done.stdout


def test_every_example_is_run() -> None:
    here = {name.split()[0] for name in PROMISED}
    assert here | test_blocking_examples.EXAMPLES_RUN == {path.name for path in EXAMPLES.glob("*.py")}
