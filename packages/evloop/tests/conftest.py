from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from evloop import Loop
from evloop.testing import backends, checked_loop


@pytest.fixture(params=backends())
def backend(request: pytest.FixtureRequest) -> str:
    """Each poller that this machine has."""
    return str(request.param)


@pytest.fixture
def loop(backend: str) -> Iterator[Loop]:
    """A loop on each backend; fails on a descriptor left open and on an exception nobody expected."""
    with checked_loop(backend) as loop:
        yield loop


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A non-blocking pipe: reading end, writing end."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass  # the test has closed it
