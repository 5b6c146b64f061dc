"""Retrieval metrics, computed from counts of items by distance, without sorting.

Ties are not ordered: ``map@R`` and the other metrics of ranks are expected values over all orders of equal distances,
so they depend neither on the order of the database nor on a sort (see :mod:`hashzoo.hamming.ties`). The names:

==================== =======================================================================================
map@all, map@R       average precision over the first R ranks, divided by min(relevant items, R)
map@R:hits           divided by the relevant items among the first R, only for comparison with published tables
map@R:best, :worst   the highest and the lowest value over all orders of ties
p@R, r@R             precision and recall of the first R ranks
p@hD, r@hD           precision (0 for an empty ball) and recall of the items within Hamming distance D
empty@hD             1 if no item is within distance D; the mean is the rate of failed lookups
ndcg@R, acg@R        of grades, the numbers of shared labels: gain 2^r - 1, discount 1 / log2(rank + 1)
wap@all              average precision weighted by grades
==================== =======================================================================================

A subset of the queries, or another kind of query, is named after a slash, if the benchmark defines it:
``map@all/head``, ``/medium`` and ``/tail`` are means over the queries of the third of the classes with the most
training images, the middle third and the last third. For queries composed of two images, ``/first`` and ``/second``
query with one of the two alone, and ``/bitwise`` with or, and, and-not of their codes.

Plugins add two kinds of metrics: functions of counts, with one value for each query, and functions of the codes
(:class:`hashzoo.CodeMetric`), with one value for all queries.

R can be ``all``; an R above the size N of the database means N, as a divisor too. A query without a relevant item is
NaN in every metric, excluded from the means and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import UsageError, unknown_name
from hashzoo.evaluation.code_metrics import CodeMetric, code_metrics
from hashzoo.hamming import ties
from hashzoo.hamming.counting import Counts, hamming_counts
from hashzoo.hamming.reading import read_codes, read_labels
from hashzoo.hamming.relevance import relevance
from hashzoo.hamming.ties import Floats, chance_ap

__all__ = [
    "Evaluation",
    "Metric",
    "built_in",
    "chance_ap",
    "evaluate",
    "higher_is_better",
    "needs_grades",
    "parse",
    "pr_curve",
    "score",
    "summarize",
]

#: Metrics of plugins by family: functions of counts and the cut-off in the name (None for all) that return (Q,) values,
#: or metrics of codes.
ExtraMetrics = Mapping[str, Callable[[Counts, int | None], NDArray[Any]] | CodeMetric]

_FORMS = {
    "map": ("all", "R", "all:best", "R:best", "all:worst", "R:worst", "all:hits", "R:hits"),
    "p": ("all", "R", "hD"),
    "r": ("all", "R", "hD"),
    "empty": ("hD",),
    "ndcg": ("all", "R"),
    "acg": ("all", "R"),
    "wap": ("all",),
}
_GRADED = {"ndcg", "acg", "wap"}
_LOWER_IS_BETTER = {"empty"}
GROUPS = ("head", "medium", "tail")
ASKINGS = ("first", "second", "bitwise")
_NAME = re.compile(r"(?P<family>[^@:/]+)(?:@(?P<place>all|h?\d+)(?::(?P<variant>\w+))?)?(?:/(?P<part>\w+))?")
_CHUNK = 1 << 17  # counts in memory at a time: a few MB of intermediate arrays for any number of queries


@dataclass(frozen=True)
class Metric:
    """A parsed metric name: the first ``cut`` ranks (None for all), or the items within ``radius``."""

    name: str
    family: str
    cut: int | None = None
    radius: int | None = None
    variant: str | None = None
    part: str = ""

    @property
    def base(self) -> str:
        """The name without its part."""
        return self.name.partition("/")[0]


def parse(name: str, extra: ExtraMetrics | None = None) -> Metric:
    """Parse the name of a metric. Raises UsageError, with the nearest existing name, for an unknown one.

    >>> parse("map@1000:hits")
    Metric(name='map@1000:hits', family='map', cut=1000, radius=None, variant='hits', part='')
    >>> parse("p@h2").radius
    2
    >>> parse("map@all/tail").part
    'tail'
    >>> parse("mpa@50")
    Traceback (most recent call last):
    hashzoo.errors.UsageError: no metric 'mpa@50'; did you mean 'map@50'?
    """
    extra = extra or {}
    if taken := sorted(set(extra) & set(_FORMS)):
        raise UsageError(f"metric {taken[0]!r} is built in; give the plugin's metric another name")
    read = _NAME.fullmatch(name)
    if read is None or not _exists(read, extra):
        raise UsageError(unknown_name("metric", name, _near(name, extra)))
    family, place, variant = read.group("family", "place", "variant")
    number = int(place.lstrip("h")) if place not in (None, "all") else None
    inside = place is not None and place.startswith("h")
    if number == 0 and not inside:
        raise UsageError(f"metric {name!r}: the cut-off must be at least 1")
    part = read["part"] or ""
    if part and isinstance(extra.get(family), CodeMetric):
        base = name.partition("/")[0]
        raise UsageError(f"metric {name!r}: {family} is one number for all queries and has no parts; use {base!r}")
    if part and part not in GROUPS + ASKINGS:
        raise UsageError(unknown_name("metric", name, [f"{name.partition('/')[0]}/{p}" for p in GROUPS + ASKINGS]))
    return Metric(name, family, None if inside else number, number if inside else None, variant, part)


def _exists(read: re.Match[str], extra: ExtraMetrics) -> bool:
    family, place, variant = read.group("family", "place", "variant")
    form = re.sub(r"\d+", "D" if (place or "").startswith("h") else "R", place or "")
    return (f"{form}:{variant}" if variant else form) in _forms(extra).get(family, ())


def _forms(extra: ExtraMetrics) -> dict[str, tuple[str, ...]]:
    """The forms that can follow the @ of each family; "" for the bare name."""
    added = {name: ("", "R") if metric.cutoff else ("",) for name, metric in code_metrics(extra, extra).items()}
    return _FORMS | dict.fromkeys(extra, ("", "all", "R")) | added


def _near(name: str, extra: ExtraMetrics) -> list[str]:
    """Existing names, of the same family if it exists, with the given number."""
    forms = _forms(extra)
    family = name.partition("@")[0]
    given = re.search(r"[1-9]\d*", name)
    cut, radius = (given[0], given[0]) if given else ("100", "2")
    return [
        f"{known}@{form.replace('R', cut).replace('D', radius)}" if form else known
        for known in ([family] if family in forms else forms)
        for form in forms[known]
    ]


def needs_grades(names: Iterable[str], extra: ExtraMetrics | None = None) -> bool:
    """Whether one of these metrics depends on the number of labels that a pair shares, so pairs are counted by grade.

    >>> needs_grades(["map@all", "p@h2"]), needs_grades(["ndcg@100"])
    (False, True)
    """
    return any(parse(name, extra).family in _GRADED for name in names)


def not_measured(kind: str, name: str, known: Sequence[str], extra: ExtraMetrics | None = None) -> str:
    """The message for a metric that a board does not have: how to measure it, or that it does not exist.

    Args:
        kind: What the name stands for, as "metric" or "column".
        name: The name.
        known: The names that the board has.
        extra: Metrics of plugins.

    >>> not_measured("metric", "map@all:best", ["map@all", "p@h2"])
    "metric 'map@all:best' was not measured; add it to --metrics of hashzoo bench, which measures the cells again; \
there are: map@all, p@h2"
    >>> not_measured("metric", "mpa@all", ["map@all"])
    "no metric 'mpa@all'; did you mean 'map@all'?"
    """
    with suppress(UsageError):
        parse(name, extra)
        return (
            f"{kind} {name!r} was not measured; add it to --metrics of hashzoo bench, which measures the cells again; "
            f"there are: {', '.join(known)}"
        )
    return unknown_name(kind, name, known)


def built_in(name: str) -> bool:
    """Whether the metric of a column of a board is defined in this module."""
    return re.split("[@/]", name)[0] in _FORMS


def higher_is_better(name: str, extra: ExtraMetrics | None = None) -> bool:
    """Whether the highest value of a metric is the best; False for an unknown metric.

    >>> [higher_is_better(name) for name in ("map@all/selected", "empty@h2", "whatever")]
    [True, False, False]
    """
    family = re.split("[@/]", name)[0]
    if isinstance(metric := (extra or {}).get(family), CodeMetric):
        return metric.higher_is_better
    return metric is not None or (built_in(name) and family not in _LOWER_IS_BETTER)


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
    if metric.part:
        raise UsageError(
            f"metric {metric.name!r} needs a benchmark, which defines {metric.part!r}; use {metric.base!r}"
        )
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
    graded = needs_grades(metrics, extra)
    pairs = relevance(query_labels, database_labels)
    step = max(1, _CHUNK // ((width + 1) * (pairs.highest + 1 if graded else 1)))
    found = summarize(
        score(hamming_counts(queries[rows], database, width, pairs[rows], graded), metrics, extra)
        for rows in (slice(start, start + step) for start in range(0, len(queries), step))
    )
    return replace(found, notes=(*code_notes, *label_notes))
