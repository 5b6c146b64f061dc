"""Boards as tables for the terminal, ranked by score and compared with baselines."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pandas import DataFrame
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hashzoo.errors import UsageError, unknown_name
from hashzoo.evaluation.metrics import ExtraMetrics, higher_is_better
from hashzoo.results.leaderboard import main_metric, metrics, records, validation_columns
from hashzoo.results.ranking import (
    VALIDATION,
    competes,
    is_chosen_by_queries,
    queries_warning,
    ranked,
    ranking_column,
)

#: What the mark of a stale row means.
STALE = "stale: measured with code other than the installed code; run hashzoo bench again to update"


def add_differences(frame: DataFrame, by: str = "bits", extra: ExtraMetrics | None = None) -> DataFrame:
    """The frame with a column ``vs <method>`` for each baseline: the main score minus that of the baseline.

    A row is compared with the baseline of its own benchmark, dataset and bits (requested or, with ``by`` =
    "stored_bits", stored), on any backbone: a trained network must beat a shallow baseline on pixels. Of several rows
    of a baseline, for example on two backbones, the best one counts. Empty if there is none.
    """
    frame, main = frame.copy(), main_metric(metrics(frame), extra)
    if main is None:
        return frame
    rows = records(frame)
    bases: dict[str, dict[tuple[Any, ...], float]] = {}
    higher = higher_is_better(main, extra)
    for row in rows:
        if row["role"] == "baseline" and row[main] is not None:
            scores, block = bases.setdefault(row["method"], {}), _block(row, by)
            if block not in scores or (higher and row[main] > scores[block]):
                scores[block] = row[main]
    for method in sorted(bases):
        pairs = [(row[main], bases[method].get(_block(row, by))) for row in rows]
        frame[f"vs {method}"] = [math.nan if a is None or b is None else a - b for a, b in pairs]
    return frame


def _block(row: Mapping[str, Any], by: str) -> tuple[Any, ...]:
    return row["benchmark"], row["dataset"], row[by]


def render(
    frame: DataFrame,
    sort: str | None = None,
    columns: Sequence[str] | None = None,
    width: int = 100,
    *,
    by: str = "bits",
    extra: ExtraMetrics | None = None,
) -> list[Table]:
    """A table for each benchmark and dataset, the best scores first within the same bits.

    The best score of each dataset and number of bits is bold and starred, except for controls, rows that are not ok,
    and metrics for which higher is not better. The caption has the settings that all rows share, and what failed.

    Args:
        frame: The board.
        sort: A column to sort by instead; scores and rates are sorted in descending order.
        columns: The columns to show; by default those that fit into ``width``.
        width: Number of characters in a line.
        by: What "the same bits" are: "bits" as requested, or "stored_bits".
        extra: Metrics of plugins.

    Raises:
        UsageError: If a column does not exist.
    """
    frame = add_differences(frame, by, extra)
    for name in [*([sort] if sort else []), *(columns or [])]:
        if name not in frame.columns:
            raise UsageError(unknown_name("column", name, map(str, frame.columns)))
    scores, tables = metrics(frame), []
    main, higher = main_metric(scores, extra), [name for name in scores if higher_is_better(name, extra)]
    descending = {
        *scores,
        *validation_columns(frame),
        *(name for name in frame.columns if name.startswith("vs ") or name.endswith("_per_second")),
    }
    for group in by_dataset(frame):
        shared, group = without_shared(group)
        rows = _sorted(group, sort, main, descending, by)
        names = list(columns) if columns else _default_columns(rows, frame, sort, main, higher, by)
        best = _best(rows, [*higher, *(VALIDATION + name for name in higher)], by)
        sections, warnings = by if sort is None else "", ranking_warnings(rows, main, by)
        optional = [n for n in names if n not in ("method", "bits", main, sort) and n in (*_OPTIONAL, *scores)]
        table = _table(rows, names, best, sections, shared, warnings)
        while optional and not columns and Console(width=10_000).measure(table).maximum > width:
            names.remove(optional.pop())
            table = _table(rows, names, best, sections, shared, warnings)
        tables.append(table)
    return tables


_HEADERS = {
    "stored_bits": "stored",
    "fit_seconds": "fit",
    "encode_per_second": "encode/s",
    "search_per_second": "search/s",
    "bytes_per_item": "bytes",
}
# Columns besides scores that are left out in a narrow terminal, the last one first.
_OPTIONAL = ("fit_seconds", "bytes_per_item")


def by_dataset(frame: DataFrame) -> list[list[dict[str, Any]]]:
    """The rows of a board by benchmark and dataset."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in records(frame):
        groups.setdefault((row["benchmark"], row["dataset"]), []).append(row)
    return list(groups.values())


