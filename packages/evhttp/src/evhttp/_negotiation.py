"""Which content coding a client wants most (RFC 9110 §12.5.3). No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["IDENTITY", "choose_coding"]

IDENTITY = "identity"

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
_ELEMENT = re.compile(
    rf"[ \t]*({_TOKEN})[ \t]*(?:;[ \t]*[qQ]=(0(?:\.[0-9]{{0,3}})?|1(?:\.0{{0,3}})?))?[ \t]*", re.ASCII
)
_MOST = 64  # elements looked at: there are not so many codings


def choose_coding(values: Sequence[str], available: Sequence[str]) -> str:
    """Choose the coding to answer with.

    Args:
        values: Every value of Accept-Encoding.
        available: The codings there are besides identity, in small letters, the best first: it wins where the client does not care.

    Returns:
        One of ``available``, or ``"identity"``. That too where the client wants none of them and no identity either: §12.1 lets a
        server disregard it, and whoever asks so can do nothing with a 406.
    """
    if not values or not available:
        # "If no Accept-Encoding header field is in the request, any content coding is considered acceptable by the user agent."
        # But such a client most likely knows none.
        return IDENTITY
    weights = _weights(",".join(values))
    rest = weights.get("*", 0)
    # "If the representation has no content coding, then it is acceptable by default unless specifically excluded": after all
    # that are asked for.
    best, best_weight = IDENTITY, weights.get(IDENTITY, rest)
    for coding in reversed(available):
        weight = weights.get(coding, rest)
        if weight and weight >= best_weight:
            best, best_weight = coding, weight
    return best


def _weights(text: str) -> dict[str, int]:
    """Each coding's weight in thousandths. What is no element is left out, alone."""
    weights: dict[str, int] = {}
    for element in text.split(",", _MOST)[:_MOST]:
        found = _ELEMENT.fullmatch(element)
        if found:
            coding, quality = found[1].lower(), found[2] or "1"
            # §8.4.1.3: "A recipient SHOULD consider "x-gzip" to be equivalent to "gzip"."
            weights.setdefault("gzip" if coding == "x-gzip" else coding, round(float(quality) * 1000))
    return weights
