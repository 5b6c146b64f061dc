"""Methods ranked over several datasets and bits, and which of them cannot be told apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pandas import DataFrame
from rich import box
from rich.table import Table
from rich.text import Text
from scipy import stats

from hashzoo.errors import UsageError, unknown_name
from hashzoo.evaluation.metrics import Extra, higher_is_better
from hashzoo.results.leaderboard import metrics, records
from hashzoo.results.render import main_metric
from hashzoo.results.significance import LEVEL, Floats, holm

#: Where methods meet: what is the same for all of them.
BLOCK = ("benchmark", "dataset", "backbone", "bits")


@dataclass(frozen=True)
class Ranking:
    """Methods in the order of their mean ranks over ``blocks``, best first, and ``groups`` of those not told apart.

    ``friedman`` is p of all methods being the same. A group is (first, last), places in that order. ``test`` names the
    test behind the groups. ``left_out`` has a reason by method.
    """

    metric: str
    methods: Sequence[str]
    ranks: Floats
    blocks: Sequence[tuple[Any, ...]]
    friedman: float
    groups: Sequence[tuple[int, int]]
    test: str
    left_out: Mapping[str, str]


def rank(
    frames: Sequence[DataFrame],
    metric: str | None = None,
    methods: Sequence[str] | None = None,
    extra: Extra | None = None,
) -> Ranking:
    """Ranks the methods, or the named, that are ``ok`` in every block of the boards; controls are left out.

    UsageError for a metric or method that no board has, and where fewer than three methods or two blocks are left.
    """
    known = sorted({name for frame in frames for name in metrics(frame)})
    name = metric or next((found for frame in frames if (found := main_metric(frame, extra))), None)
    if name is None or name not in known:
        raise UsageError(unknown_name("metric", str(name), known))
    if not higher_is_better(name, extra):
        raise UsageError(f"metric {name!r} is not better when higher, so nobody is best; rank by another")
    rows = [row for frame in frames for row in records(frame) if row["role"] != "control"]
    there = {row["method"] for row in rows}
    for one in methods or ():
        if one not in there:
            raise UsageError(unknown_name("method", one, there))
    wanted = set(methods or there)
    scores, left_out, blocks = _scores([row for row in rows if row["method"] in wanted], name)
    kept = sorted(scores)
    if len(kept) < 3 or len(blocks) < 2:
        gone = "".join(f"; {method}: {reason}" for method, reason in itertools.islice(sorted(left_out.items()), 3))
        raise UsageError(
            f"{len(kept)} methods are in all of {len(blocks)} blocks (benchmark, dataset, backbone, bits), and ranks "
            f"need three in two; name more results, or fewer methods with --methods{gone}"
        )
    table = np.array([scores[method] for method in kept]).T  # (N, k)
    ranks = mean_ranks(table)
    order = np.argsort(ranks, kind="stable")
    table, ranks = table[:, order], ranks[order]
    p = friedman(table)
    if p >= LEVEL:
        alike, test = np.ones((len(kept), len(kept)), bool), "Friedman: no method can be told from another"
    else:
        alike, test = told_apart(table)
    return Ranking(name, [kept[i] for i in order], ranks, blocks, p, runs(alike), test, left_out)


def _scores(
    rows: Iterable[Mapping[str, Any]], metric: str
) -> tuple[dict[str, list[float]], dict[str, str], list[tuple[Any, ...]]]:
    """Scores by method in the order of the blocks, why the others are left out, and the blocks."""
    found: dict[str, dict[tuple[Any, ...], float]] = {}
    left_out: dict[str, str] = {}
    blocks: set[tuple[Any, ...]] = set()
    for row in rows:
        block, method = tuple(row[name] for name in BLOCK), row["method"]
        blocks.add(block)
        where = " ".join(map(str, block))
        if row["status"] != "ok":
            left_out.setdefault(method, f"{row['status']} at {where}")
        elif row.get(metric) is None:
            left_out.setdefault(method, f"no {metric} at {where}")
        elif block in found.setdefault(method, {}):
            left_out.setdefault(method, f"several rows at {where}, of other settings or budgets")
        else:
            found[method][block] = row[metric]
    ordered = sorted(blocks)
    for method, mine in found.items():
        if gone := [block for block in ordered if block not in mine]:
            left_out.setdefault(method, f"no row at {' '.join(map(str, gone[0]))}")
    kept = {method: [mine[b] for b in ordered] for method, mine in found.items() if method not in left_out}
    return kept, left_out, ordered


def mean_ranks(scores: ArrayLike) -> Floats:
    """(k,) mean ranks of k methods with scores (N, k) in N blocks: 1 is the highest, equal scores share.

    >>> mean_ranks([[0.9, 0.5, 0.5], [0.8, 0.7, 0.1]]).tolist()
    [1.0, 2.25, 2.75]
    """
    return np.asarray(stats.rankdata(-np.asarray(scores, dtype=float), axis=1).mean(0))


def friedman(scores: ArrayLike) -> float:
    """p of the Friedman test that k >= 3 methods with scores (N, k) rank alike; 1 where all are tied everywhere."""
    given = np.asarray(scores, dtype=float)
    if (given == given[:, :1]).all():
        return 1.0
    return float(stats.friedmanchisquare(*given.T).pvalue)


def critical_difference(methods: int, blocks: int) -> float:
    """How far two mean ranks must lie apart by Nemenyi's test at 5 % (Demsar 2006, equation 5).

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    q = stats.studentized_range.ppf(1 - LEVEL, methods, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * blocks)))


