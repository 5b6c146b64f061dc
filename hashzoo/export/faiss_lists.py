"""Export of a binary code as indexes of lists (``IndexBinaryIVF`` of faiss), one for each range of rows.

All have the same centers, so that the lists of several machines can be searched, or merged, as one index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import UsageError
from hashzoo.export import manifest
from hashzoo.export.faiss import path_line, write_index
from hashzoo.retrieval.code_file import CodeParts, binary_code
from hashzoo.retrieval.engines import (
    CODES_PER_LIST,
    binary_ivf,
    build_lists,
    import_faiss,
    nearest_centers,
    train_centers,
)
from hashzoo.storage.files import new_folder, replace_bytes

ROWS = 10_000_000  # of an index: 160 MB at 64 bits, with its row numbers


def export(codes: CodeParts, output: Path, code: str = "", rows: int = ROWS, seed: int = 0) -> list[Path]:
    """Write a new folder with ``codes-00000.faiss``, ``paths-00000.txt``, ..., and the manifest.

    The ids of an index are row numbers of the collection. ``nprobe`` is set so that a query finds 99.5 % of its 100
    nearest codes in the first index.

    Args:
        codes: The codes.
        output: The folder.
        code: Name of the binary code; by default ``code``, or else the first.
        rows: Codes of an index.
        seed: Seed of the sample that the centers are computed from.

    Returns:
        The folder.

    Raises:
        UsageError: If there is no such code, there are too few codes, or the folder exists.
        EnvironmentFailure: If faiss is not installed, or the disk refuses the files.
    """
    name, bits = binary_code(codes.metadata, code)
    library, lists = import_faiss(), max(1, round(len(codes) ** 0.5))
    if len(codes) < CODES_PER_LIST:
        raise UsageError(f"faiss-ivf needs {CODES_PER_LIST} codes or more, not {len(codes)}; use faiss")
    sample, parts = _sample(codes, name, CODES_PER_LIST * lists, seed), manifest.DigestedParts(codes)
    centers = train_centers(sample, lists, seed)
    files, ranges = list[Path](), list[dict[str, Any]]()
    with new_folder(output) as work:
        for number, (start, packed, lines) in enumerate(_shards(parts, name, rows)):
            if not number:
                found = build_lists(packed, seed=seed, centers=centers)  # measures how many lists to search
            else:
                found = replace(found, assignments=nearest_centers(centers, packed))
            file, named = work / f"codes-{number:05}.faiss", work / f"paths-{number:05}.txt"
            write_index(library, binary_ivf(packed, found, start), file)
            replace_bytes(named, lines)
            files += [file, named]
            ranges.append({"file": file.name, "paths": named.name, "start": start, "rows": len(packed)})
        manifest.write(
            work / "manifest.json",
            "faiss-ivf",
            codes.metadata,
            files,
            code=name,
            dimension=-(-bits // 8) * 8,
            lists=len(centers),
            nprobe=found.probes,
            shards=ranges,
            codes_sha256=parts.digests(),
        )
    return [output]


def _sample(codes: CodeParts, name: str, count: int, seed: int) -> NDArray[np.uint8]:
    """Packed codes of a random sample of rows."""
    rows = np.sort(np.random.default_rng(seed).choice(len(codes), min(len(codes), count), replace=False))
    found, start = list[NDArray[np.uint8]](), 0
    for part in codes.parts():
        inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(part))]
        found.append(part.array(name)[inside - start])
        start += len(part)
    return np.concatenate(found)


def _shards(parts: manifest.DigestedParts, name: str, rows: int) -> Iterator[tuple[int, NDArray[np.uint8], bytes]]:
    """Runs of ``rows`` codes: the first row, the packed codes, and the lines of their paths or ids."""
    waiting, lines, first, count = list[NDArray[np.uint8]](), list[bytes](), 0, 0
    for _, part in parts:
        packed, names, taken = part.array(name), part.names, 0
        while taken < len(part):
            stop = min(len(part), taken + rows - count)
            waiting.append(packed[taken:stop])
            lines += map(path_line, names[taken:stop])
            count, taken = count + stop - taken, stop
            if count == rows:
                yield first, np.concatenate(waiting), b"".join(lines)
                waiting, lines, first, count = [], [], first + rows, 0
    if count:
        yield first, np.concatenate(waiting), b"".join(lines)
