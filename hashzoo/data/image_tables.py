"""Images in tables of Parquet, Arrow and Lance: their bytes, or paths of image files. Few rows are in memory at a time.

A table is read block by block: row groups of Parquet, record batches of Arrow, runs of rows of Lance.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.data.stored_images import StoredImage, sampled_digest
from hashzoo.data.vector_files import import_package
from hashzoo.errors import EnvironmentFailure, UsageError, first_line, printable

BATCH = 64  # rows read at a time
SIZE = 1 << 20  # bytes of a column of Parquet that are read at a time
MARK = b"ARROW1"  # at both ends of an Arrow file with a table of contents
#: Names of columns that are taken if several can hold images.
NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content", "data")
PATHS = ("path", "file_name", "filename", "image_path", "file", "image", "img")


@dataclass(frozen=True)
class Table(ABC):
    """A table of N rows in blocks.

    Attributes:
        file: The file, or the folder of a table of several files.
        blocks: The rows of each block.
        column: The column of the images.
        ids: The column of ids; empty if rows are named by their numbers.
    """

    file: Path
    blocks: Sequence[int]
    column: str = ""
    ids: str = ""

    @abstractmethod
    def schema(self) -> Any:
        """The columns, a schema of Arrow."""

    @abstractmethod
    def read(self, block: int, columns: Sequence[str]) -> Iterator[Any]:
        """Batches of Arrow with some columns, which together are the rows of a block."""

    def digest(self) -> str:
        """Of the size of the file, its first and last MiB, and the columns that are read."""
        return hashlib.sha256(f"{sampled_digest(self.file)} {self.column} {self.ids}".encode()).hexdigest()

    @property
    def has_ids(self) -> bool:
        """Whether rows are named by ids."""
        return bool(self.ids)

    def __len__(self) -> int:
        return sum(self.blocks)

    def all_ids(self) -> Iterator[str]:
        """The id of each row. Raises UsageError for one that is missing."""
        row = 0
        with damage(self.file):
            for block in range(len(self.blocks)):
                for batch in self.read(block, [self.ids]):
                    for one in batch.column(0).to_pylist():
                        if one is None or one == "":
                            where = f"row {row} of {printable(self.file)}"
                            raise UsageError(f"{where} has no id in {self.ids}; give one, or leave out --ids")
                        yield str(one)
                        row += 1

    def run(self, start: int, stop: int) -> TableRun:
        """The images from ``start`` to ``stop``."""
        return TableRun(self, start, stop)


@dataclass(frozen=True)
class TableRun:
    """Some images of a table, in order."""

    table: Table
    start: int
    stop: int

    def __iter__(self) -> Iterator[tuple[str, StoredImage | Path]]:
        table, row = self.table, 0
        shown, folder = printable(table.file), table.file.parent
        columns = [table.column, *([table.ids] if table.ids else [])]
        with damage(table.file):
            for block, count in enumerate(table.blocks):
                if row + count <= self.start or row >= self.stop:
                    row += count
                    continue
                for batch in table.read(block, columns):
                    for number in range(max(self.start, row), min(self.stop, row + len(batch))):
                        values = [batch.column(column)[number - row].as_py() for column in columns]
                        yield str(values[-1] if table.ids else number), _image(values[0], f"{shown}/{number}", folder)
                    row += len(batch)


def check_ids(tables: Sequence[Table]) -> None:
    """Raise UsageError for an id that two rows of some tables have. It takes 8 bytes of memory for each row."""
    rows = sum(map(len, tables))
    hashes = np.fromiter((hash(one) for table in tables for one in table.all_ids()), np.int64, rows)
    values, counts = np.unique(hashes, return_counts=True)
    if not (repeated := set(values[counts > 1].tolist())):
        return
    seen: dict[str, Path] = {}
    for table in tables:
        for one in table.all_ids():
            if hash(one) in repeated:
                if one in seen:
                    other = "" if seen[one] == table.file else f" and of {printable(seen[one])}"
                    raise UsageError(
                        f"the id {printable(one)} is that of two rows, of {printable(table.file)}{other}; give each "
                        "row its own, or leave out --ids"
                    )
                seen[one] = table.file


def _image(value: Any, name: str, folder: Path) -> StoredImage | Path:
    """An image from a value of a table: bytes, a path, or both as Hugging Face stores them."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    return folder / value if isinstance(value, str) else StoredImage(name, value)


class ParquetTable(Table):
    """A Parquet file."""

    def schema(self) -> Any:
        """The columns."""
        return self._open().schema_arrow

    def read(self, block: int, columns: Sequence[str]) -> Iterator[Any]:
        """Columns of a row group."""
        yield from self._open().iter_batches(BATCH, [block], columns)

    def _open(self) -> Any:
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(self.file, buffer_size=SIZE, pre_buffer=False)


@dataclass(frozen=True)
class ArrowTable(Table):
    """Arrow files, which are streams or have a table of contents: one file, or those of a saved dataset.

    Attributes:
        places: Of each block the file and the position of its message.
    """

    places: Sequence[tuple[Path, int]] = ()

    def schema(self) -> Any:
        """The columns."""
        return _arrow_schema(self.places[0][0])

    def read(self, block: int, columns: Sequence[str]) -> Iterator[Any]:
        """Columns of a record batch, which is in memory as a whole."""
        import pyarrow.ipc

        file, start = self.places[block]
        with pyarrow.OSFile(str(file), "rb") as source:
            source.seek(start)
            message = pyarrow.ipc.read_message(source)
            yield pyarrow.ipc.read_record_batch(message, _arrow_schema(file)).select(columns)

    def digest(self) -> str:
        """Of each file."""
        files = sorted({file for file, _ in self.places})
        digests = [self.column, self.ids, *map(sampled_digest, files)]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()


