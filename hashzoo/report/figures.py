"""Figures of results as PNG, SVG or PDF, with matplotlib (extra ``plots``)."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.report.style import COLOURS, GREY, LINES, MARKERS, missing_letters, without_glyph_warnings
from hashzoo.retrieval.overlay import blend, to_pil
from hashzoo.storage.files import replace_bytes
from hashzoo.storage.library_caches import provide_matplotlib_cache

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
MARKED = 6  # points of a line that have a marker, if not all have one
MAX_NAMED_CLASSES = 30  # with more classes, axes have no class names

#: A method's name, its points, and its place among COLOURS if it is highlighted.
PlacedSeries = tuple[str, Sequence[tuple[float, float]], int | None]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes are in inches. Raises EnvironmentFailure if matplotlib is not installed."""
    provide_matplotlib_cache()
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise EnvironmentFailure("figures need matplotlib; pip install 'hashzoo[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def check_suffix(path: Path) -> None:
    """Raise UsageError if a file's suffix is not one of ``FORMATS``."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")


def save(figure: Figure, path: Path, warn: Callable[[str], object] = str) -> None:
    """Write a figure in the format of the file's suffix. Equal figures give equal bytes.

    Args:
        figure: The figure.
        path: The file.
        warn: Called with a line if no installed font has some of the characters.

    Raises:
        UsageError: If the suffix is not one of ``FORMATS``.
        EnvironmentFailure: If the disk refuses the file.
    """
    import matplotlib
    from matplotlib.text import Text

    check_suffix(path)
    kind = path.suffix.lower().removeprefix(".")
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name with two $ is not a formula
    for axes in figure.axes:
        if axes.get_xscale() == "log":  # powers of ten are
            for tick in axes.get_xticklabels(which="both"):
                tick.set_parse_math(True)
    buffer = io.BytesIO()
    # fonts as TrueType, since publishers refuse those of type 3, which are the default
    with matplotlib.rc_context({"svg.hashsalt": "hashzoo", "pdf.fonttype": 42}), without_glyph_warnings():
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    if missing := missing_letters(figure):
        warn(
            f"warning: no installed font has the characters {missing}, which are drawn as boxes in {path}; "
            "install a font that has them, such as Noto Sans CJK"
        )
    replace_bytes(path, buffer.getvalue())


def overlays(images: NDArray[np.float32], heatmaps: NDArray[np.float32], names: Sequence[str]) -> Figure:
    """Each image (C, H, W) beside itself under its heatmap (H, W), one row per image; values range from 0 to 1."""
    figure = new_figure(4.4, 2.3 * len(images))
    rows = figure.subplots(len(images), 2, squeeze=False)
    for (left, right), image, heatmap, name in zip(rows, images, heatmaps, names, strict=True):
        plain = to_pil(image)
        for axes, shown in ((left, plain), (right, blend(plain, heatmap))):
            axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
        left.set_title(name)
    return figure


def class_distribution(counts: NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """The number of training images (C,) of each class, in descending order."""
    order = np.argsort(-counts, kind="stable")
    figure = new_figure(max(4.0, min(12.0, 0.35 * len(counts))), 3.2)
    axes = figure.subplots()
    axes.bar(np.arange(len(counts)), counts[order], color="tab:blue")
    if len(counts) <= MAX_NAMED_CLASSES:
        axes.set_xticks(np.arange(len(counts)), [names[c] for c in order], rotation=90 * (len(counts) > 12))
    axes.set_xlabel("class")
    axes.set_ylabel("training images")
    axes.set_title(title)
    return figure


def confusion(shares: NDArray[np.float64], names: Sequence[str], title: str) -> Figure:
    """The share (C, C) of each class (columns) among what queries of a class (rows) retrieve."""
    few = len(names) <= MAX_NAMED_CLASSES
    side = max(3.6, min(12.0, 0.45 * len(names))) if few else 7.0
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes)
    if few:
        axes.set_xticks(np.arange(len(names)), names, rotation=90)
        axes.set_yticks(np.arange(len(names)), names)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                text = f"{share:.2f}"[1:] if share < 0.995 else "1"
                colour = "black" if share > 0.6 else "white"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="xx-small")
    axes.set_xlabel("retrieved class")
    axes.set_ylabel("query class")
    axes.set_title(title)
    return figure


def pr_curve(recall: NDArray[np.float64], precision: NDArray[np.float64], title: str) -> Figure:
    """Precision over recall by Hamming radius, both (K + 1,)."""
    figure = new_figure(4.2, 3.4)
    axes = figure.subplots()
    axes.plot(recall, precision, marker="o", markersize=3)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_title(title)
    return figure


def panels(
    titles: Sequence[str], width: float = 4.6, height: float = 3.6, columns: int = 3
) -> tuple[Figure, list[Axes]]:
    """A figure with axes for each title; ``width`` and ``height`` of one panel are in inches."""
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    figure = new_figure(width * columns, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for one, title in zip(axes, titles, strict=False):
        one.set_title(title)
        one.spines[["top", "right"]].set_visible(False)
    for one in axes[len(titles) :]:
        one.set_axis_off()
    return figure, axes[: len(titles)]


def draw_lines(
    axes: Axes, series: Sequence[PlacedSeries], x_name: str, y_name: str, *, markers: bool, log: bool = False
) -> None:
    """A line for each method. Highlighted methods are named in a legend, the others are gray.

    Highlighted lines differ in color, style and marker. Without ``markers`` for every point, a few points have one.
    """
    for name, points, place in sorted(series, key=lambda one: one[2] is not None):
        highlighted = place is not None
        x, y = zip(*points, strict=True)
        axes.plot(
            *(x, y),
            color=COLOURS[place] if place is not None else GREY,
            linestyle=LINES[place] if place is not None else "-",
            marker=MARKERS[place] if place is not None else "." if markers else "",
            markevery=1 if markers else (0 if place is None else place % MARKED, max(1, len(x) // MARKED)),
            linewidth=1.5 if highlighted else 0.7,
            markersize=4 if highlighted else 2,
            label=name if highlighted else None,
            zorder=3 if highlighted else 2,
        )
    if log:
        axes.set_xscale("log", base=2)
        ticks = sorted({x for _, points, _ in series for x, _ in points})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    _label_axes(axes, x_name, y_name)


def draw_points(axes: Axes, series: Sequence[PlacedSeries], x_name: str, y_name: str) -> None:
    """A point for each method over a logarithmic cost."""
    for name, points, place in sorted(series, key=lambda one: one[2] is not None):
        x, y = points[0]
        colour = COLOURS[place] if place is not None else GREY
        marker = MARKERS[place] if place is not None else "."
        axes.plot([x], [y], marker, color=colour, markersize=5, label=name if place is not None else None)
    axes.set_xscale("log")
    _label_axes(axes, x_name, y_name)


def _label_axes(axes: Axes, x_name: str, y_name: str) -> None:
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    axes.grid(axis="y", linewidth=0.5, color="#d8dde3")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


def draw_distances(axes: Axes, relevant: NDArray[np.float64], other: NDArray[np.float64], place: int) -> None:
    """Shares of pairs (K + 1,) by distance: a filled shape for pairs with a common label, a dashed line for others."""
    distances = np.arange(len(relevant))
    axes.fill_between(distances, relevant, color=COLOURS[place], alpha=0.35, label="share a label")
    axes.plot(distances, other, "--", color="black", linewidth=1.2, label="share none")
    _label_axes(axes, "Hamming distance", "share of pairs")


def draw_balance(axes: Axes, means: NDArray[np.float64], place: int) -> None:
    """The share of ones (K,) of each bit, in ascending order."""
    axes.bar(np.arange(len(means)), np.sort(means), color=COLOURS[place])
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1)
    _label_axes(axes, "bit", "share of ones")


def ranks(names: Sequence[str], means: NDArray[np.float64], groups: Sequence[tuple[int, int]], title: str) -> Figure:
    """Mean ranks (k,) in ascending order, with a bar beside methods that do not differ significantly."""
    figure = new_figure(6.0, 1.0 + 0.19 * len(names))
    axes = figure.subplots()
    axes.hlines(np.arange(len(names)), 1, means, color=GREY)
    axes.plot(means, np.arange(len(names)), "o", color=COLOURS[0], markersize=4)
    right = len(names) * 1.03 + 1
    for lane, (first, last) in enumerate(groups):
        axes.plot([right + lane * len(names) * 0.02] * 2, [first - 0.3, last + 0.3], color="black", linewidth=1.6)
    axes.set_yticks(np.arange(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    bars = "bars join methods that do not differ significantly" if groups else "too few blocks to tell methods apart"
    axes.set_xlabel(f"mean rank; {bars}")
    axes.set_title(title)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure
