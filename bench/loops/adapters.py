"""One face for every loop. The functions are the loops' own, not wrapped: what is measured has nothing of ours in it."""

from __future__ import annotations

import asyncio
import importlib
import os
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


def _ours() -> Loop:
    evloop: Any = importlib.import_module("evloop")
    loop = evloop.Loop()
    return _adapt("evloop", loop, loop.run, getattr(evloop, "sendfile", None))


def _adapt(name: str, loop: Any, run: Callable[[], None], sendfile: Callable[[int, int, int, int], int] | None) -> Loop:
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
    return _adapt(name, loop, loop.run_forever, os.sendfile)
