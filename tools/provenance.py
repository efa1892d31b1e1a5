"""Tell where the installed distributions of this repository came from, and refuse any that came from elsewhere.

The public index has other people's projects under two of our names, so an environment that took a sibling from there would test a
stranger's code. Run with the Python of the environment to look at::

    python tools/provenance.py --wheels build/wheels evloop evnet    # exactly these, installed from exactly these wheels
    python tools/provenance.py --editable packages evloop evnet      # exactly these, installed editable from this checkout

It reads pip's record of a direct origin, ``direct_url.json`` (PEP 610); a distribution from an index or from
``--find-links`` has none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["PACKAGES", "main", "problems"]

#: The distributions of this repository, lowest first.
PACKAGES = ("evloop", "evnet", "evhttp", "evws", "evmulti")


def problems(expected: Sequence[str], *, wheels: Path | None = None, packages: Path | None = None) -> list[str]:
    """List what is wrong with the installed distributions; an empty list means that all is well.

    Args:
        expected: The distributions of `PACKAGES` that must be installed, and no others of them.
        wheels: The folder that holds the wheels they must have been installed from.
        packages: The ``packages`` folder of the checkout that they must be editable installs of.
    """
    found = []
    for name in PACKAGES:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in expected:
                found.append(f"{name} is not installed")
            continue
        if name not in expected:
            found.append(f"{name} is installed and should not be: it is above the package under test")
            continue
        text = distribution.read_text("direct_url.json")
        if text is None:
            found.append(f"{name} {distribution.version} was taken from an index, not from this checkout")
            continue
        origin = json.loads(text)
        if wheels is not None:
            found += _wheel_problems(name, origin, wheels)
        if packages is not None:
            found += _editable_problems(name, origin, packages)
    return found


def _wheel_problems(name: str, origin: dict[str, Any], wheels: Path) -> list[str]:
    recorded = origin.get("archive_info", {}).get("hashes", {}).get("sha256")
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels.glob(f"{name}-*.whl")}
    if recorded is None or recorded not in hashes.values():
        built = ", ".join(hashes) or "none"
        return [f"{name} was installed from {origin['url']}, which is not a wheel built here ({built})"]
    return []


def _editable_problems(name: str, origin: dict[str, Any], packages: Path) -> list[str]:
    expected = (packages / name).resolve()
    path = Path(unquote(urlsplit(origin["url"]).path)).resolve()
    if not origin.get("dir_info", {}).get("editable") or path != expected:
        return [f"{name} was installed from {origin['url']}, not editable from {expected}"]
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the environment that this Python runs in; return the exit code."""
    parser = argparse.ArgumentParser(description="Check that our distributions were installed from this checkout.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--wheels", type=Path, help="they must come from the wheels in this folder")
    where.add_argument("--editable", type=Path, help="they must be editable installs of this `packages` folder")
    parser.add_argument("names", nargs="+", choices=PACKAGES)
    options = parser.parse_args(arguments)
    found = problems(options.names, wheels=options.wheels, packages=options.editable)
    for line in found:
        print(f"provenance: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
