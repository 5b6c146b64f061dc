"""What a ranking by codes is worth: named metrics, computed from counts without ranking anything.

Ties have no order here. ``map@R`` and its kin are expected values over all orders of equal distances, so they
depend neither on the order of the database nor on a sort (ties.py has the forms). The names:

==================== =======================================================================================
map@all, map@R       average precision over the first R places, divided by min(relevant items, R)
map@R:hits           divided by the relevant items among the first R: for comparing with published tables only
map@R:best, :worst   the highest and the lowest that an order of ties could have given
p@R, r@R             precision and recall of the first R places
p@hD, r@hD           precision (0 for an empty ball) and recall of the items within Hamming distance D
empty@hD             1 where no item is within distance D: its mean is the rate of failed lookups
ndcg@R, acg@R        of grades, the number of shared labels: gain 2^r - 1, discount 1 / log2(place + 1)
wap@all              average precision weighted by grades
==================== =======================================================================================

A part of the queries, or another way to ask them, is named behind a slash, where a benchmark knows it:
``map@all/head``, ``/medium`` and ``/tail`` are means over the queries of the third of the classes with most training
images, the middle and the last third; on queries composed of two images, ``/first`` and ``/second`` ask with
one of the two alone, and ``/bitwise`` with or, and, and-not of their codes.

A plugin adds metrics of two kinds: functions of counts, which stand beside these, and functions of the codes
themselves (diagnostics.py), one number for all queries.

R may be ``all``, and an R above the size N of the database means N, as a divisor too. A query without a
relevant item is NaN in every metric, left out of the means and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import UsageError, unknown_name
from hashzoo.evaluation.code_metrics import CodeMetric, code_metrics
from hashzoo.hamming import ties
from hashzoo.hamming.counting import Counts, hamming_counts, pack, relevance
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
    "summarise",
]

#: Metrics from outside by family: from counts and the cut-off in the name (None for all) to (Q,) values, or of codes.
Extra = Mapping[str, Callable[[Counts, int | None], NDArray[Any]] | CodeMetric]

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
_FAULTS = {"empty"}  # to star the highest would praise it
GROUPS = ("head", "medium", "tail")
ASKINGS = ("first", "second", "bitwise")
_NAME = re.compile(r"(?P<family>[^@:/]+)(?:@(?P<place>all|h?\d+)(?::(?P<variant>\w+))?)?(?:/(?P<part>\w+))?")
_CHUNK = 1 << 17  # counts held at a time: a few MB of intermediate arrays whatever the number of queries


@dataclass(frozen=True)
class Metric:
    """A metric's name, read: ``cut`` places or all of them (None), or the items within ``radius``."""

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


def parse(name: str, extra: Extra | None = None) -> Metric:
    """Read a metric's name; UsageError, with the nearest name that exists, for one that does not.

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
        raise UsageError(f"metric {name!r} looks at no place; a cut-off is at least 1")
    part = read["part"] or ""
    if part and isinstance(extra.get(family), CodeMetric):
        base = name.partition("/")[0]
        raise UsageError(f"metric {name!r}: {family} is one number for all queries and has no parts; ask {base!r}")
    if part and part not in GROUPS + ASKINGS:
        raise UsageError(unknown_name("metric", name, [f"{name.partition('/')[0]}/{p}" for p in GROUPS + ASKINGS]))
    return Metric(name, family, None if inside else number, number if inside else None, variant, part)


def _exists(read: re.Match[str], extra: Extra) -> bool:
    family, place, variant = read.group("family", "place", "variant")
    form = re.sub(r"\d+", "D" if (place or "").startswith("h") else "R", place or "")
    return (f"{form}:{variant}" if variant else form) in _forms(extra).get(family, ())


def _forms(extra: Extra) -> dict[str, tuple[str, ...]]:
    """What may stand behind each family's @; "" where the bare name will do."""
    added = {name: ("", "R") if metric.cutoff else ("",) for name, metric in code_metrics(extra, extra).items()}
    return _FORMS | dict.fromkeys(extra, ("", "all", "R")) | added


