"""A pytest plugin for `nox -s sanitize`: other programs than Python are started without the sanitizers' runtime.

It is preloaded for the interpreter, and with it for all that it starts; but curl, for one, hangs under it.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

__all__ = ["Popen"]


class Popen(subprocess.Popen[Any]):
    """As `subprocess.Popen`, in whose place it is put."""

    def __init__(self, args: Any, *others: Any, **options: Any) -> None:
        program = args if isinstance(args, (str, bytes, os.PathLike)) else args[0]
        if b"python" not in os.path.basename(os.fsencode(program)):
            given = options.get("env")
            environment = dict(os.environ if given is None else given)
            environment.pop("LD_PRELOAD", None)
            options["env"] = environment
        super().__init__(args, *others, **options)


subprocess.Popen = Popen  # type: ignore[misc]
