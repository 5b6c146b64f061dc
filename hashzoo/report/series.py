"""The numbers behind charts, for the page and for figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.report.charts import Series
from hashzoo.results.by_dataset import BoardEntry, DatasetBoard, Results


def _series(entries: Sequence[BoardEntry], points: Sequence[Sequence[tuple[float, float]]]) -> list[Series]:
    """A series for each entry that has points."""
    return [
        Series(e.number, e.name, p, e.facts["role"] == "control") for e, p in zip(entries, points, strict=True) if p
    ]


def scores_by_bits(board: DatasetBoard, column: str = "bits") -> list[Series]:
    """The main score over the code length or another column of its size, a series for each name."""
    by_name: dict[str, list[BoardEntry]] = {}
    for entry in board.entries:
        if entry.score(board.metric) is not None and entry.facts[column]:
            by_name.setdefault(entry.name, []).append(entry)
    points = [
        sorted((float(e.facts[column]), float(e.score(board.metric) or 0)) for e in entries)
        for entries in by_name.values()
    ]
    return _series([entries[0] for entries in by_name.values()], points)


#: Column -> the name of a cost and a function from the column's value to the cost.
COSTS: dict[str, tuple[str, Callable[[float], float]]] = {
    "bytes_per_item": ("bytes per image", lambda value: value),
    "encode_per_second": ("seconds to encode 1,000 images", lambda value: 1000 / value),
    "fit_seconds": ("seconds to fit", lambda value: value),
}


def scores_by_cost(board: DatasetBoard, bits: int, column: str) -> list[Series]:
    """The main score over a cost in ``COSTS``, a point for each row with a cost above 0."""
    entries = [e for e in board.entries_at(bits) if e.score(board.metric) is not None and (e.facts[column] or 0) > 0]
    cost = COSTS[column][1]
    return _series(entries, [[(cost(e.facts[column]), float(e.score(board.metric) or 0))] for e in entries])


def pr_curves(results: Results, board: DatasetBoard, bits: int) -> list[Series]:
    """Precision over recall by Hamming radius, means over the seeds, for rows with integer distances."""
    entries = board.entries_at(bits)
    return _series(entries, [_pr_points(results, entry) for entry in entries])


def _pr_points(results: Results, entry: BoardEntry) -> list[tuple[float, float]]:
    """Recall and precision by radius; without the radii at which every ball of every seed is empty."""
    curve = results.mean_arrays(entry, "pr_recall", "pr_precision")
    if curve is None:
        return []
    first = min(first_found(results.arrays(cell)) for cell in entry.ok_cells)
    return list(zip(*(values[first:].tolist() for values in curve), strict=True))


def first_found(arrays: Mapping[str, NDArray[Any]]) -> int:
    """The smallest radius at which the ball of any query has an item, from the arrays of a cell by distance.

    The precision of an empty ball counts as 0 in a mean over queries. Where every ball is empty there is no precision.
    """
    relevant, other = (arrays.get(name) for name in ("distances_relevant", "distances_other"))
    if relevant is None or other is None or relevant.shape != other.shape:
        empty = (arrays["pr_recall"] == 0) & (arrays["pr_precision"] == 0)
    else:
        empty = np.cumsum(relevant + other) == 0
    return int(np.argmin(empty)) if not empty.all() else len(empty)


def bit_means(results: Results, entry: BoardEntry) -> NDArray[np.float64] | None:
    """The share of ones (K,) of each bit in the codes of the first seed; None if the cell does not have it."""
    for cell in entry.ok_cells:
        means = results.arrays(cell).get("bit_means")
        return None if means is None else means.astype(np.float64)
    return None
