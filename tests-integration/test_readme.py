"""The programs in the READMEs and on the site run as they stand there; only the port is replaced."""

import http.client
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
READMES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md")), *sorted(ROOT.glob("docs/**/*.md"))]
# A program that listens answers "hello reader", unless a comment above it says what it answers to GET /?name=reader.
BLOCK = re.compile(r"^(?:<!-- answers: ([^\n]*) -->\n)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = [
    pytest.param(answer or "hello reader", text, id=f"{path.relative_to(ROOT)}-{number}")
    for path in READMES
    for number, (answer, text) in enumerate(BLOCK.findall(path.read_text(encoding="utf-8")), start=1)
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def get(port: int, target: str, process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Ask until the server answers; fail with what it printed when it has ended."""
    deadline = time.monotonic() + 20
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", target)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except ConnectionRefusedError:
            if process.poll() is not None:
                pytest.fail(f"the program ended: {process.communicate()[0]}")
            assert time.monotonic() < deadline, "the program does not listen"
            time.sleep(0.02)
        finally:
            connection.close()


@pytest.mark.parametrize(("answer", "program"), PROGRAMS)
def test_program(answer: str, program: str) -> None:
    listens = re.search(r"listen\(\"127\.0\.0\.1\", (\d+)\)", program)
    port = free_port()
    if listens:
        program = program.replace(listens.group(0), f'listen("127.0.0.1", {port})')
    command = [sys.executable, "-W", "error", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            if listens:
                assert get(port, "/?name=reader", process) == (200, f"{answer}\n")
            else:
                assert process.wait(timeout=20) == 0, process.communicate()[0]
        finally:
            process.kill()


def test_the_commands_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python3 tools/dev\.py (\w+)", text, re.MULTILINE)
    assert set(commands) == {"serve", "test"}
    result = subprocess.run(
        [sys.executable, ROOT / "tools" / "dev.py", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert all(f"tools/dev.py {command} " in result.stdout for command in commands)


LINKS = [
    pytest.param(path, target, id=f"{path.relative_to(ROOT)}-{target}")
    for path in READMES
    for target in sorted(set(re.findall(r"(?<!!)\[[^\]]*\]\(([^)#:]+)[^)]*\)", path.read_text(encoding="utf-8"))))
]


@pytest.mark.parametrize(("path", "target"), LINKS)
def test_links_within_the_repository_lead_somewhere(path: Path, target: str) -> None:
    assert (path.parent / target).exists()
