"""The sessions that build, check and test the five packages; `python3 tools/dev.py test` runs the default ones.

Environments are kept between runs. A step inside one is skipped when it was done with the same inputs: `step` leaves a
stamp in the environment, so an unchanged second run takes seconds. The packages are always installed from wheels built
here, by their paths, so pip never looks for them in an index, and `tools/provenance.py` checks this in every environment.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nox
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))
from provenance import PACKAGES  # noqa: E402
from pythons import find_pythons  # noqa: E402

PYTHONS = find_pythons(("3.11", "3.12", "3.13"))
# nox looks for python3.X on PATH; some of these are not on it.
os.environ["PATH"] = os.pathsep.join([*(str(path.parent) for path in PYTHONS.values()), os.environ["PATH"]])
os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")

WHEELS = ROOT / "build" / "wheels"
BUILD_TOOLS = ("hatchling>=1.26", "cffi>=1.17", "setuptools>=66", "build>=1.2")
# Where the session `cross` compiles for: what ziglang brings the real headers of, and this machine is not.
CROSS_TARGETS = ("x86_64-macos", "aarch64-macos", "x86_64-freebsd")
SOURCE_PATH = os.pathsep.join(str(ROOT / "packages" / name / "src") for name in PACKAGES)

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "typing", "tests", "kqueue", "integration", "cross"]


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def group(path: Path, name: str) -> list[str]:
    """Return a dependency group (PEP 735) of a pyproject.toml."""
    return [str(requirement) for requirement in read_toml(path)["dependency-groups"][name]]


def below(package: str) -> tuple[str, ...]:
    """Return the package and those below it, lowest first."""
    return PACKAGES[: PACKAGES.index(package) + 1]


def requirements(package: str) -> list[Requirement]:
    """Return what the package requires at run time."""
    project = read_toml(ROOT / "packages" / package / "pyproject.toml")["project"]
    return [Requirement(text) for text in project["dependencies"]]


def floor(requirement: Requirement) -> Version:
    """Return the lowest version that a requirement allows."""
    return max(Version(part.version) for part in requirement.specifier if part.operator in (">=", "=="))


@contextmanager
def step(session: nox.Session, name: str, state: Iterable[object]) -> Iterator[bool]:
    """Tell the block whether a step is to be done in this environment.

    If the block raises nothing, the step is done until ``state`` changes.
    """
    digest = hashlib.sha256(repr([str(part) for part in state]).encode()).hexdigest()
    stamp = Path(session.virtualenv.location, f"{name}.stamp")
    if stamp.is_file() and stamp.read_text() == digest:
        yield False
        return
    stamp.unlink(missing_ok=True)
    yield True
    stamp.write_text(digest)


def install(session: nox.Session, tools: Sequence[str], wheels: Sequence[Path] = ()) -> None:
    """Install tools from the index and our wheels by path, each when it has changed, and check where the wheels came from."""
    names = [path.name.split("-")[0] for path in wheels]
    others = {str(r) for name in names for r in requirements(name) if r.name not in PACKAGES}
    wanted = sorted({*tools, *others})
    with step(session, "tools", wanted) as needed:
        if needed and wanted:
            session.install(*wanted)
    with step(session, "wheels", [hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels]) as needed:
        if needed and wheels:
            install_wheels(session, wheels)
            session.run("python", "tools/provenance.py", "--wheels", str(WHEELS), *names, silent=True)


def install_wheels(session: nox.Session, wheels: Sequence[Path]) -> None:
    """Install wheels by path and nothing else; another wheel of the same version is replaced."""
    session.install("--no-index", "--no-deps", "--force-reinstall", *map(str, wheels))
    session.run("python", "-m", "pip", "check", silent=True)


def built(packages: Sequence[str]) -> list[Path]:
    """Return the wheels of the packages that the session `wheels` has built."""
    return [next(WHEELS.glob(f"{name}-*.whl")) for name in packages]


def build_package(session: nox.Session, folder: Path, target: Path) -> Path:
    """Build an sdist from the folder, a wheel from the sdist, and install the wheel for the builds that follow; return it."""
    name = folder.name
    for old in target.glob(f"{name}-*"):
        old.unlink()
    target.mkdir(parents=True, exist_ok=True)
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(target), str(folder), silent=True)
    wheel = next(target.glob(f"{name}-*.whl"))
    install_wheels(session, [wheel])
    return wheel


def source_state(package: str) -> list[object]:
    """Return what a build of the package depends on."""
    state: list[object] = [
        f"{key}={value}" for key, value in sorted(os.environ.items()) if key.startswith(("EV_SHIM_", "EVLOOP_KQUEUE_"))
    ]
    for name in below(package):
        folder = ROOT / "packages" / name
        ignored = {folder / "build", folder / "changelog.d"}
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not ignored.intersection(path.parents) and path.suffix not in (".so", ".pyc"):
                state += [path.relative_to(ROOT), hashlib.sha256(path.read_bytes()).hexdigest()]
    return state


@nox.session
def wheels(session: nox.Session) -> None:
    """Build every package's sdist, and its wheel from the sdist, into build/wheels: one abi3 wheel for all Pythons."""
    install(session, BUILD_TOOLS)
    for name in PACKAGES:
        with step(session, name, source_state(name)) as needed:
            if needed or not list(WHEELS.glob(f"{name}-*.whl")):
                session.log(f"building {name}")
                build_package(session, ROOT / "packages" / name, WHEELS)


