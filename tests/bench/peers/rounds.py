"""The rounds: every peer afresh, the same loads, what they cost."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Iterator, Sequence

from . import machine
from .figures import Record
from .loads import Done, Entry
from .peers import Peer
from .processes import Failed, Running, Spec, accepts
from .rows import PROBES, WARM, Row
from .workspace import Workspace

# How long a peer is left alone after it came up.
SETTLE = 0.3


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: int
    # Groups of peers, and rows; all if empty.
    groups: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    def wants(self, group: str) -> bool:
        """Whether a group is to be measured."""
        return not self.groups or group in self.groups

    def wants_row(self, row: Row) -> bool:
        """Whether a row is."""
        return not self.rows or row.name in self.rows


class Journal:
    """Records as they come: on the terminal, and a line each in a file, so that a later run can go on from them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Rounds go on from those that are there, so that the order goes on alternating.
        self.first = len({record.round for record in self.read(path)})

    def add(self, record: Record) -> None:
        """One more."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        values = "  ".join(f"{name} {value:.4g}" for name, value in record.values.items() if "." not in name)
        print(f"{record.round:>3}  {record.row:12} {record.peer:18} {values}  others {record.others:.2f}", flush=True)

    @staticmethod
    def read(path: Path) -> list[Record]:
        """All of them."""
        return [Record(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def applications(workspace: Workspace) -> list[Spec]:
    """What answers behind every peer."""
    nginx = (workspace.program("nginx"), "-e", f"{workspace.configs}/nginx-app.log", "-p", str(workspace.configs))
    sink = (workspace.program("eastway-load"), "sink", "address=127.0.0.1:18090")
    return [
        Spec("app", "application", (*nginx, "-c", f"{workspace.configs}/nginx-app.conf")),
        Spec("app-sink", "application", sink),
    ]


# What else is measured in a round: from its number and name to records.
Others = dict[str, Callable[[int, str], Iterator[Record]]]


def run(workspace: Workspace, peers: dict[str, Peer], plan: Plan, journal: Journal, others: Others) -> list[str]:
    """All rounds; gives what failed, which is missing in the records."""
    failures: list[str] = []
    with Running(applications(workspace), workspace.configs) as apps:
        for port in (18080, 18081, 18090):
            apps.wait(f"the application at {port}", lambda port=port: accepts("127.0.0.1", port))
        for number in range(journal.first, journal.first + plan.rounds):
            name = str(number + 1)
            for peer, kind in order(list(peers.values()), number, plan):
                try:
                    for record in measure(workspace, peer, kind, name, plan):
                        journal.add(record)
                except Failed as error:
                    failures.append(f"round {name}, {peer.name}, {kind}: {error}")
                    print(failures[-1], flush=True)
            for group, records in others.items():
                if plan.wants(group):
                    try:
                        for record in records(number, name):
                            journal.add(record)
                    except Failed as error:
                        failures.append(f"round {name}, {group}: {error}")
                        print(failures[-1], flush=True)
    return failures


def order(peers: Sequence[Peer], number: int, plan: Plan) -> Iterator[tuple[Peer, str]]:
    """Group by group and kind by kind, so that what is compared is measured close together; every second round backwards."""
    cores = len(os.sched_getaffinity(0))
    chosen = [peer for peer in peers if plan.wants(peer.group) and peer.cores <= cores]
    for group in dict.fromkeys(peer.group for peer in chosen):
        members = [peer for peer in chosen if peer.group == group]
        members = members if number % 2 == 0 else members[::-1]
        for kind in PROBES:
            for peer in members:
                if any(plan.wants_row(row) for row in peer.rows_of(kind)) and kind in peer.entries:
                    yield peer, kind


def measure(workspace: Workspace, peer: Peer, kind: str, round_: str, plan: Plan) -> Iterator[Record]:
    """All rows of a kind, through one start of the peer."""
    entry = peer.entries[kind]
    with Running(peer.specs(workspace, kind), workspace.configs) as running:
        running.wait(peer.name, carries(workspace, kind, entry))
        WARM[kind](workspace, entry, 1)
        time.sleep(SETTLE)
        for row in peer.rows_of(kind):
            if plan.wants_row(row):
                values, others = costs(running, lambda row=row: row.load(workspace, entry, plan.seconds), row)
                running.check()
                yield Record(round_, row.name, peer.name, values, others)


def carries(workspace: Workspace, kind: str, entry: Entry) -> Callable[[], bool]:
    """Whether a first request comes back."""

    def probe() -> bool:
        try:
            return PROBES[kind](workspace, entry)
        except Failed:
            return False

    return probe


def costs(running: Running, load: Callable[[], Done], row: Row) -> tuple[dict[str, float], float]:
    """What a load did, what each process spent on a unit of it and all together, and what memory they reached."""
    pids, roles = running.pids(), running.roles()
    background = machine.Background()
    before = {name: machine.cpu([pid]) for name, pid in pids.items()}
    done = load()
    spent = {name: machine.cpu([pid]) - before[name] for name, pid in pids.items()}
    others = background.cores()
    if done.units <= 0:
        raise Failed(f"{row.name}: nothing was done, {done.bad} failed")
    values = dict(done.values) | {"bad": float(done.bad), "cpu": sum(spent.values()) / done.units * row.scale}
    values |= {f"cpu.{name}": seconds / done.units * row.scale for name, seconds in spent.items()}
    sidecars = [seconds for name, seconds in spent.items() if roles[name] == "sidecar"]
    values["cpu.sidecars"] = sum(sidecars) / done.units * row.scale
    for role in set(roles.values()):
        peaks = [machine.memory(pid, "VmHWM") for name, pid in pids.items() if roles[name] == role]
        values[f"peak_rss.{role}"] = max(peaks)
    return values, others
