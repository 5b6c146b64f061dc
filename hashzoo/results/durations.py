"""How long cells take, from cells that were measured: by method, since methods differ by orders of magnitude."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from hashzoo.results.cell import Cell, Identity


class Durations:
    """The seconds of measured cells by method, dataset, backbone and epochs.

    Cells that failed, or were skipped, tell nothing.
    """

    def __init__(self, cells: Iterable[Cell] = ()) -> None:
        self._known: dict[tuple[object, ...], list[float]] = {}
        for cell in cells:
            self.add(cell)

    def add(self, cell: Cell) -> None:
        """Take a measured cell into account."""
        seconds = cell.provenance.get("seconds")
        if cell.status == "ok" and isinstance(seconds, int | float):
            for kind in _kinds(cell.identity):
                self._known.setdefault(kind, []).append(float(seconds))

    def estimate(self, identity: Identity) -> float | None:
        """The seconds that a cell takes, from the cells most like it; None without a cell of the same method."""
        for kind in _kinds(identity):
            if kind in self._known:
                return statistics.median(self._known[kind])
        return None

    def total(self, identities: Iterable[Identity]) -> tuple[float, int]:
        """The seconds of all cells whose method was measured, and the number of the other cells."""
        estimates = [self.estimate(identity) for identity in identities]
        known = [one for one in estimates if one is not None]
        return sum(known), len(estimates) - len(known)


def _kinds(one: Identity) -> list[tuple[object, ...]]:
    """What a cell is like, the closest first."""
    like = (one.dataset, one.backbone, one.budget.get("backbone"))
    return [(one.method, *like, one.budget.get("epochs")), (one.method, *like), (one.method,)]
