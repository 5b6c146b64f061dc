"""Vectors of the user: embeddings in a file, with or without queries and labels.

The id of a vector is its row; those of queries in a file of their own go on after the last row.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import (
    SourceFinding,
    Split,
    Splits,
    UsageError,
    VectorFile,
    Vectors,
    printable,
    read_label_file,
    read_vectors,
)
from hashzoo_plugins.datasets.pool import TRAIN_IN_DATABASE

QUERIES = 1000  # the largest default number of queries
TRAIN = 100_000  # the largest default number of training vectors


def vectors(
    *,
    root: Path,
    queries: Path | None = None,
    metric: Literal["cosine", "ip", "l2"] | None = None,
    labels: Path | None = None,
    query_labels: Path | None = None,
    key: str = "",
    query: float | None = None,
    train: float | None = None,
    seed: int = 0,
) -> Splits:
    """Your own vectors, such as embeddings: .npy, .npz, .safetensors, .fvecs, .fbin, HDF5, Parquet or Arrow.

    ``root`` is the file of the database, ``queries`` that of the queries; without it, ``query`` vectors (a number, or a
    fraction below 1; by default a tenth, at most 1,000) are drawn with ``seed`` and left out of the database.
    ``metric`` decides the exact neighbors; it is by default that of the file, or cosine, which divides each vector by
    its length.
    ``key`` is the name of an array or column. ``train`` vectors of the database are learned from, by default at most
    100,000. ``labels`` (and ``query_labels``, for ``queries``) are optional: one class or multi-hot row for each.
    """
    if not isinstance(root, str | os.PathLike):
        raise UsageError("the dataset vectors needs --root FILE, a file of vectors")
    file = read_vectors(Path(root), key)
    chosen = _metric(file, metric, Path(root))
    unit = chosen == "cosine"
    total, dim = file.matrix.shape
    asked = _queries(file, queries, Path(root))
    if asked is not None and query is not None:
        raise UsageError("vectors.query draws queries, and there is a file of them; leave out one of the two")
    count = _count("query", query, total, min(QUERIES, max(1, total // 10)))
    held = _draw(total, count, f"queries {seed}") if asked is None else np.arange(0)
    rest = np.setdiff1d(np.arange(total), held)
    if not len(rest):
        raise UsageError(f"vectors.query = {query} leaves none of the {total:,} rows of {printable(root)} to search")
    images = Vectors(file.matrix, held, unit=unit) if asked is None else Vectors(asked.matrix, unit=unit)
    if images.dim != dim:
        raise UsageError(
            f"{images.matrix.name} has {images.dim} columns and {file.matrix.name} has {dim}; give queries "
            "of the same model"
        )
    ids = held if asked is None else total + np.arange(len(images))
    hot = [None if path is None else _beside(Path(path), Path(root)) for path in (labels, query_labels)]
    known = _labels(hot[0], hot[1], total, rest, None if asked is None else len(ids))
    database = Split(Vectors(file.matrix, rest, unit=unit), known[0], torch.from_numpy(rest))
    part = _draw(len(rest), _count("train", train, len(rest), min(TRAIN, len(rest))), f"train {seed}")
    return Splits(
        train=database.take(torch.from_numpy(part)),
        database=database,
        query=Split(images, known[1], torch.from_numpy(ids)),
        multilabel=known[3],
        class_names=known[2],
        notes=TRAIN_IN_DATABASE,
        source=f"{dim} x {file.matrix.kind}, {chosen}",
        findings=(_found(asked, queries, total, len(ids), seed),),
        metric=chosen,
    )


def _found(asked: VectorFile | None, queries: Path | None, total: int, count: int, seed: int) -> SourceFinding:
    """Where the queries come from, if not from a file of their own."""
    if asked is None:
        return SourceFinding("held-out-queries", count, total, (), f"by vectors.seed = {seed}")
    inside = count if queries is None else 0  # the file of the vectors has them
    return SourceFinding("read-as-parts", inside, total + count, (asked.matrix.name,))


def _metric(file: VectorFile, metric: str | None, root: Path) -> str:
    if metric and file.metric and metric != file.metric:
        raise UsageError(
            f"{printable(root)} is made for the metric {file.metric}, not {metric}; leave out "
            "vectors.metric, or save its vectors without it"
        )
    return metric or file.metric or "cosine"


def _queries(file: VectorFile, queries: Path | None, root: Path) -> VectorFile | None:
    """The file of the queries, or the queries in the file of the vectors; None if there are none."""
    if queries is None:
        return None if file.queries is None else VectorFile(file.queries)
    return read_vectors(_beside(Path(queries), root), names=("queries", "query", "test", "vectors", "embeddings"))


def _beside(path: Path, root: Path) -> Path:
    """A file by its path, or by its name in the folder of the vectors."""
    return root.parent / path if not path.exists() and (root.parent / path).exists() else path


def _count(name: str, given: float | None, total: int, default: int) -> int:
    """The number of vectors for an option that is a fraction or a number."""
    if given is None:
        return default
    if given <= 0 or (given >= 1 and given != int(given)):
        raise UsageError(f"vectors.{name} must be a fraction below 1 or a whole number of vectors, not {given}")
    count = max(1, round(given * total)) if given < 1 else int(given)
    if count > total:
        raise UsageError(
            f"vectors.{name} = {given} is more than the {total:,} vectors there are; give a smaller number"
        )
    return count


def _draw(total: int, count: int, name: str) -> NDArray[np.int64]:
    """Some of ``total`` rows in increasing order, drawn by a hash of each row: the same on every machine.

    >>> _draw(10, 3, "queries 0").tolist() == _draw(10, 3, "queries 0").tolist(), len(_draw(10, 10, "a"))
    (True, 10)
    """
    if count >= total:
        return np.arange(total)
    start = int.from_bytes(hashlib.sha256(f"vectors {name}".encode()).digest()[:8], "little")
    keys = np.arange(total, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):  # splitmix64
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    return np.sort(np.argsort(keys, kind="stable")[:count])


def _labels(
    labels: Path | None, query_labels: Path | None, total: int, rest: NDArray[np.int64], queries: int | None
) -> tuple[Tensor, Tensor, tuple[str, ...], bool]:
    """Labels of database and queries, names of the classes, and whether a vector can have several."""
    if labels is None:
        if query_labels is not None:
            raise UsageError("vectors.query_labels needs vectors.labels, the labels of the database; give both")
        count = total - len(rest) if queries is None else queries
        return torch.zeros(len(rest), 0), torch.zeros(count, 0), (), False
    if (queries is None) != (query_labels is None):
        cure = "give vectors.query_labels too" if queries is not None else "leave out vectors.query_labels"
        raise UsageError(f"queries {'in a file' if queries is not None else 'drawn from the rows'}: {cure}")
    counts = [total] if queries is None else [total, queries]
    files = [path for path in (labels, query_labels) if path is not None]
    hot, names, several = read_label_file(files, counts)
    held = np.setdiff1d(np.arange(total), rest)
    return hot[0][rest], hot[0][held] if queries is None else hot[1], names, several
