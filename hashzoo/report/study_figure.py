"""The figure of a study: the expected best validation score of each method by the number of trials."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from hashzoo.errors import UsageError, unknown_name
from hashzoo.report import figures
from hashzoo.report.style import COLOURS, DEFAULT, Style
from hashzoo.results.study_tables import curves
from hashzoo.results.tuned import Tuned

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_study(tuned: Tuned, highlight: Sequence[str] = (), style: Style = DEFAULT) -> Figure:
    """Draw a panel for each dataset and code length, with a line for each method.

    Args:
        tuned: The study.
        highlight: Methods to draw in color; by default the best ones of the first panel.
        style: Size and fonts.

    Raises:
        UsageError: If no trial succeeded, or the study does not have a method.
    """
    found = curves(tuned)
    if not found:
        raise UsageError(f"the study of {tuned.benchmark} has no trial that is ok")
    known = {name for lines in found.values() for name in lines}
    for name in highlight:
        if name not in known:
            raise UsageError(unknown_name("method of this study", name, known))
    first = next(iter(found.values()))
    sign = -1 if tuned.higher else 1
    names = list(highlight) or sorted(first, key=lambda name: sign * first[name][-1])
    return style.draw(partial(_draw, tuned, {name: place for place, name in enumerate(names[: len(COLOURS)])}))


def _draw(tuned: Tuned, places: dict[str, int]) -> Figure:
    found = curves(tuned)
    figure, panels = figures.panels([f"{tuned.benchmark}: {dataset}, {bits} bits" for dataset, bits in found])
    for axes, lines in zip(panels, found.values(), strict=True):
        series = [
            (name, [(float(n), score) for n, score in enumerate(line, 1)], places.get(name))
            for name, line in lines.items()
        ]
        figures.draw_lines(axes, series, "trials", f"expected best validation {tuned.metric}", markers=True)
        axes.locator_params(axis="x", integer=True)
    return figure
