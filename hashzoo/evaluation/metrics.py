"""Retrieval metrics, computed from counts of items by distance, without sorting.

Ties are not ordered: ``map@R`` and the other metrics of ranks are expected values over all orders of equal distances,
so they depend neither on the order of the database nor on a sort (see :mod:`hashzoo.hamming.ties`). The names:

===================== ==========================================================================================
map@all, map@R        average precision over the first R ranks, divided by min(relevant items, R)
map@R:hits            divided by the relevant items among the first R, only for comparison with published tables
map@R:best, :worst    the highest and the lowest value over all orders of ties
p@R, r@R              precision and recall of the first R ranks
p@hD, r@hD            precision (0 for an empty ball) and recall of the items within Hamming distance D
empty@hD              1 if no item is within distance D; the mean is the rate of failed lookups
ndcg@R, acg@R         of grades, the numbers of shared labels: gain 2^r - 1, discount 1 / log2(rank + 1)
wap@all               average precision weighted by grades
recall@k, recall@k:fF share of the k exact neighbors among the first k, or F k, items
factor@k:T            the F at which the mean of recall@k:fF is T, such as 0.95
===================== ==========================================================================================

A subset of the queries, or another kind of query, is named after a slash, if the benchmark defines it:
``map@all/head``, ``/medium`` and ``/tail`` are means over the queries of the third of the classes with the most
training images, the middle third and the last third. For queries composed of two images, ``/first`` and ``/second``
query with one of the two alone, and ``/bitwise`` with or, and, and-not of their codes. For these queries, ``/strict``
at the end of a name gives grade 0 to items that hold a label that a difference removes, and ``/jaccard`` makes the
Jaccard index of the label sets of query and item the gain of ``ndcg``: ``ndcg@100/first/strict``. ``/asym`` compares
the relaxed code of a query with the bits of the items, for ``recall`` and ``factor``.

Plugins add two kinds of metrics: functions of counts, with one value for each query, and functions of the codes
(:class:`hashzoo.CodeMetric`), with one value for all queries.

R can be ``all``; an R above the size N of the database means N, as a divisor too. A query without a relevant item is
NaN in every metric, excluded from the means and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hashzoo.errors import UsageError
from hashzoo.evaluation.code_metrics import CodeMetric
from hashzoo.evaluation.metric_names import (
    ASKINGS,
    ASYMMETRIC,
    GAINS,
    GROUPS,
    ExtraMetrics,
    Metric,
    built_in,
    by_neighbours,
    higher_is_better,
    needs_grades,
    not_measured,
    parse,
)
from hashzoo.hamming import ties
from hashzoo.hamming.counting import Counts, hamming_counts
from hashzoo.hamming.reading import read_codes, read_labels
from hashzoo.hamming.relevance import relevance
from hashzoo.hamming.ties import Floats, chance_ap

__all__ = [
    "ASKINGS",
    "ASYMMETRIC",
    "GAINS",
    "GROUPS",
    "Evaluation",
    "ExtraMetrics",
    "Metric",
    "built_in",
    "by_neighbours",
    "chance_ap",
    "evaluate",
    "higher_is_better",
    "needs_grades",
    "not_measured",
    "parse",
    "pr_curve",
    "score",
    "summarize",
]

_CHUNK = 1 << 17  # counts in memory at a time: a few MB of intermediate arrays for any number of queries


def score(counts: Counts, names: Sequence[str], extra: ExtraMetrics | None = None) -> dict[str, Floats]:
    """The values (Q,) of each metric for each query; NaN for a query without a relevant item.

    Raises UsageError for an unknown name, and for a radius if distances are not integers; ValueError for a graded
    metric of counts without grades, and for a metric of a plugin that does not return (Q,) numbers.

    >>> counts = Counts(np.array([[1, 3, 1]]), np.array([[1, 2, 0]]), None, hamming=True)
    >>> {name: round(float(value[0]), 6) for name, value in score(counts, ["map@all", "p@h1"]).items()}
    {'map@all': 0.907407, 'p@h1': 0.75}
    """
    if not names:
        raise UsageError("no metric given; the usual one is 'map@all'")
    return {name: _score(counts, parse(name, extra), extra or {}) for name in names}


def _score(counts: Counts, metric: Metric, extra: ExtraMetrics) -> Floats:
    if metric.target is not None:
        raise UsageError(f"metric {metric.name!r} is one number for all queries; only a benchmark measures it")
    if needed := metric.part or metric.gain:
        raise UsageError(f"metric {metric.name!r} needs a benchmark, which defines {needed!r}; use {metric.base!r}")
    positives = counts.positives
    if isinstance(own := extra.get(metric.family), CodeMetric):
        raise UsageError(f"metric {metric.name!r} is computed from codes, not counts; only a benchmark measures it")
    if own is not None:
        given = np.asarray(own(counts, metric.cut), dtype=np.float64)
        if given.shape != positives.shape or np.isnan(given[positives > 0]).any():
            raise ValueError(
                f"metric {metric.name!r} must return one number for each query ({len(counts)},), "
                f"not {given.shape} with {int(np.isnan(given).sum())} NaN"
            )
        return np.where(positives > 0, given, np.nan)
    if metric.radius is not None:
        return _within(counts, metric, metric.radius)
    size = counts.size
    cut = size if metric.cut is None else np.minimum(size, metric.cut)
    match metric.family, metric.variant:
        case "map", None:
            return ties.average_precision(counts, cut)
        case "map", "hits":
            return ties.average_precision_by_hits(counts, cut)
        case "map", "best":
            return ties.best_ap(counts, cut)
        case "map", _:
            return ties.worst_ap(counts, cut)
        case "p", _:
            return ties.hits(counts, cut) / cut
        case "r", _:
            return ties.hits(counts, cut) / np.maximum(positives, 1)
        case "recall", _:
            return ties.hits(counts, np.minimum(size, metric.places)) / np.maximum(positives, 1)
        case "ndcg", _:
            return ties.ndcg(counts, cut)
        case "acg", _:
            return ties.acg(counts, cut)
        case _:
            return ties.weighted_ap(counts)


def _within(counts: Counts, metric: Metric, radius: int) -> Floats:
    if not counts.hamming:
        raise UsageError(f"metric {metric.name!r} needs integer Hamming distances, which this index does not have")
    ball, found = (side[:, : radius + 1].sum(axis=1) for side in (counts.items, counts.relevant))
    values = {
        "p": found / np.maximum(ball, 1),
        "r": found / np.maximum(counts.positives, 1),
        "empty": (ball == 0).astype(np.float64),
    }
    return np.where(counts.positives > 0, values[metric.family], np.nan)


def pr_curve(counts: Counts) -> tuple[Floats, Floats]:
    """Precision and recall (Q, K + 1) within each radius 0..K; an empty ball has precision 0.

    The rows of queries without a relevant item are NaN. Raises UsageError if distances are not integers.

    >>> counts = Counts(np.array([[1, 3, 1]]), np.array([[1, 2, 0]]), None, hamming=True)
    >>> [side.round(3).tolist() for side in pr_curve(counts)]
    [[[1.0, 0.75, 0.6]], [[0.333, 1.0, 1.0]]]
    """
    if not counts.hamming:
        raise UsageError("a curve by radius needs integer Hamming distances, which this index does not have")
    positives = counts.positives[:, None]
    found = np.cumsum(counts.relevant, axis=1)
    precision = found / np.maximum(np.cumsum(counts.items, axis=1), 1)
    keep = positives > 0
    return np.where(keep, precision, np.nan), np.where(keep, found / np.maximum(positives, 1), np.nan)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a set of queries.

    Attributes:
        means: The mean of each metric over the queries that have a relevant item.
        per_query: The values (Q,) of each metric; NaN for a query without a relevant item.
        excluded: Number of queries without a relevant item.
        notes: How codes and labels were read that are neither bool, packed nor integers, one sentence each.
    """

    means: dict[str, float]
    per_query: dict[str, Floats]
    excluded: int
    notes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def queries(self) -> int:
        """Number of queries, including those without a relevant item."""
        return len(next(iter(self.per_query.values())))


