"""Build the environments the servers run in: one per peer from pinned versions, one of our own from the checkout.

``python3 bench/peers.py`` builds all of them and says what can be had; the benchmarks build what they need by
themselves. Everything lies in ``bench/.venvs`` and is rebuilt only when a pin, the interpreter or our sources change.
"""

from __future__ import annotations

import argparse
import functools
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
VENVS = BENCH / ".venvs"
PACKAGES = BENCH.parent / "packages"
PIP_SECONDS = 600
BUILD_TOOLS = {"pip", "wheel", "setuptools", "hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers"}
PIP_ENV = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
# Nothing that a build leaves behind may decide whether the sources have changed, or get into a wheel.
NOT_SOURCES = shutil.ignore_patterns(
    "__pycache__", ".*_cache", ".nox", ".venv", "build", "dist", "*.so", "*.o", "*.pyc", "*.egg-info"
)


class NotAvailable(Exception):
    """A server cannot be measured here; the message says why and stands in the results."""


@dataclass(frozen=True)
class Interpreter:
    """A Python to make environments from."""

    executable: str
    version: str
    profile_guided: bool | None

    def describe(self) -> str:
        """Name the interpreter in results: no path, since those differ between machines."""
        how = {True: ", profile-guided build", False: ", not profile-guided", None: ""}[self.profile_guided]
        return f"CPython {self.version}{how}"


_ASK = """
import json, platform, sys, sysconfig
args = str(sysconfig.get_config_var('CONFIG_ARGS'))
flags = ' '.join(str(sysconfig.get_config_var(name)) for name in ('PY_CORE_CFLAGS', 'PY_CFLAGS', 'CFLAGS_NODIST'))
pgo = '--enable-optimizations' in args or '-fprofile-use' in flags
print(json.dumps([platform.python_implementation(), platform.python_version(), pgo]))
"""


@functools.cache
def ask_interpreter(executable: str) -> Interpreter | None:
    """Ask a Python what it is; ``None`` if it does not run (a version manager's shim for another version)."""
    try:
        done = subprocess.run([executable, "-c", _ASK], capture_output=True, text=True, timeout=20)
        name, version, pgo = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    # Debian profiles its Python in a way of its own, which the configuration does not show.
    known = True if pgo else (None if os.path.dirname(executable) in os.defpath.split(os.pathsep) else False)
    return Interpreter(executable, version, known) if name == "CPython" else None


def default_python() -> Interpreter:
    """Return the system's Python if it is new enough (Debian's is a profile-guided build), or else this one."""
    for folder in (*os.defpath.split(os.pathsep), "/usr/local/bin"):
        found = shutil.which("python3", path=folder) if folder else None
        candidate = ask_interpreter(found) if found else None
        if candidate and tuple(map(int, candidate.version.split(".")[:2])) >= (3, 11):
            return candidate
    own = ask_interpreter(sys.executable)
    assert own is not None
    return own


