"""Searchable vectors: their codes in a file, a copy of the vectors for re-scoring, and the method that encodes queries.

The copy is a ``.npy`` file beside the index, one row for each vector: float16, or int8 with one scale a row, which the
index holds. It is read row by row, so that memory does not grow with it.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, final, get_args

import numpy as np
from numpy.typing import NDArray

from hashzoo.data.vector_checks import checked_numbers
from hashzoo.data.vector_files import read_vectors
from hashzoo.data.vectors import Matrix, Vectors
from hashzoo.distance import SignedProduct
from hashzoo.errors import EnvironmentFailure, UsageError, printable
from hashzoo.index import Scan
from hashzoo.retrieval import code_file, engines
from hashzoo.retrieval.code_file import CodeCollector, RowNames, StoredCodes
from hashzoo.retrieval.image_index import add_lists, open_encoder
from hashzoo.retrieval.index_search import searcher
from hashzoo.retrieval.vector_encoder import ROWS, VectorEncoder, VectorsLike
from hashzoo.storage.files import replace_file
from hashzoo.types import ProgressCallback

CopyKind = Literal["float16", "int8", "none"]
COPY_KINDS: tuple[CopyKind, ...] = get_args(CopyKind)

FACTOR = 10.0  # k candidates are re-scored if nothing was measured
SCALE = "copy.scale"  # array of an index: (N,) float32, a row of the copy times its scale is the vector
SAMPLED = 64  # rows of a copy whose digest tells it from another one
INT8 = 127


@dataclass(frozen=True)
class VectorHits:
    """What a search found.

    Attributes:
        rows: (Q, k) int64 rows of the database, nearest first; -1 where an engine found fewer.
        scores: (Q, k) float64 exact similarities by the metric, higher is nearer (for ``l2`` minus the squared
            distance); without re-scoring, distances of codes, smaller is nearer.
        exact: Whether candidates were re-scored.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    exact: bool


def copy_path(index: Path) -> Path:
    """The file of the copy of the vectors of an index.

    >>> copy_path(Path("my.index")).name
    'my.index.npy'
    """
    return index.with_name(index.name + ".npy")


def encode_vectors(
    encoder: VectorEncoder,
    vectors: Vectors,
    names: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
) -> StoredCodes:
    """The codes of vectors, with the description of their encoder.

    Args:
        encoder: The encoder.
        vectors: N vectors, opened by it.
        names: The codes to keep; None keeps all.
        progress: Called with the number of encoded vectors and their total.
    """
    collector = CodeCollector(names)
    for codes in encoder.encode_batches(vectors, progress):
        collector.add(codes)
    about = {"metric": encoder.metric, "dim": encoder.dim, "copy": "none", **encoder.choice}
    metadata = {**encoder.describe(), "vectors": about}
    return collector.finish(metadata, Path(vectors.matrix.name), RowNames(len(vectors)))


def build_vectors(
    encoder: VectorEncoder,
    vectors: Vectors,
    output: Path,
    kind: CopyKind = "float16",
    engine: str = "auto",
    progress: ProgressCallback | None = None,
) -> StoredCodes:
    """Write an index of vectors and, unless ``kind`` is ``"none"``, their copy.

    Args:
        encoder: The method that encodes the vectors, and later the queries.
        vectors: N vectors, opened by it.
        output: The index file.
        kind: The numbers of the copy.
        engine: As for :func:`hashzoo.open_index`.
        progress: Called with the number of encoded vectors and their total.

    Returns:
        The content of the index.

    Raises:
        UsageError: If the engine cannot search the codes, or a number is too large for float16.
        EnvironmentFailure: If a vector cannot be used, or the disk fails.
    """
    index = encoder.trained.method.index()
    code = engines.hamming_code(index)
    engines.select_engine(engine, 0, code)
    stored = add_lists(encode_vectors(encoder, vectors, index.reads(), progress), code, engine)
    if kind != "none":
        scales = _write_copy(copy_path(output), vectors, kind)
        about = {**stored.metadata["vectors"], "copy": kind, "digest": sample_digest(_open_copy(output))}
        arrays = stored.arrays if scales is None else {**stored.arrays, SCALE: scales}
        stored = replace(stored, metadata={**stored.metadata, "vectors": about}, arrays=arrays)
    code_file.write(output, stored)
    return stored


