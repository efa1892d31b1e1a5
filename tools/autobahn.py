"""Run the Autobahn testsuite against evws and judge its reports: ``python tools/autobahn.py WSTEST --report DIR [--full]``.

A case passes when its behaviour is "OK" and so is the way the connection was closed; what the suite calls informational has no
right answer. ``NON-STRICT`` fails here, as do ``UNIMPLEMENTED`` and an unclean end.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evloop
import evws

GOOD = {"OK", "INFORMATIONAL"}
# Of all 517 cases those that take longest: messages of more than 1 MiB, floods of large ones, large compressed ones. 361 are left.
LONG = [f"9.{group}.{number}" for group in (1, 2, 7, 8) for number in (4, 5, 6)]
LONG += [f"{group}.{number}" for group in ("12.*", "13.*") for number in range(7, 19)]
COUNTS = {True: 517, False: 361}
AGENT = "evws"
# For one role. The cases of 12.* and 13.* go to and fro a thousand times each: ten minutes on a machine that is at rest, several
# times as long on one that is not.
SECONDS = {True: 7200, False: 1200}
# The suite sends messages of up to 16 MiB, and in some cases many before it reads an echo.
LIMITS = evws.Limits(max_message_size=32 << 20, max_queue_size=1 << 30)


class SuiteError(Exception):
    """The suite did not do what it was asked to."""


def echo(ws: evws.WebSocket, message: Any) -> None:
    """What the suite expects of both roles."""
    ws.send(message)


def specification(folder: Path, full: bool, **more: object) -> Path:
    """Write down what the suite is to do."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = {"cases": ["*"], "exclude-cases": [] if full else LONG, "exclude-agent-cases": {}}
    path = folder / "spec.json"
    path.write_text(json.dumps({"outdir": str(folder), **cases, **more}), encoding="utf-8")
    return path


def run_server_cases(wstest: str, folder: Path, full: bool) -> None:
    """Let the suite's fuzzing client work on a server in a thread of this process."""
    loop = evloop.Loop()
    server = evws.Server(on_message=echo, loop=loop, limits=LIMITS, compression=evws.Deflate())
    server.listen("127.0.0.1", 0)
    host, port = server.addresses[0][:2]
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        spec = specification(folder, full, servers=[{"agent": AGENT, "url": f"ws://{host}:{port}"}])
        with (folder / "wstest.log").open("wb") as log:
            command = [wstest, "-m", "fuzzingclient", "-s", str(spec)]
            subprocess.run(command, check=True, timeout=SECONDS[full], stdout=log)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Client:
    """Goes through the cases of the suite's fuzzing server, one connection after the other, and asks for the report."""

    def __init__(self, loop: evloop.Loop, url: str) -> None:
        self._loop = loop
        self._url = url
        self._count = self._number = 0
        self.error: SuiteError | None = None
        # The suite takes a second or more until it listens.
        patience = evws.Backoff(initial=0.1, maximum=0.5)
        self._counting = evws.connect(
            loop, f"{url}/getCaseCount", on_message=self._counted, on_close=self._asked, reconnect=patience
        )

    def _counted(self, ws: evws.WebSocket, message: Any) -> None:
        self._count = int(message)
        ws.close()

    def _asked(self, ws: evws.WebSocket, code: int, reason: str) -> None:
        self._counting.close()
        self._run(1)

    def _run(self, number: int) -> None:
        """Play the case of that number, and those behind it."""
        self._number = number
        if number > self._count:
            self._connect("updateReports?", self._loop.stop)
        else:
            self._connect(f"runCase?case={number}&", lambda: self._run(number + 1))

    def _connect(self, what: str, then: Callable[[], object]) -> None:
        connecting = evws.connect(
            self._loop,
            f"{self._url}/{what}agent={AGENT}",
            on_message=echo,
            on_close=lambda ws, code, reason: then(),
            limits=LIMITS,
            compression=evws.Deflate(),
            timeout=60,  # the suite is busy with the last case, or its report
        )
        connecting.add_done_callback(self._opened)

    def _opened(self, connecting: evws.Connecting) -> None:
        error = None if connecting.cancelled() else connecting.exception()
        if isinstance(error, Exception):
            self.error = SuiteError(f"no connection to the fuzzing server: {error}")
            self._loop.stop()

    def look_at(self, process: subprocess.Popen[bytes]) -> None:
        """Give up if the suite has."""
        if process.poll() is not None:
            self.give_up("the fuzzing server ended")

    def give_up(self, why: str) -> None:
        """End it, with an error."""
        self.error = SuiteError(f"case {self._number} of {self._count} was under way when {why}")
        self._loop.stop()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def run_client_cases(wstest: str, folder: Path, full: bool) -> None:
    """Let a client in this process work on the suite's fuzzing server."""
    url = f"ws://127.0.0.1:{free_port()}"
    spec = specification(folder, full, url=url)
    command = [wstest, "-m", "fuzzingserver", "-s", str(spec), "--webport", "0"]
    with (
        (folder / "wstest.log").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log) as process,
        evloop.Loop() as loop,
    ):
        try:
            client = Client(loop, url)
            loop.call_later(SECONDS[full], client.give_up, "the time was over")
            loop.call_every(1.0, client.look_at, process)
            loop.run()
        finally:
            process.terminate()
    if client.error is not None:
        raise client.error


ROLES = {"server": run_server_cases, "client": run_client_cases}


def judge(index: Path, full: bool) -> tuple[list[str], str]:
    """Read a report; return what is wrong with it, a line each, and a line that sums it up."""
    if not index.is_file():
        return ["the suite has written no report"], "no report"
    cases: dict[str, dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))[AGENT]
    problems = [
        f"case {name}: {case['behavior']}, closed {case['behaviorClose']}"
        for name, case in sorted(cases.items())
        if case["behavior"] not in GOOD or case["behaviorClose"] not in GOOD
    ]
    if len(cases) != COUNTS[full]:
        problems.append(f"{len(cases)} cases were run, expected {COUNTS[full]}")
    found = Counter(case["behavior"] for case in cases.values())
    return problems, f"{len(cases)} cases: {', '.join(f'{count} {name}' for name, count in sorted(found.items()))}"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wstest", help="the suite's program")
    parser.add_argument("--report", type=Path, required=True, help="folder for its reports, one for each role")
    parser.add_argument("--full", action="store_true", help="all 517 cases, which take some minutes in each role")
    parser.add_argument("--role", choices=list(ROLES), help="only this one")
    args = parser.parse_args()
    failed = False
    for role in [args.role] if args.role else ROLES:
        folder = args.report.resolve() / role
        (folder / "index.json").unlink(missing_ok=True)  # of an earlier run
        ROLES[role](args.wstest, folder, args.full)
        problems, summary = judge(folder / "index.json", args.full)
        failed |= bool(problems)
        print(
            "\n".join([*problems, f"evws as the {role}: {summary}: {'failed' if problems else 'passed'}"]), flush=True
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
