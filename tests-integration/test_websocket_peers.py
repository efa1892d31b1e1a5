"""Our client and server with `websockets` and Node's `ws` as servers and clients, with and without compression."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

import evws
from evloop import Loop
from evloop.testing import run_until

PATIENCE = 30.0
BLOB = random.Random(5).randbytes(1_500_000)
MESSAGES: list[Any] = ["", "hello", "κόσμε", b"", b"\0\xff", "x" * 70_000, BLOB[:125], BLOB[:126], BLOB[:65_536], BLOB]
LIMITS = evws.Limits(max_message_size=1 << 22)


@pytest.fixture
def server() -> Iterator[tuple[str, "Queue[Any]"]]:
    """An echo server of ours in a thread: its address, and what on_close was told."""
    closed: Queue[Any] = Queue()
    loop = Loop()
    ours = evws.Server(
        on_message=lambda ws, message: ws.send(message),
        on_close=lambda ws, code, reason: closed.put((code, reason)),
        subprotocols=("v2", "v1"),
        compression=evws.Deflate(threshold=0),
        limits=LIMITS,
        loop=loop,
    ).listen("127.0.0.1", 0)
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield "ws://{}:{}/".format(*ours.addresses[0]), closed
    loop.stop()
    thread.join(PATIENCE)
    loop.close()


def talk(url: str, **options: Any) -> tuple[list[Any], list[Any], Any]:
    """Send everything with our client: what came back, the end, and the socket."""
    got: list[Any] = []
    closed: list[Any] = []
    with Loop() as loop:
        connecting = evws.connect(
            loop,
            url,
            on_message=lambda ws, message: got.append(message),
            on_close=lambda ws, code, reason: closed.append((code, reason)),
            limits=LIMITS,
            **options,
        )
        run_until(loop, connecting.done, PATIENCE)
        ws = connecting.result()
        for message in MESSAGES:
            ws.send(message)
        run_until(loop, lambda: len(got) == len(MESSAGES), PATIENCE)
        ws.close(4000, "enough")
        run_until(loop, lambda: closed, PATIENCE)
    return got, closed, ws


# -- websockets -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_websockets_as_client(server: tuple[str, "Queue[Any]"], compression: str | None) -> None:
    sync = pytest.importorskip("websockets.sync.client", reason="websockets is not installed (pip install websockets)")
    url, closed = server
    with sync.connect(url, subprotocols=["v1", "v2"], compression=compression, max_size=None, proxy=None) as ws:
        assert ws.subprotocol == "v2"
        assert [extension.name for extension in ws.protocol.extensions] == ["permessage-deflate"] * bool(compression)
        for message in MESSAGES:
            ws.send(message)
            assert ws.recv(PATIENCE) == message
        ws.send(["in ", "frag", "ments"])
        assert ws.recv(PATIENCE) == "in fragments"
        assert ws.ping(b"p").wait(PATIENCE)
        ws.close(4001, "bye")
        assert (ws.close_code, ws.close_reason) == (4001, "bye")
    assert closed.get(timeout=PATIENCE) == (4001, "bye")


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_websockets_as_server(compression: str | None) -> None:
    sync = pytest.importorskip("websockets.sync.server", reason="websockets is not installed (pip install websockets)")
    errors = pytest.importorskip("websockets.exceptions")
    ended: Queue[Any] = Queue()
    extensions: list[str] = []

    def echo(ws: Any) -> None:
        extensions.extend(extension.name for extension in ws.protocol.extensions)
        try:
            for message in ws:
                ws.send(message)
        except errors.ConnectionClosedError:  # so it calls codes of 4000 and more
            pass
        ended.put((ws.close_code, ws.close_reason))

    with sync.serve(echo, "127.0.0.1", 0, subprotocols=["a"], compression=compression, max_size=None) as peer:
        thread = threading.Thread(target=peer.serve_forever)
        thread.start()
        port = peer.socket.getsockname()[1]
        got, closed, ws = talk(
            f"ws://127.0.0.1:{port}/",
            subprotocols=("a", "b"),
            headers={"Origin": "http://a"},
            compression=None if compression is None else evws.Deflate(threshold=0),
        )
        peer.shutdown()
        thread.join(PATIENCE)
    assert got == MESSAGES
    assert ws.subprotocol == "a"
    assert extensions == ["permessage-deflate"] * bool(compression)
    assert closed == [(4000, "enough")]
    assert ended.get(timeout=PATIENCE) == (4000, "enough")


# -- Node -----------------------------------------------------------------------------------------------------------------------

NODE_PACKAGE = "ws@8"
NODE_SERVER = """
const { WebSocketServer } = require("ws");
const perMessageDeflate = process.argv[1] === "compressed" ? { threshold: 0 } : false;
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate, maxPayload: 1 << 22 });
server.on("connection", ws => {
  const extensions = ws.extensions;
  ws.on("message", (data, binary) => ws.send(data, { binary }));
  ws.on("close", (code, reason) => { console.log(JSON.stringify([extensions, code, reason.toString()])); server.close(); });
});
server.on("listening", () => console.log(server.address().port));
"""
NODE_CLIENT = """
const WebSocket = require("ws");
const perMessageDeflate = process.argv[2] === "compressed" ? { threshold: 0 } : false;
const messages = [0, 5, 125, 126, 65535, 65536, 1500000].map(size => Buffer.alloc(size, size % 251));
messages.push("κόσμε", "x".repeat(70000));
const ws = new WebSocket(process.argv[1], ["v1"], { perMessageDeflate, maxPayload: 1 << 22 });
let number = 0, pongs = 0;
const next = () => number < messages.length ? ws.send(messages[number]) : ws.ping("here");
ws.on("open", next);
ws.on("message", (data, binary) => {
  const want = messages[number];
  if (binary !== Buffer.isBuffer(want) || Buffer.compare(data, Buffer.from(want))) process.exit(5);
  number++;
  next();
});
ws.on("pong", data => { if (data.toString() === "here") pongs++; ws.close(4001, "bye"); });
ws.on("close", (code, reason) =>
  console.log(JSON.stringify([number, pongs, ws.protocol, ws.extensions, code, reason.toString()])));
