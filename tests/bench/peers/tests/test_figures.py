"""Ratios, medians and verdicts."""

import unittest

from peers.figures import Goal, Record, Summary, judge, summaries, undisturbed, within_rounds


def record(round_: str, peer: str, cpu: float, others: float = 0.0) -> Record:
    """A record of the row `r`."""
    return Record(round_, "r", peer, {"cpu": cpu}, others)


RATIO = Goal("g", "cpu", "r/ours", ("r/a", "r/b"), at_most=0.8)


class WithinRounds(unittest.TestCase):
    """What is compared with what."""

    def test_each_round_is_compared_with_its_own_best(self) -> None:
        records = [record("1", "ours", 4), record("1", "a", 8), record("1", "b", 16)]
        records += [record("2", "ours", 40), record("2", "a", 160), record("2", "b", 50)]
        self.assertEqual(within_rounds(records, RATIO), [0.5, 0.8])

    def test_a_round_without_one_of_them_says_nothing(self) -> None:
        records = [record("1", "ours", 4), record("1", "a", 8), record("2", "a", 8), record("2", "b", 8)]
        self.assertEqual(within_rounds(records, RATIO), [])

    def test_where_more_is_better_the_best_is_the_greatest(self) -> None:
        goal = Goal("g", "cpu", "r/ours", ("r/a", "r/b"), at_least=1.8)
        records = [record("1", "ours", 8), record("1", "a", 2), record("1", "b", 4)]
        self.assertEqual(within_rounds(records, goal), [2])

    def test_an_absolute_goal_takes_the_values_themselves(self) -> None:
        self.assertEqual(within_rounds([record("1", "ours", 7)], Goal("g", "cpu", "r/ours", at_most=8)), [7])

    def test_nothing_is_divided_by_zero(self) -> None:
        records = [record("1", "ours", 4), record("1", "a", 0), record("1", "b", 1)]
        self.assertEqual(within_rounds(records, RATIO), [])


class Undisturbed(unittest.TestCase):
    """Leaving out what others disturbed."""

    def test_only_with_a_bound_is_anything_left_out(self) -> None:
        records = [record("1", "a", 1, 0.1), record("2", "a", 1, 0.9)]
        self.assertEqual(undisturbed(records, 0.2), records[:1])
        self.assertEqual(undisturbed(records, None), records)


class Judging(unittest.TestCase):
    """Medians, spreads and words."""

    def test_the_median_decides_and_the_spread_is_told(self) -> None:
        records = []
        for number, ours in enumerate((7, 9, 8)):
            records += [record(str(number), "ours", ours, number / 10), record(str(number), "a", 10)]
            records.append(record(str(number), "b", 20))
        verdict = judge(records, RATIO)
        self.assertEqual(verdict.summary, Summary(0.8, 0.7, 0.9, 3))
        self.assertEqual((verdict.word, verdict.medians, verdict.others), ("met", {"r/ours": 8, "r/a": 10, "r/b": 20}, 0.2))

    def test_above_the_bound_is_missed_and_without_records_not_measured(self) -> None:
        records = [record("1", "ours", 9), record("1", "a", 10), record("1", "b", 10)]
        self.assertEqual(judge(records, RATIO).word, "missed")
        self.assertEqual(judge([], RATIO).word, "not measured")

    def test_bounds_are_told_in_words(self) -> None:
        self.assertEqual((RATIO.bound(), Goal("g", "m", "r/p", at_least=1.8).bound()), ("≤ 0.8", "≥ 1.8"))


class Summaries(unittest.TestCase):
    """All measures of all rows."""

    def test_rows_keep_their_order_and_all_their_measures(self) -> None:
        records = [record("1", "b", 2), record("1", "a", 5), record("2", "b", 4, 0.5)]
        found = summaries(records)
        self.assertEqual(list(found), [("r", "b"), ("r", "a")])
        self.assertEqual(found["r", "b"], {"cpu": Summary(3, 2, 4, 2), "others": Summary(0.25, 0, 0.5, 2)})


if __name__ == "__main__":
    unittest.main()
