"""Export of codes to PostgreSQL: a COPY file, and SQL that loads and queries it with and without pgvector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hashzoo.errors import UsageError, printable
from hashzoo.export import manifest
from hashzoo.hamming.packing import unpack
from hashzoo.retrieval.code_file import CHUNK_ROWS, StoredCodes
from hashzoo.storage.files import disk_errors, replace_bytes

TABLE, COPY_FILE = "pictures", "pictures.copy"

SCRIPT = r"""-- {count} images, {method}, {bits} bits. In this folder: psql -v ON_ERROR_STOP=1 -f {file}
{extension}BEGIN;
CREATE TABLE {table} (
  id bigint PRIMARY KEY,
  path text NOT NULL,
{columns}
);
\copy {table} FROM '{copy_file}' WITH (FORMAT text, ENCODING 'UTF8')
COMMIT;
{index}ANALYZE {table};

-- The 20 nearest images to the one in row 0; equal distances in the order of rows:
-- SELECT id, path, {distance} AS distance
--   FROM {table}, (SELECT {code} AS query_code FROM {table} WHERE id = 0) AS query
--   ORDER BY distance, id LIMIT 20;
"""


def export(stored: StoredCodes, output: Path, code: str = "") -> list[Path]:
    """Write a folder with ``pictures.copy``, ``pgvector.sql``, ``postgresql.sql`` and the manifest.

    A binary code is ``bit(K)`` with bit 0 on the left; any other code is ``real[]``.

    Args:
        stored: The codes.
        output: The folder.
        code: The binary code that the SQL indexes and its example queries; by default the first.

    Returns:
        The folder.

    Raises:
        UsageError: If there is no such binary code, or the name of a code cannot be a column name.
        EnvironmentFailure: If the disk refuses the files.
    """
    scripts = _scripts(stored, code)
    files = {COPY_FILE: "".join(copy_lines(stored)).encode(), **scripts}
    with disk_errors("create", output):
        output.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        replace_bytes(output / file, data)
    manifest.write(
        output / "manifest.json",
        "pgvector",
        stored.metadata,
        files,
        code=stored.packed_code(code).name,
        bit_order="bit 0 is the leftmost of bit(K)",
        codes_sha256=manifest.code_digests(stored),
    )
    return [output]


def _scripts(stored: StoredCodes, code: str) -> dict[str, bytes]:
    """The SQL files by name."""
    name, bits, _ = stored.packed_code(code)
    codes = stored.metadata["codes"]
    if invalid := [column for column in codes if '"' in column or not column.isprintable()]:
        raise UsageError(f"a code named {invalid[0]!r} cannot be a column of a table; choose another format")
    types = {column: f"bit({spec['bits']})" if "bits" in spec else "real[]" for column, spec in codes.items()}
    common = {
        "count": len(stored),
        "method": printable(stored.metadata["method"]),
        "bits": bits,
        "table": TABLE,
        "columns": ",\n".join(f'  "{column}" {kind} NOT NULL' for column, kind in types.items()),
        "copy_file": COPY_FILE,
        "code": f'"{name}"',
    }
    pgvector = SCRIPT.format(
        **common,
        file="pgvector.sql",
        extension="CREATE EXTENSION IF NOT EXISTS vector;\n",
        index=f'CREATE INDEX ON {TABLE} USING hnsw ("{name}" bit_hamming_ops);\n',
        distance=f'"{name}" <~> query_code',
    )
    plain = SCRIPT.format(
        **common, file="postgresql.sql", extension="", index="", distance=f'bit_count("{name}" # query_code)'
    )
    return {"pgvector.sql": pgvector.encode(), "postgresql.sql": plain.encode()}


def copy_lines(stored: StoredCodes) -> Iterator[str]:
    """The rows in the text format of COPY: id, path, codes."""
    for start in range(0, len(stored), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        columns = []
        for name, spec in stored.metadata["codes"].items():
            rows = stored.array(name)[chunk]
            if "bits" in spec:
                digits = unpack(rows, spec["bits"]).astype("u1") + ord("0")  # (n, K)
                columns.append([row.tobytes().decode() for row in digits])
            else:
                columns.append(["{" + ",".join(map(repr, row)) + "}" for row in rows.reshape(len(rows), -1).tolist()])
        paths = [escape(manifest.utf8_path(path)) for path in stored.paths[chunk]]
        for row, (path, *codes) in enumerate(zip(paths, *columns, strict=True), start):
            yield "\t".join([str(row), path, *codes]) + "\n"


def escape(value: str) -> str:
    """Text escaped for the text format of COPY.

    >>> escape("a\\tb\\\\c")
    'a\\\\tb\\\\\\\\c'
    """
    for character, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(character, escaped)
    return value
