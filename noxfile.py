"""The sessions that build, check and test the five packages; `python3 tools/dev.py test` runs the default ones.

Environments are kept between runs. A step inside one is skipped when it was done with the same inputs: `step` leaves a
stamp in the environment, so an unchanged second run takes seconds. The packages are always installed from wheels built
here, by their paths, so pip never looks for them in an index, and `tools/provenance.py` checks this in every environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nox
from nox.command import CommandFailed
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))
from free_threaded import NotAvailable  # noqa: E402
from free_threaded import find as find_free_threaded  # noqa: E402
from provenance import PACKAGES  # noqa: E402
from pythons import find_pythons  # noqa: E402

PYTHONS = find_pythons(("3.11", "3.12", "3.13"))
# nox looks for python3.X on PATH; some of these are not on it.
os.environ["PATH"] = os.pathsep.join([*(str(path.parent) for path in PYTHONS.values()), os.environ["PATH"]])
os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")

WHEELS = ROOT / "build" / "wheels"
BUILD_TOOLS = ("hatchling>=1.26", "cffi>=1.17", "setuptools>=66", "build>=1.2")
# Where the session `cross` compiles for: what ziglang brings the real headers of, and this machine is not.
CROSS_TARGETS = ("x86_64-macos", "aarch64-macos", "x86_64-freebsd", "x86_64-linux-musl")
# Tests wait about as much as they work, so there may be more of them than cores; and some take a hundred times as long as others.
WORKERS = ("-n", "3", "--dist", "worksteal")
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


def others(packages: Sequence[str] = PACKAGES) -> list[str]:
    """Return what the packages require at run time from elsewhere."""
    return sorted({str(r) for name in packages for r in requirements(name) if r.name not in PACKAGES})


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
    wanted = sorted({*tools, *others(names)})
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
    install(session, [*BUILD_TOOLS, *others()])
    for name in PACKAGES:
        with step(session, name, source_state(name)) as needed:
            if needed or not list(WHEELS.glob(f"{name}-*.whl")):
                session.log(f"building {name}")
                build_package(session, ROOT / "packages" / name, WHEELS)


def run_tests(session: nox.Session, *arguments: str, env: dict[str, str] | None = None) -> None:
    """Run pytest. What fails is run once more with nothing beside it, and both outcomes are shown.

    Some tests inject delays and faults and wait for what must follow; on a machine that does other work too, that can take
    longer than they wait. Whatever fails alone as well has failed.
    """
    # Of its own: sessions run side by side.
    cache = ("-o", f"cache_dir={Path(session.virtualenv.location).resolve() / 'pytest'}")
    try:
        session.run("pytest", *arguments, *cache, env=env)
    except CommandFailed:
        session.warn("what has failed is run once more, alone")
        alone = ("-n", "0", "--last-failed", "--last-failed-no-failures", "none")
        session.run("pytest", *arguments, *cache, *alone, env=env)


@nox.session(python=list(PYTHONS), requires=["wheels"])
@nox.parametrize("package", PACKAGES)
def tests(session: nox.Session, package: str) -> None:
    """Run a package's tests where only it and the packages below it are installed."""
    install(session, group(ROOT / "packages" / package / "pyproject.toml", "test"), built(below(package)))
    # What differs between the pollers, and what injected faults and tables of malformed bytes reach, is C, and one binary for all
    # Pythons: the first Python tries all of it, which is what continuous integration has the time for.
    in_c = "(poll and not epoll) or " + " or ".join(
        ("test_faults", "test_fault_table", "test_parser_c", "test_fuzz", "test_conformance", "test_codec_c")
    )
    chosen = () if session.python == next(iter(PYTHONS)) else ("-k", f"not ({in_c})")
    run_tests(session, f"packages/{package}/tests", *WORKERS, *chosen, *session.posargs)


