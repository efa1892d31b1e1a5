"""Build a package's C shim: what a hatchling build hook calls to compile ``<package>._shim`` with cffi.

All shims of this stack are built here, and so can be those of anybody who writes a native protocol on top of it. The
package keeps to one layout::

    src/<package>/_c/shim.cdef     what cffi shall parse
    src/<package>/_c/shim.h        what the generated module includes
    src/<package>/_c/*.c           every one of them is compiled
    src/<package>/include/         headers for the packages above (optional)

and its ``hatch_build.py`` is::

    from evloop.shimbuild import add_shim
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class ShimHook(BuildHookInterface):
        def initialize(self, version, build_data):
            add_shim(self.root, "mypackage", version, build_data, needs=("evloop", "evnet"))

switched on by ``[tool.hatch.build.targets.wheel.hooks.custom]`` (for the wheel alone: an sdist needs no compiler), with ``cffi``,
``setuptools`` and the lower packages in ``build-system.requires``, and ``exclude = ["*.so"]`` under ``[tool.hatch.build]``.

Environment variables, all optional:

* ``EV_SHIM_WERROR=1`` adds ``-Wall -Wextra -Werror``.
* ``EV_SHIM_SANITIZE=address,undefined`` builds with these sanitizers, for debugging.
* ``EV_SHIM_COVERAGE=1`` builds with gcc's counters of lines and branches; what gcov reads stays in ``build/shim``.
* ``EV_SHIM_CFLAGS`` is added to the end of the compiler's arguments.
* ``CC`` replaces the compiler that this Python was built with.
* ``EVLOOP_KQUEUE_PREFIX=/somewhere``, on Linux, builds evloop's kqueue backend as well, against a library that offers
  kevent(2), laid out as libkqueue installs itself: ``include/sys/event.h`` (or ``include/kqueue/sys/event.h``) and
  ``lib/libkqueue.so`` below that folder.

Importing this module needs nothing but the standard library; cffi and setuptools are imported when a shim is compiled.

Why one abi3 wheel (``cp311-abi3``) and not one per Python version. Measured with one cffi API-mode module built both ways, a call
``f(pointer, bytes, size_t, long long)``, best of 15 times 300,000, in ns per call, over three rounds:

=================================  ==========  ==========
module built as                    on 3.11     on 3.13
=================================  ==========  ==========
abi3 by 3.11, one file for both    119 to 126  165 to 175
abi3 by the Python that runs it    118 to 121  157 to 168
for that Python's version alone    120 to 128  158 to 174
=================================  ==========  ==========

No difference is seen, and the loop makes one such call per turn, so a release needs one wheel per platform and package
instead of one for each Python as well (three today). Free-threaded builds have no limited API before Python 3.15, and a
debug build is no release target: both get a wheel for their version alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Shim", "add_shim", "build_shim", "check_toolchain"]

# The wheel's tag says the oldest Python that we support. The limited API is that of one version earlier, because from 3.11's
# on Python.h brings no <string.h> and <stdlib.h>, and what cffi 1.17 generates relies on it for memset and alloca.
_ABI3_TAG = "cp311-abi3"
_LIMITED_API = "0x030a0000"
_CACHED_BUILDS = 6
_INSTALL_COMPILER = "`apt install gcc python3-dev` (Debian, Ubuntu) or `xcode-select --install` (macOS)"


@dataclass(frozen=True)
class Shim:
    """A compiled shim.

    Attributes:
        path: The extension module, inside the package's ``build`` folder.
        limited_api: Whether it runs on every GIL build of CPython from 3.11 on.
    """

    path: Path
    limited_api: bool

    @property
    def tag(self) -> str | None:
        """The tag of a wheel that holds this shim, or ``None`` when it is the building interpreter's own tag."""
        if not self.limited_api:
            return None
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        return f"{_ABI3_TAG}-{platform}"


def add_shim(
    root: str | os.PathLike[str], package: str, version: str, build_data: dict[str, Any], *, needs: Sequence[str] = ()
) -> None:
    """Compile the package's shim and add it to the wheel that hatchling is building.

    Args:
        root: The folder of the package's ``pyproject.toml`` (``self.root`` of the hook).
        package: The import name, for example ``"evnet"``.
        version: The hook's ``version`` argument: ``"standard"`` or ``"editable"``.
        build_data: The hook's ``build_data``; it is changed.
        needs: Lower packages whose public headers the shim includes. They are looked up among the installed packages.

    Raises:
        SystemExit: There is no compiler, no ``Python.h``, or the compiler refused the sources. The message is one line;
            pip shows it without a traceback.
    """
    shim = build_shim(root, package, needs=needs)
    build_data["pure_python"] = False
    if shim.tag is None:
        build_data["infer_tag"] = True
    else:
        # Not infer_tag: it would tag the module for the building interpreter's version alone.
        build_data["tag"] = shim.tag
    if version == "editable":
        # force_include breaks editable installs, so here the module lies beside the Python files.
        _copy(shim.path, Path(root) / "src" / package / shim.path.name)
    else:
        # Straight from the build folder: it depends on no .gitignore, takes up no stale binary from the source tree, and leaves
        # alone the module of an editable install, which may have been built with other flags.
        build_data.setdefault("force_include", {})[str(shim.path)] = f"{package}/{shim.path.name}"


