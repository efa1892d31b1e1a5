"""The media type of a file, by its name."""

from __future__ import annotations

import mimetypes

__all__ = ["media_type"]

# What the table of the oldest Python lacks or has differently, and files that are compressed: these are sent as what they are, not
# as what would come out of them.
_MORE = {
    ".7z": "application/x-7z-compressed",
    ".br": "application/x-brotli",
    ".bz2": "application/x-bzip2",
    ".cfg": "text/plain",
    ".epub": "application/epub+zip",
    ".flac": "audio/flac",
    ".gz": "application/gzip",
    ".ini": "text/plain",
    ".js": "text/javascript",  # RFC 9239
    ".log": "text/plain",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".mkv": "video/x-matroska",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".otf": "font/otf",
    ".rst": "text/plain",
    ".svgz": "application/gzip",
    ".tgz": "application/gzip",
    ".toml": "application/toml",
    ".ttf": "font/ttf",
    ".weba": "audio/webm",
    ".webp": "image/webp",
    ".whl": "application/zip",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xz": "application/x-xz",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zst": "application/zstd",
}
_TEXT = ("application/json", "application/manifest+json", "application/toml", "application/yaml")


def _with_charset(kind: str) -> str:
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind in _TEXT else kind


# An instance of its own, because the module's own table has what the machine's mime.types says: an answer must not depend on that.
_TYPES = {
    suffix.encode(): _with_charset(kind) for suffix, kind in (mimetypes.MimeTypes().types_map[True] | _MORE).items()
}


def media_type(name: bytes) -> str:
    """The media type of a file of this name, with ``charset=utf-8`` where it is text."""
    dot = name.rfind(b".")
    return _TYPES.get(name[dot:].lower(), "application/octet-stream") if dot > 0 else "application/octet-stream"
