"""Sockets that the service manager has opened for us: systemd's protocol for socket activation, sd_listen_fds(3)."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import NamedTuple

__all__ = ["ListenFd", "listen_fds"]

_FIRST = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class ListenFd(NamedTuple):
    """A descriptor that was passed to us, and its name.

    Attributes:
        name: ``FileDescriptorName=`` of the socket unit, by default the unit's name; ``"unknown"`` where the manager gives
            none.
        fd: The descriptor. It is ours to close, which `listen_socket` does in the end.
    """

    name: str
    fd: int


def listen_fds(environment: MutableMapping[str, str] | None = None) -> list[ListenFd]:
    """The descriptors that systemd, or who speaks its protocol, has passed to this process; an empty list if there are none.

    They are taken: a second call finds nothing, and child processes inherit neither them nor the variables.

    Args:
        environment: Where the variables ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES`` are looked for; by default
            `os.environ`.

    Raises:
        ValueError: A variable is not what the protocol says; the message names it.
        OSError: A descriptor is not open.

    Thread safety: at the start of the program, before threads and child processes are started.
    """
    variables = os.environ if environment is None else environment
    process, count, names = (variables.get(each) for each in _VARIABLES[:3])
    if process is None or count is None or _number("LISTEN_PID", process) != os.getpid():
        return []  # meant for nobody, or for the process that has started us
    total = _number("LISTEN_FDS", count)
    labels = names.split(":") if names else ["unknown"] * total
    if len(labels) != total:
        raise ValueError(f"LISTEN_FDNAMES has {len(labels)} names for {total} descriptors")
    found = [ListenFd(label, _FIRST + number) for number, label in enumerate(labels)]
    for each in found:
        try:
            os.set_inheritable(each.fd, False)
        except OSError as error:
            raise OSError(error.errno, f"LISTEN_FDS speaks of descriptor {each.fd}: {error.strerror}") from None
    for variable in _VARIABLES:
        variables.pop(variable, None)
    return found


def _number(variable: str, text: str) -> int:
    # Not more descriptors than a process can have on any system; and int() takes more than digits.
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{variable} must be a number, not {text[:40]!r}")
    return int(text)
