"""The request head parser, the chunked decoder and the scanning kernels, in C, without the server around them.

The sources are compiled here, with the driver in ``c/``, into a shared object of their own. The driver presents every input in
memory that ends, and begins, at a page that cannot be read, whole, byte by byte and cut at every position, and says whether all
of these gave the same; so each case below is all of them.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import platform
import random
import shutil
import string
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
SOURCES = TESTS.parent / "src" / "evhttp" / "_c"
FILES = [
    SOURCES / name for name in ("parser.c", "response.c", "reader.c", "fields.c", "target.c", "chunked.c", "scan.c")
]
COMPILER = next(
    (path for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if name and (path := shutil.which(name))), None
)

MORE, DONE, BAD = 0, 1, -1
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "OTHER"]
FLAGS = ["keep-alive", "chunked", "length", "continue", "upgrade", "host", "absolute", "authority", "asterisk"]

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def compile_c(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert COMPILER is not None
    flags = ["-std=c11", "-g", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
    return subprocess.run([COMPILER, *flags, *map(str, arguments)], capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Limits:
    line: int = 8192
    section: int = 32768
    headers: int = 100
    body: int = 1 << 20
    chunk_line: int = 256
    trailers: int = 4096
    any_method: int = 0

    def pack(self) -> Any:
        values = (self.line, self.section, self.headers, self.body, self.chunk_line, self.trailers, self.any_method)
        return (ctypes.c_uint64 * 7)(*values)


DEFAULT_LIMITS = Limits()


@dataclass
class Head:
    result: int
    status: int = 0
    reason: str = ""
    pos: int = 0
    method: str = ""
    version: int = 0
    flags: set[str] = field(default_factory=set)
    target: bytes = b""
    path: bytes = b""
    host: bytes = b""
    length: int = 0
    head_len: int = 0
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)


@dataclass
class Body:
    result: int
    status: int
    reason: str
    used: int
    data: bytes


class Driver:
    """The compiled driver; asserts that the ways to cut an input agree."""

    def __init__(self, library: Path) -> None:
        self.lib = ctypes.CDLL(str(library))
        self.lib.drv_head.restype = self.lib.drv_body.restype = self.lib.drv_stream.restype = ctypes.c_long
        self.lib.drv_scan.restype = self.lib.drv_first_answer.restype = ctypes.c_size_t
        self.lib.evh_scan_select.restype = self.lib.evh_scan_impl_name.restype = ctypes.c_char_p

    def select(self, name: str | None) -> str | None:
        answer: bytes | None = self.lib.evh_scan_select(None if name is None else name.encode())
        return None if answer is None else answer.decode()

    def head(self, message: bytes, limits: Limits = DEFAULT_LIMITS) -> Head:
        out = (ctypes.c_int64 * (17 + 4 * 256))()
        reason = ctypes.create_string_buffer(128)
        cut = self.lib.drv_head(limits.pack(), message, ctypes.c_size_t(len(message)), out, reason)
        assert cut == -1, f"cut at {cut} differs from whole (0: byte by byte): {message[:200]!r}"
        result, status, pos, method, version, flags, start, method_len, *rest = out[:17]
        target, target_len, path, path_len, host, host_len, head_len, length, nfields = rest
        head = Head(result, status, reason.value.decode(), pos)
        if result == DONE:
            head.method = METHODS[method]
            assert METHODS[method] in (message[start : start + method_len].decode(), "OTHER")
            head.version, head.length, head.head_len = version, length, head_len
            head.flags = {name for bit, name in enumerate(FLAGS) if flags >> bit & 1}
            head.target = message[target : target + target_len]
            head.path, head.host = message[path : path + path_len], message[host : host + host_len]
            for i in range(nfields):
                name, name_len, value, value_len = out[17 + 4 * i : 21 + 4 * i]
                head.fields.append((message[name : name + name_len], message[value : value + value_len]))
        return head

    def body(self, coded: bytes, limits: Limits = DEFAULT_LIMITS) -> Body:
        out = (ctypes.c_int64 * 4)()
        data = ctypes.create_string_buffer(len(coded) + 1)
        reason = ctypes.create_string_buffer(128)
        cut = self.lib.drv_body(limits.pack(), coded, ctypes.c_size_t(len(coded)), data, out, reason)
        assert cut == -1, f"cut at {cut} differs from whole (0: byte by byte): {coded[:200]!r}"
        return Body(out[0], out[1], reason.value.decode(), out[2], data.raw[: out[3]])

    def first_answer(self, message: bytes, limits: Limits = DEFAULT_LIMITS) -> int:
        return int(self.lib.drv_first_answer(limits.pack(), message, ctypes.c_size_t(len(message))))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    path = tmp_path_factory.mktemp("parser") / "parser_driver.so"
    done = compile_c("-O2", "-shared", "-fPIC", TESTS / "c" / "parser_driver.c", *FILES, "-o", path)
    assert done.returncode == 0, done.stderr
    return Driver(path)


IMPLEMENTATIONS = ["scalar", "neon"] if platform.machine() in ("aarch64", "arm64") else ["scalar", "sse2", "avx2"]


@pytest.fixture(params=IMPLEMENTATIONS)
def driver(request: pytest.FixtureRequest, library: Driver) -> Iterator[Driver]:
    """The driver, with each scanning implementation that runs here."""
    if library.select(request.param) is None:
        pytest.skip(f"{request.param} does not run on this machine")
    yield library
    library.select(None)


# -- good requests ------------------------------------------------------------------------------------------------------

H = b"Host: a\r\n"
GOOD: list[tuple[str, bytes, dict[str, Any]]] = [
    (
        "9112-3 origin-form",
        b"GET /p/a?q=1?2 HTTP/1.1\r\nHost: example.com:80\r\n\r\n",
        {"method": "GET", "version": 11, "target": b"/p/a?q=1?2", "path": b"/p/a", "host": b"example.com:80",
         "flags": {"keep-alive", "host"}},
    ),
    ("9112-2.2 blank lines before", b"\r\n\r\nPOST / HTTP/1.1\r\n" + H + b"\r\n", {"method": "POST", "target": b"/"}),
    ("9112-3 method OTHER", b"PROPFIND / HTTP/1.1\r\n" + H + b"\r\n", {"method": "OTHER"}),
    ("9112-3.2.1 empty query", b"GET /? HTTP/1.1\r\n" + H + b"\r\n", {"path": b"/", "target": b"/?"}),
    ("9112-3.2.2 absolute", b"GET http://b:1/x?y HTTP/1.1\r\n" + H + b"\r\n",
     {"path": b"/x", "host": b"b:1", "flags": {"keep-alive", "host", "absolute"}}),
    ("9112-3.2.2 absolute, no path", b"GET HTTPS://b?y HTTP/1.1\r\n" + H + b"\r\n",
     {"path": b"", "host": b"b", "target": b"HTTPS://b?y"}),
    ("9112-3.2.2 userinfo ignored", b"GET http://u:p%20@[::1]:8/ HTTP/1.1\r\n" + H + b"\r\n",
     {"host": b"[::1]:8", "path": b"/"}),
    ("9112-3.2.3 authority", b"CONNECT h_1.x:443 HTTP/1.1\r\n" + H + b"\r\n",
     {"method": "CONNECT", "host": b"h_1.x:443", "path": b""}),
    ("9112-3.2.4 asterisk", b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n",
     {"path": b"*", "flags": {"keep-alive", "host", "asterisk"}}),
    ("9112-3.2 every byte", b"GET /" + bytes(range(0x21, 0x7F)) + b" HTTP/1.1\r\n" + H + b"\r\n",
     {"target": b"/" + bytes(range(0x21, 0x7F))}),
    ("9112-3.2 empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", {"host": b"", "flags": {"keep-alive", "host"}}),
    ("9112-3.2 HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", {"version": 10, "flags": set()}),
    ("9110-5.5 value trimmed", b"GET / HTTP/1.1\r\nHost: \t a \t \r\nX:\r\nY: \t \r\nZ:a  b\xff\t\r\n\r\n",
     {"fields": [(b"Host", b"a"), (b"X", b""), (b"Y", b""), (b"Z", b"a  b\xff")]}),
    ("9110-5.6.2 every tchar", b"GET / HTTP/1.1\r\n!#$%&'*+-.^_`|~0Az: 1\r\n" + H + b"\r\n",
     {"fields": [(b"!#$%&'*+-.^_`|~0Az", b"1"), (b"Host", b"a")]}),
    ("9112-6.2 length", b"PUT / HTTP/1.1\r\n" + H + b"content-LENGTH: 0042\r\n\r\n",
     {"length": 42, "flags": {"keep-alive", "host", "length"}}),
    ("9112-6.1 chunked", b"PUT / HTTP/1.1\r\n" + H + b"Transfer-Encoding: Chunked\r\n\r\n",
     {"flags": {"keep-alive", "host", "chunked"}}),
    ("9112-9.3 close", b"GET / HTTP/1.1\r\n" + H + b"Connection: Close\r\n\r\n", {"flags": {"host"}}),
    ("9112-9.3 close wins over several fields",
     b"GET / HTTP/1.1\r\n" + H + b"Connection: , keep-alive,\r\nConnection: x ,close\r\n\r\n",
     {"flags": {"host"}}),
    ("9112-9.3 closed is not close", b"GET / HTTP/1.1\r\n" + H + b"Connection: closed, no close\r\n\r\n",
     {"flags": {"keep-alive", "host"}}),
    ("9112-9.3 HTTP/1.0 keep-alive", b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", {"flags": {"keep-alive"}}),
    ("9110-7.8 upgrade", b"GET / HTTP/1.1\r\n" + H + b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n",
     {"flags": {"keep-alive", "host", "upgrade"}}),
    ("9110-7.8 no upgrade without Connection", b"GET / HTTP/1.1\r\n" + H + b"Upgrade: websocket\r\n\r\n",
     {"flags": {"keep-alive", "host"}}),
    ("9110-7.8 no upgrade in HTTP/1.0", b"GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
     {"flags": set()}),
    ("9110-10.1.1 continue", b"PUT / HTTP/1.1\r\n" + H + b"Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
     {"flags": {"keep-alive", "host", "length", "continue"}}),
    ("9110-10.1.1 continue without a body",
     b"PUT / HTTP/1.1\r\n" + H + b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n",
     {"flags": {"keep-alive", "host", "length"}}),
    ("9110-10.1.1 continue in HTTP/1.0", b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
     {"flags": {"length"}}),
]  # fmt: skip


@pytest.mark.parametrize(("message", "want"), [pytest.param(m, w, id=i) for i, m, w in GOOD])
@pytest.mark.parametrize(
    "rest", [b"", b"GET /next HTTP/1.1\r\n", b"\x00\xff\r\n\r\n"], ids=["alone", "pipelined", "garbage behind"]
)
def test_good_request(driver: Driver, message: bytes, want: dict[str, Any], rest: bytes) -> None:
    head = driver.head(message + rest)
    assert (head.result, head.reason) == (DONE, "")
    assert head.head_len == head.pos == len(message)
    for name, value in want.items():
        assert getattr(head, name) == value, name


@pytest.mark.parametrize(
    "host",
    ["a", "a.b-c_d~e", "0.0.0.0=5000", "%C3%B1", "a:", "a:0", "a:65535", "1.2.3.4", "[::]", "[::1]:80", "[1:2:3:4:5:6:7:8]",
     "[1::8]", "[1:2:3:4:5:6:7::]", "[::2:3:4:5:6:7:8]", "[::ffff:1.2.3.4]", "[1:2:3:4:5:6:1.2.3.4]", "[v1.a:b]", "!$&'()*+;="],
)  # fmt: skip
def test_good_host(driver: Driver, host: str) -> None:
    for message in (f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n", f"GET http://{host}/ HTTP/1.1\r\nHost: x\r\n\r\n"):
        head = driver.head(message.encode())
        assert (head.result, head.reason, head.host.decode()) == (DONE, "", host)


@pytest.mark.parametrize(
    "host",
    ["user@a", "a/path", "a, b", "a,b", "a b", ":80", "a:b", "a:80x", "a:65536", "a:99999999999999999999", "a:80:80", "%", "%2",
     "%zz", "a?", "a#b", "é",
     "[", "[]", "[1]", "[::1", "::1", "[::1]x", "[:::]", "[1::2::3]", "[1:2:3:4:5:6:7:8:9]",
     "[1:2:3:4:5:6:7]", "[::2:3:4:5:6:7:8:9]", "[:1:2]", "[1:]",
     "[12345::]", "[::g]", "[::1.2.3]", "[::1.2.3.4.5]", "[::1.2.3.256]", "[::01.2.3.4]",
     "[1.2.3.4::]", "[fe80::1%25eth0]", "[v.a]", "[v1.]", "[v1]", "a\\b", "<a>", '"a"'],
)  # fmt: skip
def test_bad_host(driver: Driver, host: str) -> None:
    head = driver.head(b"GET / HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n")
    assert (head.result, head.status) == (BAD, 400)
    head = driver.head(b"CONNECT " + host.encode() + b":1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (head.result, head.status) == (BAD, 400)


# -- bad requests -------------------------------------------------------------------------------------------------------

L = b"GET / HTTP/1.1\r\n"
BAD_CASES: list[tuple[str, bytes, int]] = [
    ("9112-2.2 five blank lines", b"\r\n" * 5 + L + H + b"\r\n", 400),
    ("9112-2.2 bare LF before", b"\n" + L + H + b"\r\n", 400),
    ("9112-2.2 bare CR before", b"\r" + L + H + b"\r\n", 400),
    ("9112-2.2 bare LF behind the request line", b"GET / HTTP/1.1\n" + H + b"\r\n", 400),
    ("9112-2.2 bare CR behind the request line", b"GET / HTTP/1.1\r" + H + b"\r\n", 400),
    ("9112-2.2 bare LF behind a field", L + b"Host: a\n\r\n", 400),
    ("9112-2.2 bare CR in a field", L + b"Host: a\rb\r\n\r\n", 400),
    ("9112-2.2 bare LF at the end", L + H + b"\n", 400),
    ("9112-2.2 bare CR at the end", L + H + b"\rX", 400),
    ("9112-2.2 white space before the first field", L + b" " + H + b"\r\n", 400),
    ("9112-3 empty method", b" / HTTP/1.1\r\n", 400),
    ("9112-3 method not a token", b"G(T / HTTP/1.1\r\n", 400),
    ("9112-3 method with a byte above 7F", b"GET\xc3 / HTTP/1.1\r\n", 400),
    ("9112-3 TLS", b"\x16\x03\x01\x00\xa5", 400),
    ("9112-3 unknown method", b"GETTY / HTTP/1.1\r\n" + H + b"\r\n", 501),
    ("9110-9.1 method in small letters", b"get / HTTP/1.1\r\n" + H + b"\r\n", 501),
    ("9112-3 long method", b"A" * 33, 501),
    ("9112-3 tab for SP", b"GET\t/ HTTP/1.1\r\n", 400),
    ("9112-3 two SP before the target", b"GET  / HTTP/1.1\r\n", 400),
    ("9112-3 two SP behind the target", b"GET /  HTTP/1.1\r\n", 400),
    ("9112-3 SP behind the version", b"GET / HTTP/1.1 \r\n", 400),
    ("9112-3 no target", b"GET HTTP/1.1\r\n", 400),
    ("9112-3 no version", b"GET /\r\n", 400),
    ("9112-3.2 control byte in the target", b"GET /\x01 HTTP/1.1\r\n", 400),
    ("9112-3.2 DEL in the target", b"GET /\x7f HTTP/1.1\r\n", 400),
    ("9112-3.2 raw UTF-8 in the target", b"GET /\xc3\xa9 HTTP/1.1\r\n", 400),
    ("9112-3.2 raw UTF-8 in the query", b"GET /?\xc3\xa9 HTTP/1.1\r\n", 400),
    ("9112-3.2 control byte in the query", b"GET /?\x00 HTTP/1.1\r\n", 400),
    ("9112-3.2 relative target", b"GET foo/bar HTTP/1.1\r\n", 404),
    ("9112-3.2.2 other scheme", b"GET ftp://a/ HTTP/1.1\r\n", 421),
    ("9112-3.2.2 no slashes", b"GET http:/a HTTP/1.1\r\n", 400),
    ("9110-4.2.1 empty host", b"GET http:///a HTTP/1.1\r\n", 400),
    ("9112-3.2.2 bad userinfo", b"GET http://a[@b/ HTTP/1.1\r\n", 400),
    ("9112-3.2.2 two at signs", b"GET http://a@b@c/ HTTP/1.1\r\n", 400),
    ("9112-3.2.3 CONNECT with a path", b"CONNECT / HTTP/1.1\r\n", 400),
    ("9110-9.3.6 CONNECT without a port", b"CONNECT a HTTP/1.1\r\n", 400),
    ("9110-9.3.6 CONNECT with an empty port", b"CONNECT a: HTTP/1.1\r\n", 400),
    ("9112-3.2.4 asterisk for GET", b"GET * HTTP/1.1\r\n", 400),
    ("9112-2.3 version 2.0", b"GET / HTTP/2.0\r\n", 505),
    ("9112-2.3 version 1.2", b"GET / HTTP/1.2\r\n", 505),
    ("9112-2.3 version 0.9", b"GET / HTTP/0.9\r\n", 505),
    ("9112-2.3 version 1.10", b"GET / HTTP/1.10\r\n", 400),
    ("9112-2.3 version 1.", b"GET / HTTP/1.\r\n", 400),
    ("9112-2.3 version 11", b"GET / HTTP/11\r\n", 400),
    ("9112-2.3 http/1.1", b"GET / http/1.1\r\n", 400),
    ("9112-3.2 no Host", L + b"X: y\r\n\r\n", 400),
    ("9112-3.2 two Hosts, equal", L + H + H, 400),
    ("9112-3.2 two Hosts in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nhost:\r\n", 400),
    ("9112-5.1 space before the colon", L + b"Host : a\r\n", 400),
    ("9112-5.1 tab before the colon", L + b"Host\t: a\r\n", 400),
    ("9112-5 no colon", L + b"Host\r\n", 400),
    ("9110-5.1 empty name", L + b": a\r\n", 400),
    ("9110-5.1 name not a token", L + b"Fo@: a\r\n", 400),
    ("9110-5.1 name with a byte above 7F", L + b"Fo\xc3: a\r\n", 400),
    ("9112-5.2 obs-fold, SP", L + H + b"X: a\r\n b\r\n", 400),
    ("9112-5.2 obs-fold, HTAB", L + H + b"X: a\r\n\tb\r\n", 400),
    ("9112-5.2 obs-fold of Transfer-Encoding", L + H + b"Transfer-Encoding:\r\n chunked\r\n", 400),
    ("9110-5.3 two Content-Types", L + H + b"Content-Type: a/b\r\nContent-Type: a/b\r\n", 400),
    ("9112-6.3 length with chunked", L + H + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
    ("9112-6.3 chunked with length", L + H + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
    ("9112-6.3 two lengths", L + H + b"Content-Length: 1\r\nContent-Length: 2\r\n", 400),
    ("9112-6.3 two equal lengths", L + H + b"Content-Length: 1\r\nContent-Length: 1\r\n", 400),
    ("9112-6.1 HTTP/1.0", b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", 400),
    ("9112-6.1 gzip, chunked", L + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ("9112-6.1 gzip and chunked in two fields", L + H + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    ("9112-6.1 parameters with a comma", L + H + b'Transfer-Encoding: x;a=",chunked\\"", chunked\r\n\r\n', 501),
    ("9112-6.3 gzip", L + H + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    ("9112-6.3 chunked, gzip", L + H + b"Transfer-Encoding: chunked, gzip\r\n", 400),
    ("9112-6.3 chunked then gzip", L + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", 400),
    ("9112-6.3 xchunked", L + H + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    ("9112-6.3 chunked;q", L + H + b"Transfer-Encoding: chunked;q=1\r\n\r\n", 400),
    ("9112-6.1 chunked twice", L + H + b"Transfer-Encoding: chunked, chunked\r\n", 400),
    ("9112-6.1 empty", L + H + b"Transfer-Encoding:\r\n", 400),
    ("9112-6.1 empty element", L + H + b"Transfer-Encoding: , chunked\r\n", 400),
    ("9112-6.1 quoted", L + H + b'Transfer-Encoding: "chunked"\r\n', 400),
    ("9110-10.1.1 Expect", L + H + b"Expect: 200-ok\r\n", 417),
    *[(f"9110-5.5 control byte {c:02x}", L + b"X: a" + bytes([c]) + b"b\r\n", 400) for c in (*range(9), *range(10, 32), 0x7F)],
    *[(f"9110-8.6 length {v!r}", L + H + b"Content-Length: " + v + b"\r\n", 400)
      for v in (b"", b"-1", b"+1", b"1,1", b"1, 1", b"1 1", b"0x1", b"1e3", b"5.0", b"1_0", b"\xb2", b"99999999999999999999x")],
    *[(f"9110-8.6 length {v}", L + H + b"Content-Length: %d\r\n" % v, 413)
      for v in ((1 << 20) + 1, 2**63, 2**64, 2**64 + 1, 10**40)],
]  # fmt: skip


@pytest.mark.parametrize(("message", "status"), [pytest.param(m, s, id=i) for i, m, s in BAD_CASES])
def test_bad_request(driver: Driver, message: bytes, status: int) -> None:
    head = driver.head(message)
    assert (head.result, head.status) == (BAD, status), head.reason
    assert head.reason
    assert driver.head(message + b"X" * 40).status == status


@pytest.mark.parametrize(
    ("message", "at"),
    [
        pytest.param(b"\x00", 1, id="NUL"),
        pytest.param(b"GET\n", 4, id="LF in the method"),
        pytest.param(b"GET / HTTP/1!", 13, id="version, last byte"),
        pytest.param(b"GET / HTTP/5.6", 14, id="505 without CRLF"),
        pytest.param(L + H + b" ", 26, id="obs-fold at its first byte"),
        pytest.param(L + H + b"Content-Length: 1\r\nContent-Length: 1\r\n", 63, id="second length at its line's end"),
        pytest.param(L + H + b"A :", 27, id="space before the colon"),
    ],
)
def test_error_is_seen_at_once(driver: Driver, message: bytes, at: int) -> None:
    assert driver.first_answer(message) == at


# -- limits -------------------------------------------------------------------------------------------------------------


def numbered(n: int) -> bytes:
    return L + H + b"".join(b"X-%d: y\r\n" % i for i in range(n - 1)) + b"\r\n"


def test_request_line_limit(driver: Driver) -> None:
    message = b"\r\nGET /" + b"a" * 60 + b" HTTP/1.1\r\n" + H + b"\r\n"
    size = message.index(b" HTTP/1.1\r\n") + 9 - 2
    assert driver.head(message, Limits(line=size)).result == DONE
    for smaller in range(size):
        head = driver.head(message, Limits(line=smaller))
        assert (head.result, head.status) == (BAD, 414)
        assert driver.first_answer(message, Limits(line=smaller)) == 2 + smaller + 1
        assert driver.head(message[: 2 + smaller], Limits(line=smaller)).result == MORE


def test_header_section_limit(driver: Driver) -> None:
    message = numbered(9)
    size = len(message) - len(L)
    assert driver.head(message + b"body", Limits(section=size)).result == DONE
    for smaller in range(size):
        head = driver.head(message + b"body", Limits(section=smaller))
        assert (head.result, head.status) == (BAD, 431)
        assert driver.first_answer(message, Limits(section=smaller)) == len(L) + smaller


@pytest.mark.parametrize("count", [0, 1, 2, 50, 256])
def test_header_count_limit(driver: Driver, count: int) -> None:
    for n in (count, count + 1):
        message = numbered(n) if n else b"GET / HTTP/1.0\r\n\r\n"
        head = driver.head(message, Limits(headers=count))
        assert (head.result, head.status) == ((DONE, 0) if n == count else (BAD, 431))
        assert len(head.fields) == (n if n == count else 0)
    assert driver.head(numbered(257), Limits(headers=10000)).status == 431


def test_body_limit(driver: Driver) -> None:
    for limit in (0, 1, 9, 10, 2**63 - 1, 2**64 - 1):
        most = min(limit, 2**63 - 1)
        good = driver.head(L + H + b"Content-Length: 00%d\r\n\r\n" % most, Limits(body=limit))
        assert (good.result, good.length) == (DONE, most)
        assert driver.head(L + H + b"Content-Length: %d\r\n\r\n" % (most + 1), Limits(body=limit)).status == 413


def test_any_method(driver: Driver) -> None:
    assert driver.head(b"FOO-BAR" + L[3:] + H + b"\r\n", Limits(any_method=1)).method == "OTHER"
    assert driver.head(b"get" + L[3:] + H + b"\r\n", Limits(any_method=1)).status == 501
    assert driver.head(b"A" * 32 + L[3:] + H + b"\r\n", Limits(any_method=1)).result == DONE


def test_long_input_is_looked_at_once(driver: Driver) -> None:
    """A megabyte of header, byte by byte: the driver checks after each byte that pos went forward and reached the end."""
    message = L + b"X: " + b"a" * 100_000
    assert driver.first_answer(message, Limits(section=200_000)) == 0


# -- chunked ------------------------------------------------------------------------------------------------------------

CHUNKED_GOOD: list[tuple[str, bytes, bytes]] = [
    ("7.1 two chunks", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
    ("7.1 empty", b"0\r\n\r\n", b""),
    ("7.1 zeros", b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
    ("7.1 upper and lower case", b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
    ("7.1 CRLF in the data", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    ("7.1.1 extensions", b'5;a;b=c;d="e\xff\\"\\\\ \t;";f\r\nhello\r\n0;x\r\n\r\n', b"hello"),
    ("7.1.1 BWS", b'5 \t; a ; b = c ;\td\t=\t"e" ;f\r\nhello\r\n0\r\n\r\n', b"hello"),
    ("7.1.2 trailers", b"0\r\nVary: *\r\nX-A:\r\nContent-Lengthy: 1\r\nHos: t\r\n\r\n", b""),
]
CHUNKED_BAD: list[tuple[str, bytes, int]] = [
    *[(f"7.1 size {v!r}", v + b"\r\nhello\r\n0\r\n\r\n", 400)
      for v in (b"", b"-5", b"+5", b"0x5", b"5_0", b" 5", b"5 ", b"5\t", b"g", b"5\x00", b"\xb5", b"5 5", b"5\n", b"5\r\r")],
    *[(f"7.1.1 extension {v!r}", b"5" + v + b"\r\nhello\r\n0\r\n\r\n", 400)
      for v in (b";", b"; ", b";;a", b";a ", b";a=", b";a= ", b";=b", b";a=b ", b";a=b c", b";a b", b';a="b',
                b';a="b"c', b';a="\x00"', b';a="\\\x00"',
                b';bad[=x', b";a=[", b";a\x00", b";a\rb", b";a\n", b';a="\r\n"', b" a", b",a")],
    ("7.1 data without CRLF", b"5\r\nhelloX", 400),
    ("7.1 data with LF", b"5\r\nhello\n", 400),
    ("7.1 data with CR", b"5\r\nhello\rX", 400),
    ("7.1 no last chunk", b"3\r\nfoo\r\n\r\n", 400),
    ("7.1.2 LF behind the last chunk", b"0\r\n\n", 400),
    ("7.1.2 CR behind the last chunk", b"0\r\n\rX", 400),
    *[(f"7.1.2 trailer {v!r}", b"0\r\n" + v + b"\r\n\r\n", 400)
      for v in (b"X", b": a", b"X : a", b" X: a", b"X: a\x00", b"X: a\n", b"X: a\rb", b"X: a\r\n b", b"X@: a", b"\x80: a",
                b"Host: a", b"content-length: 1", b"TRANSFER-ENCODING: chunked", b"Connection: x")],
    ("7.1 over the limit", b"100001\r\n", 413),
    ("7.1 overflow", b"FFFFFFFFFFFFFFFFF\r\n", 413),
    ("7.1 endless zeros", b"0" * 257, 400),
]  # fmt: skip


@pytest.mark.parametrize(("coded", "data"), [pytest.param(c, d, id=f"9112-{i}") for i, c, d in CHUNKED_GOOD])
@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n"], ids=["alone", "pipelined"])
def test_chunked_good(driver: Driver, coded: bytes, data: bytes, rest: bytes) -> None:
    body = driver.body(coded + rest)
    assert (body.result, body.data, body.used) == (DONE, data, len(coded)), body.reason
    for n in range(len(coded)):
        assert driver.body(coded[:n]).result == MORE


@pytest.mark.parametrize(("coded", "status"), [pytest.param(c, s, id=f"9112-{i}") for i, c, s in CHUNKED_BAD])
def test_chunked_bad(driver: Driver, coded: bytes, status: int) -> None:
    body = driver.body(coded)
    assert (body.result, body.status) == (BAD, status), body.reason
    assert body.reason


def test_chunked_limits(driver: Driver) -> None:
    coded = b"5;a=b\r\nhello\r\n2\r\n!!\r\n0\r\nX: y\r\nZ:\r\n\r\n"
    exact = Limits(body=7, chunk_line=5, trailers=10)
    assert driver.body(coded, exact).result == DONE
    for limits, status in (
        (Limits(7, body=6), 413),
        (Limits(body=4), 413),
        (Limits(chunk_line=4), 400),
        (Limits(trailers=9), 431),
        (Limits(trailers=0), 431),
    ):
        assert driver.body(coded, limits).status == status
    assert driver.body(b"0\r\n\r\n", Limits(trailers=0, body=0)).result == DONE
    assert driver.body(b"7fffffffffffffff\r\n", Limits(body=2**64 - 1)).result == MORE
    assert driver.body(b"8000000000000000\r\n", Limits(body=2**64 - 1)).status == 413


# -- scanning -----------------------------------------------------------------------------------------------------------

VALUE = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
TARGET = bytes(range(0x21, 0x7F))
TOKEN = (string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode()


@pytest.mark.parametrize(("kind", "members"), [(0, VALUE), (1, TARGET), (2, TOKEN)], ids=["value", "target", "token"])
def test_scan(driver: Driver, kind: int, members: bytes) -> None:
    """Each byte value at each distance; the input ends at a page that cannot be read."""
    rng = random.Random(20)
    for byte in range(256):
        for at in (*range(35), 63, 64, 65):
            run = bytes(rng.choices(members, k=at))
            got = driver.lib.drv_scan(kind, run + bytes([byte]) + b"\n", ctypes.c_size_t(at + 2))
            assert got == (at + 1 if byte in members else at)
            assert driver.lib.drv_scan(kind, run, ctypes.c_size_t(at)) == at


def test_class_table(library: Driver) -> None:
    """The table, derived again from the grammar."""
    name = (string.ascii_letters + string.digits).encode()
    quoted = bytes(c for c in VALUE if c not in b'"\\')
    classes = [
        TOKEN,
        VALUE,
        TARGET,
        name + b"-._~!$&'()*+;=",
        string.hexdigits.encode(),
        string.digits.encode(),
        quoted,
    ]
    table = (ctypes.c_uint8 * 256).in_dll(library.lib, "evh_class")
    assert list(table) == [sum(1 << bit for bit, members in enumerate(classes) if c in members) for c in range(256)]


def test_lower_copy(library: Driver) -> None:
    rng = random.Random(21)
    for n in range(70):
        source = bytes(rng.choices(range(256), k=n)) if n % 2 else (b"@AZ[`az{" * 9)[:n]
        out = ctypes.create_string_buffer(n + 1)
        library.lib.drv_lower(out, source, ctypes.c_size_t(n))
        assert out.raw == source.lower() + b"\0"


def test_select(library: Driver) -> None:
    assert library.select("no such") is None
    best = library.select(None)
    assert library.lib.evh_scan_impl_name().decode() == best
    assert library.select("scalar") == "scalar"
    assert library.select(None) == best


REQUEST_HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
RESPONSES = [
    ("9112-6.3 length", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 \r\n\r\n"),
    ("9112-6.3 chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\nX: y\r\n\r\n"),
    ("9112-6.3 to the end", b"HTTP/1.1 103 Early\r\nLink: <a>\r\n\r\nHTTP/1.0 404\r\nServer: x\r\n\r\nbody"),
    ("9110-15.2.2", b"HTTP/1.1 101 S\r\nUpgrade: w\r\nConnection: upgrade\r\n\r\n\x81"),
]


@pytest.mark.parametrize(
    ("stream", "kind", "messages"),
    [
        (RESPONSES[0][1], 1, 2),
        (RESPONSES[0][1].replace(b"abc", b""), 2, 2),
        (RESPONSES[1][1], 1, 1),
        (RESPONSES[2][1], 1, 2),
        (RESPONSES[3][1], 1, 1),
        (REQUEST_HEAD + CHUNKED_GOOD[-1][1] + b"GET / HTTP/1.0\r\n\r\n", 0, 2),
    ],
)
def test_streams(driver: Driver, stream: bytes, kind: int, messages: int) -> None:
    """reader.c, at the guard pages; what comes out is test_parser.py's matter."""
    out = (ctypes.c_int64 * 2)()
    assert driver.lib.drv_stream(DEFAULT_LIMITS.pack(), stream, ctypes.c_size_t(len(stream)), kind, out) == -1
    assert out[1] == messages