@nox.session(requires=["wheels"])
def integration(session: nox.Session) -> None:
    """Test what crosses packages, on the built wheels."""
    install(session, group(ROOT / "pyproject.toml", "integration"), built(PACKAGES))
    run_tests(session, "tests-integration", *session.posargs, env={"EV_WHEELS": str(WHEELS)})
    if not session.posargs:
        # The benchmarks' own programs too: a load that takes any answer for the right one would flatter whom it measures.
        run_tests(session, "bench")


@nox.session(requires=["wheels"])
def docs(session: nox.Session) -> None:
    """Build the documentation site into build/docs; a warning is an error. Options after `--` go to sphinx-build."""
    install(session, group(ROOT / "pyproject.toml", "docs"), built(PACKAGES))
    # A page that is not read again warns of nothing, hence the fresh environment.
    options = ("-b", "html", "--fresh-env", "--fail-on-warning", "--keep-going", "--quiet", "-d", "build/doctrees")
    session.run("sphinx-build", *options, *session.posargs, "docs", "build/docs")
    session.log("the site is in build/docs/index.html")


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


@nox.session(name="install", requires=["wheels"])
def installs(session: nox.Session) -> None:
    """Install each package alone, exchange one version, and put two together that do not fit; say what came of it."""
    install(session, [*BUILD_TOOLS, *others(), "packaging>=24"])
    session.run("python", "tools/installs.py", str(WHEELS))


@nox.session
@nox.parametrize("package", PACKAGES)
def coverage(session: nox.Session, package: str) -> None:
    """Run a package's tests and tell which branches of its Python and of its C they took; needs gcc. `--` goes to pytest."""
    tools = group(ROOT / "packages" / package / "pyproject.toml", "test")
    counting = group(ROOT / "pyproject.toml", "coverage")
    install(session, [*BUILD_TOOLS, *others(below(package)), *tools, *counting])
    counts = ROOT / "packages" / package / "build" / "shim"
    for old in counts.glob("*/objects"):
        # What was counted before, perhaps of other sources: gcovr would add it.
        shutil.rmtree(old.parent)
    # Only its own shim counts.
    for name in below(package):
        environment = {"EV_SHIM_COVERAGE": "1" if name == package else "0"}
        options = ("--no-deps", "--no-build-isolation", "--no-index", "--force-reinstall")
        session.run("python", "-m", "pip", "install", "-q", *options, f"packages/{name}", env=environment, silent=True)
    folder = ROOT / "build" / "coverage" / package
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    workers = "0" if package == "evloop" else "4"
    environment = {"COVERAGE_FILE": str(folder / "data")}
    session.run(
        *("coverage", "run", f"--source={package}", "-m", "pytest", f"packages/{package}/tests", "-n", workers, "-q"),
        *session.posargs,
        env=environment,
        # A count of what ran is wanted even when something failed: tests that wait for less time than a counted program takes.
        success_codes=[0, 1],
    )
    session.run("coverage", "combine", "-q", env=environment)
    session.run("coverage", "report", "--skip-covered", env=environment)
    session.run("coverage", "json", "-q", "-o", str(folder / "python.json"), env=environment)
    totals = json.loads((folder / "python.json").read_text())["totals"]
    lines = totals["covered_lines"] / totals["num_statements"]
    branches = totals["covered_branches"] / totals["num_branches"]
    session.log(f"Python: {lines:.1%} of the lines, {branches:.1%} of the branches")
    if package in shims():
        reports = ("--txt", "-", "--txt-metric", "branch", "--print-summary", "--html", str(folder / "c.html"))
        filters = ("--root", f"packages/{package}", "--filter", f"packages/{package}/src/")
        session.run("gcovr", *filters, *reports, "--exclude-unreachable-branches", str(counts))
    session.run("python", "tools/lines.py", package)