def find_python(version: str) -> Interpreter | None:
    """Find a Python of a minor version on PATH or among those that pyenv keeps."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *sorted(glob.glob(f"{root}/versions/*/bin"))]
    for folder in folders:
        found = shutil.which(f"python{version}", path=folder) if folder else None
        candidate = ask_interpreter(found) if found else None
        if candidate and candidate.version.startswith(f"{version}."):
            return candidate
    return None


@dataclass(frozen=True)
class Environment:
    """A virtual environment that is ready."""

    name: str
    python: Path
    interpreter: Interpreter
    note: str = ""

    def versions(self) -> dict[str, str]:
        """What is installed in it."""
        out = _run([str(self.python), "-m", "pip", "list", "--format=json"], "pip list")
        return {row["name"]: row["version"] for row in json.loads(out) if row["name"] not in BUILD_TOOLS}


def _run(command: list[str], what: str) -> str:
    """Run a step of a build; when it fails, the last lines it wrote that mean something are the reason."""
    env = {**os.environ, **PIP_ENV}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, env=env)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotAvailable(f"{what}: {error}") from None
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines[-1:]
        raise NotAvailable(f"{what} failed: {'; '.join(errors[-2:])[:300]}")
    return done.stdout


def _config() -> dict[str, Any]:
    return tomllib.loads((BENCH / "peers.toml").read_text())


def _venv(name: str, base: Interpreter, requires: list[str], extra: str = "") -> tuple[Path, bool]:
    """Make or reuse a virtual environment; also return whether it is new."""
    folder = VENVS / f"{name}-{base.version}"
    python = folder / "bin" / "python"
    stamp = json.dumps([base.executable, requires, extra])
    marker = folder / "bench-stamp.json"
    if marker.exists() and marker.read_text() == stamp and python.exists():
        return python, False
    shutil.rmtree(folder, ignore_errors=True)
    print(f"bench: building the environment of {name} ({base.describe()})", file=sys.stderr, flush=True)
    _run([base.executable, "-m", "venv", str(folder)], "python -m venv (Debian: apt install python3-venv)")
    _run([str(python), "-m", "pip", "install", "-q", *requires], f"pip install {' '.join(requires)}")
    marker.write_text(stamp)
    return python, True


def peer(name: str, base: Interpreter) -> Environment:
    """Build the environment of a peer of peers.toml.

    Raises:
        NotAvailable: It does not install, or needs an interpreter that is not here.
    """
    config = _config()["peers"][name]
    note = config.get("note", "")
    if "pythons" not in config:
        return Environment(name, _venv(name, base, config["requires"])[0], base, note)
    reasons = []
    for version in config["pythons"]:
        old = find_python(version)
        if old is None:
            reasons.append(f"no Python {version} here")
            continue
        try:
            return Environment(name, _venv(name, old, config["requires"])[0], old, note)
        except NotAvailable as error:
            reasons.append(f"Python {version}: {error}")
    raise NotAvailable("; ".join(reasons))


def _fingerprint(sources: Path, packages: list[str]) -> str:
    """Digest our sources, so that a changed checkout is built again."""
    digest = hashlib.sha256()
    for package in packages:
        for folder, names, files in os.walk(sources / package):
            ignored = NOT_SOURCES(folder, names + files)
            names[:] = sorted(set(names) - ignored - {"tests", "changelog.d"})
            for name in sorted(set(files) - ignored):
                path = Path(folder, name)
                digest.update(str(path.relative_to(sources)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def ours(base: Interpreter, only: tuple[str, ...] = (), checkout: Path | None = None) -> Environment:
    """Build the packages from this checkout or another (all five, or some) as wheels and install them, lower ones first.

    A wheel is built from a copy of the package's folder: a build writes into its sources, and others may work there.
    Siblings never come from an index: two of the names belong to other people's projects there.
    """
    config = _config()["ours"]
    packages: list[str] = [name for name in config["packages"] if not only or name in only]
    own_name = "-".join(["ours", *only])
    sources = PACKAGES
    if checkout is not None and checkout.resolve() != BENCH.parent:
        sources = checkout.resolve() / "packages"
        own_name += f"-{hashlib.sha256(str(sources).encode()).hexdigest()[:8]}"
    missing = [name for name in packages if not (sources / name / "pyproject.toml").exists()]
    if missing:
        raise NotAvailable(f"not in this checkout: {', '.join(f'packages/{name}' for name in missing)}")
    stamp = _fingerprint(sources, packages)
    python, _ = _venv(own_name, base, config["requires"])
    installed = python.parent.parent / "bench-ours"
    if installed.exists() and installed.read_text() == stamp:
        return Environment(own_name, python, base)
    build = VENVS / f"build-{own_name}"
    wheels = VENVS / f"wheels-{own_name}"
    shutil.rmtree(wheels, ignore_errors=True)
    for name in packages:
        print(f"bench: building {name}", file=sys.stderr, flush=True)
        shutil.rmtree(build, ignore_errors=True)
        shutil.copytree(sources / name, build / name, ignore=NOT_SOURCES)
        pip = [str(python), "-m", "pip"]
        wheel = [*pip, "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(wheels)]
        _run([*wheel, str(build / name)], f"building {name}")
        find = ["--no-index", "--find-links", str(wheels)]
        _run([*pip, "install", "-q", "--no-deps", "--force-reinstall", *find, name], f"installing {name}")
    shutil.rmtree(build, ignore_errors=True)
    _run([str(python), "-m", "pip", "check", "-q"], "pip check")
    installed.write_text(stamp)
    return Environment(own_name, python, base)


def main() -> int:
    """Build what is named, or everything, and print what can be had."""
    names = ["ours", *_config()["peers"]]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--base-python", help="make the environments from this Python (default: the system's)")
    args = parser.parse_args()
    unknown = set(args.names) - set(names)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    base = ask_interpreter(args.base_python) if args.base_python else default_python()
    if base is None:
        parser.error(f"{args.base_python} does not run")
    for name in args.names or names:
        try:
            environment = ours(base) if name == "ours" else peer(name, base)
            versions = ", ".join(f"{key} {value}" for key, value in environment.versions().items())
            print(f"{name}: {environment.interpreter.describe()}: {versions}")
        except NotAvailable as error:
            print(f"{name}: not available: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
