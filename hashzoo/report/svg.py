"""SVG text of the parts of a chart. Colors are classes of the page's style sheet.

Coordinates are those of the viewBox, with x to the right and y down. All text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

LETTER_WIDTH = 7.1  # average, at 13 px
LINE_HEIGHT = 14.0  # between two labels
MIN_STEP = 0.8  # points of a path that are closer together are merged


def num(value: float) -> str:
    """A coordinate with at most one decimal.

    >>> num(12.04), num(3.25), num(-0.01)
    ('12', '3.2', '0')
    """
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic map from values to coordinates.

    Attributes:
        low: Value at the start of the axis.
        high: Value at its end.
        start: Coordinate of ``low``.
        end: Coordinate of ``high``.
        log: Whether the axis is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate of a value. On a logarithmic axis, values below ``low`` are mapped like ``low``."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        share = (self._scaled(max(value, self.low) if self.log else value) - low) / ((high - low) or 1.0)
        return self.start + share * (self.end - self.start)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round values from ``low`` to ``high``.

    >>> ticks(0, 1), ticks(0.13, 0.47, 4)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.2, 0.3, 0.4])
    """
    span = (high - low) / max(count, 1)
    if span <= 0:
        return [low]
    magnitude = 10.0 ** math.floor(math.log10(span))
    step = next(magnitude * m for m in (1, 2, 5, 10) if magnitude * m >= span * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 12) for i in range(math.floor(high / step + 1e-9) - first + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from ``low`` to ``high``; with fewer than three of them, also their multiples by 2 and 5.

    >>> log_ticks(0.5, 300), log_ticks(2, 60)
    ([1.0, 10.0, 100.0], [2.0, 5.0, 10.0, 20.0, 50.0])
    """
    powers = [10.0**p for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    inside = [v for v in powers if low * 0.999 <= v <= high * 1.001]
    if len(inside) > 2:
        return inside[:: math.ceil(len(inside) / 6)]
    return [v * m for v in powers for m in (1, 2, 5) if low * 0.999 <= v * m <= high * 1.001]


def short_number(value: float) -> str:
    """A number with three significant digits and a suffix for thousands, millions or billions.

    >>> [short_number(v) for v in (0.2, 1500, 2.5e6, 32.0, 0.00125)]
    ['0.2', '1.5k', '2.5M', '32', '0.00125']
    """
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}".replace("e-0", "e-")


def text(x: float, y: float, content: object, kind: str = "", anchor: str = "") -> str:
    """A line of text; ``kind`` is its class."""
    attributes = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{num(x)}" y="{num(y)}"{attributes}>{escape(str(content))}</text>'


def path(points: Iterable[tuple[float, float]], kind: str = "") -> str:
    """A polyline through points, without points that are too close to the previous one to be visible."""
    visible: list[tuple[float, float]] = []
    given = list(points)
    for i, (x, y) in enumerate(given):
        if not visible or i == len(given) - 1 or math.dist(visible[-1], (x, y)) > MIN_STEP:
            visible.append((x, y))
    line = "L".join(f"{num(x)} {num(y)}" for x, y in visible)
    return f'<path{f" class={chr(34)}{kind}{chr(34)}" if kind else ""} d="M{line}"/>'


def frame(x: Axis, y: Axis, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, y_name: str) -> str:
    """Grid lines, ticks and names of both axes. The name of the y axis is above it, not rotated."""
    parts = ['<g class="ax">']
    parts += [f'<path d="M{num(x.start)} {num(y(v))}H{num(x.end)}"/>' for v in y_ticks]
    parts += [text(x.start - 6, y(v) + 4, short_number(v), anchor="end") for v in y_ticks]
    parts += [f'<path class="tick" d="M{num(x(v))} {num(y.start)}v4"/>' for v in x_ticks]
    parts += [text(x(v), y.start + 17, short_number(v), anchor="middle") for v in x_ticks]
    parts += [text((x.start + x.end) / 2, y.start + 34, x_name, "name", "middle")]
    parts += [text(x.start, y.end - 9, y_name, "name", "start"), "</g>"]
    return "".join(parts)


@dataclass
class Label:
    """A text beside a point.

    Attributes:
        x: Coordinate of the start of the text.
        y: Preferred height.
        text: The text.
        end: Whether ``x`` is the end of the text instead.
        placed_y: Height after :func:`separate`.
    """

    x: float
    y: float
    text: str
    end: bool = False
    placed_y: float = 0.0

    @property
    def extent(self) -> tuple[float, float]:
        """The first and last x coordinate of the text."""
        width = LETTER_WIDTH * len(self.text)
        return (self.x - width, self.x) if self.end else (self.x, self.x + width)


def separate(labels: Sequence[Label], low: float, high: float) -> None:
    """Set ``placed_y`` of labels between ``low`` and ``high`` so that, if possible, they do not overlap.

    >>> labels = [Label(0, 50, "a"), Label(0, 52, "b"), Label(900, 51, "c")]
    >>> separate(labels, 0, 60)
    >>> [label.placed_y for label in labels]
    [46.0, 60, 51]
    """
    order = sorted(labels, key=lambda label: label.y)
    for i, label in enumerate(order):
        above = [other.placed_y + LINE_HEIGHT for other in order[:i] if _overlap(other, label)]
        label.placed_y = max([label.y, low, *above])
    for i in range(len(order) - 1, -1, -1):
        below = [other.placed_y - LINE_HEIGHT for other in order[i + 1 :] if _overlap(other, order[i])]
        order[i].placed_y = min([order[i].placed_y, high, *below])


def _overlap(one: Label, other: Label) -> bool:
    (a, b), (c, d) = one.extent, other.extent
    return a < d and c < b


def svg(width: float, height: float, label: str, parts: Iterable[str], kind: str = "chart") -> Markup:
    """An SVG image; ``label`` describes it to screen readers, ``kind`` is its class."""
    inner = "".join(parts)
    return Markup(  # nosec B704 # every text in it was escaped
        f'<svg class="{kind}" viewBox="0 0 {num(width)} {num(height)}" role="img" aria-label="{escape(label)}">'
        f"{inner}</svg>"
    )
