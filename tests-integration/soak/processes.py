"""The service's processes: started, looked at from outside, and ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE = 60.0
# Milliseconds since the machine's start are often counted in 32 bits; a service that runs for 25 or 50 days sees them overflow.
WRAPS = {"process": 1 << 32, "thread": 1 << 31}


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE:g} s for {what}")
        await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Use:
    """What a process uses.

    Attributes:
        memory: Bytes that are its own, as the kernel counts them.
        descriptors: How many are open.
        allocated: Bytes that were allocated in C and not freed, if it says so; without the arenas of its loops.
        objects: How many small blocks Python's own allocator has given out, if it says so.
        arena: Bytes of the largest arena of its loops, if it says so.
    """

    memory: int
    descriptors: int
    allocated: int | None = None
    objects: int | None = None
    arena: int | None = None

    def __str__(self) -> str:
        in_use = (
            ""
            if self.allocated is None or self.arena is None
            else f" (in use {self.allocated / 2**20:.2f} MiB in C, {self.objects} objects, an arena of {self.arena >> 10} KiB)"
        )
        return f"{self.memory / 2**20:.1f} MiB{in_use}, {self.descriptors} descriptors"


class Service:
    """`serve.py` in a process of its own.

    Args:
        mode: Of its workers.
        hosts: Where it listens.
        folder: For its files.
        wrap_after: Seconds until its monotonic clock passes what 32 bits of milliseconds hold, in a time namespace of its own;
            ``None``: it has the machine's clock.
        environment: More for its environment.
    """

    def __init__(
        self, mode: str, hosts: list[str], folder: Path, wrap_after: float | None, environment: dict[str, str]
    ) -> None:
        self.mode = mode
        self.log_path = folder.parent / f"{mode}.log"
        self._log = self.log_path.open("wb")
        command = [sys.executable, str(HERE / "serve.py"), mode, "2", *hosts]
        if wrap_after is not None:
            offset = int(WRAPS[mode] / 1000 - time.monotonic() - wrap_after)
            command = ["unshare", "--time", f"--monotonic={offset}", f"--boottime={offset}", "--fork", *command]
        self._popen = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | {"SOAK_FOLDER": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        )
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError(f"the service did not start:\n{self.log}")
        where = json.loads(line)
        self.plain: list[tuple[str, int]] = [(host, port) for host, port in where["plain"]]
        self.secure: tuple[str, int] = (where["tls"][0], where["tls"][1])
        # unshare has forked it.
        self.pid = self._popen.pid if wrap_after is None else children(self._popen.pid)[0]

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.log_path.read_text()

    def workers(self) -> list[int]:
        """The processes of its workers, the oldest first; none in threads."""
        return sorted(children(self.pid), key=started)

    def pids(self) -> list[int]:
        """All of its processes."""
        return [self.pid, *self.workers()]

    def use(self) -> dict[int, Use]:
        """What each of its processes uses."""
        return {pid: use(pid) for pid in self.pids()}

    def in_use(self, since: float) -> dict[int, Use] | None:
        """What each of its processes uses, with what its workers have written down; ``None``: one has not since that time."""
        found = self.use()
        for pid in self.workers() or [self.pid]:
            report = self.log_path.with_name(f"in-use-{pid}")
            if not report.exists() or report.stat().st_mtime < since:
                return None
            allocated, objects, arena = map(int, report.read_text().split())
            found[pid] = replace(found[pid], allocated=allocated, objects=objects, arena=arena)
        return found

    async def end(self) -> int:
        """End it in order; its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        await until(lambda: self._popen.poll() is not None, "the end of the service")
        return self._popen.returncode

    def close(self) -> None:
        """Be sure that nothing is left of it."""
        if self._popen.poll() is None:
            for pid in self.pids():
                os.kill(pid, signal.SIGKILL)
        self._popen.wait(PATIENCE)
        assert self._popen.stdout is not None
        self._popen.stdout.close()
        self._log.close()


def children(pid: int) -> list[int]:
    """The living processes that a process has started."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(each) for each in found if state(int(each)) not in ("Z", "X", "")]


def state(pid: int) -> str:
    """The letter of a process's state; ``""``: it is gone."""
    return stat(pid)[0]


def started(pid: int) -> int:
    """When a process was started, in ticks of the system."""
    return int(stat(pid)[19])


def stat(pid: int) -> list[str]:
    """What the kernel tells of a process, from its state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return [""] + ["0"] * 50


def use(pid: int) -> Use:
    """What a process uses now."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Use(int(status["RssAnon"].split()[0]) << 10, len(os.listdir(f"/proc/{pid}/fd")))
