"""Descriptors passed by the service manager: what the variables say, and a process that is really started so."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from evnet import listen_fds

MINE = str(os.getpid())


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_PID": MINE},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": MINE, "LISTEN_FDS": "0"},
    ],
    ids=["nothing", "no count", "no process", "another process", "none"],
)
def test_nothing_for_us(environment: dict[str, str]) -> None:
    assert listen_fds(environment) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LISTEN_FDS", "-1"),
        ("LISTEN_FDS", "two"),
        ("LISTEN_FDS", ""),
        ("LISTEN_FDS", "9" * 50),
        ("LISTEN_PID", "0x1"),
        ("LISTEN_FDS", "²"),
    ],
)
def test_numbers_that_are_none(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{variable} must be a number"):
        listen_fds({"LISTEN_PID": MINE, "LISTEN_FDS": "1", variable: value})


@pytest.mark.parametrize("names", ["one", "one:two:three"])
def test_another_number_of_names(names: str) -> None:
    with pytest.raises(ValueError, match=r"LISTEN_FDNAMES has \d names for 2 descriptors"):
        listen_fds({"LISTEN_PID": MINE, "LISTEN_FDS": "2", "LISTEN_FDNAMES": names})


def test_a_descriptor_that_is_not_open() -> None:
    script = """
import evnet, os
os.closerange(3, 10)
try:
    evnet.listen_fds({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[Errno 9] LISTEN_FDS speaks of descriptor 3: Bad file descriptor\n"


ACTIVATED = """
import os, socket, subprocess, sys
import evnet
from evloop import Loop

class Echo:
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(name.encode() + b" " + data)
    def eof_received(self): return False
    def connection_lost(self, exc): loop.stop()

(name, fd), (second, other) = evnet.listen_fds()
assert (name, second, other) == (sys.argv[2], sys.argv[3], 4), (name, second, other)
assert not os.get_inheritable(3) and not os.get_inheritable(4)
assert not [each for each in os.environ if each.startswith("LISTEN_")]
assert evnet.listen_fds() == []
os.close(other)
with Loop(backend=sys.argv[1]) as loop:
    server = evnet.listen_socket(loop, Echo, fd)
    print("ready", flush=True)
    loop.run()
"""

# systemd forks, puts the descriptors where they belong, and sets LISTEN_PID after the fork; so does this.
MANAGER = """
import os, sys
first, second, names = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for number, each in enumerate((first, second), start=3):
    os.dup2(each, number, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2")
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[4:]])
"""


@pytest.mark.parametrize("names", ["web:admin", ""])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_program_that_is_activated(backend: str, names: str, family: str) -> None:
    if family == "tcp":
        listening = socket.create_server(("127.0.0.1", 0))
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(f"\0evnet-test-{os.getpid()}-{backend}-{names}")
        listening.listen()
    address = listening.getsockname()
    first, second = names.split(":") if names else ("unknown", "unknown")
    # Numbers that are out of the way of 3 and 4.
    numbers = [os.dup2(listening.fileno(), 200), os.dup2(listening.fileno(), 201)]
    command = [sys.executable, "-c", MANAGER, *map(str, numbers), names, ACTIVATED, backend, first, second]
    with subprocess.Popen(command, pass_fds=numbers, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            # The client connects before anybody accepts: that is what activation is for.
            with socket.socket(listening.family) as client:
                client.settimeout(20)
                client.connect(address)
                client.sendall(b"hello")
                assert client.recv(100) == f"{first} hello".encode()
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
            for number in numbers:
                os.close(number)
            listening.close()
    assert process.returncode == 0, said.decode()