@nox.session(venv_backend="none")
def freethreaded(session: nox.Session) -> None:
    """Run the tests without the GIL, and measure threads there; on python3.14t, which is built here if Debian's source can be had.

    `--` goes to pytest.
    """
    folder = ROOT / "build" / "freethreaded"
    try:
        found = find_free_threaded(folder)
    except NotAvailable as error:
        session.skip(str(error))
    python = str(folder / "venv" / "bin" / "python")
    session.run(str(found), "-m", "venv", "--clear", str(folder / "venv"), external=True)
    tools = {tool for name in PACKAGES for tool in group(ROOT / "packages" / name / "pyproject.toml", "test")}
    # 2.1 is the first whose modules declare that they do without the GIL.
    for requirement in ["cffi>=2.1", *BUILD_TOOLS, *others(), *sorted(tools)]:
        # Others' packages may not build there yet; the tests that need them say so.
        session.run(python, "-m", "pip", "install", "-q", requirement, external=True, success_codes=[0, 1])
    for name in PACKAGES:
        options = ("--no-deps", "--no-build-isolation", "--no-index", "--force-reinstall")
        session.run(python, "-m", "pip", "install", "-q", *options, f"packages/{name}", external=True)
    # A module that brings the GIL back warns when it is imported, and a warning is an error here and in the tests.
    session.run(python, "-W", "error", "tools/smoke.py", *PACKAGES, external=True)
    for name in PACKAGES:
        workers = "0" if name == "evloop" else "4"
        session.run(python, "-m", "pytest", f"packages/{name}/tests", "-n", workers, *session.posargs, external=True)
    chosen = ("--workloads", "plain", "--servers", "thread-1,thread-2", "--python", python)
    session.run(python, "bench/run.py", "multi", *chosen, external=True)


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: mypy --strict over the packages, their stubs, the tools, this file, and the tests."""
    tests = [tool for name in PACKAGES for tool in group(ROOT / "packages" / name / "pyproject.toml", "test")]
    needed = [*group(ROOT / "pyproject.toml", "typing"), *group(ROOT / "pyproject.toml", "integration"), *others()]
    install(session, sorted({*needed, *tests}))
    session.run("mypy")
    # By themselves: bench has modules of the same names as the soak.
    session.run("mypy", *(f"packages/{name}/tests" for name in PACKAGES), "tests-integration")


@nox.session(requires=["wheels"])
def verifytypes(session: nox.Session) -> None:
    """Check the types of the installed packages: every public name's is known, and the stubs of the shims say what these do."""
    install(session, group(ROOT / "pyproject.toml", "verifytypes"), built(PACKAGES))
    folder = session.create_tmp()  # not in the checkout, whose tests and sources are not what was installed
    for name in PACKAGES:
        session.log(f"types of {name}")
        with session.chdir(folder):
            session.run("pyright", "--verifytypes", name, "--ignoreexternal")
    with session.chdir(folder):
        session.run("python", "-m", "mypy.stubtest", *(f"{name}._shim" for name in shims()))
    session.run("python", "tools/check_stubs.py", *shims())


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, and that packages import downward only."""
    install(session, group(ROOT / "pyproject.toml", "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": SOURCE_PATH})


@nox.session(requires=["wheels"])
def build(session: nox.Session) -> None:
    """Check what the sdists and wheels hold, what an index would say of them, where they run, and how releases are made."""
    install(session, [*BUILD_TOOLS, *group(ROOT / "pyproject.toml", "build")], built(PACKAGES))
    session.run("python", "tools/check_dists.py", str(WHEELS))
    session.run("twine", "check", "--strict", *map(str, sorted(WHEELS.glob("ev*"))))
    for name in PACKAGES:
        session.run("towncrier", "build", "--draft", "--dir", f"packages/{name}", "--version", "next", silent=True)
    compiled = built(shims())
    session.run("abi3audit", "--strict", "--summary", *map(str, compiled))
    for wheel in compiled if sys.platform == "linux" else ():
        session.run("auditwheel", "show", str(wheel))
    # Reads the configuration as a build would, which only a machine with containers or a Mac can do.
    for platform in ("linux", "macos"):
        configuration = ("--config-file", "tools/cibuildwheel.toml", "--platform", platform)
        session.run("cibuildwheel", *configuration, "--print-build-identifiers", f"packages/{PACKAGES[0]}")
    session.run("pytest", "tools/tests", *session.posargs)


@nox.session(requires=["wheels"])
def release(session: nox.Session) -> None:
    """Release a package: `-- evnet --dry-run`, see tools/release.py."""
    install(session, [*BUILD_TOOLS, *group(ROOT / "pyproject.toml", "build")], built(PACKAGES))
    session.run("python", "tools/release.py", *session.posargs)


# What `sanitize -- short` runs: where the C code is, without what waits.
SHORT_TESTS = {
    "evloop": ("test_wheel", "test_core", "test_handles", "test_sendfile"),
    "evnet": ("test_streams", "test_packed", "test_unix"),
    "evhttp": ("test_fields", "test_server_handed", "test_upgrade", "test_later", "test_tls"),
    "evws": ("test_frames", "test_server", "test_broadcast"),
    "evmulti": ("test_sockets", "test_connections"),
}


@nox.session
def sanitize(session: nox.Session) -> None:
    """Run the tests with all C code under AddressSanitizer and UndefinedBehaviorSanitizer, leaks included.

    After `--`: `short` for what takes a minute, packages for their tests alone, and options of pytest.
    """
    chosen = [name for name in PACKAGES if name in session.posargs] or PACKAGES
    options = [each for each in session.posargs if each not in (*PACKAGES, "short")]
    tools = {tool for name in PACKAGES for tool in group(ROOT / "packages" / name / "pyproject.toml", "test")}
    install(session, [*BUILD_TOOLS, *others(), *sorted(tools)])
    reports = Path(session.create_tmp(), "reports").resolve()
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    runtime = session.run("gcc", "-print-file-name=libasan.so", external=True, silent=True)
    # The interpreter is not sanitized, so the runtime has to be there before it; its own allocator would hide from it what leaks.
    environment = {
        "EV_SHIM_SANITIZE": "address,undefined",
        "LD_PRELOAD": str(runtime).strip(),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    with step(session, "shims", [part for name in PACKAGES for part in source_state(name)]) as needed:
        for name in PACKAGES if needed else ():
            flags = ("--no-deps", "--no-build-isolation", "--no-index", "--force-reinstall")
            session.run(
                "python", "-m", "pip", "install", "-q", *flags, f"packages/{name}", env=environment, silent=True
            )
    environment["ASAN_OPTIONS"] = f"detect_leaks=1:abort_on_error=1:allocator_may_return_null=1:log_path={reports}/asan"
    environment["UBSAN_OPTIONS"] = f"print_stacktrace=1:log_path={reports}/ubsan"
    # What LeakSanitizer finds of CPython's own must not change what a tested program ends with; tools/leaks.py tells it from ours.
    environment["LSAN_OPTIONS"] = "exitcode=0:print_suppressions=0"
    environment["PYTHONPATH"] = str(ROOT / "tools")
    failed = []
    for name in chosen:
        tests = [f"packages/{name}/tests"]
        if "short" in session.posargs:
            tests = [f"packages/{name}/tests/{test}.py" for test in SHORT_TESTS[name]]
        # The other packages and the leaks are to be seen, too.
        try:
            session.run("pytest", *tests, "-p", "unsanitized", "-p", "no:cacheprovider", *options, env=environment)
        except CommandFailed:
            failed.append(name)
    session.run("python", "tools/leaks.py", str(reports))
    if failed:
        session.error(f"tests have failed under the sanitizers: {', '.join(failed)}")


# What several threads do at once, by package: in the layers below it is few tests, above them nearly all.
TSAN_TESTS = {
    "evloop": "thread or wake or stop or relay",
    "evnet": "thread or resolve or broadcast or lending",
    "evhttp": "relay or thread or body_file",
    "evws": "thread",
    "evmulti": "not process",
}


# What it has to report, before it is believed that there is nothing to report.
RACE_C = "int shared; void touch(void) { for (int i = 0; i < 10000000; i++) shared++; }"
RACE = """
import ctypes, sys, threading
touch = ctypes.CDLL(sys.argv[1]).touch
threads = [threading.Thread(target=touch) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
"""


@nox.session
@nox.parametrize("package", list(TSAN_TESTS))
def tsan(session: nox.Session, package: str) -> None:
    """Run a package's tests that have several threads, with the C code of all below it under ThreadSanitizer.

    Python itself is not instrumented. The runtime sees what it does with mutexes, which is how it takes the GIL, so what the GIL
    orders is ordered for it, and nothing has to be suppressed.
    """
    install(
        session, [*BUILD_TOOLS, *others(below(package)), *group(ROOT / "packages" / package / "pyproject.toml", "test")]
    )
    runtime = session.run("gcc", "-print-file-name=libtsan.so", external=True, silent=True)
    reports = Path(session.create_tmp()).resolve() / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    environment = {
        "EV_SHIM_SANITIZE": "thread",
        "LD_PRELOAD": str(runtime).strip(),
        # To files: what programs that tests start have to report would be lost with their output.
        "TSAN_OPTIONS": f"log_path={reports}/report:exitcode=0:die_after_fork=0:allocator_may_return_null=1",
    }
    race = reports.parent / "race.c"
    race.write_text(RACE_C)
    session.run("gcc", "-shared", "-fPIC", "-fsanitize=thread", str(race), "-o", f"{race}.so", external=True)
    session.run("python", "-c", RACE, f"{race}.so", env=environment)
    if not list(reports.glob("report.*")):
        session.error("a race on purpose was not reported: ThreadSanitizer sees nothing here")
    for path in reports.iterdir():
        path.unlink()
    for name in below(package):
        options = ("--no-deps", "--no-build-isolation", "--force-reinstall")
        session.run("python", "-m", "pip", "install", "-q", *options, f"packages/{name}", env=environment, silent=True)
    # Everything is ten times as slow.
    arguments = ("-p", "no:cacheprovider", "-k", TSAN_TESTS[package], "--timeout", "300", *session.posargs)
    session.run("pytest", f"packages/{package}/tests", *arguments, env=environment)
    found = sorted(reports.glob("report.*"))
    if found:
        session.error("\n".join([path.read_text() for path in found]))


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
    install(session, [*BUILD_TOOLS, *others(packages), *sorted(tools)])
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
    for name in ("evloop", "evnet"):
        # Above them nobody knows the poller. Of evnet only what runs on each backend, and without the tests that inject faults,
        # which take minutes.
        chosen = "not [epoll and not [poll" if name == "evloop" else "kqueue and not test_faults"
        run_tests(session, f"packages/{name}/tests", *WORKERS, "-k", chosen, *session.posargs, env=environment)


@nox.session
def cross(session: nox.Session) -> None:
    """Compile and link the shims for another system with ziglang, which has the headers; `-- all` for each, `--` takes targets."""
    install(session, ["ziglang>=0.15.1"])
    # The first one alone is what continuous integration has the time for.
    targets = CROSS_TARGETS if session.posargs == ["all"] else session.posargs or CROSS_TARGETS[:1]
    for target in targets:
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
    flags = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror")
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
        # -nostdlib leaves out what takes ziglang half a minute to build first; the system's own library stays, except musl.
        linker = (*compiler, "-shared", "-nostdlib", *(("-Wl,-z,defs",) if target.endswith("-freebsd") else ()))
        output = str(folder / f"{package}.so")
        session.run(*linker, "-o", output, *objects, env=environment, silent=True, log=False)


# Fuzz targets: the package, the source in its tests, and the C files compiled with it. What is no C file is above C: atheris
# runs it, on shims under the sanitizers. tests/corpus/TARGET has their corpora, which test_fuzz.py goes through.
PARSER = ("parser", "response", "reader", "fields", "target", "chunked", "scan")
FUZZ_TARGETS = {
    "request": ("evhttp", "c/fuzz_parser.c", PARSER),
    "response": ("evhttp", "c/fuzz_parser.c", PARSER),
    "chunked": ("evhttp", "c/fuzz_parser.c", PARSER),
    "proxy": ("evhttp", "c/fuzz_proxy.c", ("proxy",)),
    "ranges": ("evhttp", "fuzz/run.py", ()),
    "conditions": ("evhttp", "fuzz/run.py", ()),
    "multipart": ("evhttp", "fuzz/run.py", ()),
    "static": ("evhttp", "fuzz/run.py", ()),
    "server": ("evhttp", "fuzz/run.py", ()),
    "frames": ("evws", "c/fuzz_frames.c", ("feeder", "frame", "close", "utf8", "kernels*")),
    "handshake": ("evws", "fuzz/run.py", ()),
    "answer": ("evws", "fuzz/run.py", ()),
    "connection": ("evws", "fuzz/run.py", ()),
}


@nox.session
def fuzz(session: nox.Session) -> None:
    """Look for inputs that break a fuzz target: `-- TARGET SECONDS`, by default each for a minute, and `c` those that are C.

    Needs clang and libclang-rt-dev. Further arguments go to libFuzzer. What it finds is left in build/fuzz/TARGET and is the start
    of the next run; `-- TARGET 0 -merge=1` adds to the corpus in the repository what reaches new code.
    """
    chosen, seconds, *options = (*session.posargs, *("all", "60")[len(session.posargs) :])
    groups = {
        "all": list(FUZZ_TARGETS),
        "c": [name for name, (_, source, _) in FUZZ_TARGETS.items() if source.endswith(".c")],
    }
    targets = groups.get(chosen, [chosen])
    if unknown := set(targets) - set(FUZZ_TARGETS):
        session.error(f"no such target: {', '.join(unknown)}; there are {', '.join((*groups, *FUZZ_TARGETS))}")
    environment = None
    for name in targets:
        package, source, _ = FUZZ_TARGETS[name]
        folder = ROOT / "build" / "fuzz" / name
        found, corpus = folder / "found", ROOT / "packages" / package / "tests" / "corpus" / name
        for each in (found, corpus):
            each.mkdir(parents=True, exist_ok=True)
        if source.endswith(".c"):
            command = [fuzz_program(session, name, folder)]
        else:
            if environment is None:  # for all of them that are above C, whose packages depend on each other
                highest = max((FUZZ_TARGETS[each][0] for each in targets), key=PACKAGES.index)
                environment = prepare_atheris(session, below(highest))
            command = ["python", f"packages/{package}/tests/{source}", name]
        limits = (f"-max_total_time={seconds}", "-max_len=2048", "-timeout=60", "-print_final_stats=1")
        folders = (corpus, found) if "-merge=1" in options else (found, corpus)
        arguments = (*limits, f"-artifact_prefix={folder}/", *options, *map(str, folders))
        session.run(*command, *arguments, env=environment if command[0] == "python" else None, external=True)


def prepare_atheris(session: nox.Session, packages: Sequence[str]) -> dict[str, str]:
    """Install atheris, and packages whose shims tell it which code they reach; return the environment in which it runs."""
    install(session, [*BUILD_TOOLS, *others(packages), "atheris>=3"])
    # Its own build of AddressSanitizer's runtime, with libFuzzer in it; what clang compiles finds both there.
    find = "import importlib.util as u; print(u.find_spec('asan_with_fuzzer').origin)"
    runtime = str(session.run("python", "-c", find, silent=True)).strip()
    environment = {
        "EV_SHIM_SANITIZE": "address,undefined,fuzzer-no-link",
        "CC": "clang",
        "LDSHARED": "clang -shared",
        "LD_PRELOAD": runtime,
        # A small quarantine: what a run of minutes has freed would fill the memory that libFuzzer allows.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:quarantine_size_mb=32",
    }
    for name in packages:
        options = ("--no-deps", "--no-build-isolation", "--force-reinstall")
        session.run("python", "-m", "pip", "install", "-q", *options, f"packages/{name}", env=environment, silent=True)
    return environment


def fuzz_program(session: nox.Session, name: str, folder: Path) -> str:
    """Compile a fuzz target that is C; return the program."""
    package, source, files = FUZZ_TARGETS[name]
    sources = [path for each in files for path in sorted(c_folder(package).glob(f"{each}.c"))]
    includes = [c_folder(package), *(ROOT / "packages" / each / "src" / each / "include" for each in below(package))]
    flags = ["-std=c11", "-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    flags += [f"-DFUZZ_TARGET={name.upper()}", *(f"-I{path}" for path in includes)]
    program = str(folder / "target")
    source = f"packages/{package}/tests/{source}"
    session.run("clang", *flags, source, *map(str, sources), "-o", program, external=True)
    return program


# The Autobahn testsuite for WebSocket runs under Python 2.7 only, for which this is the last virtualenv.
AUTOBAHN = "autobahntestsuite==25.10.1"
VIRTUALENV_FOR_27 = "virtualenv<20.22"


@nox.session(requires=["wheels"])
def autobahn(session: nox.Session) -> None:
    """Run the Autobahn testsuite against evws: the short 361 cases, or with `-- --full` all 517; needs a Python 2.7."""
    python = find_pythons(("2.7",)).get("2.7")
    if python is None:
        session.skip("there is no Python 2.7 here, which the Autobahn testsuite runs under")
    install(session, [VIRTUALENV_FOR_27], built(below("evws")))
    folder = Path(session.virtualenv.location, "autobahn")
    with step(session, "autobahn", [AUTOBAHN, python]) as needed:
        if needed:
            session.run("virtualenv", "-q", "--clear", "-p", str(python), str(folder))
            session.run(str(folder / "bin" / "python"), "-m", "pip", "install", "-q", AUTOBAHN, external=True)
    report = ROOT / "build" / "autobahn"
    session.run(
        "python", "tools/autobahn.py", str(folder / "bin" / "wstest"), "--report", str(report), *session.posargs
    )


@nox.session(requires=["wheels"])
def bench(session: nox.Session) -> None:
    """Run the benchmarks; everything after `--` goes to bench/run.py: `--list`, or `http ws --results bench/results`."""
    install(session, ["matplotlib"], built(PACKAGES))
    session.run("python", "bench/run.py", *session.posargs)


@nox.session(requires=["wheels"])
def soak(session: nox.Session) -> None:
    """Try a service for ten minutes, or as many as `--` says, with all that it serves and all that goes wrong."""
    install(session, group(ROOT / "pyproject.toml", "integration"), built(PACKAGES))
    session.run("python", "tests-integration/soak", *session.posargs)


@nox.session(requires=["wheels"])
def instructions(session: nox.Session) -> None:
    """Compare the instructions that a request costs with the committed counts; `-- --update` writes them down."""
    install(session, [], built(PACKAGES))
    session.run("python", "bench/instructions.py", *session.posargs)


@nox.session(requires=["wheels"])
def profile(session: nox.Session) -> None:
    """Draw a flame graph of a server under load, Python and C in one: `-- http`, `-- pipeline`, `-- echo` or `-- ws`."""
    install(session, ["py-spy>=0.4"], built(PACKAGES))
    session.run("python", "bench/flame.py", *(session.posargs or ["http"]))