# -- the conformance tables ---------------------------------------------------------------------------------------------


def conformance_folder() -> Path | None:
    named = os.environ.get("EV_CONFORMANCE")
    candidates = (
        [Path(named)] if named else [TESTS.parents[3] / "shared" / "conformance", TESTS.parents[2] / "conformance"]
    )
    return next((path / "http" for path in candidates if (path / "http").is_dir()), None)


LONE_LF = (
    "RFC 9112 2.2: a recipient MAY recognize a single LF as a line terminator. It need not, and other rows refuse it."
)
NO_HOST = (
    f"{LONE_LF} And RFC 9112 3.2: a server MUST respond with 400 "
    "to any HTTP/1.1 request message that lacks a Host header field."
)
ASCII = "RFC 3986 2: a URI is a sequence of characters of US-ASCII. Other rows refuse raw bytes above 7F in a target."
WAITS = "RFC 9112 2.1: a message goes on until its empty line. Nothing is wrong so far; the read timeout answers such a client."
# Rows of tier `must` that we hold to be wrong: suite, id, and a part of the request where an id stands for several.
WRONG: dict[tuple[str, str, bytes], str] = {
    ("gunicorn", "valid/009.http", b""):
        "RFC 9112 6.3: where chunked is not the final coding the server MUST respond with 400; llhttp's row refuses it. "
        "And RFC 9112 3.2: a request-target has no fragment; this one has '#hey'.",
    ("gunicorn", "valid/027.http", b""): ASCII,
    ("gunicorn", "valid/099.http", b""):
        "RFC 9112 8: a body shorter than its Content-Length is incomplete; it has 8599 bytes of 17914.",
    ("gunicorn", "invalid/rfc9112_chunked_missing_final_crlf_01.http", b""): WAITS,
    ("h11", "test_close_simple", b"GET"): WAITS,
    ("h11", "test_readers_unusual", b"multi-line"):
        "RFC 9112 5.2: a server that receives an obs-fold MUST either reject the message or replace it; others refuse.",
    ("h11", "test_allow_some_garbage_in_cookies", b""):
        "RFC 9110 5.5: field values containing CTL characters are invalid; other rows refuse them.",
    ("httparse", "test_request_partial_parses_headers_as_much_as_it_can", b""): WAITS,
    ("httparse", "test_request_newlines", b""): LONE_LF,
    ("httparse", "test_request_empty_lines_prefix_lf_only", b""): NO_HOST,
    ("httparse", "test_request_path_backslash", b""): NO_HOST,
    ("llhttp", "sample.md/No HTTP version", b""):
        "RFC 9112 3: request-line = method SP request-target SP HTTP-version; powpow's table refuses the same bytes.",
    ("picohttpparser", "accept MSB chars", b""): ASCII,
}  # fmt: skip


