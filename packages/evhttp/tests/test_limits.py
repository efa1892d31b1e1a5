"""The bounds themselves, and that each is exact: n passes, n + 1 does not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from evhttp import Limits, Request, Response

H = b"Host: a\r\n"


def echo(req: Request, res: Response) -> None:
    res.send(req.body)


def test_defaults_and_infinity() -> None:
    assert Limits().max_body_size == 1_048_576
    assert Limits(head_timeout=math.inf).milliseconds("head_timeout") == 0
    assert Limits(head_timeout=0.0001).milliseconds("head_timeout") == 1
    assert Limits(head_timeout=1e300).milliseconds("head_timeout") == 0xFFFFFFFF
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().max_headers = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", [-1, 1 << 40, math.nan, -math.inf, None], ids=str)
def test_what_is_no_bound_is_named(name: str, value: Any) -> None:
    if name.endswith("_timeout") and value == 1 << 40:
        assert Limits(**{name: value}).milliseconds(name) == 0xFFFFFFFF
        return
    with pytest.raises((ValueError, TypeError), match=name if value is not None else "."):
        Limits(**{name: value})


def test_zero() -> None:
    assert Limits(max_body_size=0, max_trailers=0)
    for name in ("max_headers", "max_pipeline", "idle_timeout"):
        with pytest.raises(ValueError, match=name):
            Limits(**{name: 0})  # type: ignore[arg-type]


LINE = b"GET /" + b"a" * 85 + b" HTTP/1.1"  # 99 bytes
CHUNKED = b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n"
CASES: list[tuple[str, dict[str, int], bytes, bytes, int]] = [
    ("9112-3-line", {"max_request_line": 99}, LINE + b"\r\n" + H + b"\r\n", b"GET /a" + LINE[5:] + b"\r\n" + H + b"\r\n", 414),
    ("6585-5-section", {"max_header_section": 30}, b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 14 + b"\r\n\r\n",
     b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 15 + b"\r\n\r\n", 431),
    ("6585-5-headers", {"max_headers": 3}, b"GET / HTTP/1.1\r\n" + H + b"X: 1\r\n" * 2 + b"\r\n",
     b"GET / HTTP/1.1\r\n" + H + b"X: 1\r\n" * 3 + b"\r\n", 431),
    ("9110-15.5.14-length", {"max_body_size": 5}, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello",
     b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 6\r\n\r\nhello!", 413),
    ("9110-15.5.14-no-body", {"max_body_size": 0}, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n",
     b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\n\r\n!", 413),
    ("9110-15.5.14-chunked", {"max_body_size": 5}, CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
     CHUNKED + b"3\r\nhel\r\n3\r\nlo!\r\n0\r\n\r\n", 413),
    ("9112-7.1.1-chunk-line", {"max_chunk_line": 5}, CHUNKED + b"1;a=b\r\nx\r\n0\r\n\r\n",
     CHUNKED + b"1;a=bc\r\nx\r\n0\r\n\r\n", 400),
    ("9112-7.1.2-trailers", {"max_trailers": 6}, CHUNKED + b"0\r\nX: 1\r\n\r\n",
     CHUNKED + b"0\r\nX: 12\r\n\r\n", 431),
]  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "within", "beyond", "status"), [pytest.param(*rest, id=name) for name, *rest in CASES]
)
def test_each_bound_is_exact(
    serve: Callable[..., Any], limits: dict[str, Any], within: bytes, beyond: bytes, status: int
) -> None:
    running = serve(echo, limits=Limits(**limits))
    client = running.connect()
    for _ in range(2):
        assert client.send(within).answer().status == 200
    assert client.send(beyond).answer().status == status
    assert client.at_end()


def test_a_header_section_of_the_greatest_size(serve: Callable[..., Any]) -> None:
    """What `Limits` admits is served: no buffer below has a smaller bound of its own."""
    most = 4_000_000
    running = serve(lambda req, res: res.send(str(len(req.headers["x"]))), limits=Limits(max_header_section=most))
    size = most - len(H + b"X: \r\n\r\n")
    client = running.connect()
    client.send(b"GET / HTTP/1.1\r\n" + H + b"X: ")
    for _ in range(size // 100_000):
        client.send(b"a" * 100_000)
    client.send(b"a" * (size % 100_000) + b"\r\n\r\n")
    assert client.answer().body == str(size).encode()
    with pytest.raises(ValueError, match="max_header_section"):
        Limits(max_header_section=most + 1)
