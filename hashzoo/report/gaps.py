"""How far rows are behind the best row of their dataset and code length, and whether the difference is significant."""

from __future__ import annotations

from hashzoo.report.results import DatasetBoard
from hashzoo.results.against import Gap, gaps_in_block


def gaps_to_best(board: DatasetBoard, bits: int) -> dict[int, Gap]:
    """The gap of each competing row of a code length, except the best one, by ``id`` of the entry."""
    best = board.best(bits)
    if best is None:
        return {}
    others = [e for e in board.entries_at(bits) if e is not best and e.competes and e.score(board.metric) is not None]
    if not others:
        return {}
    gaps = gaps_in_block(best.row, [other.row for other in others], board.metric)
    return {id(other): gap for other, gap in zip(others, gaps, strict=True)}
