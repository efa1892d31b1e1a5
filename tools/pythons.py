"""Find the Pythons that the tests run on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["find_pythons"]

_PROBE = """
import platform, sys, sysconfig
gil_disabled = sysconfig.get_config_var("Py_GIL_DISABLED") or 0
print("%s %d %d %s" % ((platform.python_implementation().lower(),) + sys.version_info[:2] + (gil_disabled,)))
"""


def find_pythons(versions: Sequence[str]) -> dict[str, Path]:
    """Map each of the versions that this machine has, such as ``"3.12"``, to an interpreter that starts.

    Looks through PATH and through pyenv's folder of versions, where an interpreter lies even when no shim is switched on
    for it. Only GIL builds of CPython count: the wheels are built for these.
    """
    found = {}
    for version in versions:
        for candidate in _candidates(version):
            if _is_cpython(candidate, version):
                found[version] = candidate
                break
    return found


def _candidates(version: str) -> Iterator[Path]:
    for folder in [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"]:
        path = Path(folder or ".", f"python{version}")
        # A shim of pyenv starts an interpreter only where a version is switched on; the real ones are looked at below.
        if path.is_file() and path.parent.name != "shims":
            yield path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)


def _is_cpython(path: Path, version: str) -> bool:
    try:
        result = subprocess.run(
            [path, "-c", _PROBE], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and result.stdout.split() == ["cpython", *version.split("."), "0"]
