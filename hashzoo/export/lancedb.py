"""Codes as a table of LanceDB, to be searched by ``distance_type("hamming")``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hashzoo.cells import trouble
from hashzoo.errors import TroubleError, UsageError
from hashzoo.export import manifest
from hashzoo.export.parquet import arrow, table
from hashzoo.kept_codes import KeptCodes

TABLE = "pictures"


def export(kept: KeptCodes, output: Path) -> list[Path]:
    """Write a new database folder with the table ``pictures`` and the manifest, all or nothing.

    Codes are lists of uint8, a byte each. UsageError where the folder exists; TroubleError where lancedb is not there.
    """
    try:
        import lancedb
    except ImportError:
        raise TroubleError("this needs lancedb; pip install 'hashzoo[lancedb]'") from None
    pyarrow = arrow("lancedb")
    if output.exists():
        raise UsageError(f"{output} exists; name a new folder, or remove it")
    with trouble("write", output):
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
