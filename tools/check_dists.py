"""Check what the built sdists and wheels hold: `python tools/check_dists.py build/wheels`, of all packages or of those named.

Wheels are made from sdists, so the C sources must be in the sdist and no binary may be; a wheel needs its marker for type
checkers, its stubs, the headers that other packages compile against, and exactly one shim.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from provenance import PACKAGES

__all__ = ["check", "main"]

ROOT = Path(__file__).resolve().parent.parent
_BINARY = re.compile(r"\.(so|pyd|o|a|dylib|pyc)$")
_STRAY = re.compile(r"(^|/)(\.venv|\.nox|build|dist|__pycache__|\.mypy_cache|\.pytest_cache)/")


def check(package: str, folder: Path) -> list[str]:
    """List what is wrong with the package's sdist and wheel in the folder."""
    sdists, wheels = list(folder.glob(f"{package}-*.tar.gz")), list(folder.glob(f"{package}-*.whl"))
    if len(sdists) != 1 or len(wheels) != 1:
        return [f"{package}: expected one sdist and one wheel in {folder}, found {len(sdists)} and {len(wheels)}"]
    with tarfile.open(sdists[0]) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheels[0]) as archive_:
        in_wheel = set(archive_.namelist())
    found = [f"{sdists[0].name}: {line}" for line in _sdist_problems(package, in_sdist)]
    found += [f"{wheels[0].name}: {line}" for line in _wheel_problems(package, in_wheel, wheels[0].name)]
    return found


def _source_files(package: str) -> set[str]:
    folder = ROOT / "packages" / package
    files = {path.relative_to(folder).as_posix() for path in (folder / "src").rglob("*") if path.is_file()}
    return {name for name in files if not _BINARY.search(name)}


def _sdist_problems(package: str, names: set[str]) -> list[str]:
    has_shim = (ROOT / "packages" / package / "src" / package / "_c").is_dir()
    wanted = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", *_source_files(package)}
    wanted |= {"hatch_build.py"} if has_shim else set()
    found = [f"{name} is missing" for name in sorted(wanted - names)]
    found += [f"{name} must not be in it" for name in sorted(names) if _BINARY.search(name) or _STRAY.search(name)]
    return found


def _wheel_problems(package: str, names: set[str], filename: str) -> list[str]:
    sources = {name.removeprefix("src/") for name in _source_files(package)}
    shims = [name for name in names if _BINARY.search(name)]
    has_shim = any(name.startswith(f"{package}/_c/") for name in sources)
    wanted = {name for name in sources if not name.startswith(f"{package}/_c/")} | {f"{package}/py.typed"}
    found = [f"{name} is missing" for name in sorted(wanted - names)]
    strangers = [name for name in sorted(names) if not name.startswith((f"{package}/", f"{package}-"))]
    found += [f"{name} must not be in it" for name in strangers if not _BINARY.search(name)]
    if has_shim:
        if f"{package}/_shim.pyi" not in names:
            found.append(f"{package}/_shim.pyi is missing")
        if shims != [f"{package}/_shim.abi3.so"]:
            found.append(
                f"expected {package}/_shim.abi3.so as its one binary, found {', '.join(sorted(shims)) or 'none'}"
            )
        if "-cp311-abi3-" not in filename:
            found.append("expected the tag cp311-abi3")
    elif shims or not filename.endswith("-py3-none-any.whl"):
        found.append("expected a pure wheel")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        found.append("the licence is missing")
    return found


def main(arguments: Sequence[str]) -> int:
    """Check the packages in a folder; print what is wrong; return the exit code."""
    folder = Path(arguments[0]) if arguments else ROOT / "build" / "wheels"
    packages = arguments[1:] or PACKAGES
    found = [line for package in packages for line in check(package, folder)]
    for line in found:
        print(f"check_dists: {line}", file=sys.stderr)
    if not found:
        print(f"check_dists: the sdists and wheels of {', '.join(packages)} hold what they should")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