def build_shim(root: str | os.PathLike[str], package: str, *, needs: Sequence[str] = ()) -> Shim:
    """Compile the package's shim into ``build/shim`` below ``root``, or take it from there when nothing has changed.

    Args: see `add_shim`.

    Raises:
        SystemExit: As `add_shim`.

    Not thread-safe: cffi changes the working directory while it compiles.
    """
    source = Path(root).resolve() / "src" / package
    c_dir = source / "_c"
    if not (c_dir / "shim.cdef").is_file():
        raise SystemExit(f"{package}: {c_dir / 'shim.cdef'} is missing")
    check_toolchain(package)
    limited_api = _can_limit_api()
    includes = [
        c_dir,
        *(d for d in [source / "include"] if d.is_dir()),
        *(_include_of(package, name) for name in needs),
    ]
    compile_args, link_args = _flags()
    headers: list[Path] = []
    if package == "evloop" and (prefix := os.environ.get("EVLOOP_KQUEUE_PREFIX")):
        header, library = _find_kqueue(package, Path(prefix).resolve())
        headers.append(header)
        compile_args += ["-DEV_HAVE_KQUEUE", f"-I{header.parent.parent}"]
        link_args += [f"-L{library}", f"-Wl,-rpath,{library}", "-lkqueue"]
    cache = Path(root).resolve() / "build" / "shim"
    filename = "_shim.abi3.so" if limited_api else "_shim" + str(sysconfig.get_config_var("EXT_SUFFIX"))
    built = cache / _fingerprint([*includes, *headers], [package, filename, *compile_args, *link_args]) / filename
    if built.is_file():
        os.utime(built.parent)
        return Shim(built, limited_api)

    macros: list[tuple[str, str | None]] = [("_GNU_SOURCE", None)]
    if limited_api:
        macros.append(("Py_LIMITED_API", _LIMITED_API))
    else:
        macros.append(("_CFFI_NO_LIMITED_API", None))
    with _scratch(package, built) as scratch:
        result = _compile(
            package,
            scratch,
            filename,
            cdef=(c_dir / "shim.cdef").read_text(encoding="utf-8"),
            # ffi.compile changes directory, hence absolute paths; sorted, so that a build does not depend on the file system.
            sources=sorted(str(path) for path in c_dir.glob("*.c")),
            include_dirs=[str(path) for path in includes],
            define_macros=macros,
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
        _copy(result, built)
    _prune(cache)
    return Shim(built, limited_api)


def check_toolchain(package: str, *, build_requirements: bool = True) -> None:
    """Check that a shim can be compiled here: the C compiler, ``Python.h`` and, unless switched off, cffi and setuptools.

    Args:
        package: Who asks; the message begins with it.
        build_requirements: Whether cffi and setuptools must be installed by now.

    Raises:
        SystemExit: Something is missing. The message is one line and names what to install.
    """
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        raise SystemExit(f"{package}: the C compiler {compiler!r} was not found: {_INSTALL_COMPILER} installs one")
    folders = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    if not any(Path(folder, "Python.h").is_file() for folder in folders):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SystemExit(f"{package}: Python.h of Python {version} was not found: {_INSTALL_COMPILER} installs it")
    # setuptools provides the distutils that cffi compiles with.
    missing = [name for name in ("cffi", "setuptools") if build_requirements and importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"{package}: building the shim needs {' and '.join(missing)}: `pip install cffi setuptools`")


@contextmanager
def _scratch(package: str, built: Path) -> Iterator[str]:
    """Give a folder to compile in: one that is gone afterwards, or where the counters of the built module will be."""
    if _is_on("EV_SHIM_COVERAGE"):
        folder = built.parent / "objects"
        folder.mkdir(parents=True, exist_ok=True)
        yield str(folder)
        return
    with tempfile.TemporaryDirectory(prefix=f"{package}-shim-") as scratch:
        yield scratch


def _compile(package: str, scratch: str, filename: str, *, cdef: str, sources: list[str], **options: Any) -> Path:
    from cffi import FFI, VerificationError

    ffi = FFI()
    ffi.cdef(cdef)
    # The warnings are for our sources. What cffi generates comes after this preamble, so it is spared here, in its one file.
    ignored = ("unused-parameter", "unused-function", "missing-field-initializers", "sign-compare")
    preamble = "\n".join(['#include "shim.h"', *(f'#pragma GCC diagnostic ignored "-W{name}"' for name in ignored), ""])
    ffi.set_source(f"{package}._shim", preamble, sources=sources, **options)
    # A sanitizer's runtime, preloaded so that this interpreter can import a sanitized lower shim, is not for the compiler.
    preloaded = os.environ.pop("LD_PRELOAD", None)
    try:
        return Path(ffi.compile(tmpdir=scratch, target=f"{package}/{filename}"))
    except VerificationError:
        raise SystemExit(f"{package}: the compiler refused the shim, its messages are above") from None
    finally:
        if preloaded is not None:
            os.environ["LD_PRELOAD"] = preloaded


def _can_limit_api() -> bool:
    return (
        sys.implementation.name == "cpython"
        and sys.platform != "win32"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and not sysconfig.get_config_var("Py_DEBUG")
    )


def _flags() -> tuple[list[str], list[str]]:
    """Return what to add to the compiler's and to the linker's arguments."""
    # An undeclared function is an error at once: in an extension module it would be one only at import.
    compile_args = ["-std=c11", "-fvisibility=hidden", "-Werror=implicit-function-declaration"]
    link_args: list[str] = []
    sanitizers = os.environ.get("EV_SHIM_SANITIZE", "")
    if sanitizers:
        # Without -fno-sanitize-recover undefined behaviour would be printed and the test that caused it would pass.
        compile_args += [
            "-O1",
            "-g",
            "-fno-omit-frame-pointer",
            f"-fsanitize={sanitizers}",
            "-fno-sanitize-recover=all",
        ]
        link_args.append(f"-fsanitize={sanitizers}")
    elif _is_on("EV_SHIM_COVERAGE"):
        # Not optimised: a line and a branch are then what the source says. Atomic, because loops run in threads.
        compile_args += ["-O0", "-g", "--coverage", "-fprofile-update=atomic"]
        link_args.append("--coverage")
    else:
        compile_args.append("-O3")
    if _is_on("EV_SHIM_WERROR"):
        compile_args += ["-Wall", "-Wextra", "-Werror"]
    compile_args += shlex.split(os.environ.get("EV_SHIM_CFLAGS", ""))
    return compile_args, link_args


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "0") not in ("", "0")


