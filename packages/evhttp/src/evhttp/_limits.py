"""What a client may ask of a server."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

__all__ = ["Limits"]

# The arena holds a request's offsets in 16 bits where they are read most; see request.c.
_MOST = {"max_request_line": 60_000, "max_header_section": 4_000_000, "max_headers": 256, "max_pipeline": 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on requests and on patience. Sizes are bytes, times are seconds, and each is exact: n passes, n + 1 does not.

    Attributes:
        max_request_line: Method, target and version together. Beyond: 414.
        max_header_section: All header lines together. Beyond: 431.
        max_headers: Header lines. Beyond: 431.
        max_body_size: The request body. Beyond: 413.
        max_chunk_line: One chunk's size line with its extensions. Beyond: 400.
        max_trailers: The trailer section of a chunked body. Beyond: 431.
        max_pipeline: Requests of one connection that may wait for their answers; further ones are left in the kernel.
        max_connections: Connections at a time, of all listeners together; ``math.inf``: any number. Those above wait in the
            kernel's queue until one ends, or, with ``refuse_connections``, are reset.
        max_handshakes: Of those, how many may be new: not upgraded (RFC 9110 §7.8), for instance to WebSocket. Those whose TLS
            handshake is under way count, and so do clients that just speak HTTP. ``math.inf``: any number. Those above wait or are
            reset, as with ``max_connections``.
        max_queued_size: Answers, files not counted, that may wait in memory for one client when more is written to it. Beyond: the
            connection is aborted, as ``"too_much_queued"``. ``math.inf``: any size, for handlers that stop when `Response.write`
            returns false.
        max_requests: Requests on one connection, which ends with the answer to the last; ``math.inf``: any number.
        head_timeout: From a request's first byte (on a new connection: from its beginning) to the end of its head. Beyond: 408. A
            TLS handshake has the same time, of its own (60 s if there is none); beyond, the client is hung up on.
        body_timeout: For the whole body. Beyond: 408.
        idle_timeout: Between two requests. Beyond: the connection is closed.
        answer_timeout: From when a request is told of, and those before it are answered, to the end of its answer. Beyond: 503,
            or, if the answer has begun, the connection is aborted; what the handler still says is dropped.
        write_timeout: While the client takes nothing of what is sent. Beyond: the connection is aborted.

    A timeout of ``math.inf`` means none.

    Raises:
        ValueError: A bound is not a positive number, or beyond what is supported; the message names it.
    """

    max_request_line: int = 8192
    max_header_section: int = 32768
    max_headers: int = 100
    max_body_size: int = 1_048_576
    max_chunk_line: int = 1024
    max_trailers: int = 8192
    max_pipeline: int = 64
    max_connections: float = math.inf
    max_handshakes: float = math.inf
    refuse_connections: bool = False
    max_queued_size: float = math.inf
    max_requests: float = math.inf
    head_timeout: float = 10.0
    body_timeout: float = 60.0
    idle_timeout: float = 75.0
    answer_timeout: float = math.inf
    write_timeout: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("max_body_size", "max_trailers") else 1
            most = _MOST.get(field.name, 0x7FFF_FFFF)
            if field.name.endswith("_timeout"):
                if not value > 0:
                    raise ValueError(f"{field.name} must be a number of seconds > 0, not {value!r}")
            elif field.name == "refuse_connections":
                if not isinstance(value, bool):
                    raise ValueError(f"refuse_connections must be True or False, not {value!r}")
            elif field.default == math.inf and value == math.inf:
                continue
            elif not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{field.name} must be an integer from {least} to {most}, not {value!r}")

    def for_shim(self) -> dict[str, int]:
        """The members of ``struct evh_limits``."""
        return {
            "max_request_line": self.max_request_line,
            "max_header_section": self.max_header_section,
            "max_headers": self.max_headers,
            "max_body": self.max_body_size,
            "max_chunk_ext": self.max_chunk_line,
            "max_trailers": self.max_trailers,
        }

    def milliseconds(self, name: str) -> int:
        """A timeout as the shim takes it: whole milliseconds, 0 for none."""
        value: float = getattr(self, name)
        return 0 if value == math.inf else math.ceil(min(value * 1000, 0xFFFF_FFFF))
