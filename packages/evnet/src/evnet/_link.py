"""Connects this package's shim with evloop's, once, before anything else is imported."""

from __future__ import annotations

import evloop
from evloop import native
from evnet._shim import ffi, lib
from evnet._version import __version__

__all__ = ["capi_address"]

native.link("evnet", __version__, lib.evnet_link(native.capi_address()), "evloop", evloop.__version__)


def capi_address() -> int:
    """The address of this process's ``const struct net_capi`` (``evnet.h``), for the shims of the packages above."""
    return int(ffi.cast("uintptr_t", lib.evnet_capi()))
