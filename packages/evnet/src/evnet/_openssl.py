"""OpenSSL for the turn: the address of the ``SSL`` behind an `ssl.SSLObject`, if it can be had safely.

The C side calls the library that Python's ``ssl`` module has loaded (`tls_openssl.c`). Where the pointers lie in CPython's objects
is part of no interface, so it is proved once, on objects made for that, before it is relied on; who fails the proof gets TLS by way
of Python.
"""

from __future__ import annotations

import logging
import os
import ssl
import sys
import sysconfig
from functools import cache
from typing import Any

from evnet._shim import ffi, lib

__all__ = ["FUNCTIONS", "engine_name", "openssl_usable", "pointer_of"]

logger = logging.getLogger("evnet")

# In the order of the structure in tls_openssl.c.
FUNCTIONS = (
    "SSL_read_ex",
    "SSL_write_ex",
    "SSL_shutdown",
    "SSL_get_error",
    "SSL_want",
    "SSL_get_shutdown",
    "SSL_free_buffers",
    "SSL_get_rbio",
    "SSL_set_bio",
    "BIO_get_new_index",
    "BIO_meth_new",
    "BIO_meth_set_read",
    "BIO_meth_set_write",
    "BIO_meth_set_ctrl",
    "BIO_new",
    "BIO_set_data",
    "BIO_get_data",
    "BIO_set_init",
    "BIO_set_flags",
    "BIO_clear_flags",
    "BIO_read",
    "ERR_clear_error",
    "ERR_peek_last_error",
    "ERR_reason_error_string",
    "ERR_lib_error_string",
)

# Of CPython's Modules/_ssl.c, in machine words behind the head of an object: PySSLSocket begins with Socket, ssl, ctx; PySSLContext
# with ctx; PySSLMemoryBIO with bio.
_WORD = 8
_HEAD = 2 * _WORD
_SOCKET, _SSL, _OWN_CONTEXT = 0, 1, 2
_FIRST = 0

_CHOICES = ("", "openssl", "portable")


def engine_name() -> str:
    """What ``EVNET_TLS`` asks for, or ``"openssl"`` if that can be used, else ``"portable"``.

    Raises:
        ValueError: It asks for something that is not there.
    """
    asked = os.environ.get("EVNET_TLS", "")
    if asked not in _CHOICES:
        raise ValueError(f"EVNET_TLS must be openssl or portable, not {asked!r}")
    if asked == "portable":
        return asked
    if openssl_usable():
        return "openssl"
    if asked:
        raise ValueError("EVNET_TLS is openssl, but this Python's ssl module cannot be used from C")
    return "portable"


def pointer_of(sslobject: ssl.SSLObject) -> int:
    """The address of its ``SSL``, which is valid for as long as the object lives; 0 if TLS has to go by way of Python."""
    import _ssl

    raw = getattr(sslobject, "_sslobj", None)
    if type(raw) is not _ssl._SSLSocket or engine_name() != "openssl":  # type: ignore[attr-defined]
        return 0
    return 0 if _word(raw, _SOCKET) else _word(raw, _SSL)


@cache
def openssl_usable() -> bool:
    """Whether the objects of this Python are laid out as expected, and OpenSSL's functions are there. Looks once."""
    if (
        sys.implementation.name != "cpython"
        or object.__basicsize__ != _HEAD
        or hasattr(sys, "gettotalrefcount")
        or sysconfig.get_config_var("Py_GIL_DISABLED")
        or ssl.OPENSSL_VERSION_INFO < (1, 1, 1)
    ):
        return False
    try:
        addresses = _proved_addresses()
    except (ImportError, OSError, AttributeError) as error:
        logger.debug("TLS goes by way of Python: %s", error)
        return False
    return addresses is not None and lib.evnet_openssl(ffi.new("uint64_t[]", addresses), len(addresses)) == 0


def _proved_addresses() -> list[int] | None:
    import _ssl
    import ctypes

    library = ctypes.CDLL(getattr(_ssl, "__file__", None))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    raw: Any = context.wrap_bio(incoming, outgoing, server_hostname="localhost")._sslobj  # type: ignore[attr-defined]
    if type(raw) is not _ssl._SSLSocket or raw.__sizeof__() < _HEAD + 3 * _WORD:  # type: ignore[attr-defined]
        return None
    # What is compared first makes it safe to follow the pointer that is compared last.
    if _word(raw, _SOCKET) != 0 or _word(raw, _OWN_CONTEXT) != id(context) or not _word(raw, _SSL):
        return None
    for name, owner in (("SSL_get_SSL_CTX", context), ("SSL_get_rbio", incoming), ("SSL_get_wbio", outgoing)):
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_size_t
        if function(_word(raw, _SSL)) != _word(owner, _FIRST):
            return None
    return [ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in FUNCTIONS]


def _word(owner: object, index: int) -> int:
    return int(ffi.cast("uint64_t *", id(owner) + _HEAD)[index])
