"""What `tools/dev.py` says when it cannot do what it is asked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEV = Path(__file__).resolve().parent.parent / "tools" / "dev.py"


def dev(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, DEV, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_the_commands() -> None:
    result = dev("--help")
    assert result.returncode == 0
    assert "tools/dev.py serve" in result.stdout
    assert "tools/dev.py test" in result.stdout


@pytest.mark.parametrize("arguments", [pytest.param((), id="none"), pytest.param(("sreve",), id="misspelt")])
def test_an_unknown_command_is_one_line(arguments: tuple[str, ...]) -> None:
    result = dev(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("dev: expected one of serve, test;")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "test"])
def test_a_missing_compiler_is_one_line(command: str) -> None:
    result = dev(command, CC="no-such-compiler")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "apt install gcc python3-dev" in result.stderr
