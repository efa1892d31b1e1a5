"""One measurement of one loop in a process of its own: ``python worker.py LOOP WORKLOAD``; it prints a line of JSON.

The line is ``{"figures": {...}}``, or ``{"wrong": "..."}`` when the loop did not do what was asked of it, or
``{"not_available": "..."}``. It needs nothing that is not in the standard library, besides the loop.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import resource
import sys
from collections.abc import Callable

import adapters
import callbacks
import descriptors
import others
import timing
from sections import Figures, Options, Wrong

WORKLOADS: dict[str, Callable[[adapters.Loop, Options], Figures]] = {
    function.__name__: function
    for function in (
        callbacks.call_soon,
        timing.timers,
        timing.fire,
        descriptors.readiness,
        descriptors.latency,
        callbacks.threadsafe,
        others.sendfile,
        others.idle,
    )
}


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))


def _measure(loop: str, workload: str, options: Options) -> dict[str, object]:
    try:
        figures = WORKLOADS[workload](adapters.open_loop(loop), options)
    except adapters.NotInstalled as error:
        return {"not_available": str(error)}
    except Wrong as error:
        return {"wrong": str(error)}
    if not figures:
        return {"not_available": f"{loop} has nothing for {workload}"}
    return {"figures": figures}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loop", choices=adapters.NAMES)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each timed section (default: 0.4)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the sizes by this (default: 1)")
    parser.add_argument("--cores", default="", metavar="A,B", help="the core it is on and another (threadsafe)")
    parser.add_argument("--peer", default="", metavar="HOST:PORT", help="where the receiver listens (sendfile)")
    parser.add_argument("--limit", type=float, default=120, help="give up after so many seconds (default: 120)")
    parser.add_argument("--hold", action="store_true", help="end only when stdin is closed")
    args = parser.parse_args()
    faulthandler.dump_traceback_later(args.limit, exit=True)
    _raise_file_limit()
    cores = tuple(int(core) for core in args.cores.split(",") if core)
    result = _measure(args.loop, args.workload, Options(args.seconds, args.scale, cores, args.peer))
    print(json.dumps(result), flush=True)
    if args.hold:
        sys.stdin.read()
    os._exit(0)  # taking a loop with a million timers down is not measured, so nobody need wait for it


if __name__ == "__main__":
    sys.exit(main())
