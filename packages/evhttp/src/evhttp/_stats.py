"""What a server has counted, and a handler that prints it for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evhttp._ends import CAUSES
from evhttp._request import Request
from evhttp._response import Response
from evhttp._shim import ffi, lib

if TYPE_CHECKING:
    from evhttp._server import Server

__all__ = ["LATENCY_BOUNDS", "MetricsHandler", "ServerStats", "read_counts"]

_CLASSES = ("2xx", "3xx", "4xx", "5xx")
_BUCKETS = 16
LATENCY_BOUNDS = (*(lib.evhttp_bucket_ns(number) / 1e9 for number in range(_BUCKETS - 1)), float("inf"))
"""The bounds of `ServerStats.latency`, in seconds; the last bucket has none."""


@dataclass(frozen=True, slots=True)
class ServerStats:
    """What a server has counted since it was made.

    Attributes:
        connections: Open now.
        accepted: Connections that were accepted.
        refused: Clients that were reset because `Limits.max_connections` were open.
        shed: Clients that were hung up on because the process, or the system, had no descriptors or no memory left.
        requests: Those that were understood, from the moment their heads were complete.
        ends: Connections that have ended, by cause: see `ConnectionEnd`. Those that were upgraded are not among them.
        answers: By class, ``"2xx"`` to ``"5xx"``; refused requests included, and informational answers and upgrades not. Empty
            unless the server was made with ``measure=True``, as are the following.
        latency: Answers by how long they took from the head of the request, or for a buffered body its end, until all was queued:
            pairs of a bound in seconds and how many took at most so long and longer than the bound before it. The last bound is
            infinite.
        latency_sum: Seconds, of all together.
    """

    connections: int
    accepted: int
    refused: int
    shed: int
    requests: int
    ends: dict[str, int]
    answers: dict[str, int]
    latency: list[tuple[float, int]]
    latency_sum: float


def read_counts(server: Any, connections: int, measured: bool) -> ServerStats:
    """Copy the counts of a ``struct evh_server *``."""
    c = ffi.new("struct evh_counts *")
    lib.evhttp_counts(server, c)
    return ServerStats(
        connections,
        c.accepted,
        c.refused,
        c.shed,
        c.requests,
        dict(zip(CAUSES, c.ends, strict=True)),
        dict(zip(_CLASSES, c.answers, strict=True)) if measured else {},
        list(zip(LATENCY_BOUNDS, c.buckets, strict=True)) if measured else [],
        c.sum_ns / 1e9,
    )


class MetricsHandler:
    """A handler that answers with the counts of one or more servers in Prometheus' text format, version 0.0.4.

    ::

        evhttp.Server(evhttp.MetricsHandler(server), loop=server.loop).listen("127.0.0.1", 9100)

    Where there are several, each has its name as the label ``server``. Give it a listener of its own, or a path that no stranger
    reaches: the numbers are nobody else's business.
    """

    def __init__(self, *servers: Server) -> None:
        if not servers:
            raise ValueError("metrics of no server")
        self._servers = servers

    def __call__(self, req: Request, res: Response) -> None:
        """Answer GET and HEAD, and nothing else."""
        if req.method not in ("GET", "HEAD"):
            res.header("Allow", "GET, HEAD").send_error(405)
            return
        res.header("Content-Type", "text/plain; version=0.0.4; charset=utf-8").send(self.text())

    def text(self) -> str:
        """What a request is answered with."""
        found = [(server.name, server.stats()) for server in self._servers]
        lines: list[str] = []
        for metric, kind, text, attribute in _SIMPLE:
            lines += _head(metric, kind, text)
            lines += [f"{metric}{_labels(name)} {getattr(stats, attribute)}" for name, stats in found]
        lines += _head("evhttp_connection_ends_total", "counter", "Connections that have ended, by cause.")
        for name, stats in found:
            lines += [
                f"evhttp_connection_ends_total{_labels(name, cause=key)} {count}" for key, count in stats.ends.items()
            ]
        measured = [(name, stats) for name, stats in found if stats.latency]
        if measured:
            lines += _head("evhttp_answers_total", "counter", "Answers, by the class of their status.")
        for name, stats in measured:
            lines += [f"evhttp_answers_total{_labels(name, code=key)} {count}" for key, count in stats.answers.items()]
        if measured:
            lines += _head("evhttp_answer_seconds", "histogram", "From the request to the end of its answer.")
        for name, stats in measured:
            lines += _histogram("evhttp_answer_seconds", name, stats)
        return "\n".join((*lines, ""))


_SIMPLE = (
    ("evhttp_connections", "gauge", "Connections that are open.", "connections"),
    ("evhttp_connections_accepted_total", "counter", "Connections that were accepted.", "accepted"),
    ("evhttp_connections_refused_total", "counter", "Clients that were reset because the server was full.", "refused"),
    ("evhttp_connections_shed_total", "counter", "Clients that were hung up on for want of descriptors.", "shed"),
    ("evhttp_requests_total", "counter", "Requests that were understood.", "requests"),
)


def _head(metric: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {metric} {text}", f"# TYPE {metric} {kind}"]


def _labels(server: str, **others: str) -> str:
    named = {"server": server, **others} if server else others
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in named.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _histogram(metric: str, name: str, stats: ServerStats) -> list[str]:
    lines, total = [], 0
    for bound, count in stats.latency:
        total += count
        text = "+Inf" if bound == float("inf") else f"{bound:g}"
        lines.append(f"{metric}_bucket{_labels(name, le=text)} {total}")
    return [*lines, f"{metric}_sum{_labels(name)} {stats.latency_sum:.9f}", f"{metric}_count{_labels(name)} {total}"]
