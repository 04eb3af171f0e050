"""Instructions per request, for each way through Eastway: `make bench-instructions`.

One process of a topology runs under callgrind, the others as usual. After a warm-up it gets a small load and a large one of
the same form; the difference of what they cost, by the difference of their sizes, is the cost of one. What happens once in a
load cancels out. The figures hardly depend on what else the machine does, so a regression of a few percent shows.

valgrind shows the program a processor with AES-NI and AVX2 but without AVX-512, so cryptography is counted as on such a one, and
nothing needs to be turned off.
"""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from . import machine
from .loads import KIBIBYTE, SMALL, SUFFIX, WEB, Entry, grpc_words, probe_h2, probe_http, probe_tcp, read_h2load
from .processes import Failed, Running, Spec, accepts, output
from .rounds import applications
from .workspace import Workspace

ENTRY = Entry(19000, f"sink.{SUFFIX}:9000")
HOME = {"gateway": "gateway", "caller": "sidecar", "web": "sidecar", "grpc": "sidecar", "sink": "sidecar"}
CHAIN = {
    "near-gateway": "gateway",
    "far-gateway": "gateway",
    "near-caller": "sidecar",
    "far-web": "sidecar",
    "far-sink": "sidecar",
}
# A regression shows beyond this; repeated runs of most ways differ by less than one percent.
TOLERANCE = 0.03
# How many packets a gateway takes at once depends on how busy the machine is.
GATEWAY_TOLERANCE = 0.08


def http1(workspace: Workspace, count: int) -> None:
    """Requests one after the other over one connection."""
    words = ["--h1", "-n", str(count), "-c1", "-H", f":authority: {WEB}", f"http://{ENTRY.address}/"]
    _all_good(output([workspace.program("h2load"), *words], 300), KIBIBYTE, count)


def http2(workspace: Workspace, count: int) -> None:
    """The same by HTTP/2, in the form of gRPC."""
    words = ["-n", str(count), "-c1", "-m1", *grpc_words(workspace, ENTRY)]
    _all_good(output([workspace.program("h2load"), *words], 300), SMALL, count)


def streams(workspace: Workspace, count: int) -> None:
    """Opaque streams one after the other: CONNECT, nine bytes, one byte back, the end."""
    words = [f"address={ENTRY.address}", f"via={ENTRY.via}", f"count={count}", "seconds=300"]
    said = json.loads(output([workspace.program("eastway-load"), "connections", *words], 300))
    if said["connections"] != count:
        raise Failed(f"{said['connections']} of {count} streams were opened")


def _all_good(text: str, body: int, count: int) -> None:
    if read_h2load(text, body).units != count:
        raise Failed(f"not all of {count} requests were answered: {text[-300:]}")


@dataclass(frozen=True)
class Way:
    """Which process of which topology, and what goes through it; `small` and `large` are the sizes of the loads."""

    name: str
    unit: str
    topology: dict[str, str]
    traced: str
    load: Callable[[Workspace, int], None]
    probe: Callable[[Workspace, Entry], bool]
    small: int = 500
    large: int = 2500

    @property
    def tolerance(self) -> float:
        """By which part it may cost more than is recorded."""
        return GATEWAY_TOLERANCE if self.topology[self.traced] == "gateway" else TOLERANCE


WAYS = (
    Way("sidecar outbound, HTTP/1.1", "request", HOME, "caller", http1, probe_http),
    Way("sidecar inbound, HTTP/1.1", "request", HOME, "web", http1, probe_http),
    Way("sidecar outbound, HTTP/2", "request", HOME, "caller", http2, probe_h2),
    Way("sidecar inbound, HTTP/2", "request", HOME, "grpc", http2, probe_h2),
    Way("sidecar outbound, CONNECT", "stream", HOME, "caller", streams, probe_tcp, 100, 500),
    Way("sidecar inbound, CONNECT", "stream", HOME, "sink", streams, probe_tcp, 100, 500),
    Way("sidecar outbound, other cluster", "request", CHAIN, "near-caller", http1, probe_http),
    Way("gateway leaving, HTTP", "request", CHAIN, "near-gateway", http1, probe_http),
    Way("gateway entering, HTTP", "request", CHAIN, "far-gateway", http1, probe_http),
    Way("gateway leaving, CONNECT", "stream", CHAIN, "near-gateway", streams, probe_tcp, 100, 500),
    Way("gateway entering, CONNECT", "stream", CHAIN, "far-gateway", streams, probe_tcp, 100, 500),
)


