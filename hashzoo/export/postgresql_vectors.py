"""Export of an index of vectors to PostgreSQL with pgvector: codes as ``bit(K)`` and vectors as ``halfvec(D)``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hashzoo.errors import UsageError, printable
from hashzoo.export import manifest
from hashzoo.hamming.packing import unpack
from hashzoo.retrieval.code_file import CodeParts, StoredCodes, binary_code
from hashzoo.retrieval.vector_encoder import ROWS
from hashzoo.retrieval.vector_index import FACTOR, VectorCopy
from hashzoo.storage.files import disk_errors, replace_bytes, replace_file

TABLE, COPY_FILE, SCRIPT_FILE = "vectors", "vectors.copy", "pgvector.sql"
OPERATORS = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
K = 10  # neighbors of the example
LARGEST = 65504.0  # of float16

SCRIPT = r"""-- {count} vectors, {method}, {bits} bits. In this folder: psql -v ON_ERROR_STOP=1 -f {file}
CREATE EXTENSION IF NOT EXISTS vector;
BEGIN;
CREATE TABLE {table} (
  id bigint PRIMARY KEY,
  code bit({bits}) NOT NULL{column}
);
\copy {table} FROM '{copy_file}' WITH (FORMAT text, ENCODING 'UTF8')
COMMIT;
CREATE INDEX ON {table} USING hnsw (code bit_hamming_ops);
ANALYZE {table};

-- The {k} nearest vectors of row 0: {candidates} candidates by code{rescored}.
-- Encode other queries with hashzoo encode, or with the graph of hashzoo export --to onnx.
-- SET hnsw.ef_search = {ef};
-- {query}
"""


def export(codes: CodeParts, copy: VectorCopy | None, output: Path, code: str = "") -> list[Path]:
    """Write a folder with ``vectors.copy``, ``pgvector.sql`` and the manifest.

    Args:
        codes: The codes.
        copy: The vectors; None writes codes only.
        output: The folder.
        code: The binary code; by default the first.

    Returns:
        The folder.

    Raises:
        UsageError: If there is no such binary code, or a vector has a number that halfvec cannot hold.
        EnvironmentFailure: If the disk refuses the files.
    """
    name, bits = binary_code(codes.metadata, code)
    about, parts = codes.metadata["vectors"], manifest.DigestedParts(codes)
    candidates = math.ceil(float(about.get("factor_by_code", FACTOR)) * K)
    near = f"code <~> (SELECT code FROM {TABLE} WHERE id = 0)"
    query = f"SELECT id FROM {TABLE} ORDER BY {near} LIMIT {K};"
    if copy is not None:
        fine = f"embedding {OPERATORS[about['metric']]} (SELECT embedding FROM {TABLE} WHERE id = 0)"
        coarse = f"SELECT id, embedding FROM {TABLE} ORDER BY {near} LIMIT {candidates}"
        query = f"SELECT id FROM ({coarse}) AS candidates ORDER BY {fine} LIMIT {K};"
    script = SCRIPT.format(
        count=len(codes),
        method=printable(codes.metadata["method"]),
        bits=bits,
        file=SCRIPT_FILE,
        table=TABLE,
        column=f",\n  embedding halfvec({about['dim']}) NOT NULL" if copy is not None else "",
        copy_file=COPY_FILE,
        k=K,
        candidates=candidates if copy is not None else K,
        rescored=", then in exact order" if copy is not None else "",
        ef=max(40, candidates),
        query=query,
    ).encode()
    with disk_errors("create", output):
        output.mkdir(parents=True, exist_ok=True)
    with replace_file(output / COPY_FILE) as file:
        for start, part in parts:
            file.writelines(line.encode() for line in copy_lines(part, copy, name, start))
    replace_bytes(output / SCRIPT_FILE, script)
    manifest.write(
        output / "manifest.json",
        "pgvector",
        codes.metadata,
        [output / COPY_FILE, output / SCRIPT_FILE],
        code=name,
        bit_order=f"bit 0 is the leftmost of bit({bits})",
        codes_sha256=parts.digests(),
    )
    return [output]


def copy_lines(stored: StoredCodes, copy: VectorCopy | None, name: str, first: int) -> Iterator[str]:
    """The rows in the text format of COPY: id (from ``first``), code, embedding."""
    packed = stored.packed_code(name)
    for start in range(0, len(stored), ROWS):
        rows = np.arange(start, min(start + ROWS, len(stored)))
        digits = unpack(packed.rows[rows], packed.bits).astype("u1") + ord("0")
        codes = [row.tobytes().decode() for row in digits]
        if copy is None:
            yield from (f"{first + row}\t{code}\n" for row, code in zip(rows, codes, strict=True))
            continue
        values = copy.read(rows)
        if (large := np.abs(values).max(axis=1) > LARGEST).any():
            place = start + int(np.flatnonzero(large)[0])
            raise UsageError(f"row {place} of {copy.matrix.name} has a number that halfvec cannot hold; scale them")
        for row, code, vector in zip(rows, codes, values, strict=True):
            yield f"{row}\t{code}\t[{','.join(f'{value:.6g}' for value in vector.tolist())}]\n"
