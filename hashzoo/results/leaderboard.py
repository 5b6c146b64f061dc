"""Frames of cells: one row for each cell, and one for each measurement with its seeds taken together.

Pure functions: the same cells and the same installed code give the same frames. The columns ``PLACE`` identify a row
of a board for people.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
from pandas import DataFrame

from hashzoo.evaluation.metrics import ExtraMetrics, higher_is_better
from hashzoo.results.cell import STATUSES, Cell
from hashzoo.results.ranking import VALIDATION
from hashzoo.results.store import SCHEMA
from hashzoo.results.warnings import join_warnings
from hashzoo.storage.files import canonical_json

#: The columns that identify a row for people, in the order by which rows are sorted.
PLACE = ("benchmark", "dataset", "backbone", "bits", "method", "settings", "budget")

TIMINGS = ("fit_seconds", "encode_per_second", "search_per_second")
HEAD = ("schema", "benchmark", "dataset", "backbone", "method", "bits", "stored_bits", "budget")
TAIL = (
    *(*TIMINGS, "bytes_per_item", "plugin", "plugin_version", "contaminated", "reason"),
    *("role", "settings", "marks", "queries_without_relevant"),
    *("source", "split", "train", "database_size", "queries", "train_in_database", "unlabelled_queries"),
)

#: The column of the folders that rows come from, if a board is read from several.
ORIGIN = "origin"

#: The metric by which methods are ranked if a board has it.
MAIN = "map@all"

#: A function from pairs of a method and a backbone to the digests of their installed code
#: (:func:`hashzoo.registry.source.code_digest`); None if one of the two is not installed.
InstalledCode = Callable[[Collection[tuple[str, str]]], Mapping[tuple[str, str], str | None]]

# The facts of a cell by the columns that show them.
_FACTS = {
    name: name
    for name in (
        *("stored_bits", "bytes_per_item", "queries_without_relevant"),
        *("train", "queries", "train_in_database", "unlabelled_queries"),
    )
} | {"database_size": "database"}
COUNTS = ("schema", "bits", "seed", "seeds", *_FACTS)
TEXTS = (
    *(set(PLACE) - {"bits"}),
    *(
        "status",
        "plugin",
        "plugin_version",
        "reason",
        "role",
        "marks",
        "source",
        "split",
        "seed_list",
        "key",
        "warnings",
    ),
)

# What two runs of the same measurement can differ in: the seed, and the versions of code, data and protocol.
_VERSIONS = ("code", "data", "protocol")


def cells_frame(cells: Iterable[Cell], installed: InstalledCode | None = None) -> DataFrame:
    """One row for each cell that is not superseded.

    Args:
        cells: The cells of a results folder.
        installed: The digests of the installed code. The column ``stale`` is True for a cell that was measured with
            other code, and empty if its method or backbone is not installed, or without this argument.
    """
    kept = _current(cells)
    names, stale = _metric_names(kept), _stale_keys(kept, installed)
    rows = [
        {
            **_described(cell),
            **cell.metrics,
            **{name: cell.timings.get(name) for name in TIMINGS},
            **_counts(cell),
            "seed": cell.identity.seed,
            "status": cell.status,
            "reason": cell.reason,
            "key": cell.identity.key,
            "stale": stale.get(cell.identity.key),
            "warnings": join_warnings([cell]),
            **_validation_scores(cell),
        }
        for cell in kept
    ]
    last = ["key", "stale", "warnings", *_validation_names(kept)]
    return frame_of(rows, [*HEAD, "seed", "status", *names, *TAIL, *last])


def board_frame(cells: Iterable[Cell], installed: InstalledCode | None = None) -> DataFrame:
    """One row for each set of cells that differ in their seed alone.

    Scores are means over the seeds with status ``ok``, next to their sample standard deviations (empty for a single
    seed). ``seeds`` counts these seeds, ``status`` is the worst status of all seeds, and ``reason`` belongs to it.
    ``warnings`` are those of :mod:`hashzoo.results.warnings`. The columns ``validation <metric>`` are means of scores
    of the validation images, where cells have them.

    Args:
        cells: The cells of a results folder.
        installed: The digests of the installed code, for the column ``stale`` as in :func:`cells_frame`.
    """
    found = group_by_row(cells)
    stale = _stale_keys([cell for group in found for cell in group], installed)
    names = _metric_names(cell for group in found for cell in group)
    held = _validation_names(cell for group in found for cell in group)
    scores = [column for name in names for column in (name, f"{name}_std")]
    rows = [_row(group, names, held) | {"stale": stale.get(group[0].identity.key)} for group in found]
    return frame_of(rows, [*HEAD, "seeds", "status", *scores, *TAIL, "seed_list", "stale", "warnings", *held])


def group_by_row(cells: Iterable[Cell]) -> list[list[Cell]]:
    """The cells of each row of :func:`board_frame`, in its order, one for each seed."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in _current(cells):
        found.setdefault((cell.benchmark, _without(cell, "seed")), []).append(cell)
    return list(found.values())


