"""The timer wheel in C, without the loop: its driver in ``c/`` compares it with an array."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src" / "evloop"
COMPILER = next(
    (path for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if name and (path := shutil.which(name))), None
)

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def compile_driver(target: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert COMPILER is not None
    includes = [f"-I{SOURCE / '_c'}", f"-I{SOURCE / 'include'}"]
    files = [str(TESTS / "c" / "wheel_driver.c"), str(SOURCE / "_c" / "wheel.c")]
    return subprocess.run(
        [COMPILER, "-std=c11", "-Wall", "-Wextra", "-Werror", *flags, *includes, *files, "-o", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    sanitized = compile_driver(
        folder / "driver", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
    )
    if sanitized.returncode != 0:  # a compiler without the sanitizers' libraries
        plain = compile_driver(folder / "driver", "-O2")
        assert plain.returncode == 0, plain.stderr
    return folder / "driver"


@pytest.mark.parametrize("seed", range(12))
def test_random_operations_against_an_array(driver: Path, seed: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [driver, str(seed), "4000"], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    word, fired = done.stdout.split()
    assert word == "ok"
    assert int(fired) > 1000
