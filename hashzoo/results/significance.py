"""Tests and confidence intervals for differences of scores by query and by seed.

Pure functions with a fixed random seed, so the same differences give the same numbers. docs/concepts/significance.md
explains what each one tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

Floats = NDArray[np.float64]

DRAWS = 9999
RESAMPLES = 1999
LEVEL = 0.05
#: The least number of seeds that gives a variance of training.
FEWEST_SEEDS = 2

_EXACT = 12  # the largest number of differences for which all signs are enumerated
_CHUNK = 1 << 23  # numbers in memory at a time
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(100)


def sign_flip_test(differences: ArrayLike) -> Floats:
    """The p values (T,) of T two-sided paired permutation tests of differences (T, Q) by query.

    The statistic is the mean under flips of signs. Up to 12 differences other than 0, all signs are enumerated;
    otherwise there are 9,999 draws, the same for all tests, and the observed signs (Phipson & Smyth 2010). If the bound
    2 exp(-(sum d)^2 / 2 sum d^2) on the same probability (Hoeffding 1963) is smaller, it is returned, since 9,999 draws
    cannot give a p value below 1e-4.

    >>> sign_flip_test([[1, 2, 3, 4], [1, -1, 0, 0]]).tolist()
    [0.125, 1.0]
    """
    given = np.asarray(differences, dtype=float)
    found = np.ones(len(given))
    few = (given != 0).sum(1) <= _EXACT
    for row in np.flatnonzero(few):
        found[row] = _all_signs(given[row][given[row] != 0])
    many = given[~few]
    if len(many):
        reached = np.zeros(len(many))
        sums = np.abs(many.sum(1))
        slack = 1e-12 * np.abs(many).sum(1)
        for signs in _signs(many.shape[1]):
            reached += (np.abs(signs @ many.T) >= sums - slack).sum(0)
        bound = 2 * np.exp(-np.square(sums) / (2 * np.square(many).sum(1)))
        found[~few] = np.minimum((1 + reached) / (1 + DRAWS), bound)
    return found


def _all_signs(d: Floats) -> float:
    signs = 1.0 - 2.0 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
    return float((np.abs(signs @ d) >= abs(d.sum()) - 1e-12 * np.abs(d).sum()).mean())


def _signs(queries: int) -> Iterator[Floats]:
    generator = np.random.default_rng(0)
    step = max(1, _CHUNK // queries)
    for start in range(0, DRAWS, step):
        shape = (min(step, DRAWS - start), queries)
        yield np.asarray(1.0 - 2.0 * generator.integers(0, 2, shape, dtype=np.int8), dtype=np.float64)


def bootstrap_intervals(differences: ArrayLike) -> Floats:
    """Percentile intervals (T, 2) at 95 % of the means of differences (T, Q), from queries drawn with replacement.

    >>> bootstrap_intervals([[0.0, 1.0] * 50]).round(1).tolist()
    [[0.4, 0.6]]
    """
    given = np.asarray(differences, dtype=float)
    queries = given.shape[1]
    generator = np.random.default_rng(0)
    step = max(1, _CHUNK // queries)
    means = [
        generator.multinomial(queries, np.full(queries, 1 / queries), min(step, RESAMPLES - start)) @ given.T / queries
        for start in range(0, RESAMPLES, step)
    ]
    ends: Floats = np.quantile(np.concatenate(means), [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    return ends.T


def crossed_test(differences: ArrayLike) -> tuple[float, float, float]:
    """The p value and 95 % interval of the mean of differences (S, Q), with seeds and queries as random effects.

    The variance of the mean has two components, by the analysis of variance of two crossed random effects: v_s / S of
    the means of the S seeds, with S - 1 degrees of freedom, and v_q / Q of the means of the Q queries, minus the noise
    of single scores, which the first one includes. Their sum has the Behrens-Fisher distribution
    sqrt(v_s / S) t_{S-1} + sqrt(v_q / Q) t_{Q-1}. It is conservative if both components matter. Resampling S = 3 seeds
    instead covers 75 to 90 %, not 95 %. Raises ValueError for fewer than two seeds or queries.

    >>> [round(x, 3) for x in crossed_test([[0.1, 0.2, 0.3], [0.3, 0.4, 0.5], [0.2, 0.3, 0.4]])]
    [0.078, -0.078, 0.678]
    """
    given = np.asarray(differences, dtype=float)
    seeds, queries = given.shape
    if min(seeds, queries) < 2:
        raise ValueError(f"a variance needs two seeds and two queries, not {seeds} and {queries}")
    by_seed, by_query, mean = given.mean(1), given.mean(0), float(given.mean())
    rest = given - by_seed[:, None] - by_query + mean
    noise = np.square(rest).sum() / ((seeds - 1) * (queries - 1)) / (seeds * queries)
    of_queries = math.sqrt(max(by_query.var(ddof=1) / queries - noise, 0))
    of_seeds = math.sqrt(by_seed.var(ddof=1) / seeds)
    if of_queries + of_seeds == 0:
        return (1.0 if mean == 0 else 0.0), mean, mean
    p = 2 * _tail(abs(mean), of_queries, queries - 1, of_seeds, seeds - 1)
    low = 0.0
    high = float(-of_queries * stdtrit(queries - 1, LEVEL / 4) - of_seeds * stdtrit(seeds - 1, LEVEL / 4))
    for _ in range(50):  # bisect the half width, between 0 and the sum of the half widths of the two components
        middle = (low + high) / 2
        inside = _tail(middle, of_queries, queries - 1, of_seeds, seeds - 1) > LEVEL / 2
        low, high = (middle, high) if inside else (low, middle)
    return min(p, 1.0), mean - high, mean + high


def _tail(x: float, a: float, f: int, b: float, g: int) -> float:
    """P(a t_f + b t_g > x) of independent t_f and t_g, for x >= 0."""
    if b == 0 or a == 0:
        return float(stdtr(g, -x / b) if a == 0 else stdtr(f, -x / a))
    values, weights = _quadrature(f)
    return float(weights @ stdtr(g, -(x - a * values) / b))


@cache
def _quadrature(f: int) -> tuple[Floats, Floats]:
    """Nodes and weights for t_f, in u = P(t_f <= z), denser toward both ends, where the integrand changes most."""
    s = (1 + _NODES) / 2
    return np.asarray(stdtrit(f, s * s * (3 - 2 * s))), _WEIGHTS * 3 * s * (1 - s)


def holm(p: ArrayLike) -> Floats:
    """The p values (T,) of T tests, adjusted by Holm's step-down method (Holm 1979).

    Rejecting those below alpha has a family-wise error rate of at most alpha. scipy has no Holm correction, and
    statsmodels, which has one, is too large a dependency for a few lines; its results are the same.

    >>> holm([0.01, 0.04, 0.03, 0.005]).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    given = np.asarray(p, dtype=float)
    order = np.argsort(given, kind="stable")
    raised = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    found = np.empty(len(given))
    found[order] = np.minimum(raised, 1)
    return found
