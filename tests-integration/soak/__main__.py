"""Try a service for some minutes with all that it serves and all that goes wrong: `python tests-integration/soak MINUTES`.

HTTP, TLS, uploads, WebSockets and broadcast together, from clients that check every byte, while workers are killed and replaced,
connections reset, descriptors and disk used up, clocks jump and packets get lost; first with workers in processes, then in threads.
At the end a verdict, which is the exit code: 0 if nothing was lost that no fault explains, and nothing has grown.

As root it goes into namespaces of its own, for a network that can be spoilt, a disk that can be filled and a clock that overflows.
Without them it says what it could not try.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cable import NEAR, Cable
from clients import Crowd, Gate, Site
from clock import Clock
from content import BLOB
from faults import Faults, Inject
from ledger import Ledger
from processes import Service, Use, until

# What a process may grow by between two moments in which it serves nobody and has given back what is free. What is in use, bytes in
# C and objects of Python, is exact: one that is left by each request is more than this after a minute. What the kernel counts
# is not: a page with a little that is kept stays whole, and threads share a heap, in which what one keeps lies between what the
# others have freed (measured: 38 MiB, then 37, then 39, while 14.9 MiB were in use each time).
ALLOCATED, OBJECTS = 1 << 20, 10_000
# A loop's arena: streams leave their bytes in the kernel when a turn has brought 1 MiB, and the last of them may have gone beyond.
ARENA = 4 << 20
GROWTH = {"process": 4 << 20, "thread": 12 << 20}
# The end of the traceback of a handler that ends its worker.
ON_PURPOSE = re.compile(r"^SystemExit: 7$", re.MULTILINE)
DISK = 24 << 20
LOSS = 0.03


@dataclass
class Outcome:
    """What a pass has shown."""

    mode: str
    ledger: Ledger
    before: dict[int, Use] = field(default_factory=dict)
    after: dict[int, Use] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    growth: int = 0

    def judge(self, log: str, code: int, left: list[str]) -> None:
        """Look for whatever should not be."""
        ledger = self.ledger
        bad = self.failures
        bad += [f"lost, and no fault explains it: {each}" for each in ledger.unexplained]
        bad += [f"wrong bytes: {each}" for each in ledger.wrong]
        for pid, use in self.before.items():
            now = self.after.get(pid)
            if now is None:
                bad.append(f"process {pid} is gone, and nothing was done to it")
                continue
            if now.memory > use.memory + self.growth:
                bad.append(f"memory of process {pid} has grown: {use} before, {now} after")
            if use.allocated is not None and (now.allocated or 0) > use.allocated + ALLOCATED:
                bad.append(f"what process {pid} has allocated in C has grown: {use} before, {now} after")
            if (now.arena or 0) > ARENA:
                bad.append(
                    f"an arena of process {pid} is larger than any turn should make it: {use} before, {now} after"
                )
            if use.objects is not None and (now.objects or 0) > use.objects + OBJECTS:
                bad.append(f"the objects of process {pid} have become more: {use} before, {now} after")
            if now.descriptors > use.descriptors:
                bad.append(f"descriptors of process {pid} have leaked: {use} before, {now} after")
        if code:
            bad.append(f"the service has ended with code {code}")
        if "connections were aborted" in log:
            bad.append("connections were aborted at the end, when no client was there")
        if left:
            bad.append(f"files were left behind: {', '.join(left)}")
        traces = log.count("Traceback (most recent call last)") - len(ON_PURPOSE.findall(log))
        if traces:
            bad.append(f"{traces} tracebacks in the log")

    def show(self) -> None:
        """Print it."""
        ledger = self.ledger
        print(f"\n{self.mode}: {sum(ledger.checked.values())} answers checked, {ledger.bytes / 2**20:.0f} MiB")
        for kind, count in sorted(ledger.checked.items()):
            print(f"  {count:8d}  {kind}")
        print("  faults: " + ", ".join(f"{count} × {name}" for name, count in sorted(ledger.injected.items())))
        for name, why in ledger.skipped.items():
            print(f"  not tried: {name}: {why}")
        for name, count in sorted(ledger.explained.items()):
            print(f"  {count:8d}  {name}")
        print(f"  {len(ledger.unexplained):8d}  lost without a fault that explains it")
        print(f"  {len(ledger.wrong):8d}  with wrong bytes")
        for pid, use in self.before.items():
            print(f"  process {pid}: {use} before, {self.after.get(pid, 'gone')} after")
        for each in self.failures:
            print(f"  FAILED: {each}")


class Pass:
    """One pass: a service, its clients, its faults.

    Args:
        mode: Of the workers.
        seconds: How long.
        root: A folder; the service's is inside, a disk of its own if ``isolated``.
        isolated: Whether this runs in namespaces of its own.
    """

    def __init__(self, mode: str, seconds: float, root: Path, isolated: bool, seed: int) -> None:
        # Too little time for each arena to have been filled once before it is measured.
        self.outcome = Outcome(mode, Ledger(), growth=GROWTH[mode] * (1 if seconds > 100 else 3))
        self.mode = mode
        self.seconds = seconds
        self.root = root
        self.folder = root / "files"
        self.isolated = isolated
        self.seed = seed
        self.doing = "starting"

    async def run(self) -> Outcome:
        """Do it all."""
        ledger = self.outcome.ledger
        with ExitStack() as stack:
            cable = None
            if self.isolated:
                cable = Cable()
                stack.callback(cable.close)
                cable.loss = LOSS
            else:
                ledger.skipped["network loss, clock overflow, full disk (a file size limit instead)"] = (
                    "needs root, unshare(1) and ip(8)"
                )
            wrap = self.seconds * 0.3 if self.isolated else None
            clock = None
            try:
                clock = Clock(self.root)
            except FileNotFoundError as error:
                ledger.skipped["clocks that jump"] = str(error)
            hosts = ["127.0.0.1", NEAR] if cable else ["127.0.0.1"]
            service = Service(self.mode, hosts, self.folder, wrap, clock.environment if clock else {})
            stack.callback(service.close)
            if wrap is not None:
                ledger.injected["clock beyond 32 bits of milliseconds"] += 1
            trust = ssl.create_default_context(cafile=str(self.root / "cert.pem"))
            site = Site(service.plain[0], service.secure, trust)
            gate = Gate()
            far = partial(cable.connect, service.plain[1][1]) if cable else None
            crowd = Crowd(site, ledger, gate, self.seed, far)
            pause = 1.5 if self.seconds > 60 else 0.5
            faults = Faults(service, site, ledger, self.folder, self.isolated, cable, clock, pause)
            crowd.start()
            progress = asyncio.create_task(self.progress(service))
            begun = time.monotonic()
            try:
                gate.open()
                await self.inject(faults.all(), begun + self.seconds * 0.5)
                # From here on the same processes, so that what they use can be compared. They get acquainted with all of it first.
                await faults.rolling_restart()
                await self.inject(faults.gentle(), begun + self.seconds * 0.65)
                self.outcome.before = await self.at_rest(gate, service)
                # Of those who were killed; from now on nobody is.
                for unfinished in self.folder.glob("body-*"):
                    unfinished.unlink()
                gate.open()
                await self.inject(faults.gentle(), begun + self.seconds)
                self.outcome.after = await self.at_rest(gate, service)
                self.doing = "ending"
                code = await service.end()
            finally:
                await crowd.end()
                progress.cancel()
            left = sorted({path.name for path in self.folder.iterdir()} - {"blob", "cert.pem"})
            self.outcome.judge(service.log, code, left)
        return self.outcome

    async def inject(self, faults: list[Inject], until: float) -> None:
        """One fault after the other, each once at least, until it is time."""
        chance = random.Random(self.seed)
        while True:
            for fault in faults:
                self.doing = fault.__name__.replace("_", " ")
                await fault()
                self.doing = "nothing"
                await asyncio.sleep(min(chance.random() * 3, self.seconds / 100))
            if time.monotonic() >= until:
                return
            chance.shuffle(faults)

    async def at_rest(self, gate: Gate, service: Service) -> dict[int, Use]:
        """What the service's processes use when nobody asks for anything."""
        self.doing = "rest"
        await gate.close()
        # Whose connections have not ended yet may write down what they use once more.
        since = time.time() + 1
        seen: list[dict[int, Use]] = []
        found: dict[int, Use] | None = None

        def steady() -> bool:
            # The last connections end a moment after their clients have gone, and then what is free is given back.
            nonlocal found
            seen.append(service.use())
            counts = [[use.descriptors for use in each.values()] for each in seen[-75:]]
            if len(seen) > 100 and all(each == counts[-1] for each in counts):
                found = service.in_use(since)
            return found is not None

        await until(steady, "the service to come to rest")
        assert found is not None
        return found

    async def progress(self, service: Service) -> None:
        """Say each second how it goes, on a terminal; elsewhere each ten seconds."""
        ledger = self.outcome.ledger
        begun = time.monotonic()
        is_terminal = sys.stdout.isatty()
        while True:
            await asyncio.sleep(1 if is_terminal else 10)
            try:
                used = " ".join(f"{use.memory / 2**20:.0f}/{use.descriptors}" for use in service.use().values())
            except OSError:
                used = "…"  # one has just gone
            line = (
                f"{self.mode} {time.monotonic() - begun:4.0f} of {self.seconds:.0f} s  {sum(ledger.checked.values())} answers, "
                f"{ledger.bytes / 2**20:.0f} MiB, {sum(ledger.explained.values())} lost by faults, "
                f"{len(ledger.unexplained) + len(ledger.wrong)} LOST; MiB/descriptors {used}; {self.doing}"
            )
            print(f"\r{line}\x1b[K" if is_terminal else line, end="" if is_terminal else "\n", flush=True)