class LanceTable(Table):
    """A table of LanceDB, a folder whose name ends in .lance."""

    def schema(self) -> Any:
        """The columns."""
        return self._open().schema

    def read(self, block: int, columns: Sequence[str]) -> Iterator[Any]:
        """Columns of some rows."""
        rows = list(range(block * BATCH, block * BATCH + self.blocks[block]))
        yield from self._open().take_offsets(rows).select(columns).to_arrow().to_batches()

    def digest(self) -> str:
        """Of the version of the table, its rows, and the columns that are read."""
        return f"{self._open().version} {len(self)} {self.column} {self.ids}"

    def _open(self) -> Any:
        return open_lance(self.file)


def open_lance(folder: Path) -> Any:
    """A table of LanceDB by its folder."""
    lancedb = import_package(folder, "lancedb", "lancedb")
    return lancedb.connect(str(folder.parent)).open_table(folder.stem)


def open_table(file: Path, column: str = "", ids: str = "") -> Table:
    """Open a table; arguments and errors as of :func:`hashzoo.data.image_containers.open_container`."""
    import_package(file, "pyarrow", "parquet")
    with damage(file):
        table = _open(file)
        schema = table.schema()
    if ids and ids not in schema.names:
        raise UsageError(f"{printable(file)} has no column {ids!r} for ids; it has {', '.join(schema.names)}")
    if ids and not _names_rows(schema.field(ids).type):
        raise UsageError(f"the column {ids} of {printable(file)} is {schema.field(ids).type}; ids are text or integers")
    return replace(table, column=_column(schema, file, column), ids=ids)


def _names_rows(kind: Any) -> bool:
    from pyarrow import types

    return _kind(kind) == "path" or bool(types.is_integer(kind))


def _open(file: Path) -> Table:
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet

        found = pyarrow.parquet.ParquetFile(file).metadata
        return ParquetTable(file, [found.row_group(block).num_rows for block in range(found.num_row_groups)])
    if suffix == ".lance":
        count = open_lance(file).count_rows()
        return LanceTable(file, [min(BATCH, count - start) for start in range(0, count, BATCH)])
    files = [file]
    if file.is_dir():
        files = [file / str(one["filename"]) for one in json.loads((file / "state.json").read_text())["_data_files"]]
    places, blocks = list[tuple[Path, int]](), list[int]()
    for one in files:
        for start, count in _arrow_blocks(one):
            places.append((one, start))
            blocks.append(count)
    if not places:
        raise UsageError(f"{printable(file)} has no rows; name another file")
    return ArrowTable(file, blocks, places=places)


def _arrow_start(source: Any) -> None:
    """Go to the first message of an Arrow file, after the mark of one that has a table of contents, and ends in it."""
    marked = source.read(8)[:6] == MARK
    if marked:
        source.seek(max(0, source.size() - len(MARK)))
        if source.read(len(MARK)) != MARK:
            raise EOFError("it is cut at its end")
    source.seek(8 if marked else 0)


def _arrow_schema(file: Path) -> Any:
    import pyarrow.ipc

    with pyarrow.OSFile(str(file), "rb") as source:
        _arrow_start(source)
        return pyarrow.ipc.read_schema(source)


def _arrow_blocks(file: Path) -> Iterator[tuple[int, int]]:
    """The position and the rows of each record batch. The file is read once, a batch at a time."""
    import pyarrow.ipc

    with pyarrow.OSFile(str(file), "rb") as source:
        _arrow_start(source)
        schema = pyarrow.ipc.read_schema(source)
        while True:
            start = source.tell()
            try:
                message = pyarrow.ipc.read_message(source)
            except EOFError:
                return
            if message.type == "record batch":
                yield start, pyarrow.ipc.read_record_batch(message, schema).num_rows


@contextmanager
def damage(file: Path) -> Iterator[None]:
    """Turn the errors of readers into EnvironmentFailure."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, EOFError, KeyError, ValueError) as error:
        raise EnvironmentFailure(f"{printable(file)} cannot be read ({first_line(error)}); write it again") from error


def _column(schema: Any, file: Path, column: str) -> str:
    """The column of the images. Raises UsageError if it cannot be told or holds other values."""
    shown, known = printable(file), list[str](schema.names)
    kinds: dict[str, str] = {field.name: _kind(field.type) for field in schema}
    if column:
        if column not in known:
            raise UsageError(f"{shown} has no column {column!r}; it has {', '.join(known)}")
        if not kinds[column]:
            kind = schema.field(column).type
            raise UsageError(f"the column {column} of {shown} is {kind}, and images are bytes or paths")
        return column
    stored: list[str] = [name for name, kind in kinds.items() if kind == "bytes"]
    if len(stored) == 1:
        return stored[0]
    paths = [name for name, kind in kinds.items() if kind == "path"]
    for names, columns in ((NAMES, stored), (PATHS, paths if not stored else ())):
        if found := next((name for name in names if name in columns), None):
            return found
    raise UsageError(f"no column of {shown} is known to have images; name one with --column: {', '.join(known)}")


def _kind(kind: Any) -> str:
    """What a type of Arrow can hold of an image: its "bytes", its "path", or nothing."""
    from pyarrow import types

    if types.is_struct(kind):
        fields = {field.name: _kind(field.type) for field in kind}
        return "bytes" if fields.get("bytes") == "bytes" else ""
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return "bytes"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "path"
    return ""