def summarize(chunks: Iterable[Mapping[str, Floats]]) -> Evaluation:
    """Combine the results of :func:`score` for successive chunks of queries. Raises ValueError if there is none.

    Means are NaN if no query has a relevant item.

    >>> summarize([{"map@all": np.array([1.0, np.nan])}, {"map@all": np.array([0.5])}])
    Evaluation(means={'map@all': 0.75}, per_query={'map@all': array([1. , nan, 0.5])}, excluded=1)
    """
    parts = list(chunks)
    if not parts:
        raise ValueError("there is nothing to summarize; score at least one chunk of queries")
    per_query = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    known = {name: values[~np.isnan(values)] for name, values in per_query.items()}
    means = {name: float(values.mean()) if len(values) else float("nan") for name, values in known.items()}
    excluded = int(np.isnan(next(iter(per_query.values()))).sum()) if per_query else 0
    return Evaluation(means, per_query, excluded)


def evaluate(
    query_codes: Any,
    database_codes: Any,
    query_labels: Any,
    database_labels: Any,
    metrics: Sequence[str] = ("map@all",),
    bits: int | None = None,
    extra: ExtraMetrics | None = None,
) -> Evaluation:
    """Evaluate the ranking of a database by Hamming distance for each query.

    Ties of distance are not ordered: each metric is its expected value over all orders of tied items.

    Args:
        query_codes: Codes of the queries: bool (Q, K), numbers (Q, K) that are all 0 and 1 or all -1 and +1, or uint8
            (Q, B) packed by ``pack``. uint8 of only two values is refused without ``bits``, since it can be either.
        database_codes: Codes of the database, likewise.
        query_labels: Labels of the queries: integers (Q,) or (Q, 1), or multi-hot (Q, C). Two items are relevant if
            they share a label.
        database_labels: Labels of the database, likewise.
        metrics: Names of metrics, such as ``"map@all"``, ``"p@100"`` or ``"p@h2"``.
        bits: Number of bits K, by default 8 B for packed codes. The bits after it must be zero.
        extra: Further metrics by family name, requested as ``name``, ``name@all`` or ``name@R``. Each is a function of
            counts and the cut-off (None for all) that returns one value for each query (Q,).

    Returns:
        The metrics of each query, their means, and how codes and labels of other types were read.

    Raises:
        UsageError: If a metric does not exist.
        ValueError: If codes or labels can be read in two ways or in none, or their shapes do not match.

    >>> codes = np.array([[1, 1], [1, 0], [0, 0]], bool)
    >>> evaluate(codes[:1], codes, [7], [7, 4, 7]).means
    {'map@all': 0.8333333333333333}
    """
    queries, database, width, code_notes = read_codes(query_codes, database_codes, bits)
    query_labels, database_labels, label_notes = read_labels(query_labels, database_labels)
    sides = ("query", query_labels, queries), ("database", database_labels, database)
    for name, labels, codes in sides:
        if len(labels) != len(codes):
            raise ValueError(f"{name}_labels has {len(labels)} rows for the {len(codes)} rows of {name}_codes")
    if exact := [name for name in metrics if parse(name, extra).by_neighbours]:
        raise UsageError(f"metric {exact[0]!r} needs exact neighbours, not labels; use r@K, or hashzoo bench vectors")
    graded = needs_grades(metrics, extra)
    pairs = relevance(query_labels, database_labels)
    step = max(1, _CHUNK // ((width + 1) * (pairs.highest + 1 if graded else 1)))
    found = summarize(
        score(hamming_counts(queries[rows], database, width, pairs[rows], graded), metrics, extra)
        for rows in (slice(start, start + step) for start in range(0, len(queries), step))
    )
    return replace(found, notes=(*code_notes, *label_notes))
