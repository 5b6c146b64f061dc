"""The score of a random order of the database: its expected value, and its standard error over the queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hashzoo.evaluation.code_metrics import CodeMetric
from hashzoo.evaluation.metrics import ExtraMetrics, Metric, built_in, needs_grades, parse, score
from hashzoo.hamming.counting import Counts, concatenate_counts
from hashzoo.hamming.relevance import Relevance
from hashzoo.hamming.ties import Floats

# Random orders that give the variance: fewer for a large database, as each takes time in proportion to its size.
FEWEST, MOST, PLACES = 32, 300, 1 << 22
_TOGETHER = 1 << 20  # places of random orders in memory at a time
_UNBOUNDED = {"acg"}  # built-in metrics that can exceed 1


def has_chance(name: str, extra: ExtraMetrics | None = None) -> bool:
    """Whether a metric has a value for a random order: not one of a radius or of codes.

    >>> [has_chance(name) for name in ("map@100", "p@h2")]
    [True, False]
    """
    metric = parse(name, extra)
    return metric.radius is None and not isinstance((extra or {}).get(metric.family), CodeMetric)


def expected_scores(
    name: str, relevance: Relevance, queries: Sequence[int], extra: ExtraMetrics | None = None
) -> Floats:
    """The expected score of each query if the database is in random order.

    A metric of items at one distance is its expected value over all their orders, so this is exactly the score of a
    single group with all items.

    Args:
        name: A metric for which :func:`has_chance` is True.
        relevance: Labels of all queries and the database.
        queries: (Q,) rows of queries that have a relevant item.
        extra: Metrics of plugins.

    Returns:
        (Q,) expected scores.
    """
    metric, graded = _single_order(parse(name, extra)), needs_grades([name], extra)
    rows = {bytes(relevance.query[row]): row for row in queries}  # queries of the same labels have the same value
    groups = concatenate_counts([_one_group(relevance, row, graded) for row in rows.values()])
    expected = dict(zip(rows, score(groups, [metric], extra)[metric].tolist(), strict=True))
    return np.array([expected[bytes(relevance.query[row])] for row in queries])


def largest_error(name: str, expected: Floats) -> float:
    """An upper bound of the standard error of the mean of scores with these expected values (Q,).

    Scores from 0 to 1 with the mean m have at most the variance m (1 - m) (Bhatia & Davis 2000). It is infinite for a
    metric that is not built in or can exceed 1.

    >>> largest_error("map@all", np.full(100, 0.5))
    0.05
    """
    if not built_in(name) or parse(name).family in _UNBOUNDED:
        return math.inf
    return float(np.sqrt(np.mean(expected * (1 - expected)) / len(expected)))


def standard_error(
    name: str,
    relevance: Relevance,
    queries: Sequence[int],
    expected: Floats,
    extra: ExtraMetrics | None = None,
) -> float:
    """The standard deviation of the mean score of queries, each with the database in a random order of its own.

    The variance is estimated from 32 to 300 random orders of evenly spaced queries, drawn with a fixed seed.

    Args:
        name: A metric for which :func:`has_chance` is True.
        relevance: Labels of all queries and the database.
        queries: (Q,) rows of queries that have a relevant item.
        expected: (Q,) their :func:`expected_scores`.
        extra: Metrics of plugins.

    Returns:
        The standard error of the mean of ``expected``.
    """
    metric, graded = _single_order(parse(name, extra)), needs_grades([name], extra)
    items = relevance.database.shape[1]
    orders = int(np.clip(PLACES // items, FEWEST, MOST))
    places = np.linspace(0, len(queries), orders, endpoint=False).astype(int)  # a query can have several orders
    generator, squares = np.random.default_rng(0), 0.0
    for block in np.array_split(places, min(orders, -(-orders * items // _TOGETHER))):
        counts = concatenate_counts([_random_order(relevance, queries[i], graded, generator) for i in block])
        squares += float(np.square(score(counts, [metric], extra)[metric] - expected[block]).sum())
    return float(np.sqrt(squares / orders / len(queries)))


def _single_order(metric: Metric) -> str:
    """The metric of an order without ties: those of the best and the worst order of ties are the same then.

    >>> _single_order(parse("map@10:best/tail")), _single_order(parse("map@10:hits"))
    ('map@10', 'map@10:hits')
    """
    return metric.base.removesuffix(f":{metric.variant}") if metric.variant in ("best", "worst") else metric.base


def _one_group(relevance: Relevance, row: int, graded: bool) -> Counts:
    """The counts of one query if all items have the same distance."""
    relevant = relevance.relevant(row)
    grades = np.bincount(relevance.grades(row), minlength=relevance.highest + 1)[None, None] if graded else None
    return Counts(np.array([[len(relevant)]]), np.array([[int(relevant.sum())]]), grades, hamming=False)


def _random_order(relevance: Relevance, row: int, graded: bool, generator: np.random.Generator) -> Counts:
    """The counts of one query if all items are in random order, each in a group of its own."""
    order = generator.permutation(relevance.database.shape[1])
    relevant = relevance.relevant(row)[order].astype(np.int64)
    grades = np.eye(relevance.highest + 1, dtype=np.int64)[relevance.grades(row)[order]][None] if graded else None
    return Counts(np.ones((1, len(order)), np.int64), relevant[None], grades, hamming=False)
