"""The charts of the page. Series carry the number of their method, so that the page can bring some to the front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from hashzoo.report.svg import LINE, Axis, Label, decades, frame, num, path, short, spread, svg, text, ticks
from hashzoo.results.mean_ranks import Ranking

WIDTH, HEIGHT = 460.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 124.0, 28.0, 42.0
MARGIN = 14.0  # of a point to the frame


@dataclass(frozen=True)
class Series:
    """Points of one method, whose ``number`` is that of the page. ``apart`` says that it does not compete."""

    number: int
    name: str
    points: Sequence[tuple[float, float]]
    apart: bool = False


#: The place among the colours of each method that is brought to the front, by its number.
Colours = Mapping[int, int]


def _group(series: Series, colours: Colours, inner: str) -> str:
    place = colours.get(series.number)
    kind = "s" + (" apart" if series.apart else "") + ("" if place is None else f" on c{place}")
    return f'<g class="{kind}" data-m="{series.number}">{inner}</g>'


def _label(label: Label) -> str:
    """Where it stands now, and where it would stand alone, for the page to begin from."""
    anchor = ' text-anchor="end"' if label.end else ""
    said = escape(label.said)
    return f'<text class="l" x="{num(label.x)}" y="{num(label.at + 4)}" data-y="{num(label.y)}"{anchor}>{said}</text>'


def _in_front(all_series: Sequence[Series], colours: Colours) -> list[Series]:
    """The others first, so that what is coloured lies above them."""
    return sorted(all_series, key=lambda one: one.number in colours)


def _cut(name: str, letters: int = 16) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"


def lines(
    given: Sequence[Series],
    colours: Colours,
    said: str,
    *,
    x_name: str,
    y_name: str,
    x_ticks: Sequence[float] | None = None,
    whole: bool = False,
    dots: bool = True,
) -> Markup:
    """A line a method with its name at its end. ``whole`` shows 0 to 1 on both axes, else what the data span."""
    xs = [x for one in given for x, _ in one.points]
    ys = [y for one in given for _, y in one.points]
    low, high = (0.0, 1.0) if whole else _room(ys)
    left, right = (0.0, 1.0) if whole else (min(xs), max(xs))
    x = Axis(left, right, LEFT, WIDTH - RIGHT, log=not whole and left > 0 and right > left)
    y = Axis(low, high, HEIGHT - BOTTOM, TOP)
    parts = [frame(x, y, x_ticks or ticks(left, right), ticks(low, high), x_name, y_name)]
    labels = {}
    for one in given:
        end = one.points[-1] if not whole else max(one.points, key=lambda p: (p[0] < 0.55, p[0]))
        at = Label(x.end + 8 if not whole else x(end[0]) + 6, y(end[1]), _cut(one.name))
        at.at = at.y
        labels[one.number] = at
    spread([labels[one.number] for one in given if one.number in colours], TOP, y.start)
    for one in _in_front(given, colours):
        places = [(x(a), y(b)) for a, b in one.points]
        drawn = path(places) if len(places) > 1 else ""
        drawn += "".join(f'<circle cx="{num(a)}" cy="{num(b)}" r="2.6"/>' for a, b in places) if dots else ""
        title = f"<title>{escape(one.name)}</title>"
        parts.append(_group(one, colours, title + drawn + _label(labels[one.number])))
    return svg(WIDTH, HEIGHT, said, parts)


def scatter(
    given: Sequence[Series], colours: Colours, said: str, *, x_name: str, y_name: str, log: bool = True
) -> Markup:
    """A point a method, and the steps of those that nothing cheaper surpasses. Less x and more y is better."""
    xs = [x for one in given for x, _ in one.points]
    low, high = _room([y for one in given for _, y in one.points])
    left, right = min(xs), max(xs)
    if log:
        left, right = (left / 1.6, right * 1.6)
    x = Axis(left, right, LEFT, WIDTH - 20, log=log)
    y = Axis(low, high, HEIGHT - BOTTOM, TOP)
    parts = [frame(x, y, decades(left, right) if log else ticks(left, right), ticks(low, high), x_name, y_name)]
    best = front([one.points[0] for one in given if not one.apart])
    steps = [(x(a), y(b)) for a, b in best]
    corners = [p for (a, b), (c, d) in pairwise(steps) for p in ((a, b), (c, b), (c, d))]
    if steps:
        parts.append(path([*(corners or steps[:1]), (x.end, steps[-1][1])], "front"))
    labels = {}
    for one in given:
        (a, b) = one.points[0]
        end = x(a) > WIDTH * 0.62
        labels[one.number] = Label(x(a) + (-7 if end else 7), y(b), _cut(one.name), end)
        labels[one.number].at = y(b)
    spread([labels[one.number] for one in given if one.number in colours], TOP, y.start - 4)
    for one in _in_front(given, colours):
        (a, b) = one.points[0]
        title = f"<title>{escape(one.name)}: {b:.4f}, {short(a)}</title>"
        drawn = f'<circle cx="{num(x(a))}" cy="{num(y(b))}" r="4"/>'
        parts.append(_group(one, colours, title + drawn + _label(labels[one.number])))
    return svg(WIDTH, HEIGHT, said, parts)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, score) that none surpasses at the same cost or less, the cheapest first.

    >>> front([(1, 0.3), (2, 0.2), (2, 0.5), (4, 0.5)])
    [(1, 0.3), (2, 0.5)]
    """
    found: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda p: (p[0], -p[1])):
        if not found or score > found[-1][1]:
            found.append((cost, score))
    return found


