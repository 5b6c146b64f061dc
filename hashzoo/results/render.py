"""Boards for people: ranked, compared with a baseline, compared with each other; never by a timing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pandas import DataFrame
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hashzoo.errors import UsageError, unknown_name
from hashzoo.evaluation.metrics import Extra, higher_is_better
from hashzoo.results.leaderboard import PLACE, metrics, records

#: The score by which methods are ranked, where a board has it.
MAIN = "map@all"

T = TypeVar("T")


def main_metric(frame: DataFrame, extra: Extra | None = None) -> str | None:
    """``map@all`` where there is one, else the first score that is better when higher, else the first; None of none."""
    names = metrics(frame)
    return MAIN if MAIN in names else next(iter(_praised(names, extra) or names), None)


def gains(frame: DataFrame, by: str = "bits", extra: Extra | None = None) -> DataFrame:
    """The frame with a column ``vs <method>`` for each baseline: how far the main score lies above it.

    A row meets the baseline of its own benchmark, dataset and bits (asked or, ``by`` "stored_bits", stored), whatever
    backbone either reads: a shallow baseline on pixels is what a trained network must beat. Of several rows of a
    baseline, as on two backbones, it is the best. Empty where there is none.
    """
    frame, main = frame.copy(), main_metric(frame, extra)
    if main is None:
        return frame
    rows = records(frame)
    bases: dict[str, dict[tuple[Any, ...], float]] = {}
    praised = higher_is_better(main, extra)
    for row in rows:
        if row["role"] == "baseline" and row[main] is not None:
            reached, at = bases.setdefault(row["method"], {}), _meeting(row, by)
            if at not in reached or (praised and row[main] > reached[at]):
                reached[at] = row[main]
    for method in sorted(bases):
        pairs = [(row[main], bases[method].get(_meeting(row, by))) for row in rows]
        frame[f"vs {method}"] = [math.nan if a is None or b is None else a - b for a, b in pairs]
    return frame


def _meeting(row: Mapping[str, Any], by: str) -> tuple[Any, ...]:
    return row["benchmark"], row["dataset"], row[by]


def _praised(names: Iterable[str], extra: Extra | None) -> list[str]:
    return [name for name in names if higher_is_better(name, extra)]


def render(
    frame: DataFrame,
    sort: str | None = None,
    columns: Sequence[str] | None = None,
    width: int = 100,
    *,
    by: str = "bits",
    extra: Extra | None = None,
) -> list[Table]:
    """A table for each benchmark and dataset, best scores first within the same bits: ``by`` "bits" or "stored_bits".

    ``sort`` is any column, scores and rates descending. ``columns`` replaces the choice of columns, which is
    otherwise the one that fits into ``width`` characters. The best score of each dataset and number of bits
    is bold and starred, controls and rows that are not ok apart, and scores that are not better when higher, as
    ``extra``, the metrics of plugins, tell; the caption says what all rows share and what went wrong.
    Raises UsageError for a column that does not exist.
    """
    frame = gains(frame, by, extra)
    for name in [*([sort] if sort else []), *(columns or [])]:
        if name not in frame.columns:
            raise UsageError(unknown_name("column", name, map(str, frame.columns)))
    scores, main, tables = metrics(frame), main_metric(frame, extra), []
    praised = _praised(scores, extra)
    for group in by_dataset(frame):
        shared, group = without_shared(group)
        rows = _sorted(group, sort, main, {*scores, *_more(frame)}, by)
        chosen = list(columns) if columns else _chosen(rows, frame, sort, main, praised, by)
        best = _best(rows, praised, by)
        sections = by if sort is None else ""
        spare = [n for n in chosen if n not in ("method", "bits", main, sort) and n in (*_SPARE, *scores)]
        table = _ranked(rows, chosen, best, sections, shared)
        while spare and not columns and Console(width=10_000).measure(table).maximum > width:
            chosen.remove(spare.pop())
            table = _ranked(rows, chosen, best, sections, shared)
        tables.append(table)
    return tables


_HEADERS = {
    "stored_bits": "stored",
    "fit_seconds": "fit",
    "encode_per_second": "encode/s",
    "search_per_second": "search/s",
    "bytes_per_item": "bytes",
}
# What a narrow terminal can do without, beside the lesser scores; the last goes first.
_SPARE = ("fit_seconds", "bytes_per_item")


def _more(frame: DataFrame) -> list[str]:
    return [name for name in frame.columns if name.startswith("vs ") or name.endswith("_per_second")]


def by_dataset(frame: DataFrame) -> list[list[dict[str, Any]]]:
    """The rows of a board by benchmark and dataset."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in records(frame):
        groups.setdefault((row["benchmark"], row["dataset"]), []).append(row)
    return list(groups.values())