def _write_copy(path: Path, vectors: Vectors, kind: CopyKind) -> NDArray[np.float32] | None:
    """Write the copy, block by block; the scales (N,) of int8."""
    dtype = np.dtype("<f2" if kind == "float16" else "i1")
    scales = np.zeros(len(vectors), np.float32)
    header = {"descr": dtype.str, "fortran_order": False, "shape": (len(vectors), vectors.dim)}
    with replace_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(vectors), ROWS):
            rows = vectors.rows[start : start + ROWS]
            values = checked_numbers(vectors, rows)
            if kind == "int8":
                scales[start : start + ROWS] = np.abs(values).max(axis=1) / INT8
                divisor = np.where(scales[start : start + ROWS] > 0, scales[start : start + ROWS], 1)[:, None]
                values = np.round(values / divisor)
            elif (large := np.abs(values).max(axis=1) > np.finfo(np.float16).max).any():
                row = int(rows[np.flatnonzero(large)[0]])
                raise UsageError(
                    f"row {row} of {vectors.matrix.name} has a number that float16 cannot hold; use --rescore int8"
                )
            file.write(values.astype(dtype).tobytes())
    return scales if kind == "int8" else None


def _open_copy(index: Path) -> Matrix:
    """The copy beside an index. EnvironmentFailure if it is missing."""
    path = copy_path(index)
    if not path.is_file():
        raise EnvironmentFailure(
            f"the vectors {printable(path)} of {printable(index)} are missing; put them back, or build the index again"
        )
    return read_vectors(path).matrix


def sample_digest(matrix: Matrix) -> str:
    """A digest of the shape and of some rows of a copy."""
    rows = np.unique(np.linspace(0, matrix.shape[0] - 1, SAMPLED).astype(np.int64))
    total = hashlib.sha256(f"{matrix.kind} {matrix.shape}".encode())
    total.update(np.ascontiguousarray(matrix.read(rows)).data)
    return total.hexdigest()


class VectorCopy:
    """The vectors of an index on disk, for re-scoring and for exports.

    Args:
        index: The index file.
        stored: Its content.

    Raises:
        EnvironmentFailure: If the copy is missing, or is not that of the index.
    """

    def __init__(self, index: Path, stored: StoredCodes) -> None:
        self.matrix, about = _open_copy(index), stored.metadata["vectors"]
        self.metric: str = about["metric"]
        self._scales = stored.arrays.get(SCALE)
        fits = self.matrix.shape == (len(stored), about["dim"]) and self.matrix.kind == about["copy"]
        if not fits or sample_digest(self.matrix) != about.get("digest"):
            raise EnvironmentFailure(f"{self.matrix.name} is not the copy of {printable(index)}; build the index again")

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, D) vectors of some rows."""
        values = self.matrix.read(rows).astype(np.float32)
        return values if self._scales is None else values * self._scales[rows][:, None]

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) similarities of a query (D,) and some rows: inner products, or for ``l2`` minus squared distances.

        For ``cosine``, the query has length 1, and rows are divided by theirs, which rounding has changed.
        """
        values, asked = self.read(rows).astype(np.float64), query.astype(np.float64)
        if self.metric == "l2":
            return np.asarray(-np.square(values - asked).sum(axis=1))
        found = values @ asked
        if self.metric == "cosine":
            length = np.linalg.norm(values, axis=1)
            found = found / np.where(length > 0, length, 1)
        return np.asarray(found)


def open_copy(index: Path, stored: StoredCodes) -> VectorCopy | None:
    """The copy of the vectors of an index; None if it holds codes only, or images."""
    return VectorCopy(index, stored) if stored.metadata.get("vectors", {}).get("copy", "none") != "none" else None


