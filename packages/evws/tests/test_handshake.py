"""The opening handshake (RFC 6455 §4), over connections and by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from framing import raw

import evhttp
import evws
from evhttp import Request, Response
from evloop.testing import checked_loop
from evws import Opcode
from evws._handshake import Refusal, accept_of, choose_subprotocol, is_allowed, read_offer

Serve = Callable[..., Any]
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def test_accept_of_the_rfc_s_key() -> None:
    assert accept_of(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def key(value: str) -> dict[str, Any]:
    return {"without": "Sec-WebSocket-Key", "lines": [f"Sec-WebSocket-Key: {value}"]}


REFUSED: list[tuple[str, int, dict[str, Any]]] = [
    ("4.2.1-1 HTTP/1.0", 400, {"start": "GET / HTTP/1.0"}),
    ("4.2.1-1 POST", 400, {"start": "POST / HTTP/1.1", "lines": ["Content-Length: 0"]}),
    ("4.2.1-1 HEAD", 400, {"start": "HEAD / HTTP/1.1"}),
    ("4.2.1-2 no Host", 400, {"without": "Host"}),
    ("4.2.1-2 two Hosts", 400, {"lines": ["Host: a"]}),
    ("4.2.1-3 no Upgrade", 426, {"without": "Upgrade"}),
    ("4.2.1-3 another Upgrade", 426, {"without": "Upgrade", "lines": ["Upgrade: h2c, websockets"]}),
    ("4.2.1-4 no Connection", 400, {"without": "Connection"}),
    ("4.2.1-4 Connection: keep-alive", 400, {"without": "Connection", "lines": ["Connection: keep-alive"]}),
    ("4.2.1-4 Connection: upgrade, close", 400, {"lines": ["Connection: close"]}),
    ("4.2.1-5 no key", 400, {"without": "Sec-WebSocket-Key"}),
    ("4.2.1-5 two keys", 400, {"lines": [f"Sec-WebSocket-Key: {KEY}"]}),
    ("4.2.1-5 empty key", 400, key("")),
    ("4.2.1-5 15 bytes", 400, key("AAAAAAAAAAAAAAAAAAAA")),
    ("4.2.1-5 17 bytes", 400, key("AAAAAAAAAAAAAAAAAAAAAAA=")),
    ("4.2.1-5 18 bytes", 400, key("AAAAAAAAAAAAAAAAAAAAAAAA")),
    ("4.2.1-5 16 bytes without padding", 400, key("AAAAAAAAAAAAAAAAAAAAAA")),
    ("4.2.1-5 not base64", 400, key("!AAAAAAAAAAAAAAAAAAAAA==")),
    ("4.2.1-5 not ASCII", 400, key("éAAAAAAAAAAAAAAAAAAAAA==")),
    ("4.2.1-6 no version", 426, {"without": "Sec-WebSocket-Version"}),
    *[(f"4.2.1-6 version {version!r}", 426, {"without": "Sec-WebSocket-Version", "lines": [f"Sec-WebSocket-Version: {version}"]})
      for version in ("99", "8", "0", "", "13, 13", "013", "13.0")],
    ("4.2.1-6 two versions", 426, {"lines": ["Sec-WebSocket-Version: 13"]}),
    ("4.2.2 two origins", 400, {"lines": ["Origin: a", "Origin: a"]}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "how"), [pytest.param(s, h, id=f"6455-{i}") for i, s, h in REFUSED])
def test_refused(serve: Serve, status: int, how: dict[str, Any]) -> None:
    running = serve()
    client = running.connect()
    client.request(*how.get("lines", []), **{name: value for name, value in how.items() if name != "lines"})
    got, fields = client.answer()
    assert got == status
    assert "sec-websocket-accept" not in fields
    if status == 426:
        assert fields["sec-websocket-version"] == "13"
        assert (fields["upgrade"], fields["connection"]) == ("websocket", "Upgrade")
    assert running.events == []


def test_a_refusal_leaves_the_connection_to_http(serve: Serve) -> None:
    """What followed the handshake is the next request."""
    client = serve(handler=lambda req, res: res.send(req.path)).connect()
    client.request(without="Sec-WebSocket-Key", behind=b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.answer()[0] == 400
    data = client.head
    while not data.endswith(b"/next"):
        data += client.sock.recv(65536)
    assert b"HTTP/1.1 200 OK" in data


@pytest.mark.parametrize(
    "lines",
    [
        ["Upgrade: WebSocket", "Connection: Upgrade"],
        ["Upgrade: h2c, websocket", "Connection: keep-alive, UPGRADE"],
        ["Upgrade: h2c", "Upgrade: websocket", "Connection: keep-alive", "Connection: upgrade"],
    ],
)
def test_spellings(serve: Serve, lines: list[str]) -> None:
    client = serve().connect()
    head = ["GET / HTTP/1.1", "Host: a", *lines, f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13", "", ""]
    client.sock.sendall("\r\n".join(head).encode() + raw(0x81, b"hi"))
    assert client.answer()[0] == 101
    assert client.message() == b"hi"


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (None, "http://evil", True),
        (["https://a.example"], "https://A.example", True),
        (["HTTPS://a.example"], "https://a.example", True),
        (["https://a.example"], "https://a.example:8443", False),
        (["https://a.example"], "http://a.example", False),
        (["https://a.example"], "null", False),
        (["https://a.example"], None, True),
        (lambda origin: origin is not None, None, False),
        (lambda origin: origin == "x", "x", True),
        ([], "x", False),
    ],
)
def test_origins(serve: Serve, origins: Any, origin: str | None, allowed: bool) -> None:
    """RFC 6455 §10.2."""
    running = serve(origins=origins)
    client = running.connect()
    client.request(*([f"Origin: {origin}"] if origin else []))
    assert client.answer()[0] == (101 if allowed else 403)


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        ((), ["a"], None),
        (("a", "b"), [], None),
        (("a", "b"), ["b", "a"], "a"),
        (("a", "b"), ["c", "b"], "b"),
        (("a",), ["A"], None),
    ],
)
def test_subprotocols(ours: tuple[str, ...], theirs: list[str], chosen: str | None) -> None:
    assert choose_subprotocol(ours, theirs) == chosen


def test_no_subprotocol_in_common(serve: Serve) -> None:
    """RFC 6455 §4.2.2: the field is left out."""
    client = serve(subprotocols=["x"]).connect()
    assert "sec-websocket-protocol" not in client.shake("Sec-WebSocket-Protocol: y")


# -- upgrade, in a handler of evhttp ----------------------------------------------------------------------------------------------


def test_upgrade_in_a_handler(backend: str) -> None:
    """HTTP and WebSocket on one port; who does not get in is answered in HTTP; header fields of the response are in the 101."""
    from conftest import Running

    got: list[Any] = []

    def handler(req: Request, res: Response) -> None:
        if req.path == "/plain":
            res.send("plain")
        elif req.path == "/secret":
            res.status(401).header("WWW-Authenticate", "Basic").send()
        else:
            res.header("Set-Cookie", "a=b").header("X-Two", "2")
            ws = evws.upgrade(
                req, res, on_message=lambda ws, message: ws.send(message), on_close=lambda *args: got.append(args[1:])
            )
            got.append(ws)
            if ws is not None:
                ws.send("welcome")
                with pytest.raises(evhttp.ResponseStateError):
                    evws.upgrade(req, res, on_message=print)

    with checked_loop(backend) as loop:
        running = Running(loop, evhttp.Server(handler, loop=loop), [])
        try:
            client = running.connect()
            client.sock.sendall(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer()[0] == 200
            client = running.connect()
            client.request(start="GET /secret HTTP/1.1")
            status, fields = client.answer()
            assert (status, fields["www-authenticate"]) == (401, "Basic")
            client = running.connect()
            client.request(start="GET /ws HTTP/1.1", without="Sec-WebSocket-Key")
            assert client.answer()[0] == 400
            assert got == [None]
            client = running.connect()
            fields = client.shake()
            assert (fields["set-cookie"], fields["x-two"]) == ("a=b", "2")
            assert client.message() == b"welcome"
            assert client.text("echo").message() == b"echo"
            client.send(Opcode.CLOSE)
            assert client.closed() == (None, "")
            running.until(lambda: len(got) == 3)
            assert got[2] == (1005, "")
        finally:
            running.end()


def test_a_client_that_is_gone_by_the_answer(serve: Serve) -> None:
    """It has sent its handshake and a reset: on_open and on_close come as ever, or HTTP never heard of it."""
    import socket

    running = serve()
    for _ in range(50):
        client = running.connect()
        client.request()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    running.until(lambda: running.server.stats().accepted == 50)  # the kernel may hold the last until the next turn
    running.until(lambda: not running.server.connections)
    running.until(lambda: len(running.told("open")) == len(running.told("close")))


def test_read_offer_by_itself() -> None:
    class Fields:
        def __init__(self, **fields: list[str]) -> None:
            self.fields = fields

        def get_all(self, name: str) -> list[str]:
            return self.fields.get(name.replace("-", "_"), [])

    usual = {
        "upgrade": ["websocket"],
        "connection": ["upgrade"],
        "sec_websocket_version": ["13"],
        "sec_websocket_key": [KEY],
    }
    offer = read_offer("GET", "1.1", Fields(**usual, sec_websocket_protocol=["a, b", ",c,"], origin=["o"]))
    assert offer == (KEY, ["a", "b", "c"], "o", [])
    refusal = read_offer("G" * 1000, "1.1", Fields(**usual))
    assert isinstance(refusal, Refusal)
    assert len(refusal.reason) < 100
    assert is_allowed(None, ["a"])
