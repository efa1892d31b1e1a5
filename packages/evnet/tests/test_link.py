"""The link with evloop's C interface: the shim refuses a table of another version, and the import says so.

In a process of its own, because the shim keeps the table that it was given.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

# A table that begins like evloop's, with other numbers, in the place of the real one.
DOCTORED = """
import struct, sys, types
from cffi import FFI
ffi = FFI()
ffi.cdef("struct table {{ uint32_t major, minor; const char *version; }};")
from evloop import native
real = ffi.cast("struct table *", native.capi_address())
table = ffi.new("struct table *", {{"major": real.major + {major}, "minor": real.minor + {minor}, "version": real.version}})
native.capi_address = lambda: int(ffi.cast("uintptr_t", table))
try:
    import evnet
except ImportError as error:
    print(real.major, real.minor, error)
else:
    print("imported")
"""


def imported_with(major: int, minor: int) -> str:
    script = DOCTORED.format(major=major, minor=minor)
    return subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


@pytest.mark.parametrize("step", [1, -1], ids=["newer", "older"])
def test_another_major_version_is_refused(step: int) -> None:
    major, minor, message = imported_with(step, 0).split(" ", 2)
    assert f"evnet {metadata.version('evnet')} was built for C interface {major}.{minor} of evloop" in message
    assert f"offers {int(major) + step}.{minor}" in message
    assert "pip install --force-reinstall evloop 'evnet>=2.0'" in message


def test_a_newer_minor_version_is_taken() -> None:
    assert imported_with(0, 1) == "imported"


def test_importing_evnet_loads_nothing_above_it() -> None:
    script = (
        "import evnet, sys; print([name for name in sys.modules if name.startswith(('evhttp', 'evws', 'evmulti'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
