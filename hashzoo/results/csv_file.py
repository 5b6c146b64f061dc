"""Frames as CSV files, and back."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pandas import DataFrame

from hashzoo.errors import EnvironmentFailure
from hashzoo.results.leaderboard import PLACE, TEXTS, frame_of, records
from hashzoo.results.store import SCHEMA
from hashzoo.storage.files import replace_bytes
from hashzoo.storage.schema import NewerSchemaError, is_readable, migrate

#: Functions by schema n that turn a row of a CSV file, all of it text, into one of schema n + 1.
MIGRATIONS: dict[int, Callable[[dict[str, str]], dict[str, str]]] = {}

_REQUIRED = (*PLACE, "schema", "status", "reason", "role", "contaminated")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan|-?inf", re.ASCII | re.IGNORECASE)
_ADVICE = "name a results folder, or write the file again with hashzoo bench"


def write_csv(frame: DataFrame, path: Path) -> None:
    """Write the text of a frame in one step, as UTF-8."""
    replace_bytes(path, csv_text(frame).encode("utf-8", "backslashreplace"))


def csv_text(frame: DataFrame) -> str:
    """A frame as CSV: lines end in ``\\n``, numbers have all digits.

    Text that a spreadsheet would run as a formula is prefixed with an apostrophe.
    """
    return csv_rows(list(frame.columns), [list(row.values()) for row in records(frame)])


def csv_rows(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, in the form of :func:`csv_text`; None is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_field(str(name)) for name in names])
    writer.writerows([_field(value) for value in row] for row in rows)
    return text.getvalue()


def read_csv(path: Path) -> DataFrame:
    """The frame in a CSV file that :func:`write_csv` wrote.

    A CSV file has no checksum: truncation and foreign content are detected, a changed digit is not. Raises
    EnvironmentFailure for a missing file and one that is not a leaderboard, NewerSchemaError for one that a later
    hashzoo wrote.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text), strict=True))
    except FileNotFoundError:
        below = sorted(file.parent.as_posix() for file in path.parent.glob(f"*/{path.name}"))
        boards, run = f"there are boards in {', '.join(below[:6])}", "run hashzoo bench first, or name another folder"
        raise EnvironmentFailure(f"no leaderboard at {path}; {boards if below else run}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise EnvironmentFailure(f"cannot read {path} as a leaderboard: {error}; {_ADVICE}") from error
    names = [_unescaped(name) for name in lines[0]] if lines else []
    _require_columns(path, names, ["schema"])
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(names):
            raise EnvironmentFailure(f"{path} row {number} has {len(line)} fields of {len(names)}; {_ADVICE}")
    if not text.endswith("\n"):  # otherwise a truncated last field would be read as a complete one
        raise EnvironmentFailure(f"{path} is truncated: its last line has no end; {_ADVICE}")
    rows = [_lifted(path, dict(zip(names, line, strict=True))) for line in lines[1:]]
    names = list(rows[0]) if rows else names
    _require_columns(path, names, _REQUIRED)
    try:
        return frame_of([{name: _parsed(name, text) for name, text in row.items()} for row in rows], names)
    except (ValueError, OverflowError, TypeError) as error:
        raise EnvironmentFailure(f"{path} is not a leaderboard: {error}; {_ADVICE}") from None


def _field(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value if re.match(r"'*[=+\-@\t\r]", value) else value
    return "" if value is None else repr(value)


def _unescaped(text: str) -> str:
    return text[1:] if re.match(r"'+[=+\-@\t\r]", text) else text


def _parsed(name: str, text: str) -> Any:
    if name in TEXTS:
        return _unescaped(text)
    if name == "contaminated" or (name == "stale" and text):
        if text.lower() not in ("true", "false"):  # spreadsheets write TRUE and FALSE
            raise ValueError(f"{name} is {text!r}")
        return text.lower() == "true"
    if not text and name != "bits":
        return None
    if not _NUMBER.fullmatch(text):  # float() also accepts blanks, underscores and digits of other scripts
        raise ValueError(f"{name} is {text!r}")
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def _require_columns(path: Path, names: Sequence[str], required: Iterable[str]) -> None:
    """EnvironmentFailure if a required column is missing, or any occurs twice."""
    missing = [name for name in required if name not in names]
    if missing or len(set(names)) < len(names):
        fault = f"no column {missing[0]!r}" if missing else "a column occurs twice"
        raise EnvironmentFailure(f"{path} is not a leaderboard: {fault}; {_ADVICE}")


def _lifted(path: Path, row: dict[str, str]) -> dict[str, str]:
    """A row in the current layout; without a number as its schema, the row itself."""
    if not re.fullmatch(r"\d+", row.get("schema", "")):
        return row
    schema = int(row["schema"])
    if schema > SCHEMA:
        raise NewerSchemaError(path, schema, SCHEMA)
    if not is_readable(schema, SCHEMA, MIGRATIONS):
        raise EnvironmentFailure(f"{path} has schema {schema}, which no hashzoo wrote; {_ADVICE}")
    return migrate(row, schema, SCHEMA, MIGRATIONS)
