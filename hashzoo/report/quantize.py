"""The page of ``hashzoo quantize --report``: curves of recall, and the table of all codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hashzoo._version import __version__
from hashzoo.report import charts
from hashzoo.report.charts import ChartText, Series
from hashzoo.report.page import environment, style_and_policy
from hashzoo.results.choices import Choice, records_of
from hashzoo.results.render import compact, duration
from hashzoo.storage.files import replace_bytes

COLOURS = 8  # of the style sheet
LARGEST = 100.0  # factor in the chart of candidates
USUAL = 5  # the factor of the chart of bytes

NOTES = (
    "*: no other code takes as few bytes and as few candidates for the target",
    "/asym: the query stays real",
    "±: half the width of the 95 % interval of 1x over queries",
)


def rows_of(choices: Sequence[Choice], target: float) -> list[dict[str, Any]]:
    """The codes as rows of text, for the terminal and for the page."""
    return [
        {
            "method": one["method"] + ("*" if one["front"] else ""),
            "bits": one["bits"],
            "bytes": f"{one['bytes']:g}",
            **{name: f"{one[name]:.3f}" for name in one if name.endswith("x")},
            "±": f"{one['interval']:.3f}",
            f"F({target:g})": f"{one['factor']:g}",
            "F(0.99)": f"{one['factor_0.99']:g}",
            "fit": duration(one["fit_seconds"] or 0),
            "encode/s": compact(one["encode_per_second"] or 0),
            "search/s": compact(one["search_per_second"]) if one["search_per_second"] else "",
            "10^6 rows": f"{compact(one['bytes_1e6'])}B",
            "10^8 rows": f"{compact(one['bytes_1e8'])}B",
        }
        for one in records_of(choices)
    ]


def write(output: Path, title: str, choices: Sequence[Choice], advice: str, k: int, target: float) -> None:
    """Write the page atomically. It holds everything that it shows and uses no network.

    Args:
        output: The HTML file.
        title: Its title, such as the name of the file of vectors.
        choices: The codes.
        advice: The sentence of advice.
        k: Neighbors per query.
        target: The recall that is wanted.
    """
    rows = rows_of(choices, target)
    page = (
        environment()
        .get_template("quantize.html")
        .render(
            style_and_policy(),
            title=f"Codes for {title}",
            advice=advice,
            k=k,
            candidates=_candidates(choices, k),
            bytes=_bytes(choices, k),
            columns=list(rows[0]),
            rows=rows,
            notes=NOTES,
            version=__version__,
        )
    )
    replace_bytes(output, page.encode("utf-8", "backslashreplace"))


def _candidates(choices: Sequence[Choice], k: int) -> Markup:
    """Recall over the factor of candidates, a line for each code."""
    series = [
        Series(
            number,
            f"{one.name} {one.size:g}B",
            [(f, r) for f, r in zip(*one.curve, strict=True) if f <= LARGEST] or [(1.0, one.recall[1])],
        )
        for number, one in enumerate(choices)
    ]
    front = [number for number, one in enumerate(choices) if one.front][:COLOURS]
    colours = {number: place for place, number in enumerate(front)}
    chart = ChartText(f"Recall of {k} neighbors over candidates", f"candidates / {k}", "recall")
    return charts.line_chart(series, colours, chart, x_ticks=[1, 2, 5, 10, 20, 50, 100], dots=False)


def _bytes(choices: Sequence[Choice], k: int) -> Markup:
    """Recall with a usual number of candidates over bytes, a line for each method."""
    names = list(dict.fromkeys(one.name for one in choices))
    points = {name: sorted((one.size, one.recall[USUAL]) for one in choices if one.name == name) for name in names}
    front = list(dict.fromkeys(one.name for one in choices if one.front))[:COLOURS]
    colours = {names.index(name): place for place, name in enumerate(front)}
    sizes = sorted({one.size for one in choices})
    ticks = sizes[:: math.ceil(len(sizes) / 5)]
    chart = ChartText(f"Recall of {k} neighbors over bytes", "bytes per vector", f"recall, {USUAL * k} candidates")
    return charts.line_chart(
        [Series(number, name, points[name]) for number, name in enumerate(names)], colours, chart, x_ticks=ticks
    )
