"""No sibling may come from an index, where other people's projects have some of our names."""

import importlib.util
import os
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("evloop", "evnet", "evhttp", "evws", "evmulti")
WHEELS = Path(os.environ.get("EV_WHEELS", ROOT / "build" / "wheels"))


@pytest.fixture(scope="module")
def provenance() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_provenance", ROOT / "tools" / "provenance.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def from_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a distribution before the others that looks as pip leaves one that it took from an index."""
    folder = tmp_path / "evnet-1.0.post4.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: evnet\nVersion: 1.0.post4\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return "evnet"


def test_every_sibling_was_installed_from_a_wheel_built_here(provenance: ModuleType) -> None:
    assert provenance.problems(PACKAGES, wheels=WHEELS) == []


def test_a_sibling_from_an_index_is_found_out(provenance: ModuleType, from_index: str) -> None:
    found = provenance.problems(PACKAGES, wheels=WHEELS)
    assert found == ["evnet 1.0.post4 was taken from an index, not from this checkout"]


def test_a_wheel_that_was_not_built_here_is_found_out(provenance: ModuleType, tmp_path: Path) -> None:
    found = provenance.problems(PACKAGES, wheels=tmp_path)
    assert [line.split()[0] for line in found] == list(PACKAGES)
    assert all("not a wheel built here" in line for line in found)


def test_a_package_above_the_one_under_test_is_found_out(provenance: ModuleType) -> None:
    found = provenance.problems(PACKAGES[:-1], wheels=WHEELS)
    assert found == ["evmulti is installed and should not be: it is above the package under test"]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_sibling_range_admits_a_stranger_s_release(name: str) -> None:
    siblings = [text for text in metadata.requires(name) or () if text.startswith(PACKAGES)]
    assert all(">=2.0" in text for text in siblings), siblings
