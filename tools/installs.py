"""Install the packages as a user would, by name, and see what comes: `python tools/installs.py build/wheels`.

Into environments of their own, from the folder of wheels and from no index:

1. each package alone, with what it requires: what came and that nothing else did; its program in `tools/smoke.py` runs;
2. the next micro version of one package under the others, and back: only that package changes, and all programs run;
3. a version outside the others' ranges: pip refuses the pair; where it was forced, the import says which two versions do not fit
   and which command mends that, and the command does.

The Python that runs this needs pip and what builds the packages; the session `install` provides them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement

from provenance import PACKAGES

__all__ = ["main"]

ROOT = Path(__file__).resolve().parent.parent
_SMOKE = ROOT / "tools" / "smoke.py"
_LIST = """
import json
from importlib import metadata
print(json.dumps({each.name.lower(): each.version for each in metadata.distributions()}))
"""


class Unexpected(Exception):
    """An installation came out other than it should; the message says which."""


class Environment:
    """A fresh virtual environment, which sees the given folders of wheels and no index."""

    def __init__(self, folder: Path, links: Sequence[Path]) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self._python = folder / "bin" / "python"
        # Isolated from whatever configures pip on this machine: it may name further indexes.
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        self._environment = clean | {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_FIND_LINKS": " ".join(map(str, links)),
            "PIP_NO_INDEX": "1",
        }

    def pip(self, *arguments: str, fails: bool = False) -> str:
        """Run pip on this environment; return what it printed. ``fails`` says whether it is to refuse."""
        command = [sys.executable, "-m", "pip", "--python", str(self._python), *arguments]
        return self._run(command, fails=fails)

    def python(self, *arguments: str, fails: bool = False) -> str:
        """Run this environment's Python, likewise."""
        return self._run([str(self._python), *arguments], fails=fails)

    def installed(self) -> dict[str, str]:
        """Map the distributions in this environment to their versions."""
        found: dict[str, str] = json.loads(self.python("-c", _LIST))
        return found

    def smoke(self, package: str) -> str:
        """Run the package's program; return what it says."""
        return self.python("-W", "error", str(_SMOKE), package).strip().removeprefix("smoke: ")

    def _run(self, command: list[str], *, fails: bool) -> str:
        result = subprocess.run(
            command,
            env=self._environment,
            cwd="/",  # so that nothing is imported from the checkout
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        output = result.stdout + result.stderr
        if (result.returncode != 0) is not fails:
            raise Unexpected(f"{shlex.join(command)} ended with {result.returncode}\n{output}")
        return output


def _say(text: str) -> None:
    print(text, flush=True)


def _requirements(wheel: Path) -> list[Requirement]:
    """Return what a wheel requires when no extra of it is asked for."""
    with ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        header = HeaderParser().parsestr(archive.read(name).decode())
    found = [Requirement(text) for text in header.get_all("Requires-Dist", [])]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


def _wheel(folder: Path, package: str) -> Path:
    found = sorted(folder.glob(f"{package}-*.whl"))
    if len(found) != 1:
        raise Unexpected(f"expected one wheel of {package} in {folder}, found {len(found)}")
    return found[0]


def _version(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def _bring_others(wheels: Path, folder: Path) -> None:
    """Download what the packages require from elsewhere, with what that requires; what an index has of ours stays there."""
    wanted = {
        str(each) for name in PACKAGES for each in _requirements(_wheel(wheels, name)) if each.name not in PACKAGES
    }
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "-d", str(folder), *sorted(wanted)]
    subprocess.run(command, check=True)


def _each_alone(scratch: Path, wheels: Path, links: Sequence[Path]) -> None:
    """Install each package by name into an environment of its own."""
    for package in PACKAGES:
        environment = Environment(scratch / f"alone-{package}", links)
        environment.pip("install", "-q", package)
        environment.pip("check")
        found = environment.installed()
        siblings = {each.name for each in _requirements(_wheel(wheels, package)) if each.name in PACKAGES} | {package}
        ours = [name for name in PACKAGES if name in found]
        if set(ours) != siblings:
            raise Unexpected(f"{package} requires {sorted(siblings)}, and brought {ours}")
        others = [name for name in sorted(found) if name not in PACKAGES]
        _say(f"{package} alone")
        _say("  installed      " + ", ".join(f"{name} {found[name]}" for name in [*ours, *others]))
        _say("  not installed  " + (", ".join(name for name in PACKAGES if name not in found) or "-"))
        _say("  it runs        " + environment.smoke(package))


def _build_changed(package: str, version: str, scratch: Path, *, interface: str | None = None) -> Path:
    """Build a wheel of another version from a copy; return the folder it is in.

    Args:
        package: Which.
        version: The version it shall say.
        scratch: Where copy and wheel go.
        interface: The major number of the C interface it shall offer; by default its own.
    """
    copy = scratch / f"{package}-{version}-source"
    shutil.copytree(ROOT / "packages" / package, copy, ignore=shutil.ignore_patterns("build", "*.so", "__pycache__"))
    source = copy / "src" / package
    _replace(source / "_version.py", r'(__version__ = )".*"', rf'\g<1>"{version}"')
    if interface is not None:
        _replace(source / "include" / f"{package}.h", r"(#define EV_CAPI_MAJOR )\d+", rf"\g<1>{interface}")
    folder = scratch / f"{package}-{version}"
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(copy)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise Unexpected(f"{package} {version} could not be built\n{result.stdout}{result.stderr}")
    return folder


def _replace(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"))
    if count != 1:
        raise Unexpected(f"{path}: expected one line like {pattern}, found {count}")
    path.write_text(text, encoding="utf-8")


def _upgrade_one(scratch: Path, wheels: Path, links: Sequence[Path]) -> None:
    """Exchange the package that all others stand on for its next micro version, and back."""
    package = PACKAGES[0]
    before = _version(_wheel(wheels, package))
    major, minor, micro = before.split(".")
    after = f"{major}.{minor}.{int(micro) + 1}"
    environment = Environment(scratch / "upgrade", [*links, _build_changed(package, after, scratch)])
    environment.pip("install", "-q", f"{package}=={before}", PACKAGES[-1])
    others = environment.installed()
    for what, version in (("upgraded", after), ("downgraded", before)):
        environment.pip("install", "-q", f"{package}=={version}")
        environment.pip("check")
        found = environment.installed()
        if found != others | {package: version}:
            raise Unexpected(f"{package} was {what} to {version}, and there is {found}")
        _say(f"{package} {what} to {version}, nothing else was touched")
        for name in PACKAGES:
            _say("  it runs        " + environment.smoke(name))


def _incompatible(scratch: Path, wheels: Path, links: Sequence[Path]) -> None:
    """Put a version under the others that they do not admit."""
    below, above = PACKAGES[:2]
    stands = _version(_wheel(wheels, above))
    major, minor, _ = _version(_wheel(wheels, below)).split(".")
    stranger = f"{major}.{int(minor) + 1}.0"
    folder = _build_changed(below, stranger, scratch, interface="77")
    environment = Environment(scratch / "incompatible", [*links, folder])
    refusal = environment.pip("install", f"{below}=={stranger}", above, fails=True)
    if "ResolutionImpossible" not in refusal:
        raise Unexpected(f"pip refused the pair for another reason:\n{refusal}")
    _say(f"{below} {stranger} with {above} {stands}: pip finds no way to install both")
    environment.pip("install", "-q", above)
    # What pip does when it is asked for this one alone: it complains, and installs it.
    environment.pip("install", "-q", f"{below}=={stranger}")
    message = environment.python("-c", f"import {above}", fails=True).strip().splitlines()[-1]
    _say(f"  it was forced, and `import {above}` says\n  {message}")
    command = re.search(r"pip (install .*)$", message)
    if (
        not message.startswith("ImportError: ")
        or f"{above} {stands} " not in message
        or stranger not in message
        or not command
    ):
        raise Unexpected("expected an ImportError with both versions and the command that mends it")
    environment.pip(*shlex.split(command.group(1)), "-q")
    environment.pip("check")
    _say(f"  that command was run: {environment.smoke(above)}")


def main(arguments: Sequence[str]) -> int:
    """Do all of it with the wheels in a folder; return the exit code."""
    wheels = Path(arguments[0] if arguments else ROOT / "build" / "wheels").resolve()
    _say(f"with Python {sys.version.split()[0]}, pip {metadata.version('pip')}, wheels in {wheels.name}")
    with tempfile.TemporaryDirectory(prefix="installs-") as temporary:
        scratch = Path(temporary)
        links = [wheels, scratch / "others"]
        try:
            _bring_others(*links)
            _each_alone(scratch, wheels, links)
            _upgrade_one(scratch, wheels, links)
            _incompatible(scratch, wheels, links)
        except Unexpected as error:
            print(f"installs: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
