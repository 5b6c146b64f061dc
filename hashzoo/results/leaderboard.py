"""From cells to tables: pure functions, so that the same cells give the same bytes.

A board has one row for each thing measured, its seeds taken together: ``benchmark, dataset, backbone, bits,
method, settings, budget`` name it to people.
"""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from pandas import DataFrame

from hashzoo.errors import EnvironmentFailure
from hashzoo.results import store
from hashzoo.results.cell import STATUSES, Cell
from hashzoo.results.store import SCHEMA
from hashzoo.storage.files import canonical_json, replace_bytes
from hashzoo.storage.schema import NewerSchemaError, is_readable, migrate

#: What names a row to people, in the order by which rows are sorted.
PLACE = ("benchmark", "dataset", "backbone", "bits", "method", "settings", "budget")

TIMINGS = ("fit_seconds", "encode_per_second", "search_per_second")
HEAD = ("schema", "benchmark", "dataset", "backbone", "method", "bits", "stored_bits", "budget")
TAIL = (
    *(*TIMINGS, "bytes_per_item", "plugin", "plugin_version", "contaminated", "reason"),
    *("role", "settings", "marks", "queries_without_relevant"),
    *("source", "split", "train", "database_size", "queries", "train_in_database", "unlabelled_queries"),
)

# What was counted, by column; a column has the fact of its own name but for the one that is taken.
_FACTS = {
    name: name
    for name in (
        *("stored_bits", "bytes_per_item", "queries_without_relevant"),
        *("train", "queries", "train_in_database", "unlabelled_queries"),
    )
} | {"database_size": "database"}
_COUNTS = ("schema", "bits", "seed", "seeds", *_FACTS)
_TEXTS = (
    *(set(PLACE) - {"bits"}),
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
)
_NEEDED = (*PLACE, "schema", "status", "reason", "role", "contaminated")

#: What makes a row of a CSV file of schema n, all of it text, one of n + 1.
MIGRATIONS: dict[int, Callable[[dict[str, str]], dict[str, str]]] = {}

# What the same words mean in another run: the seed, and how code, data and protocol stood at the time.
_OUTDATED = ("code", "data", "protocol")


def cells_frame(cells: Iterable[Cell]) -> DataFrame:
    """One row a cell, but for the superseded."""
    kept = _current(cells)
    names = _metric_names(kept)
    rows = [
        {
            **_described(cell),
            **cell.metrics,
            **{name: cell.timings.get(name) for name in TIMINGS},
            **_counted(cell),
            "seed": cell.identity.seed,
            "status": cell.status,
            "reason": cell.reason,
            "key": cell.identity.key,
        }
        for cell in kept
    ]
    return _frame(rows, [*HEAD, "seed", "status", *names, *TAIL, "key"])


def board_frame(cells: Iterable[Cell]) -> DataFrame:
    """One row for the cells that differ in nothing but their seed.

    Scores are means over the seeds that went well, beside their sample standard deviations (empty for a
    single seed); ``seeds`` counts those, ``status`` is the gravest of all seeds and ``reason`` belongs to it.
    """
    found = groups(cells)
    names = _metric_names(cell for group in found for cell in group)
    columns = [
        *HEAD,
        "seeds",
        "status",
        *(c for name in names for c in (name, f"{name}_std")),
        *TAIL,
        "seed_list",
    ]
    return _frame([_row(group, names) for group in found], columns)


def groups(cells: Iterable[Cell]) -> list[list[Cell]]:
    """The cells of each row of ``board_frame``, in its order, one a seed."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in _current(cells):
        found.setdefault((cell.benchmark, _without(cell, "seed")), []).append(cell)
    return list(found.values())


def superseded(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that a newer one replaces: the same but for code, data, protocol and seed.

    All seeds of the newest code, data and protocol stay, and no seed of an older one, since a mean over two
    versions of a method would be the score of neither.
    """
    cells = list(cells)
    kept = {id(cell) for cell in _current(cells)}
    return [cell for cell in cells if id(cell) not in kept]


def metrics(frame: DataFrame) -> list[str]:
    """The columns that hold scores, in natural order."""
    fixed = {*HEAD, *TAIL, "seed", "seeds", "status", "seed_list", "key"}
    names = [name for name in frame.columns if name not in fixed and not name.startswith("vs ")]
    return sorted((n for n in names if n.removesuffix("_std") == n or n.removesuffix("_std") not in names), key=natural)