@nox.session(python=list(PYTHONS), requires=["wheels"])
@nox.parametrize("package", PACKAGES)
def tests(session: nox.Session, package: str) -> None:
    """Run a package's tests where only it and the packages below it are installed."""
    install(session, group(ROOT / "packages" / package / "pyproject.toml", "test"), built(below(package)))
    session.run("pytest", f"packages/{package}/tests", *session.posargs)


@nox.session(requires=["wheels"])
def integration(session: nox.Session) -> None:
    """Test what crosses packages, on the built wheels."""
    install(session, group(ROOT / "pyproject.toml", "integration"), built(PACKAGES))
    session.run("pytest", "tests-integration", *session.posargs, env={"EV_WHEELS": str(WHEELS)})


@nox.session(requires=["wheels"])
@nox.parametrize("package", PACKAGES[1:])
def oldest(session: nox.Session, package: str) -> None:
    """Run a package's tests with the lowest version that its ranges allow of every requirement."""
    lowest: dict[str, Version] = {}
    for name in reversed(below(package)):
        for requirement in requirements(name):
            # A lower package may itself ask for more than this package does.
            lowest[requirement.name] = max(floor(requirement), lowest.get(requirement.name, floor(requirement)))
    found = [old_wheel(session, name, lowest[name]) for name in below(package)[:-1]]
    tools = group(ROOT / "packages" / package / "pyproject.toml", "test")
    pins = [f"{name}=={version}" for name, version in lowest.items() if name not in PACKAGES]
    session.log("lowest versions: " + ", ".join(f"{name} {version}" for name, version in sorted(lowest.items())))
    with step(session, "oldest", [*tools, *pins, *found]) as needed:
        if needed:
            session.install(*tools, *pins)
    install_wheels(session, [*found, *built([package])])
    session.run("pytest", f"packages/{package}/tests", *session.posargs)


def old_wheel(session: nox.Session, package: str, version: Version) -> Path:
    """Return a version's wheel: this checkout's if it is still at that version, else one built from the release's tag."""
    current = built([package])[0]
    if Version(current.name.split("-")[1]) == version:
        return current
    # A range says 2.0, the tag of that release says 2.0.0.
    tag = f"{package}-v{version.major}.{version.minor}.{version.micro}"
    folder = ROOT / "build" / "oldest" / tag
    if not list(folder.glob("*.whl")):
        # From our own history and not from an index: see tools/provenance.py.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        archive = str(folder / "source.tar")
        session.run("git", "archive", f"--output={archive}", tag, f"packages/{package}", external=True)
        session.run("tar", "-xf", archive, "-C", str(folder), external=True)
        session.install(*BUILD_TOOLS)
        lower = [old_wheel(session, r.name, floor(r)) for r in requirements(package) if r.name in PACKAGES]
        if lower:
            install_wheels(session, lower)
        build_package(session, folder / "packages" / package, folder)
    return next(folder.glob("*.whl"))


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: mypy --strict over the packages, their stubs, the tools and this file."""
    install(session, group(ROOT / "pyproject.toml", "typing"))
    session.run("mypy")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, and that packages import downward only."""
    install(session, group(ROOT / "pyproject.toml", "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": SOURCE_PATH})


@nox.session(requires=["wheels"])
def build(session: nox.Session) -> None:
    """Check what the sdists and wheels hold, and what an index would say of them."""
    install(session, group(ROOT / "pyproject.toml", "build"))
    session.run("python", "tools/check_dists.py", str(WHEELS))
    session.run("twine", "check", "--strict", *map(str, sorted(WHEELS.glob("ev*"))))
    for name in PACKAGES:
        session.run("towncrier", "build", "--draft", "--dir", f"packages/{name}", "--version", "next", silent=True)


