"""A browser uses what evhttp serves: listings, ranges of a sound that it plays, an upload, server-sent events.

Chromium is driven over the DevTools protocol through a pipe (``--remote-debugging-pipe``), which needs no library: messages are
JSON that ends with a zero byte. What is asked of a page is awaited there, by promises and events, so nothing here sleeps.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "packages" / "evhttp" / "examples"
PATIENCE = 60


class Browser:
    """One page in a headless Chromium."""

    def __init__(self, program: str, folder: Path) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"]
        flags += ["--autoplay-policy=no-user-gesture-required", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        # It reads commands from descriptor 3 and writes answers to 4.
        script = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, "sh", program, *flags, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        # A browser that hangs is killed; its pipe ends then, and the test with it.
        self._watchdog = threading.Timer(PATIENCE, self._process.kill)
        self._watchdog.start()
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.command("Page.enable")

    def _message(self) -> Any:
        while b"\0" not in self._rest:
            data = os.read(self._read, 65536)
            assert data, "the browser has ended"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def command(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result; events that come meanwhile are of no interest."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while (answer := self._message()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str) -> None:
        """Go to a page and wait until it has loaded."""
        self.command("Page.navigate", url=url)
        while self._message().get("method") != "Page.loadEventFired":
            pass

    def ask(self, expression: str) -> Any:
        """The value of an expression on the page; promises are awaited."""
        answer = self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def choose_file(self, selector: str, path: Path) -> None:
        """Put a file into a form."""
        root = self.command("DOM.getDocument")["root"]["nodeId"]
        node = self.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.command("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def close(self) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (apt install chromium)")
    made = Browser(program, tmp_path / "profile")
    yield made
    made.close()


@pytest.fixture
def start() -> Iterator[Callable[..., str]]:
    """Start a program that prints its address; it must end at SIGTERM without a traceback."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            pytest.fail(f"the server does not start: {line}{process.communicate()[1]}")
        return line[line.index("http://") :].strip()

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        try:
            _, log = process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode == 0, log
        assert "Traceback" not in log


Start = Callable[..., str]


def test_a_listing(browser: Browser, start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    (folder / "below").mkdir(parents=True)
    (folder / "a & b.txt").write_text("both\n")
    url = start("-m", "evhttp", "0", "--directory", str(folder))
    browser.open(url)
    assert browser.ask("[...document.querySelectorAll('td a')].map(a => a.textContent)") == ["below/", "a & b.txt"]
    # The page's own policy lets no script fetch anything, so the link is followed.
    browser.open(browser.ask("document.querySelectorAll('td a')[1].href"))
    assert browser.ask("document.body.textContent") == "both\n"


# Runs an example whose server writes down what it was asked for, and with which status it has answered.
WRITING = """
import runpy, sys, evhttp

made, into = evhttp.Server, open(sys.argv.pop(1), "w")

def server(handler):
    def written(req, res):
        handler(req, res)
        print(req.path, req.headers.get("range"), res.status_code, file=into, flush=True)
    return made(written)

evhttp.Server = server
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_sound_is_played_from_ranges(browser: Browser, start: Start, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    browser.open(start("-c", WRITING, str(asked), str(EXAMPLES / "video.py"), "0"))
    # Played from the middle: what lies there is asked for, the rest before it need not be.
    played = browser.ask(
        """new Promise((resolve, reject) => {
            const media = document.getElementById("media");
            media.onerror = () => reject(new Error("the sound cannot be played: " + media.error.message));
            media.ontimeupdate = () => {
                if (media.currentTime > 6.05) {
                    media.ontimeupdate = null;
                    media.pause();
                    resolve([media.duration, media.seekable.end(0)]);
                }
            };
            const begin = () => { media.currentTime = 6; media.play().catch(reject); };
            media.readyState >= 1 ? begin() : media.onloadedmetadata = begin;
        })"""
    )
    # Without ranges there would be nothing to seek in.
    assert played == [10, 10]
    part = "fetch('/tone.wav', {headers: {Range: 'bytes=0-3'}}).then(async a => [a.status, await a.text()])"
    assert browser.ask(part) == [206, "RIFF"]
    # The player asks for ranges of itself, and gets them.
    *player, ours = [line.split() for line in asked.read_text().splitlines() if line.startswith("/tone.wav ")]
    assert ours == ["/tone.wav", "bytes=0-3", "206"]
    assert player
    assert all(span.startswith("bytes=") and status == "206" for _, span, status in player), player


def test_an_upload(browser: Browser, start: Start, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / 'odd "name" ü.bin').write_bytes(data)
    browser.open(start(str(EXAMPLES / "uploads.py"), "0"))
    browser.choose_file("#file", tmp_path / 'odd "name" ü.bin')
    browser.ask("document.getElementById('note').value = 'ü & <ö>'")
    sent = browser.ask(
        """fetch("/", {method: "POST", body: new FormData(document.forms[0])}).then(answer => answer.text())
            .then(text => new DOMParser().parseFromString(text, "text/html"))
            .then(page => [page.querySelector("li").textContent, page.querySelector("p").textContent.trim()])"""
    )
    assert sent[0].startswith('odd "name" ü.bin: 3000000 bytes, SHA-256 ')
    assert sent[1] == "ü & <ö>"
    # And as a form is sent without a script.
    browser.choose_file("#file", tmp_path / 'odd "name" ü.bin')
    browser.command("Runtime.evaluate", expression="document.getElementById('send').click()")
    while browser._message().get("method") != "Page.loadEventFired":
        pass
    assert browser.ask("document.querySelector('li').textContent") == sent[0]


def test_events_are_followed(browser: Browser, start: Start) -> None:
    browser.open(start(str(EXAMPLES / "events.py"), "0"))
    seen = browser.ask(
        """new Promise(resolve => {
            const seen = [], source = new EventSource("/events");
            source.addEventListener("count", event => {
                seen.push([Number(event.data), event.lastEventId]);
                if (seen.length == 4) { source.close(); resolve(seen); }
            });
        })"""
    )
    first = seen[0][0]
    assert seen == [[first + number, str(first + number)] for number in range(4)]
