"""Content-Disposition (RFC 6266): the name under which a client is to save what it gets."""

from __future__ import annotations

import re
from urllib.parse import quote

__all__ = ["attachment"]

# What a quoted-string may not hold without an escape, or what some client takes for something else: a percent sign is decoded by
# some, at a slash or backslash others cut (RFC 6266 §4.3).
_PLAIN = re.compile(r"[^ !#$&-.0-\[\]-~]")
# RFC 8187 §3.2.1 attr-char, without letters and digits, which quote() leaves as they are.
_ATTR_CHAR = "!#$&+-.^_`|~"


def attachment(name: str) -> str:
    """The field's value for a file of this name, in ASCII: for clients that know RFC 8187 exactly, for others nearly.

    Of a path the last part is taken; surrogates, as `os.fsdecode` makes of bytes that are no text, become question marks.

    Raises:
        ValueError: The name is empty, ``"."`` or ``".."``.
    """
    name = re.split(r"[/\\]", name)[-1]
    if name in ("", ".", ".."):
        raise ValueError(f"a file name was expected, not {name!r}")
    plain = _PLAIN.sub("_", name)
    text = f'attachment; filename="{plain}"'
    return text if plain == name else f"{text}; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR, errors='replace')}"
