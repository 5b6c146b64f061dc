"""Mean ranks of methods over several datasets and bits, with tests of their differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pandas import DataFrame
from scipy import stats

from hashzoo.errors import UsageError, printable, unknown_name
from hashzoo.evaluation.metrics import ExtraMetrics, higher_is_better, not_measured
from hashzoo.results.leaderboard import main_metric, metrics, records
from hashzoo.results.ranking import folder_of
from hashzoo.results.render import STALE
from hashzoo.results.significance import LEVEL, Floats, holm
from hashzoo.results.table import Column, Entry, TextTable

#: Why there are no groups.
TOO_FEW = "too few blocks to tell any methods apart"

#: The columns of a block, in which methods are ranked; images of the user's own also have to be of one folder.
BLOCK = ("benchmark", "dataset", "backbone", "bits")


@dataclass(frozen=True)
class Ranking:
    """Methods ordered by their mean ranks.

    Attributes:
        metric: The metric that they are ranked by.
        methods: Their names, the best one first.
        ranks: (k,) mean ranks in that order.
        blocks: The blocks over which the mean is taken, as values of ``BLOCK`` and the folder.
        friedman: The p value of the Friedman test that all methods rank equally.
        groups: Runs (first, last) of methods in that order that were tested and cannot be told apart; empty if there
            are too few blocks for a test.
        test: The test behind the groups, or why there is none.
        left_out: Why a method was left out, by its name.
        stale: The methods with a row measured with code other than the installed code.
    """

    metric: str
    methods: Sequence[str]
    ranks: Floats
    blocks: Sequence[tuple[Any, ...]]
    friedman: float
    groups: Sequence[tuple[int, int]]
    test: str
    left_out: Mapping[str, str]
    stale: Collection[str] = ()


def rank(
    frames: Sequence[DataFrame],
    metric: str | None = None,
    methods: Sequence[str] | None = None,
    extra: ExtraMetrics | None = None,
) -> Ranking:
    """Rank the methods that are ``ok`` in every block of the boards, without controls.

    Args:
        frames: The boards.
        metric: The metric to rank by; by default the main one of the first board that has one.
        methods: The methods to rank; by default all.
        extra: Metrics of plugins.

    Raises:
        UsageError: If no board has the metric or a method, or fewer than three methods or two blocks are left.
    """
    known = sorted({name for frame in frames for name in metrics(frame)})
    name = metric or next((main for frame in frames if (main := main_metric(metrics(frame), extra))), None)
    if name is None or name not in known:
        raise UsageError(not_measured("metric", str(name), known, extra))
    if not higher_is_better(name, extra):
        raise UsageError(f"metric {name!r} is not one for which higher is better; rank by another metric")
    rows = [row for frame in frames for row in records(frame) if row["role"] != "control"]
    measured = {row["method"] for row in rows}
    for one in methods or ():
        if one not in measured:
            raise UsageError(unknown_name("method", one, measured))
    chosen = set(methods or measured)
    rows = [row for row in rows if row["method"] in chosen]
    scores, left_out, blocks = _scores(rows, name)
    ranked = sorted(scores)
    if len(ranked) < 3 or len(blocks) < 2:
        reasons = "".join(f"; {method}: {reason}" for method, reason in itertools.islice(sorted(left_out.items()), 3))
        raise UsageError(
            f"{len(ranked)} methods are in all of {len(blocks)} blocks (benchmark, dataset, backbone, bits), and ranks "
            f"need three in two; name more results, or fewer methods with --methods{reasons}"
        )
    table = np.array([scores[method] for method in ranked]).T  # (N, k)
    ranks = mean_ranks(table)
    order = np.argsort(ranks, kind="stable")
    table, ranks = table[:, order], ranks[order]
    p = friedman(table)
    groups, test = _groups(table, p)
    stale = {row["method"] for row in rows if row.get("stale")}
    return Ranking(name, [ranked[i] for i in order], ranks, blocks, p, groups, test, left_out, stale)


def _groups(table: Floats, p: float) -> tuple[list[tuple[int, int]], str]:
    """The groups of methods with scores (N, k), best first, and the test behind them; ``p`` is that of Friedman."""
    blocks, methods = table.shape
    if not can_differ(methods, blocks):
        return [], f"{TOO_FEW} ({blocks} for {methods} methods)"
    if p >= LEVEL:
        return [(0, methods - 1)], "Friedman: no two methods differ significantly"
    alike, test = not_different(table)
    return longest_runs(alike), test


def can_differ(methods: int, blocks: int) -> bool:
    """Whether any scores of k methods in N blocks would make two of them differ significantly.

    The largest statistic of the Friedman test is N (k - 1), if all blocks agree. After it, the difference of the first
    and the last mean rank, at most k - 1, must reach the critical difference, unless the Wilcoxon tests decide.

    >>> [can_differ(3, blocks) for blocks in (2, 3)], [can_differ(10, blocks) for blocks in (2, 3)]
    ([False, True], [False, True])
    """
    if stats.chi2.sf(blocks * (methods - 1), methods - 1) >= LEVEL:
        return False
    return wilcoxon_can_differ(methods, blocks) or critical_difference(methods, blocks) <= methods - 1


def wilcoxon_can_differ(methods: int, blocks: int) -> bool:
    """Whether N blocks can give a p value of the Wilcoxon test that is small enough for all pairs of k methods."""
    return 2.0 ** (1 - blocks) * math.comb(methods, 2) < LEVEL


def _scores(
    rows: Iterable[Mapping[str, Any]], metric: str
) -> tuple[dict[str, list[float]], dict[str, str], list[tuple[Any, ...]]]:
    """Scores by method in the order of the blocks, the reasons why others are left out, and the blocks."""
    found: dict[str, dict[tuple[Any, ...], float]] = {}
    left_out: dict[str, str] = {}
    blocks: set[tuple[Any, ...]] = set()
    for row in rows:
        block, method = (*(row[name] for name in BLOCK), folder_of(row)), row["method"]
        blocks.add(block)
        where = _place(block)
        if row["status"] != "ok":
            left_out.setdefault(method, f"{row['status']} at {where}")
        elif row.get(metric) is None:
            left_out.setdefault(method, f"no {metric} at {where}")
        elif block in found.setdefault(method, {}):
            left_out.setdefault(method, f"several rows at {where}, with different settings or budgets")
        else:
            found[method][block] = row[metric]
    ordered = sorted(blocks)
    for method, scores in found.items():
        if missing := [block for block in ordered if block not in scores]:
            left_out.setdefault(method, f"no row at {_place(missing[0])}")
    complete = {method: [scores[b] for b in ordered] for method, scores in found.items() if method not in left_out}
    return complete, left_out, ordered


def _place(block: tuple[Any, ...]) -> str:
    return " ".join(str(value) for value in block if value != "")


def mean_ranks(scores: ArrayLike) -> Floats:
    """Mean ranks (k,) of k methods with scores (N, k) in N blocks; rank 1 is the highest score, ties share their mean.

    >>> mean_ranks([[0.9, 0.5, 0.5], [0.8, 0.7, 0.1]]).tolist()
    [1.0, 2.25, 2.75]
    """
    return np.asarray(stats.rankdata(-np.asarray(scores, dtype=float), axis=1).mean(0))


def friedman(scores: ArrayLike) -> float:
    """The p value of the Friedman test that k >= 3 methods with scores (N, k) rank equally; 1 if all are tied."""
    given = np.asarray(scores, dtype=float)
    if (given == given[:, :1]).all():
        return 1.0
    return float(stats.friedmanchisquare(*given.T).pvalue)


def critical_difference(methods: int, blocks: int) -> float:
    """The difference of mean ranks that is significant at 5 % by the Nemenyi test (Demsar 2006, equation 5).

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    q = stats.studentized_range.ppf(1 - LEVEL, methods, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * blocks)))


