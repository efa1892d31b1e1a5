"""The Python side: records in, submissions out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from struct import Struct

import evnet
from evline._shim import ffi, lib
from evloop import Loop, Record

__all__ = ["Server"]

# What stands before the token and the payload of a submission (evloop.h): length of the payload, operation | module << 8, arg.
_HEAD = Struct("<IHH")
_OP_ANSWER, _OP_ABORT = 1, 2  # shim.h


class Server:
    """Answers lines with lines. What a client sends last, without the end of a line, is not answered.

    Args:
        loop: The loop to serve on.
        handler: Called as ``handler(line)`` with the bytes of each line, without its end (``LF`` or ``CR LF``). What it returns is
            the answer; an exception goes to the loop's exception handler, and the client is reset.
        host: A name or address that stands for one address.
        port: 0 lets the system choose.
        max_line: Bytes of a line without its end. Beyond: one line that says so, and the end of the connection.
        timeout: Seconds for a line, from the end of the one before, however many bytes trickle in meanwhile; also how long a
            client may take nothing of its answers.

    Raises:
        OSError: The address cannot be bound.
        ValueError: A number is out of its range, or the name stands for several addresses.

    Thread safety: loop thread only.
    """

    __slots__ = ("_handler", "_loop", "_module", "_ptr", "_socket", "_target")

    def __init__(
        self,
        loop: Loop,
        handler: Callable[[bytes], bytes],
        host: str,
        port: int,
        *,
        max_line: int = 8192,
        timeout: float = 60.0,
    ) -> None:
        # evnet keeps at most 4 MiB of what a protocol has not consumed, and our own check has to come first.
        if not 1 <= max_line <= 1 << 20:
            raise ValueError(f"max_line must be from 1 to {1 << 20}, not {max_line!r}")
        if not 0 < timeout <= 1e6:
            raise ValueError(f"timeout must be a number of seconds > 0 and <= 1,000,000, not {timeout!r}")
        self._loop = loop
        self._handler = handler
        self._module = _checked(lib.evline_module(loop.address))
        sockets = evnet.bind_tcp(host, port)
        self._socket = sockets[0]
        self._target = loop.add_target(self._line)
        try:
            if len(sockets) != 1:
                raise ValueError(f"{host!r} stands for {len(sockets)} addresses, expected one")
            options = {"target": self._target, "max_line": max_line, "timeout_ms": math.ceil(timeout * 1000)}
            out = ffi.new("struct line_server **")
            _checked(
                lib.evline_open(loop.address, self._socket.fileno(), ffi.new("struct line_options *", options), out)
            )
        except BaseException:
            loop.drop_target(self._target)
            for sock in sockets:
                sock.close()
            raise
        self._ptr = out[0]
        loop.on_close(self._loop_closes)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, the real one where 0 was asked for. OSError when the server is closed."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return 0 if self._loop.is_closed() else lib.evline_connections(self._ptr)

    def close(self) -> None:
        """Stop listening. Clients get the answers that they wait for, then their connections end."""
        if self._loop.is_closed():
            return
        lib.evline_close(self._ptr)
        self._socket.close()
        self._loop.remove_on_close(self._loop_closes)
        # C hangs up inside a turn, and a host that this loop may be attached to has to know that there is one. The target stays:
        # the batch may speak of lines that are still to be answered.
        self._loop.call_soon(_nothing)

    def _loop_closes(self) -> None:
        # C closes its side after this, with the loop; the descriptor is ours.
        self._socket.close()

    def _line(self, record: Record) -> None:
        """Answer one line. The loop calls this for each record with our target."""
        _, offset, length, token = record
        loop = self._loop
        try:
            answer = self._handler(loop.arena[offset : offset + length])
            loop.submissions.append(_HEAD.pack(len(answer), _OP_ANSWER | self._module << 8, 0) + token + answer)
        except BaseException:
            loop.submissions.append(_HEAD.pack(0, _OP_ABORT | self._module << 8, 0) + token)
            raise


def _nothing() -> None:
    pass


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, f"cannot serve lines: {os.strerror(-result)}")
    return result
