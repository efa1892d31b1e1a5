"""The parser alone beside httptools: a request of 12 header fields, from bytes to method, path and two fields read, or unread.

Run it in an environment that has evhttp and httptools: parser_alone.py. CPU time per request, the best of some rounds; and ours
with each of its scanning kernels.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import httptools

import evhttp
from evhttp._shim import ffi, lib

FIELDS = {
    "Host": "www.example.com",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://www.example.com/products/overview?category=7&sort=price",
    "Connection": "keep-alive",
    "Cookie": "session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes; cart=17; _id=a1b2c3d4e5f6",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "If-None-Match": '"5f3a-61c2d0e7"',
}
REQUEST = (
    "GET /products/17?ref=home HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in FIELDS.items()) + "\r\n"
).encode()


class Protocol:
    """What a server on httptools has at least: the target and the fields."""

    def on_message_begin(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def with_httptools() -> None:
    protocol = Protocol()
    parser = httptools.HttpRequestParser(protocol)
    parser.feed_data(REQUEST)
    fields = dict(protocol.headers)
    assert parser.get_method() and httptools.parse_url(protocol.url).path and fields[b"cookie"] and fields[b"accept"]


def parsed_by_httptools() -> None:
    httptools.HttpRequestParser(None).feed_data(REQUEST)  # no callbacks: what is parsed is dropped


_parser = evhttp.RequestParser()


def parsed_by_evhttp() -> None:
    _parser.feed(REQUEST)
    _parser.reset()


def with_evhttp() -> None:
    _parser.feed(REQUEST)
    request = _parser.request
    fields = request.headers
    assert request.method and request.path and fields["cookie"] and fields["accept"]
    _parser.reset()


def microseconds(function: Callable[[], None], count: int = 5000) -> float:
    """CPU time of one call."""
    best = float("inf")
    for _ in range(9):
        began = time.process_time()
        for _ in range(count):
            function()
        best = min(best, time.process_time() - began)
    return best / count * 1e6


def main() -> None:
    """Print the table."""
    peer, bare = microseconds(with_httptools), microseconds(parsed_by_httptools)
    print(f"{len(REQUEST)} bytes; µs per request\n")
    print("| parser | four things read | httptools ÷ it | nothing read | httptools ÷ it |\n|---|--:|--:|--:|--:|")
    print(f"| httptools | {peer:.2f} | 1.00 | {bare:.2f} | 1.00 |")
    for name in ("scalar", "sse2", "avx2", "neon"):
        if lib.evhttp_scan_select(name.encode()) != ffi.NULL:
            ours, least = microseconds(with_evhttp), microseconds(parsed_by_evhttp)
            print(f"| evhttp, {name} | {ours:.2f} | {peer / ours:.2f} | {least:.2f} | {bare / least:.2f} |")
    lib.evhttp_scan_select(ffi.NULL)


if __name__ == "__main__":
    main()
