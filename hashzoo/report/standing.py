"""How the rows of one dataset and one number of bits stand to the best of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

from hashzoo.report.results import DatasetBoard, Entry
from hashzoo.results.paired import EQUAL, UNLIKE, compare_pairs
from hashzoo.results.significance import FEWEST_SEEDS, LEVEL, holm

#: What a p is of, by the name of its test.
TESTS = {
    "training": "training again with other seeds and asking other queries",
    "models": "asking these trained models other queries",
    "seeds": "training again with other seeds and asking the same queries",
}


@dataclass(frozen=True)
class Standing:
    """A row's difference from the best of its block, with its interval of 95 % and p, corrected within the block.

    ``test`` is a name in TESTS, empty where nothing was tested; then ``reason`` says why.
    """

    difference: float
    interval: tuple[float, float] | None = None
    p: float | None = None
    test: str = ""
    reason: str = ""

    @property
    def alike(self) -> bool:
        """Whether it cannot be told from the best at 5 %."""
        return self.p is not None and self.p >= LEVEL


def standings(board: DatasetBoard, bits: int) -> dict[int, Standing]:
    """By ``id`` of the entry, how each that competes stands to the best; the best itself is not among them."""
    best = board.best(bits)
    if best is None:
        return {}
    others = [e for e in board.at(bits) if e is not best and e.competes and e.score(board.metric) is not None]
    if not others:
        return {}
    pairs = compare_pairs([(best.row, other.row) for other in others], board.metric)
    found: dict[int, Standing] = {}
    untested = []
    for other, pair in zip(others, pairs, strict=True):
        p, test = (pair.of_training, "training") if pair.of_training is not None else (pair.of_models, "models")
        found[id(other)] = Standing(
            pair.after - pair.before, pair.interval, p, test if p is not None else "", pair.reason
        )
        if pair.reason == EQUAL:
            found[id(other)] = replace(found[id(other)], p=1.0, test="training" if pair.seeds > 1 else "models")
        elif p is None and pair.reason != UNLIKE:
            untested.append(other)
    return found | _by_seeds(best, untested, board.metric)


def _by_seeds(best: Entry, others: Sequence[Entry], metric: str) -> dict[int, Standing]:
    """What can be said without the scores of single queries."""
    ours = _seeds(best, metric)
    tested = [(other, theirs) for other in others if len(theirs := _seeds(other, metric)) >= FEWEST_SEEDS]
    if len(ours) < FEWEST_SEEDS:
        return {}
    results = [welch(ours, theirs) for _, theirs in tested]
    corrected = holm([p for p, _, _ in results])
    return {
        id(other): Standing((low + high) / 2, (low, high), float(p), "seeds")
        for (other, _), (_, low, high), p in zip(tested, results, corrected, strict=True)
    }


def _seeds(entry: Entry, metric: str) -> list[float]:
    known = [cell.metrics.get(metric, math.nan) for cell in entry.ok]
    return [value for value in known if math.isfinite(value)]


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """p, and the interval of 95 % of the second mean less the first, by Welch's t of two samples of two or more.

    Where neither varies at all, the difference is what it is.

    >>> [round(x, 3) for x in welch([0.5, 0.6, 0.7], [0.3, 0.4, 0.5])]
    [0.07, -0.427, 0.027]
    """
    means = float(np.mean(second)) - float(np.mean(first))
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (first, second)]
    total = sum(parts)
    if total == 0:
        return (1.0 if means == 0 else 0.0), means, means
    freedom = total**2 / sum(v**2 / (len(s) - 1) for v, s in zip(parts, (first, second), strict=True))
    half = float(-stdtrit(freedom, LEVEL / 2)) * math.sqrt(total)
    return float(2 * stdtr(freedom, -abs(means) / math.sqrt(total))), means - half, means + half
