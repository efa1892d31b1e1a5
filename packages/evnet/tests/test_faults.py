"""The tests of connections and servers once more, with system calls that are interrupted, refuse, and do half of what is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from evnet.testing import build_faults, run_with_faults

HERE = Path(__file__).resolve().parent

# These assert how often the loop turns, what comes in one batch, or when the kernel refuses bytes, which faults change.
NOT_THESE = (
    "leaves_while_reading_is_paused or without_descriptors or small_write_causes_no_pause or is_not_idle"
    " or close_inside_a_callback or close_in_the_same_batch or pause_and_resume_writing or without_asking_the_poller"
    " or does_not_starve or clients_wait or hand_over_tells_the_taker"
)

# The same, of the tests of TLS.
NOT_THESE_OF_TLS = "never_reads or pause_reading_stops or order_with_what_is_written or back_pressure_on"

# The same, of the tests of datagrams.
NOT_THESE_DATAGRAMS = (
    "slow_neighbours or flood_does_not_starve or other_end_of_a_pair or test_back_pressure or abort_drops or write_buffer_limits"
    " or loop_closes_first or waits_for_its_end"
)
# With errors that nobody can foresee, only these say nothing about errors.
HOSTILE_DATAGRAMS = "goes_and_comes or many_in_one_turn or than_are_remembered or nothing_is_received_after"

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
@pytest.mark.timeout(400)
def test_the_same_tests_with_faults(faults: Path, seed: int, one_in: int) -> None:
    names = ("connection", "server", "listen", "unix", "streams", "lending")
    tests = [str(HERE / f"test_{name}.py") for name in names]
    options = ["-q", "-p", "no:cacheprovider", "-k", f"not ({NOT_THESE})", "--timeout", "60"]
    done = run_with_faults(faults, ["-c", MADE, *options, *tests], seed=seed, one_in=one_in, timeout=380)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(done.stdout.split("faults ")[1]) > 100


@pytest.mark.parametrize(("seed", "one_in"), [(1, 3), (2, 20)], ids=["often", "seldom"])
@pytest.mark.timeout(400)
def test_tls_with_faults(faults: Path, seed: int, one_in: int) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-k", f"not ({NOT_THESE_OF_TLS})", "--timeout", "60"]
    done = run_with_faults(
        faults, ["-c", MADE, *options, str(HERE / "test_tls.py")], seed=seed, one_in=one_in, timeout=380
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(done.stdout.split("faults ")[1]) > 100


@pytest.mark.parametrize(("seed", "one_in"), [(3, 3), (4, 30)], ids=["often", "seldom"])
@pytest.mark.timeout(400)
def test_connections_that_break(faults: Path, seed: int, one_in: int) -> None:
    options = ["-q", "-p", "no:cacheprovider", "--timeout", "60", str(HERE / "test_broken.py")]
    done = run_with_faults(faults, ["-c", MADE, *options], seed=seed, one_in=one_in, hostile=True, timeout=380)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(done.stdout.split("faults ")[1]) > 20


@pytest.mark.parametrize(
    ("seed", "one_in", "hostile"), [(1, 3, False), (2, 20, False), (3, 3, True)], ids=["often", "seldom", "hostile"]
)
@pytest.mark.timeout(400)
def test_datagrams_with_faults(faults: Path, seed: int, one_in: int, hostile: bool) -> None:
    chosen = HOSTILE_DATAGRAMS if hostile else f"not ({NOT_THESE_DATAGRAMS})"
    options = ["-q", "-p", "no:cacheprovider", "-k", chosen, "--timeout", "60", str(HERE / "test_datagrams.py")]
    done = run_with_faults(faults, ["-c", MADE, *options], seed=seed, one_in=one_in, hostile=hostile, timeout=380)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(done.stdout.split("faults ")[1]) > 100
