"""Results: JSON for programs, Markdown for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Sequence

from .figures import Goal, Record, Summary, Verdict, judge, summaries
from .rows import ROWS

Json = dict[str, Any]


def results(records: Sequence[Record], goals: Sequence[Goal], machine: Json) -> Json:
    """Everything that was measured, and what it means."""
    verdicts = [judge(records, goal) for goal in goals]
    told = [
        {
            "goal": verdict.goal.name,
            "bound": verdict.goal.bound(),
            "verdict": verdict.word,
            "value": verdict.summary and asdict(verdict.summary),
            "medians": verdict.medians,
            "others": verdict.others,
        }
        for verdict in verdicts
    ]
    rows = [
        {"row": row, "peer": peer, "values": {name: asdict(summary) for name, summary in values.items()}}
        for (row, peer), values in summaries(records).items()
    ]
    return {"machine": machine, "goals": told, "rows": rows, "records": [asdict(record) for record in records]}


def number(value: float) -> str:
    """Three digits that mean something."""
    if value == 0:
        return "0"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(summary: Summary | None) -> str:
    """Median and extremes."""
    if summary is None:
        return "-"
    return f"{number(summary.median)} ({number(summary.low)} – {number(summary.high)})"


def goal_line(verdict: Verdict) -> str:
    """A line of the table of goals."""
    goal, summary = verdict.goal, verdict.summary
    measured = number(summary.median) if summary else "-"
    between = f"{number(summary.low)} – {number(summary.high)}" if summary else "-"
    rounds = str(summary.rounds) if summary else "0"
    return f"| {goal.name} | {goal.bound()} | {measured} | {between} | {rounds} | {verdict.others:.2f} | {verdict.word} |"


def markdown(records: Sequence[Record], goals: Sequence[Goal], machine: Json, titles: dict[str, str]) -> str:
    """The tables: the machine, the goals, then each row with all its peers."""
    lines = [", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    lines += head("Goal", "must be", "measured", "least – most", "rounds", "others' cores", "")
    verdicts = [judge(records, goal) for goal in goals]
    lines += [goal_line(verdict) for verdict in verdicts]
    whole = summaries(records)
    for row in ROWS:
        peers = [peer for name, peer in whole if name == row.name]
        if peers:
            latency = "p99 ms" if any("p99" in whole[row.name, peer] for peer in peers) else "mean ms"
            lines += ["", f"{row.title}: CPU in {row.unit}", ""]
            lines += head("", "CPU", "rate per s", latency, "peak RSS MiB", "bad", "others' cores")
            lines += [_peer_line(titles.get(peer, peer), whole[row.name, peer]) for peer in peers]
    further = [place for place in whole if place[0] not in {row.name for row in ROWS} | {"idle"}]
    if further:
        lines += ["", "What a caller knows: CPU of the two sidecars in µs per request, 16 connections", ""]
        lines += head("", "CPU", "others' cores")
        for place in further:
            lines.append(f"| {place[0]} | {spread(whole[place].get('cpu.sidecars'))} | {whole[place]['others'].high:.2f} |")
    idle = [peer for name, peer in whole if name == "idle"]
    if idle:
        lines += ["", "Idle, one process", "", *head("", "ready after ms", "RSS MiB", "PSS MiB")]
        for peer in idle:
            values = whole["idle", peer]
            lines.append(f"| {peer} | {spread(values['ready'])} | {spread(values['rss'])} | {spread(values['pss'])} |")
    return "\n".join(lines) + "\n"


def head(*cells: str) -> list[str]:
    """The first two lines of a table."""
    return [f"| {' | '.join(cells)} |".replace("|  |", "| |"), "|---" * len(cells) + "|"]


def _peer_line(title: str, values: dict[str, Summary]) -> str:
    latency = values.get("p99") or values.get("mean")
    peaks = {name.removeprefix("peak_rss."): of for name, of in values.items() if name.startswith("peak_rss.")}
    memory = ", ".join(f"{role} {number(of.median)}" for role, of in sorted(peaks.items()))
    cells = [title, spread(values.get("cpu")), number(values["rate"].median), spread(latency), memory]
    return f"| {' | '.join(cells)} | {number(values['bad'].high)} | {values['others'].high:.2f} |"
