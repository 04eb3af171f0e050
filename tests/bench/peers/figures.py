"""Statistics, pure: from records of rounds to ratios within rounds, their medians and spreads, and verdicts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Iterable, Sequence


@dataclass(frozen=True)
class Record:
    """What one load through one peer came to, in one round."""

    round: str
    row: str
    peer: str
    values: dict[str, float]
    # Cores that work outside the benchmark took meanwhile.
    others: float = 0.0


@dataclass(frozen=True)
class Goal:
    """A measure of one peer, absolutely or against the best of others in the same rounds."""

    name: str
    measure: str
    # ROW/PEER
    of: str
    against: tuple[str, ...] = ()
    at_most: float | None = None
    at_least: float | None = None

    def holds(self, value: float) -> bool:
        """Whether `value` is what the goal asks for."""
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    def bound(self) -> str:
        """What it asks for, in words."""
        return f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"


@dataclass(frozen=True)
class Summary:
    """A median, and the least and the greatest value beside it."""

    median: float
    low: float
    high: float
    rounds: int

    @staticmethod
    def over(values: Sequence[float]) -> Summary | None:
        """Of `values`; none if there are none."""
        if not values:
            return None
        return Summary(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Verdict:
    """A goal, and what was measured of it."""

    goal: Goal
    summary: Summary | None
    # The absolute figures behind a ratio: ROW/PEER and its median.
    medians: dict[str, float] = field(default_factory=dict)
    # The most that others took in any of the rounds.
    others: float = 0.0

    @property
    def word(self) -> str:
        """`met`, `missed`, or `not measured`."""
        if self.summary is None:
            return "not measured"
        return "met" if self.goal.holds(self.summary.median) else "missed"


def undisturbed(records: Iterable[Record], cores: float | None) -> list[Record]:
    """Those that were made while others took at most so many cores; all if no bound is given."""
    return [record for record in records if cores is None or record.others <= cores]


def by_round(records: Iterable[Record], place: str, measure: str) -> dict[str, float]:
    """The measure at ROW/PEER in each round that has it."""
    row, peer = place.split("/")
    here = (record for record in records if (record.row, record.peer) == (row, peer) and measure in record.values)
    return {record.round: record.values[measure] for record in here}


def within_rounds(records: Sequence[Record], goal: Goal) -> list[float]:
    """The goal's value in each round: the measure itself, or its ratio to the best of the others in that round.

    The best is the least where less is better, else the greatest. A round in which any of them is missing says nothing:
    its best might be another one.
    """
    own = by_round(records, goal.of, goal.measure)
    if not goal.against:
        return list(own.values())
    others = [by_round(records, place, goal.measure) for place in goal.against]
    best = min if goal.at_most is not None else max
    shared = (key for key in own if all(key in other for other in others))
    ratios = ((own[key], best(other[key] for other in others)) for key in shared)
    return [value / reference for value, reference in ratios if reference > 0]


def judge(records: Sequence[Record], goal: Goal) -> Verdict:
    """What the records say of a goal."""
    places = (goal.of, *goal.against)
    summaries = {place: Summary.over(list(by_round(records, place, goal.measure).values())) for place in places}
    concerned = [record.others for record in records if f"{record.row}/{record.peer}" in places]
    return Verdict(
        goal=goal,
        summary=Summary.over(within_rounds(records, goal)),
        medians={place: summary.median for place, summary in summaries.items() if summary},
        others=max(concerned, default=0.0),
    )


def summaries(records: Sequence[Record]) -> dict[tuple[str, str], dict[str, Summary]]:
    """For each row and peer, in the order of their first records, all measures."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for record in records:
        measures = found.setdefault((record.row, record.peer), {})
        for name, value in (record.values | {"others": record.others}).items():
            measures.setdefault(name, []).append(value)
    whole = {place: {name: Summary.over(values) for name, values in of.items()} for place, of in found.items()}
    return {place: {name: summary for name, summary in of.items() if summary} for place, of in whole.items()}
