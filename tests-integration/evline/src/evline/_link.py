"""Connects this package's shim with evloop's and evnet's, once, before anything else is imported."""

from __future__ import annotations

import evloop
import evnet
from evline._shim import lib
from evline._version import __version__
from evloop import native

__all__: list[str] = []

# Each table comes as an address; the shim looks at its version before it touches anything else, and link raises ImportError.
native.link("evline", __version__, lib.evline_link_loop(native.capi_address()), "evloop", evloop.__version__)
native.link("evline", __version__, lib.evline_link_net(evnet.capi_address()), "evnet", evnet.__version__)
