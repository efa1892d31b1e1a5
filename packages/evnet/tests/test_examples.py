"""Every example ends by itself, complains of nothing, and prints what it promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tls_peers import authority, certificate

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# Each line must be there, in this order; others may stand between.
PROMISED = {
    "send_file.py": ["the file was sent", "10240010 bytes came"],
    "subprocess_stream.py": ["desserts", "reward", "maerts a", "it ended with 0"],
    "chat_server.py --selftest": ["ann has come", "bob has come", "ann: hello bob", "ann has gone", "bob has gone"],
    "chat_client.py --selftest": ["refused: True"],
    "tcp_proxy.py --selftest": ["stopped with less than 20 MB sent: True", "bytes through the proxy: 20000000"],
}


def run(arguments: list[str], backend: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", *arguments]
    environment = {"EVLOOP_BACKEND": backend, "PYTHONPATH": ":".join(path for path in sys.path if path)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=os.environ | environment,
        preexec_fn=hear_interrupts,
    )


def hear_interrupts() -> None:
    """A shell's background job ignores SIGINT, and so do its children; Python then raises no KeyboardInterrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("promised", PROMISED)
def test_example(promised: str, backend: str) -> None:
    name, *rest = promised.split()
    with run([str(EXAMPLES / name), *rest], backend) as process:
        out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    # The development mode names slow callbacks; on a busy machine any may be.
    assert [line for line in err.splitlines() if not line.startswith("callback ")] == []
    lines = iter(out.splitlines())
    for line in PROMISED[promised]:
        assert any(line in each for each in lines), (line, out)


def test_tls_echo(backend: str, tmp_path: Path) -> None:
    leaf = certificate()
    cert, key, ca = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "ca.pem"))
    leaf.cert_chain_pems[0].write_to_path(cert)
    leaf.private_key_pem.write_to_path(key)
    authority().cert_pem.write_to_path(ca)
    program = str(EXAMPLES / "tls_echo.py")
    with run([program, "serve", cert, key], backend) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split()[-1]
        for text in ("one", "two"):
            with run([program, "ask", port, ca, text], backend) as client:
                out, err = client.communicate(timeout=30)
            assert (out, client.returncode) == (f"{text}\n", 0)
            assert "TLSv1.3" in err
        server.send_signal(signal.SIGINT)
        assert server.communicate(timeout=30) == ("", "")


def test_the_chat_as_programs(backend: str) -> None:
    with run([str(EXAMPLES / "chat_server.py"), "127.0.0.1", "0"], backend) as server:
        assert server.stdout is not None
        port = server.stdout.readline().rstrip(")\n").split()[-1]
        with run([str(EXAMPLES / "chat_client.py"), "ann", "127.0.0.1", port], backend) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            while client.stdout.readline() != "ann has come\n":
                assert client.poll() is None
            client.stdin.write("hello\n")
            client.stdin.flush()
            assert client.stdout.readline() == "ann: hello\n"
            out, err = client.communicate(timeout=30)  # closes its input, and so it leaves
            assert (out, err, client.returncode) == ("", "", 0)
        assert server.stdout.readline() == "ann has come\n"
        server.terminate()
