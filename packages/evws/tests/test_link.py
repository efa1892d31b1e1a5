"""The link with the C interfaces below: each of another version is refused, and the import says so.

In a process of its own, because the shim keeps the tables that it was given.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

# A table that begins like a package's, with other numbers, in the place of the real one.
DOCTORED = """
from cffi import FFI
import evhttp, evnet
from evloop import native
owner = {{"evloop": native, "evnet": evnet, "evhttp": evhttp}}["{package}"]
ffi = FFI()
ffi.cdef("struct table {{ uint32_t major, minor; const char *version; }};")
real = ffi.cast("struct table *", owner.capi_address())
table = ffi.new("struct table *", {{"major": real.major + {major}, "minor": real.minor + {minor}, "version": real.version}})
owner.capi_address = lambda: int(ffi.cast("uintptr_t", table))
try:
    import evws
except ImportError as error:
    print(real.major, real.minor, error)
else:
    print("imported")
"""


def imported_with(package: str, major: int, minor: int) -> str:
    script = DOCTORED.format(package=package, major=major, minor=minor)
    return subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


@pytest.mark.parametrize("package", ["evloop", "evnet", "evhttp"])
@pytest.mark.parametrize("step", [1, -1], ids=["newer", "older"])
def test_another_major_version_is_refused(package: str, step: int) -> None:
    major, minor, message = imported_with(package, step, 0).split(" ", 2)
    assert f"was built for C interface {major}.{minor} of {package}" in message
    assert f"offers {int(major) + step}.{minor}" in message
    assert f"pip install --force-reinstall {package} 'evws>=2.0'" in message


@pytest.mark.parametrize("package", ["evloop", "evnet", "evhttp"])
def test_a_newer_minor_version_is_taken(package: str) -> None:
    assert imported_with(package, 0, 1) == "imported"
