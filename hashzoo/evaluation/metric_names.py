"""Names of metrics: the forms that exist, and what a name says.

The docstring of :mod:`hashzoo.evaluation.metrics` lists them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from hashzoo.errors import UsageError, unknown_name
from hashzoo.evaluation.code_metrics import CodeMetric, code_metrics
from hashzoo.hamming.counting import Counts

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
    "recall": ("R", "R:fF"),
    "factor": ("R:T",),
}
_GRADED = {"ndcg", "acg", "wap"}
_LOWER_IS_BETTER = {"empty", "factor"}
_BY_NEIGHBOURS = {"recall", "factor"}
GROUPS = ("head", "medium", "tail")
ASKINGS = ("first", "second", "bitwise")
ASYMMETRIC = "asym"
GAINS = ("strict", "jaccard")
_NAME = re.compile(
    r"(?P<family>[^@:/]+)(?:@(?P<place>all|h?\d+)(?::(?P<variant>[\w.]+))?)?(?:/(?P<part>(?!strict$|jaccard$)\w+))?(?:/(?P<gain>strict|jaccard))?"
)


@dataclass(frozen=True)
class Metric:
    """A parsed metric name: the first ``cut`` ranks (None for all), or the items within ``radius``.

    ``gain`` is the grade of items for a composed query, if it is not the number of shared labels.
    """

    name: str
    family: str
    cut: int | None = None
    radius: int | None = None
    variant: str | None = None
    part: str = ""
    gain: str = field(default="", repr=False)

    @property
    def base(self) -> str:
        """The name without its part."""
        return self.name.partition("/")[0]

    @property
    def by_neighbours(self) -> bool:
        """Whether the exact neighbors are the relevant items, and not those that share a label."""
        return self.family in _BY_NEIGHBOURS

    @property
    def places(self) -> int:
        """For ``recall``, the number of items in which neighbors are looked for: k, or F k."""
        factor = float((self.variant or "f1")[1:]) if self.family == "recall" else 1.0
        return math.ceil((self.cut or 0) * factor - 1e-9)

    @property
    def target(self) -> float | None:
        """For ``factor``, the recall to reach; None for any other metric."""
        return float(self.variant or "nan") if self.family == "factor" else None


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
    part, gain = read["part"] or "", read["gain"] or ""
    if (part or gain) and isinstance(extra.get(family), CodeMetric):
        base = name.partition("/")[0]
        raise UsageError(f"metric {name!r}: {family} is one number for all queries and has no parts; use {base!r}")
    parts = (ASYMMETRIC,) if family in _BY_NEIGHBOURS else GROUPS + ASKINGS
    if part and part not in parts:
        raise UsageError(unknown_name("metric", name, [f"{name.partition('/')[0]}/{p}" for p in parts]))
    if gain and (family in _BY_NEIGHBOURS or part in GROUPS or (gain == "jaccard" and family != "ndcg")):
        raise UsageError(
            f"metric {name!r} does not exist: /strict grades items for composed queries in metrics of labels, and "
            "/jaccard only in ndcg, as in ndcg@100/jaccard"
        )
    if variant and (family, form_of(family, variant)) == ("recall", "fF") and float(variant[1:]) < 1:
        raise UsageError(f"metric {name!r}: the factor after f must be at least 1")
    if family == "factor" and not 0 < float(variant) < 1:
        raise UsageError(f"metric {name!r}: the recall to reach must be between 0 and 1, such as 0.95")
    return Metric(name, family, None if inside else number, number if inside else None, variant, part, gain)


def _exists(read: re.Match[str], extra: ExtraMetrics) -> bool:
    family, place, variant = read.group("family", "place", "variant")
    form = re.sub(r"\d+", "D" if (place or "").startswith("h") else "R", place or "")
    return (f"{form}:{form_of(family, variant)}" if variant else form) in _forms(extra).get(family, ())


def form_of(family: str, variant: str) -> str:
    """A variant of a metric with a letter in place of its number.

    >>> form_of("recall", "f2.5"), form_of("factor", "0.95"), form_of("map", "hits")
    ('fF', 'T', 'hits')
    """
    if family == "recall" and re.fullmatch(r"f\d+(\.\d+)?", variant):
        return "fF"
    return "T" if family == "factor" and re.fullmatch(r"\d*\.\d+", variant) else variant


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
        f"{known}@{form.replace('R', cut).replace('D', radius).replace('F', '2').replace('T', '0.95')}"
        if form
        else known
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
    """Whether the metric of a column of a board is defined in hashzoo."""
    return re.split("[@/]", name)[0] in _FORMS


def by_neighbours(name: str) -> bool:
    """Whether the metric of a column of a board is one of exact neighbors.

    >>> by_neighbours("recall@10:f2/asym"), by_neighbours("r@10")
    (True, False)
    """
    return re.split("[@/]", name)[0] in _BY_NEIGHBOURS


def higher_is_better(name: str, extra: ExtraMetrics | None = None) -> bool:
    """Whether the highest value of a metric is the best; False for an unknown metric.

    >>> [higher_is_better(name) for name in ("map@all/selected", "empty@h2", "whatever")]
    [True, False, False]
    """
    family = re.split("[@/]", name)[0]
    if isinstance(metric := (extra or {}).get(family), CodeMetric):
        return metric.higher_is_better
    return metric is not None or (built_in(name) and family not in _LOWER_IS_BETTER)
