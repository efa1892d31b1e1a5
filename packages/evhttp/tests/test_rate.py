"""`RateLimiter`: beside a list of all grants, which is exact and unbounded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evhttp import RateLimiter, Request, Response
from evhttp._rate import client_key


def test_the_window_slides() -> None:
    """A fixed window would let two times three pass within a moment around its boundary."""
    limiter = RateLimiter(3, 10.0)
    assert [limiter.admit("a", t) for t in (9.0, 9.5, 9.9)] == [0.0, 0.0, 0.0]
    assert limiter.admit("a", 10.1) == pytest.approx(8.9)
    assert limiter.admit("a", 18.9) == pytest.approx(0.1)
    assert limiter.admit("a", 19.0) == 0.0
    assert limiter.admit("a", 19.0) == pytest.approx(0.5)


def test_keys_do_not_share() -> None:
    limiter = RateLimiter(1, 1.0)
    assert limiter.admit("a", 0.0) == 0.0
    assert limiter.admit("b", 0.0) == 0.0
    assert limiter.admit("a", 0.5) == 0.5


def test_what_is_refused_does_not_count() -> None:
    limiter = RateLimiter(1, 1.0)
    assert limiter.admit("a", 0.0) == 0.0
    for tenth in range(1, 10):
        assert limiter.admit("a", tenth / 10) > 0
    assert limiter.admit("a", 1.0) == 0.0


def test_several_windows() -> None:
    limiter = RateLimiter(2, 1.0, also=[(3, 10.0)])
    assert [limiter.admit("a", t) for t in (0.0, 0.0)] == [0.0, 0.0]
    assert limiter.admit("a", 0.5) == 0.5, "the short one"
    assert limiter.admit("a", 1.0) == 0.0
    assert limiter.admit("a", 2.0) == 8.0, "the long one"
    assert limiter.admit("a", 10.0) == 0.0


@given(
    rate=st.integers(1, 60),
    window=st.sampled_from([0.1, 1.0, 7.0, 3600.0]),
    steps=st.lists(st.floats(0.0, 0.4), max_size=200),
)
@settings(max_examples=200, deadline=None)
def test_never_more_than_the_rate_and_at_most_a_slice_later(rate: int, window: float, steps: list[float]) -> None:
    limiter = RateLimiter(rate, window)
    granted: list[float] = []
    now = 0.0
    for step in steps:
        now += step * window
        wait = limiter.admit("a", now)
        recent = [t for t in granted if t > now - window]
        if wait == 0.0:
            assert len(recent) < rate, "more than the rate"
            granted.append(now)
        else:
            longer = [t for t in granted if t > now - window - window / 32 - 1e-9 * window]
            assert len(longer) >= rate, "refused for longer than the bound"
            assert wait <= window + 1e-9
            log = limiter._keys["a"][1][0]
            assert len(log.times) == len(log.counts) <= min(rate, 33)
            assert sum(log.counts) == log.total <= rate


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.001, 1.0)), max_size=80))
@settings(max_examples=100, deadline=None)
def test_who_waits_as_told_is_granted(calls: list[tuple[str, float]]) -> None:
    limiter = RateLimiter(3, 1.0, also=[(5, 4.0)])
    now = 0.0
    for key, step in calls:
        now += step / 4
        tries = 0
        while wait := limiter.admit(key, now):
            now += wait
            tries += 1
            assert tries <= 3


def test_memory_is_bounded() -> None:
    limiter = RateLimiter(1, 1000.0, max_keys=100)
    for n in range(1000):
        assert limiter.admit(n, float(n) / 1000) == 0.0
        assert len(limiter) <= 100
    assert limiter.admit(999, 1.0) > 0, "the latest is remembered"
    assert limiter.admit(0, 1.0) == 0.0, "the oldest is not"
    limiter = RateLimiter(1, 1000.0, max_keys=3)
    for now in range(100):  # who keeps asking is not forgotten
        assert (limiter.admit("a", float(now)) == 0.0) == (now == 0)
        limiter.admit(now, float(now))


def test_keys_are_forgotten_when_their_windows_have_passed() -> None:
    limiter = RateLimiter(5, 1.0, also=[(9, 3.0)])
    for n in range(50):
        limiter.admit(n, 0.0)
    assert len(limiter) == 50
    for n in range(50):
        limiter.admit(("new", n % 30), 3.0 + n / 1000)
    assert len(limiter) == 30


def test_a_clock_that_goes_back_grants_nothing_more() -> None:
    limiter = RateLimiter(2, 1.0)
    assert limiter.admit("a", 100.0) == 0.0
    assert limiter.admit("a", 50.0) == 0.0
    assert limiter.admit("a", 50.0) == 1.0
    assert limiter.admit("a", 101.0) == 0.0


def test_threads_share_it() -> None:
    limiter = RateLimiter(1000, 1000.0)
    granted: list[int] = []

    def ask() -> None:
        granted.append(sum(limiter.admit("a", 0.0) == 0.0 for _ in range(500)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 1000


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((0, 1.0), {}),
        ((1.5, 1.0), {}),
        ((1, 0.0), {}),
        ((1, float("inf")), {}),
        ((1, float("nan")), {}),
        ((1, 1.0), {"also": [(0, 1.0)]}),
        ((1, 1.0), {"also": [(1, -1.0)]}),
        ((1, 1.0), {"max_keys": 0}),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RateLimiter(*arguments, **options)


class Client:
    def __init__(self, client: tuple[str, int] | None) -> None:
        self.client = client


@pytest.mark.parametrize(
    ("address", "key"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::", 2), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.1", 1), "192.0.2.1"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (None, ""),
    ],
)
def test_client_key(address: tuple[str, int] | None, key: str) -> None:
    assert client_key(Client(address)) == key  # type: ignore[arg-type]


def test_the_answer(serve: Callable[..., Any]) -> None:
    times = [5.0, 5.0, 5.25, 7.0]
    limiter = RateLimiter(2, 1.75, clock=lambda: times.pop(0))

    def handler(req: Request, res: Response) -> None:
        if limiter.allow(req, res):
            res.send("served\n")

    client = serve(handler).connect()
    assert [client.get().status for _ in range(2)] == [200, 200]
    answer = client.get()
    assert (answer.status, answer.get("retry-after"), answer.get("cache-control")) == (429, "2", "no-store")
    assert answer.body == b"Too many requests; try again in 2 seconds\n"
    assert client.get().status == 200


def test_the_key_is_the_caller_s_choice(serve: Callable[..., Any]) -> None:
    limiter = RateLimiter(1, 60.0, key=lambda req: req.headers.get("x-token"), clock=lambda: 0.0)

    def handler(req: Request, res: Response) -> None:
        if limiter.allow(req, res):
            res.send("served\n")

    client = serve(handler).connect()
    answers = [client.get("/", f"X-Token: {token}").status for token in ("a", "b", "a", "b")]
    assert answers == [200, 200, 429, 429]
