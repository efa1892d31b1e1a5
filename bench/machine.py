"""The machine: what it is, whether it is at rest, which cores a benchmark gets, and how processes are pinned to them."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PRIORITY = -10  # of the scheduling groups of servers and load, see give_priority()
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cores:
    """Which core the server gets and which the load; ``None`` where there is only one and nothing can be pinned."""

    server: int | None
    load: int | None


def choose_cores() -> Cores:
    """The first two cores this process may use: 0 and 1 on most machines."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[1]) if len(allowed) > 1 else Cores(None, None)


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Pin this thread, so that what it starts meanwhile is on that core from its first instruction."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def give_priority(pid: int) -> str:
    """Raise the scheduling group of a process's session; return a note when that is not possible.

    With autogroups the kernel shares the processor between sessions, whatever the nice values inside them are: the
    only way to be ahead of a compiler in another terminal is to raise the session's own value.
    """
    for _ in range(5):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(PRIORITY))
            return ""
        except BlockingIOError:
            time.sleep(0.1)  # the kernel limits how often the value may be written
        except FileNotFoundError:
            return "no scheduling priority: this kernel has no autogroups"
        except OSError as error:
            return f"no scheduling priority: {error.strerror} (run as root to have it)"
    return "no scheduling priority: the kernel asked to try again later"


def raise_file_limit() -> int:
    """Raise the limit on open files, which child processes inherit, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (65536, hard):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def busy_ticks() -> dict[int, int]:
    """Ticks that each core has been busy since boot, time stolen by a hypervisor included."""
    busy = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
            busy[int(name[3:])] = user + nice + system + irq + softirq + steal
    return busy


def busy_share(seconds: float) -> float:
    """Watch the machine for a while: the share of its cores' time that is in use."""
    before, start = busy_ticks(), time.monotonic()
    time.sleep(seconds)
    spent = time.monotonic() - start
    after = busy_ticks()
    return sum(after[core] - before[core] for core in before) / TICKS / spent / len(before)


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def describe() -> dict[str, str | int]:
    """What has to be known about the machine to read a figure."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 0,
        "memory_mib": memory >> 20,
        "kernel": f"{platform.system()} {platform.release()}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
