"""The SVG charts of the page. Each series carries the number of its method, so that the page can highlight methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from hashzoo.report.svg import (
    LINE_HEIGHT,
    Axis,
    Label,
    frame,
    log_ticks,
    num,
    path,
    separate,
    short_number,
    svg,
    text,
    ticks,
)
from hashzoo.results.mean_ranks import Ranking

WIDTH, HEIGHT = 460.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 124.0, 28.0, 42.0  # margins

#: Number of a highlighted method -> its place among the colors of the style sheet.
Colours = Mapping[int, int]


@dataclass(frozen=True)
class Series:
    """The points (x, y) of one method.

    Attributes:
        number: The number of the method on the page.
        name: Its name.
        points: Its points.
        control: Whether it is a control.
    """

    number: int
    name: str
    points: Sequence[tuple[float, float]]
    control: bool = False


@dataclass(frozen=True)
class ChartText:
    """The description of a chart for screen readers, and the names of its axes."""

    label: str
    x: str
    y: str


def _group(series: Series, colours: Colours, inner: str) -> str:
    place = colours.get(series.number)
    kind = "s" + (" apart" if series.control else "") + ("" if place is None else f" on c{place}")
    return f'<g class="{kind}" data-m="{series.number}">{inner}</g>'


def _label(label: Label) -> str:
    """A label as text. ``data-y`` is its preferred height, from which the page's script places labels again."""
    anchor = ' text-anchor="end"' if label.end else ""
    y, content = num(label.placed_y + 4), escape(label.text)
    return f'<text class="l" x="{num(label.x)}" y="{y}" data-y="{num(label.y)}"{anchor}>{content}</text>'


def _highlighted_last(all_series: Sequence[Series], colours: Colours) -> list[Series]:
    """Highlighted series last, so that they are drawn above the others."""
    return sorted(all_series, key=lambda series: series.number in colours)


