"""Index folders: searchable images that are added, changed and removed while others search them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, final

import numpy as np

from hashzoo.errors import EnvironmentFailure, UsageError, printable
from hashzoo.retrieval import code_file, index_segments, index_transaction
from hashzoo.retrieval.code_file import StoredCodes
from hashzoo.retrieval.index_snapshot import (
    DATABASE,
    SEGMENTS,
    Snapshot,
    check_folder,
    deleted_rows,
    from_sql,
    is_folder,
)
from hashzoo.retrieval.index_transaction import creating, new_folder
from hashzoo.retrieval.index_writer import COLUMNS, IndexWriter, Item, MetadataTable

AT_ONCE = 1 << 20  # items copied at a time


@final
class IndexFolder:
    """An index in a folder, which can be changed.

    Readers see the state that was the last one when they opened it; one process at a time changes the index, and all
    its changes take effect in one step.

    Args:
        path: A folder that ``hashzoo index build --folder``, ``convert`` or ``merge`` wrote.

    Raises:
        UsageError: If there is no such index.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        check_folder(self.path)

    @classmethod
    def create(cls, path: str | os.PathLike[str], metadata: Mapping[str, Any]) -> IndexFolder:
        """Create an empty index.

        Args:
            path: The folder, which does not exist.
            metadata: What ``Encoder.describe`` returns, with ``root``, the folder that ids are relative to; ``codes``,
                as in an index file; and ``ranks_by``, the name of the code whose Hamming distance ranks, or an empty
                text.

        Returns:
            The index.

        Raises:
            UsageError: If the path exists.
            EnvironmentFailure: If the disk fails.
        """
        with new_folder(Path(path)), creating(Path(path), metadata):
            pass
        return cls(path)

    def snapshot(self, where: str = "") -> Snapshot:
        """Open the last state for reading.

        Args:
            where: A condition on metadata columns in SQL, such as ``"year > 2020"``; only items that meet it are in the
                snapshot.

        Returns:
            The state, to be closed or used as a context manager. Neither torch nor the method is loaded.

        Raises:
            UsageError: If the condition is not one expression of the columns.
            EnvironmentFailure: If a file is damaged.
        """
        return Snapshot(self.path, where)

    def writing(self, wait: float = 0.0) -> AbstractContextManager[IndexWriter]:
        """Change the index: ``with folder.writing() as writer: writer.remove(["a.jpg"])``.

        Args:
            wait: Seconds to wait for a process that is changing it.

        Returns:
            A context manager of a writer with the methods ``put``, ``remove``, ``set_metadata`` and ``compact``. The
            changes take effect when the block ends, or none if it raises.

        Raises:
            EnvironmentFailure: If another process is changing the index, or the disk fails.
        """
        return index_transaction.writing(self.path, wait)

    def info(self, verify: bool = True) -> dict[str, Any]:
        """Describe the index.

        Args:
            verify: Check every file and the database.

        Returns:
            Values of JSON by name, which are ``images``, ``deleted`` (rows that ``compact`` frees), ``segments``,
            ``bytes``, ``state``, ``root``, ``columns`` and the description of the method.

        Raises:
            EnvironmentFailure: If something is damaged; the message names it.
        """
        with self.snapshot() as state:
            listed = state.select("SELECT number, rows, arrays, deleted FROM segments ORDER BY number")
            columns = [str(row[1]) for row in state.select("PRAGMA table_info(items)")]
            if verify:
                _verify(state, listed)
            metadata = state.metadata
            names = {digest for _, _, arrays, _ in listed for digest in json.loads(arrays).values()}
            files = [index_segments.file_of(self.path / SEGMENTS, name) for name in names]
            return {
                "images": len(state),
                "deleted": sum(int(deleted_rows(mask, rows).sum()) for _, rows, _, mask in listed),
                "segments": len(listed),
                "bytes": sum(file.stat().st_size for file in [*files, self.path / DATABASE]),
                "state": state.state,
                "root": metadata["root"],
                "columns": [name for name in columns if name not in COLUMNS],
                **{
                    name: metadata[name]
                    for name in ("method", "bits", "backbone", "dataset", "codes", "run", "made_with")
                },
            }


def _verify(state: Snapshot, listed: Sequence[Any]) -> None:
    """Raise EnvironmentFailure unless the database is sound, and has one item for each row that is not deleted.

    The digests of the codes were checked when the state was opened.
    """
    file = state.path / DATABASE
    problems = [str(row[0]) for row in state.select("PRAGMA quick_check(1)") if row[0] != "ok"]
    places = np.fromiter((row[0] for row in state.select("SELECT _place FROM items ORDER BY _place")), np.int64)
    if not problems and not np.array_equal(places, state.places):
        problems = ["its items do not match its segments"]
    if problems:
        raise EnvironmentFailure(f"{file} is damaged ({problems[0]}); restore it from a copy, or build the index again")


