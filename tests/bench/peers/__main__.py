"""The command line: `make bench`, `make bench-instructions`.

By hand, from the root of the repository, after a build: `PYTHONPATH=tests/bench python3 -m peers run --rounds 1 --rows http-16`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, Sequence

from . import idle, instructions, machine, report, rounds, scale
from .figures import undisturbed
from .peers import read_goals, read_peers
from .processes import Failed
from .rounds import Journal, Others, Plan
from .workspace import PATH, Workspace

# Set in the process that already has a network of its own.
INSIDE = "EASTWAY_BENCH_NETWORK"
# Rounds, and seconds of a load. A round of everything takes four and a half minutes with two seconds, and three and a half with one.
PLANS = {"quick": (1, 1), "full": (4, 2)}


def main(words: Sequence[str]) -> int:
    """Does what the words say, in a network of its own; gives the exit code."""
    options = parse(words)
    workspace = Workspace(options.folder.resolve(), options.eastway, options.load, options.envoy)
    workspace.folder.mkdir(parents=True, exist_ok=True)
    if options.verb == "report":
        return tell(workspace, options)
    enter_network(words)
    # Processes are ended on the way out, also when it was asked for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return count(workspace, options) if options.verb == "instructions" else run(workspace, options)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="peers", description="Eastway beside Envoy, HAProxy and nginx.")
    parser.add_argument("verb", choices=["run", "report", "instructions"])
    parser.add_argument("--folder", type=Path, default=Path("target/bench"), help="where it works and writes")
    parser.add_argument("--eastway", default="target/dist/eastway")
    parser.add_argument("--load", default="target/dist/eastway-load")
    parser.add_argument("--envoy", default="target/bench/envoy")
    parser.add_argument("--plan", choices=PLANS, default="full")
    parser.add_argument("--rounds", type=int, help="instead of the plan's")
    parser.add_argument("--seconds", type=int, help="of each load, instead of the plan's")
    parser.add_argument("--groups", default="", help="pairs, chains, workers, idle, scale; all if empty")
    parser.add_argument("--rows", default="", help="rows by name; all if empty")
    parser.add_argument("--append", action="store_true", help="add to the records that are there")
    parser.add_argument("--quiet", type=float, help="leave out what was measured while others took more cores than this")
    parser.add_argument("--check", action="store_true", help="fail if a goal is missed, or if instructions grew")
    parser.add_argument("--recorded", type=Path, default=Path("tests/bench/instructions.json"))
    parser.add_argument("--record", action="store_true", help="write the counted instructions there")
    parser.add_argument("--ways", default="", help="ways whose names contain this")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each way")
    options = parser.parse_args(words)
    for program in ("eastway", "load", "envoy"):
        setattr(options, program, str(Path(getattr(options, program)).resolve()))
    return options


def enter_network(words: Sequence[str]) -> None:
    """Starts this program again in a network namespace in which nothing else listens, with its loopback device up."""
    if os.environ.get(INSIDE):
        return
    unshare, ip = (shutil.which(name, path=PATH) for name in ("unshare", "ip"))
    if unshare is None or ip is None:
        raise Failed("`unshare` or `ip` is missing (packages util-linux, iproute2)")
    flags = ["--net"] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps", "--net"]
    script = f'"{ip}" link set lo up && exec "$@"'
    command = [unshare, *flags, "sh", "-c", script, "sh", sys.executable, "-m", "peers", *words]
    os.environ[INSIDE] = "1"
    os.execv(unshare, command)


def run(workspace: Workspace, options: argparse.Namespace) -> int:
    """Measures, then tells."""
    default = PLANS[options.plan]
    names = {name: tuple(word for word in getattr(options, name).split(",") if word) for name in ("groups", "rows")}
    plan = Plan(options.rounds or default[0], options.seconds or default[1], **names)
    journal_path = workspace.folder / "records.jsonl"
    if not options.append:
        journal_path.unlink(missing_ok=True)
    workspace.prepare()
    others: Others = {
        "idle": lambda _, name: idle.measure(workspace, name),
        "scale": lambda number, name: scale.measure(workspace, number, name, plan.seconds),
    }
    failures = rounds.run(workspace, read_peers(), plan, Journal(journal_path), others)
    facts: dict[str, Any] = machine.facts() | workspace.versions()
    (workspace.folder / "machine.json").write_text(json.dumps(facts))
    code = tell(workspace, options)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else code


def count(workspace: Workspace, options: argparse.Namespace) -> int:
    """Counts instructions, and compares them with those of the repository."""
    workspace.prepare(slow=True)
    known = json.loads(options.recorded.read_text()) if options.recorded.exists() else {}
    recorded: dict[str, float] = known.get("instructions", {})
    circumstances = instructions.circumstances(workspace)
    for name, value in circumstances.items():
        if known and known.get(name) != value:
            print(f"recorded with {known.get(name)}, counted with {value}: figures may differ by that alone")
    counted = instructions.run(workspace, options.ways, options.repeats)
    print(instructions.table(counted, recorded))
    if options.record:
        told = circumstances | {"instructions": recorded | counted}
        options.recorded.write_text(json.dumps(told, indent=2) + "\n")
    grown = instructions.regressions(counted, recorded)
    for regression in grown:
        print(f"more than recorded: {regression}", file=sys.stderr)
    return 1 if options.check and grown else 0


def tell(workspace: Workspace, options: argparse.Namespace) -> int:
    """Writes results.json and results.md, and prints the latter."""
    records = undisturbed(Journal.read(workspace.folder / "records.jsonl"), options.quiet)
    goals, facts = read_goals(), json.loads((workspace.folder / "machine.json").read_text())
    results = report.results(records, goals, facts)
    (workspace.folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    titles = {name: peer.title for name, peer in read_peers().items()}
    text = report.markdown(records, goals, facts, titles)
    (workspace.folder / "results.md").write_text(text)
    print(text)
    print(f"{workspace.folder}/results.json, {workspace.folder}/results.md")
    missed = [told for told in results["goals"] if told["verdict"] == "missed"]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as failure:
        print(f"eastway: {failure}", file=sys.stderr)
        sys.exit(1)
