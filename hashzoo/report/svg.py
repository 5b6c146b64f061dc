"""The parts that charts are drawn of, as SVG text whose colours are classes of the page's style sheet.

Coordinates are those of the viewBox, x to the right and y down. Every text from outside goes through ``escape``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

LETTER = 7.1  # width of one at 13 px, on average
LINE = 14.0  # between two labels


def num(value: float) -> str:
    """A coordinate, short.

    >>> num(12.04), num(3.25), num(-0.01)
    ('12', '3.2', '0')
    """
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


@dataclass(frozen=True)
class Axis:
    """Values ``low`` to ``high`` as coordinates ``start`` to ``end``; with ``log`` by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate of a value; below ``low`` on a logarithmic axis, that of ``low``."""
        low, high = self._at(self.low), self._at(self.high)
        share = (self._at(max(value, self.low) if self.log else value) - low) / ((high - low) or 1.0)
        return self.start + share * (self.end - self.start)

    def _at(self, value: float) -> float:
        return math.log10(value) if self.log else value


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values from ``low`` to ``high``, about ``count`` of them.

    >>> ticks(0, 1), ticks(0.13, 0.47, 4)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.2, 0.3, 0.4])
    """
    span = (high - low) / max(count, 1)
    if span <= 0:
        return [low]
    size = 10.0 ** math.floor(math.log10(span))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= span * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 12) for i in range(math.floor(high / step + 1e-9) - first + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from ``low`` to ``high``, with their doubles and fives where those are few.

    >>> decades(0.5, 300), decades(2, 60)
    ([1.0, 10.0, 100.0], [2.0, 5.0, 10.0, 20.0, 50.0])
    """
    found = [10.0**p for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    inside = [v for v in found if low * 0.999 <= v <= high * 1.001]
    if len(inside) > 2:
        return inside[:: math.ceil(len(inside) / 6)]
    return [v * m for v in found for m in (1, 2, 5) if low * 0.999 <= v * m <= high * 1.001]


def short(value: float) -> str:
    """A number for people.

    >>> [short(v) for v in (0.2, 1500, 2.5e6, 32.0, 0.00125)]
    ['0.2', '1.5k', '2.5M', '32', '0.00125']
    """
    for size, mark in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{mark}"
    return f"{value:.3g}".replace("e-0", "e-")


def text(x: float, y: float, said: object, kind: str = "", anchor: str = "") -> str:
    """A line of text."""
    more = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{num(x)}" y="{num(y)}"{more}>{escape(str(said))}</text>'


def path(points: Iterable[tuple[float, float]], kind: str = "") -> str:
    """A line through points; those that nobody could tell from the one before are left out."""
    kept: list[tuple[float, float]] = []
    given = list(points)
    for i, (x, y) in enumerate(given):
        if not kept or i == len(given) - 1 or math.dist(kept[-1], (x, y)) > 0.8:
            kept.append((x, y))
    drawn = "L".join(f"{num(x)} {num(y)}" for x, y in kept)
    return f'<path{f" class={chr(34)}{kind}{chr(34)}" if kind else ""} d="M{drawn}"/>'


def frame(x: Axis, y: Axis, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, y_name: str) -> str:
    """Grid, ticks and names of both axes; the name of y stands above it, where it can be read."""
    parts = ['<g class="ax">']
    parts += [f'<path d="M{num(x.start)} {num(y(v))}H{num(x.end)}"/>' for v in y_ticks]
    parts += [text(x.start - 6, y(v) + 4, short(v), anchor="end") for v in y_ticks]
    parts += [f'<path class="tick" d="M{num(x(v))} {num(y.start)}v4"/>' for v in x_ticks]
    parts += [text(x(v), y.start + 17, short(v), anchor="middle") for v in x_ticks]
    parts += [text((x.start + x.end) / 2, y.start + 34, x_name, "name", "middle")]
    parts += [text(x.start, y.end - 9, y_name, "name", "start"), "</g>"]
    return "".join(parts)


@dataclass
class Label:
    """A text beside what it names; ``y`` is where it would stand if it were alone, ``at`` where there is room."""

    x: float
    y: float
    said: str
    end: bool = False  # whether the text ends at x
    at: float = 0.0

    @property
    def ends(self) -> tuple[float, float]:
        """From where to where it reaches."""
        width = LETTER * len(self.said)
        return (self.x - width, self.x) if self.end else (self.x, self.x + width)


def spread(labels: Sequence[Label], low: float, high: float) -> None:
    """Set ``at`` of labels so that none covers another and all stand between two heights, as near as may be.

    >>> labels = [Label(0, 50, "a"), Label(0, 52, "b"), Label(900, 51, "c")]
    >>> spread(labels, 0, 60)
    >>> [label.at for label in labels]
    [46.0, 60, 51]
    """
    order = sorted(labels, key=lambda label: label.y)
    for i, label in enumerate(order):
        label.at = max([label.y, low, *(o.at + LINE for o in order[:i] if _meet(o, label))])
    for i in range(len(order) - 1, -1, -1):
        above = [o.at - LINE for o in order[i + 1 :] if _meet(o, order[i])]
        order[i].at = min([order[i].at, high, *above])


def _meet(one: Label, other: Label) -> bool:
    (a, b), (c, d) = one.ends, other.ends
    return a < d and c < b


def svg(width: float, height: float, said: str, parts: Iterable[str], kind: str = "chart") -> Markup:
    """A drawing that a screen reader calls by what is ``said``."""
    inner = "".join(parts)
    return Markup(  # nosec B704 # every text in it was escaped
        f'<svg class="{kind}" viewBox="0 0 {num(width)} {num(height)}" role="img" aria-label="{escape(said)}">'
        f"{inner}</svg>"
    )