def _near(name: str, extra: Extra) -> list[str]:
    """The names there are, of the same family if there is one, with the number that was given."""
    forms = _forms(extra)
    family = name.partition("@")[0]
    given = re.search(r"[1-9]\d*", name)
    cut, radius = (given[0], given[0]) if given else ("100", "2")
    return [
        f"{known}@{form.replace('R', cut).replace('D', radius)}" if form else known
        for known in ([family] if family in forms else forms)
        for form in forms[known]
    ]


def needs_grades(names: Iterable[str], extra: Extra | None = None) -> bool:
    """Whether one of these metrics reads how many labels a pair shares: then pairs are counted by grade.

    >>> needs_grades(["map@all", "p@h2"]), needs_grades(["ndcg@100"])
    (False, True)
    """
    return any(parse(name, extra).family in _GRADED for name in names)


def built_in(name: str) -> bool:
    """Whether the metric of a board's column is one of this module."""
    return re.split("[@/]", name)[0] in _FORMS


def higher_is_better(name: str, extra: Extra | None = None) -> bool:
    """Whether the highest value of a board's column is the best; of a metric that nobody here knows it is not said.

    >>> [higher_is_better(name) for name in ("map@all/selected", "empty@h2", "whatever")]
    [True, False, False]
    """
    family = re.split("[@/]", name)[0]
    if isinstance(metric := (extra or {}).get(family), CodeMetric):
        return metric.higher_is_better
    return metric is not None or (built_in(name) and family not in _FAULTS)


def score(counts: Counts, names: Sequence[str], extra: Extra | None = None) -> dict[str, Floats]:
    """Each metric for each query: name -> (Q,), NaN for a query without a relevant item.

    UsageError for an unknown name, or for a radius where distances are not integers; ValueError for a graded
    metric of counts without grades, or for a plugin's metric that is not (Q,) numbers.

    >>> counts = Counts(np.array([[1, 3, 1]]), np.array([[1, 2, 0]]), None, integer=True)
    >>> {name: round(float(value[0]), 6) for name, value in score(counts, ["map@all", "p@h1"]).items()}
    {'map@all': 0.907407, 'p@h1': 0.75}
    """
    if not names:
        raise UsageError("no metric asked for; 'map@all' is the usual one")
    return {name: _score(counts, parse(name, extra), extra or {}) for name in names}


