"""The public names of evloop."""

import importlib.metadata
from pathlib import Path

import evloop


def test_exports() -> None:
    assert sorted(evloop.__all__) == [
        "Attachment",
        "EvLoopError",
        "FileEvent",
        "FileEventKind",
        "FileWatcher",
        "ForkedLoopError",
        "Handle",
        "Loop",
        "LoopClosedError",
        "LoopRunningError",
        "READ",
        "Record",
        "SignalRelay",
        "Stats",
        "TimerHandle",
        "TimerWheel",
        "WRITE",
        "Watcher",
        "WheelTimer",
        "WrongThreadError",
        "__version__",
        "get_include",
        "sendfile",
    ]
    assert all(hasattr(evloop, name) for name in evloop.__all__)


def test_version_is_the_distribution_s() -> None:
    assert evloop.__version__ == importlib.metadata.version("evloop")


def test_the_header_is_installed() -> None:
    assert "struct ev_capi" in Path(evloop.get_include(), "evloop.h").read_text()
