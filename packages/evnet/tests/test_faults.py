"""The tests of connections and servers once more, with system calls that are interrupted, refuse, and do half of what is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from evnet.testing import build_faults, run_with_faults

HERE = Path(__file__).resolve().parent

# These assert how often the loop turns, what comes in one batch, or when the kernel refuses bytes, which faults change.
NOT_THESE = (
    "leaves_while_reading_is_paused or without_descriptors or small_write_causes_no_pause or is_not_idle"
    " or close_inside_a_callback or close_in_the_same_batch or pause_and_resume_writing"
)

MADE = """
import ctypes, pytest, sys
code = pytest.main(sys.argv[1:])
made = ctypes.CDLL(None).ev_faults_made
made.restype = ctypes.c_uint64
print("faults", made())
sys.exit(code)
"""


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = build_faults(tmp_path_factory.mktemp("faults"))
    if library is None:
        pytest.skip("fault injection needs Linux and a C compiler")
    return library


@pytest.mark.parametrize(("seed", "one_in"), [(1, 3), (2, 20)], ids=["often", "seldom"])
@pytest.mark.timeout(120)
def test_the_same_tests_with_faults(faults: Path, seed: int, one_in: int) -> None:
    tests = [str(HERE / "test_connection.py"), str(HERE / "test_server.py")]
    options = ["-q", "-p", "no:cacheprovider", "-k", f"not ({NOT_THESE})", "--timeout", "60"]
    done = run_with_faults(faults, ["-c", MADE, *options, *tests], seed=seed, one_in=one_in, timeout=110)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(done.stdout.split("faults ")[1]) > 100
