"""What it costs a sidecar, per request, to know many services or many endpoints.

A crowd registers with the gateway, the caller learns of all of it, then gateway and crowd are killed: what a sidecar knows
stays, and nothing but the two sidecars runs while requests are measured. The endpoints beyond the first ten are in another
zone than the caller, so that the same few are picked in all cases; picking one of ten thousand is timed by `make figures`.
"""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Iterator

from . import eastway
from .eastway import HOME, SUFFIX
from .figures import Record
from .loads import Entry
from .processes import Failed, Running, Spec, answers, output
from .rounds import costs
from .rows import WARM, by_name
from .workspace import Workspace

NEAR = 10
# Registering ten thousand takes a while.
PATIENCE = 120.0
ENTRY = Entry(eastway.ENTRY)
ROW = by_name("http-16")


@dataclass(frozen=True)
class Case:
    """A crowd of services, or one of endpoints."""

    row: str
    services: int
    each: int


# One service of ten thousand endpoints is not among them: their signs of life alone keep a gateway busy for longer than a
# benchmark may take, because each is followed by a look at all endpoints of the service.
CASES = (
    Case("services-10", 10, 1),
    Case("services-1000", 1000, 1),
    Case("services-1000x10", 1000, 10),
    Case("endpoints-10", 1, 10),
    Case("endpoints-1000", 1, 1000),
)


def measure(workspace: Workspace, number: int, round_: str, seconds: int) -> Iterator[Record]:
    """All cases once; every second round backwards."""
    for case in CASES if number % 2 == 0 else CASES[::-1]:
        values, others = one(workspace, case, seconds)
        yield Record(round_, case.row, "eastway", values, others)


def one(workspace: Workspace, case: Case, seconds: int) -> tuple[dict[str, float], float]:
    """A caller that knows all of a case, and what its requests cost."""
    folder = workspace.configs / case.row
    folder.mkdir(exist_ok=True)
    for name, text in eastway.crowd_files(case.services).items():
        (folder / name).write_text(text.replace("@", f"{workspace.configs}/"))
    program = workspace.program("eastway")

    def node(role: str, name: str) -> Spec:
        return Spec(f"{case.row}-{name}", role, (program, role, "--config", f"{folder}/{name}.yaml"))

    with Running([], workspace.configs) as running:
        running.start(node("gateway", "gateway"))
        running.wait("the gateway", lambda: answers("127.9.0.1", 15020, "/ready"))
        running.start(node("sidecar", "web"))
        running.start(node("sidecar", "caller"))
        crowd = Spec(f"{case.row}-crowd", "crowd", crowd_command(workspace, case))
        # Logs go on from one round to the next, and the last round's would be taken for this one's.
        log = workspace.configs / f"{crowd.name}.log"
        log.unlink(missing_ok=True)
        running.start(crowd)
        running.wait("the caller", lambda: answers("127.9.0.2", 15020, "/ready"))
        running.wait("the crowd", lambda: "registered" in log.read_text(), PATIENCE)
        hosts = [f"crowd-{service}.{SUFFIX}" for service in range(case.services if case.services > 1 else 0)]
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(ask, hosts))
        running.wait("the caller's view", lambda: knows(program, case), PATIENCE, 0.5)
        for name in (f"{case.row}-gateway", crowd.name):
            running.kill(name)
        WARM["http"](workspace, ENTRY, 1)
        return costs(running, lambda: ROW.load(workspace, ENTRY, seconds), ROW)


def crowd_command(workspace: Workspace, case: Case) -> tuple[str, ...]:
    """What registers the crowd, all of it at the address of the one sidecar that serves."""
    files = (f"{workspace.configs}/{HOME.name}/web.crt", f"{workspace.configs}/{HOME.name}/web.key")
    words = [
        f"gateway={HOME.address(1, 15010)}",
        f"address={HOME.address(3, 15008)}",
        f"certificate={files[0]}",
        f"key={files[1]}",
        f"bundle={workspace.configs}/{HOME.name}-ca/ca.crt",
        f"services={case.services}",
        f"each={case.each}",
        f"near={NEAR}",
    ]
    return (workspace.program("eastway-load"), "crowd", *words)


def ask(host: str) -> None:
    """One request, whatever is answered: from then on the caller follows the service."""
    with socket.create_connection(("127.0.0.1", ENTRY.port), 5) as connection:
        connection.settimeout(20)
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        while connection.recv(4096):
            pass


def knows(program: str, case: Case) -> bool:
    """Whether the caller sees every endpoint of the last service."""
    if not answers("127.0.0.1", ENTRY.port, "/", f"web.{SUFFIX}"):
        return False
    service = "web" if case.services == 1 else f"crowd-{case.services - 1}"
    try:
        told = output([program, "explain", f"{service}.shop", "--admin", HOME.address(2, 15000), "-o", "json"], 60)
    except Failed:
        return False
    return json.dumps(json.loads(told)).count('"crowd-') >= case.each
