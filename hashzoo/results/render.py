"""Boards as tables for people, ranked by score and compared with baselines."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pandas import DataFrame

from hashzoo.errors import UsageError, printable
from hashzoo.evaluation.metrics import ExtraMetrics, built_in, by_neighbours, higher_is_better, not_measured
from hashzoo.results.leaderboard import ORIGIN, PLACE, main_metric, metrics, records, validation_columns
from hashzoo.results.ranking import (
    FOLDER,
    VALIDATION,
    best_rows,
    blocks,
    dataset_of,
    folder_of,
    ranked,
    ranking_warnings,
)
from hashzoo.results.table import UNLIMITED, Column, Entry, TextTable
from hashzoo.results.warnings import MEANINGS

#: What the mark of a stale row means.
STALE = "stale: measured with code other than the installed code; run hashzoo bench again to update"

#: What other marks mean, by the text that shows them.
BEST = "*: the best of its number of bits, without controls and rows that are not ok"
_SPREAD = "\u00b1: sample standard deviation over seeds"
_MARKS = {
    "control": "control: not a hashing method; it is never the best",
    "contaminated": "contaminated: the backbone was trained with labels of this dataset",
    "nested": "nested: one training serves all its code lengths, and fit is the time of that training",
    "stale": STALE,
}


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
    return *dataset_of(row), row[by]


@dataclass(frozen=True)
class BoardView:
    """The rows of one benchmark and dataset in the order and with the columns in which people see them.

    Attributes:
        benchmark: The benchmark.
        dataset: The dataset.
        source: What its images are, such as ``"CIFAR-10 (JPEG)"``; empty if it is unknown or rows differ.
        metric: The metric by which rows are ranked, if there is one.
        columns: The columns, the most important ones first.
        rows: The rows; settings that all rows share are taken out.
        best: The (id of row, metric) of the best scores.
        shared: The settings that all rows share.
        sections: The column by which rows are grouped; empty if they are not.
        alike: The numbers of rows of the board that do not differ significantly from the best one of their bits.
        tests: What was tested, if anything.
        warnings: Lines about how the rows are ranked.
    """

    benchmark: str
    dataset: str
    source: str
    metric: str | None
    columns: Sequence[str]
    rows: Sequence[dict[str, Any]]
    best: Collection[tuple[int, str]]
    shared: str
    sections: str
    alike: Collection[int] = frozenset()
    tests: str = ""
    warnings: Sequence[str] = ()

    def table(self) -> TextTable:
        """The table with its notes."""
        ends = set[int]()
        for number, (row, after) in enumerate(itertools.pairwise(self.rows) if self.sections else ()):
            ends |= {number} if row[self.sections] != after[self.sections] else set()
        return TextTable(
            [self._column(name) for name in self.columns],
            [[self._entry(name, row) for name in self.columns] for row in self.rows],
            printable(f"{self.benchmark}: {self.dataset}{self.source and f', {self.source}'}"),
            [printable(line) for line in self._notes()],
            frozenset(ends),
            advice="a wider terminal, | less -S, --columns or --json shows them",
            details=[printable(line) for line in self._details()],
        )

    def _column(self, name: str) -> Column:
        made = column(name, any(isinstance(row.get(name), str) for row in self.rows))
        return replace(made, vital=name in (self.metric, f"{VALIDATION}{self.metric}"))

    def _entry(self, name: str, row: Mapping[str, Any]) -> Entry:
        mark = "≈" if name == self.metric and row[_NUMBER] in self.alike else ""
        return entry(name, row, self.best, mark)

    def _hidden(self) -> Iterator[str]:
        """What all rows share and no column shows."""
        for name, usual in (("backbone", ""), ("budget", "equal")):
            values = {row[name] for row in self.rows}
            if len(values) == 1 and name not in self.columns and not values & {usual, "", None}:
                yield f"{name}={min(values)}"
        if self.shared:
            yield self.shared

    def _details(self) -> list[str]:
        shown = [row for row in self.rows if row["status"] != "ok"]
        lines = [f"all rows: {shared}"] if (shared := " ".join(self._hidden())) else []
        if folder := folder_of({"dataset": self.dataset, "settings": f"{self.shared} {self.rows[0]['settings']}"}):
            lines.append(f"{folder}: {FOLDER}; --json has the commands with the paths")
        lines += [f"{row['method']} at {row['bits']}: {row['status']}: {row['reason']}" for row in shown]
        return lines

    def _notes(self) -> list[str]:
        lines = [BEST] if any(name in self.columns for _, name in self.best) else []
        if self.tests and self.metric in self.columns:
            lines.append(f"\u2248: was tested and cannot be told from the best of its number of bits; {self.tests}")
        lines += self.warnings
        if "warnings" in self.columns:
            texts = [str(row.get("warnings") or "") for row in self.rows]
            lines += [f"{name}: {meaning}" for name, meaning in MEANINGS.items() if any(name in one for one in texts)]
        if any(row.get(f"{name}_std") is not None for row in self.rows for name in self.columns):
            lines.append(_SPREAD)
        if names := [name.removeprefix("vs ") for name in self.columns if name.startswith("vs ")]:
            lines.append(f"vs: {self.metric} minus that of {' or '.join(names)} at the same number of bits")
        used = {mark for row in self.rows for mark in _row_marks(row)} if "method" in self.columns else set()
        return lines + [text for mark, text in _MARKS.items() if mark in used]


def render(
    frame: DataFrame,
    sort: str | None = None,
    columns: Sequence[str] | None = None,
    *,
    by: str = "bits",
    extra: ExtraMetrics | None = None,
) -> list[TextTable]:
    """The tables of :func:`views`."""
    return [one.table() for one in views(frame, sort, columns, by=by, extra=extra)]


def views(
    frame: DataFrame,
    sort: str | None = None,
    columns: Sequence[str] | None = None,
    *,
    by: str = "bits",
    extra: ExtraMetrics | None = None,
    alike: Collection[int] = frozenset(),
    tests: str = "",
) -> list[BoardView]:
    """A view for each benchmark and dataset, the best scores first within the same bits.

    The best score of each dataset and number of bits is marked, except for controls, rows that are not ok, and metrics
    for which higher is not better.

    Args:
        frame: The board.
        sort: A column to sort by instead; scores and rates are sorted in descending order.
        columns: The columns to show after the method; by default those that hold scores or differ between rows.
        by: What "the same bits" are: "bits" as requested, or "stored_bits".
        extra: Metrics of plugins.
        alike: The numbers of rows that do not differ significantly from the best one of their bits.
        tests: The tests behind ``alike``.

    Raises:
        UsageError: If a column does not exist.
    """
    frame = add_differences(frame, by, extra)
    _require_columns(frame, sort, columns)
    scores, found = metrics(frame), []
    main, higher = main_metric(scores, extra), [name for name in scores if higher_is_better(name, extra)]
    descending = _descending(frame)
    for group in by_dataset(frame.assign(**{_NUMBER: range(len(frame))})):
        shared, group = without_shared(group)
        rows = _sorted(group, sort, main, descending, by)
        names = list(columns) if columns else _default_columns(rows, frame, sort, main, higher, by)
        if "method" not in names:  # scores without their method have no meaning
            names.insert(0, "method")
        names.sort(key="method".__ne__)
        sources = {row["source"] for row in rows if row.get("source")}
        source = min(sources) if len(sources) == 1 else ""
        place = str(rows[0]["benchmark"]), str(rows[0]["dataset"]), source, main
        view = BoardView(*place, names, rows, best_rows(rows, higher, by), shared, by if sort is None else "")
        warnings = ranking_warnings(rows, main, by)
        own = {row[_NUMBER] for row in rows}
        found.append(replace(view, alike=own & set(alike), tests=tests, warnings=warnings))
    return found


def select(
    frame: DataFrame,
    sort: str | None = None,
    columns: Sequence[str] | None = None,
    *,
    by: str = "bits",
    extra: ExtraMetrics | None = None,
) -> DataFrame:
    """The board itself, with all digits, for programs. Its index has the numbers of the rows in the board.

    Args:
        frame: The board.
        sort: A column to sort by within each dataset.
        columns: The columns to keep after those that identify a row; by default all of the board.
        by: What "the same bits" are in differences from baselines.
        extra: Metrics of plugins.

    Raises:
        UsageError: If a column does not exist.
    """
    if sort is None and columns is None:
        return frame
    wide = add_differences(frame, by, extra)
    _require_columns(wide, sort, columns)
    kept = list(frame.columns) if columns is None else [*PLACE, *(name for name in columns if name not in PLACE)]
    if sort is None:
        return wide[kept]
    descending = _descending(wide)
    wide[_NUMBER] = range(len(wide))
    rows = [row for group in by_dataset(wide) for row in _sorted(group, sort, None, descending, by)]
    return wide.iloc[[row[_NUMBER] for row in rows]][kept]


def _descending(frame: DataFrame) -> set[str]:
    """The columns of which the highest value comes first."""
    rates = (name for name in frame.columns if name.startswith("vs ") or name.endswith("_per_second"))
    return {*metrics(frame), *validation_columns(frame), *rates}


def _require_columns(frame: DataFrame, sort: str | None, columns: Sequence[str] | None) -> None:
    for name in [*([sort] if sort else []), *(columns or [])]:
        if name not in frame.columns:
            known = metrics(frame) if built_in(name) else [str(one) for one in frame.columns]
            raise UsageError(not_measured("column", name, known))


_NUMBER = "row number"  # of the board, as a column of the rows of views


_HEADERS = {
    "stored_bits": "stored",
    "fit_seconds": "fit",
    "encode_per_second": "encode/s",
    "search_per_second": "search/s",
    "bytes_per_item": "bytes",
}
_WIDEST = {"method": 28, "warnings": 18}  # characters before text is folded


def by_dataset(frame: DataFrame) -> list[list[dict[str, Any]]]:
    """The rows of a board by benchmark, dataset and, for images of the user, their folder."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in records(frame):
        groups.setdefault(dataset_of(row), []).append(row)
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
        parts = [ranked(part, main, lambda row: row) if main else part for part in blocks(rows, by)]
        return sorted(itertools.chain.from_iterable(parts), key=lambda row: math.inf if row[by] is None else row[by])
    known = [row for row in rows if row[sort] is not None]
    known.sort(key=lambda row: row[sort], reverse=sort in descending)
    return known + [row for row in rows if row[sort] is None]


