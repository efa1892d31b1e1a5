"""Release one package: `nox -s release -- evnet --dry-run`, then without `--dry-run`.

Everything is done in a worktree of its own first: the version is set, the fragments of the changelog are collected, that is
committed, sdist and wheel are built from the commit, checked, installed and tried. Only when all of it has gone well does the
checkout get the commit and the tag `<package>-vX.Y.Z`, and `dist/` the files; a dry run ends before that. Nothing is pushed or
uploaded: the last lines say how.

It refuses an unclean checkout, a release that no fragment speaks of, a version that is there already, and one that a sibling's
range does not admit. It needs git, and what the session `release` installs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from provenance import PACKAGES

__all__ = ["main"]

ROOT = Path(__file__).resolve().parent.parent
_VERSION = re.compile(r'^__version__ = "(.*)"$', re.MULTILINE)


class Refusal(Exception):
    """There is to be no release; the message is the one line that says why."""


def _say(text: str) -> None:
    print(f"release: {text}", flush=True)


def _run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command and return what it printed; it failing is a refusal, with its messages above."""
    words = [str(word) for word in command]
    result = subprocess.run(words, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)
    if result.returncode != 0:
        sys.stderr.write(result.stdout + result.stderr)
        raise Refusal(f"`{' '.join(words[:4])}` failed, its messages are above")
    return result.stdout


def _python(*command: str | Path, cwd: Path, **environment: str) -> str:
    return _run(sys.executable, *command, cwd=cwd, **environment)


def _version_file(root: Path, package: str) -> Path:
    return root / "packages" / package / "src" / package / "_version.py"


def _version(package: str) -> Version:
    found = _VERSION.search(_version_file(ROOT, package).read_text(encoding="utf-8"))
    if found is None:
        raise Refusal(f"{_version_file(ROOT, package)} has no line like __version__ = ...")
    return Version(found.group(1))


def _choose_version(package: str, wanted: str | None) -> Version:
    """Return the version to release: the one asked for, else the current one if it never was released, else the micro after it."""
    current = _version(package)
    prefix = f"{package}-v"
    released = [Version(tag.removeprefix(prefix)) for tag in _run("git", "tag", "--list", f"{prefix}*").split()]
    if wanted is None:
        if current not in released:
            return current
        return Version(f"{current.major}.{current.minor}.{current.micro + 1}")
    try:
        version = Version(wanted)
    except InvalidVersion:
        raise Refusal(f"{wanted!r} is no version like 2.0.1") from None
    if str(version) != wanted or len(version.release) != 3:
        raise Refusal(f"expected a version of three numbers like 2.0.1, not {wanted!r}")
    if version in released:
        raise Refusal(f"{package} {version} has been released already: there is a tag {prefix}{version}")
    if version < current:
        raise Refusal(f"{package} is at {current}, which is newer than {version}")
    return version


def _check_clean() -> None:
    changed = _run("git", "status", "--porcelain").splitlines()
    if changed:
        raise Refusal(
            f"the checkout has {len(changed)} changes that are not committed, the first is {changed[0].strip()}"
        )


def _check_fragments(package: str) -> int:
    """Return how many fragments there are; each must be of a kind that the changelog has."""
    folder = ROOT / "packages" / package
    with (folder / "pyproject.toml").open("rb") as file:
        kinds = {each["directory"] for each in tomllib.load(file)["tool"]["towncrier"]["type"]}
    fragments = [path for path in sorted((folder / "changelog.d").glob("*")) if not path.name.startswith(".")]
    for path in fragments:
        if not kinds.intersection(path.name.split(".")[1:]):
            raise Refusal(f"{path.relative_to(ROOT)} is of no kind that the changelog has: {', '.join(sorted(kinds))}")
    if not fragments:
        raise Refusal(f"{package} has no fragment in changelog.d: nothing that a user would see has changed")
    return len(fragments)


def _ranges(package: str) -> Iterator[Requirement]:
    """Yield what a package requires of its siblings, to run and to be built."""
    with (ROOT / "packages" / package / "pyproject.toml").open("rb") as file:
        content = tomllib.load(file)
    for text in (*content["project"]["dependencies"], *content["build-system"]["requires"]):
        requirement = Requirement(text)
        if requirement.name in PACKAGES:
            yield requirement


