"""Build the emulation of kevent(2): ``python build.py PREFIX`` makes ``include/sys/event.h`` and ``lib/libkqueue.so`` there."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-fPIC", "-fvisibility=default", "-Wall", "-Wextra", "-Werror")


def build(prefix: Path) -> Path:
    """Compile the emulation into ``prefix`` and return that; ``EVLOOP_KQUEUE_PREFIX`` takes it."""
    headers, libraries = prefix / "include" / "sys", prefix / "lib"
    headers.mkdir(parents=True, exist_ok=True)
    libraries.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(HERE / "sys" / "event.h", headers / "event.h")
    sources = [str(path) for path in sorted(HERE.glob("*.c"))]
    # The shim may be sanitized; its runtime, preloaded for the interpreter, is not for the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    compiler = shlex.split(os.environ.get("CC", "cc"))
    target = str(libraries / "libkqueue.so")
    command = [*compiler, *FLAGS, "-shared", "-pthread", "-Wl,-soname,libkqueue.so", "-o", target, *sources]
    subprocess.run(command, env=environment, check=True)
    return prefix


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
