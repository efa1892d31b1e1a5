"""Count lines: `python tools/lines.py`, of all packages or of those named.

Of Python and of C, those that are neither empty nor only a comment; docstrings count. Tests are all the files of both languages
below a package's `tests`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from provenance import PACKAGES

__all__ = ["count", "main"]

ROOT = Path(__file__).resolve().parent.parent
_COLUMNS = ("package", "Python", "C", "tests")
_PYTHON, _C = (".py", ".pyi"), (".c", ".h", ".cdef")


def count(package: str) -> tuple[int, int, int]:
    """Return the lines of the package's Python, C and tests."""
    folder = ROOT / "packages" / package
    source = folder / "src"
    return _lines(source, _PYTHON), _lines(source, _C), _lines(folder / "tests", (*_PYTHON, *_C))


def _lines(folder: Path, suffixes: Sequence[str]) -> int:
    return sum(_lines_of(path) for path in folder.rglob("*") if path.suffix in suffixes)


def _lines_of(path: Path) -> int:
    found = 0
    in_comment = False
    is_c = path.suffix in _C
    for line in map(str.strip, path.read_text(encoding="utf-8").splitlines()):
        if not is_c:
            found += bool(line) and not line.startswith("#")
            continue
        starts = in_comment or line.startswith("/*")
        in_comment = starts and "*/" not in line
        # A comment that ends a line of code is on that line; nothing follows one that stands by itself.
        found += bool(line) and not starts and not line.startswith("//")
    return found


def main(packages: Sequence[str]) -> int:
    """Print a table; return the exit code."""
    rows = [(name, *count(name)) for name in packages or PACKAGES]
    if len(rows) > 1:
        python, c, tests = (sum(column) for column in zip(*(count(name) for name, *_ in rows), strict=True))
        rows.append(("all", python, c, tests))
    for row in (_COLUMNS, *rows):
        print("  ".join(f"{cell:>8}" for cell in map(str, row)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