def not_different(scores: ArrayLike) -> tuple[NDArray[np.bool_], str]:
    """Which pairs (k, k) of methods with scores (N, k) do not differ significantly at 5 %, and the test.

    The test is the Wilcoxon signed-rank test of each pair, corrected for all pairs (Benavoli, Corani & Mangili 2016),
    if N blocks can give a p value small enough. Otherwise it is the Nemenyi test, which always can but depends on
    which other methods are ranked.
    """
    given = np.asarray(scores, dtype=float)
    blocks, methods = given.shape
    pairs = list(itertools.combinations(range(methods), 2))
    alike = np.ones((methods, methods), bool)
    if wilcoxon_can_differ(methods, blocks):
        p = [_wilcoxon(given[:, i] - given[:, j]) for i, j in pairs]
        for (i, j), corrected in zip(pairs, holm(p), strict=True):
            alike[i, j] = alike[j, i] = corrected >= LEVEL
        return alike, f"Wilcoxon signed-rank test of {len(pairs)} pairs, corrected (Holm)"
    ranks, critical = mean_ranks(given), critical_difference(methods, blocks)
    return np.abs(ranks[:, None] - ranks) < critical, (
        f"Nemenyi, mean ranks {critical:.2f} apart (too few blocks for a Wilcoxon test of {len(pairs)} pairs)"
    )


