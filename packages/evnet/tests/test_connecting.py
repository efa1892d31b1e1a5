"""What both kinds of connecting have in common: whoever waits is told, once, whatever the protocol does."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import evnet
from evloop import Loop, LoopClosedError
from evloop.testing import open_descriptors, run_until
from evnet import Connecting

Pair = Any


def quiet(**methods: Any) -> SimpleNamespace:
    """A protocol that does nothing but what the test wants."""
    names = ("connection_made", "data_received", "eof_received", "connection_lost", "pause_writing", "resume_writing")
    return SimpleNamespace(**(dict.fromkeys(names, lambda *_: None) | methods))


@pytest.fixture(params=["tcp", "unix"])
def connect(request: pytest.FixtureRequest, loop: Loop, pair: Pair, tmp_path: Any) -> Callable[..., Connecting]:
    """Connect to a server that is there."""
    if request.param == "tcp":
        host, port = pair.listen().addresses[0]
        return lambda factory, **options: evnet.connect_tcp(loop, factory, host, port, **options)
    pair.server = evnet.listen_unix(loop, quiet, tmp_path / "socket")
    return lambda factory, **options: evnet.connect_unix(loop, factory, tmp_path / "socket", **options)


def test_in_order(loop: Loop, connect: Callable[..., Connecting]) -> None:
    calls: list[str] = []
    protocol = quiet(connection_made=lambda _: calls.append("made"))
    connecting = connect(lambda: calls.append("factory") or protocol)
    connecting.add_done_callback(lambda done: calls.append("done" if done is connecting else "?"))
    assert calls == []
    assert not connecting.done()
    run_until(loop, lambda: len(calls) == 3)
    assert calls == ["factory", "made", "done"]
    assert connecting.result().get_protocol() is protocol
    assert not connecting.cancel()
    connecting.result().abort()


def test_cancel(loop: Loop, connect: Callable[..., Connecting]) -> None:
    before = open_descriptors()
    connecting = connect(lambda: pytest.fail("a protocol was made"), timeout=5)
    assert connecting.cancel()
    assert open_descriptors() == before
    loop.run_once(0.01)
    assert connecting.cancelled()


def test_the_loop_is_closed_meanwhile(loop: Loop, connect: Callable[..., Connecting]) -> None:
    connecting = connect(lambda: pytest.fail("a protocol was made"), timeout=5)
    loop.close()
    assert connecting.cancelled()
    with pytest.raises(LoopClosedError):
        connect(quiet)


def test_a_factory_that_raises(loop: Loop, connect: Callable[..., Connecting]) -> None:
    def fail() -> None:
        raise RuntimeError("no protocol today")

    loop.run_until(lambda: True)  # the descriptors that come with signals are there now
    before = open_descriptors()
    connecting = connect(fail)
    loop.run_until(connecting.done)
    with pytest.raises(RuntimeError, match="no protocol today"):
        connecting.result()
    run_until(loop, lambda: open_descriptors() <= before)


def test_connection_made_that_raises(loop: Loop, connect: Callable[..., Connecting]) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("not with me")

    lost: list[Any] = []
    connecting = connect(lambda: quiet(connection_made=fail, connection_lost=lost.append))
    loop.run_until(connecting.done)
    with pytest.raises(RuntimeError, match="not with me"):
        connecting.result()
    run_until(loop, lambda: lost)
    assert lost == [None]


def test_an_interrupt_in_the_protocol(loop: Loop, connect: Callable[..., Connecting]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    lost: list[Any] = []
    for factory in (interrupt, lambda: quiet(connection_made=interrupt, connection_lost=lost.append)):
        connecting = connect(factory)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until(connecting.done)
        assert connecting.cancelled()
    run_until(loop, lambda: lost)


def test_cancelling_in_the_factory(loop: Loop, connect: Callable[..., Connecting]) -> None:
    def factory() -> SimpleNamespace:
        connecting.cancel()
        return quiet(connection_made=lambda _: pytest.fail("there is no connection"))

    connecting = connect(factory)
    loop.run_until(connecting.done)
    assert connecting.cancelled()


@pytest.mark.parametrize("also_raises", [False, True])
def test_cancelling_in_connection_made(loop: Loop, connect: Callable[..., Connecting], also_raises: bool) -> None:
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    lost: list[Any] = []

    def made(_: object) -> None:
        connecting.cancel()
        if also_raises:
            raise RuntimeError("and it raises")

    connecting = connect(lambda: quiet(connection_made=made, connection_lost=lost.append))
    run_until(loop, lambda: lost)
    assert connecting.cancelled()
    assert [str(context["exception"]) for context in reported] == ["and it raises"] * also_raises


def test_closing_in_connection_made(loop: Loop, connect: Callable[..., Connecting]) -> None:
    lost: list[Any] = []
    protocol = quiet(connection_made=lambda connection: connection.close(), connection_lost=lost.append)
    connecting = connect(lambda: protocol)
    run_until(loop, lambda: lost)
    assert connecting.result().is_closing()
    assert lost == [None]


def test_a_descriptor_that_cannot_be_watched(
    loop: Loop, connect: Callable[..., Connecting], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "no room")

    monkeypatch.setattr("evnet._connecting.take", fail)
    connecting = connect(quiet)
    loop.run_until(connecting.done)
    with pytest.raises(OSError, match="no room"):
        connecting.result()


@pytest.mark.parametrize(
    ("factory", "options", "error"),
    [(None, {}, TypeError), (quiet, {"timeout": 0}, ValueError), (quiet, {"idle_timeout": 0}, ValueError)],
)
def test_bad_arguments(connect: Callable[..., Connecting], factory: Any, options: Any, error: type[Exception]) -> None:
    before = open_descriptors()
    with pytest.raises(error, match="must be"):
        connect(factory, **options)
    assert open_descriptors() == before


def test_the_idle_timeout_is_the_connection_s(loop: Loop, connect: Callable[..., Connecting]) -> None:
    lost: list[Any] = []
    connect(lambda: quiet(connection_lost=lost.append), idle_timeout=0.02)
    run_until(loop, lambda: lost)
    assert isinstance(lost[0], TimeoutError)


def test_repr(connect: Callable[..., Connecting]) -> None:
    connecting = connect(quiet)
    assert repr(connecting).startswith("<Connecting to ")
    assert repr(connecting).endswith(" pending>")
    connecting.cancel()


def test_the_socket_module_agrees() -> None:
    # What _connect.py relies on where the flag is there: a socket made with it is non-blocking for Python, too.
    flag = getattr(socket, "SOCK_NONBLOCK", 0)
    if not flag:
        pytest.skip("this system has no SOCK_NONBLOCK")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | flag) as sock:
        assert sock.getblocking() is False
