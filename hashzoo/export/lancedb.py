"""Codes as a table of LanceDB, to be searched by ``distance_type("hamming")``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.export import manifest
from hashzoo.export.parquet import arrow, table
from hashzoo.retrieval.code_file import KeptCodes
from hashzoo.storage.files import disk_errors

TABLE = "pictures"


def export(kept: KeptCodes, output: Path) -> list[Path]:
    """Write a new database folder with the table ``images`` and the manifest, all or nothing.

    Codes are lists of uint8, a byte each. UsageError where the folder exists; EnvironmentFailure where lancedb is not
    there.
    """
    try:
        import lancedb
    except ImportError:
        raise EnvironmentFailure("this needs lancedb; pip install 'hashzoo[lancedb]'") from None
    pyarrow = arrow("lancedb")
    if output.exists():
        raise UsageError(f"{output} exists; name a new folder, or remove it")
    with disk_errors("write", output):
        work = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.absolute().parent))
        try:
            lancedb.connect(str(work)).create_table(TABLE, data=table(pyarrow, kept, listed=True))
            told = manifest.digests(kept)
            manifest.write(work / "manifest.json", "lancedb", kept.about, {}, table=TABLE, codes_sha256=told)
            work.chmod(0o755)
            work.rename(output)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return [output]
