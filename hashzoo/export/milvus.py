"""Export of codes to Milvus: Parquet files in the form of its bulk import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.export import manifest
from hashzoo.export.parquet import import_pyarrow
from hashzoo.retrieval.code_file import CodeParts, StoredCodes
from hashzoo.storage.files import new_folder, replace_file

ROWS = 1_000_000  # of a file


def export(codes: CodeParts, output: Path) -> list[Path]:
    """Write a new folder with files ``part-00000.parquet``, ... of the columns ``row``, ``path``, ``id`` (of an index
    folder) and each code.

    Codes are lists of uint8, the form of a BINARY_VECTOR. If K is not a multiple of 8, the last byte is padded with
    zero bits, which do not change distances. Other codes are FLOAT_VECTOR, lists of float.

    Args:
        codes: The codes.
        output: The folder.

    Returns:
        The folder.

    Raises:
        UsageError: If the folder exists.
        EnvironmentFailure: If pyarrow is not installed, or the disk refuses the files.
    """
    pyarrow = import_pyarrow()
    parts, files = manifest.DigestedParts(codes), list[Path]()
    fields = {
        name: {"type": "BINARY_VECTOR", "dim": 8 * spec["bytes"]}
        if "bits" in spec
        else {"type": "FLOAT_VECTOR", "dim": int(np.prod(spec["shape"]))}
        for name, spec in codes.metadata["codes"].items()
    }
    with new_folder(output) as work:
        for start, part in parts:
            for offset in range(0, len(part), ROWS):
                files.append(work / f"part-{len(files):05}.parquet")
                table = _table(pyarrow, part, slice(offset, min(offset + ROWS, len(part))), start)
                with replace_file(files[-1]) as file:
                    pyarrow.parquet.write_table(table, file)
        digests = parts.digests()
        manifest.write(work / "manifest.json", "milvus", codes.metadata, files, fields=fields, codes_sha256=digests)
    return [output]


def _table(pyarrow: Any, part: StoredCodes, rows: slice, start: int) -> Any:
    """The rows of a file; ``start`` is the row of the first code of the part."""
    count = rows.stop - rows.start
    columns = {"row": pyarrow.array(np.arange(start + rows.start, start + rows.stop, dtype=np.int64))}
    columns["path"] = pyarrow.array([manifest.utf8_path(path) for path in part.paths[rows]], pyarrow.string())
    if part.ids is not None:
        columns["id"] = pyarrow.array([manifest.utf8_path(one) for one in part.ids[rows]], pyarrow.string())
    for name in part.metadata["codes"]:
        values = np.ascontiguousarray(part.array(name)[rows]).reshape(count, -1)
        offsets = pyarrow.array(np.arange(count + 1, dtype=np.int32) * values.shape[1])
        columns[name] = pyarrow.ListArray.from_arrays(offsets, pyarrow.array(values.ravel()))
    return pyarrow.table(columns)
