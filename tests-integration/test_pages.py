"""What the site and the READMEs say of names and defaults is so."""

import importlib
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evhttp
import evws

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md")), *sorted(DOCS.glob("*.md"))]
PACKAGES = ("evloop", "evnet", "evhttp", "evws", "evmulti")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for package, name in sorted(set(re.findall(rf"\b({'|'.join(PACKAGES)})\.([A-Za-z]\w*)\b", text))):
        if name in ("c", "h", "html", "md", "py", "sock"):  # a file of that name
            continue
        module: Any = importlib.import_module(package)
        if not hasattr(module, name):
            importlib.import_module(f"{package}.{name}")


def rows(heading: str) -> dict[str, str]:
    """Return the defaults in the table below a heading of the page about limits."""
    _, _, section = (DOCS / "limits.md").read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    found: dict[str, str] = {}
    for line in section.partition("\n## ")[0].splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            names = re.findall(r"`(\w+)`", cells[0])
            found.update(zip(names, cells[1].split(", ") if len(names) > 1 else cells[1:2], strict=True))
    return found


def value(text: str) -> float | None:
    if text in ("any number", "none"):
        return math.inf
    if text == "as the message":
        return None
    number, _, unit = text.partition(" ")
    return int(number.replace(",", "")) * (1 << 20 if unit.startswith("MiB") else 1)


@pytest.mark.parametrize(
    ("heading", "limits"), [("HTTP: `evhttp.Limits`", evhttp.Limits()), ("WebSocket: `evws.Limits`", evws.Limits())]
)
def test_the_page_about_limits_has_every_default(heading: str, limits: Any) -> None:
    said = {name: value(text) for name, text in rows(heading).items()}
    are = {name: getattr(limits, name) for name in type(limits).__dataclass_fields__}
    policies = {"refuse_connections", "when_full"}  # what happens beyond a limit, not limits
    assert said == {name: limit for name, limit in are.items() if name not in policies}


def test_flags_of_command_lines_exist() -> None:
    """Each flag that a page passes to `python -m` one of our packages."""
    used: dict[str, set[str]] = {}
    for path in PAGES:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for package, arguments in re.findall(r"python3? -m (evhttp|evws|evmulti)\b([^\n`|]*)", text):
            used.setdefault(package, set()).update(re.findall(r"--[a-z][a-z-]+", arguments))
    assert set(used) == {"evhttp", "evws", "evmulti"}
    for package, flags in used.items():
        command = [sys.executable, "-m", package, "--help"]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        assert flags - set(re.findall(r"--[a-z][a-z-]+", text)) == set()