def open_vector_index(
    file: str | os.PathLike[str],
    *,
    run: str | os.PathLike[str] | None = None,
    engine: str = "auto",
    device: str = "cpu",
    plugins: Sequence[str] = (),
) -> VectorIndex:
    """Open an index that ``hashzoo index build --vectors`` wrote.

    Args:
        file: The index.
        run: The method that built it, as for :func:`hashzoo.load_vector_encoder`; needed if it was moved.
        engine: As for :func:`hashzoo.open_index`.
        device: Where queries are encoded.
        plugins: Plugin files or modules to load. They must include every such plugin that the cell was measured with.

    Returns:
        The index.

    Raises:
        UsageError: If there is no such file or cell, it holds images, or the engine cannot search it.
        EnvironmentFailure: If a file is damaged, or the method is not the one that built the index.
    """
    stored = code_file.read(Path(file))
    if not stored.of_vectors:
        raise UsageError(f"{file} holds codes of images; open it with hashzoo.open_index")
    encoder = open_encoder(VectorEncoder, stored, file, run, device=device, plugins=plugins)
    return VectorIndex(stored, encoder, open_copy(Path(file), stored), engine)


@final
class VectorIndex:
    """Codes of N vectors, searched with vectors. Created by :func:`hashzoo.open_vector_index`; ``len(index)`` is N.

    Attributes:
        encoder: The method that encodes queries.
        metadata: The description of the encoder when the index was built, as JSON values.
        engine: The name of the search engine.
        factor: The number of candidates that are re-scored by default, as a multiple of k.
        copy: The vectors for re-scoring; None if the index holds codes only.
    """

    def __init__(
        self, stored: StoredCodes, encoder: VectorEncoder, copy: VectorCopy | None, engine: str = "auto"
    ) -> None:
        self.encoder, self.metadata, self.copy, self._stored = encoder, stored.metadata, copy, stored
        about = stored.metadata["vectors"]
        self.factor = float(about.get("factor", FACTOR))
        self.asymmetric = bool(about.get("asymmetric", False))
        self._name = ""
        index = encoder.trained.method.index()
        if self.asymmetric:  # as it was measured: real queries against bits
            self._name = stored.packed_code().name
            index = Scan(SignedProduct(self._name))
            if engine not in ("auto", "exact"):
                raise UsageError(f"{engine} compares codes, and this index was chosen for real queries; use exact")
        self.engine, self._search = searcher(stored, index, engine, engines.hamming_code(index))

    def __len__(self) -> int:
        return len(self._stored)

    def search(self, queries: VectorsLike, k: int = 10, factor: float | None = None) -> VectorHits:
        """Find the nearest vectors of each query: candidates by code, then in exact order.

        Args:
            queries: A file of vectors, or an array (Q, D) of NumPy or torch.
            k: Vectors to return for each query; at most N are returned.
            factor: ``factor * k`` candidates are re-scored; by default :attr:`factor`. 0 returns the order by code.

        Returns:
            The hits.

        Raises:
            UsageError: If the queries are no vectors of D dimensions, or the index cannot re-score.
            EnvironmentFailure: If a number is not finite, or the copy of the vectors has changed.
        """
        if factor is not None and factor != 0 and factor < 1:
            raise UsageError(f"the factor of candidates must be 1 or more, or 0 for the order by code, not {factor:g}")
        if factor and self.copy is None:
            raise UsageError("this index holds codes only; build it with --rescore float16, or leave out the factor")
        asked = self.encoder.open(queries)
        wanted = 0.0 if self.copy is None else self.factor if factor is None else factor
        k = min(k, len(self))
        count = min(len(self), max(k, math.ceil(wanted * k)))
        codes = {self._name: self.encoder.relaxed(asked)} if self.asymmetric else self.encoder.encode(asked)
        ranking = self._search(codes, count)
        rows, distances = ranking.rows.numpy(), ranking.distances.double().numpy()
        if not wanted or self.copy is None:
            return VectorHits(rows, distances, exact=False)
        return self._rescored(asked, rows, k, self.copy)

    def _rescored(self, asked: Vectors, candidates: NDArray[np.int64], k: int, copy: VectorCopy) -> VectorHits:
        rows, scores = np.full((len(asked), k), -1, np.int64), np.full((len(asked), k), -np.inf)
        for query, listed in enumerate(candidates):
            mine = np.sort(listed[listed >= 0])
            exact = copy.scores(asked.numbers(asked.rows[[query]])[0], mine)
            order = np.argsort(-exact, kind="stable")[:k]  # equal scores in the order of rows
            rows[query, : len(order)], scores[query, : len(order)] = mine[order], exact[order]
        return VectorHits(rows, scores, exact=True)
