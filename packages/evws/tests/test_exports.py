"""The public names of evws."""

import importlib.metadata
import subprocess
import sys

import evws


def test_exports() -> None:
    assert sorted(evws.__all__) == [
        "Backoff",
        "ClientWebSocket",
        "Clientele",
        "CloseCode",
        "Connecting",
        "ConnectionClosedError",
        "Deflate",
        "EvWsError",
        "Frame",
        "FrameParser",
        "Group",
        "HandshakeError",
        "HandshakeRefusedError",
        "Limits",
        "Opcode",
        "PeerError",
        "QueueFullError",
        "Server",
        "State",
        "Violation",
        "WebSocket",
        "__version__",
        "broadcast",
        "connect",
        "encode_close",
        "encode_frame",
        "upgrade",
    ]
    assert all(hasattr(evws, name) for name in evws.__all__)


def test_version_is_the_distribution_s() -> None:
    assert evws.__version__ == importlib.metadata.version("evws")


def test_importing_evws_loads_nothing_above_it() -> None:
    script = "import evws, sys; print([name for name in sys.modules if name.startswith('evmulti')])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
