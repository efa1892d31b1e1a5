"""Server and client with system calls that are interrupted, refuse and do half of what is asked; and connections that break."""

from __future__ import annotations

from pathlib import Path

import pytest

from evnet.testing import build_faults, run_with_faults

HERE = Path(__file__).resolve().parent

# Those in which many bytes move, or many things happen to one connection.
THESE = (
    "test_echo or every_byte or fragment or behind or everybody or in_time or order or frames_cut or proxy or reconnect"
    " or many_messages or handshake_in_pieces or closed_by or server_closes or queue_full or aborts"
)
# It asks for what is in one packet, or for a state of the socket at a moment which faults shift.
NOT_THESE = "test_server_that_reads_nothing"

MADE = """
import ctypes, pytest, sys
code = pytest.main(sys.argv[1:])
made = ctypes.CDLL(None).ev_faults_made
made.restype = ctypes.c_uint64
print("faults", made())
sys.exit(code)
"""

# Clients that do all sorts of things to a server whose connections break at every turn; in the end it must be as on the first day.
SERVER_STORM = r"""
import ctypes, logging, os, random, socket, sys, threading, time, zlib
sys.path.insert(0, sys.argv[3])
from framing import raw
import evws
from evloop import Loop
from evloop.testing import open_descriptors
from evws._pins import pins_of

backend, seed = sys.argv[1], int(sys.argv[2])
blob = random.Random(1).randbytes(300_000)
records, opened, closed = [], [], []
class Keep(logging.Handler):
    def emit(self, record): records.append(record.getMessage())
for name in ("evhttp", "evloop", "evws"):
    logging.getLogger(name).addHandler(Keep(logging.WARNING))

def answer(ws, message):
    if message == "big": ws.send(blob)
    elif message == "parts": ws.send_fragmented([blob[:100_000], b"", blob])
    elif message == "close": ws.close(4000, "as asked")
    elif message == "abort": ws.abort()
    elif message == "slow": time.sleep(0.001); ws.send(blob[:40_000])
    else: ws.send(message)

loop = Loop(backend=backend)
loop.slow_callback_duration = 60  # on a busy machine any callback may be slow
server = evws.Server(
    on_message=answer, on_open=opened.append, on_close=lambda ws, code, reason: closed.append(ws), loop=loop,
    compression=evws.Deflate(), limits=evws.Limits(close_timeout=0.2, max_queue_size=1 << 20, ping_interval=0.05),
).listen("127.0.0.1", 0)
address = server.addresses[0]
before = open_descriptors()
thread = threading.Thread(target=loop.run)
thread.start()
good = [0]
HEAD = (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")

def packed(data):
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH))[:-4]

FRAMES = [
    raw(0x81, b"big"), raw(0x81, b"parts"), raw(0x81, b"slow"), raw(0x81, b"close"), raw(0x81, b"abort"),
    raw(0x82, blob), raw(0x01, b"a") + raw(0x89, b"p") + raw(0x80, b"b"), raw(0xC1, packed(b"text" * 999)),
    raw(0xC2, packed(blob)), raw(0x88), raw(0xFF), raw(0x81, b"\xff"), raw(0xC1, b"\xff\xff"), b"\x82", raw(0x02, b"part"),
]

def client(number):
    rng = random.Random(seed * 1000 + number)
    for _ in range(25):
        try:
            with socket.create_connection(address, 10) as sock:
                sock.settimeout(0.2)
                sock.sendall(HEAD if rng.random() < 0.95 else HEAD[: rng.randrange(len(HEAD))])
                for _ in range(rng.randrange(1, 4)):
                    sock.sendall(b"".join(rng.choice(FRAMES) for _ in range(rng.randrange(1, 12))))
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
while time.monotonic() < deadline and (server.connections or len(pins_of(loop)) or len(opened) != len(closed)):
    time.sleep(0.01)
assert not server.connections, server.connections
assert not len(pins_of(loop)), len(pins_of(loop))
assert sorted(map(id, opened)) == sorted(map(id, closed)), (len(opened), len(closed))
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

# Clients of ours that do all sorts of things to a server of ours, while the connections of both break at every turn; in the end
# both must be as on the first day.
CLIENT_STORM = r"""
import ctypes, gc, logging, random, sys, time
import evws
from evloop import Loop
from evloop.testing import open_descriptors
from evws._pins import pins_of