def _default_columns(
    rows: list[dict[str, Any]], frame: DataFrame, sort: str | None, main: str | None, higher: list[str], by: str
) -> list[str]:
    """The columns that differ between rows or hold scores, the most important ones first."""
    scores = metrics(frame)
    known = [name for name in scores if any(row[name] is not None for row in rows)]  # of this dataset
    exact = [name for name in known if by_neighbours(name) and name != main]
    others = sorted((n for n in known if ":" not in n and n not in (main, *exact)), key=lambda n: n not in higher)
    chosen = others[:2]
    if sort in scores and sort not in (*chosen, main):
        chosen.append(sort)
    values = {name: {row.get(name) for row in rows} - {"", None} for name in ("backbone", "budget", "source")}
    differing = {name: len(several) > 1 for name, several in values.items()}  # a row that was skipped has no source
    names = ["method", *(name for name, several in differing.items() if several), "bits"]
    if by == "stored_bits" or any(row.get("stored_bits") not in (None, row["bits"]) for row in rows):
        names.append("stored_bits")
    if any(row.get("seeds") not in (None, 0, 1) for row in rows):
        names.append("seeds")
    if main:
        held = VALIDATION + main
        names += [main, held] if any(row.get(held) is not None for row in rows) else [main]
    names += [name for name in exact if not name.startswith("factor")] + [n for n in exact if n.startswith("factor")]
    names += ["warnings"] if any(row.get("warnings") for row in rows) else []
    names += [ORIGIN] if any(row.get(ORIGIN) for row in rows) else []
    names += [name for name in frame.columns if name.startswith("vs ") and any(r[name] is not None for r in rows)]
    names += chosen
    names += [name for name in ("fit_seconds", "bytes_per_item") if any(row.get(name) is not None for row in rows)]
    if sort and sort not in names and sort not in ("benchmark", "dataset", "settings"):
        names.append(sort)
    return names


