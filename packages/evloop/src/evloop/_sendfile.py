"""sendfile(2) where the kernel has it for these descriptors, and a copy with the same results where not."""

from __future__ import annotations

import errno

from evloop._errors import check
from evloop._shim import lib

__all__ = ["sendfile"]

_OFF_MAX = 2**63 - 1


def sendfile(out_fd: int, in_fd: int, offset: int, count: int) -> int:
    """Send part of a file to a descriptor, in the kernel where it can.

    The position of ``in_fd`` is neither used nor moved. Where the kernel refuses the pair (for example a pipe or a file as
    ``out_fd`` on macOS and FreeBSD, one opened with ``O_APPEND`` on Linux), the bytes are copied through a small buffer.

    Args:
        out_fd: A socket, pipe or file open for writing.
        in_fd: A file open for reading, of a kind that has positions.
        offset: First byte to send.
        count: Bytes to send at most. How many go in one call is the kernel's choice: call again with what is left.

    Returns:
        The bytes sent; 0 at the end of the file.

    Raises:
        BlockingIOError: ``out_fd`` is non-blocking and takes nothing now.
        ValueError: ``offset`` or ``count`` is negative, or beyond what a file can have.
        OSError: What the kernel has against it. What was sent before an error is returned; the error comes with the next call.

    A signal that comes before anything was sent runs its Python handler and the call goes on (PEP 475). The GIL is released.

    Thread safety: any thread.
    """
    for name, value in (("offset", offset), ("count", count)):
        if not 0 <= value <= _OFF_MAX:
            raise ValueError(f"{name} must be a number of bytes from 0 to 2**63 - 1, not {value!r}")
    while (sent := lib.ev_sendfile(out_fd, in_fd, offset, count)) == -errno.EINTR:
        pass  # Python runs the signal's handler here; when that raises, so does this
    return check(sent, f"sendfile from fd {in_fd} to fd {out_fd}")
