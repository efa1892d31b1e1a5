"""A flame graph of one of our servers under load, Python's functions and C's in one stack: ``python3 bench/flame.py http``.

py-spy takes the samples (``pip install py-spy``); what the kernel does is in them as the call that asked for it. Wide is what
takes time. The SVG is for a browser: click to zoom, Ctrl-F to find.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import loads
import processes
from peers import NotAvailable

BENCH = Path(__file__).resolve().parent
PATIENCE = 20.0
# For each name: the server and what follows its port, the load and its options.
WORK = {
    "http": ("evhttp_hello.py", "hello", "load", ("--expect", loads.BODY)),
    "pipeline": ("evhttp_hello.py", "hello", "load", ("--expect", loads.BODY, "--pipeline", "16")),
    "echo": ("net_evnet.py", "echo", "echo_load", ("--size", "1024")),
    "ws": ("ws_evws.py", "echo", "ws_load", ("--size", "100")),
}


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def reach(port: int, server: processes.Process) -> None:
    """Wait until the server listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), PATIENCE):
            return
        if server.popen.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"flame: the server does not listen: {server.last_words()}")
        time.sleep(0.02)


def main() -> int:
    """Record; 0 when the picture is there."""
    parser = argparse.ArgumentParser(prog="flame", description="Draw a flame graph of a server under load.")
    parser.add_argument("work", choices=sorted(WORK), help="what it is loaded with")
    parser.add_argument("--python", default=sys.executable, help="the Python that has our packages (default: this one)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--out", type=Path, help="where the SVG goes (default: build/profile/WORK.svg)")
    options = parser.parse_args()
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        raise SystemExit("flame: py-spy was not found: pip install py-spy")
    out = options.out or BENCH.parent / "build" / "profile" / f"{options.work}.svg"
    out.parent.mkdir(parents=True, exist_ok=True)
    script, kind, load, arguments = WORK[options.work]
    try:
        client = str(loads.build(load))
    except NotAvailable as error:
        raise SystemExit(f"flame: {error}") from None
    port = free_port()
    command = [options.python, str(BENCH / "servers" / script), "127.0.0.1", str(port), kind]
    with processes.running(command, core=None) as server:
        reach(port, server)
        # The load goes on for longer than samples are taken, so that none shows a server at rest.
        times = ["--seconds", str(options.seconds + 5), "--warmup", "0.5"]
        with processes.running([client, f"127.0.0.1:{port}", *arguments, *times], core=None):
            record = ["--pid", str(server.popen.pid), "--duration", str(round(options.seconds)), "--output", str(out)]
            look = ["--native", "--rate", "500", "--format", "flamegraph"]
            done = subprocess.run([spy, "record", *look, *record], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"flame: py-spy has failed: {(done.stderr or done.stdout).strip()[-500:]}")
    print(f"flame: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
