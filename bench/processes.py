"""Processes that are measured: each is a session of its own, is pinned, and is surely gone at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import machine


@dataclass(frozen=True)
class Usage:
    """CPU time in seconds that a session has used so far, in user space and in the kernel."""

    user: float
    kernel: float

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.user - other.user, self.kernel - other.kernel)

    @property
    def total(self) -> float:
        return self.user + self.kernel


@dataclass(frozen=True)
class Memory:
    """Memory of a session in bytes: now, its peak, and the share that is really its own (for several processes)."""

    rss: int
    peak: int
    pss: int
    processes: int

    @property
    def used(self) -> int:
        """What to compare: processes of one server share pages, which the sum of RSS would count twice."""
        return self.rss if self.processes == 1 else self.pss


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on; the second, the name, may contain anything."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None


def session_pids(session: int) -> list[int]:
    """Every process of a session. Workers that a server forks stay in it."""
    pids = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            fields = _stat(int(entry))
            if fields and int(fields[3]) == session and fields[0] != "Z":
                pids.append(int(entry))
    return pids


def _fields_kib(path: str) -> dict[str, int]:
    values = {}
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            name, _, rest = line.partition(":")
            if rest.endswith("kB"):
                values[name] = int(rest.split()[0]) * 1024
    return values


class Process:
    """A server or a load client while it runs."""

    def __init__(self, popen: subprocess.Popen[bytes], log: IO[bytes], note: str) -> None:
        self.popen = popen
        self.session = popen.pid
        self.note = note
        self._log = log
        self._pids: list[int] = []

    def find_workers(self) -> None:
        """Look for the session's processes once: walking /proc while the load runs would disturb it."""
        self._pids = session_pids(self.session)

    def usage(self) -> Usage:
        """CPU time so far, all threads and workers, and those that have ended and were waited for."""
        user = kernel = 0
        for pid in self._pids or [self.session]:
            fields = _stat(pid)
            if fields:
                user += int(fields[11]) + int(fields[13])
                kernel += int(fields[12]) + int(fields[14])
        return Usage(user / machine.TICKS, kernel / machine.TICKS)

    def memory(self) -> Memory:
        """Memory now, summed over the session's processes."""
        pids = session_pids(self.session)
        status = [_fields_kib(f"/proc/{pid}/status") for pid in pids]
        pss = sum(_fields_kib(f"/proc/{pid}/smaps_rollup").get("Pss", 0) for pid in pids)
        rss = sum(row.get("VmRSS", 0) for row in status)
        return Memory(rss, sum(row.get("VmHWM", 0) for row in status), pss or rss, len(pids))

    def last_words(self) -> str:
        """The last lines that the process has written, for the reason why it failed."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[-300:]

    def kill(self) -> None:
        """End every process of the session. They keep nothing, so there is no reason to ask first and wait."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            pids = session_pids(self.session)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not pids and self.popen.poll() is not None:
                return
            time.sleep(0.01)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    core: int | None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pipes: bool = False,
) -> Iterator[Process]:
    """Run a command as a session of its own on a core, with priority, and kill the session at the end.

    Args:
        command: Program and arguments.
        core: The core to pin it to, or ``None``.
        env: Variables to add to the environment.
        cwd: Its working directory.
        pipes: Whether stdin and stdout are pipes to us; otherwise stdout goes to the log.
    """
    with tempfile.TemporaryFile() as log:
        pipe = subprocess.PIPE
        with machine.pinned(core):
            popen = subprocess.Popen(
                command,
                stdin=pipe if pipes else subprocess.DEVNULL,
                stdout=pipe if pipes else log,
                stderr=log,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        process = Process(popen, log, "")
        try:
            process.note = machine.give_priority(popen.pid)
            yield process
        finally:
            process.kill()
            for stream in (popen.stdin, popen.stdout):
                if stream:
                    with contextlib.suppress(OSError):
                        stream.close()
