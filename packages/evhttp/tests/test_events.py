"""Server-sent events."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from evhttp import EventStream

Serve = Callable[..., Any]


def test_what_a_page_gets(serve: Serve) -> None:
    """WHATWG HTML §9.2.6: each line has its field; an empty line ends the event."""

    def handler(req: Any, res: Any) -> None:
        stream = res.events()
        assert stream.send("hello")
        stream.send("two\nlines\r\nor\rfour", event="news", id="7", retry=1.5)
        stream.comment()
        stream.comment("still\nhere")
        stream.send("")
        stream.close()
        stream.close()
        assert not stream.send("too late")

    answer = serve(handler).connect().get()
    assert (answer.get("content-type"), answer.get("cache-control")) == ("text/event-stream", "no-store")
    assert answer.body.decode().split("\n\n") == [
        "data: hello",
        "event: news\nid: 7\nretry: 1500\ndata: two\ndata: lines\ndata: or\ndata: four",
        ": ",
        ": still\n: here",
        "data: ",
        "",
    ]


@pytest.mark.parametrize(
    "options", [{"event": "a\nb"}, {"id": "a\rb"}, {"id": "a\0"}, {"retry": -1.0}, {"retry": float("nan")}], ids=str
)
def test_what_would_be_another_field(serve: Serve, options: dict[str, Any]) -> None:
    def handler(req: Any, res: Any) -> None:
        stream = res.events()
        with pytest.raises(ValueError, match="must be"):
            stream.send("x", **options)
        stream.close()

    assert serve(handler).connect().get().body == b""


def test_a_page_that_leaves(serve: Serve) -> None:
    streams: list[EventStream] = []
    gone = threading.Event()

    def handler(req: Any, res: Any) -> None:
        streams.append(res.events())

        def tick() -> None:
            streams[0].send("tick")
            if streams[0].closed:
                gone.set()
            else:
                running.loop.call_later(0.001, tick)

        tick()

    running = serve(handler)
    client = running.connect().send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    client._more()
    client.reset()
    assert gone.wait(20)
    running.call(streams[0].close)


def test_a_page_that_is_behind(serve: Serve) -> None:
    count = 300

    def handler(req: Any, res: Any) -> None:
        stream = res.events()
        sent = 0

        def more() -> None:
            nonlocal sent
            while sent < count:
                sent += 1
                if not stream.send("x" * 10_000):
                    return
            stream.close()

        stream.on_drain(more)
        more()

    answer = serve(handler).connect(receive_buffer=65536).get()
    assert answer.body == (b"data: " + b"x" * 10_000 + b"\n\n") * count
