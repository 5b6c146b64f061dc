"""One state of an index folder, as it was when it was opened, whatever writers do since.

The folder holds:

- ``index.sqlite``: the ids of the images with their metadata, the list of segments, and what encodes queries.
- ``segments/DIGEST.npy``: the codes of a segment; see ``index_segments.py``.
- ``encoder.json``, ``encoder.safetensors``: the hash, if it was learned from the images of the index.
- ``writer.lock``: held by the process that changes the index.

The transaction of SQLite is the only step that changes a state: it refers to files that were complete before it, and
files that it no longer refers to are deleted after it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import EnvironmentFailure, UnknownItemError, UsageError, printable
from hashzoo.hamming.multi_index import RadiusSearch
from hashzoo.retrieval import index_segments
from hashzoo.retrieval.code_file import StoredCodes, array_name
from hashzoo.retrieval.hit import Hit
from hashzoo.storage.database import database_errors, open_readable, select_where
from hashzoo.storage.schema import refuse_newer

DATABASE, SEGMENTS, LOCK, ENCODER = "index.sqlite", "segments", "writer.lock", "encoder.json"
SCHEMA = 1
ROW_BITS = 32  # a place is segment << ROW_BITS | row
ATTEMPTS, PAUSE = 20, 0.05  # to open a state before a writer deletes its files, and seconds between two
NAMES_AT_ONCE = 4096
ID, FILE = "id", "coalesce(_file, id)"  # expressions of SQL


def is_folder(path: Path) -> bool:
    """Whether a path is that of an index folder."""
    return (path / DATABASE).is_file()


def check_folder(path: Path) -> None:
    """Raise UsageError if a path is not that of an index folder."""
    if is_folder(path):
        return
    if path.is_file():
        raise UsageError(
            f"{printable(path)} is a file, not an index folder; hashzoo index convert {printable(path)} NEW makes one"
        )
    raise UsageError(f"there is no index folder {printable(path)}; create it with hashzoo index build --folder")


def to_sql(text: str) -> str | bytes:
    """An id as SQLite stores it: bytes if it is a path whose bytes are not UTF-8.

    >>> to_sql("a.jpg"), to_sql("caf\\udce9")
    ('a.jpg', b'caf\\xe9')
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")
    return text


def from_sql(value: str | bytes) -> str:
    """The id of a value that :func:`to_sql` returned."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def absolute_cell(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """The description of an encoder, with the path of a cell inside the folder made absolute."""
    run = metadata["run"]
    return {**metadata, "run": {**run, "cell": str(path.absolute() / run["cell"])}}


def read_about(connection: sqlite3.Connection, path: Path) -> tuple[dict[str, Any], int]:
    """The description of what encodes queries, and the number of the state.

    Raises:
        UsageError: If the folder holds no index: a build was interrupted.
        EnvironmentFailure: If a newer hashzoo wrote it.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
        raise UsageError(f"{printable(path)} holds no complete index; build it again")
    about = dict(connection.execute("SELECT name, value FROM about"))
    refuse_newer(path, about["schema"], SCHEMA, "build the index again")
    return absolute_cell(path, json.loads(about["metadata"])), int(about["state"])


def deleted_rows(mask: bytes | None, rows: int) -> NDArray[np.bool_]:
    """Which rows of a segment are deleted."""
    if mask is None:
        return np.zeros(rows, bool)
    return np.unpackbits(np.frombuffer(mask, np.uint8), count=rows).astype(bool)


