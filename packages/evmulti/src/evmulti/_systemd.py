"""What we tell the service manager: systemd's protocol for notifications, sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from evmulti._log import Log

__all__ = ["Notifier"]


class Notifier:
    """Tells the manager of services, if there is one, how we are.

    Args:
        environment: Where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are looked for; by default `os.environ`.
        log: Where it says that the manager does not hear.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, *, log: Log | None = None) -> None:
        self._log = log or Log("evmulti")
        variables = os.environ if environment is None else environment
        path = variables.get("NOTIFY_SOCKET", "")
        # sd_notify(3): an absolute path, or an abstract name, for which the @ stands.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path if path.startswith("/") else ""
        self._interval = _watchdog(variables)

    @property
    def interval(self) -> float | None:
        """Seconds between signs of life that the manager waits for: half of what it allows; ``None``: it waits for none."""
        return self._interval

    def ready(self, status: str) -> None:
        """Every worker listens, or listens again after `reloading`."""
        self._tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """Workers are being replaced."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """No more clients are accepted."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """The sign of life."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            self._log.warning("cannot tell the service manager %s: %s", lines[0], error.strerror)


def _watchdog(variables: Mapping[str, str]) -> float | None:
    micros, pid = variables.get("WATCHDOG_USEC", ""), variables.get("WATCHDOG_PID", "")
    if not micros.isdecimal() or int(micros) == 0 or (pid.isdecimal() and int(pid) != os.getpid()):
        return None
    return int(micros) / 2e6