def serve(library: Driver, data: bytes) -> tuple[list[int], list[bytes], bool]:
    """What a server that answers 200 to everything makes of one connection's bytes: statuses, bodies, whether it closes."""
    statuses: list[int] = []
    bodies: list[bytes] = []
    while True:
        head = library.head(data)
        if head.result == MORE:
            return statuses, bodies, False
        if head.result == BAD:
            return [*statuses, head.status], bodies, True
        data = data[head.head_len :]
        body = data[: head.length]
        if "chunked" in head.flags:
            decoded = library.body(data)
            if decoded.result == BAD:
                return [*statuses, decoded.status], bodies, True
            if decoded.result == MORE:
                return statuses, bodies, False
            body, data = decoded.data, data[decoded.used :]
        elif len(body) < head.length:
            return statuses, bodies, False
        else:
            data = data[head.length :]
        statuses.append(501 if head.method == "CONNECT" else 200)
        bodies.append(body)
        if "keep-alive" not in head.flags or head.method == "CONNECT":
            return statuses, bodies, True


def judge(row: dict[str, Any], statuses: list[int], bodies: list[bytes], closed: bool) -> bool:
    """The rules of the tables' own http_judge.py."""
    n = row.get("n", 0)
    if row["expect"] == "reject":
        first = statuses[:n]
        rest = (
            statuses[n:] if len(first) == n and all(s < 300 or s in (404, 405, 426, 501) for s in first) else statuses
        )
        return all(s >= 400 for s in rest) if rest else closed
    if row["expect"] == "incomplete":
        return not (any(s < 300 for s in statuses) and len(statuses) > n)
    if any(s in (400, 408, 411, 413, 414, 431, 505) for s in statuses[: max(n, 1)]) or len(statuses) < n:
        return False
    for method, want, status, got in zip(
        row.get("methods") or [], row.get("bodies") or [], statuses, bodies, strict=False
    ):
        if method in ("POST", "PUT", "PATCH") and status == 200 and base64.b64decode(want) != got:
            return False
    return len(statuses) == n or bool(row.get("upgrade"))


def test_conformance(library: Driver) -> None:
    folder = conformance_folder()
    if folder is None:
        pytest.skip("no conformance tables: set EV_CONFORMANCE to their folder")
    failures, excused = [], set()
    for table in sorted(folder.glob("*.jsonl")):
        counts = {"must": [0, 0], "policy": [0, 0]}
        for line in table.read_text().splitlines():
            row = json.loads(line)
            request = base64.b64decode(row["req"])
            statuses, bodies, closed = serve(library, request)
            good = judge(row, statuses, bodies, closed)
            counts[row["tier"]][0] += good
            counts[row["tier"]][1] += 1
            excuse = next((k for k in WRONG if k[:2] == (row["suite"], row["id"]) and k[2] in request), None)
            if good or row["tier"] != "must":
                assert excuse is None, f"{excuse} is excused but passes"
            elif excuse is None:
                failures.append(f"{row['suite']} {row['id']} expect {row['expect']} got {statuses}: {request[:160]!r}")
            else:
                excused.add(excuse)
        print(
            f"{table.stem}: must {counts['must'][0]}/{counts['must'][1]}, policy {counts['policy'][0]}/{counts['policy'][1]}"
        )
    assert not failures, "\n".join(failures)
    assert excused == set(WRONG)