def _room(values: Sequence[float]) -> tuple[float, float]:
    """From where to where an axis goes that shows these values."""
    low, high = min(values), max(values)
    pad = (high - low) * 0.06 or 0.05
    return (low - pad if low < 0 else max(0.0, low - pad)), high + pad


def distances(relevant: NDArray[np.float64], other: NDArray[np.float64], place: int, said: str) -> Markup:
    """Shares (K + 1,) by distance of pairs that share a label, filled, and of those that share none, a broken line."""
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
        Label(x(int(v.argmax())), y(float(v.max())) - 6, word)
        for v, word in ((relevant, "share a label"), (other, "share none"))
    ]
    for label in labels:  # beside the peak, wherever there is room
        label.end = label.x > width / 2
        label.x = min(max(label.x, 8), width - 8)
    spread(labels, 12, y.start - 4)
    parts += [text(one.x, one.at, one.said, "l2", "end" if one.end else "") for one in labels]
    parts += [text(x(v), height - 14, v, "t", "middle" if 0 < v < last else ("end" if v else "")) for v in (0, last)]
    parts.append(text(width / 2, height - 14, "Hamming distance", "t", "middle"))
    return svg(width, height, said, [f'<g class="c{place}">', *parts, "</g>"], "small")


def balance(means: NDArray[np.float64], place: int, said: str) -> Markup:
    """The share (K,) of ones of each bit, the rarest first; a line at a half."""
    width, height, top = 230.0, 130.0, 14.0
    y = Axis(0, 1, height - 26, top)
    step = (width - 36) / len(means)
    parts = [
        f'<rect x="{num(28 + i * step)}" y="{num(y(float(v)))}" width="{num(max(step * 0.8, 0.6))}" '
        f'height="{num(max(y.start - y(float(v)), 0.4))}"/>'
        for i, v in enumerate(np.sort(means))
    ]
    parts += [f'<path class="half" d="M28 {num(y(0.5))}H{num(width - 8)}"/>']
    parts += [text(24, y(v) + 4, word, "t", "end") for v, word in ((0, "0"), (0.5, "½"), (1, "1"))]
    parts.append(text(width / 2, height - 8, f"{len(means)} bits, the rarest 1 first", "t", "middle"))
    return svg(width, height, said, [f'<g class="c{place}">', *parts, "</g>"], "small")


def matrix(shares: NDArray[np.float64], names: Sequence[str], said: str) -> Markup:
    """The share (C, C) of each class, columns, in what queries of a class, rows, retrieve."""
    count = len(names)
    side = min(34.0, max(7.0, 340.0 / count))
    top = room = min(120.0, 10 + 6.2 * max(len(_cut(name)) for name in names)) if count <= 30 else 10.0
    named = count <= 30
    whole = num(count * side)
    parts = (
        []
        if named
        else [f'<rect x="{num(room)}" y="{num(top)}" width="{whole}" height="{whole}" fill-opacity="0.02"/>']
    )
    for (row, column), share in np.ndenumerate(shares):
        if not named and share < 0.005:  # of 1,000 classes there are a million places, all but a few of them empty
            continue
        x, y = room + column * side, top + row * side
        title = f"<title>{escape(names[row])} finds {escape(names[column])}: {share:.3f}</title>"
        parts.append(
            f'<g><rect x="{num(x)}" y="{num(y)}" width="{num(side - 1)}" height="{num(side - 1)}" '
            f'fill-opacity="{min(max(share, 0.02), 1):.2f}"/>'
        )
        if side >= 22 and share >= 0.005:
            said_share = "1" if share > 0.994 else f"{share:.2f}"[1:]
            kind = "on" if share > 0.5 else "off"
            parts.append(text(x + (side - 1) / 2, y + side / 2 + 3, said_share, kind, "middle"))
        parts.append(title + "</g>")
    if named:
        for i, name in enumerate(names):
            parts.append(text(room - 5, top + (i + 0.5) * side + 4, _cut(name), "t", "end"))
            at = f"{num(room + (i + 0.5) * side + 4)} {num(top - 5)}"
            parts.append(f'<text class="t" transform="translate({at}) rotate(-90)">{escape(_cut(name))}</text>')
    return svg(room + count * side + 2, top + count * side + 2, said, parts, "matrix")


