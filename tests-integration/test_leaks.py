"""What `tools/leaks.py` takes for ours of what the sanitizers write."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAK = """
=================================================================
==7==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 100 byte(s) in 1 object(s) allocated from:
    #0 0x7effa2cb89cf in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69
    #1 0x5570ed80d16a in {first}
    #2 0x7effa2a45249 in {second}

SUMMARY: AddressSanitizer: 100 byte(s) leaked in 1 allocation(s).
"""
ERROR = """==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x602000000010 at pc 0x1 bp 0x2 sp 0x3
READ of size 1 at 0x602000000010 thread T0
"""
UNDEFINED = "packages/evloop/src/evloop/_c/wheel.c:10:3: runtime error: shift exponent 64 is too large\n"
OURS = "ev_pool_new packages/evloop/src/evloop/_c/pool.c:20"
NO_LINES = "(/somewhere/evnet/_shim.abi3.so+0x1234) (BuildId: 00)"
CPYTHON = "PyObject_Malloc (/usr/bin/python3.11+0x51f3b4)"


@pytest.fixture(scope="module")
def leaks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_leaks", ROOT / "tools" / "leaks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "count"),
    [
        pytest.param(LEAK.format(first=OURS, second=CPYTHON), 1, id="allocated by ours"),
        pytest.param(LEAK.format(first=NO_LINES, second=CPYTHON), 1, id="allocated by ours, without debug information"),
        pytest.param(LEAK.format(first=CPYTHON, second=OURS), 0, id="an object that the interpreter keeps"),
        pytest.param(ERROR, 1, id="an error"),
        pytest.param(UNDEFINED, 1, id="undefined behaviour"),
        pytest.param("", 0, id="nothing"),
    ],
)
def test_what_is_ours(leaks: ModuleType, text: str, count: int) -> None:
    assert len(leaks.ours(text)) == count


def test_the_verdict(leaks: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "asan.1").write_text(LEAK.format(first=CPYTHON, second=OURS))
    assert leaks.main(tmp_path) == 0
    (tmp_path / "asan.2").write_text(LEAK.format(first=OURS, second=CPYTHON))
    (tmp_path / "asan.3").write_text(LEAK.format(first=OURS, second=CPYTHON))
    assert leaks.main(tmp_path) == 1
    printed = capsys.readouterr().out
    assert "2 × Direct leak of 100 byte(s)" in printed
    assert "2 reports about our code; 1 allocations of CPython" in printed
