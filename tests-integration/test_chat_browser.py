"""The chat example in a browser: two pages in headless Chromium, driven over the DevTools protocol by our own client."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

import evws
from evloop import Loop
from evloop.testing import run_until

CHAT = Path(__file__).resolve().parent.parent / "packages" / "evws" / "examples" / "chat.py"
PATIENCE = 40.0


@pytest.fixture
def chat() -> Iterator[str]:
    """The chat; yields the address of its page."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(CHAT), "127.0.0.1", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line
        yield found[0]
        process.terminate()
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 0


class Browser:
    """Chromium, by the DevTools protocol: commands go as JSON over a WebSocket, answers have the command's number."""

    def __init__(self, url: str) -> None:
        self.loop = Loop()
        self.answers: dict[int, Any] = {}
        self.events: set[tuple[str, str | None]] = set()
        self.number = 0
        limits = evws.Limits(max_message_size=1 << 26)
        connecting = evws.connect(self.loop, url, on_message=self.heard, limits=limits)
        run_until(self.loop, connecting.done, PATIENCE)
        self.ws = connecting.result()

    def heard(self, ws: evws.WebSocket, message: str) -> None:
        about = json.loads(message)
        if "id" in about:
            self.answers[about["id"]] = about
        else:
            self.events.add((about["method"], about.get("sessionId")))

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        self.number += 1
        number = self.number
        command = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self.ws.send(json.dumps(command))
        run_until(self.loop, lambda: number in self.answers, PATIENCE)
        answer = self.answers.pop(number)
        assert "error" not in answer, answer
        return answer["result"]

    def close(self) -> None:
        self.ws.abort()
        run_until(self.loop, lambda: self.ws.state is evws.State.CLOSED, PATIENCE)
        self.loop.close()


class Page:
    """A tab."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        browser.call("Page.enable", self.session)
        browser.call("Page.navigate", self.session, url=url)
        run_until(browser.loop, lambda: ("Page.loadEventFired", self.session) in browser.events, PATIENCE)

    def run(self, script: str) -> Any:
        result = self.browser.call(
            "Runtime.evaluate", self.session, expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def sees(self, text: str) -> str:
        """Wait until the page shows a text; all that it shows."""
        shown = self.run(
            """new Promise(done => {
                const look = () => {
                    const said = document.getElementById("said");
                    if (said && said.textContent.includes(TEXT)) done(said.innerHTML); else setTimeout(look, 10);
                };
                look();
            })""".replace("TEXT", json.dumps(text))
        )
        assert isinstance(shown, str)
        return shown

    def types(self, text: str) -> None:
        """Type a line, key by key, and press Enter."""
        self.run("document.getElementById('line').focus()")
        self.browser.call("Input.insertText", self.session, text=text)
        for kind in ("rawKeyDown", "char", "keyUp"):
            self.browser.call(
                "Input.dispatchKeyEvent",
                self.session,
                type=kind,
                key="Enter",
                code="Enter",
                windowsVirtualKeyCode=13,
                text="\r" if kind == "char" else "",
            )

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Callable[[str], Page]]:
    """Open pages of a browser."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (apt install chromium)")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = [program, *flags, "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = None
            while found is None:
                line = process.stderr.readline()
                assert line, "Chromium has ended"
                found = re.search(r"DevTools listening on (ws://\S+)", line)
            browser = Browser(found[1])
            try:
                yield lambda url: Page(browser, url)
            finally:
                browser.close()
        finally:
            process.terminate()
            process.communicate(timeout=30)


def test_two_pages_chat(chat: str, page: Callable[[str], Page]) -> None:
    ann = page(f"{chat}?name=ann")
    ann.sees("ann: has come")
    bob = page(f"{chat}?name=bob")
    ann.sees("bob: has come")
    ann.types("hello bob, <b>é</b> \N{GRINNING FACE}")
    shown = bob.sees("hello bob")
    assert "<div>ann: hello bob, &lt;b&gt;é&lt;/b&gt; \N{GRINNING FACE}</div>" in shown
    bob.types("hello ann")
    ann.sees("bob: hello ann")
    for number in range(50):
        bob.run(f"say('number {number}')")
    shown = ann.sees("number 49")
    assert re.findall(r"bob: number (\d+)", shown) == [str(number) for number in range(50)]
    bob.close()
    ann.sees("bob: has gone")


def test_a_page_that_says_too_much_is_told_why(chat: str, page: Callable[[str], Page]) -> None:
    ann = page(f"{chat}?name=ann")
    bob = page(f"{chat}?name=bob")
    bob.sees("bob: has come")
    ended = "window.ended = new Promise(done => socket.addEventListener('close', e => done([e.code, e.wasClean])))"
    bob.run(f"void ({ended})")
    bob.run("say('x'.repeat(5000))")
    assert bob.run("window.ended") == [1009, True]
    ann.sees("bob: has gone")
    ann.types("still here")
    ann.sees("ann: still here")


def test_a_strangers_page_is_refused(chat: str, page: Callable[[str], Page]) -> None:
    stranger = page("data:text/html,<p>a page of somebody else's</p>")
    script = """new Promise(done => {
        const socket = new WebSocket("%s/chat");
        socket.onopen = () => done("open");
        socket.onclose = event => done(event.code);
    })"""
    assert stranger.run(script % chat.rstrip("/").replace("http:", "ws:")) == 1006


ECHO_PAGE = """<!DOCTYPE html><title>echo</title><script>
const messages = ["", "hello", "κόσμε", "x".repeat(70000), new Uint8Array(0), new Uint8Array(126).fill(7),
                  new Uint8Array(65536).map((_, i) => i % 251), new Uint8Array(1500000).map((_, i) => i % 251)];
const same = (a, b) => typeof a === "string" ? a === b :
    a.length === b.byteLength && new Uint8Array(b).every((byte, i) => byte === a[i]);
window.ended = new Promise(done => {
    const socket = new WebSocket(location.href.replace("http", "ws"), ["v1", "v2"]);
    let number = 0, good = 0;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => messages.forEach(message => socket.send(message));
    socket.onmessage = event => {
        good += same(messages[number++], event.data);
        if (number === messages.length) socket.close(4001, "bye");
    };
    socket.onclose = event => done([good, socket.protocol, socket.extensions, event.code, event.reason, event.wasClean]);
});
</script>"""


@pytest.mark.parametrize(
    "compression", [None, evws.Deflate(threshold=0), evws.Deflate(server_no_context_takeover=True)]
)
def test_echo_from_a_page(page: Callable[[str], Page], compression: evws.Deflate | None) -> None:
    """Chromium as a client of all sizes, with what it offers of permessage-deflate and without."""
    closed: Queue[tuple[int, str]] = Queue()
    loop = Loop()
    server = evws.Server(
        on_message=lambda ws, message: ws.send(message),
        on_close=lambda ws, code, reason: closed.put((code, reason)),
        handler=lambda req, res: res.header("Content-Type", "text/html; charset=utf-8").send(ECHO_PAGE),
        subprotocols=("v2",),
        limits=evws.Limits(max_message_size=1 << 22),
        compression=compression,
        loop=loop,
    ).listen("127.0.0.1", 0)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        shown = page("http://{}:{}/".format(*server.addresses[0]))
        good, protocol, extensions, *end = shown.run("window.ended")
        assert (good, protocol, end) == (8, "v2", [4001, "bye", True])
        assert ("permessage-deflate" in extensions) == (compression is not None)
        assert closed.get(timeout=PATIENCE) == (4001, "bye")
    finally:
        loop.stop()
        thread.join(PATIENCE)
        loop.close()
