"""WebSocket on evhttp. So far there is a version number and nothing else."""

from ._version import __version__

__all__ = ["__version__"]
