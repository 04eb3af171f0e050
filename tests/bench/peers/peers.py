"""Peers and goals, as their files name them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .figures import Goal
from .loads import Entry
from .processes import Spec
from .rows import KINDS, ROWS, Row
from .workspace import Workspace

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """What is measured as one."""

    name: str
    title: str
    group: str
    entries: dict[str, Entry]
    processes: list[dict[str, Any]] = field(default_factory=list)
    rows: tuple[str, ...] = ()
    cores: int = 1

    def kinds(self) -> list[str]:
        """The kinds of load that it takes, in their order."""
        return [kind for kind in KINDS if kind in self.entries]

    def rows_of(self, kind: str) -> list[Row]:
        """The rows of a kind that it runs."""
        return [row for row in ROWS if row.kind == kind and (not self.rows or row.name in self.rows)]

    def specs(self, workspace: Workspace, kind: str) -> list[Spec]:
        """The processes that a kind of load needs."""
        return [spec(workspace, process) for process in self.processes if kind in process.get("only", KINDS)]


def spec(workspace: Workspace, process: dict[str, Any]) -> Spec:
    """A process, its program found and its folder filled in."""
    program, *words = process["command"].replace("{work}", str(workspace.configs)).split()
    return Spec(process["name"], process["role"], (workspace.program(program), *words))


def read_peers(path: Path = HERE / "peers.toml") -> dict[str, Peer]:
    """By name, in the order of the file."""
    return {name: _peer(name, table) for name, table in tomllib.loads(path.read_text()).items()}


def _peer(name: str, table: dict[str, Any]) -> Peer:
    entries = {kind: Entry(port) for kind, port in table["entry"].items()}
    rows = tuple(table.get("rows", ()))
    return Peer(name, table["title"], table["group"], entries, table["processes"], rows, table.get("cores", 1))


def read_goals(path: Path = HERE / "goals.toml") -> list[Goal]:
    """In the order of the file."""
    tables = tomllib.loads(path.read_text())["goal"]
    return [Goal(**(table | {"against": tuple(table.get("against", ()))})) for table in tables]