def superseded(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that a newer cell replaces: one with the same identity except code, data, protocol and seed.

    Of each measurement, all seeds of the newest code, data and protocol are kept and no other ones, since a mean over
    two versions of a method is the score of neither.
    """
    cells = list(cells)
    kept = {id(cell) for cell in _current(cells)}
    return [cell for cell in cells if id(cell) not in kept]


def metrics(frame: DataFrame) -> list[str]:
    """The columns that hold scores, in natural order."""
    fixed = {*HEAD, *TAIL, "seed", "seeds", "status", "seed_list", "key", "stale", "warnings", ORIGIN}
    names = [name for name in frame.columns if name not in fixed and not name.startswith(("vs ", VALIDATION))]
    return sorted((n for n in names if n.removesuffix("_std") == n or n.removesuffix("_std") not in names), key=natural)


def validation_columns(frame: DataFrame) -> list[str]:
    """The columns that hold scores of the validation images."""
    return [name for name in frame.columns if name.startswith(VALIDATION)]


def main_metric(names: Sequence[str], extra: ExtraMetrics | None = None) -> str | None:
    """The metric to rank by: ``map@all``, else the first for which higher is better, else the first.

    Args:
        names: Metrics of a board, as :func:`metrics` returns them.
        extra: Metrics of plugins.

    >>> main_metric(["empty@h2", "p@10"]), main_metric([])
    ('p@10', None)
    """
    if MAIN in names:
        return MAIN
    return next((name for name in names if higher_is_better(name, extra)), next(iter(names), None))


def natural(name: str) -> list[str | int]:
    """A sort key that orders numbers inside names by their value.

    >>> sorted(["p@100", "p@20", "map@all"], key=natural)
    ['map@all', 'p@20', 'p@100']
    """
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def records(frame: DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts of built-in types; None for an empty value."""
    columns = {name: [None if pd.isna(v) else v for v in frame[name].tolist()] for name in frame.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _current(cells: Iterable[Cell]) -> list[Cell]:
    newest_first = sorted(cells, key=lambda cell: (cell.created, cell.identity.key), reverse=True)
    version: dict[tuple[str, str], tuple[Any, ...]] = {}
    kept: dict[tuple[str, str], Cell] = {}
    for cell in newest_first:
        own = tuple(getattr(cell.identity, name) for name in _VERSIONS)
        # settings, not hyperparameters: a default that changed with the plugin was not set by the user
        place = _without(cell, "seed", "hyperparameters", *_VERSIONS) + cell.settings
        if version.setdefault((cell.benchmark, place), own) == own:
            kept.setdefault((cell.benchmark, cell.identity.key), cell)
    return sorted(kept.values(), key=_order)


def _order(cell: Cell) -> tuple[Any, ...]:
    described = _described(cell)
    return (*(described[name] for name in PLACE), _without(cell, "seed"), cell.identity.seed)


def _without(cell: Cell, *names: str) -> str:
    return canonical_json({k: v for k, v in asdict(cell.identity).items() if k not in names})


def _metric_names(cells: Iterable[Cell]) -> list[str]:
    return sorted({name for cell in cells for name in cell.metrics}, key=natural)


def _validation_scores(cell: Cell) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in cell.facts.items()
        if name.startswith(VALIDATION) and isinstance(value, int | float)
    }


def _validation_names(cells: Iterable[Cell]) -> list[str]:
    return sorted({name for cell in cells for name in _validation_scores(cell)}, key=natural)


def _described(cell: Cell) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "benchmark": cell.benchmark,
        "dataset": cell.identity.dataset,
        "backbone": cell.identity.backbone,
        "method": cell.identity.method,
        "bits": cell.identity.bits,
        "budget": cell.budget_kind,
        "plugin": cell.plugin,
        "plugin_version": cell.plugin_version,
        "contaminated": cell.contaminated,
        "role": cell.role,
        "settings": cell.settings,
        **{name: str(cell.facts.get(name, "")) for name in ("marks", "source", "split")},
    }


