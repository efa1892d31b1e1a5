"""What a newcomer runs; it needs python3 with venv, the Python headers and a C compiler, and installs the rest into ``.venv``.

::

    python3 tools/dev.py serve [arguments of `python -m evhttp`]    serve the current directory at http://127.0.0.1:8000
    python3 tools/dev.py test [arguments of nox]                    run the tests, on every Python found

Every step is printed. A step that is still done from the last time is skipped; delete ``.venv`` to start afresh.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PACKAGES = ("evloop", "evnet", "evhttp", "evws", "evmulti")
BUILD_TOOLS = ("hatchling>=1.26", "cffi>=1.17", "setuptools>=66")
TEST_TOOLS = ("nox>=2025.2.9",)
OLDEST_PYTHON = (3, 11)


class Failure(Exception):
    """A step could not be done; the message is the one line that the user sees."""


def say(text: str) -> None:
    """Print a step."""
    print(f"dev: {text}", flush=True)


def run(*command: str | Path, doing: str) -> None:
    """Run a command quietly; when it fails, show what it printed and raise `Failure`."""
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    result = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        sys.stderr.write(result.stdout + result.stderr)
        raise Failure(f"{doing} failed, the messages are above")


def digest(words: Iterable[str], files: Iterable[Path] = ()) -> str:
    """Hash what a step depends on."""
    found = hashlib.sha256("\0".join(words).encode())
    for path in files:
        found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()


def is_done(step: str, state: str) -> bool:
    """Tell whether the step was done last time in the same state."""
    stamp = VENV / f"dev-{step}.stamp"
    return stamp.is_file() and stamp.read_text() == state


def set_done(step: str, state: str) -> None:
    """Remember that the step was done in this state."""
    (VENV / f"dev-{step}.stamp").write_text(state)


def load_shimbuild() -> ModuleType:
    """Load the build module by its path: it is needed before evloop is installed."""
    spec = importlib.util.spec_from_file_location("_shimbuild", ROOT / "packages/evloop/src/evloop/shimbuild.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def make_environment() -> None:
    """Create ``.venv`` with the Python that runs this, unless there is one: it keeps the Python it was made with."""
    state = digest([str(ROOT)])
    if PYTHON.exists() and is_done("venv", state):
        return
    # Debian ships venv without ensurepip; the package python3-venv brings it.
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise Failure(
            "this Python cannot make virtual environments: `apt install python3-venv` (Debian, Ubuntu) installs what it needs"
        )
    say(f"making a virtual environment in {VENV.name} with Python {sys.version.split()[0]}")
    run(sys.executable, "-m", "venv", "--clear", VENV, doing="making the virtual environment")
    set_done("venv", state)


def install_tools(step: str, tools: Sequence[str]) -> None:
    """Install tools from the package index into ``.venv``."""
    state = digest(tools)
    if is_done(step, state):
        return
    say(f"installing {', '.join(tools)}")
    run(PYTHON, "-m", "pip", "install", "--quiet", *tools, doing=f"installing the {step} tools")
    set_done(step, state)


def other_requirements() -> list[str]:
    """List what the packages require at run time that is not one of them."""
    found: set[str] = set()
    for package in PACKAGES:
        with (ROOT / "packages" / package / "pyproject.toml").open("rb") as file:
            required: list[str] = tomllib.load(file)["project"]["dependencies"]
        found.update(each for each in required if not each.startswith(PACKAGES))
    return sorted(found)


def package_files(package: str) -> list[Path]:
    """List the files that an editable install depends on; Python files are read in place."""
    folder = ROOT / "packages" / package
    files = [folder / "pyproject.toml", *folder.glob("hatch_build.py")]
    files += (folder / "src" / package / name for name in ("_version.py", "shimbuild.py"))
    for name in ("_c", "include"):
        files += (folder / "src" / package / name).rglob("*")
    return sorted(path for path in files if path.is_file())


def install_packages() -> None:
    """Install the five packages editable, lowest first, from this checkout and from nowhere else."""
    flags = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("EV_SHIM_")]
    files: list[Path] = []
    installed = False
    for package in PACKAGES:
        files += package_files(package)  # A shim also depends on the headers of the packages below it.
        state = digest([str(ROOT), *flags], files)
        module = list((ROOT / "packages" / package / "src" / package).glob("_shim.*so"))
        if is_done(package, state) and (module or not (ROOT / "packages" / package / "hatch_build.py").exists()):
            continue
        say(f"building and installing {package}")
        # --no-deps: the public index has other people's projects under these names.
        # --no-build-isolation: an isolated build would ask the index for the lower siblings, to compile against.
        options = ("--quiet", "--no-deps", "--no-build-isolation", "--editable")
        run(PYTHON, "-m", "pip", "install", *options, ROOT / "packages" / package, doing=f"building {package}")
        set_done(package, state)
        installed = True
    if installed:
        say("checking that they came from this checkout and fit together")
        check = ROOT / "tools" / "provenance.py"
        run(PYTHON, check, "--editable", ROOT / "packages", *PACKAGES, doing="the check")
        run(PYTHON, "-m", "pip", "check", doing="the check of the requirements")
        run(PYTHON, "-c", f"import {', '.join(PACKAGES)}", doing="importing the packages")


def replace_process(*command: str | Path) -> None:
    """Become the command: it gets Ctrl-C and SIGTERM itself, and its exit code is ours."""
    words = [str(word) for word in command]
    sys.stdout.flush()
    os.execv(words[0], words)


def serve(arguments: Sequence[str]) -> None:
    """Serve the current directory; ``arguments`` go to ``python -m evhttp`` and win over the defaults."""
    load_shimbuild().check_toolchain("dev", build_requirements=False)
    make_environment()
    install_tools("build", list(dict.fromkeys((*BUILD_TOOLS, *other_requirements()))))
    install_packages()
    say(f"serving {os.getcwd()} with `python -m evhttp`; Ctrl-C ends it")
    defaults = ("--bind", "127.0.0.1", "--port", "8000", "--directory", os.getcwd())
    replace_process(PYTHON, "-m", "evhttp", *defaults, *arguments)


def test(arguments: Sequence[str]) -> None:
    """Run nox; ``arguments`` go to it, for example ``-s lint`` or ``-- -k timer``."""
    load_shimbuild().check_toolchain("dev", build_requirements=False)
    make_environment()
    install_tools("test", TEST_TOOLS)
    say("running nox" + "".join(f" {word}" for word in arguments))
    replace_process(PYTHON, "-m", "nox", "-f", ROOT / "noxfile.py", *arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; return the exit code."""
    commands = {"serve": serve, "test": test}
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if not arguments or arguments[0] not in commands:
        print(f"dev: expected one of {', '.join(commands)}; `python3 tools/dev.py --help` tells more", file=sys.stderr)
        return 2
    if sys.version_info < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        print(
            f"dev: Python {needed} or newer is needed, this is {sys.version.split()[0]} ({sys.executable})",
            file=sys.stderr,
        )
        return 2
    try:
        commands[arguments[0]](arguments[1:])
    except Failure as error:
        print(f"dev: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dev: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