def form(spec: Mapping[str, Any], rows: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and the type of the array of a code.

    >>> form({"bits": 12, "bytes": 2}, 5)
    ((5, 2), dtype('uint8'))
    """
    if "bits" in spec:
        return (rows, spec["bytes"]), np.dtype(np.uint8)
    return (rows, *spec["shape"]), np.dtype(spec["type"])


class ItemNames(Sequence[str]):
    """The ids or the files of the items of a snapshot, read from the database when they are used."""

    def __init__(self, snapshot: Snapshot, column: str) -> None:
        self._snapshot, self._column = snapshot, column

    def __len__(self) -> int:
        return len(self._snapshot)

    def __getitem__(self, row: Any) -> Any:
        places = self._snapshot.places[row]
        if isinstance(row, slice):
            return list(self._of(places))
        (found,) = self._of(np.array([places]))
        return found

    def __iter__(self) -> Iterator[str]:
        return self._of(self._snapshot.places)

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """The row of a name. Raises ValueError if there is none."""
        query = f"SELECT _place FROM items WHERE {self._column} = ?"
        found = self._snapshot.select(query, (to_sql(value),))
        row = int(np.searchsorted(self._snapshot.places, found[0][0])) if found else len(self)
        if row == len(self) or self._snapshot.places[row] != found[0][0]:
            raise ValueError(f"{value!r} is not in the index")
        return row

    def at(self, rows: Sequence[int]) -> list[str]:
        """The names in rows."""
        ordered, back = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        found = list(self._of(self._snapshot.places[ordered]))
        return [found[place] for place in back.tolist()]

    def _of(self, places: NDArray[np.int64]) -> Iterator[str]:
        query = f"SELECT _place, {self._column} FROM items WHERE _place BETWEEN ? AND ?"
        for start in range(0, len(places), NAMES_AT_ONCE):
            part = places[start : start + NAMES_AT_ONCE].tolist()
            if part[-1] - part[0] < 16 * len(part):
                found = dict(self._snapshot.select(query, (part[0], part[-1])))
            else:  # far apart, as in another segment or for a condition that few items meet
                found = dict(row for place in part for row in self._snapshot.select(query, (place, place)))
            if missing := next((place for place in part if place not in found), None):
                file = self._snapshot.path / DATABASE
                raise EnvironmentFailure(f"{file} is damaged (no item at {missing}); restore it from a copy")
            yield from (from_sql(found[place]) for place in part)


def names_at(names: Sequence[str], rows: Sequence[int]) -> list[str]:
    """The names in rows, in their order; of a snapshot, with few queries."""
    if not isinstance(names, ItemNames):
        return [names[row] for row in rows]
    return names.at(rows)


class Snapshot:
    """The items of an index folder at one moment, in the order in which they were added.

    It stays as it is while a process changes the index, until it is closed. It can be used as a context manager.

    Attributes:
        path: The folder.
        metadata: The description of what encodes queries, as JSON values.
        state: The number of changes that the index has had.
        places: (N,) int64, where the code of each item is.
    """

    def __init__(self, path: Path, where: str = "") -> None:
        check_folder(path)
        self.path, self._guard = path, threading.Lock()
        self._near: RadiusSearch | None = None
        for attempt in range(ATTEMPTS):
            try:
                with database_errors("read", path / DATABASE):
                    self._open(where)
                return
            except FileNotFoundError as error:  # a writer has replaced this state and deleted its files
                missing = error.filename
                time.sleep(PAUSE * (attempt < ATTEMPTS - 1))
        raise EnvironmentFailure(f"the codes {missing} are missing; restore them from a copy, or build the index again")

    def _open(self, where: str) -> None:
        self._connection = open_readable(self.path / DATABASE)
        weakref.finalize(self, self._connection.close)  # also if it is not closed
        try:
            self._connection.execute("BEGIN")
            self.metadata, self.state = read_about(self._connection, self.path)
            self._load(where)
        except BaseException:
            self._connection.close()
            raise

    def _load(self, where: str) -> None:
        listed = self._connection.execute("SELECT number, rows, arrays, deleted FROM segments ORDER BY number")
        segments = listed.fetchall()
        chosen = np.array(select_where(self._connection, "_place", "items", where), np.int64) if where else None
        specs = {array_name(name, spec): spec for name, spec in self.metadata["codes"].items()}
        parts: dict[str, list[Any]] = {name: [np.empty(*form(spec, 0))] for name, spec in specs.items()}
        places = [np.empty(0, np.int64)]
        for number, count, digests, mask in segments:
            first = number << ROW_BITS
            alive = ~deleted_rows(mask, count)
            if chosen is not None:
                low, high = np.searchsorted(chosen, [first, first + count])
                asked = np.zeros(count, bool)
                asked[chosen[low:high] - first] = True
                alive &= asked
            rows = np.flatnonzero(alive)
            places.append(rows + first)
            for name, digest in json.loads(digests).items():
                array = index_segments.read(self.path / SEGMENTS, digest, *form(specs[name], count))
                parts[name].append(array if len(rows) == count else array[rows])
        self.places: NDArray[np.int64] = np.concatenate(places)
        self._arrays = {
            name: arrays[-1] if len(arrays) == 2 else np.concatenate(arrays) for name, arrays in parts.items()
        }

    # made when they are read, so that no cycle of references keeps a state in memory
    @property
    def ids(self) -> Sequence[str]:
        """The id of each item."""
        return ItemNames(self, ID)

    @property
    def files(self) -> Sequence[str]:
        """The path of each item's image, relative to the root of the index, or absolute."""
        return ItemNames(self, FILE)

    def __len__(self) -> int:
        return len(self.places)

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the state: a writer can then reuse the space of the database."""
        with self._guard:
            self._connection.close()

    def select(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of a query of this state."""
        with self._guard, database_errors("read", self.path / DATABASE):
            return self._connection.execute(query, values).fetchall()

    def stored(self) -> StoredCodes:
        """The codes as those of an index file."""
        return StoredCodes({**self.metadata, "count": len(self)}, self.files, self._arrays, self.ids)

    def row(self, item: str) -> int:
        """The row of an item. Raises UsageError if there is none of that id."""
        try:
            return self.ids.index(item)
        except ValueError:
            raise UnknownItemError(printable(self.path), item, "; hashzoo index info prints its root") from None

    def searched_code(self) -> str:
        """The name of the code by whose Hamming distance the method ranks. Raises UsageError if it ranks otherwise."""
        if name := self.metadata.get("ranks_by"):
            return str(name)
        raise UsageError(
            f"{self.metadata['method']} does not rank by the Hamming distance of one code, so codes cannot be searched "
            "alone; search with images"
        )

    def search(self, codes: NDArray[np.uint8], k: int | None = 20, radius: int | None = None) -> list[list[Hit]]:
        """Find the nearest images by codes, without the method and without torch.

        Args:
            codes: (Q, B) packed codes, as :func:`hashzoo.pack` makes them.
            k: Number of images to return for each query; None returns all within the radius.
            radius: Largest number of differing bits.

        Returns:
            For each query, the hits, nearest first and equal distances in the order of rows.

        Raises:
            UsageError: If the method does not rank by the Hamming distance of one code, or the codes have another
                length.
        """
        name = self.searched_code()
        stored = self._arrays[array_name(name, self.metadata["codes"][name])]
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != stored.shape[1]:
            raise UsageError(
                f"codes of {self.path} are uint8 (Q, {stored.shape[1]}), eight bits to a byte, not {codes.dtype} "
                f"{codes.shape}"
            )
        if self._near is None:
            self._near = RadiusSearch(stored)
        return [self.hits(rows, distances) for rows, distances in self._near.within(codes, k, radius)]

    def hits(self, rows: NDArray[np.int64], distances: NDArray[Any]) -> list[Hit]:
        """The items in rows, as hits."""
        root, places = Path(self.metadata["root"]), rows.tolist()
        found = zip(places, distances.tolist(), names_at(self.files, places), names_at(self.ids, places), strict=True)
        return [Hit(row, root / file, distance, name) for row, distance, file, name in found]
