"""Export of an index of vectors as one index of faiss that takes vectors: codes first, then exact order.

The index is ``IndexRefine(IndexPreTransform(..., IndexLSH), IndexScalarQuantizer)``: vectors are transformed to the
real values whose signs are the bits, candidates are found by Hamming distance, and ordered by float16 vectors. A faiss
index of bits alone takes codes that are encoded elsewhere; :mod:`hashzoo.export.faiss` writes that one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import UsageError
from hashzoo.export import faiss, manifest
from hashzoo.hamming.packing import unpack
from hashzoo.retrieval.code_file import StoredCodes
from hashzoo.retrieval.engines import hamming_code, import_faiss
from hashzoo.retrieval.vector_encoder import ROWS, VectorEncoder
from hashzoo.retrieval.vector_index import FACTOR, VectorCopy
from hashzoo.storage.files import replace_file

TOLERANCE = 1e-4  # of a value, relative to the largest one: float32 rounds the two sums differently
CHECKED = 256  # stored vectors whose bits the transform must give


def export(encoder: VectorEncoder, stored: StoredCodes, copy: VectorCopy, output: Path) -> list[Path]:
    """Write an index of faiss that takes float32 vectors, and the manifest.

    A method whose values are not an affine map of the vector gets an index of bits instead, and so does one that does
    not rank by the Hamming distance of its code.

    Args:
        encoder: The method of the index.
        stored: The codes.
        copy: The vectors.
        output: The index file.

    Returns:
        The files written.

    Raises:
        UsageError: If the method stores no binary code.
        EnvironmentFailure: If faiss is not installed, or the disk refuses the files.
    """
    library = import_faiss()
    map_ = _affine(encoder, stored, copy) if hamming_code(encoder.trained.method.index()) else None
    if map_ is None:
        return faiss.export(stored, output)
    index, _parts = _index(library, *map_, encoder.metric)
    for start in range(0, len(stored), ROWS):
        index.add(_input(copy.read(np.arange(start, min(start + ROWS, len(stored)))), encoder.metric))
    index.k_factor = float(stored.metadata["vectors"].get("factor_by_code", FACTOR))
    with replace_file(output) as file:
        library.write_index(index, library.PyCallbackIOWriter(file.write))
    manifest_file = manifest.manifest_path(output)
    manifest.write(
        manifest_file,
        "faiss",
        stored.metadata,
        [output],
        takes="float32 vectors (N, dim), divided by their lengths" if encoder.metric == "cosine" else "float32 vectors",
        k_factor=index.k_factor,
        codes_sha256=manifest.code_digests(stored),
    )
    return [output, manifest_file]


def _input(values: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """Vectors as the index takes them; the copy of a vector of length 1 has been rounded."""
    if metric == "cosine":
        length = np.linalg.norm(values, axis=1, keepdims=True)
        values = (values / np.where(length > 0, length, 1)).astype(np.float32)
    return np.ascontiguousarray(values, dtype=np.float32)


def _index(library: Any, matrix: NDArray[np.float32], offset: NDArray[np.float32], metric: str) -> tuple[Any, Any]:
    """The empty index of a map x -> x A + b, and its parts, to which it holds pointers only."""
    dim, bits = matrix.shape
    linear = library.LinearTransform(dim, bits, True)
    library.copy_array_to_vector(np.ascontiguousarray(matrix.T).ravel(), linear.A)
    library.copy_array_to_vector(offset, linear.b)
    linear.is_trained = True
    signs = library.IndexLSH(bits, bits, False, False)
    coarse = library.IndexPreTransform(linear, signs)
    kind = library.METRIC_L2 if metric == "l2" else library.METRIC_INNER_PRODUCT
    coarse.metric_type = kind
    fine = library.IndexScalarQuantizer(dim, library.ScalarQuantizer.QT_fp16, kind)
    index = library.IndexRefine(coarse, fine)
    return index, (linear, signs, coarse, fine)


def _affine(
    encoder: VectorEncoder, stored: StoredCodes, copy: VectorCopy
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """A (D, K) and b (K,), if the values whose signs are the bits are x A + b; None otherwise."""
    rows = np.unique(np.linspace(0, len(stored) - 1, CHECKED).astype(np.int64))
    examples = _input(copy.read(rows), encoder.metric)
    values = _values_of(encoder)
    try:
        offset = values(np.zeros((1, encoder.dim), np.float32))[0]
        matrix = values(np.eye(encoder.dim, dtype=np.float32)) - offset
        expected = values(examples)
    except UsageError:
        return None
    made = examples @ matrix + offset
    sure = np.abs(expected) > TOLERANCE * np.abs(expected).max()
    bits = unpack(stored.packed_code().rows[rows], matrix.shape[1])
    near = np.allclose(made, expected, atol=TOLERANCE * float(np.abs(expected).max()), rtol=0)
    return (matrix, offset) if near and (((made >= 0) == bits) | ~sure).mean() > 1 - TOLERANCE * 100 else None


def _values_of(encoder: VectorEncoder) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    def values(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(encoder.values(vectors).numpy())

    return values
