"""Run benchmarks: ``python3 bench/run.py http ws``, or parts: ``python3 bench/run.py plain echo --servers evhttp,nginx,floor``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import app_bench
import dispatch_bench
import evloop_bench
import harness
import http_bench
import machine
import multi_bench
import net_bench
import peers
import plot
import report
import ws_bench
from catalog import Settings

# A further benchmark is a module with a BENCHMARK, and a line here.
BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        http_bench.BENCHMARK,
        app_bench.BENCHMARK,
        evloop_bench.BENCHMARK,
        net_bench.BENCHMARK,
        ws_bench.BENCHMARK,
        multi_bench.BENCHMARK,
        dispatch_bench.BENCHMARK,
    )
}


def _listing() -> str:
    lines = []
    for benchmark in BENCHMARKS.values():
        lines += [f"{benchmark.name}: {benchmark.summary}", "  workloads:"]
        lines += [f"    {item.name:<14}{item.summary}" for item in benchmark.workloads.values()]
        lines += [f"  {benchmark.subject}s:"]
        lines += [f"    {item.name:<14}{item.summary}" for item in benchmark.servers.values()]
    return "\n".join(lines)


def _names(parser: argparse.ArgumentParser, option: str, text: str | None, known: list[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()] if text else known
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"{option}: no such {', '.join(unknown)}; there is {', '.join(known)}")
    return list(dict.fromkeys(names))


def _defaults(name: str) -> str:
    return ", ".join(f"{key} {getattr(benchmark, name):g}" for key, benchmark in BENCHMARKS.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"benchmarks to run ({', '.join(BENCHMARKS)}), or workloads of any of them by the beginning of their names",
    )
    parser.add_argument("--list", action="store_true", help="list benchmarks, workloads and servers")
    parser.add_argument("--workloads", metavar="A,B", help="only these (default: all)")
    parser.add_argument(
        "--servers",
        "--loops",
        dest="servers",
        metavar="A,B",
        help="only these, the first is the base of ratios (default: all)",
    )
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds (default: {_defaults('rounds')})")
    parser.add_argument(
        "--seconds", type=float, help=f"of each measurement, or timed section (default: {_defaults('seconds')})"
    )
    parser.add_argument(
        "--warmup", type=float, help=f"seconds before (http, net; default: {http_bench.BENCHMARK.warmup:g})"
    )
    parser.add_argument("--scale", type=float, default=1, help="multiply the sizes by this (evloop, net; default: 1)")
    parser.add_argument("--load", choices=("own", "wrk"), default="own", help="load client (default: own)")
    parser.add_argument(
        "--rate", type=float, default=0, help="requests/s of the p99 workload (default: 60%% of nginx's)"
    )
    parser.add_argument("--python", help="a Python that has our packages (default: built from the checkout)")
    parser.add_argument(
        "--checkout", type=Path, metavar="DIR", help="build our packages from there (default: from here)"
    )
    parser.add_argument("--base-python", help="make the environments from this one (default: the system's)")
    parser.add_argument(
        "--if-busy",
        choices=("wait", "warn", "refuse"),
        default="wait",
        help="when the machine is not at rest: wait up to a minute and go on with a warning, only warn, or refuse",
    )
    parser.add_argument(
        "--profile", action="store_true", help="say where the first one's time goes, by perf, in one more round of each"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the results of one benchmark as JSON too")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="write NAME.json, NAME.md and a plot, NAME.svg, of each benchmark there",
    )
    return parser


def _plan(parser: argparse.ArgumentParser, args: argparse.Namespace, benchmark: harness.Benchmark) -> harness.Plan:
    args = argparse.Namespace(**vars(args))
    for name in ("rounds", "seconds", "warmup"):
        if getattr(args, name) is None:
            setattr(args, name, getattr(benchmark, name))
    if args.rounds < 1 or not 0.1 <= args.seconds <= 600 or not 0 <= args.warmup <= 60 or args.rate < 0:
        parser.error("--rounds is at least 1, --seconds from 0.1 to 600, --warmup from 0 to 60, --rate not negative")
    if not 0.001 <= args.scale <= 10:
        parser.error("--scale is from 0.001 to 10")
    base = peers.ask_interpreter(args.base_python) if args.base_python else peers.default_python()
    if base is None:
        parser.error(f"--base-python: {args.base_python} does not run")
    plan = harness.Plan(
        rounds=args.rounds,
        seconds=args.seconds,
        warmup=args.warmup,
        load=args.load,
        rate=args.rate,
        scale=args.scale,
        profile=args.profile,
        settings=Settings(base, args.python, args.checkout),
        files=machine.raise_file_limit(),
    )
    if plan.cores.server is None:
        plan.note(f"one core only: {benchmark.subject} and load share it, the figures mean little")
    if plan.files < benchmark.files:
        plan.note(f"only {plan.files:,} files may be open, all workloads need {benchmark.files:,}")
    return plan


def _check_rest(plan: harness.Plan, policy: str) -> bool:
    share = harness.wait_for_rest(60 if policy == "wait" else 0)
    if share <= 0.05:
        return True
    text = f"the machine was not at rest: {share:.0%} of its processor time was in use before the start"
    print(f"bench: {text}", file=sys.stderr)
    plan.note(text)
    return policy != "refuse"


def _chosen(parser: argparse.ArgumentParser, names: Sequence[str]) -> dict[str, list[str]]:
    """The workloads to run, by benchmark; none: all of them."""
    chosen: dict[str, list[str]] = {}
    for name in names:
        if name in BENCHMARKS:
            chosen[name] = list(BENCHMARKS[name].workloads)
            continue
        found = [(b.name, each) for b in BENCHMARKS.values() for each in b.workloads if each.startswith(name)]
        if not found:
            parser.error(f"there is no benchmark or workload {name}; --list shows all")
        for benchmark, workload in found:
            known = chosen.setdefault(benchmark, [])
            if workload not in known:
                known.append(workload)
    return chosen


def main() -> int:
    """Command line."""
    parser = _parser()
    args = parser.parse_args()
    if args.list:
        print(_listing())
        return 0
    chosen = _chosen(parser, args.names)
    if not chosen:
        parser.error("name a benchmark, or use --list")
    if len(chosen) > 1 and (args.out or args.workloads or args.servers):
        parser.error("--out, --workloads and --servers are for one benchmark, and these are " + ", ".join(chosen))
    if args.results:
        try:
            plot.check()
            args.results.mkdir(parents=True, exist_ok=True)
        except (plot.MissingPlotter, OSError) as error:
            parser.error(str(error))
    # However it is ended, the processes it started must end too: turn it into the exception that unwinds them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    code = 0
    for name, workloads in chosen.items():
        code = _run(parser, args, BENCHMARKS[name], workloads)
        if code:
            break
    return code


def _run(
    parser: argparse.ArgumentParser, args: argparse.Namespace, benchmark: harness.Benchmark, workloads: list[str]
) -> int:
    servers = _names(parser, "--servers", args.servers, list(benchmark.servers))
    workloads = _names(parser, "--workloads", args.workloads, workloads)
    plan = _plan(parser, args, benchmark)
    try:
        if not _check_rest(plan, args.if_busy):
            return 3
        results = harness.run(benchmark, servers, workloads, plan)
    except KeyboardInterrupt:
        return 130
    text = report.markdown(benchmark, plan, results)
    print(text, flush=True)
    if args.out:
        report.write_json(args.out, benchmark, plan, results)
    if args.results and not results.interrupted:
        report.write_json(args.results / f"{benchmark.name}.json", benchmark, plan, results, rounds=False)
        (args.results / f"{benchmark.name}.md").write_text(text)
        plot.draw(args.results / f"{benchmark.name}.svg", benchmark, plan, results)
    return 130 if results.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