def _row(group: Sequence[Cell], names: Sequence[str], held: Sequence[str]) -> dict[str, Any]:
    ok = [cell for cell in group if cell.status == "ok"]
    worst = max(group, key=lambda cell: STATUSES.index(cell.status))
    share = f"{len(group) - len(ok)} of {len(group)} seeds: " if len(group) > 1 and worst.status != "ok" else ""
    row = _described(max(ok or group, key=lambda cell: (cell.created, cell.identity.key)))
    row |= {"seeds": len(ok), "seed_list": " ".join(str(cell.identity.seed) for cell in ok)}
    row |= {"status": worst.status, "reason": share + worst.reason}
    for name in names:
        row[name], row[f"{name}_std"] = _mean_and_deviation([cell.metrics.get(name) for cell in ok])
    row |= {name: _mean_and_deviation([cell.timings.get(name) for cell in ok])[0] for name in TIMINGS}
    row |= {name: _mean_and_deviation([_validation_scores(cell).get(name) for cell in ok])[0] for name in held}
    row["warnings"] = join_warnings(ok)
    counts = [_counts(cell) for cell in ok]
    for name in _FACTS:
        found = [known[name] for known in counts if name in known]
        row[name] = found[0] if len(set(found)) == 1 else _mean_and_deviation(found)[0]
    return row


def _counts(cell: Cell) -> dict[str, float]:
    """The facts that are numbers, by column."""
    facts = {name: cell.facts.get(fact) for name, fact in _FACTS.items()}
    return {name: value for name, value in facts.items() if isinstance(value, int | float)}


def _stale_keys(cells: Sequence[Cell], installed: InstalledCode | None) -> dict[str, bool]:
    """By the keys of cells, whether their code is not the installed code; without cells that are not installed."""
    if installed is None:
        return {}
    digests = installed(dict.fromkeys((cell.identity.method, cell.identity.backbone) for cell in cells))
    known = [(cell.identity, digests.get((cell.identity.method, cell.identity.backbone))) for cell in cells]
    return {identity.key: identity.code != digest for identity, digest in known if digest is not None}


def _mean_and_deviation(values: Sequence[Any]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation, from exact sums so that the order of cells does not matter.

    None if a value is unknown.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known or len(known) < len(values):
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def frame_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> DataFrame:
    """A frame of rows with these columns, each of its own type."""
    return DataFrame({name: _leaderboard_column(name, [row.get(name) for row in rows]) for name in columns})


def _leaderboard_column(name: str, values: list[Any]) -> pd.Series[Any]:
    if name in TEXTS:
        return pd.Series([_line(value or "") for value in values], dtype=object)
    if name == "contaminated":
        return pd.Series(values, dtype=bool)
    if name == "stale":
        return pd.Series(values, dtype="boolean")
    numbers = [None if value is None or math.isnan(value) else value for value in values]
    if name in COUNTS and all(value is None or float(value).is_integer() for value in numbers):
        return pd.Series([None if value is None else int(value) for value in numbers], dtype="Int64")
    return pd.Series([math.nan if value is None else float(value) for value in numbers], dtype=float)


def _line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()