def without_shared(rows: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The settings that several rows share, and the rows with the others."""
    settings = [re.split(r" (?=[\w./-]+=)", row["settings"]) for row in rows]
    shared = [one for one in settings[0] if one and len(rows) > 1 and all(one in other for other in settings)]
    others = [" ".join(one for one in own if one not in shared) for own in settings]
    return " ".join(shared), [{**row, "settings": text} for row, text in zip(rows, others, strict=True)]


def _sorted(
    rows: list[dict[str, Any]], sort: str | None, main: str | None, descending: set[str], by: str
) -> list[dict[str, Any]]:
    if sort is None:
        ordered = [
            row
            for block in _blocks(rows, by)
            for row in (ranked(block, main, lambda row: row, descending=main in descending) if main else block)
        ]
        return sorted(ordered, key=lambda row: math.inf if row[by] is None else row[by])
    known = [row for row in rows if row[sort] is not None]
    known.sort(key=lambda row: row[sort], reverse=sort in descending)
    return known + [row for row in rows if row[sort] is None]


def _default_columns(
    rows: list[dict[str, Any]], frame: DataFrame, sort: str | None, main: str | None, higher: list[str], by: str
) -> list[str]:
    """The columns that differ between rows or hold scores, few enough for a terminal."""
    scores = metrics(frame)
    known = [name for name in scores if any(row[name] is not None for row in rows)]  # of this dataset
    held = VALIDATION + (main or "")
    others = sorted((n for n in known if ":" not in n and n != main), key=lambda n: n not in higher)
    chosen = [
        *([main] if main else []),
        *([held] if any(row.get(held) is not None for row in rows) else []),
        *others[:2],
    ]
    if sort in scores and sort not in chosen:
        chosen.append(sort)
    differing = {name: len({row.get(name) for row in rows}) > 1 for name in ("backbone", "budget")}
    names = ["method", *(name for name, several in differing.items() if several), "bits"]
    if by == "stored_bits" or any(row.get("stored_bits") not in (None, row["bits"]) for row in rows):
        names.append("stored_bits")
    if any(row.get("seeds") not in (None, 0, 1) for row in rows):
        names.append("seeds")
    names += chosen
    names += [name for name in frame.columns if name.startswith("vs ") and any(r[name] is not None for r in rows)]
    names += [name for name in ("fit_seconds", "bytes_per_item") if any(row.get(name) is not None for row in rows)]
    if sort and sort not in names and sort not in ("benchmark", "dataset", "settings"):
        names.append(sort)
    return names + (["warnings"] if any(row.get("warnings") for row in rows) and "warnings" not in names else [])


def _blocks(rows: list[dict[str, Any]], by: str) -> list[list[dict[str, Any]]]:
    """The rows with as many bits."""
    blocks: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        blocks.setdefault(row[by], []).append(row)
    return list(blocks.values())


def _best(rows: list[dict[str, Any]], names: Iterable[str], by: str) -> set[tuple[int, str]]:
    """The (id of row, metric) of the highest scores with as many bits, or of those of the best validation scores."""
    found = set[tuple[int, str]]()
    for name in names:
        for block in _blocks(rows, by):
            column = ranking_column(block, name)
            rivals = [row for row in block if competes(row) and None not in (row.get(name), row.get(column), row[by])]
            highest = max((row[column] for row in rivals), default=None)
            found |= {(id(row), name) for row in rivals if row[column] == highest}
    return found


def ranking_warnings(rows: list[dict[str, Any]], main: str | None, by: str) -> list[str]:
    """A line if settings of a method are ranked by the queries."""
    bits = [block[0][by] for block in _blocks(rows, by) if main and is_chosen_by_queries(block, main)]
    return [queries_warning(rows[0]["dataset"], bits)] if bits else []


def _table(
    rows: list[dict[str, Any]],
    names: list[str],
    best: set[tuple[int, str]],
    sections: str,
    shared: str,
    warnings: Sequence[str],
) -> Table:
    table = new_table(rows[0])
    for name in names:
        add_column(table, _HEADERS.get(name, name), isinstance(rows[0].get(name), str))
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        ends = bool(sections) and following is not None and following[sections] != row[sections]
        table.add_row(*(format_value(name, row, best) for name in names), end_section=ends)
    lines = [f"all rows: {shared}"] if shared else []
    lines += [f"{row['method']} at {row['bits']}: {row['reason']}" for row in rows if row["status"] != "ok"]
    lines += warnings
    lines += [STALE] if "method" in names and any(row.get("stale") for row in rows) else []
    table.caption = Text("\n".join(lines)) if lines else None
    return table


def new_table(row: Mapping[str, Any]) -> Table:
    """An empty table titled with the benchmark and the dataset of a row."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.title, table.title_justify = Text(f"{row['benchmark']}: {row['dataset']}"), "left"
    table.caption_justify = "left"
    return table


def add_column(table: Table, header: str, text: bool) -> None:
    """Add a column of text or of numbers."""
    # A number that is broken over two lines reads as another number, so only text is folded.
    if text:
        table.add_column(Text(header), overflow="fold", max_width=28)
    else:
        table.add_column(Text(header), justify="right", no_wrap=True)


def format_value(name: str, row: Mapping[str, Any], best: set[tuple[int, str]]) -> Text:
    """The text of a column of a row; ``best`` has the (id of row, metric) of scores in bold."""
    value = row.get(name)
    if name == "method":
        return Text(" ".join(filter(None, [row["method"], row["settings"], _marks(row)])))
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


def _marks(row: Mapping[str, Any]) -> str:
    flags = [name for name in ("contaminated", "stale") if row.get(name)]
    marks = [row.get("status", "ok"), row.get("role", ""), *flags, row.get("marks", "")]
    shown = [mark for mark in marks if mark not in ("ok", "baseline", "")]
    return f"({', '.join(shown)})" if shown else ""


def duration(seconds: float) -> str:
    """Seconds as short text.

    >>> [duration(s) for s in (0.04, 7.25, 75, 4000, 9000)]
    ['0.04s', '7.2s', '75s', '67m', '2.5h']
    """
    if seconds < 10:
        return f"{seconds:.2g}s"
    if seconds < 600:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 7200 else f"{seconds / 3600:.1f}h"


def compact(value: float) -> str:
    """A rate as short text.

    >>> [compact(v) for v in (3.25, 950, 12345, 2.5e6)]
    ['3.2', '950', '12.3k', '2.5M']
    """
    for size, mark in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{mark}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"
