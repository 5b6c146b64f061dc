"""Compare two boards score by score, and find regressions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pandas import DataFrame
from rich.table import Table
from rich.text import Text

from hashzoo.errors import UsageError, unknown_name
from hashzoo.results.leaderboard import PLACE, metrics, natural, records
from hashzoo.results.render import add_column, by_dataset, new_table, placed, shown


@dataclass(frozen=True)
class Rule:
    """How far a score may move: ``limit`` is signed, in the score's units or, if ``relative``, per cent."""

    metric: str
    limit: float
    relative: bool
    text: str

    def broken(self, before: float, after: float) -> bool:
        """Whether the score moved further than allowed, in the direction of the limit's sign."""
        allowed = self.limit / 100 * abs(before) if self.relative else self.limit
        slack = 1e-12  # a move of exactly the limit is allowed, whatever the last digit says
        moved = after - before
        return moved < allowed - slack if self.text.startswith("-") else moved > allowed + slack


def parse_fail_on(text: str) -> Rule:
    """Reads ``METRIC:LIMIT``: a per cent of the former score, or a difference.

    >>> parse_fail_on("map@all:-0.5%")
    Rule(metric='map@all', limit=-0.5, relative=True, text='-0.5%')
    """
    metric, _, limit = text.strip().rpartition(":")
    found = re.fullmatch(r"([+-](?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(%?)", limit.strip())
    if not metric or not found or not math.isfinite(float(found[1])):
        raise UsageError(f"{text!r} is no rule; write METRIC:LIMIT with a sign, as in map@all:-0.5% or map@all:-0.005")
    return Rule(metric.strip(), float(found[1]), bool(found[2]), found[0])


def compare(a: DataFrame, b: DataFrame) -> DataFrame:
    """What became of each score of ``a`` in ``b``: one row for each row of either, and each metric.

    Columns: PLACE, ``metric, before, after, difference, change, status_before, status_after``; ``change`` is
    one of rose, fell, same, came, went, and a status is empty where the board has no such row. Timings are
    never compared.
    """
    names = sorted({*metrics(a), *metrics(b)}, key=natural) or [""]
    before, after = (placed(records(frame), dict) for frame in (a, b))
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
                }
            )
    added = ("metric", "before", "after", "difference", "change", "status_before", "status_after")
    return DataFrame(rows, columns=[*PLACE, *added])


def violations(comparison: DataFrame, rules: Iterable[Rule]) -> list[str]:
    """A sentence for each row that went, is no longer ok, or whose score moved further than a rule allows.

    Raises UsageError for a rule on a metric that neither board has.
    """
    rules, rows = list(rules), records(comparison)
    known = {row["metric"] for row in rows}
    for rule in rules:
        if rows and rule.metric not in known:
            raise UsageError(unknown_name("metric", rule.metric, known - {""}))
    said: dict[str, None] = {}
    for row in rows:
        what = " ".join(filter(None, [row["method"], row["settings"]]))
        where = f"{what} at {row['bits']} bits on {row['dataset']} ({row['benchmark']}, {row['backbone']})"
        old, new = row["status_before"], row["status_after"]
        if old and not new:
            said[f"{where} went: the second board has no such row"] = None
        elif old == "ok" and new != "ok":
            said[f"{where} was ok and is {new} now"] = None
        for rule in rules if old and new == "ok" and row["before"] is not None else []:
            if rule.metric != row["metric"]:
                continue
            if row["after"] is None:
                said[f"{where} has no {rule.metric} any more"] = None
            elif rule.broken(row["before"], row["after"]):
                moved = f"{row['before']:.4f} to {row['after']:.4f} ({row['difference']:+.4f})"
                said[f"{where}: {rule.metric} {row['change']} from {moved}, beyond {rule.text}"] = None
    return list(said)


def render_compare(comparison: DataFrame) -> list[Table]:
    """A table for each benchmark and dataset of the scores that changed; the caption counts the others."""
    tables = []
    for rows in by_dataset(comparison):
        changed = [row for row in rows if row["change"] != "same" or row["status_before"] != row["status_after"]]
        several = len({row["backbone"] for row in rows}) > 1
        names = [
            "method",
            *(["backbone"] if several else []),
            "bits",
            "metric",
            "before",
            "after",
            "difference",
        ]
        table = new_table(rows[0])
        table.caption = Text(f"{len(rows) - len(changed)} of {len(rows)} scores are the same")
        for name in [*names, "change"]:
            add_column(table, name, name in ("method", "backbone", "metric", "change"))
        for row in changed:
            status = " -> ".join(row[name] or "no row" for name in ("status_before", "status_after"))
            change = row["change"] if row["status_before"] == row["status_after"] else f"{row['change']}: {status}"
            cells = [shown(name, row, set()) for name in names]
            table.add_row(*cells, Text(change, style=_STYLES.get(row["change"], "")))
        tables.append(table)
    return tables


_STYLES = {"rose": "green", "fell": "red", "went": "red", "came": "green"}


def _change(x: float | None, y: float | None, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if x is not None and y is not None:
        return "rose" if y > x else "fell" if y < x else "same"
    if x is None and y is None:
        return "same" if old and new else "went" if old else "came"
    return "went" if y is None else "came"