def read_codes(path: Path, where: str = "") -> StoredCodes:
    """The codes of an index file, of a file of codes, or of the last state of an index folder."""
    if is_folder(path):
        return Snapshot(path, where).stored()
    if path.is_dir():
        raise UsageError(
            f"{printable(path)} is a folder without an index; create one with hashzoo index build --folder"
        )
    if where:
        check_folder(path)
    return code_file.read(path)


def convert(stored: StoredCodes, path: Path, ranks_by: str) -> IndexFolder:
    """Write the codes of an index file as an index folder.

    The digests of the images are not known, so the first update encodes each of them again.

    Args:
        stored: The codes of images.
        path: The folder, which does not exist.
        ranks_by: The name of the code by whose Hamming distance the method ranks; empty if it ranks otherwise.

    Returns:
        The index.
    """
    if stored.of_vectors:
        raise UsageError("an index folder holds images, and these are codes of vectors; keep the file")
    metadata = {
        name: value for name, value in stored.metadata.items() if name not in ("count", "pictures", "passed_over")
    }
    arrays = {name: array for name, array in stored.arrays.items() if not name.startswith("ivf.")}
    with new_folder(path), creating(path, {**metadata, "ranks_by": ranks_by}) as writer:
        for start in range(0, len(stored), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            writer.put([Item(name) for name in stored.paths[rows]], {name: one[rows] for name, one in arrays.items()})
    return IndexFolder(path)


def merge(first: IndexFolder, second: IndexFolder, path: Path) -> IndexFolder:
    """Write the images of two indexes of the same method as one.

    An image that both hold with the same content is kept once. The result has the root of the first index; the files of
    the second one are stored as absolute paths if its root is another one.

    Args:
        first: An index.
        second: Another one.
        path: The new folder, which does not exist.

    Returns:
        The new index.

    Raises:
        UsageError: If the indexes have different methods, or both have an id with different contents.
    """
    with first.snapshot() as a, second.snapshot() as b:
        for name in ("key", "state"):
            if a.metadata["run"][name] != b.metadata["run"][name] or a.metadata["codes"] != b.metadata["codes"]:
                raise UsageError(
                    f"{printable(first.path)} and {printable(second.path)} were built with different methods, so their "
                    "codes cannot be compared; build one of them again with the method of the other"
                )
        with new_folder(path), creating(path, _detached(a, path)) as writer:
            _copy(a, writer)
            _copy(b, writer)
    return IndexFolder(path)


def _detached(state: Snapshot, path: Path) -> dict[str, Any]:
    """The description of an encoder for another folder: a hash that lies in the folder is copied."""
    metadata, cell = state.metadata, Path(state.metadata["run"]["cell"])
    if cell.parent != state.path.absolute():
        return metadata
    path.mkdir(parents=True, exist_ok=True)
    for file in (cell, cell.with_suffix(".safetensors")):
        shutil.copy2(file, path / file.name)
    return {**metadata, "run": {**metadata["run"], "cell": cell.name}}


def _copy(state: Snapshot, writer: IndexWriter) -> None:
    """Add the items of a state, with their metadata, unless the index has them."""
    columns = {str(row[1]): str(row[2]) for row in state.select("PRAGMA table_info(items)")}
    own = {name: affinity for name, affinity in columns.items() if name not in COLUMNS}
    root = Path(state.metadata["root"])
    moved, arrays = str(root) != writer.metadata["root"], state.stored().arrays
    for start in range(0, len(state), AT_ONCE):
        places = state.places[start : start + AT_ONCE]
        span = (int(places[0]), int(places[-1]))
        rows, items, values = list[int](), list[Item](), dict[str, Any]()
        for row, one in enumerate(
            state.select("SELECT * FROM items WHERE _place BETWEEN ? AND ? ORDER BY _place", span)
        ):
            known = dict(zip(columns, one, strict=True))
            name, file = from_sql(known["id"]), None if known["_file"] is None else from_sql(known["_file"])
            if (there := writer.find(name)) is None:
                rows.append(start + row)
                file = str(root / (file or name)) if moved else file
                items.append(Item(name, file, known["_digest"], known["_bytes"], known["_modified"]))
                values[name] = [known[column] for column in own]
            elif there.digest is None or there.digest != known["_digest"]:
                raise UsageError(
                    f"both indexes have an image {printable(name)}, with different contents; remove it from one of them"
                )
        writer.put(items, {name: array[rows] for name, array in arrays.items()})
        writer.set_metadata(MetadataTable(own, values))