def without_shared(rows: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """What the settings of several rows have in common, and the rows with what is left."""
    said = [re.split(r" (?=[\w./-]+=)", row["settings"]) for row in rows]
    shared = [one for one in said[0] if one and len(rows) > 1 and all(one in other for other in said)]
    left = [" ".join(one for one in other if one not in shared) for other in said]
    return " ".join(shared), [{**row, "settings": text} for row, text in zip(rows, left, strict=True)]


def _sorted(
    rows: list[dict[str, Any]], sort: str | None, main: str | None, descending: set[str], by: str
) -> list[dict[str, Any]]:
    if sort is None:
        ranked = _sorted(rows, main, None, descending, by) if main else rows
        return sorted(ranked, key=lambda row: math.inf if row[by] is None else row[by])
    known = [row for row in rows if row[sort] is not None]
    known.sort(key=lambda row: row[sort], reverse=sort in descending)
    return known + [row for row in rows if row[sort] is None]


def _chosen(
    rows: list[dict[str, Any]], frame: DataFrame, sort: str | None, main: str | None, praised: list[str], by: str
) -> list[str]:
    """The columns that say something, narrow enough for a terminal: the rest is for ``columns``."""
    scores = metrics(frame)
    there = [name for name in scores if any(row[name] is not None for row in rows)]  # of this dataset
    plain = sorted((n for n in there if ":" not in n and n != main), key=lambda n: n not in praised)
    shown = [*([main] if main else []), *plain[:2]]
    if sort in scores and sort not in shown:
        shown.append(sort)
    differing = {name: len({row.get(name) for row in rows}) > 1 for name in ("backbone", "budget")}
    names = ["method", *(name for name, several in differing.items() if several), "bits"]
    if by == "stored_bits" or any(row.get("stored_bits") not in (None, row["bits"]) for row in rows):
        names.append("stored_bits")
    if any(row.get("seeds") not in (None, 0, 1) for row in rows):
        names.append("seeds")
    names += shown
    names += [name for name in frame.columns if name.startswith("vs ") and any(r[name] is not None for r in rows)]
    names += [name for name in ("fit_seconds", "bytes_per_item") if any(row.get(name) is not None for row in rows)]
    if sort and sort not in names and sort not in ("benchmark", "dataset", "settings"):
        names.append(sort)
    return names


def _best(rows: list[dict[str, Any]], names: Iterable[str], by: str) -> set[tuple[int, str]]:
    """The (id of row, score) that nothing with as many bits surpasses."""
    fields: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in filter(_competes, rows):
        for name in names:
            if row[name] is not None and row[by] is not None:
                fields.setdefault((row[by], name), []).append(row)
    highest = {place: max(row[place[1]] for row in field) for place, field in fields.items()}
    return {(id(row), p[1]) for p, field in fields.items() for row in field if row[p[1]] == highest[p]}


def _competes(row: Mapping[str, Any]) -> bool:
    return bool(row["status"] == "ok" and row["role"] != "control")


def _ranked(
    rows: list[dict[str, Any]], names: list[str], best: set[tuple[int, str]], sections: str, shared: str
) -> Table:
    table = new_table(rows[0])
    for name in names:
        add_column(table, _HEADERS.get(name, name), isinstance(rows[0].get(name), str))
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        ends = bool(sections) and following is not None and following[sections] != row[sections]
        table.add_row(*(shown(name, row, best) for name in names), end_section=ends)
    said = [f"all rows: {shared}"] if shared else []
    said += [f"{row['method']} at {row['bits']}: {row['reason']}" for row in rows if row["status"] != "ok"]
    table.caption = Text("\n".join(said)) if said else None
    return table


def new_table(row: Mapping[str, Any]) -> Table:
    """An empty table titled with the benchmark and the dataset of a row."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.title, table.title_justify = Text(f"{row['benchmark']}: {row['dataset']}"), "left"
    table.caption_justify = "left"
    return table


def add_column(table: Table, header: str, text: bool) -> None:
    """Add a column of text or of numbers."""
    # A number that is broken over lines reads as another number, so only text may give way.
    if text:
        table.add_column(Text(header), overflow="fold", max_width=28)
    else:
        table.add_column(Text(header), justify="right", no_wrap=True)


def shown(name: str, row: Mapping[str, Any], best: set[tuple[int, str]]) -> Text:
    """The text of one cell of the table; ``best`` are the scores in bold."""
    value = row.get(name)
    if name == "method":
        return Text(" ".join(filter(None, [row["method"], row["settings"], _mark(row)])))
    if value is None:
        return Text("")
    if name == "fit_seconds":
        return Text(duration(value))
    if name == "difference" or name.startswith("vs "):
        return Text(f"{value:+.4f}")
    if name.endswith("_per_second"):
        return Text(compact(value))
    if not isinstance(value, float) or name == "bytes_per_item":
        return Text(f"{value:g}" if isinstance(value, float) else str(value))
    wins = (id(row), name) in best
    deviation = row.get(f"{name}_std")
    spread = "" if deviation is None else f" \u00b1{deviation:.4f}"
    return Text(f"{value:.4f}{'*' if wins else ''}{spread}", style="bold" if wins else "")


def _mark(row: Mapping[str, Any]) -> str:
    contaminated = "contaminated" if row.get("contaminated") else ""
    marks = [row.get("status", "ok"), row.get("role", ""), contaminated, row.get("marks", "")]
    said = [mark for mark in marks if mark not in ("ok", "baseline", "")]
    return f"({', '.join(said)})" if said else ""


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> [duration(s) for s in (0.04, 7.25, 75, 4000, 9000)]
    ['0.04s', '7.2s', '75s', '67m', '2.5h']
    """
    if seconds < 10:
        return f"{seconds:.2g}s"
    if seconds < 600:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 7200 else f"{seconds / 3600:.1f}h"


def compact(value: float) -> str:
    """A rate for people.

    >>> [compact(v) for v in (3.25, 950, 12345, 2.5e6)]
    ['3.2', '950', '12.3k', '2.5M']
    """
    for size, mark in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{mark}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def placed(rows: Iterable[T], facts: Callable[[T], Mapping[str, Any]]) -> dict[tuple[Any, ...], T]:
    """Rows by PLACE, which ``facts`` tells; those that people cannot tell apart are counted, in their order."""
    found: dict[tuple[Any, ...], T] = {}
    for row in rows:
        place, nth = tuple(facts(row)[name] for name in PLACE), 0
        while (*place, nth) in found:
            nth += 1
        found[(*place, nth)] = row
    return found
