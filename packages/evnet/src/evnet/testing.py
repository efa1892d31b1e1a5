"""For tests of this package and of those above it: fault injection. Needs no test framework.

`build_faults` compiles a library for ``LD_PRELOAD`` that lets the system calls of the shims fail, be interrupted and return short
counts; ``_faults.c`` says which and why they are fair. `run_with_faults` runs a Python program under it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["build_faults", "run_with_faults"]

_SOURCE = Path(__file__).with_name("_faults.c")


def build_faults(folder: Path) -> Path | None:
    """Compile the library into ``folder``; ``None`` where that is not possible: no compiler, or not Linux.

    Raises:
        RuntimeError: The compiler refused it; the message is what it said.
    """
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    compiler = next((path for name in names if name and (path := shutil.which(name))), None)
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "faults.so"
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=default"]
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [compiler, *flags, str(_SOURCE), "-o", str(library), "-ldl"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return library


def run_with_faults(
    library: Path, arguments: Sequence[str], *, seed: int, one_in: int, hostile: bool = False, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run this Python with ``arguments`` under the library.

    Args:
        library: What `build_faults` returned.
        arguments: What stands behind ``python``.
        seed: Of the sequence of faults.
        one_in: About every so-manieth system call has one.
        hostile: Connections break, too.
        timeout: Seconds until the program is killed.
    """
    # Before a sanitizer's runtime, if there is one: the calls of the shims must reach this library first.
    preloaded = os.environ.get("LD_PRELOAD", "")
    environment = dict(os.environ, LD_PRELOAD=f"{library}:{preloaded}".strip(":"), EV_FAULTS=f"{seed},{one_in}")
    environment["ASAN_OPTIONS"] = f"{os.environ.get('ASAN_OPTIONS', '')}:verify_asan_link_order=0".strip(":")
    if hostile:
        environment["EV_FAULTS_HOSTILE"] = "1"
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=timeout, check=False
    )
