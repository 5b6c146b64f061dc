"""How far rows are behind the best row of their dataset and code length, and whether the difference is significant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

from hashzoo.report.results import BoardEntry, DatasetBoard, Results
from hashzoo.results.paired import EQUAL, UNLIKE, compare_pairs
from hashzoo.results.significance import FEWEST_SEEDS, LEVEL, holm

#: Name of a test -> the variation that its p values account for.
TESTS = {
    "training": "seeds and queries",
    "models": "queries, for the models as they were trained",
    "seeds": "seeds, for the same queries",
}


@dataclass(frozen=True)
class GapToBest:
    """The difference of a row from the best row of its block.

    Attributes:
        difference: The score of this row minus that of the best.
        interval: The 95 % interval of the difference.
        p: The p value of the difference, corrected for all rows of the block.
        test: A name in ``TESTS``; empty if there was no test.
        reason: Why there was no test.
    """

    difference: float
    interval: tuple[float, float] | None = None
    p: float | None = None
    test: str = ""
    reason: str = ""

    @property
    def insignificant(self) -> bool:
        """Whether a test found no significant difference at the 5 % level."""
        return self.p is not None and self.p >= LEVEL


def gaps_to_best(board: DatasetBoard, bits: int) -> dict[int, GapToBest]:
    """The gap of each competing row of a code length, except the best one, by ``id`` of the entry."""
    best = board.best(bits)
    if best is None:
        return {}
    others = [e for e in board.entries_at(bits) if e is not best and e.competes and e.score(board.metric) is not None]
    if not others:
        return {}
    pairs = compare_pairs([(best.row, other.row) for other in others], board.metric)
    gaps: dict[int, GapToBest] = {}
    untested = []
    for other, pair in zip(others, pairs, strict=True):
        p, test = (pair.of_training, "training") if pair.of_training is not None else (pair.of_models, "models")
        gap = GapToBest(pair.after - pair.before, pair.interval, p, test if p is not None else "", pair.reason)
        if pair.reason == EQUAL:
            gap = replace(gap, p=1.0, test="training" if pair.seeds > 1 else "models")
        elif p is None and pair.reason != UNLIKE:
            untested.append(other)
        gaps[id(other)] = gap
    return gaps | _gaps_by_seeds(best, untested, board.metric)


def rows_like_best(results: Results) -> tuple[frozenset[int], str]:
    """The rows of a board that do not differ significantly from the best one of their dataset and code length.

    Returns:
        Their numbers in ``results.frame``, and a text that names the tests.
    """
    numbers = {id(row): number for number, row in enumerate(results.rows)}
    found, tests = set[int](), set[str]()
    for board in results.boards:
        for bits in board.bits:
            gaps = gaps_to_best(board, bits)
            tests |= {gap.test for gap in gaps.values() if gap.test}
            alike = [entry for entry in board.entries_at(bits) if id(entry) in gaps and gaps[id(entry)].insignificant]
            found |= {numbers[id(entry.row)] for entry in alike}
    variation = "; or over ".join(TESTS[name] for name in TESTS if name in tests)
    return frozenset(found), f"p values are corrected for all rows (Holm), variation over {variation}" if tests else ""


def _gaps_by_seeds(best: BoardEntry, others: Sequence[BoardEntry], metric: str) -> dict[int, GapToBest]:
    """Gaps that are tested without the scores of single queries."""
    best_scores = _scores_of_seeds(best, metric)
    tested = [(other, scores) for other in others if len(scores := _scores_of_seeds(other, metric)) >= FEWEST_SEEDS]
    if len(best_scores) < FEWEST_SEEDS:
        return {}
    results = [welch_test(best_scores, scores) for _, scores in tested]
    corrected = holm([p for p, _, _ in results])
    return {
        id(other): GapToBest((low + high) / 2, (low, high), float(p), "seeds")
        for (other, _), (_, low, high), p in zip(tested, results, corrected, strict=True)
    }


def _scores_of_seeds(entry: BoardEntry, metric: str) -> list[float]:
    scores = [cell.metrics.get(metric, math.nan) for cell in entry.ok_cells]
    return [score for score in scores if math.isfinite(score)]


def welch_test(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Welch's t test of two samples of two values or more: p, and the 95 % interval of mean(second) - mean(first).

    If both samples are constant, the interval is the difference itself, and p is 0 or 1.

    >>> [round(x, 3) for x in welch_test([0.5, 0.6, 0.7], [0.3, 0.4, 0.5])]
    [0.07, -0.427, 0.027]
    """
    difference = float(np.mean(second)) - float(np.mean(first))
    variances = [float(np.var(sample, ddof=1)) / len(sample) for sample in (first, second)]
    total = sum(variances)
    if total == 0:
        return (1.0 if difference == 0 else 0.0), difference, difference
    freedom = total**2 / sum(v**2 / (len(s) - 1) for v, s in zip(variances, (first, second), strict=True))
    half = float(-stdtrit(freedom, LEVEL / 2)) * math.sqrt(total)
    p = float(2 * stdtr(freedom, -abs(difference) / math.sqrt(total)))
    return p, difference - half, difference + half
