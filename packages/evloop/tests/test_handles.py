"""Handles: what ``call_soon`` and the timers return."""

from __future__ import annotations

import contextvars
import gc
import weakref
from collections.abc import Callable

from evloop import Handle, Loop, TimerHandle
from evloop.testing import run_until

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


def test_cancel_before_it_runs(loop: Loop) -> None:
    ran: list[int] = []
    handle = loop.call_soon(ran.append, 1)
    assert isinstance(handle, Handle)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    loop.run_once(0)
    assert ran == []


def test_cancel_by_the_callback_before(loop: Loop) -> None:
    ran: list[int] = []
    handles: list[Handle] = []
    loop.call_soon(lambda: handles[0].cancel())
    handles.append(loop.call_soon(ran.append, 1))
    loop.run_once(0)
    loop.run_once(0)
    assert ran == []


def test_cancel_after_it_ran(loop: Loop) -> None:
    handle = loop.call_soon(int)
    loop.run_once(0)
    assert not handle.cancelled()
    handle.cancel()
    fired: list[int] = []
    timer = loop.call_later(0, fired.append, 1)
    run_until(loop, lambda: fired)
    timer.cancel()
    other: list[int] = []
    loop.call_later(0, other.append, 1)  # must not be hit by the late cancel
    timer.cancel()
    run_until(loop, lambda: other)


def test_a_cancelled_handle_lets_go_of_its_callback(loop: Loop) -> None:
    class Thing:
        def method(self) -> None: ...

    arranging: tuple[Callable[[Thing], Handle | TimerHandle], ...] = (
        lambda thing: loop.call_soon(thing.method),
        lambda thing: loop.call_later(1000, thing.method),
    )
    for arrange in arranging:
        thing = Thing()
        gone = weakref.ref(thing)
        handle = arrange(thing)
        del thing
        handle.cancel()
        gc.collect()
        assert gone() is None


def test_callbacks_run_in_the_context_they_were_made_in(loop: Loop) -> None:
    seen: list[str] = []
    token = variable.set("inside")
    loop.call_soon(lambda: seen.append(variable.get()))
    loop.call_later(0, lambda: seen.append(variable.get()))
    given = contextvars.Context()
    loop.call_soon(lambda: seen.append(variable.get()), context=given)
    variable.reset(token)
    run_until(loop, lambda: len(seen) == 3)
    assert seen == ["inside", "outside", "inside"]


def test_when(loop: Loop) -> None:
    timer = loop.call_at(loop.time() + 1000, int)
    assert isinstance(timer, TimerHandle)
    assert 999 < timer.when() - loop.time() <= 1000
    timer.cancel()


def test_repr_says_what_waits(loop: Loop) -> None:
    handle = loop.call_soon(print)
    assert "print" in repr(handle)
    handle.cancel()
    assert repr(handle) == "<Handle cancelled>"