backend, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
blob = rng.randbytes(300_000)
counts = {"opened": 0, "closed": 0, "messages": 0, "failed": 0, "server closed": 0, "server opened": 0}
records = []
class Keep(logging.Handler):
    def emit(self, record): records.append(record.getMessage())
for name in ("evhttp", "evloop", "evws"):
    logging.getLogger(name).addHandler(Keep(logging.WARNING))

def count(what, *rest): counts[what] += 1

before = open_descriptors()
loop = Loop(backend=backend)
loop.slow_callback_duration = 60  # on a busy machine any callback may be slow
group = evws.Group()
def came(ws): count("server opened"); group.add(ws)
def answer(ws, message):
    if rng.random() < 0.1: group.send(blob[:rng.randrange(300_000)], timeout=1)
    elif rng.random() < 0.05: ws.close(4000)
    elif rng.random() < 0.05: ws.abort()
    elif ws.state is evws.State.OPEN: ws.send(message)
server = evws.Server(on_message=answer, loop=loop, on_open=came, on_close=lambda *about: count("server closed"),
                     limits=evws.Limits(max_queue_size=2_000_000))
server.listen("127.0.0.1", 0)

def act(ws, message=None):
    if message is not None: count("messages")
    if ws.state is not evws.State.OPEN: return
    chance = rng.random()
    if chance < 0.05: ws.close(1000, "enough")
    elif chance < 0.1: ws.abort()
    else:
        ws.send(rng.choice(["x", blob[:rng.randrange(2000)], blob, "é" * 1000]))
        if chance < 0.2: ws.ping(b"p")
def opened(ws): count("opened"); act(ws)

crowd = evws.Clientele(loop=loop, on_message=act, on_open=opened, on_close=lambda *about: count("closed"),
                       on_failure=lambda *about: count("failed"), at_once=20, timeout=5,
                       limits=evws.Limits(close_timeout=1, max_queue_size=2_000_000))
url = "ws://127.0.0.1:%d/" % server.addresses[0][1]
waves = [crowd.connect(url, 60) for _ in range(4)]
deadline = time.monotonic() + 60
loop.call_every(0.05, lambda: None)
loop.run_until(lambda: time.monotonic() > deadline or all(wave.done() for wave in waves) and counts["messages"] > 100)
crowd.close()
server.close(2)
loop.run_until(lambda: time.monotonic() > deadline or not (server.connections or len(crowd) or len(pins_of(loop))))
assert not server.connections, server.connections
assert not len(crowd), len(crowd)
assert not len(pins_of(loop)) and not pins_of(loop).clients
assert len(group) == 0
assert counts["opened"] == counts["closed"] and counts["server opened"] == counts["server closed"], counts
assert counts["opened"] + counts["failed"] == 240, counts
loop.close()
assert open_descriptors() == before, open_descriptors() ^ before
records = [record for record in records if "aborted" not in record]
assert records == [], records[:3]
assert counts["messages"] > 20, counts
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
    ("backend", "seed", "one_in", "least"),
    [("epoll", 1, 3, 100), ("poll", 2, 20, 20)],
    ids=["epoll-often", "poll-seldom"],
)
@pytest.mark.parametrize("names", [("server", "deflate"), ("client", "broadcast")], ids=["server", "client"])
@pytest.mark.timeout(400)
def test_the_same_tests_with_faults(
    faults: Path, names: tuple[str, ...], backend: str, seed: int, one_in: int, least: int
) -> None:
    tests = [str(HERE / f"test_{name}.py") for name in names]
    chosen = f"{backend} and ({THESE}) and not ({NOT_THESE})"
    options = ["-q", "-p", "no:cacheprovider", "-k", chosen, "--timeout", "60"]
    done = run_with_faults(faults, ["-c", MADE, *options, *tests], seed=seed, one_in=one_in, timeout=380)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(done.stdout.split("faults ")[1]) > least


@pytest.mark.parametrize(("backend", "seed"), [("epoll", 1), ("poll", 2)])
@pytest.mark.parametrize("storm", [SERVER_STORM, CLIENT_STORM], ids=["server", "client"])
def test_connections_that_break(faults: Path, storm: str, backend: str, seed: int) -> None:
    arguments = ["-X", "dev", "-W", "error", "-c", storm, backend, str(seed), str(HERE)]
    done = run_with_faults(faults, arguments, seed=seed, one_in=10, hostile=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split("faults ")[1]) > 100