def bars(counts: NDArray[np.int64], names: Sequence[str], thirds: Sequence[str], said: str) -> Markup:
    """Training images (C,) of each class, the largest first, and the thirds of the classes that scores name."""
    order = np.argsort(-counts, kind="stable")
    width, height = 460.0, 250.0
    few, long = len(counts) <= 20, any(len(name) > 3 for name in names)
    y = Axis(0, 1.12 * float(max(counts.max(), 1)), height - (70 if few and long else 46), 36)
    step = (width - 50) / len(counts)
    parts = [frame(Axis(0, 1, LEFT, width - 6), y, [], ticks(0, y.high, 4), "", "training images")]
    groups = np.array_split(np.arange(len(order)), max(len(thirds), 1))
    for third, places in enumerate(groups):
        for i in places:
            c = order[i]
            x = LEFT + 2 + i * step
            parts.append(
                f'<rect class="third{third}" x="{num(x)}" y="{num(y(float(counts[c])))}" width="{num(step * 0.84)}" '
                f'height="{num(max(y.start - y(float(counts[c])), 0.5))}">'
                f"<title>{escape(names[c])}: {int(counts[c])}</title></rect>"
            )
            if few:
                parts.append(text(x + step * 0.42, y(float(counts[c])) - 3, int(counts[c]), "t", "middle"))
                name = escape(_cut(names[c], 9))
                at = f"{num(x + step * 0.42 - 3)} {num(y.start + 10)}"
                turned = f'transform="translate({at}) rotate(60)"'
                upright = f'x="{num(x + step * 0.42)}" y="{num(y.start + 14)}" text-anchor="middle"'
                parts.append(f'<text class="t" {turned if long else upright}>{name}</text>')
        if thirds and len(places):
            middle = LEFT + 2 + (places[0] + len(places) / 2) * step
            parts.append(text(middle, height - 4, thirds[third], "name", "middle"))
    return svg(width, height, said, parts, "chart bars")


def ranks(ranking: Ranking, numbers: Mapping[str, int], colours: Colours, said: str) -> Markup:
    """Mean ranks, the best first; a bar joins methods that cannot be told apart."""
    count = len(ranking.methods)
    x = Axis(1, max(count, 2), 140, 400)
    lanes = _lanes(ranking.groups)
    width = 412 + 9.0 * (max(lanes, default=0) + 1)
    height = 34 + LINE * count
    marks = sorted({1.0, float(count), *(v for v in ticks(1, count, 4) if 2 < v < count - 1)})
    parts = ['<g class="ax">']
    parts += [
        f'<path d="M{num(x(v))} 22V{num(height - 6)}"/>{text(x(v), 14, short(v), anchor="middle")}' for v in marks
    ]
    parts.append("</g>")
    for i, (name, rank) in enumerate(zip(ranking.methods, ranking.ranks, strict=True)):
        y = 32 + LINE * i
        dot = f'<path d="M{num(x.start)} {num(y)}H{num(x(float(rank)))}"/>'
        dot += f'<circle cx="{num(x(float(rank)))}" cy="{num(y)}" r="3.4"/>'
        label = text(134, y + 4, _cut(name, 19), "n", "end")
        title = f"<title>{escape(name)}: mean rank {rank:.2f}</title>"
        parts.append(_group(Series(numbers.get(name, -1), name, ()), colours, title + dot + label))
    for lane, (first, last) in zip(lanes, ranking.groups, strict=True):
        at = num(412 + 9 * lane)
        parts.append(f'<path class="join" d="M{at} {num(28 + LINE * first)}V{num(36 + LINE * last)}"/>')
    return svg(width, height, said, parts, "chart ranks")


def _lanes(groups: Sequence[tuple[int, int]]) -> list[int]:
    """A lane for each run (first, last), so that runs that overlap stand beside each other.

    >>> _lanes([(0, 3), (2, 5), (4, 8)])
    [0, 1, 0]
    """
    ends: list[int] = []
    found = []
    for first, last in groups:
        lane = next((i for i, end in enumerate(ends) if end < first), len(ends))
        ends[lane : lane + 1] = [last]
        found.append(lane)
    return found


def meter(score: float, spread_: float | None, low: float, high: float) -> Markup:
    """A bar of a score with its standard deviation, for a cell of a table."""
    x = Axis(low, high, 0, 100)
    parts = [f'<rect width="{num(max(x(score), 0))}" height="6"/>']
    if spread_ and math.isfinite(spread_):
        ends = max(x(score - spread_), 0), min(x(score + spread_), 100)
        parts.append(f'<path d="M{num(ends[0])} 3H{num(ends[1])}"/>')
    inner = "".join(parts)
    return Markup(f'<svg class="meter" viewBox="0 0 100 6" aria-hidden="true">{inner}</svg>')  # nosec B704 # numbers
