"""Metadata of images in a CSV file, keyed by id or by path."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hashzoo.errors import EnvironmentFailure, UsageError, first_line, printable
from hashzoo.retrieval.index_writer import MetadataTable, check_columns

KEYS = ("id", "path")  # columns that name an image
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_REAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")

Value = int | float | str | None


@dataclass(frozen=True)
class MetadataFile:
    """What a CSV file says of images.

    Attributes:
        table: The columns besides ``id`` and ``path``, and their values by id, or by path if there is no column ``id``.
        ids: The id of each path, if there are both columns.
        by_path: Whether values are by path.
    """

    table: MetadataTable
    ids: dict[str, str]
    by_path: bool


def read(path: Path) -> MetadataFile:
    """Read a CSV file with a header. A column of whole numbers, or of numbers, is one of numbers; others are text.

    An empty field has no value. Numbers with leading zeros are text.

    Raises:
        UsageError: If there is no such file, no column ``id`` or ``path``, or a line does not fit.
        EnvironmentFailure: If it cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except FileNotFoundError:
        raise UsageError(f"there is no file {printable(path)}; --metadata takes a CSV file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{printable(path)} is not UTF-8 ({first_line(error)}); save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise UsageError(f"{printable(path)} is not a CSV file: {error}; separate fields by commas") from error
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {printable(path)}: {error.strerror or error}") from error
    header = lines[0] if lines else []
    names = [name.lower() for name in header]
    keys = [name for name in KEYS if name in names]
    if not keys:
        raise UsageError(f"{printable(path)} has no column id or path; its first line must name one of them")
    if twice := [name for name in header if names.count(name.lower()) > 1]:
        raise UsageError(f"{printable(path)} has two columns {printable(twice[0])}; rename one")
    return _parsed(path, header, names, keys, [line for line in lines[1:] if line])


def _parsed(
    path: Path, header: Sequence[str], names: Sequence[str], keys: Sequence[str], lines: Sequence[Sequence[str]]
) -> MetadataFile:
    if ragged := next((line for line in lines if len(line) != len(header)), None):
        raise UsageError(
            f"{printable(path)}: the line of {printable(ragged[0])} has {len(ragged)} fields, not {len(header)}"
        )
    key = names.index(keys[0])
    own = [column for column, name in enumerate(names) if name not in KEYS]
    check_columns([header[column] for column in own])
    kinds = {header[column]: _kind([line[column] for line in lines]) for column in own}
    convert = {"INTEGER": int, "REAL": float, "TEXT": str}
    rows = dict[str, list[Value]]()
    ids = dict[str, str]()
    for line in lines:
        if line[key] in rows:
            raise UsageError(f"{printable(path)} names {keys[0]} {printable(line[key])} twice; leave out one line")
        rows[line[key]] = [convert[kinds[header[column]]](line[column]) if line[column] else None for column in own]
        if len(keys) == len(KEYS):
            ids[line[names.index("path")]] = line[key]
    return MetadataFile(MetadataTable(kinds, rows), ids, keys[0] == "path")


def _kind(values: Sequence[str]) -> str:
    """The affinity of SQLite for the texts of a column.

    >>> _kind(["1", "", "-20"]), _kind(["1", "2.5e3"]), _kind(["007"]), _kind(["nan"]), _kind([""])
    ('INTEGER', 'REAL', 'TEXT', 'TEXT', 'TEXT')
    """
    given = [value for value in values if value]
    if given and all(map(_INTEGER.fullmatch, given)):
        return "INTEGER"
    return "REAL" if given and all(map(_REAL.fullmatch, given)) else "TEXT"