def _find_kqueue(package: str, prefix: Path) -> tuple[Path, Path]:
    """Return ``sys/event.h`` below the prefix and the folder of libkqueue."""
    multiarch = str(sysconfig.get_config_var("MULTIARCH") or "")
    headers = [prefix / "include" / folder / "sys" / "event.h" for folder in ("", "kqueue")]
    libraries = [prefix / folder for folder in ("lib", f"lib/{multiarch}", "lib64")]
    header = next((path for path in headers if path.is_file()), None)
    library = next((path for path in libraries if any(path.glob("libkqueue.*"))), None)
    if header is None or library is None:
        missing = "include/sys/event.h" if header is None else "lib/libkqueue.so"
        raise SystemExit(f"{package}: EVLOOP_KQUEUE_PREFIX is {prefix}, but {missing} is not there")
    return header, library


def _include_of(package: str, name: str) -> Path:
    """Find what ``name.get_include()`` returns, without importing ``name``.

    Importing it would load its compiled shim, which may be out of date (and about to be rebuilt) or need a sanitizer's runtime.
    """
    spec = importlib.util.find_spec(name)
    for location in (spec and spec.submodule_search_locations) or ():
        if Path(location, "include").is_dir():
            return Path(location, "include").resolve()
    raise SystemExit(
        f"{package}: the headers of {name} were not found: install {name} first (it is in build-system.requires)"
    )


def _fingerprint(folders: Iterable[Path], words: Iterable[str]) -> str:
    """Hash everything that the compiled shim depends on."""
    import cffi

    digest = hashlib.sha256()
    config = (sysconfig.get_config_var(name) for name in ("CC", "CFLAGS", "LDSHARED", "INCLUDEPY"))
    environment = (os.environ.get(name) for name in ("CC", "CFLAGS", "LDFLAGS", "LDSHARED"))
    for word in (sys.version, cffi.__version__, *words, *config, *environment):
        digest.update(f"{word}\0".encode())
    for path in _files([Path(__file__), *folders]):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_file():
            yield path
        else:
            yield from sorted(p for p in path.rglob("*") if p.suffix in (".c", ".h", ".inc", ".cdef"))


def _copy(source: Path, target: Path) -> None:
    """Copy a file in one step: a process that has the old module mapped keeps it."""
    if target.is_file() and target.read_bytes() == source.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".shim-")
    os.close(handle)
    shutil.copyfile(source, temporary)
    os.chmod(temporary, 0o755)
    os.replace(temporary, target)


def _prune(cache: Path) -> None:
    """Keep the builds used last: going back and forth between flags or Pythons stays quick."""
    for old in sorted(cache.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)[_CACHED_BUILDS:]:
        shutil.rmtree(old, ignore_errors=True)
