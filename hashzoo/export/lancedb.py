"""Export of codes as a LanceDB table, to be searched with ``distance_type("hamming")``."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from hashzoo.errors import EnvironmentFailure
from hashzoo.export import manifest
from hashzoo.export.parquet import build_table, import_pyarrow
from hashzoo.retrieval.code_file import CodeParts
from hashzoo.retrieval.vector_index import VectorCopy
from hashzoo.storage.files import new_folder

TABLE, TABLE_OF_VECTORS = "images", "vectors"


def export(codes: CodeParts, output: Path, copy: VectorCopy | None = None) -> list[Path]:
    """Write a new database folder with the table ``images`` or ``vectors`` and the manifest, atomically.

    Each code is a list of uint8, its packed bytes.

    Args:
        codes: The codes.
        output: The folder to create.
        copy: The vectors, for a column ``vector``.

    Returns:
        The folder.

    Raises:
        UsageError: If the folder exists.
        EnvironmentFailure: If lancedb is not installed, or the disk refuses the files.
    """
    try:
        import lancedb
    except ImportError:
        raise EnvironmentFailure("this needs lancedb; pip install 'hashzoo[lancedb]'") from None
    pyarrow = import_pyarrow("lancedb")
    with new_folder(output) as work:
        table = TABLE_OF_VECTORS if "vectors" in codes.metadata else TABLE
        parts = manifest.DigestedParts(codes)
        tables = (build_table(pyarrow, part, copy, start, bytes_as_lists=True) for start, part in parts)
        first = next(tables)
        batches = (batch for one in chain([first], tables) for batch in one.to_batches())
        lancedb.connect(str(work)).create_table(table, data=batches, schema=first.schema)
        digests = parts.digests()
        manifest.write(work / "manifest.json", "lancedb", codes.metadata, [], table=table, codes_sha256=digests)
    return [output]
