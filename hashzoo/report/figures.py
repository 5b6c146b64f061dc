"""Figures of results, as PNG or SVG. Needs matplotlib: ``pip install 'hashzoo[plots]'``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.retrieval.overlay import blend, to_pil
from hashzoo.storage.files import replace_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
FEW = 30  # classes up to which each is named on an axis

#: Colours that people who see colours differently can tell apart, as on the page of `hashzoo report`.
COLOURS = ("#0067a5", "#b54708", "#067647", "#8e3a9d", "#6b5600", "#0e7490", "#b4235a", "#44403c")
GREY = "#b8c0c9"

#: A method's name and its points; the place among COLOURS of one that is brought to the front, else None.
Drawn = tuple[str, Sequence[tuple[float, float]], int | None]


def blank(width: float, height: float) -> Figure:
    """An empty figure of inches. EnvironmentFailure where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise EnvironmentFailure("figures need matplotlib; pip install 'hashzoo[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def check_name(path: Path) -> None:
    """UsageError for a file that is neither PNG nor SVG by its name."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path} must end in .png or .svg")


def save(figure: Figure, path: Path) -> None:
    """Write a figure, in the format its name says, with the same bytes for the same figure."""
    import matplotlib
    from matplotlib.text import Text

    check_name(path)
    kind = path.suffix.lower().removeprefix(".")
    date: dict[str, Any] = {"Date": None} if kind == "svg" else {}
    for words in figure.findobj(Text):
        words.set_parse_math(False)  # a name with two $ is no formula
    for axes in figure.axes:
        if axes.get_xscale() == "log":  # powers of ten are
            for tick in axes.get_xticklabels(which="both"):
                tick.set_parse_math(True)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "hashzoo"}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=date)
    replace_bytes(path, buffer.getvalue())


def overlays(images: NDArray[np.float32], looks: NDArray[np.float32], names: Sequence[str]) -> Figure:
    """Each image (C, H, W) in 0..1 beside itself under the map (H, W) of where a method looks, one row each."""
    figure = blank(4.4, 2.3 * len(images))
    rows = figure.subplots(len(images), 2, squeeze=False)
    for (plain, under), image, look, name in zip(rows, images, looks, names, strict=True):
        seen = to_pil(image)
        for axes, shown in ((plain, seen), (under, blend(seen, look))):
            axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
        plain.set_title(name, fontsize=8)
    return figure


def class_distribution(counts: NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """How many training images (C,) each class has, the largest first."""
    order = np.argsort(-counts, kind="stable")
    figure = blank(max(4.0, min(12.0, 0.35 * len(counts))), 3.2)
    axes = figure.subplots()
    axes.bar(np.arange(len(counts)), counts[order], color="tab:blue")
    if len(counts) <= FEW:
        axes.set_xticks(np.arange(len(counts)), [names[c] for c in order], rotation=90 * (len(counts) > 12))
    axes.set_xlabel("class")
    axes.set_ylabel("training images")
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


def panels(
    titles: Sequence[str], width: float = 4.6, height: float = 3.6, across: int = 3
) -> tuple[Figure, list[Axes]]:
    """A figure with axes for each title, so many in a row."""
    across = min(across, len(titles))
    down = -(-len(titles) // across)
    figure = blank(width * across, height * down)
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for one, title in zip(axes, titles, strict=False):
        one.set_title(title, fontsize=9)
        one.spines[["top", "right"]].set_visible(False)
    for one in axes[len(titles) :]:
        one.set_axis_off()
    return figure, axes[: len(titles)]


def curves(axes: Axes, series: Sequence[Drawn], x_name: str, y_name: str, *, marks: bool, log: bool = False) -> None:
    """A line a method; those in front are named in a legend, the others grey."""
    for name, points, place in sorted(series, key=lambda one: one[2] is not None):
        front = place is not None
        x, y = zip(*points, strict=True)
        axes.plot(
            *(x, y, "o-" if marks else "-"),
            color=COLOURS[place] if place is not None else GREY,
            linewidth=1.8 if front else 0.7,
            markersize=3.5 if front else 2,
            label=name if front else None,
            zorder=3 if front else 2,
        )
    if log:
        axes.set_xscale("log", base=2)
        ticks = sorted({x for _, points, _ in series for x, _ in points})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    _named(axes, x_name, y_name)


def points(axes: Axes, series: Sequence[Drawn], x_name: str, y_name: str) -> None:
    """A point a method over a logarithmic cost."""
    for name, places, place in sorted(series, key=lambda one: one[2] is not None):
        x, y = places[0]
        colour = COLOURS[place] if place is not None else GREY
        axes.plot([x], [y], "o", color=colour, markersize=5, label=name if place is not None else None)
    axes.set_xscale("log")
    _named(axes, x_name, y_name)


def _named(axes: Axes, x_name: str, y_name: str) -> None:
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    axes.grid(axis="y", linewidth=0.5, color="#d8dde3")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)


def distances(axes: Axes, relevant: NDArray[np.float64], other: NDArray[np.float64], place: int) -> None:
    """Shares (K + 1,) of pairs by distance: filled those that share a label, broken those that share none."""
    at = np.arange(len(relevant))
    axes.fill_between(at, relevant, color=COLOURS[place], alpha=0.35, label="share a label")
    axes.plot(at, other, "--", color="black", linewidth=1.2, label="share none")
    _named(axes, "Hamming distance", "share of pairs")


def balance(axes: Axes, means: NDArray[np.float64], place: int) -> None:
    """The share (K,) of ones of each bit, the rarest first."""
    axes.bar(np.arange(len(means)), np.sort(means), color=COLOURS[place])
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1)
    _named(axes, "bit", "share of ones")


def ranks(names: Sequence[str], means: NDArray[np.float64], groups: Sequence[tuple[int, int]], title: str) -> Figure:
    """Mean ranks (k,), the best first; a bar joins methods that cannot be told apart."""
    figure = blank(6.0, 1.0 + 0.19 * len(names))
    axes = figure.subplots()
    axes.hlines(np.arange(len(names)), 1, means, color=GREY)
    axes.plot(means, np.arange(len(names)), "o", color=COLOURS[0], markersize=4)
    far = len(names) * 1.03 + 1
    for lane, (first, last) in enumerate(groups):
        axes.plot([far + lane * len(names) * 0.02] * 2, [first - 0.3, last + 0.3], color="black", linewidth=1.6)
    axes.set_yticks(np.arange(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("mean rank; bars join methods that cannot be told apart")
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure
