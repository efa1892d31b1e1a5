"""Connects this package's shim with those below it, once, before anything else is imported."""

from __future__ import annotations

import evhttp
import evloop
import evnet
from evloop import native
from evws._shim import lib
from evws._version import __version__

__all__: list[str] = []

native.link("evws", __version__, lib.evws_link_loop(native.capi_address()), "evloop", evloop.__version__)
native.link("evws", __version__, lib.evws_link_net(evnet.capi_address()), "evnet", evnet.__version__)
native.link("evws", __version__, lib.evws_link_http(evhttp.capi_address()), "evhttp", evhttp.__version__)
