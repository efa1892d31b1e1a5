"""Clocks that can be set for one program: see clock.c."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Clock:
    """What a program's clocks are ahead of the machine's.

    Args:
        folder: Where the library is built.

    Raises:
        FileNotFoundError: There is no C compiler.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise FileNotFoundError("no C compiler")
        library, ahead = folder / "clock.so", folder / "clock"
        command = [compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        subprocess.run([*command, "-o", str(library), str(HERE / "clock.c")], check=True, timeout=60)
        ahead.write_bytes(bytes(16))
        with ahead.open("r+b") as file:
            self._ahead = mmap.mmap(file.fileno(), 16)
        self.environment = {"LD_PRELOAD": str(library), "SOAK_CLOCK": str(ahead)}

    def jump(self, *, wall: int = 0, monotonic: int = 0) -> None:
        """Set the clocks forward by so many seconds; the wall clock also back."""
        now = struct.unpack("qq", self._ahead)
        self._ahead[:] = struct.pack("qq", now[0] + wall, now[1] + monotonic)
