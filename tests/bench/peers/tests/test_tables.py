"""Peers and goals fit together, and tables say what was measured."""

import unittest

from peers import instructions, report
from peers.figures import Goal, Record
from peers.peers import read_goals, read_peers
from peers.rounds import Plan, order
from peers.rows import ROWS
from peers.scale import CASES

IDLE = {"envoy", "haproxy", "nginx", "eastway-gateway", "eastway-sidecar"}


class Files(unittest.TestCase):
    """peers.toml and goals.toml."""

    def test_every_goal_speaks_of_what_is_measured(self) -> None:
        measured = {f"idle/{name}" for name in IDLE} | {f"{case.row}/eastway" for case in CASES}
        for peer in read_peers().values():
            measured |= {f"{row.name}/{peer.name}" for kind in peer.kinds() for row in peer.rows_of(kind)}
        for goal in read_goals():
            for place in (goal.of, *goal.against):
                self.assertIn(place, measured, goal.name)
            self.assertNotEqual(goal.at_most is None, goal.at_least is None, goal.name)

    def test_every_row_that_a_peer_names_is_one(self) -> None:
        names = {row.name for row in ROWS}
        for peer in read_peers().values():
            self.assertLessEqual(set(peer.rows), names, peer.name)


class Order(unittest.TestCase):
    """Who comes after whom."""

    def test_every_second_round_is_backwards_and_kinds_stay_together(self) -> None:
        peers, plan = list(read_peers().values()), Plan(2, 1, groups=("pairs",))
        first, second = ([(peer.name, kind) for peer, kind in order(peers, number, plan)] for number in (0, 1))
        self.assertEqual(first[:4], [(name, "http") for name in ("envoy", "haproxy", "nginx", "eastway")])
        self.assertEqual(second[:4], first[3::-1])
        self.assertEqual(sorted(first), sorted(second))

    def test_only_rows_that_are_wanted_start_a_peer(self) -> None:
        plan = Plan(1, 1, rows=("bulk",))
        self.assertEqual({kind for _, kind in order(list(read_peers().values()), 0, plan)}, {"tcp"})


class Tables(unittest.TestCase):
    """Markdown and JSON."""

    def test_goals_and_rows_are_told(self) -> None:
        values = {"cpu": 40.0, "rate": 12345.0, "p99": 1.5, "bad": 0.0, "peak_rss.sidecar": 30.0}
        records = [Record("1", "http-16", "ours", values, 0.25), Record("1", "http-16", "b", values | {"cpu": 80.0})]
        goals = [Goal("less", "cpu", "http-16/ours", ("http-16/b",), at_most=0.4), Goal("x", "cpu", "r/p", at_most=1)]
        text = report.markdown(records, goals, {"cores": 2}, {"ours": "Ours"})
        self.assertIn("| less | ≤ 0.4 | 0.5 | 0.5 – 0.5 | 1 | 0.25 | missed |", text)
        self.assertIn("| x | ≤ 1 | - | - | 0 | 0.00 | not measured |", text)
        self.assertIn("| Ours | 40 (40 – 40) | 12,345 | 1.5 (1.5 – 1.5) | sidecar 30 | 0 | 0.25 |", text)
        told = report.results(records, goals, {"cores": 2})
        self.assertEqual([goal["verdict"] for goal in told["goals"]], ["missed", "not measured"])


class Instructions(unittest.TestCase):
    """Counted beside recorded."""

    def test_only_growth_beyond_the_tolerance_is_a_regression(self) -> None:
        recorded = {"a": 100.0, "b": 100.0, "c": 100.0}
        counted = {"a": 104.0, "b": 102.0, "c": 50.0, "d": 7.0}
        self.assertEqual(instructions.regressions(counted, recorded), ["a: +4.0%"])
        gateway = "gateway leaving, HTTP"
        self.assertEqual(instructions.regressions({gateway: 106.0}, {gateway: 100.0}), [])
        table = instructions.table(counted, recorded)
        self.assertIn("| c | 50 | 100 | -50.0% |", table)
        self.assertIn("| d | 7 | - | new |", table)


if __name__ == "__main__":
    unittest.main()
