"""The header fields and the query, without a server."""

from __future__ import annotations

import pytest

from evhttp import Headers, Query

BLOCK = b"....\nhost:a\naccept:*/*\nx-two:1\nx-empty:\nx-two:2\nx-latin:\xe4\n...."


@pytest.fixture
def headers() -> Headers:
    return Headers(BLOCK, 4, len(BLOCK) - 4)


def test_get_without_case(headers: Headers) -> None:
    assert headers.get("Host") == headers["HOST"] == headers.get("host") == "a"
    assert headers.get("hos") is headers.get("ost") is headers.get("accept:*/*") is None
    assert headers.get("nothing", "default") == "default"
    assert headers.get("x-empty") == ""
    assert headers["x-latin"] == "ä"


def test_repeated_fields(headers: Headers) -> None:
    assert headers["X-Two"] == "1"
    assert headers.get_all("X-Two") == ["1", "2"]
    assert headers.get_all("nothing") == []


def test_mapping(headers: Headers) -> None:
    assert list(headers) == headers.keys() == ["host", "accept", "x-two", "x-empty", "x-latin"]
    assert len(headers) == 5
    assert headers.values() == ["a", "*/*", "1", "", "2", "ä"]
    assert headers.items()[2:5] == [("x-two", "1"), ("x-empty", ""), ("x-two", "2")]
    assert "ACCEPT" in headers
    assert "nothing" not in headers
    assert 7 not in headers
    assert "x-two" in repr(headers)
    with pytest.raises(KeyError, match="nothing"):
        headers["nothing"]


@pytest.mark.parametrize("name", ["", ":", "\n", "a\naccept", "host:a\naccept", "\nhost", "….", "\u20ac", "\n\n"])
def test_names_that_no_field_has(headers: Headers, name: str) -> None:
    assert headers.get(name) is None
    assert headers.get_all(name) == []
    assert name not in headers


def test_what_lies_outside_is_not_found() -> None:
    block = b"\nsecret:1\nhost:a\nsecret:2\n"
    headers = Headers(block, 9, 17)
    assert headers.items() == [("host", "a")]
    assert headers.get("secret") is None
    assert headers.get_all("secret") == []
    assert headers["host"] == "a"


def test_no_fields() -> None:
    headers = Headers(b"\n", 0, 1)
    assert headers.items() == headers.keys() == headers.values() == []
    assert len(headers) == 0
    assert headers.get("host") is None


def test_many_names_do_not_grow_without_bound() -> None:
    headers = Headers(b"\nhost:a\n", 0, 8)
    from evhttp import _fields

    for number in range(3000):
        assert headers.get(f"name-{number}") is None
    assert len(_fields._needles) <= _fields._NEEDLES_MOST
    assert headers["host"] == "a"


def test_query() -> None:
    query = Query("a=1&b=%C3%A4+x&a=2&flag&empty=&%FF=%zz&=nameless")
    assert query["a"] == "1"
    assert query.get_all("a") == ["1", "2"]
    assert query["b"] == "ä x"
    assert query["flag"] == query["empty"] == ""
    assert query["\ufffd"] == "%zz"
    assert query[""] == "nameless"
    assert query.get("c") is None
    assert query.get("c", "d") == "d"
    assert "a" in query
    assert "c" not in query
    assert list(query) == query.keys() == ["a", "b", "flag", "empty", "\ufffd", ""]
    assert len(query) == 6
    assert query.items()[0] == ("a", "1")
    assert "flag" in repr(query)
    with pytest.raises(KeyError):
        query["c"]
    assert Query("").items() == []


def test_a_semicolon_separates_nothing() -> None:
    assert Query("a=1;b=2").items() == [("a", "1;b=2")]
