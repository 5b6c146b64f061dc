"""The numbers behind charts, for the page and for figures of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hashzoo.report.charts import Series
from hashzoo.report.results import DatasetBoard, Entry, Results


def _series(entries: Sequence[Entry], points: Sequence[Sequence[tuple[float, float]]]) -> list[Series]:
    return [
        Series(e.number, e.name, p, e.facts["role"] == "control") for e, p in zip(entries, points, strict=True) if p
    ]


def against_bits(board: DatasetBoard) -> list[Series]:
    """A line a name: the main score by bits."""
    by_name: dict[str, list[Entry]] = {}
    for entry in board.entries:
        if entry.score(board.metric) is not None and entry.facts["bits"]:
            by_name.setdefault(entry.name, []).append(entry)
    points = [
        sorted((float(e.facts["bits"]), float(e.score(board.metric) or 0)) for e in found) for found in by_name.values()
    ]
    return _series([found[0] for found in by_name.values()], points)


#: What an image or a method costs, by column: what it is called, and how many of its units to one of the column's.
COSTS: dict[str, tuple[str, Callable[[float], float]]] = {
    "bytes_per_item": ("bytes stored an image", lambda value: value),
    "encode_per_second": ("seconds to encode 1,000 images", lambda value: 1000 / value),
    "fit_seconds": ("seconds to fit", lambda value: value),
}


def against_cost(board: DatasetBoard, bits: int, column: str) -> list[Series]:
    """A point a name: the main score by a cost above 0."""
    rows = [e for e in board.at(bits) if e.score(board.metric) is not None and (e.facts[column] or 0) > 0]
    return _series(rows, [[(COSTS[column][1](e.facts[column]), float(e.score(board.metric) or 0))] for e in rows])


def pr_curves(results: Results, board: DatasetBoard, bits: int) -> list[Series]:
    """A curve a name, means over the seeds by radius, of those whose distances are integers."""
    entries = board.at(bits)
    held = [results.mean(entry, "pr_recall", "pr_precision") for entry in entries]
    points = [list(zip(*(a.tolist() for a in arrays), strict=True)) if arrays else [] for arrays in held]
    return _series(entries, points)


def bit_means(results: Results, entry: Entry) -> NDArray[np.float64] | None:
    """The share (K,) of ones of each bit in the codes of the first seed; None where they are not kept."""
    for cell in entry.ok:
        means = results.arrays(cell).get("bit_means")
        return None if means is None else means.astype(np.float64)
    return None
