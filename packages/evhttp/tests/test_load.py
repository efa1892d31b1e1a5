"""Handlers by name; what goes wrong is in test_main.py, as who starts a server sees it."""

from __future__ import annotations

import os

import pytest

from evhttp._load import LoadError, load_handler


def test_a_name_with_dots() -> None:
    assert load_handler("os.path:join") is os.path.join
    assert load_handler("os:path.join") is os.path.join


@pytest.mark.parametrize("name", ["", ":", "a", "a:", ":b", "a b:c", "a:b c", "a..b:c", "a:b:c", "/a:b", "a:1"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(LoadError, match="a handler is named module:handler"):
        load_handler(name)


def test_a_module_within_what_is_no_package() -> None:
    with pytest.raises(LoadError):
        load_handler("os.nothing:x")
