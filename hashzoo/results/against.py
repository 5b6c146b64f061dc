"""One row compared with the other rows of its block: the tests behind the statements of ``report`` and ``compare``.

A block is the rows of one benchmark, dataset (of images of one folder) and number of bits. The tests of a block are
one family: their p values are corrected together (Holm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from hashzoo.errors import UsageError, printable, unknown_name
from hashzoo.evaluation.metrics import ExtraMetrics, higher_is_better, not_measured
from hashzoo.results import leaderboard, render
from hashzoo.results.board import BoardRow, StoredBoard
from hashzoo.results.paired import EQUAL, UNLIKE, compare_pairs
from hashzoo.results.ranking import competes, dataset_of, folder_of, ranked
from hashzoo.results.significance import FEWEST_SEEDS, LEVEL, holm
from hashzoo.results.table import Column, Entry, TextTable

#: Name of a test -> the variation that its p values account for.
TESTS = {
    "training": "seeds and queries",
    "models": "queries, for the models as they were trained",
    "seeds": "seeds, for the same queries",
}

#: The reason why rows are not tested that have too few seeds in common.
FEW_SEEDS = f"fewer than {FEWEST_SEEDS} seeds in common"

# What a test says of a row, see Gap.verdict.
ALIKE = "cannot be told from it"
DIFFERENT = "differs"
UNCLEAR = "differs before the correction only"
UNTESTED = "not tested"


@dataclass(frozen=True)
class Gap:
    """The difference of a row from the reference row of its block.

    Attributes:
        difference: The score of this row minus that of the reference.
        interval: The 95 % interval of the difference, of this row alone.
        p: The p value of the difference, corrected for all rows of the block.
        test: A name in ``TESTS``; empty if there was no test.
        reason: Why there was no test.
    """

    difference: float
    interval: tuple[float, float] | None = None
    p: float | None = None
    test: str = ""
    reason: str = ""

    @property
    def verdict(self) -> str:
        """What the test says about the two methods: one of ``ALIKE``, ``DIFFERENT``, ``UNCLEAR``, ``UNTESTED``.

        A row cannot be told from the reference only if it was tested and its interval includes 0. It differs only if
        the interval excludes 0 and the corrected p value is below the level. A test of models with one seed says
        nothing about methods.
        """
        if self.p is None or self.interval is None or self.test not in ("training", "seeds"):
            return UNTESTED
        if self.interval[0] <= 0 <= self.interval[1]:
            return ALIKE
        return DIFFERENT if self.p < LEVEL else UNCLEAR


def gaps_in_block(reference: BoardRow, others: Sequence[BoardRow], metric: str) -> list[Gap]:
    """The gap of each of the other rows of a block, which all have the metric, as one family of tests.

    Rows with two seeds or more in common with the reference are tested for the variation over seeds and queries; rows
    without scores of single queries for the variation over seeds (Welch); rows with one seed for that over queries.
    """
    pairs = compare_pairs([(reference, other) for other in others], metric)
    gaps, untested = list[Gap](), list[int]()
    for number, pair in enumerate(pairs):
        p, test = (pair.of_training, "training") if pair.of_training is not None else (pair.of_models, "models")
        gap = Gap(pair.after - pair.before, pair.interval, p, test if p is not None else "", pair.reason)
        if pair.reason == EQUAL:
            several = pair.seeds >= FEWEST_SEEDS
            gap = replace(gap, p=1.0, interval=(0.0, 0.0), test="training" if several else "models")
        elif p is None and pair.reason != UNLIKE:
            untested.append(number)
        if gap.test == "models":
            gap = replace(gap, reason=FEW_SEEDS)
        gaps.append(gap)
    by_seeds = _gaps_by_seeds(reference, [others[i] for i in untested], metric)
    for number, found in zip(untested, by_seeds, strict=True):
        gaps[number] = found or gaps[number]
    return gaps


def _gaps_by_seeds(reference: BoardRow, others: Sequence[BoardRow], metric: str) -> list[Gap | None]:
    """Gaps that are tested without the scores of single queries; None for too few seeds."""
    ours = _scores_of_seeds(reference, metric)
    theirs = [_scores_of_seeds(other, metric) for other in others]
    tested = [i for i, scores in enumerate(theirs) if min(len(ours), len(scores)) >= FEWEST_SEEDS]
    results = [welch_test(ours, theirs[i]) for i in tested]
    found: list[Gap | None] = [None] * len(others)
    for i, (_, low, high), p in zip(tested, results, holm([p for p, _, _ in results]), strict=True):
        found[i] = Gap((low + high) / 2, (low, high), float(p), "seeds")
    return found


def _scores_of_seeds(row: BoardRow, metric: str) -> list[float]:
    scores = [cell.metrics.get(metric, math.nan) for cell in row.cells if cell.status == "ok"]
    return [score for score in scores if math.isfinite(score)]


def welch_test(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Welch's t test of two samples of two values or more: p, and the 95 % interval of mean(second) - mean(first).

    If both samples are constant, the interval is the difference itself, and p is 0 or 1.

    >>> [round(x, 3) for x in welch_test([0.5, 0.6, 0.7], [0.3, 0.4, 0.5])]
    [0.07, -0.427, 0.027]
    """
    difference = float(np.mean(second)) - float(np.mean(first))
    variances = [float(np.var(sample, ddof=1)) / len(sample) for sample in (first, second)]
    total = sum(variances)
    if total == 0:
        return (1.0 if difference == 0 else 0.0), difference, difference
    freedom = total**2 / sum(v**2 / (len(s) - 1) for v, s in zip(variances, (first, second), strict=True))
    half = float(-stdtrit(freedom, LEVEL / 2)) * math.sqrt(total)
    p = float(2 * stdtr(freedom, -abs(difference) / math.sqrt(total)))
    return p, difference - half, difference + half