def told_apart(scores: ArrayLike) -> tuple[NDArray[np.bool_], str]:
    """(k, k) which methods with scores (N, k) cannot be told apart at 5 %, and by which test.

    Wilcoxon's signed ranks, pair by pair, corrected for all pairs (Benavoli, Corani & Mangili 2016), where N blocks
    can give a p small enough; else Nemenyi's, which can, but depends on who else is ranked.
    """
    given = np.asarray(scores, dtype=float)
    blocks, methods = given.shape
    pairs = list(itertools.combinations(range(methods), 2))
    alike = np.ones((methods, methods), bool)
    if 2.0 ** (1 - blocks) * len(pairs) < LEVEL:
        p = [_wilcoxon(given[:, i] - given[:, j]) for i, j in pairs]
        for (i, j), corrected in zip(pairs, holm(p), strict=True):
            alike[i, j] = alike[j, i] = corrected >= LEVEL
        return alike, f"Wilcoxon's signed ranks for {len(pairs)} pairs, corrected (Holm)"
    ranks, far = mean_ranks(given), critical_difference(methods, blocks)
    return np.abs(ranks[:, None] - ranks) < far, (
        f"Nemenyi, mean ranks {far:.2f} apart (too few blocks for Wilcoxon's test of {len(pairs)} pairs)"
    )


def _wilcoxon(differences: Floats) -> float:
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def runs(alike: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The longest runs (first, last) of methods in order of which no two can be told apart.

    >>> runs(np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool))
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


def render(ranking: Ranking) -> Table:
    """Mean ranks, best first; methods with a letter in common cannot be told apart."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold", max_width=28)
    table.add_column("mean rank", justify="right", no_wrap=True)
    table.add_column("group", no_wrap=True)
    for place, (method, mean) in enumerate(zip(ranking.methods, ranking.ranks, strict=True)):
        groups = enumerate(ranking.groups)
        letters = [_letter(i) if first <= place <= last else " " * len(_letter(i)) for i, (first, last) in groups]
        table.add_row(Text(method), f"{mean:.2f}", "".join(letters))
    return table


def _letter(number: int) -> str:
    """a to z, then a1.

    >>> [_letter(n) for n in (0, 25, 26)]
    ['a', 'z', 'a1']
    """
    turn, letter = divmod(number, 26)
    return chr(ord("a") + letter) + (str(turn) if turn else "")


def notes(ranking: Ranking) -> list[str]:
    """What the reader of the ranks must know."""
    datasets = {block[:3] for block in ranking.blocks}
    lines = [
        f"Mean ranks by {ranking.metric} in {len(ranking.blocks)} blocks (benchmark, dataset, backbone, bits).",
        f"Friedman: p {ranking.friedman:.2g} if all ranked alike. Methods of one group cannot be told apart at "
        f"5 %: {ranking.test}.",
    ]
    if len(datasets) < len(ranking.blocks):
        lines.append(
            f"The {len(ranking.blocks)} blocks are {len(datasets)} datasets at several bits, taken as independent, "
            "which they are not: differences look surer than they are."
        )
    return lines + [f"left out: {method} ({reason})" for method, reason in sorted(ranking.left_out.items())]
