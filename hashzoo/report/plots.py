"""The charts of the page as figures of their own, for papers and slides. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import UsageError, unknown_name
from hashzoo.evaluation.metrics import ExtraMetrics
from hashzoo.registry.open_dataset import reload_data
from hashzoo.report import figures
from hashzoo.report.charts import Series
from hashzoo.report.results import DatasetBoard, Entry, Results, looked_at
from hashzoo.report.series import COSTS, against_bits, against_cost, bit_means, pr_curves
from hashzoo.results.mean_ranks import rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """What of the results is drawn: these boards, at ``bits`` each, with these names in front."""

    results: Results
    boards: Sequence[DatasetBoard]
    bits: int | None
    names: Sequence[str]
    extra: ExtraMetrics
    plugins: Sequence[str] = ()
    root: Path | None = None

    def at(self, board: DatasetBoard) -> int:
        """The bits that are drawn of a board: those asked for, or the middle of those it has."""
        return self.bits if self.bits in board.bits and self.bits is not None else board.bits[len(board.bits) // 2]

    def drawn(self, series: Sequence[Series]) -> list[figures.Drawn]:
        """Series with their place among the colours."""
        place = {name: i for i, name in enumerate(self.names)}
        return [(one.name, one.points, place.get(one.name)) for one in series]

    def close(self, board: DatasetBoard) -> list[tuple[Entry, int]]:
        """The rows in front, with their place among the colours."""
        rows = {entry.name: entry for entry in board.at(self.at(board))}
        return [(rows[name], i) for i, name in enumerate(self.names) if name in rows]


def chosen(
    results: Results,
    extra: ExtraMetrics,
    *,
    dataset: str | None,
    bits: int | None,
    methods: Sequence[str],
    plugins: Sequence[str] = (),
    root: Path | None = None,
) -> Choice:
    """The choice of a person. UsageError for a dataset, bits or methods that the results do not have."""
    boards = [board for board in results.boards if dataset in (None, board.dataset)]
    if not boards:
        raise UsageError(
            f"{results.path}: {unknown_name('dataset', str(dataset), {b.dataset for b in results.boards})}"
        )
    boards = [board for board in boards if board.bits and (bits is None or bits in board.bits)]
    if not boards:
        known = ", ".join(map(str, results.bits)) or "none"
        raise UsageError(f"{results.path} has no rows of {bits} bits; there are: {known}")
    return Choice(results, boards, bits, looked_at(results, methods), extra, plugins, root)


def plotted(kind: str, choice: Choice) -> Figure:
    """The figure of a kind in KINDS. UsageError where the results do not hold what it needs."""
    return KINDS[kind](choice)


def _pr(choice: Choice) -> Figure:
    found = [
        (board, curves) for board in choice.boards if (curves := pr_curves(choice.results, board, choice.at(board)))
    ]
    figure, axes = figures.panels([_title(choice, board) for board, _ in _some(found, _arrays("curves by radius"))])
    for one, (_, series) in zip(axes, found, strict=True):
        figures.curves(one, choice.drawn(series), "recall", "precision", marks=False)
        one.set(xlim=(0, 1.02), ylim=(0, 1.02))
    return figure


def _bits(choice: Choice) -> Figure:
    found = [(board, series) for board in choice.boards if (series := against_bits(board))]
    figure, axes = figures.panels([board.title for board, _ in _some(found, "scores")])
    for one, (board, series) in zip(axes, found, strict=True):
        figures.curves(one, choice.drawn(series), "bits asked for", board.metric, marks=True, log=True)
    return figure


def _cost(choice: Choice) -> Figure:
    found = [
        (board, cost, series)
        for board in choice.boards
        for cost in COSTS
        if (series := against_cost(board, choice.at(board), cost))
    ]
    figure, axes = figures.panels([_title(choice, board) for board, _, _ in _some(found, "costs")])
    for one, (board, cost, series) in zip(axes, found, strict=True):
        figures.points(one, choice.drawn(series), COSTS[cost][0], board.metric)
    return figure


def _distances(choice: Choice) -> Figure:
    def sides(entry: Entry) -> list[NDArray[np.float64]] | None:
        return choice.results.mean(entry, "distances_relevant", "distances_other")

    def draw(axes: Axes, found: list[NDArray[np.float64]], place: int) -> None:
        relevant, other = found
        figures.distances(axes, relevant, other, place)

    return _each(choice, sides, draw, "histograms of distances", 2.6)


def _balance(choice: Choice) -> Figure:
    return _each(choice, lambda entry: bit_means(choice.results, entry), figures.balance, "means of bits", 2.4)


def _each(
    choice: Choice,
    values: Callable[[Entry], T | None],
    draw: Callable[[Axes, T, int], None],
    what: str,
    height: float,
) -> Figure:
    """A panel for each row in front that has values, drawn in its colour."""
    found = [
        (f"{entry.name}: {_title(choice, board)}", held, place)
        for board in choice.boards
        for entry, place in choice.close(board)
        if (held := values(entry)) is not None
    ]
    figure, axes = figures.panels([title for title, _, _ in _some(found, _arrays(what))], 3.4, height, 4)
    for one, (_, held, place) in zip(axes, found, strict=True):
        draw(one, held, place)
    return figure


def _classes(choice: Choice) -> Figure:
    board = choice.boards[0]
    cell = next((cell for entry in board.entries for cell in entry.ok), None)
    if cell is None:
        raise UsageError(f"{choice.results.path} has no cell of {board.dataset} that went well")
    data = reload_data(cell, choice.plugins, choice.root)
    return figures.class_distribution(data.setting(1).class_counts.numpy(), data.class_names, board.dataset)


def _ranks(choice: Choice) -> Figure:
    frame = choice.results.frame
    frame = frame[frame["dataset"].isin([board.dataset for board in choice.boards])]
    found = rank([frame], choice.boards[0].metric or None, None, choice.extra)
    title = f"{found.metric}, {len(found.blocks)} blocks of dataset, backbone and bits"
    return figures.ranks(found.methods, np.asarray(found.ranks), found.groups, title)


def _title(choice: Choice, board: DatasetBoard) -> str:
    return f"{board.title}, {choice.at(board)} bits"


def _some(found: list[T], what: str) -> list[T]:
    """What was found. UsageError where that is nothing."""
    if not found:
        raise UsageError(f"the results hold no {what} of what was asked for")
    return found


def _arrays(what: str) -> str:
    return f"{what} (cells/*.npz, which lie beside the cells unless they were passed on without)"


KINDS: dict[str, Callable[[Choice], Figure]] = {
    "pr": _pr,
    "bits": _bits,
    "cost": _cost,
    "distances": _distances,
    "balance": _balance,
    "classes": _classes,
    "ranks": _ranks,
}
