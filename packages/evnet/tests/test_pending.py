"""A value that is not there yet."""

from __future__ import annotations

import contextvars
import gc
from concurrent.futures import CancelledError, InvalidStateError
from typing import Any

import pytest

from evloop import Loop
from evnet import Pending


class Released(Pending[str]):
    __slots__ = ("released",)

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.released = 0

    def _release(self) -> None:
        self.released += 1


@pytest.fixture
def pending(loop: Loop) -> Released:
    return Released(loop)


def test_pending(pending: Released) -> None:
    assert (pending.done(), pending.cancelled(), pending.released) == (False, False, 0)
    for ask in (pending.result, pending.exception):
        with pytest.raises(InvalidStateError, match="Released pending"):
            ask()


def test_result(pending: Released) -> None:
    pending._finish("there")
    assert (pending.done(), pending.cancelled(), pending.released) == (True, False, 1)
    assert pending.result() == pending.result() == "there"
    assert pending.exception() is None
    assert not pending.cancel()
    assert pending.released == 1


def test_failure_can_be_asked_for_again_and_its_traceback_does_not_grow(pending: Released) -> None:
    error = OSError(5, "broken")
    pending._fail(error)
    depths = []
    for _ in range(3):
        with pytest.raises(OSError, match="broken") as caught:
            pending.result()
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1
    assert pending.exception() is error


def test_cancel(loop: Loop, pending: Released) -> None:
    got: list[Any] = []
    pending.add_done_callback(got.append)
    assert pending.cancel()
    assert not pending.cancel()
    assert (pending.done(), pending.cancelled(), pending.released) == (True, True, 1)
    assert got == []
    loop.run_once(0)
    assert got == [pending]
    for ask in (pending.result, pending.exception):
        with pytest.raises(CancelledError):
            ask()


def test_callbacks_come_from_the_loop_in_order_and_in_their_context(loop: Loop, pending: Released) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    got: list[tuple[str, str]] = []

    def first(done: Pending[str]) -> None:
        assert done is pending
        got.append(("first", variable.get()))

    variable.set("then")
    pending.add_done_callback(first)
    variable.set("later")
    pending.add_done_callback(lambda _: got.append(("second", variable.get())))
    pending.add_done_callback(lambda _: got.append(("third", variable.get())), context=contextvars.Context())
    pending._finish("x")
    pending.add_done_callback(lambda _: got.append(("late", variable.get())))
    assert got == []
    loop.run_once(0)
    assert got == [("first", "then"), ("second", "later"), ("third", "unset"), ("late", "later")]


def test_remove_done_callback(loop: Loop, pending: Released) -> None:
    got: list[Any] = []
    pending.add_done_callback(got.append)
    pending.add_done_callback(got.append)
    assert pending.remove_done_callback(got.append) == 2
    assert pending.remove_done_callback(got.append) == 0
    pending._finish("x")
    loop.run_once(0)
    assert got == []


def test_what_cannot_be_called(pending: Released) -> None:
    with pytest.raises(TypeError, match="must be callable, not 5"):
        pending.add_done_callback(5)  # type: ignore[arg-type]


def test_a_failure_that_nobody_hears_of_is_reported(loop: Loop) -> None:
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    error = OSError(5, "broken")
    Released(loop)._fail(error)
    gc.collect()
    assert [context["exception"] for context in reported] == [error]
    assert "<Released failed>" in reported[0]["message"]


@pytest.mark.parametrize("how", ["result", "exception", "callback before", "callback after", "cancelled"])
def test_a_failure_that_somebody_hears_of_is_not_reported(loop: Loop, how: str) -> None:
    pending = Released(loop)
    if how == "callback before":
        pending.add_done_callback(lambda _: None)
    if how == "cancelled":
        pending.cancel()
    else:
        pending._fail(OSError(5, "broken"))
    if how == "callback after":
        pending.add_done_callback(lambda _: None)
    elif how == "result":
        with pytest.raises(OSError, match="broken"):
            pending.result()
    elif how == "exception":
        pending.exception()
    del pending
    loop.run_once(0)
    gc.collect()  # the fixture fails on what is reported
