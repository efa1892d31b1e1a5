"""New code while clients go on asking: a server whose handler's file is rewritten five times, and not a request lost.

It shows itself: `python rolling_restart.py`.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

CODE = 'def handler(req, res):\n    res.send("version {}")\n'


def ask(port, answers, over):
    """Ask until it is over; whatever goes wrong counts."""
    while not over.is_set():
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            for _ in range(10):
                client.request("GET", "/")
                answer = client.getresponse()
                answers[answer.read().decode()] += 1
                if answer.headers.get("connection") == "close":
                    break
        except (OSError, http.client.HTTPException) as error:
            answers[f"lost: {error!r}"] += 1
        finally:
            client.close()


def write(path, version):
    """Put a version in its place all at once: a worker that starts meanwhile must not read half a file."""
    new = path.with_suffix(".new")
    new.write_text(CODE.format(version))
    os.replace(new, path)


def wait_for(version, least, server, answers):
    """Wait until clients have had so many answers of a version."""
    while answers[f"version {version}"] < least:
        if server.poll() is not None:
            sys.exit(f"the server has ended with code {server.returncode}")
        time.sleep(0.01)


def restart_five_times(path, server, answers):
    """Write a version, have it served, and wait until clients get it; five times."""
    for version in range(1, 6):
        write(path, version)
        server.send_signal(signal.SIGHUP)
        wait_for(version, 100, server, answers)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory() as folder:
        port = listener.getsockname()[1]
        path = Path(folder, "app_of_the_day.py")
        write(path, 0)
        # The listening socket is ours and lent to the server, as systemd would do it: nobody is refused, not even at the start.
        command = [sys.executable, "-B", "-m", "evmulti", "app_of_the_day:handler", "--workers", "2"]
        command += ["--log-level", "warning", "--app-dir", folder, "--fd", str(listener.fileno())]
        answers, over = Counter(), threading.Event()
        clients = [threading.Thread(target=ask, args=(port, answers, over)) for _ in range(4)]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as server:
            for client in clients:
                client.start()
            try:
                wait_for(0, 1, server, answers)
                restart_five_times(path, server, answers)
            finally:
                over.set()
                for client in clients:
                    client.join()
                server.terminate()
    versions = sorted(text for text in answers if text.startswith("version"))
    print(
        f"seen: {', '.join(versions)}; requests lost: {sum(answers.values()) - sum(answers[text] for text in versions)}"
    )
