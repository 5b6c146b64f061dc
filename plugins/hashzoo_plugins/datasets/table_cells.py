"""The cells of a table: CSV and TSV as text, line by line, and Parquet as its own types."""

from __future__ import annotations

import codecs
import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hashzoo import EnvironmentFailure, UsageError, printable

SUFFIXES = (".csv", ".tsv", ".parquet")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Cells:
    """The cells of a table with N rows.

    Args:
        file: The file.
        columns: The N cells of each column, by the stripped name of the column.
        places: Where each row is, such as ``"line 2"``.
        unnamed: Descriptions of columns without a name, which are not read.
    """

    file: Path
    columns: dict[str, list[Any]]
    places: Sequence[str]
    unnamed: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.places)


def read_cells(file: Path) -> Cells:
    """Read a table. Every row must have as many fields as the header, and every column a name of its own.

    Raises:
        UsageError: If the table is not one; the message names the file and the line.
        EnvironmentFailure: If the file cannot be read.
    """
    kind = file.suffix.lower()
    if kind not in SUFFIXES:
        raise UsageError(f"{printable(file)} is not a table; use {', '.join(SUFFIXES)}")
    try:
        names, rows, places = _read_parquet(file) if kind == ".parquet" else _read_text(file, kind)
    except ImportError as error:
        raise EnvironmentFailure(f"reading {printable(file)} needs pyarrow: pip install 'hashzoo[parquet]'") from error
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {printable(file)}: {error.strerror or error}") from error
    except UsageError:
        raise
    except Exception as error:  # pyarrow raises many types for a damaged table
        raise UsageError(f"{printable(file)} is not a readable table: {' '.join(str(error).split())[:200]}") from error
    return _by_column(file, [str(name).strip() for name in names], rows, places)


def _read_parquet(file: Path) -> tuple[list[str], list[list[Any]], list[str]]:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas and pyarrow, which are not for users of hashzoo
        frame = pd.read_parquet(file, engine="pyarrow")
    columns = [frame.iloc[:, number].tolist() for number in range(frame.shape[1])]
    return list(map(str, frame.columns)), list(map(list, zip(*columns, strict=True))), _numbered("row", len(frame))


def _numbered(what: str, count: int) -> list[str]:
    return [f"{what} {number}" for number in range(1, count + 1)]


def _read_text(file: Path, kind: str) -> tuple[list[str], list[list[Any]], list[str]]:
    """The header, the rows and their lines. Empty lines are skipped."""
    data = file.read_bytes()
    if data.startswith(_UTF16) or b"\0" in data[:4096]:
        raise UsageError(f"{printable(file)} is not a readable table: it is UTF-16 or binary; save it as CSV in UTF-8")
    text = io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline="")
    reader = csv.reader(text, delimiter="\t" if kind == ".tsv" else ",", strict=True)
    rows, places, start = list[list[Any]](), list[str](), 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                rows.append(list(fields))
                places.append(f"line {start}")
            start = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(
            f"{printable(file)} is not a readable table: line {start}: {error}; check its quotation marks"
        ) from error
    if not rows:
        raise UsageError(f"{printable(file)} is not a readable table: it is empty")
    return rows[0], rows[1:], places[1:]


def _by_column(file: Path, names: list[str], rows: list[list[Any]], places: list[str]) -> Cells:
    """The cells by the name of the column. Raises UsageError for rows and names that do not fit."""
    where = printable(file)
    for fields, place in zip(rows, places, strict=True):
        if len(fields) < len(names) or any(str(field).strip() for field in fields[len(names) :]):
            raise UsageError(
                f"{where} {place} has {len(fields)} fields, but the header has {len(names)}; separate several labels "
                "with ; or |, and quote a path that holds a comma"
            )
    for number, name in enumerate(names):
        if name and name in names[:number]:
            columns_at = f"columns {names.index(name) + 1} and {number + 1}"
            raise UsageError(
                f"{where} line 1: {columns_at} are both named {printable(name)!r}; rename or remove one of them"
            )
    columns = {number: [fields[number] for fields in rows] for number in range(len(names))}
    unnamed = list[str]()
    for number, name in enumerate(names):
        if name and not (name.startswith("Unnamed: ") and name[9:].isdigit()):
            continue
        filled = [(place, cell) for place, cell in zip(places, columns[number], strict=True) if str(cell).strip()]
        if [str(cell).strip() for _, cell in filled] not in ([], [str(row) for row in range(len(rows))]):
            place, cell = filled[0]
            raise UsageError(
                f"{printable(file)} {place}: column {number + 1} has no name and holds {printable(cell)!r}; name or "
                "remove it"
            )
        unnamed += [f"column {number + 1} without a name"] if filled else []
        del columns[number]
    return Cells(file, {names[number]: cells for number, cells in columns.items()}, places, unnamed)
