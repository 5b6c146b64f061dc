"""The trials of a study: which cells one has, and what is recorded of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hashzoo.bench.job import Job
from hashzoo.bench.search import Search, vary
from hashzoo.results.cell import Cell
from hashzoo.results.tuned import Point, Trial


@dataclass
class Unit:
    """One method on one dataset at one code length, with the cells of a trial: one for each held-out part and seed.

    Attributes:
        jobs: The cells of the default.
        search: The ranges.
        images: The training images that each cell sees.
    """

    dataset: str
    method: str
    bits: int
    search: Search
    jobs: list[Job] = field(default_factory=list)
    images: list[int] = field(default_factory=list)

    def cells(self, point: Point) -> list[Job]:
        """The cells of a trial."""
        return [vary(job, point) for job in self.jobs]


def record(unit: Unit, number: int, point: Point, cells: Sequence[Cell], metric: str, *, pruned: bool = False) -> Trial:
    """The record of a trial from its cells: their mean score, unless one of them failed or the trial was pruned."""
    scores = [cell.metrics.get(metric, math.nan) for cell in cells]
    bad = next((cell.status for cell in cells if cell.status != "ok"), "")
    status = bad or ("pruned" if pruned else "ok" if all(map(math.isfinite, scores)) else "nan")
    return Trial(
        number=number,
        status=status,
        score=math.fsum(scores) / len(scores) if status == "ok" else None,
        images=sum(unit.images[: len(cells)]),
        cells=[cell.identity.key for cell in cells],
        settings=dict(point),
    )
