"""Where the time of what is measured goes: samples by perf (Debian: ``apt install linux-perf``), while the load runs."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from peers import NotAvailable

RATE = "1999"  # samples a second, and no multiple of anything's own rhythm
MOST = 8  # symbols that are named
LEAST = 0.5  # percent below which nothing is named

# What a sample's binary is to a reader; the first that matches.
PARTS = (
    ("kernel", re.compile(r"\[(kernel|guest\.kernel|unknown)")),
    ("our C", re.compile(r"_shim\.")),
    ("interpreter", re.compile(r"^(lib)?python3")),
    ("libc", re.compile(r"^(libc[.-]|ld-|\[vdso\])")),
    ("OpenSSL", re.compile(r"^lib(ssl|crypto)|^_ssl\.")),
)


@dataclass(frozen=True)
class Profile:
    """Shares of the processor time, in percent: by what the code belongs to, and of the functions that take most."""

    samples: int
    parts: dict[str, float]
    functions: list[tuple[str, float]]

    def text(self) -> str:
        """It in a sentence."""
        parts = ", ".join(f"{name} {share:.0f}%" for name, share in self.parts.items() if share >= LEAST)
        functions = ", ".join(f"`{name}` {share:.1f}%" for name, share in self.functions)
        return f"{parts}; most of it in {functions} ({self.samples:,} samples)"


def part_of(binary: str) -> str:
    """What a binary belongs to; it is its own part if nothing else is known of it."""
    return next((name for name, pattern in PARTS if pattern.search(binary)), binary)


def read_report(lines: Iterable[str]) -> Profile:
    """Make a profile of what ``perf report`` says with tabs between share, samples, binary and symbol."""
    parts: dict[str, float] = {}
    functions: list[tuple[str, float]] = []
    samples = 0
    for line in lines:
        fields = [part.strip() for part in line.split("\t")]
        if line.startswith("#") or len(fields) < 4:
            continue
        share, binary = float(fields[0].rstrip("%")), fields[2]
        samples += int(fields[1])
        parts[part_of(binary)] = parts.get(part_of(binary), 0.0) + share
        name = re.sub(r"^\[.\] ", "", fields[3])
        if share >= LEAST and not name.startswith("0x"):  # no symbols in that binary
            functions.append((name, share))
    functions.sort(key=lambda each: -each[1])
    return Profile(samples, dict(sorted(parts.items(), key=lambda each: -each[1])), functions[:MOST])


@dataclass
class Profiler:
    """Takes samples of processes between `start` and `stop`."""

    profile: Profile | None = None
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="bench-profile-")
    )
    _perf: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        """Raises NotAvailable where there is no perf."""
        if shutil.which("perf") is None:
            raise NotAvailable("perf was not found: apt install linux-perf")

    @property
    def _data(self) -> str:
        return str(Path(self._folder.name, "perf.data"))

    def start(self, pids: Iterable[int]) -> None:
        """Begin."""
        # Not the cycles of the processor, which virtual machines often do not count.
        command = ["perf", "record", "--quiet", "--event", "cpu-clock", "--freq", RATE, "--output", self._data]
        command += ["--pid", ",".join(map(str, pids))]
        self._perf = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """End, and read what was found.

        Raises:
            NotAvailable: perf could not do it; perhaps the kernel does not let it.
        """
        assert self._perf is not None
        self._perf.send_signal(signal.SIGINT)
        self._perf.wait(30)
        command = ["perf", "report", "--input", self._data, "--stdio", "--no-children", "--call-graph", "none"]
        command += ["--show-nr-samples", "--sort", "dso,symbol", "--field-separator", "\t", "--percent-limit", "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotAvailable(f"perf has taken no samples: {done.stderr.strip()[-200:]}")
        self.profile = read_report(done.stdout.splitlines())
