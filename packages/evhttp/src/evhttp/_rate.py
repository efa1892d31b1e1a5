"""How often each client may ask: a sliding window that knows no clock of its own."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from ipaddress import IPv6Address
from threading import Lock

from evhttp._request import Request
from evhttp._response import Response

__all__ = ["RateLimiter", "client_key"]

# A window is cut into so many slices; see RateLimiter about what that means.
_SLICES = 32


def client_key(req: Request) -> str:
    """What tells clients apart: the address; of IPv6 the network of 64 bits, because a client has all of it.

    Clients of a unix socket are one.
    """
    client = req.client
    if client is None:
        return ""
    host = client[0]
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


class _Log:
    """What a key was granted within one window: for each slice the time of the latest grant, and how many there were.

    There are never more entries than slices and one, nor than the rate.
    """

    __slots__ = ("counts", "slice", "times", "total")

    def __init__(self) -> None:
        self.times: deque[float] = deque()
        self.counts: deque[int] = deque()
        self.slice = -1
        self.total = 0

    def expire(self, until: float) -> None:
        times = self.times
        while times and times[0] <= until:
            times.popleft()
            self.total -= self.counts.popleft()

    def add(self, now: float, width: float) -> None:
        current = math.floor(now / width)
        if self.times and current == self.slice:
            self.times[-1] = now
            self.counts[-1] += 1
        else:
            self.times.append(now)
            self.counts.append(1)
            self.slice = current
        self.total += 1


class RateLimiter:
    r"""Grants each key at most ``rate`` requests within any ``window`` seconds, wherever the window begins.

    ::

        limiter = evhttp.RateLimiter(10, 1.0, also=[(1000, 3600.0)])

        def handler(req, res):
            if limiter.allow(req, res):  # else it has answered with 429
                res.send("hello\n")

    The window slides: it is no fixed one in which twice the rate passes around each boundary. What was granted is kept in 32 slices
    of the window, a count and the time of its latest grant each, and a slice is forgotten a whole window after its latest grant.
    So the error has one side and a bound: never are more than ``rate`` granted in any interval of length ``window``, open at its
    beginning; and a request is refused at most ``window / 32`` seconds longer than by a list of all grants. Where grants are
    further apart than that, it is exact.

    Only what is granted counts: a client that keeps asking is served at its rate, not shut out.

    Args:
        rate: Requests in a window, at least 1.
        window: Its length in seconds.
        also: More windows, as pairs of rate and window; a request has to pass all of them.
        key: What tells clients apart, for `allow`; the default is by address (`client_key`).
        max_keys: Keys remembered at most; beyond, the one that has not asked for the longest time is forgotten, and so begins
            anew. A key takes about 1 KiB for each window at most, and nothing once its windows have passed.
        clock: Where `allow` takes the time from, in seconds.

    Raises:
        ValueError: A number is not as described.

    Thread safety: may be shared by several loops in several threads.  Spec: RFC 6585 §4, RFC 9110 §10.2.3.
    """

    __slots__ = ("_clock", "_key", "_keys", "_lock", "_longest", "_max_keys", "_windows")

    def __init__(
        self,
        rate: int,
        window: float,
        *,
        also: Sequence[tuple[int, float]] = (),
        key: Callable[[Request], Hashable] = client_key,
        max_keys: int = 65_536,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for each, length in (pairs := [(rate, window), *also]):
            if each < 1 or each % 1:
                raise ValueError(f"a rate must be an integer from 1 on, not {each!r}")
            if not 0 < length < math.inf:
                raise ValueError(f"a window must be a number of seconds > 0, not {length!r}")
        if max_keys < 1:
            raise ValueError(f"max_keys must be an integer from 1 on, not {max_keys!r}")
        self._windows = [(each, float(length), length / _SLICES) for each, length in pairs]
        self._longest = max(length for _, length, _ in self._windows)
        self._key = key
        self._max_keys = max_keys
        self._clock = clock
        # In the order of the last request, so that what may be forgotten comes first.
        self._keys: OrderedDict[Hashable, tuple[float, list[_Log]]] = OrderedDict()
        self._lock = Lock()

    def admit(self, key: Hashable, now: float) -> float:
        """Grant a request, or tell when to come again.

        Args:
            key: Whose request it is.
            now: Seconds on any clock that goes forward. A time before the key's last is taken for that.

        Returns:
            0.0 when it is granted, else the seconds until one will be.
        """
        with self._lock:
            last, logs = self._keys.pop(key, (now, None))
            now = max(now, last)
            if logs is None:
                self._make_room(now)
                logs = [_Log() for _ in self._windows]
            self._keys[key] = (now, logs)
            wait = 0.0
            for log, (rate, window, _) in zip(logs, self._windows, strict=True):
                log.expire(now - window)
                if log.total >= rate:
                    # At least one goes with the oldest slice, which makes room for one. Not 0.0, whatever rounding makes of it.
                    wait = max(wait, log.times[0] + window - now, 1e-9)
            if not wait:
                for log, (_, _, width) in zip(logs, self._windows, strict=True):
                    log.add(now, width)
            return wait

    def allow(self, req: Request, res: Response) -> bool:
        """Tell whether a request may be served; one that may not is answered with 429 and Retry-After."""
        wait = self.admit(self._key(req), self._clock())
        if not wait:
            return True
        seconds = math.ceil(wait)
        # RFC 6585 §4: "Responses with the 429 status code MUST NOT be stored by a cache."
        res.status(429).header("Retry-After", str(seconds)).header("Cache-Control", "no-store")
        res.send(f"Too many requests; try again in {seconds} second{'' if seconds == 1 else 's'}\n")
        return False

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._keys)

    def _make_room(self, now: float) -> None:
        """Forget two keys whose windows have passed, so that they become fewer again; and one in any case if there are too many."""
        for _ in range(2):
            if self._keys and next(iter(self._keys.values()))[0] + self._longest <= now:
                self._keys.popitem(last=False)
        if len(self._keys) >= self._max_keys:
            self._keys.popitem(last=False)
