"""For packages that put native code inside the turn: the address of the C interface, and the check that it fits.

A shim above evloop gets the table ``struct ev_capi`` of ``evloop.h`` once, at import::

    from evloop import native
    native.link("evnet", __version__, lib.evnet_link(native.capi_address()), "evloop", evloop.__version__)

where ``evnet_link`` returns 0 when it can use the table, else the two numbers of the interface it was built for and of the one
it was given, packed by ``EV_LINK_MISMATCH``.
"""

from __future__ import annotations

from evloop._shim import ffi, lib

__all__ = ["capi_address", "link"]


def capi_address() -> int:
    """The address of this process's ``const struct ev_capi``. It stays valid."""
    return int(ffi.cast("uintptr_t", lib.ev_capi()))


def link(package: str, version: str, mismatch: int, below: str, below_version: str) -> None:
    """Raise the ImportError that a refused C interface deserves; return when there is nothing to complain of.

    Args:
        package: The importing distribution.
        version: Its version.
        mismatch: What its shim's link function returned: 0, or the packed numbers.
        below: The distribution whose C interface was offered.
        below_version: Its version.

    Raises:
        ImportError: It names both versions and the command that mends the installation.
    """
    if mismatch == 0:
        return
    wanted = f"{mismatch >> 48 & 0xFFFF}.{mismatch >> 32 & 0xFFFF}"
    offered = f"{mismatch >> 16 & 0xFFFF}.{mismatch & 0xFFFF}"
    # With a version, which says which of the others fit: the public index has strangers' old projects by some of these names.
    pair = f"{below} '{package}>={version.partition('.')[0]}.0'"
    raise ImportError(
        f"{package} {version} was built for C interface {wanted} of {below}, but {below} {below_version} offers {offered}; "
        f"install a matching pair: pip install --force-reinstall {pair}"
    )