def _score(counts: Counts, metric: Metric, extra: Extra) -> Floats:
    if metric.part:
        raise UsageError(
            f"metric {metric.name!r} needs a benchmark, which knows what {metric.part!r} is; ask {metric.base!r}"
        )
    positives = counts.positives
    if isinstance(own := extra.get(metric.family), CodeMetric):
        raise UsageError(f"metric {metric.name!r} is of codes, and here are counts; only a benchmark measures it")
    if own is not None:
        given = np.asarray(own(counts, metric.cut), dtype=np.float64)
        if given.shape != positives.shape or np.isnan(given[positives > 0]).any():
            raise ValueError(
                f"metric {metric.name!r} must give one number a query ({len(counts)},), "
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
    if not counts.integer:
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

    The rows of queries without a relevant item are NaN. UsageError where distances are not integers.

    >>> counts = Counts(np.array([[1, 3, 1]]), np.array([[1, 2, 0]]), None, integer=True)
    >>> [side.round(3).tolist() for side in pr_curve(counts)]
    [[[1.0, 0.75, 0.6]], [[0.333, 1.0, 1.0]]]
    """
    if not counts.integer:
        raise UsageError("a curve by radius needs integer Hamming distances, which this index does not have")
    positives = counts.positives[:, None]
    found = np.cumsum(counts.relevant, axis=1)
    precision = found / np.maximum(np.cumsum(counts.items, axis=1), 1)
    keep = positives > 0
    return np.where(keep, precision, np.nan), np.where(keep, found / np.maximum(positives, 1), np.nan)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of all queries; the means leave out the ``excluded`` queries, which have no relevant item."""

    means: dict[str, float]
    per_query: dict[str, Floats]  # each (Q,)
    excluded: int

    @property
    def queries(self) -> int:
        """Queries asked, those without a relevant item included."""
        return len(next(iter(self.per_query.values())))


def summarise(chunks: Iterable[Mapping[str, Floats]]) -> Evaluation:
    """Join what :func:`score` gave for successive chunks of queries; ValueError when there is none.

    With no relevant item for any query, the means are NaN.

    >>> summarise([{"map@all": np.array([1.0, np.nan])}, {"map@all": np.array([0.5])}])
    Evaluation(means={'map@all': 0.75}, per_query={'map@all': array([1. , nan, 0.5])}, excluded=1)
    """
    parts = list(chunks)
    if not parts:
        raise ValueError("there is nothing to summarise; score at least one chunk of queries")
    per_query = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    kept = {name: values[~np.isnan(values)] for name, values in per_query.items()}
    means = {name: float(values.mean()) if len(values) else float("nan") for name, values in kept.items()}
    excluded = int(np.isnan(next(iter(per_query.values()))).sum()) if per_query else 0
    return Evaluation(means, per_query, excluded)


def evaluate(
    query_codes: Any,
    database_codes: Any,
    query_labels: Any,
    database_labels: Any,
    metrics: Sequence[str] = ("map@all",),
    bits: int | None = None,
    extra: Extra | None = None,
) -> Evaluation:
    """Rank a database by Hamming distance for each query and measure it.

    Codes are bool (N, K), or uint8 (N, B) as :func:`hashzoo.hamming.counting.pack` makes them; ``bits`` then says how
    many of the 8 B bits there are, and the rest must be zero. Labels are integers (N,) or multi-hot (N, C).
    ``extra`` holds metrics by family name, asked for as ``name``, ``name@all`` or ``name@R``.

    ValueError names the argument that does not fit; UsageError a metric that does not exist.

    >>> codes = np.array([[1, 1], [1, 0], [0, 0]], bool)
    >>> evaluate(codes[:1], codes, [7], [7, 4, 7]).means
    {'map@all': 0.8333333333333333}
    """
    queries, width = _packed(query_codes, bits, "query_codes")
    database, stored = _packed(database_codes, bits, "database_codes")
    if width != stored:
        raise ValueError(f"query_codes have {width} bits and database_codes {stored}; encode both the same way")
    sides = ("query", query_labels, queries), ("database", database_labels, database)
    for name, labels, codes in sides:
        if len(labels) != len(codes):
            raise ValueError(f"{name}_labels has {len(labels)} rows for the {len(codes)} rows of {name}_codes")
    graded = needs_grades(metrics, extra)
    pairs = relevance(query_labels, database_labels)
    step = max(1, _CHUNK // ((width + 1) * (pairs.highest + 1 if graded else 1)))
    return summarise(
        score(hamming_counts(queries[rows], database, width, pairs[rows], graded), metrics, extra)
        for rows in (slice(start, start + step) for start in range(0, len(queries), step))
    )


def _packed(given: Any, bits: int | None, name: str) -> tuple[NDArray[np.uint8], int]:
    codes = np.asarray(given)
    if codes.dtype not in (np.bool_, np.uint8) or codes.ndim != 2:
        raise ValueError(
            f"{name} must be bool (N, K) or packed uint8 (N, B), not {codes.dtype} {codes.shape}; "
            "of real codes take `codes >= 0`"
        )
    if codes.size == 0:
        raise ValueError(f"{name} is empty, {codes.shape}; at least one row and one bit are needed")
    if codes.dtype == np.bool_:
        if bits not in (None, codes.shape[1]):
            raise ValueError(f"{name} has {codes.shape[1]} bits, but bits says {bits}")
        return pack(codes), codes.shape[1]
    width = 8 * codes.shape[1] if bits is None else bits
    if -(-width // 8) != codes.shape[1]:
        raise ValueError(f"{name} has {codes.shape[1]} bytes a row; {width} bits take {-(-width // 8)}")
    if (codes[:, -1] & (0xFF >> (width - 1) % 8 + 1)).any():
        raise ValueError(f"{name} has ones after bit {width} of {8 * codes.shape[1]}; padding bits must be zero")
    return codes, width
