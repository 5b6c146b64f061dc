"""The course of a training: the loss of each epoch with its terms, and validation scores where they are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from hashzoo.report.style import LINES
from hashzoo.report.svg import Axis, Label, num, path, separate, short_number, svg, text
from hashzoo.results.by_dataset import BoardEntry
from hashzoo.results.warnings import epoch_losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 230.0, 160.0, 34.0, 8.0, 24.0, 26.0
_MAX_TERMS = 6  # lines of terms in a chart
_LEGEND_ROW = 0.07  # the share of the height of a figure's axes that a row of its legend takes


@dataclass(frozen=True)
class Training:
    """The training of a row; values are means over the seeds, NaN for an epoch without one.

    Attributes:
        loss: The sum of the loss terms of each epoch, (E,).
        terms: Each loss term, (E,) by name; empty if there is a single one.
        validation: Validation scores, (E,) by metric.
        seeds: The number of seeds.
    """

    loss: Sequence[float]
    terms: Mapping[str, Sequence[float]]
    validation: Mapping[str, Sequence[float]]
    seeds: int


def training_of(entry: BoardEntry) -> Training | None:
    """The training of a row, over the seeds with as many epochs as the first that has any; None if no cell has one."""
    curves = [[epoch for epoch in cell.curve if epoch_losses([epoch])] for cell in entry.ok_cells]
    length = next((len(curve) for curve in curves if curve), 0)
    curves = [curve for curve in curves if len(curve) == length]
    if not length:
        return None
    losses = [[total for _, total in epoch_losses(curve)] for curve in curves]
    names = list(dict.fromkeys(name for curve in curves for epoch in curve for name in epoch.get("loss", {})))
    held = list(dict.fromkeys(name for curve in curves for epoch in curve for name in epoch.get("validation", {})))

    def mean(kind: str, name: str) -> list[float]:
        values = [[epoch.get(kind, {}).get(name, math.nan) for epoch in curve] for curve in curves]
        return [float(value) for value in np.mean(values, axis=0)]

    terms = {name: mean("loss", name) for name in names[:_MAX_TERMS]} if len(names) > 1 else {}
    total = [float(value) for value in np.mean(losses, axis=0)]
    return Training(total, terms, {name: mean("validation", name) for name in held}, len(curves))


def training_chart(training: Training, place: int, label: str) -> Markup:
    """The loss over the epochs as a line, its terms as thin lines, and validation scores as dashed lines from 0 to 1.

    Args:
        training: The training.
        place: The place of the method among the colors.
        label: Description for screen readers.
    """
    known = [v for values in (training.loss, *training.terms.values()) for v in values if math.isfinite(v)]
    low, high = min(0.0, *known), max(known) if max(known) > min(0.0, *known) else min(0.0, *known) + 1
    epochs = len(training.loss)
    x = Axis(1, max(epochs, 2), _LEFT, _WIDTH - _RIGHT)
    y, share = Axis(low, high, _HEIGHT - _BOTTOM, _TOP), Axis(0, 1, _HEIGHT - _BOTTOM, _TOP)
    parts = [f'<path class="base" d="M{num(x.start)} {num(y.start)}H{num(x.end)}"/>']
    labels = []
    lines = [("loss", training.loss, y, "line")]
    lines += [(name, values, y, "term") for name, values in training.terms.items()]
    lines += [(f"validation {name}", values, share, "other") for name, values in training.validation.items()]
    for name, values, axis, kind in lines:
        points = [(x(i), axis(v)) for i, v in enumerate(values, 1) if math.isfinite(v)]
        if points:
            parts.append(path(points if len(points) > 1 else [points[0], (points[0][0] + 4, points[0][1])], kind))
            labels.append(Label(x.end, points[-1][1] - 4, f"{name} {short_number(values_end(values))}", end=True))
    separate(labels, _TOP - 8, y.start - 4)
    parts += [text(one.x, one.placed_y, one.text, "l2", "end") for one in labels]
    parts += [text(x.start - 4, y(v) + 4, short_number(v), "t", "end") for v in (low, high)]
    parts += [text(x(v), _HEIGHT - 12, v, "t", "middle" if v == 1 else "end") for v in dict.fromkeys((1, epochs))]
    parts.append(text(_WIDTH / 2, _HEIGHT - 12, "epoch", "t", "middle"))
    return svg(_WIDTH, _HEIGHT, label, [f'<g class="c{place}">', *parts, "</g>"], "small")


def values_end(values: Sequence[float]) -> float:
    """The last known value.

    >>> values_end([1.0, 0.5, math.nan])
    0.5
    """
    return next(value for value in reversed(values) if math.isfinite(value))


def draw_training(axes: Axes, training: Training, colour: str) -> None:
    """Draw what :func:`training_chart` shows with matplotlib, validation scores on an axis of their own."""
    epochs = np.arange(1, len(training.loss) + 1)
    marker = "o" if len(epochs) < 30 else ""
    axes.plot(epochs, training.loss, color=colour, linewidth=1.8, marker=marker, markersize=3, label="loss", zorder=3)
    for style, (name, values) in zip(LINES[1:], training.terms.items(), strict=False):
        axes.plot(epochs, values, color=colour, linestyle=style, linewidth=1, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.grid(axis="y", linewidth=0.5, color="#d8dde3")
    if training.validation:
        right = axes.twinx()
        right.spines[["top", "left"]].set_visible(False)
        for values in training.validation.values():
            right.plot(epochs, values, "--", color="black", linewidth=1.2)
        right.set_ylabel(", ".join(f"validation {name}" for name in training.validation))
        right.set_ylim(0, 1)
    if training.terms:  # names beside the lines would overprint where lines are close, so they are above all lines
        rows = -(-(len(training.terms) + 1) // 2)
        low, high = axes.get_ylim()
        axes.set_ylim(low, low + (high - low) / (1 - _LEGEND_ROW * rows))
        axes.legend(loc="upper right", ncols=2, fontsize=6, frameon=False, handlelength=2.5, borderaxespad=0)