def natural(name: str) -> list[str | int]:
    """A key that sorts numbers inside names by their value.

    >>> sorted(["p@100", "p@20", "map@all"], key=natural)
    ['map@all', 'p@20', 'p@100']
    """
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def records(frame: DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts of Python's own types, None where nothing is known."""
    columns = {name: [None if pd.isna(v) else v for v in frame[name].tolist()] for name in frame.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write(folder: Path, cells: Iterable[Cell]) -> DataFrame:
    """Writes ``cells.csv`` and ``leaderboard.csv`` into a results folder and returns the frame of the board."""
    cells = list(cells)
    board = board_frame(cells)
    write_csv(cells_frame(cells), folder / "cells.csv")
    write_csv(board, folder / "leaderboard.csv")
    return board


def write_csv(frame: DataFrame, path: Path) -> None:
    """Writes a frame in one step: UTF-8, lines that end in ``\\n``, numbers with all their digits.

    A text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_field(str(name)) for name in frame.columns])
    writer.writerows([_field(value) for value in row.values()] for row in records(frame))
    replace_bytes(path, text.getvalue().encode("utf-8", "backslashreplace"))


def read_csv(path: Path) -> DataFrame:
    """The frame that ``write_csv`` wrote; of a folder the board of its cells, and its ``leaderboard.csv`` without them.

    A CSV has no checksum, as cells have: where it was cut off or holds something else is seen, a digit that was changed
    is not. Raises EnvironmentFailure for a damaged cell, and where there is no board or it is something else;
    NewerSchemaError when a later hashzoo wrote it.
    """
    if path.is_dir():
        if files := sorted((path / "cells").glob("*.json")):
            return board_frame([store.read(file) for file in files])
        path /= "leaderboard.csv"
    try:
        text = path.read_bytes().decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text), strict=True))
    except FileNotFoundError:
        below = sorted(file.parent.as_posix() for file in path.parent.glob(f"*/{path.name}"))
        cure = (
            f"there are boards in {', '.join(below[:6])}"
            if below
            else "run hashzoo bench first, or name another folder"
        )
        raise EnvironmentFailure(f"no leaderboard at {path}; {cure}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise EnvironmentFailure(f"cannot read {path} as a leaderboard: {error}; {_CURE}") from error
    names = [_unescaped(name) for name in lines[0]] if lines else []
    _insist(path, names, ["schema"])
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(names):
            raise EnvironmentFailure(f"{path} row {number} has {len(line)} fields of {len(names)}; {_CURE}")
    if not text.endswith("\n"):  # else a last field that lost its end would pass for a whole one
        raise EnvironmentFailure(f"{path} is cut off: its last line does not end; {_CURE}")
    rows = [_lifted(path, dict(zip(names, line, strict=True))) for line in lines[1:]]
    names = list(rows[0]) if rows else names
    _insist(path, names, _NEEDED)
    try:
        return _frame([{name: _parsed(name, text) for name, text in row.items()} for row in rows], names)
    except (ValueError, OverflowError, TypeError) as error:
        raise EnvironmentFailure(f"{path} is not a leaderboard: {error}; {_CURE}") from None


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan|-?inf", re.ASCII | re.IGNORECASE)
_CURE = "name a results folder, or make the file anew with hashzoo bench"


def _current(cells: Iterable[Cell]) -> list[Cell]:
    newest_first = sorted(cells, key=lambda cell: (cell.created, cell.identity.key), reverse=True)
    version: dict[tuple[str, str], tuple[Any, ...]] = {}
    kept: dict[tuple[str, str], Cell] = {}
    for cell in newest_first:
        mine = tuple(getattr(cell.identity, name) for name in _OUTDATED)
        # settings, not hyperparameters: a default that an edit of the plugin changed is no setting of the user's
        place = _without(cell, "seed", "hyperparameters", *_OUTDATED) + cell.settings
        if version.setdefault((cell.benchmark, place), mine) == mine:
            kept.setdefault((cell.benchmark, cell.identity.key), cell)
    return sorted(kept.values(), key=_order)


def _order(cell: Cell) -> tuple[Any, ...]:
    described = _described(cell)
    return (*(described[name] for name in PLACE), _without(cell, "seed"), cell.identity.seed)


def _without(cell: Cell, *names: str) -> str:
    return canonical_json({k: v for k, v in asdict(cell.identity).items() if k not in names})


def _metric_names(cells: Iterable[Cell]) -> list[str]:
    return sorted({name for cell in cells for name in cell.metrics}, key=natural)


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


def _row(group: Sequence[Cell], names: Sequence[str]) -> dict[str, Any]:
    well = [cell for cell in group if cell.status == "ok"]
    worst = max(group, key=lambda cell: STATUSES.index(cell.status))
    share = f"{len(group) - len(well)} of {len(group)} seeds: " if len(group) > 1 and worst.status != "ok" else ""
    row = _described(max(well or group, key=lambda cell: (cell.created, cell.identity.key)))
    row |= {"seeds": len(well), "seed_list": " ".join(str(cell.identity.seed) for cell in well)}
    row |= {"status": worst.status, "reason": share + worst.reason}
    for name in names:
        row[name], row[f"{name}_std"] = _mean_and_deviation([cell.metrics.get(name) for cell in well])
    row |= {name: _mean_and_deviation([cell.timings.get(name) for cell in well])[0] for name in TIMINGS}
    counts = [_counted(cell) for cell in well]
    for name in _FACTS:
        found = [counted[name] for counted in counts if name in counted]
        row[name] = found[0] if len(set(found)) == 1 else _mean_and_deviation(found)[0]
    return row


def _counted(cell: Cell) -> dict[str, float]:
    """What was counted, by column; a fact that is text where a count belongs is none."""
    facts = {name: cell.facts.get(fact) for name, fact in _FACTS.items()}
    return {name: value for name, value in facts.items() if isinstance(value, int | float)}


def _mean_and_deviation(values: Sequence[Any]) -> tuple[float | None, float | None]:
    """Exact sums, so that the order of the cells leaves no trace; nothing where one value is not known."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known or len(known) < len(values):
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> DataFrame:
    return DataFrame({name: _series(name, [row.get(name) for row in rows]) for name in columns})


def _series(name: str, values: list[Any]) -> pd.Series[Any]:
    if name in _TEXTS:
        return pd.Series([_line(value or "") for value in values], dtype=object)
    if name == "contaminated":
        return pd.Series(values, dtype=bool)
    numbers = [None if value is None or math.isnan(value) else value for value in values]
    if name in _COUNTS and all(value is None or float(value).is_integer() for value in numbers):
        return pd.Series([None if value is None else int(value) for value in numbers], dtype="Int64")
    return pd.Series([math.nan if value is None else float(value) for value in numbers], dtype=float)


def _line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()


def _field(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value if re.match(r"'*[=+\-@\t\r]", value) else value
    return "" if value is None else repr(value)


def _unescaped(text: str) -> str:
    return text[1:] if re.match(r"'+[=+\-@\t\r]", text) else text


def _parsed(name: str, text: str) -> Any:
    if name in _TEXTS:
        return _unescaped(text)
    if name == "contaminated":
        if text not in ("True", "False"):
            raise ValueError(f"contaminated is {text!r}")
        return text == "True"
    if not text and name != "bits":
        return None
    if not _NUMBER.fullmatch(text):  # float() takes more: blanks, underscores, digits of other scripts
        raise ValueError(f"{name} is {text!r}")
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def _insist(path: Path, names: Sequence[str], needed: Iterable[str]) -> None:
    """EnvironmentFailure where a column that is needed is missing, or any stands there twice."""
    missing = [name for name in needed if name not in names]
    if missing or len(set(names)) < len(names):
        fault = f"no column {missing[0]!r}" if missing else "a column stands there twice"
        raise EnvironmentFailure(f"{path} is not a leaderboard: {fault}; {_CURE}")


def _lifted(path: Path, row: dict[str, str]) -> dict[str, str]:
    """A row in the present layout; one without a number for its schema is left to the checks of columns and values."""
    if not re.fullmatch(r"\d+", row.get("schema", "")):
        return row
    schema = int(row["schema"])
    if schema > SCHEMA:
        raise NewerSchemaError(path, schema, SCHEMA)
    if not is_readable(schema, SCHEMA, MIGRATIONS):
        raise EnvironmentFailure(f"{path} has schema {schema}, which no hashzoo wrote; {_CURE}")
    return migrate(row, schema, SCHEMA, MIGRATIONS)
