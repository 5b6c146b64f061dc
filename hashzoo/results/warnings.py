"""What a row warns of although its status is ok: a score at chance, a loss that rose, too few different codes.

The warnings are facts, not verdicts: a control that is meant to score at chance has one too. They are computed from the
cell, so boards of cells that an older hashzoo measured have only those that their cells allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
from scipy.special import ndtri

from hashzoo.results.cell import Cell
from hashzoo.results.significance import LEVEL

AT_CHANCE, LOSS_ROSE, ONE_CODE = "at chance", "loss rose", "one code for 99 % of the images"
ONE_A_CLASS = "at most one code per class"
KINDS = (AT_CHANCE, LOSS_ROSE, ONE_CODE, ONE_A_CLASS)
#: What a warning means for scores, by its text, where the text does not say it.
MEANINGS = {ONE_A_CLASS: "there are no more codes than classes, so ranking within a class is by ties"}

#: The facts of a cell that hold the expected score of a random order, by metric, and its standard error.
CHANCE, CHANCE_ERROR = "chance ", " standard error"
#: The fact with the share of the database images that have the most frequent code.
COMMONEST = "commonest_code"
#: The facts with the number of different codes of the database images, and of classes that have database images.
DISTINCT, CLASSES = "distinct_codes", "database_classes"
#: How many standard errors a score must be above that of a random order: a one-sided test at 5 %.
MARGIN = float(-ndtri(LEVEL))
_SHARE = 0.99
_PART = 4  # the loss begins with the mean of the first quarter of the epochs and ends with that of the last

Curve = Sequence[Mapping[str, Mapping[str, float]]]


def chance_facts(metric: str, expected: float, error: float | None) -> dict[str, float]:
    """The facts of a cell about the score of a random order; ``error`` is None if the score is far above it.

    >>> chance_facts("map@all", 0.1, 0.002)
    {'chance map@all': 0.1, 'chance map@all standard error': 0.002}
    """
    facts = {CHANCE + metric: expected}
    return facts if error is None else facts | {CHANCE + metric + CHANCE_ERROR: error}


def list_warnings(cell: Cell) -> list[str]:
    """The warnings of a cell; none if it is not ok."""
    if cell.status != "ok":
        return []
    share, distinct, classes = (cell.facts.get(name) for name in (COMMONEST, DISTINCT, CLASSES))
    one_code = isinstance(share, float) and share >= _SHARE
    found = {
        AT_CHANCE: _is_at_chance(cell),
        LOSS_ROSE: loss_rose(cell.curve),
        ONE_CODE: one_code,
        ONE_A_CLASS: not one_code and isinstance(distinct, int) and isinstance(classes, int) and distinct <= classes,
    }
    return [name for name, applies in found.items() if applies]


def join_warnings(cells: Sequence[Cell]) -> str:
    """The warnings of the cells of a row, and how many of its seeds have one that not all have."""
    by_cell = [list_warnings(cell) for cell in cells]
    counts = {name: sum(name in own for own in by_cell) for name in KINDS}
    named = {name: "" if n == len(cells) else f" ({n} of {len(cells)} seeds)" for name, n in counts.items() if n}
    return "; ".join(name + share for name, share in named.items())


def _is_at_chance(cell: Cell) -> bool:
    """Whether the main score is not significantly above that of a random order, by a one-sided test at 5 %."""
    for name, error in cell.facts.items():
        if not (name.startswith(CHANCE) and name.endswith(CHANCE_ERROR)):
            continue
        metric = name.removeprefix(CHANCE).removesuffix(CHANCE_ERROR)
        expected, score = cell.facts.get(CHANCE + metric), cell.metrics.get(metric)
        if isinstance(expected, float) and isinstance(error, float) and score is not None:
            return bool(score <= expected + MARGIN * error + 1e-12)
    return False


def epoch_losses(curve: Curve) -> list[tuple[tuple[str, ...], float]]:
    """The names of the loss terms of each epoch, and their sum.

    For an epoch without optimizer steps of the run, it is the logged quantity ``loss``; without that one, the epoch is
    left out.

    >>> epoch_losses([{"loss": {"a": 0.5, "b": 0.25}}, {"logged": {"loss": 0.7}}, {"logged": {"rank": 3}}])
    [(('a', 'b'), 0.75), (('loss',), 0.7)]
    """
    terms = [epoch.get("loss") or {k: v for k, v in epoch.get("logged", {}).items() if k == "loss"} for epoch in curve]
    return [(tuple(sorted(one)), float(sum(one.values()))) for one in terms if one]


def loss_rose(curve: Curve) -> bool:
    """Whether the training loss ended above where it began.

    It begins with the mean over the first quarter of the epochs, one at least, and ends with the mean over the last
    quarter. Epochs are compared with each other only as long as their loss has the same terms: a training in several
    stages rose if the loss of one of them did.

    >>> [loss_rose([{"loss": {"pair": x}} for x in losses]) for losses in ([3, 2, 2.5], [3, 2, 4], [3])]
    [False, True, False]
    """
    for _, stage in groupby(epoch_losses(curve), key=lambda epoch: epoch[0]):
        losses = [total for _, total in stage]
        part = max(1, len(losses) // _PART)
        if len(losses) > 1 and np.mean(losses[-part:]) > np.mean(losses[:part]):
            return True
    return False