def isolate() -> bool:
    """Run this program again in namespaces of its own, or return whether it is there already; false: it cannot be."""
    if os.environ.get("SOAK_ISOLATED"):
        return True
    missing = [name for name in ("unshare", "ip") if shutil.which(name) is None]
    if os.geteuid() or missing or not os.path.exists("/dev/net/tun"):
        return False
    test = subprocess.run(["unshare", "--net", "--mount", "--time", "--fork", "true"], capture_output=True, check=False)
    if test.returncode:
        return False
    os.environ["SOAK_ISOLATED"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv])


def prepare(root: Path, isolated: bool) -> None:
    """Make what the service serves: a small disk with a certificate and a file."""
    files = root / "files"
    files.mkdir()
    if isolated:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(files)], check=True)
    (files / "blob").write_bytes(BLOB)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -days 2"
    made = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(root / "key.pem"), "-out", str(root / "cert.pem")]
    subprocess.run([*command.split(), *made], check=True, capture_output=True)
    (files / "cert.pem").write_bytes((root / "key.pem").read_bytes() + (root / "cert.pem").read_bytes())


def main() -> int:
    """Try both modes; 0 if they have passed."""
    parser = argparse.ArgumentParser(prog="soak", description="Try a service with all that goes wrong.")
    parser.add_argument("minutes", nargs="?", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument(
        "--mode", choices=["process", "thread"], help="only this one (default: both, processes for longer)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the clients' choices (default: 1)")
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error(f"minutes must be more than 0, not {options.minutes}")
    isolated = isolate()
    # It warns of writing to connections that are lost; ours are lost on purpose.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    shares = {options.mode: 1.0} if options.mode else {"process": 0.65, "thread": 0.35}
    outcomes = []
    for mode, share in shares.items():
        with tempfile.TemporaryDirectory(prefix="soak-") as folder, ExitStack() as stack:
            root = Path(folder)
            if isolated:
                stack.callback(subprocess.run, ["umount", str(root / "files")], check=False)
            prepare(root, isolated)
            one = Pass(mode, options.minutes * 60 * share, root, isolated, options.seed)
            try:
                outcomes.append(asyncio.run(one.run()))
            except BaseException:
                print(f"\nthe last lines of the {mode} service's log:")
                print("\n".join((root / f"{mode}.log").read_text().splitlines()[-40:]), flush=True)
                raise
            if outcomes[-1].failures:
                kept = Path(tempfile.gettempdir()) / f"soak-{mode}-{os.getpid()}.log"
                shutil.copy(root / f"{mode}.log", kept)
                print(f"\nthe service's log is in {kept}")
    for outcome in outcomes:
        outcome.show()
    failed = sum(len(outcome.failures) for outcome in outcomes)
    print(f"\nverdict: {'nothing lost, nothing grown' if not failed else f'{failed} FAILURES'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
