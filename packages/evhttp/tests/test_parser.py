"""`RequestParser` and `ResponseParser`: every case is fed whole, byte by byte, and cut at every position, and all agree."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from evhttp import Limits, ParserStateError, ProtocolError, RequestParser, ResponseParser

HERE = Path(__file__).resolve().parent


def c_tests() -> Any:
    """test_parser_c.py: its cases, and its judge of the conformance tables."""
    spec = importlib.util.spec_from_file_location("c_tests", HERE / "test_parser_c.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


C_TESTS = c_tests()


def outcome(parser: RequestParser | ResponseParser) -> tuple[Any, ...]:
    error = parser.error
    if error is not None:
        return ("failed", error.status, str(error))
    if not parser.is_complete:
        return (parser.phase, parser.body)
    if isinstance(parser, RequestParser):
        request = parser.request
        assert request.body == parser.body
        assert request.headers.items() == parser.headers.items()
        line: tuple[Any, ...] = (request.method, request.target, request.path, request.query_string, request.version)
    else:
        line = (parser.version, parser.status_code, parser.phrase)
    headers, trailers = parser.headers.items(), parser.trailers.items()
    return (*line, headers, parser.body, trailers, parser.keep_alive, parser.upgrade, parser.remaining)


def every_way(make: Any, data: bytes, *, eof: bool = False) -> Any:
    """Feed in every way; return the parser that was fed whole."""

    def fed(*parts: bytes) -> Any:
        parser = make()
        for part in parts:
            parser.feed(part)
        if eof:
            parser.feed_eof()
        return parser

    whole = fed(data)
    want = outcome(whole)
    assert outcome(fed(*(data[i : i + 1] for i in range(len(data))))) == want
    for cut in range(1, len(data)):
        assert outcome(fed(data[:cut], data[cut:])) == want, f"cut at {cut}"
    return whole


# -- requests --------------------------------------------------------------------------------------------------------------------

H = b"Host: a\r\n"
CHUNKED = b"POST /c?d HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(("data", "want"), [pytest.param(d, w, id=i) for i, d, w in C_TESTS.GOOD])
def test_good_requests(data: bytes, want: dict[str, Any]) -> None:
    body = b"x" * want.get("length", 0)
    if "chunked" in want.get("flags", ()):
        body = b"0\r\n\r\n"
    if "continue" in want.get("flags", ()) or b"Content-Length: 1\r\n" in data:
        body = b"x"
    parser = every_way(RequestParser, data + body + b"rest")
    assert parser.is_complete
    assert parser.remaining == b"rest"
    request = parser.request
    if "target" in want:
        assert request.target.encode() == want["target"]
    if want.get("path"):
        assert request.path.encode() == want["path"]
    if "flags" in want:
        assert parser.keep_alive == ("keep-alive" in want["flags"])
        assert parser.upgrade == ("upgrade" in want["flags"])
        assert parser.expects_continue == ("continue" in want["flags"])
    assert request.client is None


@pytest.mark.parametrize(("data", "status"), [pytest.param(d, s, id=i) for i, d, s in C_TESTS.BAD_CASES])
def test_bad_requests(data: bytes, status: int) -> None:
    parser = every_way(RequestParser, data)
    assert isinstance(parser.error, ProtocolError)
    assert (parser.phase, parser.error.status) == ("failed", status)
    assert not parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "an error stays"
    assert parser.error.status == status
    with pytest.raises(ParserStateError):
        parser.request  # noqa: B018 - it raises


@pytest.mark.parametrize(("coded", "body"), [pytest.param(c, b, id=f"9112-{i}") for i, c, b in C_TESTS.CHUNKED_GOOD])
def test_good_chunks(coded: bytes, body: bytes) -> None:
    parser = every_way(RequestParser, CHUNKED + coded + b"GET")
    assert (parser.request.body, parser.remaining) == (body, b"GET")


@pytest.mark.parametrize(("coded", "status"), [pytest.param(c, s, id=f"9112-{i}") for i, c, s in C_TESTS.CHUNKED_BAD])
def test_bad_chunks(coded: bytes, status: int) -> None:
    parser = every_way(lambda: RequestParser(Limits(max_chunk_line=256)), CHUNKED + coded)
    assert (parser.phase, parser.error.status, parser.body) == ("failed", status, b"")


def test_trailers() -> None:
    parser = every_way(RequestParser, CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum:  1 2\t\r\nX-Sum:\r\nY: \xe9\r\n\r\n")
    assert parser.trailers.get_all("x-sum") == ["1 2", ""]
    assert parser.trailers["Y"] == "é"
    assert "x-sum" not in parser.request.headers, "RFC 9110 §6.5.1: never merged"
    assert parser.reset() is False
    assert parser.trailers.items() == []


def test_unknown_phase_by_phase() -> None:
    parser = RequestParser()
    assert (parser.phase, repr(parser)) == ("idle", "<RequestParser idle>")
    assert not parser.feed(b"\r\n") and parser.phase == "idle"
    assert not parser.feed(b"P") and parser.phase == "head"
    with pytest.raises(ParserStateError, match="the head is not complete: the parser is head"):
        parser.headers  # noqa: B018 - it raises
    assert not parser.feed(b"UT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na") and parser.phase == "body"
    assert (parser.request.path, parser.request.body) == ("/x", b"a")
    assert parser.feed(b"bcd") and parser.phase == "complete"
    assert (parser.request.body, parser.remaining, parser.error) == (b"abc", b"d", None)
    assert parser.request is parser.request
    assert parser.feed(b"e") and parser.remaining == b"de"


def test_methods_in_no_table_of_ours_but_known() -> None:
    parser = RequestParser()
    assert parser.feed(b"PROPFIND /a HTTP/1.1\r\nHost: b\r\n\r\n")
    assert (parser.request.method, parser.request.path) == ("PROPFIND", "/a")
    assert parser.request.headers.items() == [("host", "b")]


def test_pipelined_requests_are_cut_apart() -> None:
    stream = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (n, n % 5) + b"x" * (n % 5) for n in range(500)
    )
    for size in (1, 7, 4096, len(stream)):
        parser, seen = RequestParser(), []
        for at in range(0, len(stream), size):
            complete = parser.feed(stream[at : at + size])
            while complete:
                seen.append((parser.request.path, len(parser.request.body)))
                complete = parser.reset()
        assert seen == [(f"/{n}", n % 5) for n in range(500)]
        assert parser.phase == "idle"


def test_a_reset_in_the_middle_begins_another_stream() -> None:
    parser = RequestParser()
    parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
    assert parser.reset() is False
    assert parser.feed(b"GET /new HTTP/1.1\r\nHost: a\r\n\r\n")
    assert parser.request.path == "/new"
    parser.reset()
    assert parser.feed(b"\0") is False and parser.error is not None
    parser.reset()
    assert parser.error is None
    assert parser.feed(b"GET / HTTP/1.0\r\n\r\n")


def test_a_body_may_be_taken_in_pieces() -> None:
    parser = RequestParser(Limits(max_body_size=30))
    parser.feed(CHUNKED)
    taken = []
    for n in range(3):
        assert not parser.feed(b"a\r\n" + b"%d" % n * 10 + b"\r\n")
        taken.append(parser.take_body())
        assert parser.body == b""
    assert taken == [b"0" * 10, b"1" * 10, b"2" * 10]
    assert not parser.feed(b"1\r\n") and parser.error is not None and parser.error.status == 413
    assert parser.reset() is False
    parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    assert parser.take_body() == b"abc"
    assert parser.feed(b"defGET")
    assert (parser.take_body(), parser.take_body(), parser.remaining) == (b"def", b"", b"GET")
    assert parser.headers["content-length"] == "6"


@pytest.mark.parametrize(
    ("data", "limits", "status"),
    [
        (b"GET /1234567 HTTP/1.1\r\n", Limits(max_request_line=20), 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n", Limits(max_headers=1), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n", Limits(max_header_section=16), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", Limits(max_body_size=3), 413),
        (CHUNKED + b"2\r\nab\r\n2\r\n", Limits(max_body_size=3), 413),
        (CHUNKED + b"0;abc\r\n", Limits(max_chunk_line=4), 400),
        (CHUNKED + b"0\r\nAbc: d\r\n\r\n", Limits(max_trailers=7), 431),
    ],
    ids=["line", "count", "section", "length", "chunks", "chunk line", "trailers"],
)
def test_each_limit_has_its_status(data: bytes, limits: Limits, status: int) -> None:
    parser = every_way(lambda: RequestParser(limits), data)
    assert parser.error is not None and parser.error.status == status
    parser = RequestParser()
    parser.feed(data)
    assert parser.error is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", None),
        (b"\r\n", None),
        (b"GET / HT", "the stream ended within a head"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx", "the stream ended within a body"),
        (CHUNKED + b"0\r\n", "the stream ended within a body"),
    ],
)
def test_the_end_of_a_stream(data: bytes, message: str | None) -> None:
    parser = RequestParser()
    parser.feed(data)
    assert parser.feed_eof() is False
    assert (str(parser.error) if parser.error else None) == message
    if message is None:
        with pytest.raises(ParserStateError, match="bytes behind the end of the stream"):
            parser.feed(b"x")


def test_the_end_behind_complete_requests() -> None:
    parser = RequestParser()
    one = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
    parser.feed(one % 1 + one % 2 + b"GET")
    assert parser.feed_eof() and parser.request.path == "/1"
    assert parser.reset() and parser.request.path == "/2"
    assert parser.reset() is False
    assert str(parser.error) == "the stream ended within a head"


def test_any_buffer_can_be_fed() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for each in (bytearray(data), memoryview(data), memoryview(bytearray(data))):
        parser = RequestParser()
        assert parser.feed(each)
    with pytest.raises(TypeError):
        RequestParser().feed("GET")  # type: ignore[arg-type]
    assert RequestParser().feed(b"") is False


def test_conformance() -> None:
    """The tables, judged as test_parser_c.py judges them: what is excused there is excused here, and nothing else."""
    folder = C_TESTS.conformance_folder()
    if folder is None:
        pytest.skip("no conformance tables: set EV_CONFORMANCE to their folder")
    failures, count = [], 0
    for table in sorted(folder.glob("*.jsonl")):
        for line in table.read_text().splitlines():
            row = json.loads(line)
            if row["tier"] != "must":
                continue
            request = base64.b64decode(row["req"])
            count += 1
            for parts in ([request], [request[i : i + 1] for i in range(len(request))]):
                good = C_TESTS.judge(row, *serve(parts))
                excused = any(k[:2] == (row["suite"], row["id"]) and k[2] in request for k in C_TESTS.WRONG)
                if good == excused:
                    failures.append(f"{row['suite']} {row['id']} {len(parts)}")
    assert failures == []
    assert count > 500


def serve(parts: list[bytes]) -> tuple[list[int], list[bytes], bool]:
    """What a server that answers 200 to everything makes of one connection's bytes."""
    parser, statuses, bodies = RequestParser(), [], []
    for part in parts:
        complete = parser.feed(part)
        while complete:
            connect = parser.request.method == "CONNECT"
            statuses.append(501 if connect else 200)
            bodies.append(parser.request.body)
            if connect or not parser.keep_alive:
                return statuses, bodies, True
            complete = parser.reset()
        if parser.error is not None:
            return [*statuses, parser.error.status], bodies, True
    return statuses, bodies, False


