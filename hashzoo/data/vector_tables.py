"""Vectors in list columns of Parquet and Arrow files, read with pyarrow. The column is held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.data.vectors import ArrayMatrix
from hashzoo.errors import EnvironmentFailure, UsageError, first_line, printable

#: Chooses the column: path, key, names that are looked for, all columns, and those that can hold vectors.
Choose = Callable[[Path, str, Sequence[str], Sequence[str], Sequence[str]], str]


def parquet_matrix(path: Path, key: str, names: Sequence[str], choose: Choose) -> ArrayMatrix:
    """The vectors in a list column of a Parquet file."""
    import pyarrow.parquet

    with _damage(path):
        file = pyarrow.parquet.ParquetFile(path)
        column = _column(file.schema_arrow, path, key, names, choose)
        parts = (batch.column(0) for batch in file.iter_batches(columns=[column]))
        return _matrix(parts, f"{column} of {printable(path)}")


def arrow_matrix(files: Sequence[Path], path: Path, key: str, names: Sequence[str], choose: Choose) -> ArrayMatrix:
    """The vectors in a list column of Arrow files, which are streams or have a table of contents."""
    with _damage(path):
        readers = [_open(file) for file in files]
        if not readers:
            raise UsageError(f"{printable(path)} has no files of data; save the dataset again")
        column = _column(readers[0].schema, path, key, names, choose)
        parts = (chunk for reader in readers for chunk in reader.read_all().column(column).chunks)
        return _matrix(parts, f"{column} of {printable(path)}")


def _open(file: Path) -> Any:
    import pyarrow.ipc

    with file.open("rb") as stream:
        head = stream.read(6)
    source = pyarrow.OSFile(str(file), "rb")
    return pyarrow.ipc.open_file(source) if head == b"ARROW1" else pyarrow.ipc.open_stream(source)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, EOFError) as error:
        raise EnvironmentFailure(f"{printable(path)} cannot be read ({first_line(error)}); write it again") from error


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(lists and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)))


def _column(schema: Any, path: Path, key: str, names: Sequence[str], choose: Choose) -> str:
    lists = [field.name for field in schema if _is_list(field.type)]
    column = choose(path, key, [name for name in names if name in lists], schema.names, lists)
    if column not in lists:
        kind = schema.field(column).type
        raise UsageError(f"the column {column} of {printable(path)} is {kind}, and vectors are lists of numbers")
    return column


def _matrix(parts: Iterable[Any], name: str) -> ArrayMatrix:
    """The rows of list arrays as one matrix. UsageError, with the row, for a missing, empty or longer one."""
    from pyarrow import types

    rows: list[NDArray[Any]] = []
    done, dim = 0, 0
    for part in parts:
        if not len(part):
            continue
        if part.null_count:
            row = done + int(np.flatnonzero(np.asarray(part.is_null()))[0])
            raise UsageError(f"row {row} of {name} is missing; remove it or give its vector")
        lengths = np.asarray(part.value_lengths()) if not types.is_fixed_size_list(part.type) else None
        dim = dim or (part.type.list_size if lengths is None else int(lengths[0]))
        if lengths is not None and (other := np.flatnonzero(lengths != dim)).size:
            raise UsageError(
                f"row {done + int(other[0])} of {name} has {int(lengths[other[0]])} numbers, and row 0 has {dim}; "
                "give all rows the same number"
            )
        values = part.flatten()
        if values.null_count:
            row = done + int(np.flatnonzero(np.asarray(values.is_null()))[0]) // dim
            raise UsageError(f"row {row} of {name} has a missing number; remove the row or give the number")
        rows.append(values.to_numpy(zero_copy_only=False).reshape(-1, dim) if dim else np.zeros((len(part), 0)))
        done += len(part)
    array = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
    return ArrayMatrix(array.astype(np.float32) if array.dtype.kind in "iu" and array.itemsize > 4 else array, name)