@dataclass(frozen=True)
class Block:
    """The reference row of a block, and the other rows with their gaps, the best first."""

    reference: BoardRow
    others: Sequence[tuple[BoardRow, Gap]]


def blocks_against(board: StoredBoard, method: str, metric: str, extra: ExtraMetrics | None = None) -> list[Block]:
    """Each block of a board that has the method, with the method's best row as the reference.

    The other rows are those that compete with it: ok, not a control, and with a score. So if the reference is the best
    row of the block, the family of tests is that of ``hashzoo report``.

    Raises:
        UsageError: If the board does not have the method, or no other row competes with it.
    """
    rows = [row for row in board.rows() if row.facts["status"] == "ok" and row.facts.get(metric) is not None]
    known = {row.facts["method"] for row in board.rows()}
    if method not in known:
        raise UsageError(f"{board.path}: {unknown_name('method', method, known)}")
    found: dict[tuple[Any, ...], list[BoardRow]] = {}
    for row in rows:
        found.setdefault((*dataset_of(row.facts), row.facts["bits"]), []).append(row)
    blocks = []
    for _, block in sorted(found.items()):
        ordered = ranked(block, metric, lambda row: row.facts, descending=higher_is_better(metric, extra))
        reference = next((row for row in ordered if row.facts["method"] == method), None)
        others = [row for row in ordered if row is not reference and competes(row.facts)]
        if reference is not None and others:
            blocks.append(Block(reference, list(zip(others, gaps_in_block(reference, others, metric), strict=True))))
    if not blocks:
        raise UsageError(
            f"{board.path}: {method} has no score beside another method; measure it and others on the same data at the "
            "same bits"
        )
    return blocks


def render_against(blocks: Sequence[Block], metric: str) -> list[TextTable]:
    """A table for each block: the difference of each row from the reference, its interval, and what the test says."""
    columns = [
        Column("method", text=True, identifies=True, widest=32),
        Column(metric),
        Column("difference", vital=True),
        Column("p", vital=True),
        Column("result", text=True, widest=44, vital=True),
        Column("95 % interval"),
    ]
    tables = []
    for block in blocks:
        reference = block.reference.facts
        _, rows = render.without_shared([dict(reference), *(dict(other.facts) for other, _ in block.others)])
        name = " ".join(filter(None, (reference["method"], rows[0]["settings"])))
        entries = []
        for (other, gap), row in zip(block.others, rows[1:], strict=True):
            texts = [
                " ".join(filter(None, (row["method"], row["settings"]))),
                f"{other.facts[metric]:.4f}",
                f"{gap.difference:+.4f}",
                "" if gap.p is None else f"{gap.p:.3f}" if gap.p >= 0.001 else "<0.001",
                gap.verdict + (f": {gap.reason}" if gap.verdict == UNTESTED and gap.reason else ""),
                f"{gap.interval[0]:+.4f} {gap.interval[1]:+.4f}" if gap.interval else "",
            ]
            entries.append([Entry(printable(one)) for one in texts])
        title = (
            f"{reference['benchmark']}: {reference['dataset']}, {folder_of(reference) and f'{folder_of(reference)}, '}"
            f"{reference['bits']} bits, {metric} against {name} "
            f"({reference[metric]:.4f})"
        )
        tables.append(TextTable(columns, entries, printable(title)))
    return tables


def gap_records(blocks: Sequence[Block], metric: str) -> list[dict[str, Any]]:
    """A dict for each row that is compared."""
    return [
        {
            **{name: other.facts[name] for name in leaderboard.PLACE},
            "metric": metric,
            "against": block.reference.facts["method"],
            "reference": block.reference.facts[metric],
            "score": other.facts[metric],
            "difference": gap.difference,
            "low": gap.interval[0] if gap.interval else None,
            "high": gap.interval[1] if gap.interval else None,
            "p": gap.p,
            "test": gap.test,
            "result": gap.verdict,
            "reason": gap.reason,
        }
        for block in blocks
        for other, gap in block.others
    ]


def notes_against(blocks: Sequence[Block]) -> list[str]:
    """Lines that explain the tables."""
    tests = {gap.test for block in blocks for _, gap in block.others if gap.test}
    lines = []
    if tests:
        accounted = "; or over ".join(TESTS[name] for name in TESTS if name in tests)
        lines.append(
            "p is corrected for all rows of the table (Holm), as in hashzoo report, and accounts for the variation "
            f"over {accounted}. Intervals are not corrected."
        )
        lines.append(
            "A row that was tested cannot be told from the reference if its interval includes 0, and differs "
            f"if its interval excludes 0 and p is below {LEVEL:g}."
        )
    if any(gap.reason == FEW_SEEDS for block in blocks for _, gap in block.others):
        lines.append(
            f"Methods with {FEW_SEEDS} are not tested: intervals and p values are of the trained models, on other "
            "queries."
        )
    return lines


def reference_metric(board: StoredBoard, metric: str | None, extra: ExtraMetrics | None = None) -> str:
    """The metric to compare by: the given one, or the main one of the board. UsageError if the board lacks it."""
    known = leaderboard.metrics(board.frame)
    chosen = metric or leaderboard.main_metric(known, extra)
    if chosen is None or chosen not in known:
        raise UsageError(f"{board.path}: {not_measured('metric', str(chosen), known, extra)}")
    return chosen
