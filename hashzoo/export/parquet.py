"""Codes as an Arrow table: in a Parquet file, or for what else takes one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.errors import EnvironmentFailure
from hashzoo.export import manifest
from hashzoo.retrieval.code_file import KeptCodes
from hashzoo.storage.files import replace_bytes


def arrow(extra: str = "parquet") -> Any:
    """The library. EnvironmentFailure naming the extra where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise EnvironmentFailure(f"this needs pyarrow; pip install 'hashzoo[{extra}]'") from None
    return pyarrow


def table(pyarrow: Any, kept: KeptCodes, listed: bool) -> Any:
    """Columns ``row``, ``path`` and one for each code: bytes of fixed length, or with ``listed`` lists of uint8.

    What is no bits is a list of numbers.
    """
    columns: dict[str, Any] = {
        "row": pyarrow.array(np.arange(len(kept), dtype=np.int64)),
        "path": pyarrow.array([manifest.text(path) for path in kept.paths], pyarrow.string()),
    }
    for name, told in kept.about["codes"].items():
        array = np.ascontiguousarray(kept.arrays[manifest.array_of(name, told)]).reshape(len(kept), -1)
        if "bits" in told and not listed:
            kind = pyarrow.binary(array.shape[1])
            columns[name] = pyarrow.Array.from_buffers(kind, len(kept), [None, pyarrow.py_buffer(array)])
        else:
            columns[name] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(array.ravel()), array.shape[1])
    return pyarrow.table(columns)


def export(kept: KeptCodes, output: Path) -> list[Path]:
    """Write a Parquet file, with the manifest in its metadata under ``hashzoo`` as well as beside it.

    EnvironmentFailure where pyarrow is not installed.
    """
    pyarrow = arrow()
    made = table(pyarrow, kept, listed=False).replace_schema_metadata({"hashzoo": json.dumps(kept.about)})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(made, buffer)
    data = buffer.getvalue()
    replace_bytes(output, data)
    manifest.write(
        manifest.beside(output), "parquet", kept.about, {output.name: data}, codes_sha256=manifest.digests(kept)
    )
    return [output, manifest.beside(output)]
