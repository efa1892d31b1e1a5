"""The workers of the "evloop" benchmark: every workload, tiny, on every loop that is installed. Nothing asserts a time.

A worker checks its own counts, so that a figure comes only from a loop that did what was asked of it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "loops"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import adapters
import evloop_bench
import evloop_tables
import loads
import report
import sections
import worker
from samples import Sample, Samples, median_ratio

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmarks need Linux")

TINY = ("--seconds", "0.02", "--scale", "0.002", "--limit", "50")
needs_compiler = pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler")


def run_worker(loop: str, workload: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(evloop_bench.WORKER), loop, workload, *TINY, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(params=adapters.NAMES)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed for this interpreter")
    return name


@contextlib.contextmanager
def running_receiver(folder: Path) -> Iterator[int]:
    command = [str(loads.build("sendfile", folder)), "receive"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(json.loads(process.stdout.readline())["port"])
        finally:
            process.kill()


@pytest.mark.parametrize("workload", [name for name in worker.WORKLOADS if name != "sendfile"])
def test_workload(loop: str, workload: str) -> None:
    result = run_worker(loop, workload)
    assert "figures" in result, result
    assert all(math.isfinite(value) and value >= -1e6 for value in result["figures"].values())
    shown = {
        column.figure(Sample(figures=result["figures"]))
        for table in evloop_tables.TABLES[workload]
        for column in table.columns
    }
    assert len(shown - {None}) > 1


def test_threads_on_two_cores(loop: str) -> None:
    figures = run_worker(loop, "threadsafe", "--cores", "0,0")["figures"]
    assert {"post_wall", "post2_wall", "wake_p50", "wake2_p50"} <= figures.keys()


@needs_compiler
def test_sendfile(loop: str, tmp_path: Path) -> None:
    with running_receiver(tmp_path) as port:
        result = run_worker(loop, "sendfile", "--peer", f"127.0.0.1:{port}")
    if "not_available" in result:
        pytest.skip(result["not_available"])
    assert result["figures"]["bytes_wall"] > 0


@needs_compiler
@pytest.mark.parametrize("size", [1, 4097, 70 << 20], ids=["a byte", "a page and a byte", "more than the file"])
def test_sendfile_of_c(size: int, tmp_path: Path) -> None:
    with running_receiver(tmp_path) as port:
        command = [str(tmp_path / "sendfile"), "send", str(port), str(size)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert min(json.loads(done.stdout)["seconds"]) > 0


def test_loop_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(adapters.NotInstalled, match="uvloop"):
        adapters.open_loop("uvloop")


class BrokenLoop:
    """Forgets every hundredth callback."""

    def __init__(self, loop: adapters.Loop) -> None:
        self.loop = loop
        self.calls = 0

    def call_soon(self, callback: Any, *args: Any) -> None:
        self.calls += 1
        if self.calls % 100 or callback.__name__ in ("turn", "stop"):
            self.loop.call_soon(callback, *args)


@pytest.fixture
def asyncio_loop() -> Iterator[adapters.Loop]:
    loop = adapters.open_loop("asyncio")
    yield loop
    loop.close()


def test_forgotten_callbacks_are_noticed(asyncio_loop: adapters.Loop) -> None:
    fields = {**vars(asyncio_loop), "call_soon": BrokenLoop(asyncio_loop).call_soon}
    with pytest.raises(sections.Wrong, match="callbacks"):
        worker.WORKLOADS["call_soon"](adapters.Loop(**fields), sections.Options(seconds=0.02, scale=0.002))


def test_a_section_ends_and_counts_only_what_it_measured(asyncio_loop: adapters.Loop) -> None:
    steps = 0

    def step(done: sections.Done) -> int:
        nonlocal steps
        steps += 1
        asyncio_loop.call_soon(done)
        return 3

    figures, total = sections.drive(asyncio_loop, "some", 0.02, step)
    assert total == 3 * steps
    assert set(figures) == {"some_wall", "some_cpu", "some_ns"}


def test_quantiles() -> None:
    found = sections.quantiles("wait", [float(value) for value in range(1001)], unit=1)
    assert found == {"wait_p50": 500, "wait_p99": 990, "wait_max": 1000}
    with pytest.raises(sections.Wrong):
        sections.quantiles("wait", [])


def samples(**figures: float) -> list[Sample | None]:
    return [Sample(figures=figures), None, Sample(figures=figures)]


def test_targets_say_held_missed_or_not_available() -> None:
    measured: dict[str, Samples] = {
        "call_soon": {"evloop": samples(soon_chunk_cpu=3.4), "asyncio": samples(soon_chunk_cpu=2), "uvloop": samples()},
        "threadsafe": {
            "evloop": samples(post_wall=1, post2_wall=3, wake_p50=5, wake2_p50=5),
            "uvloop": samples(post_wall=2, post2_wall=3, wake_p50=10, wake2_p50=4),
        },
        "sendfile": {"evloop": [None], "c": samples(bytes_wall=1)},
    }
    rows = {what: text for what, _, text in evloop_tables.targets(measured)}
    assert rows["call_soon: call_soon (against asyncio)"] == "1.70 ×, held"
    assert rows["call_soon: defer beside call_soon (against uvloop)"] == "not available"
    assert rows["threadsafe: callbacks/s, one core (against uvloop)"] == "0.50 ×, MISSED"
    assert rows["threadsafe: callbacks/s, a core for each thread (against uvloop)"] == "1.00 ×, held"
    assert rows["threadsafe: wake-up p50, one core (against uvloop)"] == "2.00 ×, held"
    assert rows["threadsafe: wake-up p50, a core for each thread (against uvloop)"] == "0.80 ×, MISSED"
    assert rows["sendfile: 1 GiB (against c)"] == "not measured"


def test_ratios_are_taken_round_by_round() -> None:
    ours = [Sample(rps=10), None, Sample(rps=30)]
    theirs = [Sample(rps=5), Sample(rps=1), Sample(rps=10)]
    assert median_ratio(ours, theirs, lambda sample: sample.rps) == 2.5


def test_tables_have_a_column_for_each_loop_and_its_reasons() -> None:
    taken: Samples = {"evloop": samples(idle_ms=1, idle_seconds=2, switches=3), "rloop": [None]}
    text = report.workload_tables("loop", "idle: nothing", taken, {"rloop": ["broken"]}, evloop_tables.TABLES["idle"])
    assert "| evloop | 1.00 | 2.00 | 3 | – | – |" in text
    assert "- rloop: broken" in text
