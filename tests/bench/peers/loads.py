"""The loads: what is sent, for how long, and how the tools' answers are read.

Each is bounded by a time or a count, sends from one thread (open loop: from a thread a connection), and gives what was done.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Callable

from .eastway import SUFFIX
from .processes import Failed, answers, output
from .workspace import Workspace

WEB = f"web.{SUFFIX}"
GRPC = f"grpc.{SUFFIX}"
# Bytes of the applications' answers.
KIBIBYTE, SMALL = 1024, 64


@dataclass(frozen=True)
class Entry:
    """Where a peer takes a load: a port of 127.0.0.1, and the authority to CONNECT to if opaque streams need one."""

    port: int
    via: str | None = None

    @property
    def address(self) -> str:
        """ADDRESS:PORT."""
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Done:
    """How many units (requests, connections, GB) were done well, how many were not, and what was measured of them."""

    units: float
    bad: int
    values: dict[str, float]


Load = Callable[[Workspace, Entry, int], Done]


def milliseconds(text: str) -> float:
    """Of `1.5us`, `1.5ms`, `1.5s` or `1.5m`."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    if match is None:
        raise Failed(f"`{text}` is no length of time")
    return float(match.group(1)) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[match.group(2)]


def read_wrk(text: str) -> Done:
    """The report of `wrk --latency`."""
    total = re.search(r"(\d+) requests in ([\d.]+\w+)", text)
    if total is None:
        raise Failed(f"wrk said: {text[-300:]}")
    bad = sum(int(count) for count in re.findall(r"(?:connect|read|write|timeout) (\d+)", text))
    bad += sum(int(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    quantiles = dict(re.findall(r"^\s+(50|99)%\s+(\S+)", text, re.MULTILINE))
    values = {f"p{name}": milliseconds(value) for name, value in quantiles.items()}
    values["rate"] = int(total.group(1)) / (milliseconds(total.group(2)) / 1e3)
    return Done(int(total.group(1)), bad, values)


def read_h2load(text: str, body: int, seconds: float = 1.0) -> Done:
    """The report of `h2load`. An answer is good if it has its body: a refusal of gRPC is 200 as well, but empty."""
    done, good = re.search(r"(\d+) done", text), re.search(r"(\d+) 2xx", text)
    data = re.search(r"\((\d+)\) data", text)
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", text)
    if done is None or good is None or data is None:
        raise Failed(f"h2load said: {text[-300:]}")
    count = min(int(good.group(1)), int(data.group(1)) // body)
    values = {"rate": count / seconds} | ({"mean": milliseconds(mean.group(1))} if mean else {})
    # A request that is answered when the time is over counts as good, but not as done.
    return Done(count, max(0, int(done.group(1)) - count), values)


def closed(connections: int) -> Load:
    """HTTP/1.1, as fast as the answers come."""

    def load(workspace: Workspace, entry: Entry, seconds: int) -> Done:
        command = [workspace.program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        return read_wrk(output([*command, "-H", f"Host: {WEB}", f"http://{entry.address}/"], seconds + 20))

    return load


def opened(rate: int) -> Load:
    """HTTP/1.1 at a fixed rate over 32 connections."""

    def load(workspace: Workspace, entry: Entry, seconds: int) -> Done:
        words = [f"address={entry.address}", f"host={WEB}", f"rate={rate}", f"seconds={seconds}"]
        said = json.loads(output([workspace.program("eastway-load"), "open", *words], seconds + 30))
        return Done(said["requests"], said["bad"], {name: said[name] for name in ("rate", "p50", "p99", "p99.9")})

    return load


def messages(connections: int, streams: int) -> Load:
    """HTTP/2 with prior knowledge: requests of 64 bytes, formed like gRPC's."""

    def load(workspace: Workspace, entry: Entry, seconds: int) -> Done:
        command = [workspace.program("h2load"), "-t1", f"-c{connections}", f"-m{streams}", "-D", str(seconds)]
        return read_h2load(output([*command, *grpc_words(workspace, entry)], seconds + 20), SMALL, seconds)

    return load


def grpc_words(workspace: Workspace, entry: Entry) -> list[str]:
    """What h2load is to send."""
    headers = ["content-type: application/grpc", "te: trailers", f":authority: {GRPC}"]
    flags = [word for header in headers for word in ("-H", header)]
    return ["-d", f"{workspace.configs}/message", *flags, f"http://{entry.address}/bench.Echo/Unary"]


def download(workspace: Workspace, entry: Entry, seconds: int) -> Done:
    """1 GB by HTTP/1.1; 2 GB where there is more time."""
    words = [f"address={entry.address}", f"host={WEB}", "path=/gigabyte", f"count={1 if seconds < 3 else 2}"]
    return _bytes(output([workspace.program("eastway-load"), "download", *words], 120))


def bulk(workspace: Workspace, entry: Entry, seconds: int) -> Done:
    """1 GB, or 2 GB, up one opaque stream."""
    count = 10**9 if seconds < 3 else 2 * 10**9
    words = [f"address={entry.address}", f"bytes={count}", *_via(entry)]
    return _bytes(output([workspace.program("eastway-load"), "bulk", *words], 120))


def _bytes(text: str) -> Done:
    said = json.loads(text)
    gigabytes = said["bytes"] / 1e9
    return Done(gigabytes, said["bad"], {"rate": gigabytes / said["seconds"]})


def connections(workspace: Workspace, entry: Entry, seconds: int) -> Done:
    """A new opaque connection for each byte, 16 at once."""
    words = [f"address={entry.address}", "concurrency=16", f"seconds={seconds}", *_via(entry)]
    said = json.loads(output([workspace.program("eastway-load"), "connections", *words], seconds + 40))
    return Done(said["connections"], said["bad"], {"rate": said["connections"] / said["seconds"]})


def _via(entry: Entry) -> list[str]:
    return [f"via={entry.via}"] if entry.via else []


def probe_http(_: Workspace, entry: Entry) -> bool:
    """Whether a first request is answered."""
    return answers("127.0.0.1", entry.port, "/", WEB)


def probe_h2(workspace: Workspace, entry: Entry) -> bool:
    """The same by HTTP/2."""
    said = output([workspace.program("h2load"), "-n1", "-c1", *grpc_words(workspace, entry)], 30)
    return read_h2load(said, SMALL).units == 1


def probe_tcp(workspace: Workspace, entry: Entry) -> bool:
    """The same by an opaque stream."""
    words = [f"address={entry.address}", "count=1", "seconds=5", *_via(entry)]
    return json.loads(output([workspace.program("eastway-load"), "connections", *words], 30))["connections"] == 1
