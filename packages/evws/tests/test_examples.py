"""Every example ends by itself, complains of nothing, and prints what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# Each line must be there, in this order; others may stand between.
PROMISED = {
    "echo.py --selftest": ["echoing at ws://127.0.0.1", "the echo of what was said: hello"],
    "chat.py --selftest": ["ann hears bob: has come", "bob hears ann: hello bob", "ann hears bob: has gone"],
    "dashboard.py --selftest": ["pushed: up for, visitors", "pushed: up for, visitors"],
    "one_port.py --selftest": ["HTTP: hello reader", "without the password: ", "status 401", "with it: QUIET"],
    "discussion.py": ["convinced by: you say 'but 9 times no'; that was argument number 10", "they have all gone"],
    "multicast.py 90": [f"{name}: 600 messages came to 30 subscribers" for name in ("news", "weather", "sport")],
}


@pytest.mark.parametrize("promised", PROMISED)
def test_example(promised: str, backend: str) -> None:
    name, *rest = promised.split()
    environment = {"EVLOOP_BACKEND": backend, "PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(EXAMPLES / name), *rest],
        capture_output=True,
        text=True,
        timeout=40,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The development mode names slow callbacks; on a busy machine any may be.
    assert [line for line in done.stderr.splitlines() if not line.startswith("callback ")] == []
    text = done.stdout
    for line in PROMISED[promised]:
        before, found, text = text.partition(line)
        assert found, (line, before)


def test_none_is_left_out() -> None:
    assert {promised.split()[0] for promised in PROMISED} == {path.name for path in EXAMPLES.glob("*.py")}
