"""One face for every loop. The functions are the loops' own, not wrapped: what is measured has nothing of ours in it."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NAMES = ("evloop", "asyncio", "uvloop", "rloop")


class NotInstalled(Exception):
    """This interpreter does not have the loop; the message says which module is missing."""


@dataclass(frozen=True)
class Loop:
    """What the workloads use of a loop."""

    name: str
    call_soon: Callable[..., Any]
    defer: Callable[..., None] | None  # as call_soon, but makes no handle; only ours has it
    call_later: Callable[..., Any]
    call_at: Callable[..., Any]
    call_soon_threadsafe: Callable[..., Any]
    add_reader: Callable[..., Any]
    add_writer: Callable[..., Any]
    remove_reader: Callable[[int], Any]
    remove_writer: Callable[[int], Any]
    time: Callable[[], float]
    run: Callable[[], None]
    stop: Callable[[], None]
    close: Callable[[], None]
    sendfile: Callable[[int, int, int, int], int] | None
    open_stream: Callable[[socket.socket, Callable[[], Any]], Any]  # drives an asyncio protocol with a connected socket


def _ours() -> Loop:
    evloop: Any = importlib.import_module("evloop")
    loop = evloop.Loop()

    def open_stream(sock: socket.socket, protocol_factory: Callable[[], Any]) -> Any:
        try:
            evnet: Any = importlib.import_module("evnet")  # streams are the next package's
        except ImportError as error:
            raise NotInstalled(str(error)) from None
        return evnet.open_stream(loop, sock, protocol_factory)

    return _adapt("evloop", loop, loop.run, getattr(evloop, "sendfile", None), open_stream)


def _adapt(
    name: str,
    loop: Any,
    run: Callable[[], None],
    sendfile: Callable[[int, int, int, int], int] | None,
    open_stream: Callable[[socket.socket, Callable[[], Any]], Any],
) -> Loop:
    return Loop(
        name=name,
        call_soon=loop.call_soon,
        defer=getattr(loop, "defer", None),
        call_later=loop.call_later,
        call_at=loop.call_at,
        call_soon_threadsafe=loop.call_soon_threadsafe,
        add_reader=loop.add_reader,
        add_writer=loop.add_writer,
        remove_reader=loop.remove_reader,
        remove_writer=loop.remove_writer,
        time=loop.time,
        run=run,
        stop=loop.stop,
        close=loop.close,
        sendfile=sendfile,
        open_stream=open_stream,
    )


def open_loop(name: str) -> Loop:
    """Make a loop by name.

    Raises:
        NotInstalled: It cannot be imported here.
    """
    try:
        if name == "evloop":
            return _ours()
        loop = asyncio.new_event_loop() if name == "asyncio" else importlib.import_module(name).new_event_loop()
    except ImportError as error:
        raise NotInstalled(str(error)) from None

    def open_stream(sock: socket.socket, protocol_factory: Callable[[], Any]) -> Any:
        return loop.run_until_complete(loop.create_unix_connection(protocol_factory, sock=sock))

    return _adapt(name, loop, loop.run_forever, os.sendfile, open_stream)
