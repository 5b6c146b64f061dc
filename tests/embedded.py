"""Vectors, a method that was fitted on them, their index and the exact neighbors, for tests that search vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashzoo.data.vector_files import read_vectors
from hashzoo.data.vectors import Vectors
from hashzoo.evaluation.truth import exact_neighbours
from hashzoo.results import store
from hashzoo.retrieval.vector_encoder import load_vector_encoder
from hashzoo.retrieval.vector_index import build_vectors
from tests.measured import cell_of

COUNT, QUERIES, DIM, BITS, K, FACTOR = 1500, 60, 24, 24, 10, 5


@dataclass(frozen=True)
class Embedded:
    """Files in a folder: vectors, queries, a cell and an index; the rows of the exact neighbors, and the scores."""

    folder: Path
    cell: Path
    neighbours: NDArray[np.int64]
    metrics: dict[str, float]

    @property
    def vectors(self) -> Path:
        return self.folder / "emb.npy"

    @property
    def queries(self) -> Path:
        return self.folder / "queries.npy"

    @property
    def index(self) -> Path:
        return self.folder / "my.index"

    def recall(self, rows: NDArray[np.int64]) -> float:
        """recall@10 of rows (Q, k) that another program found."""
        pairs = zip(rows.tolist(), self.neighbours.tolist(), strict=True)
        return float(np.mean([len(set(found) & set(exact)) / K for found, exact in pairs]))


def embed(folder: Path, method: str = "itq", metric: str = "cosine") -> Embedded:
    """Fit a method on clustered vectors, measure it, and build an index."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, DIM))
    drawn = centers[rng.integers(0, 40, COUNT + QUERIES)] + 0.6 * rng.normal(size=(COUNT + QUERIES, DIM))
    np.save(folder / "emb.npy", drawn[:COUNT].astype(np.float32))
    np.save(folder / "queries.npy", drawn[COUNT:].astype(np.float32))
    options = {"root": str(folder / "emb.npy"), "queries": str(folder / "queries.npy"), "metric": metric}
    metrics = [f"recall@{K}", f"recall@{K}:f{FACTOR}", f"recall@{K}:f{FACTOR}/asym"]
    changes = {"dataset": "vectors", "backbone": "identity", "bits": [BITS], "metrics": metrics}
    cell = cell_of(folder, method, **changes, set={"vectors": options})
    encoder = load_vector_encoder(cell)
    build_vectors(encoder, encoder.open(folder / "emb.npy"), folder / "my.index")
    database, query = (Vectors(read_vectors(folder / name).matrix) for name in ("emb.npy", "queries.npy"))
    exact = exact_neighbours(query, database, K, metric)
    return Embedded(folder, cell, exact.rows, store.read(cell).metrics)


def unit(file: Path) -> NDArray[np.float32]:
    """The vectors of a file, divided by their lengths."""
    vectors = np.load(file)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
