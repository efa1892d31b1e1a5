"""The publish/subscribe bus."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Hashable
from typing import Any

import pytest

from evloop import Loop, SignalRelay


def test_listeners_are_called_in_order() -> None:
    relay = SignalRelay()
    got: list[Any] = []
    relay.listen("a", lambda *args: got.append((1, args)))
    relay.listen("a", lambda *args: got.append((2, args)))
    relay.listen("b", got.append)
    assert relay.emit("a", 1, "x") == 2
    assert got == [(1, (1, "x")), (2, (1, "x"))]
    assert relay.emit("nobody") == 0


def test_names_are_any_hashable() -> None:
    relay = SignalRelay()
    got: list[Any] = []
    names: list[Hashable] = [None, 1, ("a", 2), frozenset(), relay]
    for name in names:
        relay.listen(name, got.append)
        assert relay.emit(name, name) == 1
    assert len(got) == 5
    with pytest.raises(TypeError):
        relay.listen([], got.append)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        relay.listen("a", None)  # type: ignore[arg-type]
    assert relay.emit("a") == 0


def test_once() -> None:
    relay = SignalRelay()
    got: list[int] = []

    def nested(value: int) -> None:
        got.append(value)
        assert relay.emit("a", value + 1) == 0

    relay.listen_once("a", nested)
    assert relay.emit("a", 1) == 1
    assert relay.emit("a", 2) == 0
    assert got == [1]


def test_unlisten() -> None:
    relay = SignalRelay()
    got: list[int] = []
    relay.listen("a", got.append)  # a bound method is made anew each time
    relay.listen("a", got.append)
    assert relay.unlisten("a", got.append)
    assert relay.emit("a", 1) == 1
    assert relay.unlisten("a", got.append)
    assert not relay.unlisten("a", got.append)
    assert not relay.unlisten("never", got.append)
    assert relay.emit("a", 2) == 0
    assert got == [1]


def test_listeners_that_unlisten_themselves_and_others_and_listen() -> None:
    relay = SignalRelay()
    got: list[str] = []

    def first() -> None:
        got.append("first")
        relay.unlisten("a", first)
        relay.unlisten("a", third)
        relay.listen("a", late)

    def second() -> None:
        got.append("second")
        relay.unlisten("a", first)

    def third() -> None:
        got.append("third")

    def fourth() -> None:
        got.append("fourth")

    def late() -> None:
        got.append("late")

    for listener in (first, second, third, fourth):
        relay.listen("a", listener)
    assert relay.emit("a") == 3
    assert got == ["first", "second", "fourth"]
    got.clear()
    assert relay.emit("a") == 3
    assert got == ["second", "fourth", "late"]


def test_one_that_leaves_and_comes_back_is_a_new_listener() -> None:
    relay = SignalRelay()
    got: list[int] = []

    def again() -> None:
        got.append(1)
        relay.unlisten("a", again)
        relay.listen("a", again)

    relay.listen("a", again)
    assert relay.emit("a") == 1
    assert relay.emit("a") == 1
    assert got == [1, 1]


def test_emit_within_emit() -> None:
    relay = SignalRelay()
    got: list[tuple[str, int]] = []

    def first(depth: int) -> None:
        got.append(("first", depth))
        if depth < 2:
            relay.emit("a", depth + 1)
        else:
            relay.unlisten("a", second)

    def second(depth: int) -> None:
        got.append(("second", depth))

    relay.listen("a", first)
    relay.listen("a", second)
    assert relay.emit("a", 1) == 1
    assert got == [("first", 1), ("first", 2)]


def test_exceptions_go_to_the_loop(loop: Loop) -> None:
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    relay = SignalRelay(loop)
    got: list[int] = []
    relay.listen("a", lambda value: 1 // value)
    relay.listen("a", got.append)
    assert relay.emit("a", 0) == 2
    assert got == [0]
    assert [type(context["exception"]) for context in reported] == [ZeroDivisionError]
    assert "'a'" in reported[0]["message"]


def test_without_a_loop_exceptions_are_raised_together() -> None:
    relay = SignalRelay()
    got: list[int] = []
    relay.listen("a", lambda value: 1 // value)
    relay.listen("a", got.append)
    relay.listen_once("a", lambda value: {}[value])
    with pytest.raises(ExceptionGroup, match="2 of 3 listeners to 'a'") as caught:
        relay.emit("a", 0)
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError, KeyError]
    assert got == [0]


def test_an_interrupt_is_raised_at_once(loop: Loop) -> None:
    relay = SignalRelay(loop)
    got: list[int] = []

    def interrupted() -> None:
        raise KeyboardInterrupt

    relay.listen("a", interrupted)
    relay.listen("a", lambda: got.append(1))
    with pytest.raises(KeyboardInterrupt):
        relay.emit("a")
    assert got == []


def test_names_without_listeners_are_forgotten() -> None:
    class Name:
        pass

    relay = SignalRelay()
    names = [Name() for _ in range(3)]
    dead = [weakref.ref(name) for name in names]
    relay.emit(names[0])
    relay.listen_once(names[1], int)
    relay.emit(names[1])
    relay.listen(names[2], int)
    relay.unlisten(names[2], int)
    names.clear()
    gc.collect()
    assert [name() for name in dead] == [None] * 3