def _shorten(name: str, letters: int = 16) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _padded_range(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis that shows values: their range and some space, not below 0 unless a value is."""
    low, high = min(values), max(values)
    padding = (high - low) * 0.06 or 0.05
    return (low - padding if low < 0 else max(0.0, low - padding)), high + padding


def line_chart(
    all_series: Sequence[Series],
    colours: Colours,
    chart: ChartText,
    *,
    x_ticks: Sequence[float] | None = None,
    unit_square: bool = False,
    dots: bool = True,
) -> Markup:
    """A line for each method, with its name at the end.

    Args:
        all_series: The methods.
        colours: The highlighted methods.
        chart: Description and names of the axes.
        x_ticks: Ticks of the x axis; by default round values.
        unit_square: Both axes range from 0 to 1, instead of over the data.
        dots: Mark points with dots.
    """
    xs = [x for series in all_series for x, _ in series.points]
    ys = [y for series in all_series for _, y in series.points]
    low, high = (0.0, 1.0) if unit_square else _padded_range(ys)
    left, right = (0.0, 1.0) if unit_square else (min(xs), max(xs))
    x = Axis(left, right, LEFT, WIDTH - RIGHT, log=not unit_square and left > 0 and right > left)
    y = Axis(low, high, HEIGHT - BOTTOM, TOP)
    labels = {series.number: _line_label(series, x, y, inside=unit_square) for series in all_series}
    separate([labels[series.number] for series in all_series if series.number in colours], TOP, y.start)
    parts = [frame(x, y, x_ticks or ticks(left, right), ticks(low, high), chart.x, chart.y)]
    for series in _highlighted_last(all_series, colours):
        places = [(x(a), y(b)) for a, b in series.points]
        line = path(places) if len(places) > 1 else ""
        line += "".join(f'<circle cx="{num(a)}" cy="{num(b)}" r="2.6"/>' for a, b in places) if dots else ""
        title = f"<title>{escape(series.name)}</title>"
        parts.append(_group(series, colours, title + line + _label(labels[series.number])))
    return svg(WIDTH, HEIGHT, chart.label, parts)


def _line_label(series: Series, x: Axis, y: Axis, *, inside: bool) -> Label:
    """The name of a series beside its last point or, inside the frame, near the middle of the x axis."""
    point = max(series.points, key=lambda p: (p[0] < 0.55, p[0])) if inside else series.points[-1]
    height = y(point[1])
    return Label(x(point[0]) + 6 if inside else x.end + 8, height, _shorten(series.name), placed_y=height)


def scatter_chart(all_series: Sequence[Series], colours: Colours, chart: ChartText) -> Markup:
    """A point for each method over a logarithmic cost, and the steps of the Pareto front without controls.

    Args:
        all_series: The methods, each with one point (cost, score).
        colours: The highlighted methods.
        chart: Description and names of the axes.
    """
    xs = [x for series in all_series for x, _ in series.points]
    low, high = _padded_range([y for series in all_series for _, y in series.points])
    left, right = min(xs) / 1.6, max(xs) * 1.6
    x = Axis(left, right, LEFT, WIDTH - 20, log=True)
    y = Axis(low, high, HEIGHT - BOTTOM, TOP)
    parts = [frame(x, y, log_ticks(left, right), ticks(low, high), chart.x, chart.y)]
    steps = [(x(a), y(b)) for a, b in pareto_front([s.points[0] for s in all_series if not s.control])]
    corners = [p for (a, b), (c, d) in pairwise(steps) for p in ((a, b), (c, b), (c, d))]
    if steps:
        parts.append(path([*(corners or steps[:1]), (x.end, steps[-1][1])], "front"))
    labels = {}
    for series in all_series:
        (a, b) = series.points[0]
        left_of_point = x(a) > WIDTH * 0.62
        offset = -7 if left_of_point else 7
        labels[series.number] = Label(x(a) + offset, y(b), _shorten(series.name), left_of_point, placed_y=y(b))
    separate([labels[series.number] for series in all_series if series.number in colours], TOP, y.start - 4)
    for series in _highlighted_last(all_series, colours):
        (a, b) = series.points[0]
        title = f"<title>{escape(series.name)}: {b:.4f}, {short_number(a)}</title>"
        point = f'<circle cx="{num(x(a))}" cy="{num(y(b))}" r="4"/>'
        parts.append(_group(series, colours, title + point + _label(labels[series.number])))
    return svg(WIDTH, HEIGHT, chart.label, parts)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, score) with a higher score than all points of the same or lower cost, cheapest first.

    >>> pareto_front([(1, 0.3), (2, 0.2), (2, 0.5), (4, 0.5)])
    [(1, 0.3), (2, 0.5)]
    """
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def distance_chart(relevant: NDArray[np.float64], other: NDArray[np.float64], place: int, label: str) -> Markup:
    """Histograms of Hamming distances between queries and database.

    Args:
        relevant: Share of pairs with a common label at each distance, (K + 1,); a filled shape.
        other: The same for pairs without a common label; a dashed line.
        place: Place of the method among the colors.
        label: Description for screen readers.
    """
    width, height, top = 230.0, 150.0, 26.0
    last = len(relevant) - 1
    x = Axis(0, max(last, 1), 8, width - 8)
    y = Axis(0, max(float(max(relevant.max(), other.max())), 1e-9), height - 30, top)
    parts = [f'<path class="base" d="M{num(x.start)} {num(y.start)}H{num(x.end)}"/>']
    for values, kind in ((relevant, "same"), (other, "other")):
        points = [(x(d), y(float(v))) for d, v in enumerate(values)]
        closed = [(x.start, y.start), *points, (x.end, y.start)] if kind == "same" else points
        parts.append(path(closed, kind))
    labels = [
        Label(x(int(v.argmax())), y(float(v.max())) - 6, name)
        for v, name in ((relevant, "share a label"), (other, "share none"))
    ]
    for one in labels:  # on the side of the peak that has more space
        one.end = one.x > width / 2
        one.x = min(max(one.x, 8), width - 8)
    separate(labels, 12, y.start - 4)
    parts += [text(one.x, one.placed_y, one.text, "l2", "end" if one.end else "") for one in labels]
    parts += [text(x(v), height - 14, v, "t", "middle" if 0 < v < last else ("end" if v else "")) for v in (0, last)]
    parts.append(text(width / 2, height - 14, "Hamming distance", "t", "middle"))
    return svg(width, height, label, [f'<g class="c{place}">', *parts, "</g>"], "small")


def balance_chart(means: NDArray[np.float64], place: int, label: str) -> Markup:
    """The share of ones (K,) of each bit in ascending order, with a line at a half; arguments as above."""
    width, height, top = 230.0, 130.0, 14.0
    y = Axis(0, 1, height - 26, top)
    step = (width - 36) / len(means)
    parts = [
        f'<rect x="{num(28 + i * step)}" y="{num(y(float(v)))}" width="{num(max(step * 0.8, 0.6))}" '
        f'height="{num(max(y.start - y(float(v)), 0.4))}"/>'
        for i, v in enumerate(np.sort(means))
    ]
    parts += [f'<path class="half" d="M28 {num(y(0.5))}H{num(width - 8)}"/>']
    parts += [text(24, y(v) + 4, name, "t", "end") for v, name in ((0, "0"), (0.5, "½"), (1, "1"))]
    parts.append(text(width / 2, height - 8, f"{len(means)} bits in ascending order", "t", "middle"))
    return svg(width, height, label, [f'<g class="c{place}">', *parts, "</g>"], "small")


def matrix_chart(shares: NDArray[np.float64], names: Sequence[str], label: str) -> Markup:
    """The share (C, C) of each class, columns, among what queries of a class, rows, retrieve."""
    count = len(names)
    named = count <= 30
    side = min(34.0, max(7.0, 340.0 / count))
    margin = min(120.0, 10 + 6.2 * max(len(_shorten(name)) for name in names)) if named else 10.0
    extent = num(count * side)
    background = f'<rect x="{num(margin)}" y="{num(margin)}" width="{extent}" height="{extent}" fill-opacity="0.02"/>'
    parts = [] if named else [background]
    for (row, column), share in np.ndenumerate(shares):
        if not named and share < 0.005:  # 1,000 classes have a million squares, nearly all of them empty
            continue
        title = f"<title>{escape(names[row])} finds {escape(names[column])}: {share:.3f}</title>"
        parts.append(_matrix_square(margin + column * side, margin + row * side, side, share, title))
    if named:
        for i, name in enumerate(names):
            parts.append(text(margin - 5, margin + (i + 0.5) * side + 4, _shorten(name), "t", "end"))
            at = f"{num(margin + (i + 0.5) * side + 4)} {num(margin - 5)}"
            parts.append(f'<text class="t" transform="translate({at}) rotate(-90)">{escape(_shorten(name))}</text>')
    return svg(margin + count * side + 2, margin + count * side + 2, label, parts, "matrix")


def _matrix_square(x: float, y: float, side: float, share: float, title: str) -> str:
    """A square as opaque as its share, with the number if there is space."""
    number = ""
    if side >= 22 and share >= 0.005:
        kind = "on" if share > 0.5 else "off"
        shown = "1" if share > 0.994 else f"{share:.2f}"[1:]
        number = text(x + (side - 1) / 2, y + side / 2 + 3, shown, kind, "middle")
    return (
        f'<g><rect x="{num(x)}" y="{num(y)}" width="{num(side - 1)}" height="{num(side - 1)}" '
        f'fill-opacity="{min(max(share, 0.02), 1):.2f}"/>{number}{title}</g>'
    )


def bar_chart(counts: NDArray[np.int64], names: Sequence[str], groups: Sequence[str], label: str) -> Markup:
    """The number of training images (C,) of each class in descending order.

    Args:
        counts: The numbers.
        names: Names of the classes.
        groups: Names of equally large groups of classes in this order, such as head, medium and tail; can be empty.
        label: Description for screen readers.
    """
    order = np.argsort(-counts, kind="stable")
    width, height = 460.0, 250.0
    few, long = len(counts) <= 20, any(len(name) > 3 for name in names)
    y = Axis(0, 1.12 * float(max(counts.max(), 1)), height - (70 if few and long else 46), 36)
    step = (width - 50) / len(counts)
    parts = [frame(Axis(0, 1, LEFT, width - 6), y, [], ticks(0, y.high, 4), "", "training images")]
    for group, places in enumerate(np.array_split(np.arange(len(order)), max(len(groups), 1))):
        for place in places:
            c, x = order[place], LEFT + 2 + place * step
            top = y(float(counts[c]))
            parts.append(
                f'<rect class="third{group}" x="{num(x)}" y="{num(top)}" width="{num(step * 0.84)}" '
                f'height="{num(max(y.start - top, 0.5))}">'
                f"<title>{escape(names[c])}: {int(counts[c])}</title></rect>"
            )
            if few:
                parts.append(text(x + step * 0.42, top - 3, int(counts[c]), "t", "middle"))
                parts.append(_bar_name(x + step * 0.42, y.start, names[c], rotated=long))
        if groups and len(places):
            middle = LEFT + 2 + (places[0] + len(places) / 2) * step
            parts.append(text(middle, height - 4, groups[group], "name", "middle"))
    return svg(width, height, label, parts, "chart bars")


def _bar_name(x: float, y: float, name: str, *, rotated: bool) -> str:
    """The name of a class below its bar."""
    turned = f'transform="translate({num(x - 3)} {num(y + 10)}) rotate(60)"'
    upright = f'x="{num(x)}" y="{num(y + 14)}" text-anchor="middle"'
    return f'<text class="t" {turned if rotated else upright}>{escape(_shorten(name, 9))}</text>'


def rank_chart(ranking: Ranking, numbers: Mapping[str, int], colours: Colours, label: str) -> Markup:
    """Mean ranks in ascending order, with a bar beside methods that do not differ significantly.

    Args:
        ranking: The mean ranks.
        numbers: The number of each method on the page.
        colours: The highlighted methods.
        label: Description for screen readers.
    """
    count = len(ranking.methods)
    x = Axis(1, max(count, 2), 140, 400)
    lanes = _lanes(ranking.groups)
    width = 412 + 9.0 * (max(lanes, default=0) + 1)
    height = 34 + LINE_HEIGHT * count
    marks = sorted({1.0, float(count), *(v for v in ticks(1, count, 4) if 2 < v < count - 1)})
    parts = ['<g class="ax">']
    parts += [
        f'<path d="M{num(x(v))} 22V{num(height - 6)}"/>{text(x(v), 14, short_number(v), anchor="middle")}'
        for v in marks
    ]
    parts.append("</g>")
    for i, (name, rank) in enumerate(zip(ranking.methods, ranking.ranks, strict=True)):
        y = 32 + LINE_HEIGHT * i
        point = f'<path d="M{num(x.start)} {num(y)}H{num(x(float(rank)))}"/>'
        point += f'<circle cx="{num(x(float(rank)))}" cy="{num(y)}" r="3.4"/>'
        name_text = text(134, y + 4, _shorten(name, 19), "n", "end")
        title = f"<title>{escape(name)}: mean rank {rank:.2f}</title>"
        parts.append(_group(Series(numbers.get(name, -1), name, ()), colours, title + point + name_text))
    for lane, (first, last) in zip(lanes, ranking.groups, strict=True):
        at = num(412 + 9 * lane)
        parts.append(f'<path class="join" d="M{at} {num(28 + LINE_HEIGHT * first)}V{num(36 + LINE_HEIGHT * last)}"/>')
    return svg(width, height, label, parts, "chart ranks")


def _lanes(groups: Sequence[tuple[int, int]]) -> list[int]:
    """A lane for each range (first, last), so that ranges in the same lane do not overlap.

    >>> _lanes([(0, 3), (2, 5), (4, 8)])
    [0, 1, 0]
    """
    ends: list[int] = []
    lanes = []
    for first, last in groups:
        lane = next((i for i, end in enumerate(ends) if end < first), len(ends))
        ends[lane : lane + 1] = [last]
        lanes.append(lane)
    return lanes


def meter(score: float, deviation: float | None, low: float, high: float) -> Markup:
    """A bar of a score with its standard deviation, for a cell of a table; ``low`` and ``high`` are its ends."""
    x = Axis(low, high, 0, 100)
    parts = [f'<rect width="{num(max(x(score), 0))}" height="6"/>']
    if deviation and math.isfinite(deviation):
        ends = max(x(score - deviation), 0), min(x(score + deviation), 100)
        parts.append(f'<path d="M{num(ends[0])} 3H{num(ends[1])}"/>')
    inner = "".join(parts)
    return Markup(f'<svg class="meter" viewBox="0 0 100 6" aria-hidden="true">{inner}</svg>')  # nosec B704 # numbers
