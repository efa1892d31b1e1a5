"""The exceptions of evloop, and how what the system refuses becomes one."""

from __future__ import annotations

import errno

import pytest

import evloop
from evloop._errors import check


def test_the_tree() -> None:
    for kind in (evloop.LoopClosedError, evloop.LoopRunningError):
        assert issubclass(kind, evloop.EvLoopError)
    assert evloop.EvLoopError.__bases__ == (Exception,)


def test_check_returns_what_is_no_error() -> None:
    assert check(0, "x") == 0
    assert check(7, "x") == 7


def test_check_names_the_call() -> None:
    with pytest.raises(FileNotFoundError, match="open a thing") as caught:
        check(-errno.ENOENT, "open a thing")
    assert caught.value.errno == errno.ENOENT
