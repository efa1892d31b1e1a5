"""Connects this package's shim with evloop's and evnet's, once, before anything else is imported."""

from __future__ import annotations

import evloop
import evnet
from evhttp._shim import lib
from evhttp._version import __version__
from evloop import native

__all__: list[str] = []

native.link("evhttp", __version__, lib.evhttp_link_loop(native.capi_address()), "evloop", evloop.__version__)
native.link("evhttp", __version__, lib.evhttp_link_net(evnet.capi_address()), "evnet", evnet.__version__)
