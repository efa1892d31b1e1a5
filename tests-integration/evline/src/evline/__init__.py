"""A line protocol inside the turn of the loop. See `Server`."""

from __future__ import annotations

from evline import _link as _link
from evline._server import Server
from evline._version import __version__

__all__ = ["Server", "__version__"]
