"""The rows of the benchmark: which load, in which unit, and through which of a peer's entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from . import loads
from .loads import Entry, Load
from .workspace import Workspace


@dataclass(frozen=True)
class Row:
    """One load. `scale` turns seconds of CPU per unit into the figure that is shown."""

    name: str
    title: str
    kind: str
    load: Load
    unit: str = "µs per request"
    scale: float = 1e6


ROWS = (
    Row("http-1", "HTTP/1.1 1 KiB, 1 connection", "http", loads.closed(1)),
    Row("http-16", "HTTP/1.1 1 KiB, 16 connections", "http", loads.closed(16)),
    Row("http-64", "HTTP/1.1 1 KiB, 64 connections", "http", loads.closed(64)),
    Row("open-2000", "HTTP/1.1 1 KiB, 2,000 requests/s", "http", loads.opened(2000)),
    Row("open-5000", "HTTP/1.1 1 KiB, 5,000 requests/s", "http", loads.opened(5000)),
    Row("download", "1 GB by HTTP/1.1", "http", loads.download, "s per GB", 1.0),
    Row("h2-1x1", "HTTP/2 64 B, 1 × 1 stream", "h2", loads.messages(1, 1)),
    Row("h2-16x1", "HTTP/2 64 B, 16 × 1 stream", "h2", loads.messages(16, 1)),
    Row("h2-4x32", "HTTP/2 64 B, 4 × 32 streams", "h2", loads.messages(4, 32)),
    Row("bulk", "TCP bulk, 1 stream", "tcp", loads.bulk, "s per GB", 1.0),
    Row("connections", "New TCP connections, 16 at once", "tcp", loads.connections, "µs per connection"),
)

# What tells that a peer carries a kind of load from end to end, and what warms it up.
PROBES: dict[str, Callable[[Workspace, Entry], bool]] = {
    "http": loads.probe_http,
    "h2": loads.probe_h2,
    "tcp": loads.probe_tcp,
}
WARM: dict[str, Load] = {"http": loads.closed(64), "h2": loads.messages(4, 32), "tcp": loads.connections}
KINDS = tuple(PROBES)


def by_name(name: str) -> Row:
    """A row that must be there."""
    return next(row for row in ROWS if row.name == name)