def column(name: str, text: bool) -> Column:
    """The column of this name, of text or of numbers; method, bits and warnings are never left out."""
    return Column(name, _HEADERS.get(name), text, name in ("method", "bits", "warnings"), _WIDEST.get(name, UNLIMITED))


def entry(name: str, row: Mapping[str, Any], best: Collection[tuple[int, str]] = frozenset(), mark: str = "") -> Entry:
    """The entry of a column of a row; ``best`` has the (id of row, metric) of the best scores."""
    value = row.get(name)
    if name == "method":
        return Entry(printable(" ".join(filter(None, [row["method"], row["settings"], _marks(row)]))))
    if value is None:
        return Entry("")
    if name == "fit_seconds":
        return Entry(duration(value))
    if name == "difference" or name.startswith("vs "):
        return Entry(f"{value:+.4f}")
    if name.endswith("_per_second"):
        return Entry(compact(value))
    if not isinstance(value, float) or name == "bytes_per_item":
        return Entry(f"{value:g}" if isinstance(value, float) else printable(value))
    deviation = row.get(f"{name}_std")
    spread = "" if deviation is None else f"{deviation:.4f}"
    return Entry(f"{value:.4f}", best=(id(row), name) in best, mark=mark, spread=spread)


def _row_marks(row: Mapping[str, Any]) -> list[str]:
    flags = [name for name in ("contaminated", "stale") if row.get(name)]
    marks = [row.get("status", "ok"), row.get("role", ""), *flags, row.get("marks", "")]
    return [mark for mark in marks if mark not in ("ok", "baseline", "", None)]


def _marks(row: Mapping[str, Any]) -> str:
    shown = _row_marks(row)
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
