"""How far rows are behind the best row of their dataset and code length, and whether the difference is significant."""

from __future__ import annotations

from hashzoo.results.against import ALIKE, TESTS, Gap, gaps_in_block
from hashzoo.results.by_dataset import DatasetBoard, Results


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


def rows_like_best(results: Results) -> tuple[frozenset[int], str]:
    """The rows of a board that were tested and cannot be told from the best one of their dataset and code length.

    Returns:
        Their numbers in ``results.frame``, and a text that names the tests.
    """
    numbers = {id(row): number for number, row in enumerate(results.rows)}
    found, tests = set[int](), set[str]()
    for board in results.boards:
        for bits in board.bits:
            gaps = gaps_to_best(board, bits)
            tests |= {gap.test for gap in gaps.values() if gap.test not in ("", "models")}
            alike = [e for e in board.entries_at(bits) if id(e) in gaps and gaps[id(e)].verdict == ALIKE]
            found |= {numbers[id(entry.row)] for entry in alike}
    variation = "; or over ".join(TESTS[name] for name in TESTS if name in tests)
    return frozenset(found), f"p values are corrected for all rows (Holm), variation over {variation}" if tests else ""