def _wilcoxon(differences: Floats) -> float:
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def longest_runs(alike: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The longest runs (first, last) of ordered methods of which no two differ, from the matrix (k, k) of pairs.

    >>> longest_runs(np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool))
    [(0, 1), (1, 2)]
    """
    found: list[tuple[int, int]] = []
    for first in range(len(alike)):
        last = first
        while last + 1 < len(alike) and alike[first : last + 2, last + 1].all():
            last += 1
        if not found or last > found[-1][1]:
            found.append((first, last))
    return found


def render(ranking: Ranking) -> TextTable:
    """A table of mean ranks, the best one first; methods that share a letter do not differ significantly."""
    columns = (
        Column("method", text=True, identifies=True, widest=28),
        Column("mean rank", vital=True),
        *([Column("group", text=True)] if ranking.groups else []),
    )
    rows = []
    for place, (method, mean) in enumerate(zip(ranking.methods, ranking.ranks, strict=True)):
        groups = enumerate(ranking.groups)
        letters = [_letter(i) if first <= place <= last else " " * len(_letter(i)) for i, (first, last) in groups]
        group = [Entry("".join(letters))] if ranking.groups else []
        rows.append([Entry(printable(method)), Entry(f"{mean:.2f}"), *group])
    return TextTable(columns, rows)


def ranking_records(ranking: Ranking) -> list[dict[str, Any]]:
    """A dict for each method, the best one first."""
    return [
        {
            "method": method,
            "metric": ranking.metric,
            "mean rank": float(mean),
            "groups": [_letter(i) for i, (first, last) in enumerate(ranking.groups) if first <= place <= last],
            "blocks": len(ranking.blocks),
            "stale": method in ranking.stale,
        }
        for place, (method, mean) in enumerate(zip(ranking.methods, ranking.ranks, strict=True))
    ]


def _letter(number: int) -> str:
    """The name of a group: a to z, then a1.

    >>> [_letter(n) for n in (0, 25, 26)]
    ['a', 'z', 'a1']
    """
    cycle, letter = divmod(number, 26)
    return chr(ord("a") + letter) + (str(cycle) if cycle else "")


def notes(ranking: Ranking) -> list[str]:
    """Lines that explain the ranks."""
    datasets = {(*block[:3], block[-1]) for block in ranking.blocks}
    lines = [f"Mean ranks by {ranking.metric} in {len(ranking.blocks)} blocks (benchmark, dataset, backbone, bits)."]
    if ranking.groups:
        lines.append(
            f"Friedman test that all rank equally: p {ranking.friedman:.2g}. Methods of one group do not differ "
            f"significantly at 5 %: {ranking.test}."
        )
    else:
        lines.append(f"There are no groups: {ranking.test}. Measure more datasets or code lengths.")
    if len(datasets) < len(ranking.blocks):
        lines.append(
            f"The {len(ranking.blocks)} blocks are {len(datasets)} datasets at several bits. The tests take them as "
            "independent, which they are not, so p values are too small."
        )
    if ranking.stale:
        lines += [STALE, f"stale methods: {', '.join(sorted(ranking.stale))}"]
    return lines + [f"left out: {method} ({reason})" for method, reason in sorted(ranking.left_out.items())]