def count(workspace: Workspace, way: Way) -> float:
    """Instructions for one request or stream."""
    configs = workspace.configs
    eastway = workspace.program("eastway")
    profile = configs / f"callgrind.{way.traced}"
    tool = (workspace.program("valgrind"), "--tool=callgrind", f"--callgrind-out-file={profile}")
    for old in configs.glob(f"{profile.name}*"):
        old.unlink()
    with Running(applications(workspace), configs) as running:
        running.wait("the application", lambda: accepts("127.0.0.1", 18080) and accepts("127.0.0.1", 18090))
        for name, role in way.topology.items():
            command = (eastway, role, "--config", f"{configs}/{name}.yaml")
            running.start(Spec(name, role, (*tool, *command) if name == way.traced else command))
        running.wait(way.name, lambda: carries(workspace, way), patience=60)
        way.load(workspace, way.small)
        pid = running.pids()[way.traced]
        costs = []
        for number, size in enumerate((way.small, way.large), 1):
            control(workspace, "--zero", pid)
            way.load(workspace, size)
            control(workspace, "--dump", pid)
            costs.append(total(Path(f"{profile}.{number}")))
        running.check()
    return (costs[1] - costs[0]) / (way.large - way.small)


def carries(workspace: Workspace, way: Way) -> bool:
    """Whether a first one goes through."""
    try:
        return way.probe(workspace, ENTRY)
    except Failed:
        return False


def control(workspace: Workspace, action: str, pid: int) -> None:
    """Tells callgrind to begin counting anew, or to write what it has counted."""
    said = output([workspace.program("callgrind_control"), action, str(pid)], 60)
    if "OK" not in said:
        raise Failed(f"callgrind_control {action}: {said.strip()}")


def total(profile: Path) -> int:
    """The instructions of a profile."""
    match = re.search(r"^totals: (\d+)", profile.read_text(errors="replace"), re.MULTILINE)
    if match is None:
        raise Failed(f"{profile} has no totals")
    return int(match.group(1))


def circumstances(workspace: Workspace) -> dict[str, str]:
    """What else the figures depend on: the compiler, and which processor valgrind shows to the program."""
    toolchain = re.search(r'channel = "([^"]+)"', Path("rust-toolchain.toml").read_text())
    return {
        "rust": toolchain.group(1) if toolchain else "unknown",
        "valgrind": output([workspace.program("valgrind"), "--version"], 20).strip(),
        "processor": str(machine.facts()["processor"]),
    }


def change(recorded: float | None, counted: float) -> float | None:
    """By which part a figure differs from what is recorded."""
    return counted / recorded - 1 if recorded else None


def table(counted: dict[str, float], recorded: dict[str, float]) -> str:
    """The figures beside those of the repository."""
    lines = ["| Way | instructions | recorded | change |", "|---|---|---|---|"]
    for name, value in counted.items():
        before, differs = recorded.get(name), change(recorded.get(name), value)
        known = f"{before:,.0f} | {differs:+.1%}" if before and differs is not None else "- | new"
        lines.append(f"| {name} | {value:,.0f} | {known} |")
    return "\n".join(lines)


def regressions(counted: dict[str, float], recorded: dict[str, float]) -> list[str]:
    """What costs more than is recorded, beyond what is tolerated."""
    bounds = {way.name: way.tolerance for way in WAYS}
    changes = {name: change(recorded.get(name), value) or 0.0 for name, value in counted.items()}
    return [f"{name}: {grown:+.1%}" for name, grown in changes.items() if grown > bounds.get(name, TOLERANCE)]


def run(workspace: Workspace, names: str, repeats: int) -> dict[str, float]:
    """All ways whose names contain `names`; the median of `repeats` runs of each."""
    counted = {}
    for way in WAYS:
        if names in way.name:
            costs = [count(workspace, way) for _ in range(repeats)]
            counted[way.name] = round(statistics.median(costs))
            spread = (max(costs) - min(costs)) / counted[way.name]
            print(f"{way.name}: {counted[way.name]:,} per {way.unit}, runs differ by {spread:.1%}", flush=True)
    return counted
