"""The board of a results folder or a CSV file: read, and written as CSV files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pandas import DataFrame

from hashzoo.errors import EnvironmentFailure, UsageError, unknown_name
from hashzoo.results import leaderboard, packed, store
from hashzoo.results.cell import Cell
from hashzoo.results.csv_file import read_csv, write_csv
from hashzoo.results.leaderboard import PLACE, InstalledCode
from hashzoo.results.store import DamagedError

T = TypeVar("T")


@dataclass(frozen=True)
class BoardRow:
    """A row of a board.

    Attributes:
        facts: Its columns.
        cells: The cells of its seeds; empty if the board was read from a CSV file.
        folder: The results folder of the cells.
        files: The files of cells by :func:`hashzoo.results.store.place`, if they are in several folders.
    """

    facts: Mapping[str, Any]
    cells: Sequence[Cell] = ()
    folder: Path = Path()
    files: Mapping[tuple[str, str], Path] = field(default_factory=dict, repr=False)

    def file(self, cell: Cell) -> Path:
        """The JSON file of one of its cells."""
        return self.files.get(store.place(cell)) or store.path(self.folder, cell.identity, cell.benchmark)


@dataclass(frozen=True)
class StoredBoard:
    """The board of a results folder or a CSV file.

    Attributes:
        path: The folder or file.
        frame: One row for each measurement, as :func:`hashzoo.results.leaderboard.board_frame` returns it.
        groups: The cells of each row; empty for a CSV file.
        faults: One line for each damaged cell that was left out.
        superseded: Number of cells that newer ones replace.
        files: The files of cells by :func:`hashzoo.results.store.place`, if they are in several folders.
    """

    path: Path
    frame: DataFrame
    groups: Sequence[Sequence[Cell]] = ()
    faults: Sequence[str] = ()
    superseded: int = 0
    files: Mapping[tuple[str, str], Path] = field(default_factory=dict, repr=False)

    def rows(self, facts: Iterable[Mapping[str, Any]] | None = None) -> list[BoardRow]:
        """The rows with their cells; ``facts`` replace their columns."""
        columns = leaderboard.records(self.frame) if facts is None else facts
        groups = self.groups or [()] * len(self.frame)
        return [BoardRow(one, cells, self.path, self.files) for one, cells in zip(columns, groups, strict=True)]

    @cached_property
    def by_place(self) -> dict[tuple[Any, ...], BoardRow]:
        """The rows by the columns that identify them for people."""
        return index_by_place(self.rows(), lambda row: row.facts)


@dataclass(frozen=True)
class Filter:
    """The rows of a board that are wanted; an empty sequence stands for all.

    Attributes:
        methods: Names or patterns of methods, such as ``"p*"``.
        bits: Code lengths.
        datasets: Names or patterns of datasets.
    """

    methods: Sequence[str] = ()
    bits: Sequence[int] = ()
    datasets: Sequence[str] = ()

    def apply(self, board: StoredBoard) -> StoredBoard:
        """The board with these rows only.

        Raises:
            UsageError: If the board has no row of a method, code length or dataset, or none of all three together.
        """
        rows = leaderboard.records(board.frame)
        keep = [True] * len(rows)
        for column, wanted in (("dataset", self.datasets), ("method", self.methods)):
            chosen = _matching(board.path, column, wanted, [row[column] for row in rows]) if wanted else None
            keep = [kept and (chosen is None or row[column] in chosen) for kept, row in zip(keep, rows, strict=True)]
        known = sorted({row["bits"] for row in rows if row["bits"] is not None})
        if missing := [bits for bits in self.bits if bits not in known]:
            lengths = ", ".join(map(str, known)) or "none"
            raise UsageError(f"{board.path} has no rows of {missing[0]} bits; there are: {lengths}")
        keep = [kept and (not self.bits or row["bits"] in self.bits) for kept, row in zip(keep, rows, strict=True)]
        if rows and not any(keep):
            raise UsageError(f"{board.path} has no row of these methods, bits and datasets together; ask for fewer")
        groups = [group for group, kept in zip(board.groups, keep, strict=True) if kept] if board.groups else ()
        return replace(board, frame=board.frame.loc[keep].reset_index(drop=True), groups=groups)


def _matching(path: Path, kind: str, wanted: Sequence[str], names: Sequence[str]) -> set[str]:
    """The names that names and wildcard patterns select. UsageError for one that selects nothing."""
    found = set[str]()
    for pattern in wanted:
        selected = {name for name in names if name == pattern or fnmatchcase(name, pattern)}
        if not selected and any(letter in pattern for letter in "*?["):
            raise UsageError(f"{path}: no {kind} matches {pattern!r}; there are: {', '.join(sorted({*names}))}")
        if not selected:
            raise UsageError(f"{path}: {unknown_name(kind, pattern, {*names})}")
        found |= selected
    return found


def read_board(path: Path, installed: InstalledCode | None = None, *, skip_damaged: bool = False) -> StoredBoard:
    """Read the cells of a results folder or packed file; without cells its ``leaderboard.csv``; or a CSV file.

    Args:
        path: The folder or file.
        installed: The digests of the installed code, which decide which rows are stale. A CSV file says this itself.
        skip_damaged: Report damaged cells in ``faults`` instead of raising DamagedError.

    Raises:
        EnvironmentFailure: If there is no board, or it cannot be read.
        NewerSchemaError: If a later hashzoo wrote it.
    """
    files = store.files(path)
    if not files and path.suffix == packed.SUFFIX and path.is_file():
        raise EnvironmentFailure(f"{path} has no cells; write it again with hashzoo merge --pack")
    if not files:
        return StoredBoard(path, read_csv(path / "leaderboard.csv" if path.is_dir() else path))
    cells, faults = list[Cell](), list[str]()
    for file in files:
        try:
            cells.append(store.read(file))
        except DamagedError as error:
            if not skip_damaged:
                raise
            faults.append(str(error))
    groups = leaderboard.group_by_row(cells)
    frame = leaderboard.board_frame(cells, installed)
    return StoredBoard(path, frame, groups, faults, len(cells) - sum(map(len, groups)))


def with_origin(boards: Sequence[StoredBoard]) -> list[StoredBoard]:
    """Boards with the column of the folder that their rows come from; unchanged if there is only one."""
    if len(boards) < 2:
        return list(boards)
    labels = origin_labels([board.path for board in boards])
    return [
        replace(board, frame=board.frame.assign(**{leaderboard.ORIGIN: label}))
        for board, label in zip(boards, labels, strict=True)
    ]


def origin_labels(folders: Sequence[Path]) -> list[str]:
    """What the column of the origin calls several folders or files: their names, or their paths if two names are equal.

    >>> origin_labels([Path("a/one"), Path("b/two")]), origin_labels([Path("a/one"), Path("b/one")])
    (['one', 'two'], ['a/one', 'b/one'])
    """
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else list(map(str, folders))


def write_board(folder: Path, cells: Iterable[Cell], installed: InstalledCode | None = None) -> DataFrame:
    """Write ``cells.csv`` and ``leaderboard.csv`` of a results folder, and return the frame of the board.

    ``installed`` has the digests of the installed code; without it, the column ``stale`` is empty.
    """
    cells = list(cells)
    board = leaderboard.board_frame(cells, installed)
    write_csv(leaderboard.cells_frame(cells, installed), folder / "cells.csv")
    write_csv(board, folder / "leaderboard.csv")
    return board


def index_by_place(rows: Iterable[T], facts: Callable[[T], Mapping[str, Any]]) -> dict[tuple[Any, ...], T]:
    """Rows by their columns ``PLACE``, which ``facts`` returns; rows with equal ones are numbered in order."""
    found: dict[tuple[Any, ...], T] = {}
    for row in rows:
        place, nth = tuple(facts(row)[name] for name in PLACE), 0
        while (*place, nth) in found:
            nth += 1
        found[(*place, nth)] = row
    return found
