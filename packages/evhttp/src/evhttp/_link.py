"""Connects this package's shim with evloop's and evnet's, once, before anything else is imported."""

from __future__ import annotations

import evloop
import evnet
from evhttp._shim import ffi, lib
from evhttp._version import __version__
from evloop import native

__all__ = ["capi_address"]

native.link("evhttp", __version__, lib.evhttp_link_loop(native.capi_address()), "evloop", evloop.__version__)
native.link("evhttp", __version__, lib.evhttp_link_net(evnet.capi_address()), "evnet", evnet.__version__)


def capi_address() -> int:
    """The address of this process's ``const struct evh_capi`` (``evhttp.h``), for the shims of the packages above."""
    return int(ffi.cast("uintptr_t", lib.evhttp_capi()))
