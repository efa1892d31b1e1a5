"""Find a free-threaded CPython, or build one: `python tools/free_threaded.py build/freethreaded` prints its path.

Looked at in turn: ``EV_FREE_THREADED``, ``python3.14t`` on PATH, and what was built into the folder before. Else the source of
python3.14 is got from the Debian mirror that apt is set up with, if its sid or testing has it, with lists of its own, which change
nothing for the system; and built, on one core and without profiling, in about ten minutes.

The exit code is 3, and the last line of stderr says why, when there is none and none can be had.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["NotAvailable", "find", "main"]

_SOURCE = "python3.14"
_SUITES = ("sid", "testing")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PROBE = "import sys; sys.exit(sys.version_info < (3, 14) or sys._is_gil_enabled())"
# A mirror that does not answer is one that does not have it.
_APT_PATIENCE = 120


class NotAvailable(Exception):
    """There is no free-threaded Python here; the message says why."""


def find(folder: Path) -> Path:
    """Return a free-threaded CPython 3.14 or newer, built below the folder if need be.

    Raises:
        NotAvailable: There is none, and its source could not be had.
        subprocess.CalledProcessError: The source is there, and could not be built; the messages are in the folder.
    """
    folder = folder.resolve()
    chosen = os.environ.get("EV_FREE_THREADED")
    if chosen and not _is_free_threaded(chosen):
        raise NotAvailable(f"EV_FREE_THREADED is {chosen}, which is no free-threaded CPython 3.14 or newer")
    for candidate in (chosen, shutil.which("python3.14t"), str(folder / "bin" / "python3.14t")):
        if candidate and _is_free_threaded(candidate):
            return Path(candidate)
    _build(_unpack(_download(folder / "source"), folder / "source"), folder)
    return folder / "bin" / "python3.14t"


def _is_free_threaded(python: str) -> bool:
    try:
        return subprocess.run([python, "-c", _PROBE], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _mirrors() -> Iterator[str]:
    """Yield the addresses that apt's configuration names for Debian, in both of its forms."""
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in places:
        if path.suffix in (".list", ".sources") and path.is_file():
            yield from re.findall(r"^(?:URIs:|deb .*?)\s*(https?://\S+/debian)/?\s", path.read_text(), re.MULTILINE)


def _archives(folder: Path) -> list[Path]:
    # Beside an archive may lie its signature, which apt has looked at.
    return [path for path in sorted(folder.glob(f"{_SOURCE}_*.orig.tar.*")) if path.suffix != ".asc"]


def _download(folder: Path) -> Path:
    """Return the source's archive."""
    found = _archives(folder)
    if found:
        return found[-1]
    mirror = next(_mirrors(), None)
    if mirror is None or shutil.which("apt-get") is None or not _KEYRING.is_file():
        raise NotAvailable(f"there is no {_SOURCE}t on PATH, and no apt for a Debian to get the source of one from")
    reasons = [_download_from(mirror, suite, folder) for suite in _SUITES if not _archives(folder)]
    found = _archives(folder)
    if not found:
        tried = "; ".join(reason for reason in reasons if reason)
        raise NotAvailable(f"there is no {_SOURCE}t on PATH, and its source cannot be had from Debian's pool: {tried}")
    return found[-1]


def _download_from(mirror: str, suite: str, folder: Path) -> str:
    """Have apt get the source; return why it did not, or nothing."""
    state = folder / f"apt-{suite}"
    for each in ("lists/partial", "cache/archives/partial"):
        (state / each).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "debian.sources").write_text(
        f"Types: deb-src\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nSigned-By: {_KEYRING}\n"
    )
    settings = {
        "Dir::Etc::sourcelist": state / "debian.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "Acquire::Retries": 1,
        # apt's own user may not be able to read the folder.
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    for command in (("update",), ("source", "--download-only", _SOURCE)):
        try:
            result = subprocess.run(
                ["apt-get", "-q", *options, *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_APT_PATIENCE,
            )
        except subprocess.TimeoutExpired:
            return f"{suite}: apt-get {command[0]} has not ended in {_APT_PATIENCE} s"
        if result.returncode != 0:
            errors = [line for line in result.stderr.splitlines() if line.startswith("E: ")]
            missing = re.search(r"(\S+\.orig\.tar\S*)\s+(\d{3} .*?)(?: \[|$)", result.stderr, re.MULTILINE)
            said = f"{Path(missing[1]).name}: {missing[2].strip()}" if missing else (errors or ["E: no message"])[0][3:]
            return f"{suite}: {said}"
    return ""


def _unpack(archive: Path, folder: Path) -> Path:
    subprocess.run(["tar", "-xf", archive.name], cwd=folder, check=True)
    return next(path for path in sorted(folder.iterdir()) if (path / "configure").is_file())


def _build(source: Path, folder: Path) -> None:
    print(f"free_threaded: building {source.name} with --disable-gil, which takes minutes", file=sys.stderr, flush=True)
    for number, command in enumerate(
        (
            (
                "./configure",
                f"--prefix={folder}",
                "--disable-gil",
                "--without-static-libpython",
                "--disable-test-modules",
            ),
            ("make", "-j1"),
            ("make", "altinstall"),
        )
    ):
        with (folder / f"step-{number}.log").open("w") as log:
            subprocess.run(command, cwd=source, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def main(arguments: Sequence[str]) -> int:
    """Print the path of the interpreter; return the exit code."""
    try:
        print(find(Path(arguments[0] if arguments else "build/freethreaded")))
    except NotAvailable as error:
        print(f"free_threaded: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
