"""Changes of the items of an index folder: added, replaced, removed, described, compacted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import EnvironmentFailure, UnknownItemError, UsageError, printable
from hashzoo.retrieval import index_segments
from hashzoo.retrieval.code_file import CHUNK_ROWS, array_name
from hashzoo.retrieval.index_segments import Array
from hashzoo.retrieval.index_snapshot import (
    ROW_BITS,
    SCHEMA,
    SEGMENTS,
    deleted_rows,
    form,
    to_sql,
)
from hashzoo.storage.files import canonical_json

TABLES = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE segments (number INTEGER PRIMARY KEY, rows INTEGER NOT NULL, arrays TEXT NOT NULL, deleted BLOB)",
    "CREATE TABLE items (_place INTEGER PRIMARY KEY, id NOT NULL UNIQUE, _file, _digest BLOB, _bytes INTEGER, "
    "_modified INTEGER)",
    "CREATE INDEX items_by_file ON items (_file) WHERE _file IS NOT NULL",
)
#: Columns of every index; metadata cannot have these names.
COLUMNS = ("_place", "id", "_file", "_digest", "_bytes", "_modified", "rowid", "oid", "_rowid_")
MOST_COLUMNS = 500


class Item(NamedTuple):
    """An image of an index folder.

    Attributes:
        id: Its id, which is unique.
        file: The path of its file, relative to the root of the index, or absolute; None if it is the id.
        digest: The first bytes of the SHA-256 of the file; None if it is not known.
        bytes: The size of the file when it was read.
        modified: When it had been modified, in nanoseconds; None if it may have changed since.
    """

    id: str
    file: str | None = None
    digest: bytes | None = None
    bytes: int | None = None
    modified: int | None = None


@dataclass(frozen=True)
class MetadataTable:
    """Columns of metadata: their names, with the affinity of SQLite, and the values of each id."""

    columns: Mapping[str, str]
    rows: Mapping[str, Sequence[int | float | str | None]] = field(repr=False)


class IndexWriter:
    """Changes the items of an index folder, in one transaction. Created by :meth:`hashzoo.IndexFolder.writing`.

    Attributes:
        path: The folder.
        metadata: The description of what encodes queries, as JSON values.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, metadata: dict[str, Any]) -> None:
        self.path, self.metadata = path, metadata
        self._connection, self._began, self._compacted = connection, False, False
        self._specs = {array_name(name, spec): spec for name, spec in metadata["codes"].items()}

    def begin(self) -> None:
        """Begin the transaction, unless it has begun."""
        if not self._began:
            self._connection.execute("BEGIN IMMEDIATE")
            self._began = True

    def create_tables(self) -> None:
        """Create the tables of an index that has no items."""
        self.begin()
        for table in TABLES:
            self._connection.execute(table)
        values = {"schema": SCHEMA, "metadata": canonical_json(self.metadata), "state": 0}
        self._connection.executemany("INSERT INTO about VALUES (?, ?)", values.items())

    def commit(self) -> None:
        """Make the changes permanent, then delete the files that only former states refer to."""
        if not self._began:
            return
        self._connection.execute("UPDATE about SET value = value + 1 WHERE name = 'state'")
        self._connection.execute("COMMIT")
        self._began = False
        index_segments.delete_others(self.path / SEGMENTS, self._digests())
        if self._compacted:
            with suppress(sqlite3.Error):  # on a full disk, the database keeps its size
                self._connection.execute("VACUUM")

    def roll_back(self) -> None:
        """Drop the changes and the files that were written for them."""
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._began = False
        with suppress(sqlite3.Error, EnvironmentFailure):
            index_segments.delete_others(self.path / SEGMENTS, self._digests())

    def _digests(self) -> set[str]:
        listed = self._connection.execute("SELECT arrays FROM segments")
        return {digest for (arrays,) in listed for digest in json.loads(arrays).values()}

    def find(self, item: str) -> Item | None:
        """The item of an id, or None."""
        return self._found("id = ?", item)

    def find_file(self, file: str) -> Item | None:
        """The item of a file, or None."""
        return self._found("id = ? AND _file IS NULL", file) or self._found("_file = ?", file)

    def _found(self, condition: str, value: str) -> Item | None:
        query = f"SELECT id, _file, _digest, _bytes, _modified FROM items WHERE {condition}"
        row = self._connection.execute(query, (to_sql(value),)).fetchone()
        return None if row is None else Item(*(_text(one) for one in row[:2]), *row[2:])  # type: ignore[arg-type]

    def count(self) -> int:
        """The number of items."""
        return int(self._connection.execute("SELECT count(*) FROM items").fetchone()[0])

    def segments(self) -> int:
        """The number of segments."""
        return int(self._connection.execute("SELECT count(*) FROM segments").fetchone()[0])

    def items(self) -> Iterator[Item]:
        """All items, in the order in which they were added."""
        for row in self._connection.execute("SELECT id, _file, _digest, _bytes, _modified FROM items ORDER BY _place"):
            yield Item(*(_text(one) for one in row[:2]), *row[2:])  # type: ignore[arg-type]

    def put(self, items: Sequence[Item], arrays: Mapping[str, Array]) -> None:
        """Add items, or replace those with the same id, which keep their metadata and move to the end.

        Args:
            items: N items.
            arrays: The arrays of their codes, by the names of an index file, (N, ...) each.

        Raises:
            UsageError: If an id is given twice, is empty or contains a zero byte, or the arrays do not fit.
        """
        if not items:
            return
        self._check(items, arrays)
        self._replace(items, len(items), {name: partial(_blocks, arrays[name]) for name in self._specs})

    def _check(self, items: Sequence[Item], arrays: Mapping[str, Array]) -> None:
        ids = set[str]()
        for item in items:
            if item.id in ids:
                raise UsageError(f"the id {printable(item.id)} is given twice; leave out one of the images")
            if not item.id or "\0" in item.id:
                raise UsageError(f"the id {item.id!r} is empty or contains a zero byte; choose another one")
            ids.add(item.id)
        for name, spec in self._specs.items():
            given = arrays.get(name)
            shape, dtype = form(spec, len(items))
            if given is None or (given.shape, given.dtype) != (shape, dtype):
                found = "none" if given is None else f"{given.dtype} {given.shape}"
                raise UsageError(f"{printable(self.path)} takes {name} as {dtype} {shape}, not {found}")

    def _replace(self, items: Sequence[Item], rows: int, blocks: Mapping[str, Callable[[], Iterator[Array]]]) -> None:
        """Write a segment, and make its rows the items."""
        self.begin()
        connection = self._connection
        former = [
            place
            for item in items
            for (place,) in connection.execute("SELECT _place FROM items WHERE id = ?", (to_sql(item.id),))
        ]
        number = self._add_segment(rows, blocks)
        connection.executemany(
            "INSERT INTO items (_place, id, _file, _digest, _bytes, _modified) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET _place = excluded._place, _file = excluded._file, "
            "_digest = excluded._digest, _bytes = excluded._bytes, _modified = excluded._modified",
            (
                (
                    (number << ROW_BITS) + row,
                    to_sql(item.id),
                    None if item.file is None else to_sql(item.file),
                    *item[2:],
                )
                for row, item in enumerate(items)
            ),
        )
        self._delete_places(former)

    def _add_segment(self, rows: int, blocks: Mapping[str, Callable[[], Iterator[Array]]]) -> int:
        """Write the files of a segment, and refer to them; its number is above all others."""
        digests = {}
        for name, spec in self._specs.items():
            shape, dtype = form(spec, rows)
            digests[name] = index_segments.write(self.path / SEGMENTS, shape, dtype, blocks[name])
        (last,) = self._connection.execute("SELECT max(number) FROM segments").fetchone()
        number = 0 if last is None else last + 1
        values = (number, rows, canonical_json(digests))
        self._connection.execute("INSERT INTO segments (number, rows, arrays) VALUES (?, ?, ?)", values)
        return number

    def _delete_places(self, places: Sequence[int]) -> None:
        """Mark rows of segments as deleted; a segment without others is dropped."""
        by_segment: dict[int, list[int]] = {}
        for place in places:
            by_segment.setdefault(place >> ROW_BITS, []).append(place & ((1 << ROW_BITS) - 1))
        for number, gone in by_segment.items():
            select = "SELECT rows, deleted FROM segments WHERE number = ?"
            rows, mask = self._connection.execute(select, (number,)).fetchone()
            deleted = deleted_rows(mask, rows)
            deleted[gone] = True
            if deleted.all():
                self._connection.execute("DELETE FROM segments WHERE number = ?", (number,))
            else:
                packed = np.packbits(deleted).tobytes()
                self._connection.execute("UPDATE segments SET deleted = ? WHERE number = ?", (packed, number))

    def touch(self, item: Item) -> None:
        """Record the path and the time of the file of an item, whose content is the same."""
        self.begin()
        file = None if item.file is None else to_sql(item.file)
        values = (file, item.bytes, item.modified, to_sql(item.id))
        self._connection.execute("UPDATE items SET _file = ?, _bytes = ?, _modified = ? WHERE id = ?", values)

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items.

        Args:
            ids: Their ids.

        Returns:
            The number of items removed.

        Raises:
            UsageError: If an id is not in the index; nothing is removed then.
        """
        places = []
        for one in dict.fromkeys(ids):
            found = self._connection.execute("SELECT _place FROM items WHERE id = ?", (to_sql(one),)).fetchone()
            if found is None:
                raise UnknownItemError(printable(self.path), one, "; nothing was removed")
            places.append(found[0])
        if places:
            self.begin()
            self._connection.executemany("DELETE FROM items WHERE _place = ?", ((place,) for place in places))
            self._delete_places(places)
        return len(places)

    def set_metadata(self, table: MetadataTable) -> list[str]:
        """Set metadata columns of items; other columns and other items keep theirs.

        Returns:
            The ids that are not in the index.

        Raises:
            UsageError: If a column has a name that the index uses.
        """
        self.begin()
        known = {str(row[1]).lower(): str(row[1]) for row in self._connection.execute("PRAGMA table_info(items)")}
        check_columns(list(table.columns), len(known))
        for name, affinity in table.columns.items():
            if name.lower() not in known:
                known[name.lower()] = name
                self._connection.execute(f"ALTER TABLE items ADD COLUMN {_quoted(name)} {affinity}")
        if not table.columns:
            return [one for one in table.rows if self.find(one) is None]
        change = ", ".join(f"{_quoted(known[name.lower()])} = ?" for name in table.columns)
        missing = []
        for one, values in table.rows.items():
            done = self._connection.execute(f"UPDATE items SET {change} WHERE id = ?", (*values, to_sql(one)))
            if not done.rowcount:
                missing.append(one)
        return missing

    def compact(self) -> bool:
        """Write all codes into one segment without deleted rows, in the same order.

        Returns:
            Whether there was anything to do.
        """
        listed = self._listed()
        if not listed or (len(listed) == 1 and listed[0][3] is None):
            return False
        self._rewrite(listed)
        self._compacted = True
        return True

    def merge_last(self) -> None:
        """Write the last segments into one: as many as have at most twice the rows of all after them.

        Called whenever there are many segments, it writes each row a number of times that grows with the logarithm of
        the number of items.
        """
        listed = self._listed()
        last, rows = len(listed) - 1, listed[-1][1] if listed else 0
        while last > 0 and listed[last - 1][1] <= 2 * rows:
            last -= 1
            rows += listed[last][1]
        if last < len(listed) - 1:
            self._rewrite(listed[last:])

    def _listed(self) -> list[tuple[int, int, str, bytes | None]]:
        """Number, rows, files and deleted rows of each segment, in order."""
        return self._connection.execute("SELECT number, rows, arrays, deleted FROM segments ORDER BY number").fetchall()

    def _rewrite(self, listed: Sequence[tuple[int, int, str, bytes | None]]) -> None:
        """Write segments, the last ones, into one without deleted rows."""
        self.begin()
        counts = {number: rows for number, rows, _, _ in listed}
        alive = {number: np.flatnonzero(~deleted_rows(mask, rows)) for number, rows, _, mask in listed}
        names = {number: json.loads(arrays) for number, _, arrays, _ in listed}

        def blocks(name: str) -> Iterator[Array]:
            for number, rows in alive.items():
                shape = form(self._specs[name], counts[number])
                array = index_segments.read(self.path / SEGMENTS, names[number][name], *shape)
                for start in range(0, len(rows), CHUNK_ROWS):
                    yield array[rows[start : start + CHUNK_ROWS]]

        try:
            target = self._add_segment(
                sum(map(len, alive.values())), {name: partial(blocks, name) for name in self._specs}
            )
        except FileNotFoundError as error:
            raise EnvironmentFailure(f"the codes {error.filename} are missing; restore them from a copy") from error
        self._connection.executemany("UPDATE items SET _place = ? WHERE _place = ?", _moved(alive, target << ROW_BITS))
        self._connection.executemany("DELETE FROM segments WHERE number = ?", ((number,) for number in alive))


def check_columns(names: Sequence[str], known: int = 0) -> None:
    """Raise UsageError for a name that cannot be that of a metadata column, or for too many of them."""
    for name in names:
        if name.lower() in COLUMNS:
            raise UsageError(f"the metadata column {name!r} has a name that the index uses; rename it")
        if not name or "\0" in name or known + len(names) > MOST_COLUMNS:
            raise UsageError(
                f"the metadata column {name!r} has no name, or is one of more than {MOST_COLUMNS}; leave it out"
            )


def _moved(alive: Mapping[int, NDArray[np.int64]], first: int) -> Iterator[tuple[int, int]]:
    """The new place and the former one of each row, in order."""
    new = first
    for number, rows in alive.items():
        for row in rows.tolist():
            yield new, (number << ROW_BITS) + row
            new += 1


def _blocks(array: Array) -> Iterator[Array]:
    return (array[start : start + CHUNK_ROWS] for start in range(0, len(array), CHUNK_ROWS))


def _text(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