@nox.session
@nox.parametrize("package", ["evloop", "evnet", "evhttp"])
def sanitize(session: nox.Session, package: str) -> None:
    """Run a package's tests with its C code under AddressSanitizer and UndefinedBehaviorSanitizer."""
    install(session, [*BUILD_TOOLS, *group(ROOT / "packages" / package / "pyproject.toml", "test")])
    runtime = session.run("gcc", "-print-file-name=libasan.so", external=True, silent=True)
    # The interpreter itself is not sanitized, so the runtime has to be there before it; its own leaks are not ours to report.
    environment = {
        "EV_SHIM_SANITIZE": "address,undefined",
        "LD_PRELOAD": str(runtime).strip(),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
    }
    for name in below(package):
        options = ("--no-deps", "--no-build-isolation", "--force-reinstall")
        session.run("python", "-m", "pip", "install", "-q", *options, f"packages/{name}", env=environment, silent=True)
    session.run("pytest", f"packages/{package}/tests", "-p", "no:cacheprovider", *session.posargs, env=environment)


def shims() -> list[str]:
    """Return the packages that have C files."""
    return [name for name in PACKAGES if (c_folder(name) / "shim.cdef").is_file()]


def c_folder(package: str) -> Path:
    """Return the folder of a package's C files."""
    return ROOT / "packages" / package / "src" / package / "_c"


@nox.session
def kqueue(session: nox.Session) -> None:
    """Run the tests over kqueue: of the library below EVLOOP_KQUEUE_PREFIX if that is set, else of an emulation that is built here.

    Options after `--` go to pytest.
    """
    packages = shims()
    tools = {tool for name in packages for tool in group(ROOT / "packages" / name / "pyproject.toml", "test")}
    install(session, [*BUILD_TOOLS, *sorted(tools)])
    prefix = os.environ.get("EVLOOP_KQUEUE_PREFIX")
    if not prefix:
        prefix = str(ROOT / "build" / "kqueue")
        session.run("python", "packages/evloop/tests/support/kqueue/build.py", prefix)
    # The second: files are watched through EVFILT_VNODE too.
    flags = f"{os.environ.get('EV_SHIM_CFLAGS', '')} -DEVLOOP_FSWATCH_KQUEUE"
    environment = {"EVLOOP_KQUEUE_PREFIX": prefix, "EV_SHIM_CFLAGS": flags, "EVLOOP_BACKEND": "kqueue"}
    for name in packages:
        options = ("--no-deps", "--no-build-isolation", "--no-index", "--force-reinstall")
        session.run("python", "-m", "pip", "install", "-q", *options, f"packages/{name}", env=environment, silent=True)
    for name in packages:
        # Above evloop only what runs on each backend; and without the tests that inject faults, which take minutes.
        chosen = "not [epoll and not [poll" if name == "evloop" else "kqueue and not test_faults"
        session.run("pytest", f"packages/{name}/tests", "-k", chosen, *session.posargs, env=environment)


@nox.session
def cross(session: nox.Session) -> None:
    """Compile and link the shims for other systems with ziglang, which has their headers; `--` takes other targets."""
    install(session, ["ziglang>=0.15.1"])
    for target in session.posargs or CROSS_TARGETS:
        for name in shims():
            includes = [ROOT / "packages" / each / "src" / each / "include" for each in below(name)]
            files = [p for folder in (c_folder(name), *includes) for p in sorted(folder.rglob("*")) if p.is_file()]
            state = [part for path in files for part in (path, path.read_bytes())]
            with step(session, f"{target}-{name}", state) as needed:
                if needed:
                    session.log(f"compiling {name} for {target}")
                    compile_for(session, target, name, [f"-I{path}" for path in (c_folder(name), *includes)])


def compile_for(session: nox.Session, target: str, package: str, includes: list[str]) -> None:
    """Compile each C file of the package's shim for another system, and link them but for what Python provides."""
    compiler = ("python", "-m", "ziglang", "cc", "-target", target)
    # Without the sanitizer that ziglang adds, whose runtime would have to be linked.
    flags = ("-std=c11", "-O2", "-fPIC", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror")
    folder = Path(session.create_tmp())
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "zig"), "ZIG_LOCAL_CACHE_DIR": str(folder / "zig")}
    objects: list[str] = []
    for source in sorted(c_folder(package).glob("*.c")):
        objects.append(str(folder / f"{source.stem}.o"))
        arguments = (*flags, *includes, "-c", str(source), "-o", objects[-1])
        session.run(*compiler, *arguments, env=environment, silent=True, log=False)
    # Each function that a platform file defines has to be defined in exactly one of them. evhttp has none, and asks on macOS for
    # what only Apple's own compiler brings.
    if package in ("evloop", "evnet"):
        # -nostdlib leaves out what takes ziglang half a minute to build first; the system's own library stays.
        linker = (*compiler, "-shared", "-nostdlib", *(() if target.endswith("-macos") else ("-Wl,-z,defs",)))
        output = str(folder / f"{package}.so")
        session.run(*linker, "-o", output, *objects, env=environment, silent=True, log=False)


@nox.session(requires=["wheels"])
def bench(session: nox.Session) -> None:
    """Run the benchmarks; everything after `--` goes to bench/run.py."""
    install(session, [], built(PACKAGES))
    session.run("python", "bench/run.py", *session.posargs)