def _check_ranges(package: str, version: Version) -> None:
    """Check that siblings admit the new version, and that it admits the siblings as they are."""
    for name in PACKAGES:
        for requirement in _ranges(name):
            below = version if requirement.name == package else _version(requirement.name)
            if package in (name, requirement.name) and below not in requirement.specifier:
                raise Refusal(
                    f"{name} requires {requirement}, which does not admit {requirement.name} {below}: change that first"
                )


@contextmanager
def _worktree(scratch: Path) -> Iterator[Path]:
    folder = scratch / "worktree"
    _run("git", "worktree", "add", "--quiet", "--detach", folder, "HEAD")
    try:
        yield folder
    finally:
        _run("git", "worktree", "remove", "--force", folder)


def _commit(root: Path, package: str, version: Version) -> str:
    """Set the version, collect the fragments, commit, and return the commit."""
    path = _version_file(root, package)
    path.write_text(_VERSION.sub(f'__version__ = "{version}"', path.read_text(encoding="utf-8")), encoding="utf-8")
    _python("-m", "towncrier", "build", "--yes", "--dir", f"packages/{package}", "--version", str(version), cwd=root)
    _run("git", "add", f"packages/{package}", cwd=root)
    _run("git", "commit", "--quiet", "--message", f"{package} {version}", cwd=root)
    return _run("git", "rev-parse", "HEAD", cwd=root).strip()


def _build(root: Path, package: str, folder: Path) -> list[Path]:
    """Build sdist and wheel of the commit, check them, and use the wheel once; return the two."""
    time = _run("git", "log", "-1", "--format=%ct", cwd=root).strip()
    arguments = ("--no-isolation", "--outdir", folder, f"packages/{package}")
    _python("-m", "build", *arguments, cwd=root, SOURCE_DATE_EPOCH=time)
    _python("tools/check_dists.py", folder, package, cwd=root)
    files = sorted(folder.iterdir())
    _python("-m", "twine", "check", "--strict", *files, cwd=root)
    site = folder.parent / "site"
    wheel = next(path for path in files if path.suffix == ".whl")
    _python("-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", site, wheel, cwd=root)
    # Before the environment's own, which has the siblings: at the versions that are now in the checkout.
    said = _python("tools/smoke.py", package, cwd=root, PYTHONPATH=str(site))
    if f" {wheel.name.split('-')[1]}: " not in said:
        raise Refusal(f"another version than that of {wheel.name} was tried: {said.strip()}")
    _say(said.strip())
    return files


def _release(package: str, wanted: str | None, *, dry_run: bool) -> None:
    version = _choose_version(package, wanted)
    _check_clean()
    count = _check_fragments(package)
    _check_ranges(package, version)
    tag = f"{package}-v{version}"
    _say(f"{package} {version}, from {count} fragments of the changelog")
    with tempfile.TemporaryDirectory(prefix="release-") as temporary, _worktree(Path(temporary)) as root:
        commit = _commit(root, package, version)
        _say(_run("git", "show", "--stat=100", "--format=%h %s", commit, cwd=root).rstrip())
        files = _build(root, package, Path(temporary) / "dist")
        _say(f"built and checked {' and '.join(path.name for path in files)}")
        if dry_run:
            _say(f"dry run: neither the commit nor the tag {tag} was kept")
            return
        target = ROOT / "dist" / tag
        target.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copy2(path, target)
    _run("git", "merge", "--quiet", "--ff-only", commit)
    _run("git", "tag", "--annotate", tag, "--message", f"{package} {version}", commit)
    _say(f"tagged {tag}; to publish: git push --follow-tags, and twine upload {target.relative_to(ROOT)}/*")


def main(arguments: Sequence[str]) -> int:
    """Release the package that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="release", description="Release one package; see the top of this file.")
    parser.add_argument("package", choices=PACKAGES)
    parser.add_argument("--to", metavar="X.Y.Z", help="the version; by default the current one or the next micro")
    parser.add_argument("--dry-run", action="store_true", help="do all of it, and keep nothing")
    options = parser.parse_args(arguments)
    try:
        _release(options.package, options.to, dry_run=options.dry_run)
    except Refusal as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
