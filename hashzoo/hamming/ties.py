"""Metrics of rankings with ties, as functions of counts.

Items at equal distance can be in any order. Each function returns the expected value over all orders
within the groups, each equally likely, in closed form (McSherry and Najork, ECIR 2008; He, Cakir, Bargal and
Sclaroff, CVPR 2018); ``best_ap`` and ``worst_ap`` return the extremes over all orders.

``cut`` is (Q,), the number of places evaluated, from 1 to the size of the ranking. Every result is (Q,)
float64 and is NaN for a query without a relevant item. Places are counted from 1.

A sum of 1/t over a group is a difference of two harmonic numbers, so their table is stored in the longest float
of the platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.hamming.counting import Counts
from hashzoo.hamming.packing import Ints

Floats = NDArray[np.float64]
Table = NDArray[np.longdouble]


@lru_cache(maxsize=2)
def _harmonic(size: int) -> Table:
    """(size + 1,) with entry n the sum of 1/t for t = 1..n."""
    return _summed(np.longdouble(1) / np.arange(1, size + 1, dtype=np.longdouble))


@lru_cache(maxsize=2)
def _discount(size: int) -> Table:
    """(size + 1,) with entry n the sum of 1/log2(t + 1) for t = 1..n."""
    return _summed(np.longdouble(1) / np.log2(np.arange(2, size + 2, dtype=np.longdouble)))


@lru_cache(maxsize=2)
def _log_factorial(size: int) -> Table:
    """(size + 1,) with entry n log n!."""
    return _summed(np.log(np.arange(1, size + 1, dtype=np.longdouble)))


def _summed(terms: Table) -> Table:
    table = np.concatenate([np.zeros(1, np.longdouble), np.cumsum(terms)])
    table.flags.writeable = False
    return table


def _between(table: Table, start: Any, stop: Any) -> Floats:
    """The terms of a summed table at positions start + 1 .. stop."""
    return np.asarray(np.take(table, stop) - np.take(table, start), dtype=np.float64)


def _divide(over: Any, under: Any) -> Floats:
    """The quotient, and 0 if the divisor is 0: an empty group contributes nothing."""
    result = np.zeros(np.broadcast(over, under).shape)
    np.divide(over, under, out=result, where=under != 0)
    return result


@dataclass(frozen=True)
class _Places:
    """Places of the groups: start + 1 .. start + items, of which the first ``taken`` are within the cut."""

    items: Any  # (Q, G) integers, as the fields below; a number for a single group
    relevant: Any
    start: Any
    hits: Any  # relevant items before the group
    taken: Any  # places of the group within the cut
    size: int

    @property
    def stop(self) -> Any:
        """The last place within the cut."""
        return self.start + self.taken

    def reciprocals(self) -> Floats:
        """The sum of 1/t over the places within the cut."""
        return _between(_harmonic(self.size), self.start, self.stop)


def _places(counts: Counts, cut: Ints) -> _Places:
    start = np.cumsum(counts.items, axis=1) - counts.items
    return _Places(
        items=counts.items,
        relevant=counts.relevant,
        start=start,
        hits=np.cumsum(counts.relevant, axis=1) - counts.relevant,
        taken=np.clip(cut[:, None] - start, 0, counts.items),
        size=int(counts.size.max()),
    )


def _normalised(total: Floats, by: NDArray[Any], positives: Ints) -> Floats:
    return np.where(positives > 0, _divide(total, by), np.nan)


def average_precision(counts: Counts, cut: Ints) -> Floats:
    """Expected AP over the first ``cut`` places, divided by min(relevant items, cut)."""
    positives = counts.positives
    total = _precisions(_places(counts, cut)).sum(axis=1)
    return _normalised(total, np.minimum(positives, cut), positives)


def _precisions(p: _Places) -> Floats:
    """The expected sum, over the places of a group within the cut, of the precision at each relevant item.

    Place t has a relevant item with probability relevant / items. The precision there counts that item,
    the hits before the group and the t - start - 1 items between, each relevant with probability
    (relevant - 1) / (items - 1).
    """
    between = _divide(p.relevant - 1, p.items - 1)
    inside = (p.hits + 1 - (p.start + 1) * between) * p.reciprocals() + p.taken * between
    return np.asarray(_divide(p.relevant, p.items) * inside)


def average_precision_by_hits(counts: Counts, cut: Ints) -> Floats:
    """Expected AP over the first ``cut`` places, divided by the relevant items there; 0 if there are none.

    The divisor varies with the order of the one group that the cut goes through: the hits h that it
    contributes are hypergeometric. Given h, they stand on random places of that part of the group, so the
    closed form holds for it with the places taken for its items and h for its relevant ones.
    """
    p, positives = _places(counts, cut), counts.positives
    whole = p.taken == p.items
    full = np.where(whole, _precisions(p), 0.0).sum(axis=1)
    found = np.where(whole, p.relevant, 0).sum(axis=1)
    value = _divide(full, found)
    split = (p.taken > 0) & ~whole
    for q, g in zip(*np.nonzero(split), strict=True):
        taken = p.taken[q, g]
        h, chance = _hypergeometric(int(p.items[q, g]), int(p.relevant[q, g]), int(taken))
        part = _Places(taken, h, p.start[q, g], found[q], taken, p.size)
        value[q] = (chance * _divide(full[q] + _precisions(part), found[q] + h)).sum()
    return np.where(positives > 0, value, np.nan)


def _hypergeometric(items: int, relevant: int, drawn: int) -> tuple[Ints, Floats]:
    """Numbers of relevant items among those drawn, and their probabilities.

    Values further than 5 sqrt(drawn) from the mean are left out; their total probability is below 4e-22
    (Hoeffding 1963, which holds for draws without replacement).
    """
    mean, reach = drawn * relevant / items, 5 * drawn**0.5 + 1
    first = max(0, drawn - (items - relevant), int(mean - reach))
    last = min(drawn, relevant, int(mean + reach) + 1)
    h = np.arange(first, last + 1)
    log = _log_factorial(items)
    likelihood = -(log[h] + log[relevant - h] + log[drawn - h] + log[items - relevant - drawn + h])
    chance = np.exp((likelihood - likelihood.max()).astype(np.float64))
    return h, chance / chance.sum()


def best_ap(counts: Counts, cut: Ints) -> Floats:
    """AP over the first ``cut`` places if the relevant items came first in each group."""
    p = _places(counts, cut)
    return _ordered_ap(counts, cut, p, p.start, np.minimum(p.relevant, p.taken))


def worst_ap(counts: Counts, cut: Ints) -> Floats:
    """AP over the first ``cut`` places if the relevant items came last in each group."""
    p = _places(counts, cut)
    others = p.items - p.relevant
    return _ordered_ap(counts, cut, p, p.start + np.minimum(others, p.taken), np.maximum(p.taken - others, 0))


def _ordered_ap(counts: Counts, cut: Ints, p: _Places, first: Ints, run: Ints) -> Floats:
    """AP when the relevant items of a group within the cut are at places first + 1 .. first + run.

    The sum over i of (hits + i) / (first + i) is run + (hits - first) times the reciprocals of those places.
    """
    total = run + (p.hits - first) * _between(_harmonic(p.size), first, first + run)
    return _normalised(total.sum(axis=1), np.minimum(counts.positives, cut), counts.positives)


def hits(counts: Counts, cut: Ints) -> Floats:
    """Expected number of relevant items within the first ``cut`` places."""
    p = _places(counts, cut)
    found = (_divide(p.relevant, p.items) * p.taken).sum(axis=1)
    return np.where(counts.positives > 0, found, np.nan)


def ndcg(counts: Counts, cut: Ints) -> Floats:
    """Expected DCG over the first ``cut`` places by that of the ideal order; gains are 2^r - 1 or those of counts."""
    p, grades = _places(counts, cut), graded(counts)
    table, gains = _discount(p.size), counts.gains
    if gains is None:
        gains = np.exp2(np.arange(grades.shape[2], dtype=np.float64)) - 1
    dcg = (_divide(grades @ gains, p.items) * _between(table, p.start, p.stop)).sum(axis=1)
    falling = grades.sum(axis=1)[:, ::-1]
    stop = np.minimum(np.cumsum(falling, axis=1), cut[:, None])
    start = np.minimum(np.cumsum(falling, axis=1) - falling, cut[:, None])
    ideal = (_between(table, start, stop) * gains[::-1]).sum(axis=1)
    return _normalised(dcg, ideal, counts.positives)


def acg(counts: Counts, cut: Ints) -> Floats:
    """Expected mean grade of the first ``cut`` items."""
    p = _places(counts, cut)
    total = (_divide(_shared(counts), p.items) * p.taken).sum(axis=1)
    return _normalised(total, cut, counts.positives)


def weighted_ap(counts: Counts) -> Floats:
    """Expected mean, over all relevant items, of the mean grade of the ranking down to that item.

    Inside a group of n items, with n+ relevant ones and S shared labels, an item at place t is relevant with
    probability n+/n; together with its own grade that is S/n, and with the grade of another item of the group
    S (n+ - 1) / (n (n - 1)). Over part of the ranking the divisor would vary with the order: no closed form.
    """
    p, grade = _places(counts, counts.size), _shared(counts)
    before = np.cumsum(grade, axis=1) - grade
    above = _divide(p.relevant, p.items) * before + _divide(grade, p.items)
    other = _divide(grade * (p.relevant - 1), p.items * (p.items - 1))
    reciprocals = p.reciprocals()
    total = above * reciprocals + other * (p.items - (p.start + 1) * reciprocals)
    return _normalised(total.sum(axis=1), counts.positives, counts.positives)


def _shared(counts: Counts) -> Floats:
    """(Q, G) the sum of grades of each group."""
    grades = graded(counts)
    return np.asarray(grades @ np.arange(grades.shape[2], dtype=np.float64))


def graded(counts: Counts) -> Ints:
    """The counts by grade. ValueError if there are none."""
    if counts.grades is None:
        raise ValueError("these counts have no grades; count with graded=True for ndcg, acg and wap")
    return counts.grades


def chance_ap(n: int, relevant: int) -> float:
    """Expected AP of a random order, all n items tied: (1/n) [H_n + (relevant - 1) / (n - 1) (n - H_n)].

    ValueError unless 1 <= relevant <= n.

    >>> round(chance_ap(1000, 100), 10)
    0.1058427665
    """
    if not 1 <= relevant <= n:
        raise ValueError(f"a ranking of {n} items cannot hold {relevant} relevant ones; give 1 to {n}")
    counts = Counts(np.array([[n]]), np.array([[relevant]]), None, hamming=False)
    return float(average_precision(counts, counts.size)[0])
