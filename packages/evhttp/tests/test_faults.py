"""The server with system calls that are interrupted, refuse, and do half of what is asked; and with connections that break."""

from __future__ import annotations

from pathlib import Path

import pytest

from evnet.testing import build_faults, run_with_faults

HERE = Path(__file__).resolve().parent

# Those in which many bytes move, or many things happen to one connection.
THESE = "pipelined or large or bodies or continue or disappears or send_file or at_once or persistence"
# Those that ask for a reset or a state of the socket at a moment which faults shift.
NOT_THESE = "a_queue_that_the_kernel_takes_at_once or body_came_before_its_turn"

MADE = """
import ctypes, pytest, sys
code = pytest.main(sys.argv[1:])
made = ctypes.CDLL(None).ev_faults_made
made.restype = ctypes.c_uint64
print("faults", made())
sys.exit(code)
"""

# Clients that do all sorts of things to a server whose connections break at every turn; in the end it must be as on the first day.
STORM = r"""
import ctypes, gc, logging, os, random, socket, sys, threading, time
from evhttp import Limits, Server
from evloop import Loop
from evloop.testing import open_descriptors

backend, seed = sys.argv[1], int(sys.argv[2])
blob = random.Random(1).randbytes(300_000)
path = sys.argv[3]
records = []
class Keep(logging.Handler):
    def emit(self, record): records.append(record.getMessage())
for name in ("evhttp", "evloop"):
    logging.getLogger(name).addHandler(Keep(logging.WARNING))

def handler(req, res):
    kind = req.path
    if kind == "/file": res.send_file(path)
    elif kind == "/big": res.send(blob)
    elif kind == "/close": res.close_connection().send("bye")
    elif kind == "/drop": res.drop()
    elif kind == "/slow": time.sleep(0.001); res.send(blob[:40_000])
    else: res.send(req.body)

loop = Loop(backend=backend)
loop.slow_callback_duration = 60  # on a busy machine any callback may be slow
server = Server(handler, loop=loop, limits=Limits(max_pipeline=8)).listen("127.0.0.1", 0)
address = server.addresses[0]
before = open_descriptors()
thread = threading.Thread(target=loop.run)
thread.start()
good = [0]

def client(number):
    rng = random.Random(seed * 1000 + number)
    for _ in range(25):
        try:
            with socket.create_connection(address, 10) as sock:
                sock.settimeout(0.2)
                for _ in range(rng.randrange(1, 4)):
                    requests = b"".join(rng.choice([
                        b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
                        b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD /big HTTP/1.1\r\nHost: a\r\n\r\n",
                        b"GET /close HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /drop HTTP/1.1\r\nHost: a\r\n\r\n",
                        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + blob,
                        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000 + b"\r\n\r\n", b"bad\r\n\r\n", b"GET / HT",
                    ]) for _ in range(rng.randrange(1, 12)))
                    sock.sendall(requests)
                    for _ in range(rng.randrange(4)):
                        good[0] += bool(sock.recv(100_000))
                if rng.random() < 0.3:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                elif rng.random() < 0.3:
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(1 << 20): pass
        except OSError:
            pass

clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
for each in clients: each.start()
for each in clients: each.join()
deadline = time.monotonic() + 60
while time.monotonic() < deadline and (server.connections or server._pins):
    time.sleep(0.01)
assert not server.connections, server.connections
assert not server._pins, len(server._pins)
assert open_descriptors() == before, open_descriptors() ^ before
loop.stop()
thread.join()
loop.close()
assert records == [], records[:3]
assert good[0] > 20, good
made = ctypes.CDLL(None).ev_faults_made
made.restype = ctypes.c_uint64
print("faults", made())
"""


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = build_faults(tmp_path_factory.mktemp("faults"))
    if library is None:
        pytest.skip("fault injection needs Linux and a C compiler")
    return library


# Above evnet nobody knows the poller: the two share the rates and the seeds.
@pytest.mark.parametrize(
    ("backend", "seed", "one_in"), [("epoll", 1, 3), ("poll", 2, 20)], ids=["epoll-often", "poll-seldom"]
)
@pytest.mark.timeout(400)
def test_the_same_tests_with_faults(faults: Path, backend: str, seed: int, one_in: int) -> None:
    tests = [str(HERE / f"test_{name}.py") for name in ("server", "request", "response")]
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        f"{backend} and ({THESE}) and not ({NOT_THESE})",
        "--timeout",
        "60",
    ]
    done = run_with_faults(faults, ["-c", MADE, *options, *tests], seed=seed, one_in=one_in, timeout=380)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(done.stdout.split("faults ")[1]) > 100


@pytest.mark.parametrize(("backend", "seed"), [("epoll", 1), ("poll", 2)])
def test_connections_that_break(faults: Path, backend: str, tmp_path: Path, seed: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * 500_000)
    arguments = ["-X", "dev", "-W", "error", "-c", STORM, backend, str(seed), str(tmp_path / "file")]
    done = run_with_faults(faults, arguments, seed=seed, one_in=10, hostile=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split("faults ")[1]) > 100
