"""Our parser beside h11 and httptools (llhttp): what they judge differently, each difference explained.

All three are fed the cases of test_parser_c.py and the conformance tables. `EXPLAINED` has a row for each kind of difference: how
our parser ended, with its reason, and how the other did. A difference without a row fails, and so does a row without a difference.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evhttp import RequestParser

h11 = pytest.importorskip("h11", reason="the test group brings h11")
httptools = pytest.importorskip("httptools", reason="the test group brings httptools")

HERE = Path(__file__).resolve().parent


def cases() -> list[bytes]:
    spec = importlib.util.spec_from_file_location("cases_of_c", HERE / "test_parser_c.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found = [case[1] for case in (*module.GOOD, *module.BAD_CASES)]
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    found += [head + case[1] for case in (*module.CHUNKED_GOOD, *module.CHUNKED_BAD)]
    folder = module.conformance_folder()
    if folder is None:
        pytest.skip("no conformance tables: set EV_CONFORMANCE to their folder")
    for table in sorted(folder.glob("*.jsonl")):
        found += [base64.b64decode(json.loads(line)["req"]) for line in table.read_text().splitlines()]
    return found


# The requests taken, how it ended, and for a refusal the reason.
Outcome = tuple[list[tuple[str, str, bytes]], str, str]


def ours(data: bytes) -> Outcome:
    taken = []
    parser = RequestParser()
    complete = parser.feed(data)
    while complete:
        request = parser.request
        taken.append((request.method, request.target, request.body))
        if request.method == "CONNECT" or parser.upgrade:
            return taken, "switches", ""
        if not parser.keep_alive:
            return taken, "closes", ""
        complete = parser.reset()
    if parser.error is not None:
        return taken, "refuses", str(parser.error)
    return taken, "done" if parser.phase == "idle" else "waits", ""


def theirs_h11(data: bytes) -> Outcome:
    taken: list[tuple[str, str, bytes]] = []
    method = target = ""
    body = b""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=65536)
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return taken, "waits" if method or connection.trailing_data[0] else "done", ""
            if event is h11.PAUSED:
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return taken, "closes", ""
                connection.start_next_cycle()
            elif isinstance(event, h11.Request):
                method, target, body = event.method.decode("latin-1"), event.target.decode("latin-1"), b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                taken.append((method, target, body))
                method = ""
                if connection.their_state is h11.MUST_CLOSE:
                    return taken, "closes", ""
                if connection.their_state is h11.MIGHT_SWITCH_PROTOCOL:
                    return taken, "switches", ""
    except h11.RemoteProtocolError as error:
        return taken, "refuses", str(error)


class Callbacks:
    def __init__(self) -> None:
        self.taken: list[tuple[str, str, bytes]] = []
        self.parser: Any = httptools.HttpRequestParser(self)
        self.under_way = self.keep_alive = False
        self.url = self.body = b""

    def on_message_begin(self) -> None:
        self.under_way = True
        self.url = self.body = b""

    def on_url(self, part: bytes) -> None:
        self.url += part

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_headers_complete(self) -> None:
        self.keep_alive = self.parser.should_keep_alive()

    def on_message_complete(self) -> None:
        self.under_way = False
        self.taken.append((self.parser.get_method().decode("latin-1"), self.url.decode("latin-1"), self.body))


def theirs_httptools(data: bytes) -> Outcome:
    callbacks = Callbacks()
    try:
        callbacks.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return callbacks.taken, "switches", ""
    except httptools.HttpParserError as error:
        return callbacks.taken, "refuses", str(error)
    if callbacks.under_way:
        return callbacks.taken, "waits", ""
    return callbacks.taken, "done" if callbacks.keep_alive or not callbacks.taken else "closes", ""


PEERS: dict[str, Callable[[bytes], Outcome]] = {"h11": theirs_h11, "httptools": theirs_httptools}

EARLY = (
    "We judge each byte as it comes; it looks at the head once its empty line has come, or at the field once all have."
)
SEMANTICS = "It parses syntax, and leaves this rule to the server built on it."
LONE_LF = (
    "RFC 9112 2.2 lets a recipient take a lone LF for a line's end. What two hops cut differently can be smuggled."
)
BOTH = "h11 httptools"
# (our end, our reason) -> peers, what it is about. The peers' own ends may be several: early and late forms of one case.
EXPLAINED: dict[tuple[str, str], tuple[str, str]] = {
    # What we take and the other refuses, or sees differently.
    ("closes, it refuses", "Data after `Connection: close`"): ("httptools",
        "RFC 9112 9.6: what follows the last request is not processed. We close, it calls it an error."),
    ("closes, it switches", ""): (BOTH,
        "RFC 9110 7.8: a server MUST ignore an Upgrade that is received in an HTTP/1.0 request."),
    ("done, it closes", ""): ("h11",
        "It gives HTTP/1.0 no persistent connections; RFC 9112 9.3 lets keep-alive ask for one."),
    ("done, it switches", ""): ("h11",
        "It waits for the server's word at any Upgrade; RFC 9110 7.8 wants upgrade in Connection as well."),
    ("switches, it switches", ""): ("httptools",
        "It takes what follows CONNECT for the tunnel's; we frame it by its Content-Length first, as RFC 9112 6.3 does."),
    ("waits, it switches", ""): (BOTH,
        "A body that we wait for behind CONNECT, or an Upgrade that Connection does not name: see the two rows above."),
    ("done, it refuses", "Invalid character in chunk extensions"): ("httptools",
        "RFC 9112 7.1.1 has BWS around the semicolon, and recipients MUST parse it."),
    ("done, it refuses", "Invalid character in chunk size"): ("httptools", "The same, before the first semicolon."),
    ("done, it refuses", "illegal chunk header: bytearray(b'5 \\t; a ; b = c ;\\td\\t=\\t\"e\" ;f\\r\\n')"): ("h11",
        "The same."),
    ("done, it refuses", "no request line received"): ("h11",
        "RFC 9112 2.2: a server SHOULD ignore at least one empty line before the request line."),
    ("waits, it refuses", "no request line received"): ("h11", "The same, before a request that is not complete."),
    ("waits, it refuses", "Invalid method encountered"): ("httptools",
        "It knows all methods and refuses at the first byte that none has; to us they are tokens until they end."),
    # Line ends.
    ("refuses", "CR without LF at the end of the body"): ("h11", EARLY),
    ("refuses", "CR without LF at the end of the header section"): ("h11", EARLY),
    ("refuses", "CR without LF before the request line"): ("httptools", "It skips any CR and LF there; RFC 9112 2.2 says CRLF."),
    ("refuses", "CR without LF behind the request line"): ("h11", EARLY),
    ("refuses", "CR without LF in a chunk line"): ("h11", "It does not read chunk extensions; a CR in one can be smuggled."),
    ("refuses", "CR without LF in a header field"): ("h11", EARLY),
    ("refuses", "LF without CR behind a header field"): ("h11", LONE_LF),
    ("refuses", "LF without CR behind the request line"): ("h11", LONE_LF),
    ("refuses", "the request does not begin with a method"): ("httptools", "A lone LF before the request line, which it skips."),
    ("refuses", "too many blank lines before the request line"): ("httptools", "It skips any number; we do four."),
    # Request lines.
    ("refuses", "a byte between the version and CRLF"): ("h11", EARLY),
    ("refuses", "a byte that no request target may hold"): ("h11", EARLY),
    ("refuses", "empty request target"): (BOTH, EARLY + " httptools takes several spaces for one, against RFC 9112 3."),
    ("refuses", "the method is longer than any known one"): ("h11", SEMANTICS),
    ("refuses", "the method is not a token"): ("h11", EARLY),
    ("refuses", "the request line has no version"): (BOTH, EARLY + " httptools takes HTTP/0.9."),
    ("refuses", "the version is not HTTP/x.y"): (BOTH, EARLY + " httptools takes RTSP and two spaces before the version."),
    ("refuses", "a version other than HTTP/1.0 and HTTP/1.1"): (BOTH,
        "505 is the server's to say (RFC 9110 15.6.6); it parses what it can, httptools 0.9 and 2.0."),
    ("refuses", "unknown method"): (BOTH, "501 is the server's to say (RFC 9110 9.1). h11 has no table; httptools' has RTSP's."),
    ("refuses", "the request target is in none of the four forms"): ("h11", SEMANTICS),
    ("refuses", "absolute-form without //"): ("h11", SEMANTICS),
    ("refuses", "a target of a scheme other than http and https"): (BOTH, SEMANTICS),
    ("refuses", "bad userinfo in the request target"): (BOTH, SEMANTICS),
    ("refuses", "the authority of the request target is not host[:port]"): (BOTH, SEMANTICS),
    ("refuses", "the target * is for OPTIONS only"): (BOTH, SEMANTICS + " RFC 9112 3.2.4."),
    ("refuses", "the target of CONNECT is not host:port"): (BOTH, SEMANTICS + " RFC 9110 9.3.6: MUST reject."),
    # Fields.
    ("refuses", "a byte that no field name may hold"): ("h11", EARLY),
    ("refuses", "a control byte in a field value"): ("h11", "It refuses NUL, CR and LF; RFC 9110 5.5: other CTLs are invalid too."),
    ("refuses", "a control byte in a trailer field"): ("h11", "It takes an LF for the line's end, and refuses what follows."),
    ("refuses", "a header line begins with white space (obsolete folding)"): ("h11",
        "RFC 9112 5.2 lets a server refuse obs-fold or replace it; it replaces."),
    ("refuses", "a header line without a colon"): ("h11", EARLY),
    ("refuses", "empty field name"): ("h11", EARLY),
    ("refuses", "space before the colon of a header field"): ("h11", EARLY),
    ("refuses", "more header fields than the limit"): (BOTH, "It does not count fields; h11 bounds their bytes."),
    ("refuses", "HTTP/1.1 without a Host field"): ("httptools", SEMANTICS + " RFC 9112 3.2: MUST respond with 400."),
    ("refuses", "more than one Host field"): (BOTH, EARLY + " httptools leaves it to the server."),
    ("refuses", "more than one Content-Type field"): (BOTH, SEMANTICS),
    ("refuses", "Expect is not 100-continue"): (BOTH, SEMANTICS),
    # Framing.
    ("refuses", "Content-Length is not a plain decimal number"): ("h11", EARLY + " RFC 9112 6.3 allows lists."),
    ("refuses", "Content-Length is over the limit for bodies"): (BOTH, SEMANTICS),
    ("refuses", "Content-Length together with Transfer-Encoding"): ("h11", EARLY + " RFC 9112 6.3 lets it drop the length."),
    ("refuses", "empty Content-Length"): (BOTH, EARLY),
    ("refuses", "more than one Content-Length field"): ("h11", EARLY + " It takes equal ones for one."),
    ("refuses", "Transfer-Encoding in HTTP/1.0"): (BOTH, "RFC 9112 6.1: MUST be treated as faulty framing; it decodes it."),
    ("refuses", "Transfer-Encoding is not a list of codings"): (BOTH, EARLY),
    ("refuses", "a transfer coding other than chunked"): ("httptools", "It decodes the chunks alone; RFC 9112 6.1 says 501."),
    ("refuses", "chunked is not the last transfer coding"): ("h11", EARLY),
    ("refuses", "chunked twice in Transfer-Encoding"): ("h11", EARLY),
    ("refuses", "empty element in Transfer-Encoding"): (BOTH, EARLY),
    ("refuses", "bad chunk extension"): (BOTH, "h11 does not read extensions, httptools loosely; RFC 9112 7.1.1."),
    ("refuses", "the chunked body is over its limit"): (BOTH, SEMANTICS),
    ("refuses", "a trailer field that decides about framing or routing"): (BOTH, "RFC 9110 6.5.1 forbids to send one."),
    ("refuses", "a trailer line does not begin with a name and a colon"): ("h11", "It takes obs-fold in trailers too."),
}  # fmt: skip


@pytest.mark.parametrize("peer", PEERS)
def test_differences_are_explained(peer: str) -> None:
    unexplained, seen = [], set()
    for data in cases():
        we, they = ours(data), PEERS[peer](data)
        if we[:2] == they[:2]:
            continue
        key = we[1:] if we[1] == "refuses" else (f"{we[1]}, it {they[1]}", they[2] if they[1] == "refuses" else "")
        row = EXPLAINED.get(key)
        if row is None or peer not in row[0].split():
            unexplained.append((key, data[:200], we, they))
        seen.add(key)
    assert unexplained == []
    stale = {key for key, row in EXPLAINED.items() if peer in row[0].split()} - seen
    assert stale == set()
