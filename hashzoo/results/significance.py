"""Whether a difference is one: tests and intervals as pure functions of differences by query and by seed.

Chance has a fixed seed, so the same differences give the same numbers. docs/comparing.md says what each is of.
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
#: From how many seeds on there is a variance of training.
FEWEST_SEEDS = 2

_EXACT = 12  # differences up to which all signs are tried
_CHUNK = 1 << 23  # numbers held at a time
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(100)


def sign_flip(differences: ArrayLike) -> Floats:
    """(T,) p of T paired permutation tests on differences (T, Q) by query: signs are flipped, the mean is looked at.

    Two-sided. Up to 12 differences that are not 0 all signs are tried, else 9,999 draws, which are the same for all
    tests, and the observed signs (Phipson & Smyth 2010). Where the bound 2 exp(-(sum d)^2 / 2 sum d^2) on the same
    probability (Hoeffding 1963) is smaller, it is returned: so few draws cannot show a p below 1e-4.

    >>> sign_flip([[1, 2, 3, 4], [1, -1, 0, 0]]).tolist()
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


def resampled(differences: ArrayLike) -> Floats:
    """(T, 2) percentile intervals of 95 % of the means of differences (T, Q): queries drawn with replacement.

    >>> resampled([[0.0, 1.0] * 50]).round(1).tolist()
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


def trained_again(differences: ArrayLike) -> tuple[float, float, float]:
    """p, and the ends of the interval of 95 %, for differences (S, Q) of S seeds and Q queries, both drawn at random.

    The variance of the mean has a part of the seeds, v_s / S of the seeds' means, known to S - 1 degrees of freedom,
    and one of the queries, v_q / Q of the queries' means, less the noise of single scores, which the seeds' part has
    already (the analysis of variance of two crossed random effects). Their sum is taken as Behrens and Fisher did:
    sqrt(v_s / S) t_{S-1} + sqrt(v_q / Q) t_{Q-1}. Resampling S = 3 seeds instead would cover 75 to 90 %, not 95.
    It errs towards caution where both parts count. ValueError for fewer than two seeds or queries.

    >>> [round(x, 3) for x in trained_again([[0.1, 0.2, 0.3], [0.3, 0.4, 0.5], [0.2, 0.3, 0.4]])]
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
    for _ in range(50):  # the half width, between none and the two widths that cannot both be surpassed
        middle = (low + high) / 2
        inside = _tail(middle, of_queries, queries - 1, of_seeds, seeds - 1) > LEVEL / 2
        low, high = (middle, high) if inside else (low, middle)
    return min(p, 1.0), mean - high, mean + high


def _tail(x: float, a: float, f: int, b: float, g: int) -> float:
    """P(a t_f + b t_g > x), t_f and t_g independent, for x >= 0."""
    if b == 0 or a == 0:
        return float(stdtr(g, -x / b) if a == 0 else stdtr(f, -x / a))
    values, weights = _quadrature(f)
    return float(weights @ stdtr(g, -(x - a * values) / b))


@cache
def _quadrature(f: int) -> tuple[Floats, Floats]:
    """Values of t_f and their weights, by u = P(t_f <= z), stretched towards both ends, where an integrand changes."""
    s = (1 + _NODES) / 2
    return np.asarray(stdtrit(f, s * s * (3 - 2 * s))), _WEIGHTS * 3 * s * (1 - s)


def holm(p: ArrayLike) -> Floats:
    """(T,) p corrected for being T tests: rejecting those below alpha errs once or more with probability alpha at most.

    The smallest is multiplied by T, the next by T - 1, and none is below one before it (Holm 1979).

    >>> holm([0.01, 0.04, 0.03, 0.005]).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    given = np.asarray(p, dtype=float)
    order = np.argsort(given, kind="stable")
    raised = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    found = np.empty(len(given))
    found[order] = np.minimum(raised, 1)
    return found