"""


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with Node's package ws: the system's, or one that npm installs for these tests."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None:
        pytest.skip("Node is not installed (apt install nodejs)")
    has = subprocess.run([program, "-e", "require('ws')"], capture_output=True, timeout=PATIENCE, check=False)
    if has.returncode == 0:
        return os.environ.get("NODE_PATH", "")
    if npm is None:
        pytest.skip("neither Node's package ws nor npm is installed (apt install node-ws)")
    folder = tmp_path_factory.mktemp("node")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), NODE_PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not install {NODE_PACKAGE} in time")
    if done.returncode:
        pytest.skip(f"npm could not install {NODE_PACKAGE}: {done.stderr.strip()[-300:]}")
    return str(folder / "node_modules")


@pytest.fixture
def node(node_modules: str) -> Callable[..., "subprocess.Popen[str]"]:
    """Run a script with Node."""
    return lambda *arguments: subprocess.Popen(
        ["node", "-e", *arguments], stdout=subprocess.PIPE, text=True, env=os.environ | {"NODE_PATH": node_modules}
    )


@pytest.mark.parametrize("compressed", [False, True])
def test_node_as_client(
    server: tuple[str, "Queue[Any]"], node: Callable[..., "subprocess.Popen[str]"], compressed: bool
) -> None:
    with node(NODE_CLIENT, server[0], "compressed" if compressed else "") as process:
        number, pongs, protocol, extensions, *end = json.loads(process.communicate(timeout=PATIENCE)[0])
    assert (number, pongs, protocol, end) == (9, 1, "v1", [4001, "bye"])
    assert ("permessage-deflate" in extensions) == compressed
    assert server[1].get(timeout=PATIENCE) == (4001, "bye")


@pytest.mark.parametrize("compressed", [False, True])
def test_node_as_server(node: Callable[..., "subprocess.Popen[str]"], compressed: bool) -> None:
    with node(NODE_SERVER, "compressed" if compressed else "") as process:
        assert process.stdout is not None
        url = f"ws://127.0.0.1:{int(process.stdout.readline())}/"
        got, closed, _ = talk(url, compression=evws.Deflate(threshold=0) if compressed else None)
        assert got == MESSAGES
        assert closed == [(4000, "enough")]
        extensions, *end = json.loads(process.communicate(timeout=PATIENCE)[0])
    assert end == [4000, "enough"]
    assert ("permessage-deflate" in extensions) == compressed


def test_the_command_line_and_websockets() -> None:
    sync = pytest.importorskip("websockets.sync.client", reason="websockets is not installed (pip install websockets)")
    command = [sys.executable, "-W", "error", "-m", "evws", "--listen", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with sync.connect(url, compression=None, proxy=None) as ws:
            ws.send("hello")
            assert ws.recv(PATIENCE) == "hello"
        process.terminate()
        assert process.wait(PATIENCE) == 0
