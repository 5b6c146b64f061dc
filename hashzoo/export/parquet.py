"""Export of codes as an Arrow table in a Parquet file."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.errors import EnvironmentFailure
from hashzoo.export import manifest
from hashzoo.retrieval.code_file import CodeParts, StoredCodes
from hashzoo.retrieval.vector_index import VectorCopy
from hashzoo.storage.files import replace_file


def import_pyarrow(extra: str = "parquet") -> Any:
    """The pyarrow module. Raises EnvironmentFailure that names the extra if it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise EnvironmentFailure(f"this needs pyarrow; pip install 'hashzoo[{extra}]'") from None
    return pyarrow


def build_table(
    pyarrow: Any, stored: StoredCodes, copy: VectorCopy | None = None, start: int = 0, *, bytes_as_lists: bool
) -> Any:
    """An Arrow table with the columns ``row``, ``path`` (of images), ``id`` (of an index folder), codes and ``vector``.

    Args:
        pyarrow: The pyarrow module.
        stored: The codes. A code that is not binary becomes a list of numbers.
        copy: The vectors; None leaves out the column ``vector``.
        start: The row of the first item.
        bytes_as_lists: Write a binary code as a list of uint8 instead of bytes of fixed length.
    """
    rows = np.arange(start, start + len(stored), dtype=np.int64)
    columns: dict[str, Any] = {"row": pyarrow.array(rows)}
    if not stored.of_vectors:
        columns["path"] = pyarrow.array([manifest.utf8_path(path) for path in stored.paths], pyarrow.string())
    if stored.ids is not None:
        columns["id"] = pyarrow.array([manifest.utf8_path(one) for one in stored.ids], pyarrow.string())
    for name, spec in stored.metadata["codes"].items():
        array = np.ascontiguousarray(stored.array(name)).reshape(len(stored), -1)
        if "bits" in spec and not bytes_as_lists:
            kind = pyarrow.binary(array.shape[1])
            columns[name] = pyarrow.Array.from_buffers(kind, len(stored), [None, pyarrow.py_buffer(array)])
        else:
            columns[name] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(array.ravel()), array.shape[1])
    if copy is not None:
        values = copy.read(rows)
        columns["vector"] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.ravel()), values.shape[1])
    return pyarrow.table(columns)


def export(codes: CodeParts, output: Path, copy: VectorCopy | None = None) -> list[Path]:
    """Write a Parquet file and its manifest. The metadata of the file holds the manifest's description of the codes.

    Args:
        codes: The codes.
        output: The file.
        copy: The vectors, for a column ``vector``.

    Returns:
        The files written.

    Raises:
        EnvironmentFailure: If pyarrow is not installed.
    """
    pyarrow = import_pyarrow()
    parts, description = manifest.DigestedParts(codes), {"hashzoo": json.dumps(codes.metadata)}
    with replace_file(output) as file, ExitStack() as stack:
        writer = None
        for start, part in parts:
            table = build_table(pyarrow, part, copy, start, bytes_as_lists=False).replace_schema_metadata(description)
            if writer is None:
                writer = stack.enter_context(pyarrow.parquet.ParquetWriter(file, table.schema))
            writer.write_table(table)
    manifest_file = manifest.manifest_path(output)
    manifest.write(manifest_file, "parquet", codes.metadata, [output], codes_sha256=parts.digests())
    return [output, manifest_file]
