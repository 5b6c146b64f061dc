"""Figures of one cell: confusion matrix, class distribution, precision-recall curve, heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from hashzoo.results import store
from hashzoo.results.cell import Cell
from hashzoo.retrieval.heatmaps import compute_heatmaps
from hashzoo.types import Codes, Splits

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_shares(index: Index, query: Codes, data: Splits, at: int = 100) -> NDArray[np.float64]:
    """(C, C) what queries of a class find: the expected share of each class among the first ``at`` images.

    Ties count in expectation. With several labels an image, a row is over the queries that carry its label, and
    sums to more than 1.
    """
    wanted = data.query.labels.numpy() > 0
    one = torch.ones(len(wanted), 1)
    shares = np.zeros(wanted.shape)
    for column in range(wanted.shape[1]):  # as if every query asked for this class alone
        asked = replace(
            data,
            query=replace(data.query, labels=one),
            database=replace(data.database, labels=data.database.labels[:, column : column + 1]),
            multilabel=True,
            pairs=None,
        )
        found, _ = evaluate_index(index, query, asked, (f"p@{at}",), {})
        shares[:, column] = np.nan_to_num(found.per_query[f"p@{at}"])  # NaN: no such image
    mean: NDArray[np.float64] = wanted.T.astype(float) @ shares / np.maximum(wanted.sum(0), 1)[:, None]
    return mean


def draw(
    kind: str, cell: Path, images: Sequence[Path] = (), plugins: Sequence[str] = (), root: Path | None = None
) -> Figure:
    """The figure of a cell, by the path of its JSON; ``plugins`` are loaded; the files of its data are in ``root``.

    UsageError where the cell does not hold what the figure needs.
    """
    if cell.is_dir():
        raise UsageError(f"{cell} is a folder; name one cell, a .json of {cell / 'cells'}")
    cell = cell.with_suffix(".json")
    if kind == "pr":
        found, arrays = store.read(cell), store.arrays(cell)
        if "pr_recall" not in arrays:
            raise UsageError(
                f"{cell.name} has no curve by radius: its status is {found.status}, or its distances are not integers"
            )
        return figures.pr_curve(arrays["pr_recall"], arrays["pr_precision"], title(found))
    if kind == "classes":
        found = store.read(cell)
        data = reload_data(found, plugins, root)
        return figures.class_distribution(
            data.setting(1).class_counts.numpy(), data.class_names, found.identity.dataset
        )
    kept = read(cell, plugins=plugins)
    if kind == "confusion":
        data, index = reload_data(kept.cell, plugins, root), kept.method.index()
        index.add(encode(kept.run, kept.method, data.database, ids=kept.method.card.saw_database))
        shares = confusion_shares(index, encode(kept.run, kept.method, data.query), data)
        return figures.confusion(shares, data.class_names, f"{title(kept.cell)}: the first 100")
    seen, where = compute_heatmaps(kept, [image_paths.open_image(path) for path in images])
    return figures.overlays(seen.numpy(), where.numpy(), [path.name for path in images])


def title(cell: Cell) -> str:
    """A cell's name above a figure."""
    identity = cell.identity
    return f"{identity.method}, {identity.bits} bits, {identity.dataset}"
