"""The charts of the page as separate figures, for papers and slides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import UsageError
from hashzoo.evaluation.metrics import ExtraMetrics
from hashzoo.registry.open_dataset import reload_data
from hashzoo.report import figures
from hashzoo.report.charts import Series
from hashzoo.report.series import COSTS, bit_means, pr_curves, scores_by_bits, scores_by_cost
from hashzoo.report.style import COLOURS, DEFAULT, Style
from hashzoo.report.training import draw_training, training_of
from hashzoo.results.by_dataset import BoardEntry, DatasetBoard, Results, highlighted_names
from hashzoo.results.mean_ranks import rank
from hashzoo.storage.offline import offline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """The part of results that is drawn.

    Attributes:
        results: The results.
        boards: The boards to draw.
        names: The highlighted rows.
        extra: Metrics of plugins.
        plugins: Plugin files or modules to load with a dataset.
        root: The folder of the dataset's files, if they were moved.
    """

    results: Results
    boards: Sequence[DatasetBoard]
    names: Sequence[str]
    extra: ExtraMetrics
    plugins: Sequence[str] = ()
    root: Path | None = None

    def bits_of(self, board: DatasetBoard) -> int:
        """The code length that is drawn of a board, the middle one."""
        return board.middle_bits

    def placed(self, series: Sequence[Series]) -> list[figures.PlacedSeries]:
        """Series with their place among the colors."""
        place = {name: i for i, name in enumerate(self.names)}
        return [(one.name, one.points, place.get(one.name)) for one in series]

    def highlighted(self, board: DatasetBoard) -> list[tuple[BoardEntry, int]]:
        """The highlighted rows of a board, with their place among the colors."""
        rows = {entry.name: entry for entry in board.entries_at(self.bits_of(board))}
        return [(rows[name], i) for i, name in enumerate(self.names) if name in rows]

    def title(self, board: DatasetBoard) -> str:
        """The title of a panel."""
        return f"{board.title}, {self.bits_of(board)} bits"


def select(
    results: Results,
    extra: ExtraMetrics,
    *,
    highlight: Sequence[str] = (),
    few: bool = False,
    plugins: Sequence[str] = (),
    root: Path | None = None,
) -> Selection:
    """Select what to draw.

    Args:
        results: The results, of the rows that are wanted only.
        extra: Metrics of plugins.
        highlight: The methods to highlight; see :func:`hashzoo.results.by_dataset.highlighted_names`.
        few: Whether methods were selected, so that all rows are highlighted by default if they are few enough.
        plugins: Plugin files or modules to load with a dataset.
        root: The folder of the dataset's files, if they were moved.

    Raises:
        UsageError: If the results do not have the methods, or no row has a code length.
    """
    boards = [board for board in results.boards if board.bits]
    if not boards:
        raise UsageError(f"{results.path} has no row with a code length; run hashzoo bench first")
    return Selection(results, boards, highlighted_names(results, highlight, few=few), extra, plugins, root)


def plot(kind: str, selection: Selection, style: Style = DEFAULT) -> Figure:
    """Draw the figure of a kind in ``KINDS``. Raises UsageError if the results do not have what it needs."""
    return style.draw(partial(KINDS[kind], selection))


def _plot_pr(selection: Selection) -> Figure:
    found = [
        (board, series)
        for board in selection.boards
        if (series := pr_curves(selection.results, board, selection.bits_of(board)))
    ]
    _require(found, _in_arrays("curves by radius"))
    figure, panels = figures.panels([selection.title(board) for board, _ in found])
    for axes, (_, series) in zip(panels, found, strict=True):
        figures.draw_lines(axes, selection.placed(series), "recall", "precision", markers=False)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    return figure


def _plot_sizes(column: str, label: str, selection: Selection) -> Figure:
    found = [(board, series) for board in selection.boards if (series := scores_by_bits(board, column))]
    _require(found, "scores")
    figure, panels = figures.panels([board.title for board, _ in found])
    for axes, (board, series) in zip(panels, found, strict=True):
        figures.draw_lines(axes, selection.placed(series), label, board.metric, markers=True, log=True)
    return figure


def _plot_costs(selection: Selection) -> Figure:
    found = [
        (board, cost, series)
        for board in selection.boards
        for cost in COSTS
        if (series := scores_by_cost(board, selection.bits_of(board), cost))
    ]
    _require(found, "costs")
    figure, panels = figures.panels([selection.title(board) for board, _, _ in found])
    for axes, (board, cost, series) in zip(panels, found, strict=True):
        figures.draw_points(axes, selection.placed(series), COSTS[cost][0], board.metric)
    return figure


def _plot_distances(selection: Selection) -> Figure:
    def histograms(entry: BoardEntry) -> list[NDArray[np.float64]] | None:
        return selection.results.mean_arrays(entry, "distances_relevant", "distances_other")

    def draw(axes: Axes, values: list[NDArray[np.float64]], place: int) -> None:
        relevant, other = values
        figures.draw_distances(axes, relevant, other, place)

    return _plot_highlighted(selection, histograms, draw, "histograms of distances", 2.6)


def _plot_balance(selection: Selection) -> Figure:
    def means(entry: BoardEntry) -> NDArray[np.float64] | None:
        return bit_means(selection.results, entry)

    return _plot_highlighted(selection, means, figures.draw_balance, "means of bits", 2.4)


def _plot_highlighted(
    selection: Selection,
    values_of: Callable[[BoardEntry], T | None],
    draw: Callable[[Axes, T, int], None],
    what: str,
    height: float,
) -> Figure:
    """A panel for each highlighted row that has values, drawn in its color; ``what`` names the values in an error."""
    found = [
        (f"{entry.name}: {selection.title(board)}", values, place)
        for board in selection.boards
        for entry, place in selection.highlighted(board)
        if (values := values_of(entry)) is not None
    ]
    _require(found, _in_arrays(what))
    figure, panels = figures.panels([title for title, _, _ in found], 3.4, height, 4)
    for axes, (_, values, place) in zip(panels, found, strict=True):
        draw(axes, values, place)
    return figure


def _plot_classes(selection: Selection) -> Figure:
    board = selection.boards[0]
    cell = next((cell for entry in board.entries for cell in entry.ok_cells), None)
    if cell is None:
        raise UsageError(f"{selection.results.path} has no cell of {board.dataset} that is ok")
    with offline():
        data = reload_data(cell, selection.plugins, selection.root)
    return figures.class_distribution(data.setting(1).class_counts.numpy(), data.class_names, board.dataset)


def _plot_ranks(selection: Selection) -> Figure:
    frame = selection.results.frame
    frame = frame[frame["dataset"].isin([board.dataset for board in selection.boards])]
    ranking = rank([frame], selection.boards[0].metric or None, None, selection.extra)
    title = f"{ranking.metric}, {len(ranking.blocks)} blocks of dataset, backbone and bits"
    return figures.ranks(ranking.methods, np.asarray(ranking.ranks), ranking.groups, title)


def _plot_training(selection: Selection) -> Figure:
    found = [
        (f"{entry.name}: {selection.title(board)}", training, place)
        for board in selection.boards
        for entry, place in selection.highlighted(board)
        if (training := training_of(entry)) is not None
    ]
    _require(found, "losses by epoch, which only trained methods have and an older hashzoo did not keep,")
    figure, panels = figures.panels([title for title, _, _ in found], 3.4, 2.6, 4)
    for axes, (_, training, place) in zip(panels, found, strict=True):
        draw_training(axes, training, COLOURS[place])
    return figure


def _require(found: Sequence[object], what: str) -> None:
    """Raise UsageError if nothing was found."""
    if not found:
        raise UsageError(f"the results have no {what} for this selection")


def _in_arrays(what: str) -> str:
    return f"{what} (in cells/*.npz, which can be missing from copied results)"


KINDS: dict[str, Callable[[Selection], Figure]] = {
    "pr": _plot_pr,
    "bits": partial(_plot_sizes, "bits", "code length in bits"),
    "bytes": partial(_plot_sizes, "bytes_per_item", "bytes per item"),
    "cost": _plot_costs,
    "distances": _plot_distances,
    "balance": _plot_balance,
    "classes": _plot_classes,
    "ranks": _plot_ranks,
    "training": _plot_training,
}
