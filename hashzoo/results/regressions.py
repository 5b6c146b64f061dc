"""Two boards compared score by score, and regressions between them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pandas import DataFrame

from hashzoo.errors import UsageError, printable
from hashzoo.evaluation.metrics import not_measured
from hashzoo.results.board import index_by_place
from hashzoo.results.leaderboard import PLACE, metrics, natural, records
from hashzoo.results.render import STALE, by_dataset, column, entry
from hashzoo.results.table import Entry, TextTable


@dataclass(frozen=True)
class Rule:
    """How far a metric may change: ``limit`` is signed, in units of the metric or, if ``relative``, in percent."""

    metric: str
    limit: float
    relative: bool
    text: str

    def broken(self, before: float, after: float) -> bool:
        """Whether the metric changed by more than the limit, in the direction of its sign."""
        allowed = self.limit / 100 * abs(before) if self.relative else self.limit
        tolerance = 1e-12  # a change of exactly the limit is allowed despite rounding
        change = after - before
        return change < allowed - tolerance if self.text.startswith("-") else change > allowed + tolerance


def parse_fail_on(text: str) -> Rule:
    """Parse ``METRIC:LIMIT``: a percentage of the score before, or a difference.

    >>> parse_fail_on("map@all:-0.5%")
    Rule(metric='map@all', limit=-0.5, relative=True, text='-0.5%')
    """
    metric, _, limit = text.strip().rpartition(":")
    found = re.fullmatch(r"([+-](?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(%?)", limit.strip())
    if not metric or not found or not math.isfinite(float(found[1])):
        raise UsageError(
            f"{text!r} is not a rule; write METRIC:LIMIT with a sign, as in map@all:-0.5% or map@all:-0.005"
        )
    return Rule(metric.strip(), float(found[1]), bool(found[2]), found[0])


def compare(a: DataFrame, b: DataFrame) -> DataFrame:
    """The scores of two boards side by side: one row for each row of either board and each metric.

    Columns: PLACE, ``metric, before, after, difference, change, status_before, status_after, marks``. ``change`` is
    rose, fell, same, added or removed, a status is empty if the board has no such row, and ``marks`` says which of the
    two is stale. Timings are never compared.
    """
    names = sorted({*metrics(a), *metrics(b)}, key=natural) or [""]
    before, after = (index_by_place(records(frame), dict) for frame in (a, b))
    rows = []
    for place in sorted({*before, *after}):
        old, new = before.get(place, {}), after.get(place, {})
        for name in names:
            x, y = old.get(name), new.get(name)
            rows.append(
                {
                    **dict(zip(PLACE, place, strict=False)),
                    "metric": name,
                    "before": math.nan if x is None else x,
                    "after": math.nan if y is None else y,
                    "difference": math.nan if x is None or y is None else y - x,
                    "change": _change(x, y, old, new),
                    "status_before": old.get("status", ""),
                    "status_after": new.get("status", ""),
                    "marks": stale_mark(old, new),
                }
            )
    added = ("metric", "before", "after", "difference", "change", "status_before", "status_after", "marks")
    return DataFrame(rows, columns=[*PLACE, *added])


def stale_mark(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Which of two rows is stale, as a mark.

    >>> stale_mark({"stale": True}, {"stale": False}), stale_mark({"stale": True}, {"stale": True})
    ('first stale', 'stale')
    """
    stale = [name for name, row in (("first", first), ("second", second)) if row.get("stale")]
    return "stale" if len(stale) == 2 else f"{stale[0]} stale" if stale else ""


def violations(comparison: DataFrame, rules: Iterable[Rule]) -> list[str]:
    """A line for each row that is missing or no longer ok, and for each score that changed beyond a rule.

    Raises UsageError for a rule on a metric that neither board has.
    """
    rules, rows = list(rules), records(comparison)
    known = {row["metric"] for row in rows}
    for rule in rules:
        if rows and rule.metric not in known:
            raise UsageError(not_measured("metric", rule.metric, sorted(known - {""})))
    lines: dict[str, None] = {}
    for row in rows:
        what = " ".join(filter(None, [row["method"], row["settings"]]))
        where = f"{what} at {row['bits']} bits on {row['dataset']} ({row['benchmark']}, {row['backbone']})"
        old, new = row["status_before"], row["status_after"]
        if old and not new:
            lines[f"{where} is missing: the second board has no such row"] = None
        elif old == "ok" and new != "ok":
            lines[f"{where} was ok and is now {new}"] = None
        for rule in rules if old and new == "ok" and row["before"] is not None else []:
            if rule.metric != row["metric"]:
                continue
            if row["after"] is None:
                lines[f"{where} no longer has {rule.metric}"] = None
            elif rule.broken(row["before"], row["after"]):
                change = f"{row['before']:.4f} to {row['after']:.4f} ({row['difference']:+.4f})"
                lines[f"{where}: {rule.metric} {row['change']} from {change}, beyond {rule.text}"] = None
    return list(lines)


def render_compare(comparison: DataFrame) -> list[TextTable]:
    """A table of changed scores for each benchmark and dataset; a note counts the others."""
    tables = []
    for rows in by_dataset(comparison):
        changed = [row for row in rows if row["change"] != "same" or row["status_before"] != row["status_after"]]
        several = len({row["backbone"] for row in rows}) > 1
        names = ["method", "bits", "metric", "difference", "before", "after", "change"]
        columns = [
            replace(column(name, name in ("method", "metric", "change")), identifies=name in names[:3])
            for name in [*names, *(["backbone"] if several else [])]
        ]
        notes = [f"{len(rows) - len(changed)} of {len(rows)} scores are the same"]
        notes += ["difference: after minus before"] if changed else []
        notes += [STALE] if any(row["marks"] for row in changed) else []
        entries = [[_compared(one.name, row) for one in columns] for row in changed]
        title = printable(f"{rows[0]['benchmark']}: {rows[0]['dataset']}")
        tables.append(TextTable(columns, entries, title, notes))
    return tables


def _compared(name: str, row: Mapping[str, Any]) -> Entry:
    if name != "change":
        return entry(name, row)
    status = " -> ".join(row[one] or "no row" for one in ("status_before", "status_after"))
    change = row["change"] if row["status_before"] == row["status_after"] else f"{row['change']}: {status}"
    return Entry(change, style=_STYLES.get(row["change"], ""))


_STYLES = {"rose": "green", "fell": "red", "removed": "red", "added": "green"}


def _change(x: float | None, y: float | None, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if x is not None and y is not None:
        return "rose" if y > x else "fell" if y < x else "same"
    if x is None and y is None:
        return "same" if old and new else "removed" if old else "added"
    return "removed" if y is None else "added"
