"""Export of codes as an Arrow table in a Parquet file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.errors import EnvironmentFailure
from hashzoo.export import manifest
from hashzoo.retrieval.code_file import StoredCodes
from hashzoo.retrieval.vector_index import VectorCopy
from hashzoo.storage.files import replace_bytes


def import_pyarrow(extra: str = "parquet") -> Any:
    """The pyarrow module. Raises EnvironmentFailure that names the extra if it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise EnvironmentFailure(f"this needs pyarrow; pip install 'hashzoo[{extra}]'") from None
    return pyarrow


def build_table(pyarrow: Any, stored: StoredCodes, copy: VectorCopy | None = None, *, bytes_as_lists: bool) -> Any:
    """An Arrow table with the columns ``row``, ``path`` (of images), one per code, and ``vector``, float32.

    Args:
        pyarrow: The pyarrow module.
        stored: The codes. A code that is not binary becomes a list of numbers.
        copy: The vectors; None leaves out the column ``vector``.
        bytes_as_lists: Write a binary code as a list of uint8 instead of bytes of fixed length.
    """
    columns: dict[str, Any] = {"row": pyarrow.array(np.arange(len(stored), dtype=np.int64))}
    if not stored.of_vectors:
        columns["path"] = pyarrow.array([manifest.utf8_path(path) for path in stored.paths], pyarrow.string())
    for name, spec in stored.metadata["codes"].items():
        array = np.ascontiguousarray(stored.array(name)).reshape(len(stored), -1)
        if "bits" in spec and not bytes_as_lists:
            kind = pyarrow.binary(array.shape[1])
            columns[name] = pyarrow.Array.from_buffers(kind, len(stored), [None, pyarrow.py_buffer(array)])
        else:
            columns[name] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(array.ravel()), array.shape[1])
    if copy is not None:
        values = copy.read(np.arange(len(stored)))
        columns["vector"] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.ravel()), values.shape[1])
    return pyarrow.table(columns)


def export(stored: StoredCodes, output: Path, copy: VectorCopy | None = None) -> list[Path]:
    """Write a Parquet file and its manifest. The metadata of the file holds the manifest's description of the codes.

    Args:
        stored: The codes.
        output: The file.
        copy: The vectors, for a column ``vector``.

    Returns:
        The files written.

    Raises:
        EnvironmentFailure: If pyarrow is not installed.
    """
    pyarrow = import_pyarrow()
    table = build_table(pyarrow, stored, copy, bytes_as_lists=False)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table.replace_schema_metadata({"hashzoo": json.dumps(stored.metadata)}), buffer)
    data, digests = buffer.getvalue(), manifest.code_digests(stored)
    replace_bytes(output, data)
    manifest_file = manifest.manifest_path(output)
    manifest.write(manifest_file, "parquet", stored.metadata, {output.name: data}, codes_sha256=digests)
    return [output, manifest_file]
