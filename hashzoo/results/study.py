"""What a study says without more training: who profits from tuning, and how much of the choice is luck.

Pure functions of the scores of trials, of which higher ones are better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

SWAPS = 9999
FEWEST = 6  # pairs of trials: with n of them, the least p value is 2 / 2^n


def expected_best(scores: Sequence[float], trials: int) -> float:
    """The expected best score of the default and ``trials - 1`` of the other trials, drawn without replacement.

    In closed form, so nothing is trained or drawn: with m others in ascending order, the best of n drawn ones is the
    i-th with probability C(i - 1, n - 1) / C(m, n).

    Args:
        scores: The score of the default, then those of the other trials.
        trials: Number of trials, from 1 to all.

    >>> [expected_best([0.5, 0.4, 0.6, 0.8], n) for n in (1, 2, 4)]
    [0.5, 0.6333333333333333, 0.8]
    """
    if not 1 <= trials <= len(scores):
        raise ValueError(f"{trials} of {len(scores)} trials cannot be drawn")
    default, others, drawn = scores[0], sorted(scores[1:]), trials - 1
    if not drawn:
        return default
    every = math.comb(len(others), drawn)
    chances = (math.comb(place, drawn - 1) / every for place in range(len(others)))
    return sum(chance * max(default, score) for chance, score in zip(chances, others, strict=True))


def selection_spread(scores: Sequence[float]) -> float:
    """The standard deviation of the chosen score if the trials are drawn again, with replacement.

    In closed form: the best of N draws out of N scores in ascending order is at most the i-th with probability
    (i / N)^N. The default is drawn like any other trial.

    >>> round(selection_spread([0.4, 0.5, 0.6, 0.8]), 4), selection_spread([0.5, 0.5])
    (0.1057, 0.0)
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    count = len(ordered)
    reached = (np.arange(count + 1) / count) ** count
    chances = np.diff(reached)
    mean = float(chances @ ordered)
    return math.sqrt(max(0.0, float(chances @ np.square(ordered - mean))))


def luck_test(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The p value of a two-sided permutation test that the best scores of two methods differ by the luck of trials.

    Trials of one number are a pair: they share the values that all methods share. If the methods are equal, the two
    scores of a pair can be swapped. The statistic is the difference of the best scores; 9,999 draws of swaps, the same
    for all tests, and the observed scores (Phipson & Smyth 2010). A test of the trained models alone does not account
    for this luck: it tells the two chosen settings apart, not the methods.

    Args:
        first: The scores of the trials of a method, in the order of their numbers.
        second: Those of the other method.

    Returns:
        The p value; None for fewer than ``FEWEST`` pairs, since no result of so few is below 0.05.

    >>> luck_test([0.8] * 9, [0.6] * 9) < 0.05, luck_test([0.9, *[0.1] * 8], [0.2] * 9) < 0.05
    (True, False)
    """
    count = min(len(first), len(second))
    if count < FEWEST:
        return None
    pairs = np.asarray([first[:count], second[:count]], dtype=float)  # (2, N)
    observed = abs(pairs[0].max() - pairs[1].max())
    swapped = _swaps(count)
    ours = np.where(swapped, pairs[1], pairs[0]).max(1)
    theirs = np.where(swapped, pairs[0], pairs[1]).max(1)
    reached = int((np.abs(ours - theirs) >= observed - 1e-12).sum())
    return (1 + reached) / (1 + SWAPS)


@cache
def _swaps(count: int) -> NDArray[np.bool_]:
    return np.random.default_rng(0).random((SWAPS, count)) < 0.5


def budgets(trials: int) -> list[int]:
    """The numbers of trials that a report shows.

    >>> budgets(20), budgets(4), budgets(1)
    ([1, 2, 5, 10, 20], [1, 2, 4], [1])
    """
    return sorted({*(n for n in (1, 2, 5, 10, 20, 50, 100) if n < trials), trials})


def ranks_by_budget(studies: Mapping[str, Sequence[Sequence[float]]], trials: Sequence[int]) -> dict[str, list[float]]:
    """The mean rank of each method at numbers of trials, over its blocks; 1 is the best.

    Args:
        studies: For each method the scores of its trials in every block, a dataset and code length, the default first.
        trials: Numbers of trials. A method with fewer trials has used all of its own.

    Returns:
        A mean rank by method and number of trials. Equal scores share the mean of their ranks.

    >>> ranks_by_budget({"steady": [[0.6, 0.5]], "late": [[0.4, 0.9]]}, [1, 2])
    {'steady': [1.0, 2.0], 'late': [2.0, 1.0]}
    """
    from scipy.stats import rankdata

    names = list(studies)
    columns = []
    for count in trials:
        scores = [[expected_best(one, min(count, len(one))) for one in studies[name]] for name in names]
        columns.append(np.mean(rankdata(-np.asarray(scores), axis=0), axis=1))
    return {name: [float(column[place]) for column in columns] for place, name in enumerate(names)}


def crossings(ranks: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    """The pairs of methods of which the first leads with one trial and the second with all of them.

    >>> crossings({"steady": [1.0, 2.0], "late": [2.0, 1.0]})
    [('steady', 'late')]
    """
    ordered = sorted(ranks, key=lambda name: (ranks[name][0], name))
    return [
        (first, second)
        for first, second in combinations(ordered, 2)
        if ranks[first][0] < ranks[second][0] and ranks[first][-1] > ranks[second][-1]
    ]
