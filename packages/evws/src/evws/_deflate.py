"""Compressing and decompressing messages (RFC 7692 §7.2) with zlib, or what ``evws[speed]`` has installed in its place."""

from __future__ import annotations

import importlib
import threading
import zlib
from typing import Any, Literal

from evws._errors import PeerError
from evws._extensions import Agreed, Deflate
from evws._frames import Buffer, CloseCode

__all__ = ["Codec", "implementation"]

_TAIL = 4  # 00 00 FF FF, what a flush ends with: RFC 7692 §7.2.1 takes it away, §7.2.2 puts it back, which C does (message.c)
_FINAL_MOST = 8  # blocks with BFINAL in a message; each makes a decompressor begin anew
_SMALLEST_WINDOW = 9

# Best first; both have zlib's interface. isal, the other fast one, takes 180 KB for every compressor, was slower to decompress than
# zlib for small messages and than zlib-ng for all, and looks back further than 256 bytes with its smallest window.
_MODULES = ("zlib_ng.zlib_ng", "zlib")


def _load() -> tuple[str, Any]:
    for name in _MODULES:
        try:
            return name, importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError("this Python has no zlib")


implementation, _zlib = _load()
_error: tuple[type[Exception], ...] = (zlib.error, _zlib.error)
_shared = threading.local()


class Codec:
    """Both directions of one connection. What it needs is made when the first message comes or goes.

    Args:
        options: Ours.
        agreed: What the handshake has made of them.
        role: Which side we are.
        messages_alone: Compress each message by itself even if the peer would remember the last.

    Attributes:
        threshold: Messages of fewer bytes are not to be compressed. At least 1.

    Thread safety: one thread.
    """

    __slots__ = (
        "_compressor",
        "_decompressor",
        "_in_bits",
        "_in_fresh",
        "_options",
        "_out_bits",
        "_out_fresh",
        "threshold",
    )

    def __init__(
        self, options: Deflate, agreed: Agreed, role: Literal["server", "client"], *, messages_alone: bool = False
    ) -> None:
        sides = (
            (agreed.server_max_window_bits, agreed.server_no_context_takeover),
            (agreed.client_max_window_bits, agreed.client_no_context_takeover),
        )
        (out_bits, self._out_fresh), (in_bits, self._in_fresh) = sides if role == "server" else sides[::-1]
        # zlib cannot compress to a window of 2**8 bytes; with one of 2**9 it looks back 250 bytes at most (its MAX_DIST), which
        # every receiver with a window of 2**8 has.
        self._out_bits = max(out_bits, _SMALLEST_WINDOW)
        self._in_bits = in_bits
        self._out_fresh = self._out_fresh or messages_alone
        self.threshold: int = max(options.threshold, 1)
        self._options = options
        self._compressor: Any = None
        self._decompressor: Any = None

    @property
    def shared_by(self) -> tuple[int, int, int] | None:
        """What a message compressed here can also be sent with: connections that have the same. ``None``: no other."""
        return (self._out_bits, self._options.level, self._options.memory_level) if self._out_fresh else None

    def deflate(self, data: bytes) -> bytes | None:
        """Compress a message that is not empty; ``None`` where that would not make it smaller."""
        if self._out_fresh:
            # A full flush forgets what came before it, so the next message may be another connection's.
            compressor = self._shared_compressor()
            out = compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH)
            return out[:-_TAIL] if len(out) - _TAIL < len(data) else None
        compressor = self._compressor
        if compressor is None:
            compressor = self._compressor = self._new_compressor()
        # It has to go even if it has grown: the compressor may refer to it from now on.
        out = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return out[:-_TAIL]  # type: ignore[no-any-return]

    def inflate(self, data: Buffer, most: int) -> bytes:
        """Decompress a message of at most ``most`` bytes.

        Args:
            data: What came, with the four bytes behind it that its sender has left out.
            most: Never more than one byte more than this is decompressed.

        Raises:
            PeerError: It is longer (1009), or it is not compressed data (1007).
        """
        decompressor = self._decompressor or _zlib.decompressobj(-self._in_bits)
        try:
            out: bytes = decompressor.decompress(data, most + 1)
            if decompressor.eof:
                out, decompressor = self._begin_anew(decompressor, out, most)
        except _error:
            raise PeerError(CloseCode.INVALID_DATA, "message is not compressed as agreed") from None
        if len(out) > most:
            raise PeerError(CloseCode.MESSAGE_TOO_BIG, "decompressed message larger than the limit")
        if not self._in_fresh:
            self._decompressor = decompressor
        return out

    def _begin_anew(self, decompressor: Any, out: bytes, most: int) -> tuple[bytes, Any]:
        """§7.2.3.4: a block with BFINAL ends a stream of DEFLATE, but not the message; another stream follows."""
        for _ in range(_FINAL_MOST + 1):
            if not decompressor.eof or len(out) > most:
                return out, decompressor
            rest = decompressor.unused_data
            decompressor = _zlib.decompressobj(-self._in_bits)
            out += decompressor.decompress(rest, most + 1 - len(out))
        raise PeerError(CloseCode.INVALID_DATA, f"message with more than {_FINAL_MOST} final blocks")

    def _new_compressor(self) -> Any:
        return _zlib.compressobj(self._options.level, zlib.DEFLATED, -self._out_bits, self._options.memory_level)

    def _shared_compressor(self) -> Any:
        kept: dict[tuple[int, int, int], Any] | None = getattr(_shared, "compressors", None)
        if kept is None:
            kept = _shared.compressors = {}
        key = (self._out_bits, self._options.level, self._options.memory_level)
        compressor = kept.get(key)
        if compressor is None:
            compressor = kept[key] = self._new_compressor()
        return compressor
