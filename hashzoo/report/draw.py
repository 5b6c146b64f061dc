"""Figures of a single cell: heatmaps, confusion matrix, class distribution, precision-recall curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo.data import image_paths
from hashzoo.errors import UsageError
from hashzoo.evaluation.scoring import encode, evaluate_index
from hashzoo.index import Index
from hashzoo.registry.open_dataset import reload_data
from hashzoo.registry.saved_method import read
from hashzoo.report import figures
from hashzoo.report.series import first_found
from hashzoo.report.style import DEFAULT, Style
from hashzoo.results import store
from hashzoo.results.cell import Cell
from hashzoo.retrieval.heatmaps import compute_heatmaps
from hashzoo.types import Codes, Splits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = 100  # first results of a query that a confusion matrix counts


@dataclass(frozen=True)
class Source:
    """What a figure is drawn of.

    Attributes:
        cell: The ``.json`` of the cell.
        images: The images of a heatmap figure.
        plugins: Plugin files or modules to load.
        root: The folder of the dataset's files, if they were moved.
        device: The device of the method.
    """

    cell: Path
    images: Sequence[Path] = ()
    plugins: Sequence[str] = ()
    root: Path | None = None
    device: str = "cpu"


def draw(kind: str, source: Source, style: Style = DEFAULT) -> Figure:
    """Draw a figure of a cell.

    Args:
        kind: A key of ``KINDS``.
        source: What it is drawn of.
        style: Its size and fonts.

    Returns:
        A matplotlib figure.

    Raises:
        UsageError: If the cell does not have what the figure needs.
    """
    if source.cell.is_dir():
        raise UsageError(f"{source.cell} is a folder; name one cell, a .json of {source.cell / 'cells'}")
    return style.draw(partial(KINDS[kind], replace(source, cell=source.cell.with_suffix(".json"))))


def _draw_pr_curve(source: Source) -> Figure:
    cell, arrays = store.read(source.cell), store.arrays(source.cell)
    if "pr_recall" not in arrays:
        raise UsageError(
            f"{source.cell.name} has no precision-recall curve: its status is {cell.status}, or its distances are not "
            "integers"
        )
    recall, precision = (values.astype(np.float64) for values in (arrays["pr_recall"], arrays["pr_precision"]))
    first = first_found(arrays)
    return figures.pr_curve(recall[first:], precision[first:], cell_title(cell))


def _draw_classes(source: Source) -> Figure:
    cell = store.read(source.cell)
    data = reload_data(cell, source.plugins, source.root)
    counts = data.setting(1).class_counts.numpy()
    return figures.class_distribution(counts, data.class_names, cell.identity.dataset)


def _draw_confusion(source: Source) -> Figure:
    trained = read(source.cell, source.device, source.plugins)
    data, index = reload_data(trained.cell, source.plugins, source.root), trained.method.index()
    index.add(encode(trained.run, trained.method, data.database, ids=trained.method.card.saw_database))
    shares = confusion_shares(index, encode(trained.run, trained.method, data.query), data, RESULTS)
    return figures.confusion(shares, data.class_names, f"{cell_title(trained.cell)}: the first {RESULTS}")


def _draw_heatmaps(source: Source) -> Figure:
    trained = read(source.cell, source.device, source.plugins)
    shown, heatmaps = compute_heatmaps(trained, [image_paths.open_image(path) for path in source.images])
    return figures.overlays(shown.numpy(), heatmaps.numpy(), [path.name for path in source.images])


KINDS: dict[str, Callable[[Source], Figure]] = {
    "looks": _draw_heatmaps,
    "classes": _draw_classes,
    "confusion": _draw_confusion,
    "pr": _draw_pr_curve,
}


def confusion_shares(index: Index, query: Codes, data: Splits, results: int) -> NDArray[np.float64]:
    """The expected share of each class among the first results of queries of each class, over all orders of ties.

    Args:
        index: An index of the database.
        query: The codes of the queries.
        data: The dataset, whose labels are counted.
        results: The number of results of each query.

    Returns:
        (C, C) shares by class of the query (rows) and class of the result (columns). With several labels per image, a
        row is the mean over the queries with its label and sums to more than 1.
    """
    wanted = data.query.labels.numpy() > 0
    one_class = torch.ones(len(wanted), 1)
    shares = np.zeros(wanted.shape)
    for column in range(wanted.shape[1]):  # precision if every query looked for this class only
        single = replace(
            data,
            query=replace(data.query, labels=one_class),
            database=replace(data.database, labels=data.database.labels[:, column : column + 1]),
            multilabel=True,
            pairs=None,
        )
        evaluation, _ = evaluate_index(index, query, single, (f"p@{results}",), {})
        shares[:, column] = np.nan_to_num(evaluation.per_query[f"p@{results}"])  # NaN: no image of this class
    mean: NDArray[np.float64] = wanted.T.astype(float) @ shares / np.maximum(wanted.sum(0), 1)[:, None]
    return mean


def cell_title(cell: Cell) -> str:
    """The title of a figure of a cell."""
    identity = cell.identity
    return f"{identity.method}, {identity.bits} bits, {identity.dataset}"