# -- responses -----------------------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
# id, data, method, (status, phrase, body, keep_alive, remaining)
RESPONSES: list[tuple[str, bytes, str, tuple[int, str, bytes, bool, bytes]]] = [
    ("9112-6.3.6 length", OK + b"Content-Length: 3\r\n\r\nabcHTTP", "GET", (200, "OK", b"abc", True, b"HTTP")),
    ("9112-6.3.6 empty", OK + b"Content-Length: 0\r\n\r\nHTTP", "GET", (200, "OK", b"", True, b"HTTP")),
    ("9112-6.3.4 chunked", OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nx", "GET", (200, "OK", b"a", True, b"x")),
    ("9112-6.3.1 HEAD", OK + b"Content-Length: 3\r\n\r\nx", "HEAD", (200, "OK", b"", True, b"x")),
    ("9112-6.3.1 HEAD, chunked", OK + b"Transfer-Encoding: chunked\r\n\r\nx", "HEAD", (200, "OK", b"", True, b"x")),
    ("9112-6.3.1 HEAD, more than is taken", OK + b"Content-Length: 99999999999\r\n\r\n", "HEAD", (200, "OK", b"", True, b"")),
    ("9112-6.3.1 204", b"HTTP/1.1 204 No Content\r\n\r\nx", "GET", (204, "No Content", b"", True, b"x")),
    ("9112-6.3.1 304", b"HTTP/1.1 304 X\r\nContent-Length: 7\r\n\r\nx", "GET", (304, "X", b"", True, b"x")),
    ("9112-6.3.1 100", b"HTTP/1.1 100 Continue\r\n\r\nHTTP", "GET", (100, "Continue", b"", True, b"HTTP")),
    ("9112-6.3.1 1xx with a length", b"HTTP/1.1 103 \r\nContent-Length: 7\r\n\r\nx", "GET", (103, "", b"", True, b"x")),
    ("9112-6.3.2 CONNECT", OK + b"\r\ntunnel", "CONNECT", (200, "OK", b"", True, b"tunnel")),
    ("9112-6.3.2 CONNECT refused", b"HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\nab", "CONNECT", (403, "No", b"a", True, b"b")),
    ("9110-15.2.2 101", b"HTTP/1.1 101 S\r\nUpgrade: w\r\nConnection: upgrade\r\n\r\n\x81", "GET", (101, "S", b"", True, b"\x81")),
    ("9112-9.3 close", OK + b"Content-Length: 0\r\nConnection: close\r\n\r\n", "GET", (200, "OK", b"", False, b"")),
    ("9112-9.3 HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "GET", (200, "OK", b"", False, b"")),
    ("9112-9.3 HTTP/1.0 keep-alive", b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", "GET",
     (200, "OK", b"", True, b"")),
    ("9112-4 no phrase", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "GET", (200, "", b"", True, b"")),
    ("9112-4 no phrase and no space", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "GET", (200, "", b"", True, b"")),
    ("9112-4 phrase of other bytes", b"HTTP/1.1 999 \t\xe9 \r\nContent-Length: 0\r\n\r\n", "GET", (999, "\t\xe9 ", b"", True, b"")),
    ("9110-7.2 Host means nothing", OK + b"Host: a/b\r\nHost: c\r\nExpect: x\r\nContent-Length: 0\r\n\r\n", "GET",
     (200, "OK", b"", True, b"")),
]  # fmt: skip


@pytest.mark.parametrize(("data", "method", "want"), [pytest.param(d, m, w, id=i) for i, d, m, w in RESPONSES])
def test_responses(data: bytes, method: str, want: tuple[Any, ...]) -> None:
    parser = every_way(lambda: ResponseParser(method), data)
    assert parser.error is None
    assert parser.is_complete
    assert (parser.status_code, parser.phrase, parser.body, parser.keep_alive, parser.remaining) == want


def test_a_body_to_the_end_of_the_connection() -> None:
    for head in (OK, b"HTTP/1.0 200 OK\r\n"):
        parser = every_way(ResponseParser, head + b"\r\nabc", eof=True)
        assert (parser.is_complete, parser.body, parser.keep_alive) == (True, b"abc", False)
    parser = ResponseParser()
    assert not parser.feed(OK + b"\r\n") and parser.phase == "body"
    assert not parser.feed(b"abc") and parser.take_body() == b"abc"
    assert not parser.feed(b"def")
    assert parser.feed_eof() and parser.body == b"def"


@pytest.mark.parametrize(
    "data",
    [
        OK[:9],
        OK + b"X: y\r\n",
        OK + b"Content-Length: 2\r\n\r\na",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    ],
    ids=["status line", "fields", "9112-8 length", "9112-8 chunked"],
)
def test_a_response_that_ends_early(data: bytes) -> None:
    parser = every_way(ResponseParser, data, eof=True)
    assert parser.error is not None and parser.error.status == 502
    assert str(parser.error).startswith("the stream ended within")


BAD_RESPONSES = [
    ("9112-4 not HTTP", b"SSH-2.0-x\r\n"),
    ("9112-4 a blank line before", b"\r\nHTTP/1.1 200 OK\r\n"),
    ("9112-2.3 version 2.0", b"HTTP/2.0 200 OK\r\n"),
    ("9112-2.3 version 1.2", b"HTTP/1.2 200 OK\r\n"),
    ("9112-4 two digits", b"HTTP/1.1 20 OK\r\n"),
    ("9112-4 four digits", b"HTTP/1.1 2000 OK\r\n"),
    ("9112-4 code 099", b"HTTP/1.1 099 OK\r\n"),
    ("9112-4 two spaces", b"HTTP/1.1  200 OK\r\n"),
    ("9112-4 tab", b"HTTP/1.1\t200 OK\r\n"),
    ("9112-2.2 bare LF", b"HTTP/1.1 200 OK\n"),
    ("9112-2.2 bare LF, no phrase", b"HTTP/1.1 200\n"),
    ("9112-2.2 bare CR", b"HTTP/1.1 200 O\rK"),
    ("9112-4 control byte", b"HTTP/1.1 200 O\0"),
    ("9112-5.2 obs-fold", OK + b"A: b\r\n c\r\n\r\n"),
    ("9112-5.1 space before the colon", OK + b"A : b\r\n\r\n"),
    ("9112-6.3.3 length with chunked", OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("9112-6.3.5 two lengths", OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n"),
    ("9112-6.3.5 bad length", OK + b"Content-Length: +1\r\n\r\n"),
    ("9112-6.3.4 gzip", OK + b"Transfer-Encoding: gzip\r\n\r\n"),
    ("9112-6.3.4 gzip, chunked", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    ("9112-6.1 HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("9112-7.1 bad chunk", OK + b"Transfer-Encoding: chunked\r\n\r\nx"),
]


@pytest.mark.parametrize("data", [pytest.param(d, id=i) for i, d in BAD_RESPONSES])
def test_bad_responses(data: bytes) -> None:
    parser = every_way(ResponseParser, data)
    assert (parser.phase, parser.error.status) == ("failed", 502)
    assert not parser.feed(OK + b"Content-Length: 0\r\n\r\n")
    assert parser.phase == "failed"


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"HTTP/1.1 200 12345678\r\nContent-Length: 0\r\n\r\n", {"max_request_line": 20}),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", {"max_request_line": 11}),
        (OK + b"Content-Length: 4\r\n\r\nabcd", {"max_body_size": 3}),
        (OK + b"\r\nabcd", {"max_body_size": 3}),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n", {"max_body_size": 3}),
        (OK + b"Content-Length: 0\r\n\r\n", {"max_header_section": 20}),
        (OK + b"Content-Length: 0\r\nA: b\r\n\r\n", {"max_headers": 1}),
    ],
    ids=["line", "line without phrase", "length", "to the end", "chunks", "section", "count"],
)
def test_limits_of_responses(data: bytes, limits: dict[str, int]) -> None:
    parser = every_way(lambda: ResponseParser(limits=Limits(**limits)), data)  # type: ignore[arg-type]
    assert parser.error is not None and "limit" in str(parser.error)
    ((name, value),) = limits.items()
    above = Limits(**{name: value + 1})  # type: ignore[arg-type]
    parser = every_way(
        lambda: ResponseParser(limits=above), data, eof=b"\r\n\r\nabcd" in data and b"Length" not in data
    )
    assert parser.is_complete, parser.error


def test_interim_responses_come_one_by_one() -> None:
    parser = ResponseParser("HEAD")
    assert repr(parser) == "<ResponseParser idle>"
    parser.feed(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    )
    assert (parser.status_code, parser.is_complete) == (100, True)
    assert parser.reset()
    assert (parser.status_code, parser.headers["link"]) == (103, "<a>")
    assert parser.reset()
    assert (parser.status_code, parser.body, parser.is_complete) == (200, b"", True), "still the answer to HEAD"
    assert parser.reset("GET") is False
    assert parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx") and parser.body == b"x"
    assert parser.version == "1.1"
