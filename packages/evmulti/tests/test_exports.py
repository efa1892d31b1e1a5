"""The public names of evmulti."""

import importlib.metadata

import evmulti


def test_exports() -> None:
    assert evmulti.__all__ == [
        "Body",
        "Cause",
        "Connection",
        "ConnectionClosed",
        "Connections",
        "Context",
        "ContextError",
        "Dispatcher",
        "DispatcherStats",
        "EvMultiError",
        "Log",
        "LogCallback",
        "LogEntry",
        "MultiServer",
        "MultiStats",
        "PoolStats",
        "PooledSocket",
        "Service",
        "Services",
        "SocketServer",
        "StartError",
        "Strategy",
        "Supervisor",
        "TargetError",
        "Worker",
        "WorkerStats",
        "__version__",
        "context",
        "suspend",
        "suspended",
        "usable_cores",
    ]


def test_version_is_the_distribution_s() -> None:
    assert evmulti.__version__ == importlib.metadata.version("evmulti")
