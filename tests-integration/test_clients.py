"""Files, listings and errors of `python -m evhttp`, as real clients get them: curl, Python's own, and a browser."""

import html
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from urllib.parse import quote

import pytest

LARGE = os.urandom(1 << 20) * 5
ODD_NAME = 'ü & "<odd>" #1?.txt'

Tool = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a folder; yield its address without the final slash."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "hello.txt").write_text("hello\n")
    (folder / "large.bin").write_bytes(LARGE)
    (folder / ODD_NAME).write_text("an odd name\n")
    (folder / ".hidden").write_text("hidden\n")
    (folder / "sub folder").mkdir()
    (folder / "sub folder" / "inner.txt").write_text("inner\n")
    (folder / "site").mkdir()
    page = (
        '<!DOCTYPE html><title>t</title><link rel=stylesheet href=s.css><p id=p>before</p><script src="s.js"></script>'
    )
    (folder / "site" / "index.html").write_text(page)
    (folder / "site" / "s.css").write_text("p { color: red }")
    (folder / "site" / "s.js").write_text("p.textContent = getComputedStyle(p).color")
    (folder.parent / "secret").write_text("secret\n")
    command = [sys.executable, "-m", "evhttp", "0", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found is None:
                pytest.fail(f"the server does not start: {line}{process.communicate()[1]}")
            yield found[0]
            process.send_signal(signal.SIGINT)
            log = process.communicate(timeout=30)[1]
        finally:
            process.kill()
    assert process.returncode == 0, log
    assert "Traceback" not in log


def host_and_port(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


# -- curl --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def curl() -> Tool:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed (apt install curl)")

    def run(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
        command = [program, "--silent", "--show-error", "--noproxy", "*", "--max-time", "30", *arguments]
        return subprocess.run(command, capture_output=True, timeout=40, check=True)

    return run


def test_curl_gets_files(curl: Tool, url: str) -> None:
    assert curl(f"{url}/hello.txt").stdout == b"hello\n"
    assert curl(f"{url}/large.bin").stdout == LARGE
    assert curl(f"{url}/{quote(ODD_NAME)}").stdout == b"an odd name\n"
    assert curl("--http1.0", f"{url}/hello.txt").stdout == b"hello\n"


def test_curl_uses_one_connection_for_several_files(curl: Tool, url: str) -> None:
    found = curl("--write-out", "%{num_connects} ", f"{url}/hello.txt", f"{url}/sub%20folder/inner.txt", f"{url}/none")
    assert found.stdout == b"hello\n1 inner\n0 404 Not Found\n0 "


def test_curl_follows_the_redirect_to_a_folder(curl: Tool, url: str) -> None:
    found = curl("--location", "--write-out", "%{num_redirects} %{url_effective}", f"{url}/site")
    assert found.stdout.endswith(f"</script>1 {url}/site/".encode())


def test_curl_does_not_get_a_file_twice(curl: Tool, url: str, tmp_path: Path) -> None:
    arguments = ("--remote-time", "--output", str(tmp_path / "copy"), "--write-out", "%{http_code}")
    assert curl(*arguments, f"{url}/hello.txt").stdout == b"200"
    assert curl(*arguments, "--time-cond", str(tmp_path / "copy"), f"{url}/hello.txt").stdout == b"304"


@pytest.mark.parametrize(
    ("arguments", "path", "status"),
    [
        ([], "/none", 404),
        ([], "/.hidden", 404),
        (["--path-as-is"], "/../secret", 403),
        (["--path-as-is"], "/%2e%2e/secret", 403),
        (["--path-as-is"], "/..%5csecret", 403),
        ([], "/hello.txt%00", 400),
        (["--request", "DELETE"], "/hello.txt", 405),
        (["--data", "x"], "/hello.txt", 405),
        (["--head"], "/hello.txt", 200),
        (["--header", "Host:"], "/hello.txt", 400),
    ],
)
def test_curl_is_told_what_is_wrong(curl: Tool, url: str, arguments: list[str], path: str, status: int) -> None:
    found = curl(*arguments, "--output", os.devnull, "--write-out", "%{http_code}", f"{url}{path}")
    assert found.stdout == str(status).encode()


# -- Python's clients ------------------------------------------------------------------------------------------------------------


def test_http_client_on_one_connection(url: str) -> None:
    connection = http.client.HTTPConnection(*host_and_port(url), timeout=30)
    sockets = set()
    for method, target, status, body in [
        ("GET", "/hello.txt", 200, b"hello\n"),
        ("HEAD", "/large.bin", 200, b""),
        ("GET", "/large.bin", 200, LARGE),
        ("GET", "/none", 404, b"404 Not Found\n"),
        ("POST", "/hello.txt", 405, b"405 Method Not Allowed\n"),
        ("GET", "/hello.txt", 200, b"hello\n"),
    ]:
        connection.request(method, target, body=b"sent" if method == "POST" else None)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, body)
        sockets.add(connection.sock)
    assert len(sockets) == 1
    connection.close()


def test_urllib(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/hello.txt", timeout=30) as answer:
        headers: Message = answer.headers
        assert (answer.read(), headers.get_content_type(), headers.get_content_charset()) == (
            b"hello\n",
            "text/plain",
            "utf-8",
        )
    with opener.open(f"{url}/sub%20folder", timeout=30) as answer:
        assert answer.geturl() == f"{url}/sub%20folder/"
        assert b'href="inner.txt"' in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        opener.open(f"{url}/none", timeout=30)
    caught.value.close()


# -- a browser -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def browser(tmp_path: Path) -> Tool:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (apt install chromium)")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

    def run(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
        command = [program, *flags, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
        return subprocess.run(command, capture_output=True, timeout=50, check=True)

    return run


def test_browser_shows_a_listing(browser: Tool, url: str) -> None:
    page = browser("--dump-dom", f"{url}/").stdout.decode()
    links = re.findall(r'<td><a href="([^"]*)">.*?<bdi>(.*?)</bdi>', page)
    assert [(link, html.unescape(label)) for link, label in links] == [
        ("site/", "site/"),
        ("sub%20folder/", "sub folder/"),
        ("hello.txt", "hello.txt"),
        ("large.bin", "large.bin"),
        (quote(ODD_NAME, safe=""), ODD_NAME),
    ]


def test_browser_draws_a_listing(browser: Tool, url: str, tmp_path: Path) -> None:
    picture = tmp_path / "listing.png"
    browser("--window-size=800,600", f"--screenshot={picture}", f"{url}/")
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert (
        len(data) > 10_000
    )  # an empty page is 3 kB; with the style sheet refused there are no icons, lines or colours


def test_browser_runs_a_site(browser: Tool, url: str) -> None:
    """Style sheet and script are taken only with the right media types, since the server forbids guessing."""
    assert b'<p id="p">rgb(255, 0, 0)</p>' in browser("--dump-dom", f"{url}/site").stdout


@pytest.mark.parametrize(
    ("path", "text"),
    [(f"/{quote(ODD_NAME)}", "an odd name"), ("/sub%20folder/inner.txt", "inner"), ("/none", "404 Not Found"),
     ("/.hidden", "404 Not Found"), ("/..%2fsecret", "403 Forbidden")],
)  # fmt: skip
def test_browser_shows_files_and_errors(browser: Tool, url: str, path: str, text: str) -> None:
    assert text in browser("--dump-dom", f"{url}{path}").stdout.decode()
