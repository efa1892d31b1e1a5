"""The public names of evws."""

import importlib.metadata

import evws


def test_exports() -> None:
    assert evws.__all__ == ["__version__"]


def test_version_is_the_distribution_s() -> None:
    assert evws.__version__ == importlib.metadata.version("evws")
