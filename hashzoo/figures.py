"""Figures of results, as PNG or SVG. Needs matplotlib: ``pip install 'hashzoo[plots]'``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import TroubleError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
FEW = 30  # classes up to which each is named on an axis


def blank(width: float, height: float) -> Figure:
    """An empty figure of inches. TroubleError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise TroubleError("figures need matplotlib; pip install 'hashzoo[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def check_name(path: Path) -> None:
    """UsageError for a file that is neither PNG nor SVG by its name."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path} must end in .png or .svg")


def save(figure: Figure, path: Path) -> None:
    """Write a figure, in the format its name says, with the same bytes for the same figure."""
    import matplotlib

    check_name(path)
    date: dict[str, Any] = {"Date": None} if path.suffix.lower() == ".svg" else {}
    try:
        with matplotlib.rc_context({"svg.hashsalt": "hashzoo"}):
            figure.savefig(path, dpi=150, metadata=date)
    except OSError as error:
        raise TroubleError(f"cannot write {path}: {error.strerror}") from error


def overlays(pictures: NDArray[np.float32], looks: NDArray[np.float32], names: Sequence[str]) -> Figure:
    """Each picture (C, H, W) in 0..1 beside itself under the map (H, W) of where a method looks, one row each."""
    figure = blank(4.4, 2.3 * len(pictures))
    rows = figure.subplots(len(pictures), 2, squeeze=False)
    for (plain, under), picture, look, name in zip(rows, pictures, looks, names, strict=True):
        shown = picture.transpose(1, 2, 0)
        for axes in (plain, under):
            axes.imshow(shown if shown.shape[2] == 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1)
            axes.set_axis_off()
        under.imshow(look, cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        plain.set_title(name, fontsize=8)
    return figure


def class_distribution(counts: NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """How many training pictures (C,) each class has, the largest first."""
    order = np.argsort(-counts, kind="stable")
    figure = blank(max(4.0, min(12.0, 0.35 * len(counts))), 3.2)
    axes = figure.subplots()
    axes.bar(np.arange(len(counts)), counts[order], color="tab:blue")
    if len(counts) <= FEW:
        axes.set_xticks(np.arange(len(counts)), [names[c] for c in order], rotation=90 * (len(counts) > 12))
    axes.set_xlabel("class")
    axes.set_ylabel("training pictures")
    axes.set_title(title, fontsize=9)
    return figure


def confusion(shares: NDArray[np.float64], names: Sequence[str], title: str) -> Figure:
    """The share (C, C) of each class (columns) in what queries of a class (rows) retrieve."""
    few = len(names) <= FEW
    side = max(3.6, min(12.0, 0.45 * len(names))) if few else 7.0
    figure = blank(side + 0.8, side)
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes)
    if few:
        axes.set_xticks(np.arange(len(names)), names, rotation=90)
        axes.set_yticks(np.arange(len(names)), names)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "black" if share > 0.6 else "white"
                axes.text(
                    column,
                    row,
                    f"{share:.2f}"[1:] if share < 0.995 else "1",
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=6,
                )
    axes.set_xlabel("retrieved class")
    axes.set_ylabel("query class")
    axes.set_title(title, fontsize=9)
    return figure


def pr_curve(recall: NDArray[np.float64], precision: NDArray[np.float64], title: str) -> Figure:
    """Precision over recall by Hamming radius, both (K + 1,)."""
    figure = blank(4.2, 3.4)
    axes = figure.subplots()
    axes.plot(recall, precision, marker="o", markersize=3)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_title(title, fontsize=9)
    return figure
