"""The public names of evmulti."""

import importlib.metadata

import evmulti


def test_exports() -> None:
    assert evmulti.__all__ == ["__version__"]


def test_version_is_the_distribution_s() -> None:
    assert evmulti.__version__ == importlib.metadata.version("evmulti")
