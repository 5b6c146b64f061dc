"""Codes for PostgreSQL: a COPY file, and SQL that loads and asks it, with pgvector and without any extension."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hashzoo.errors import UsageError, printable
from hashzoo.export import manifest
from hashzoo.hamming.counting import unpack
from hashzoo.retrieval.code_file import ROWS, KeptCodes
from hashzoo.storage.files import disk_errors, replace_bytes

TABLE, COPIED = "pictures", "pictures.copy"

LOAD = r"""-- {count} images, {method}, {bits} bits. In this folder: psql -v ON_ERROR_STOP=1 -f {file}
{extension}BEGIN;
CREATE TABLE {table} (
  id bigint PRIMARY KEY,
  path text NOT NULL,
{columns}
);
\copy {table} FROM '{copied}' WITH (FORMAT text, ENCODING 'UTF8')
COMMIT;
{index}ANALYZE {table};

-- The 20 nearest to the image in row 0, equal ones in the order of rows:
-- SELECT id, path, {distance} AS distance
--   FROM {table}, (SELECT {code} AS asked FROM {table} WHERE id = 0) AS query
--   ORDER BY distance, id LIMIT 20;
"""


def export(kept: KeptCodes, output: Path, code: str = "") -> list[Path]:
    """Write a folder of ``pictures.copy``, ``pgvector.sql``, ``postgresql.sql`` and the manifest.

    Bits are ``bit(K)``, bit 0 the leftmost; other codes ``real[]``. ``code`` is the one that is asked for in the SQL's
    example and indexed, the first unless named. UsageError where the method stores no bits.
    """
    name, _, _ = kept.packed(code)
    codes = kept.about["codes"]
    kinds = {one: f"bit({told['bits']})" if "bits" in told else "real[]" for one, told in codes.items()}
    if odd := [one for one in kinds if '"' in one or not one.isprintable()]:
        raise UsageError(f"a column cannot be called {odd[0]!r}")
    columns = ",\n".join(f'  "{one}" {kind} NOT NULL' for one, kind in kinds.items())
    common = {
        "count": len(kept),
        "method": printable(kept.about["method"]),
        "bits": codes[name]["bits"],
        "table": TABLE,
        "columns": columns,
        "copied": COPIED,
        "code": f'"{name}"',
    }
    pgvector = LOAD.format(
        **common,
        file="pgvector.sql",
        extension="CREATE EXTENSION IF NOT EXISTS vector;\n",
        index=f'CREATE INDEX ON {TABLE} USING hnsw ("{name}" bit_hamming_ops);\n',
        distance=f'"{name}" <~> asked',
    )
    plain = LOAD.format(
        **common, file="postgresql.sql", extension="", index="", distance=f'bit_count("{name}" # asked)'
    )
    files = {
        COPIED: "".join(lines(kept)).encode(),
        "pgvector.sql": pgvector.encode(),
        "postgresql.sql": plain.encode(),
    }
    with disk_errors("make", output):
        output.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        replace_bytes(output / file, data)
    order = "bit 0 is the leftmost of bit(K)"
    digests = manifest.digests(kept)
    manifest.write(
        output / "manifest.json", "pgvector", kept.about, files, code=name, bit_order=order, codes_sha256=digests
    )
    return [output]


def lines(kept: KeptCodes) -> Iterator[str]:
    """The rows in the text format of COPY: id, path, codes."""
    for start in range(0, len(kept), ROWS):
        some = slice(start, start + ROWS)
        written = []
        for name, told in kept.about["codes"].items():
            rows = kept.arrays[manifest.array_of(name, told)][some]
            if "bits" in told:
                digits = unpack(rows, told["bits"]).astype("u1") + ord("0")  # (n, K)
                written.append([row.tobytes().decode() for row in digits])
            else:
                written.append(["{" + ",".join(map(repr, row)) + "}" for row in rows.reshape(len(rows), -1).tolist()])
        paths = [escaped(manifest.text(path)) for path in kept.paths[some]]
        for row, (path, *codes) in enumerate(zip(paths, *written, strict=True), start):
            yield "\t".join([str(row), path, *codes]) + "\n"


def escaped(value: str) -> str:
    """Text as COPY's text format wants it.

    >>> escaped("a\\tb\\\\c")
    'a\\\\tb\\\\\\\\c'
    """
    for plain, written in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(plain, written)
    return value
