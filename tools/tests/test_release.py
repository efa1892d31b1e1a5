"""A release in a repository of its own, which holds a copy of this checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# Without C files, so that nothing is compiled.
PACKAGE = "evmulti"


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "a change")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for name in git(ROOT, "ls-files", "packages", "tools", ".gitignore", "LICENSE").splitlines():
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    git(root, "init", "--quiet")
    git(root, "config", "user.name", "A Releaser")
    git(root, "config", "user.email", "releaser@example.org")
    (root / "packages" / PACKAGE / "changelog.d" / "8.feature.md").write_text("Something that a user sees.\n")
    commit(root)
    return root


def release(root: Path, *arguments: str, refused: bool = False) -> str:
    command = [sys.executable, "tools/release.py", *arguments]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=50)
    assert (result.returncode != 0) is refused, result.stdout + result.stderr
    if refused:
        assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr if refused else result.stdout


def state(root: Path) -> tuple[str, ...]:
    return (
        git(root, "rev-parse", "HEAD"),
        git(root, "tag"),
        git(root, "worktree", "list"),
        git(root, "status", "--short"),
    )


def test_a_dry_run_does_everything_and_keeps_nothing(checkout: Path) -> None:
    before = state(checkout)
    said = release(checkout, PACKAGE, "--to", "2.0.7", "--dry-run")
    assert f"smoke: {PACKAGE} 2.0.7: " in said
    assert f"built and checked {PACKAGE}-2.0.7-py3-none-any.whl and {PACKAGE}-2.0.7.tar.gz" in said
    assert f"the tag {PACKAGE}-v2.0.7 was" in said
    assert state(checkout) == before
    assert not (checkout / "dist").exists()


def test_a_release_is_a_commit_a_tag_and_two_files(checkout: Path) -> None:
    fragments = checkout / "packages" / PACKAGE / "changelog.d"
    release(checkout, PACKAGE)
    assert git(checkout, "tag") == f"{PACKAGE}-v2.0.0"
    assert git(checkout, "rev-parse", f"{PACKAGE}-v2.0.0^{{commit}}") == git(checkout, "rev-parse", "HEAD")
    assert git(checkout, "log", "-1", "--format=%s") == f"{PACKAGE} 2.0.0"
    assert sorted(path.name for path in (checkout / "dist" / f"{PACKAGE}-v2.0.0").iterdir()) == [
        f"{PACKAGE}-2.0.0-py3-none-any.whl",
        f"{PACKAGE}-2.0.0.tar.gz",
    ]
    changes = (checkout / "packages" / PACKAGE / "CHANGELOG.md").read_text()
    assert "## 2.0.0 (" in changes
    assert "Something that a user sees." in changes
    assert not list(fragments.glob("*.md"))
    # What was released once is not again, and with nothing new neither is the next version.
    assert "has been released already" in release(checkout, PACKAGE, "--to", "2.0.0", refused=True)
    assert "has no fragment in changelog.d" in release(checkout, PACKAGE, refused=True)
    fragments.mkdir(exist_ok=True)
    (fragments / "9.bugfix.md").write_text("And another.\n")
    commit(checkout)
    assert f"{PACKAGE} 2.0.1, from 1 fragments" in release(checkout, PACKAGE, "--dry-run")


def test_an_unclean_checkout_is_refused(checkout: Path) -> None:
    (checkout / "packages" / "stray.txt").write_text("")
    assert "1 changes that are not committed, the first is ?? packages/stray.txt" in release(
        checkout, PACKAGE, refused=True
    )


def test_a_fragment_of_no_kind_is_refused(checkout: Path) -> None:
    (checkout / "packages" / PACKAGE / "changelog.d" / "8.featur.md").write_text("")
    commit(checkout)
    assert "changelog.d/8.featur.md is of no kind" in release(checkout, PACKAGE, refused=True)


def test_a_version_outside_a_sibling_s_range_is_refused(checkout: Path) -> None:
    said = release(checkout, "evloop", "--to", "2.1.0", refused=True)
    assert "evnet requires evloop<2.1,>=2.0, which does not admit evloop 2.1.0" in said


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        pytest.param("1.9.9", "is at 2.0.0, which is newer than 1.9.9", id="older"),
        pytest.param("2.0", "expected a version of three numbers", id="two-numbers"),
        pytest.param("two", "is no version", id="none"),
    ],
)
def test_a_version_that_cannot_be_next_is_refused(checkout: Path, wanted: str, message: str) -> None:
    assert message in release(checkout, PACKAGE, "--to", wanted, refused=True)
