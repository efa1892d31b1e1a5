"""Use an installed package for a moment: `python tools/smoke.py evnet`, with the Python of the environment to try.

It needs the standard library, the package and those below it. At the end it checks that nothing above the package was loaded on
the way, and that a free-threaded Python still is one.
"""

from __future__ import annotations

import asyncio
import http.client
import sys
import sysconfig
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from provenance import PACKAGES

__all__ = ["main", "smoke"]

# When a program has not come to its end by then it never will.
_PATIENCE = 20.0


def smoke(package: str) -> str:
    """Run the package's small program; return what it did, in a few words.

    Args:
        package: One of `provenance.PACKAGES`. Its name may be the end of a path.

    Raises:
        RuntimeError: It answered something else than it should, loaded a package above it, or has a module that does not declare
            that it runs without the GIL.
        ImportError: It is not installed, or does not fit those below it.
    """
    name = Path(package).name
    version = import_module(name).__version__
    done = _PROGRAMS[name]()
    above = [each for each in PACKAGES[PACKAGES.index(name) + 1 :] if each in sys.modules]
    if above:
        raise RuntimeError(f"{name} is below {', '.join(above)}, and has loaded it")
    has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    if sysconfig.get_config_var("Py_GIL_DISABLED") and has_gil():
        raise RuntimeError(f"{name} has brought the GIL back to a free-threaded Python")
    return f"{name} {version}: {done}"


def _expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise RuntimeError(f"expected {wanted!r}, found {found!r}")


def _evloop() -> str:
    import evloop

    order: list[str] = []
    with evloop.Loop() as loop:
        loop.call_later(0.001, order.append, "timer")
        loop.call_later(0.002, loop.stop)
        loop.call_soon(order.append, "callback")
        loop.run()
        backend = loop.backend
    _expect(order, ["callback", "timer"])
    return f"a callback and a timer ran over {backend}"


class _Echo(asyncio.Protocol):
    transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


def _evnet() -> str:
    import evloop
    import evnet

    heard: list[bytes] = []

    class Client(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(b"hello")
            transport.write_eof()

        def data_received(self, data: bytes) -> None:
            heard.append(data)

        def connection_lost(self, error: Exception | None) -> None:
            loop.stop()

    with evloop.Loop() as loop:
        loop.call_later(_PATIENCE, loop.stop)
        server = evnet.listen_tcp(loop, _Echo, "127.0.0.1", 0)
        evnet.connect_tcp(loop, Client, *server.addresses[0])
        loop.run()
        server.close()
    _expect(b"".join(heard), b"HELLO")
    return "a server has answered a client over TCP"


def _ask(host: str, port: int) -> bytes:
    client = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
    try:
        client.request("GET", "/?name=smoke", headers={"Connection": "close"})
        return client.getresponse().read()
    finally:
        client.close()


def _hello(req: Any, res: Any) -> None:
    res.send(f"hello {req.query.get('name', 'world')}\n")


def _evhttp() -> str:
    import threading

    import evhttp

    server = evhttp.Server(_hello).listen("127.0.0.1", 0)
    answers: list[bytes] = []

    def ask() -> None:
        try:
            answers.append(_ask(*server.addresses[0][:2]))
        finally:
            server.loop.stop()

    client = threading.Thread(target=ask)
    client.start()
    server.run()
    client.join()
    _expect(answers, [b"hello smoke\n"])
    return "a server has answered a request"


def _evws() -> str:
    import evloop
    import evws

    heard: list[object] = []

    def answered(ws: Any, message: object) -> None:
        heard.append(message)
        ws.close()

    loop = evloop.Loop()
    server = evws.Server(on_message=lambda ws, message: ws.send(message), loop=loop).listen("127.0.0.1", 0)
    host, port = server.addresses[0][:2]
    evws.connect(
        loop,
        f"ws://{host}:{port}/",
        on_open=lambda ws: ws.send("hello"),
        on_message=answered,
        on_close=lambda ws, code, reason: loop.stop(),
        timeout=_PATIENCE,
    )
    loop.run()
    loop.close()
    _expect(heard, ["hello"])
    return "a server has echoed a message"


def _evmulti() -> str:
    import evmulti

    with evmulti.MultiServer(_hello, workers=2, mode="process").listen("127.0.0.1", 0) as server:
        _expect(_ask(*server.addresses[0][:2]), b"hello smoke\n")
    return "two processes were started, have answered and have ended"


_PROGRAMS = {"evloop": _evloop, "evnet": _evnet, "evhttp": _evhttp, "evws": _evws, "evmulti": _evmulti}


def main(arguments: Sequence[str]) -> int:
    """Try the packages that the arguments name; return the exit code."""
    if not arguments or any(Path(name).name not in PACKAGES for name in arguments):
        print(f"smoke: expected names out of {', '.join(PACKAGES)}", file=sys.stderr)
        return 2
    for name in arguments:
        print(f"smoke: {smoke(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
