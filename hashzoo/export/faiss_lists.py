"""Export of a binary code as indexes of lists (``IndexBinaryIVF`` of faiss), one for each range of rows.

All have the same centers, so that the lists of several machines can be searched, or merged, as one index.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import UsageError
from hashzoo.export import manifest
from hashzoo.export.faiss import path_line, write_index
from hashzoo.retrieval.code_file import CodeParts, binary_code
from hashzoo.retrieval.engines import CODES_PER_LIST, build_lists, import_faiss, nearest_centers, train_centers
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
    probes, files, ranges = 0, list[Path](), list[dict[str, Any]]()
    with new_folder(output) as work:
        for number, (start, packed, lines) in enumerate(_shards(parts, name, rows)):
            probes = probes or build_lists(packed, len(centers), seed, centers).probes
            file, named = work / f"codes-{number:05}.faiss", work / f"paths-{number:05}.txt"
            write_index(library, _index(library, centers, packed, start, probes), file)
            replace_bytes(named, lines)
            files += [file, named]
            ranges.append({"file": file.name, "paths": named.name, "start": start, "rows": len(packed)})
        more = {"code": name, "dimension": -(-bits // 8) * 8, "lists": len(centers), "nprobe": probes, "shards": ranges}
        digests = parts.digests()
        manifest.write(work / "manifest.json", "faiss-ivf", codes.metadata, files, **more, codes_sha256=digests)
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
    """Runs of ``rows`` codes: the first row, the packed codes, and the lines of their paths."""
    waiting, lines, first, count = list[NDArray[np.uint8]](), list[bytes](), 0, 0
    for _, part in parts:
        packed, paths, taken = part.array(name), part.paths, 0
        while taken < len(part):
            stop = min(len(part), taken + rows - count)
            waiting.append(packed[taken:stop])
            lines += map(path_line, paths[taken:stop])
            count, taken = count + stop - taken, stop
            if count == rows:
                yield first, np.concatenate(waiting), b"".join(lines)
                waiting, lines, first, count = [], [], first + rows, 0
    if count:
        yield first, np.concatenate(waiting), b"".join(lines)


def _index(library: Any, centers: NDArray[np.uint8], packed: NDArray[np.uint8], start: int, probes: int) -> Any:
    """The index of a run of codes."""
    bits = 8 * packed.shape[1]
    quantizer = library.IndexBinaryFlat(bits)
    quantizer.add(centers)
    index = library.IndexBinaryIVF(quantizer, bits, len(centers))
    index.is_trained, index.nprobe, index.referenced_objects = True, probes, [quantizer]
    packed, lists = np.ascontiguousarray(packed), nearest_centers(centers, packed).astype(np.int64)
    ids = np.arange(start, start + len(packed), dtype=np.int64)
    index.add_core(len(packed), library.swig_ptr(packed), library.swig_ptr(ids), library.swig_ptr(lists))
    return index
